"""A run is a folder: config.toml, metrics.jsonl, weights.safetensors, vocabulary.json, resume.safetensors.

Every file is written under a temporary name and renamed, so that a crash leaves the old one or the new one.
weights.safetensors holds the best weights so far (the last ones without validation); resume.safetensors holds the
last ones with all that going on needs: optimiser, position, carried state, random numbers.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from throughtime import inference
from throughtime.data import Text, Vocabulary
from throughtime.nets import build
from throughtime.shapes import Tensor
from throughtime.state import flatten, unflatten
from throughtime.version import __version__

FORMAT = 1
CONFIG, METRICS, WEIGHTS, RESUME, VOCABULARY = (
    "config.toml",
    "metrics.jsonl",
    "weights.safetensors",
    "resume.safetensors",
    "vocabulary.json",
)
MATCHED = ("credit", "streams", "steps", "chunks")
"""What must be as it was, of the training section, for a run to go on; the optimiser and the text beside it."""


class Run:
    """A run folder opened for reading, and for `train` to go on writing.

    Raises FileNotFoundError or ValueError, with a sentence, when the folder is not a run, is damaged, or was
    written by a newer version of the library.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = self.path / CONFIG
        if not file.is_file():
            what = "is not a run: it has no config.toml" if self.path.exists() else "does not exist"
            raise FileNotFoundError(f"run must be a folder that `train` made; {self.path} {what}.")
        try:
            self.config: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} is damaged: {error}. Restore it, or train again.") from error
        written = self.config.get("format")
        if not isinstance(written, int):
            raise ValueError(f"{file} is damaged: it names no format. Restore it, or train again.")
        if written > FORMAT:
            raise ValueError(
                f"{self.path} has format {written}, of a newer throughtime ({self.config.get('throughtime')}); "
                f"this one reads up to {FORMAT}. Update throughtime."
            )

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any], vocabulary: Vocabulary | None = None) -> Run:
        """Make the folder. Raises FileExistsError when something is there already."""
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FileExistsError(f"run must be a new folder; {path} exists. Resume it, or give another name.")
        whole = tomli_w.dumps({"format": FORMAT, "throughtime": __version__, **_plain(config)})
        path.mkdir(parents=True, exist_ok=True)
        if vocabulary is not None:
            _write(path / VOCABULARY, lambda file: file.write_text(vocabulary.to_json(), encoding="utf-8"))
        _write(path / CONFIG, lambda file: file.write_text(whole, encoding="utf-8"))
        return cls(path)

    def amend(self, sections: Mapping[str, Any]) -> None:
        """Put sections of config.toml in the place of those there."""
        self.config = {**self.config, **_plain(sections)}
        _write(self.path / CONFIG, lambda file: file.write_text(tomli_w.dumps(self.config), encoding="utf-8"))

    def discard(self) -> None:
        """Remove the folder: for a training that failed before there was anything to keep."""
        shutil.rmtree(self.path)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of a text run."""
        file = self.path / VOCABULARY
        if not file.is_file():
            raise FileNotFoundError(f"{self.path} has no {VOCABULARY}: it was not trained on text.")
        try:
            return Vocabulary.from_json(file.read_text(encoding="utf-8"))
        except (ValueError, KeyError) as error:
            raise ValueError(f"{file} is damaged: {error}. Restore it, or train again.") from error

    @cached_property
    def net(self) -> nn.Module:
        """The network with its saved weights, on the CPU, in evaluation mode."""
        config = self.config.get("network", {})
        if "network" not in config:
            raise ValueError(
                f"{self.path} was trained on a network of your own. Build it, then call load_weights(net)."
            )
        try:
            net = build(config)
        except (KeyError, TypeError, ValueError) as error:
            file = self.path / CONFIG
            raise ValueError(f"{file} is damaged: its network cannot be built ({error}). Restore it.") from error
        self.load_weights(net)
        return net.eval()

    def load_weights(self, net: nn.Module) -> None:
        """Put the saved weights into a network of the same shape."""
        fill(net, _tensors(self.path / WEIGHTS), self.path / WEIGHTS)

    def save_weights(self, net: nn.Module) -> None:
        _write(self.path / WEIGHTS, lambda file: file.write_bytes(save(_own(weights_of(net)))))

    def save_resume(self, tree: Mapping[str, Any]) -> None:
        """All that going on needs."""
        self.save_tree(RESUME, tree)

    def load_resume(self, kinds: Iterable[type]) -> dict[str, Any]:
        hint = "Resume with the credit and the version that wrote it, or train again."
        return self.load_tree(RESUME, kinds, hint)

    def save_tree(self, name: str, tree: Mapping[str, Any]) -> None:
        """A tree of `flatten` in one file: tensors, and the rest in its header."""
        skeleton, tensors = flatten(dict(tree), Path(name).stem)
        header = {"format": str(FORMAT), "skeleton": json.dumps(skeleton)}
        _write(self.path / name, lambda file: file.write_bytes(save(_own(tensors), header)))

    def load_tree(self, name: str, kinds: Iterable[type] = (), hint: str = "Restore it.") -> dict[str, Any]:
        """The tree of a file; kinds are the dataclasses that may stand in it."""
        file = self.path / name
        tensors = _tensors(file)
        with safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
        if "skeleton" not in header:
            raise ValueError(f"{file} is damaged: it has no header. Train again.")
        try:
            return unflatten(json.loads(header["skeleton"]), tensors, kinds)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} does not fit: {error}. {hint}") from error

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl; numbers that JSON has no word for become null."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean(record)) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that a crash cut short is left out."""
        file = self.path / METRICS
        found = []
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return found

    def must_match(self, training: Mapping[str, Any], text: Text | None) -> None:
        """Raise ValueError unless what was saved was trained with this: the training section, and the text if any."""
        saved = self.config.get("training", {})
        pairs = [(name, saved.get(name, training[name]), training[name]) for name in MATCHED]
        optimizer = training["optimizer"]["name"]
        pairs.append(("optimizer", saved.get("optimizer", {}).get("name", optimizer), optimizer))
        if text is not None and "sha256_of_ids" in self.config.get("text", {}):
            pairs.append(("text", self.config["text"]["sha256_of_ids"], text.fingerprint))
        for name, then, now in pairs:
            if then != now:
                raise ValueError(f"{name} must be as {self.path} was trained with, {then}; got {now}. Make a new run.")

    def rewind(self, update: int) -> None:
        """Forget the log after an update, as a resumed run makes it again."""
        kept = "".join(json.dumps(record) + "\n" for record in self.records() if record["update"] <= update)
        _write(self.path / METRICS, lambda file: file.write_text(kept, encoding="utf-8"))

    def evaluate(self, source: str | Path | Text, steps: int = 256) -> inference.Score:
        """Nats over a file, or over the training part of a Text (the whole of it with split=None), in one stream."""
        text = source if isinstance(source, Text) else Text(source, split=None, vocabulary=self.vocabulary)
        if text.vocabulary != self.vocabulary:
            raise ValueError(
                "text must have the vocabulary of the run. Make it with Text(..., vocabulary=run.vocabulary)."
            )
        return inference.evaluate(self.net, text.chunks(streams=1, steps=steps))

    def sample(
        self,
        prompt: str = "",
        length: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | None = None,
    ) -> str:
        """A text of `length` tokens that goes on from the prompt (not included). See inference.sample."""
        tokens = self.tokens(prompt, temperature=temperature, top_k=top_k, seed=seed)
        return self.vocabulary.decode([token for _, token in zip(range(length), tokens, strict=False)])

    def tokens(
        self, prompt: str = "", *, temperature: float = 1.0, top_k: int | None = None, seed: int | None = None
    ) -> Iterator[int]:
        """The ids that `sample` makes a text of, one at a time and without end."""
        never = [0] if self.vocabulary.unit != "byte" and self.vocabulary.size > 1 else []
        return inference.sample(
            self.net, self.encode_prompt(prompt), temperature=temperature, top_k=top_k, never=never, seed=seed
        )

    def encode_prompt(self, prompt: str) -> Tensor:
        """The ids of a prompt; an empty one stands for a line break, or for the first token where there is none."""
        ids = self.vocabulary.encode(prompt or "\n")
        if not prompt and self.vocabulary.unit != "byte" and ids[0] == 0:
            ids[0] = min(1, self.vocabulary.size - 1)
        return torch.as_tensor(ids, dtype=torch.long)


def load(path: str | Path) -> Run:
    """The run in a folder: `.net`, `.sample()`, `.evaluate()`, `.config`, `.records()`."""
    return Run(path)


def clean(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with None for numbers that JSON has no word for."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, shared ones once."""
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def fill(net: nn.Module, tensors: Mapping[str, Tensor], origin: object) -> None:
    """Copy saved tensors into a network; raise ValueError when names or shapes differ."""
    weights = weights_of(net)
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != found:
        odd = sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name))[0]
        raise ValueError(
            f"{origin} does not fit the network: {odd} is {found.get(odd, 'missing')} there and "
            f"{shapes.get(odd, 'missing')} in the network. Restore the file, or train again."
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[name])


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor with memory of its own, on the CPU, as safetensors needs it."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _tensors(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: the run was stopped before its first save. Train again.")
    try:
        # Copies: as loaded they lie unaligned, and torch rounds unaligned numbers otherwise.
        return {name: tensor.clone() for name, tensor in load_file(file).items()}
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}. Restore it, or train again.") from error


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a temporary name in the same folder, then rename; a failure leaves nothing half-written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """The value without None, which TOML has no word for."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items() if part is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if hasattr(value, "item"):
        return value.item()
    return str(value) if isinstance(value, Path) else value
