"""Learning a target for every step: what is handed in, the network that the parameters ask for, and its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import nn

from throughtime.chunk import Chunk
from throughtime.credit import BPTT, Credit, RandomTruncation, credit_named, spell_credit
from throughtime.data.sequences import Batches, sequences_of
from throughtime.estimators.answering import advance
from throughtime.estimators.fitting import From, check_streams
from throughtime.estimators.intake import seed_of
from throughtime.estimators.learning import adam, learn
from throughtime.estimators.numbers import NumberReader
from throughtime.estimators.words import WordReader, check_texts
from throughtime.nets import Network
from throughtime.sequence_network import SequenceNetwork, windowed_like
from throughtime.token_network import TokenNetwork

Array = NDArray[Any]

HELD, PATIENCE, LOOKS = 0.15, 10, 30
"""With early stopping: the share held out, evaluations without a new best that are waited for, evaluations in all."""
PASSES, FEWEST, MOST = 10, 400, 6000
"""Updates are as many as make so many passes, within bounds."""
STEPS = 4_000_000
"""Steps read in a training, at most, while that leaves FEWEST / 2 updates."""
PIECE = 512
"""Steps of a sequence that are learned in one piece."""


@dataclass(frozen=True, kw_only=True)
class StepRecipe:
    """The choices of a training on steps: of the network, and of AdamW along a cosine."""

    units: int = 64
    layers: int = 1
    dropout: float = 0.3
    embedding: int = 64
    forget: float = 0.1
    bidirectional: bool = True
    window: int = 0
    longest: int = PIECE
    size: int = 32
    updates: int = FEWEST
    rate: float = 5e-3
    decay: float = 0.01


# What is handed in


def take_steps(X: Any, *, layout: str) -> list[Any]:
    """X as a list of sequences: lists of strings, or arrays (T_i, I) of numbers."""
    if hasattr(X, "to_list"):  # a column of a data frame
        X = X.to_list()
    if isinstance(X, (list, tuple, np.ndarray)) and len(X) and all(isinstance(row, str) for row in X):
        raise TypeError("X must be lists of tokens or arrays of numbers; got strings. Split each text into its tokens.")
    if _is_tokens(X):
        return [list(text) for text in check_texts(X)]
    if isinstance(X, np.ndarray) and X.dtype != object and X.ndim == 2:
        raise ValueError(
            f"X must be sequences of frames, (N, T, I) or a list of (T, I); got {X.shape}. Of one number a step it is "
            "X[..., None]."
        )
    return list(sequences_of(X, layout=layout))


def _is_tokens(X: Any) -> bool:
    if not isinstance(X, (list, tuple, np.ndarray)) or (isinstance(X, np.ndarray) and X.dtype.kind not in "OUT"):
        return False
    rows = (row for row in X if isinstance(row, (list, tuple, np.ndarray)) and len(row))
    first = next(rows, None)
    return first is not None and isinstance(first[0], str)


def take_tags(y: Any, x: Sequence[Any]) -> list[Array]:
    """A tag for every step of every sequence, (T_i,) strings or whole numbers."""
    if y is None or isinstance(y, (str, bytes)) or not hasattr(y, "__len__"):
        raise TypeError(f"y must be a list of sequences of tags, one for each of X; got {type(y).__name__}.")
    if len(y) != len(x):
        raise ValueError(f"y must have as many sequences as X, {len(x)}; got {len(y)}.")
    found = [_tags(row, place) for place, row in enumerate(y)]
    for place, (tags, sequence) in enumerate(zip(found, x, strict=True)):
        if tags.shape != (len(sequence),):
            raise ValueError(
                f"y must have a tag for every step; y[{place}] is {tags.shape} for a sequence of {len(sequence)} steps."
            )
    if len({tags.dtype.kind == "U" for tags in found if len(tags)}) > 1:
        raise ValueError("y must be all strings or all whole numbers; got a mixture.")
    return found


def _tags(row: Any, place: int) -> Array:
    """The tags of one sequence as an array of strings or of whole numbers."""
    tags = row if isinstance(row, np.ndarray) else np.array([*row] if hasattr(row, "__iter__") else row, object)
    if tags.dtype.kind in "iuUb":
        return tags
    values = tags.ravel().tolist()
    odd = [value for value in values if not isinstance(value, (str, Integral))]
    texts = [isinstance(value, str) for value in values]
    if odd or len(set(texts)) > 1:
        got = odd[0] if odd else values[texts.index(False)]
        raise ValueError(f"y must be tags, all strings or all whole numbers; got {got!r} in y[{place}].")
    return tags.astype(str if all(texts) else np.int64)


def take_weights(sample_weight: Any, x: Sequence[Any]) -> list[Array]:
    """The weight of every step, (T_i,): from one a sequence, or one a step, or none."""
    if sample_weight is None:
        return [np.ones(len(sequence)) for sequence in x]
    if not hasattr(sample_weight, "__len__") or len(sample_weight) != len(x):
        raise ValueError(f"sample_weight must be one number, or one a step, for each of the {len(x)} sequences.")
    found = []
    for place, (weight, sequence) in enumerate(zip(sample_weight, x, strict=True)):
        row = np.asarray(weight, np.float64)
        if row.ndim and row.shape != (len(sequence),):
            raise ValueError(f"sample_weight[{place}] must be a number or {len(sequence)} of them; got {row.shape}.")
        if not np.isfinite(row).all() or (row < 0).any():
            raise ValueError("sample_weight must be finite numbers of at least 0.")
        found.append(np.full(len(sequence), float(row)) if not row.ndim else row)
    return found


def class_weights(asked: Any, classes: Array, ids: Sequence[Array], weight: Sequence[Array]) -> Array:
    """The weight of each class: from a dict, or all counting the same in sum."""
    if asked is None:
        return np.ones(len(classes))
    if isinstance(asked, str) and asked == "balanced":
        total = np.bincount(
            np.concatenate([*ids, np.zeros(0, int)]), np.concatenate([*weight, np.zeros(0)]), len(classes)
        )
        return np.where(total > 0, total.sum() / ((total > 0).sum() * np.maximum(total, np.finfo(float).tiny)), 1.0)
    if not isinstance(asked, dict):
        raise ValueError(f"class_weight must be a dict of weights by tag, 'balanced' or None; got {asked!r}.")
    odd = [tag for tag in asked if tag not in classes.tolist()]
    if odd:
        raise ValueError(f"class_weight must be of the tags {classes.tolist()}; got {odd[0]!r}.")
    return np.array([float(asked.get(tag, 1.0)) for tag in classes.tolist()])


def log_softmax(logits: Array) -> Array:
    """ln of the softmax of each row."""
    if not len(logits):
        return logits
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


# The network


def start(estimator: BaseEstimator, x: Sequence[Any], weight: Sequence[Array], updates: int = FEWEST) -> StepRecipe:
    """Set reader_, parts_, recipe_, credit_, net_ and seed_, and forget what partial_fit left; returns the recipe."""
    whole = [float(w.sum()) for w in weight]
    texts = any(len(s) and isinstance(s[0], str) for s in x)
    reader: Any = WordReader(least=estimator.least) if texts else NumberReader()
    reader.fit([s for s, w in zip(x, whole, strict=True) if w], [w for w in whole if w])
    credit = BPTT() if estimator.credit is None else credit_named(estimator.credit)
    recipe = _recipe(estimator, credit, updates)
    seed = seed_of(estimator.random_state)
    parts = isinstance(credit, (BPTT, RandomTruncation))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = network(reader, recipe, estimator.cell, len(estimator.classes_), parts=parts)
    estimator.reader_, estimator.parts_, estimator.recipe_, estimator.credit_ = reader, parts, recipe, credit
    estimator.net_, estimator.seed_, estimator.calls_, estimator.records_ = net, seed, 0, []
    for name in ("optimizer_", "state_"):
        estimator.__dict__.pop(name, None)
    return recipe


def _recipe(estimator: Any, credit: Credit, updates: int) -> StepRecipe:
    names = ("units", "layers", "dropout", "window", "bidirectional", "longest")
    asked = {name: getattr(estimator, name) for name in names}
    asked |= {"size": estimator.batch_size, "rate": estimator.learning_rate, "decay": estimator.weight_decay}
    for name in ("units", "layers", "window", "longest", "size"):
        value = asked[name]
        if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
            spelled = "batch_size" if name == "size" else name
            raise ValueError(f"{spelled} must be a whole number of at least 1; got {value!r}.")
    mlp, whole = estimator.cell == "mlp", isinstance(credit, BPTT) and credit.h is None
    if asked["window"] is not None and not mlp:
        raise ValueError(f"window must go with cell='mlp'; got cell={estimator.cell!r}. Leave window out.")
    if mlp and asked["window"] is None:
        raise ValueError("window must go with cell='mlp': the steps that it sees. Give window=5, say.")
    if mlp and asked["bidirectional"]:
        raise ValueError("bidirectional must be left out with cell='mlp', which has no direction; got True.")
    if asked["bidirectional"] is None:
        asked["bidirectional"] = whole and not mlp
    if asked["bidirectional"] and not whole:
        raise ValueError(
            f"credit must be bptt for a bidirectional network, which needs the future of every step; got "
            f"{spell_credit(credit)}. Set bidirectional=False, or leave credit out."
        )
    return StepRecipe(**{"updates": updates} | {name: value for name, value in asked.items() if value is not None})


def network(reader: Any, recipe: StepRecipe, cell: str, outputs: int, *, parts: bool) -> nn.Module:
    """The network of a recipe over what a reader reads; with parts the parts of tokens too."""
    shape: dict[str, Any] = {"units": recipe.units, "layers": recipe.layers, "dropout": recipe.dropout}
    shape |= {"inputs": reader.inputs, "outputs": outputs}
    token: dict[str, Any] = {"embedding": recipe.embedding, "forget": recipe.forget}
    if cell == "mlp":
        return _windowed(reader, recipe, shape, token)
    if reader.ids and parts:
        return TokenNetwork(cell, **shape, **token, reads="each", bidirectional=recipe.bidirectional)
    if recipe.bidirectional:
        return SequenceNetwork(cell, **shape, reads="each", bidirectional=True)
    return Network(cell, **shape | ({"inputs": reader.known, "embedding": recipe.embedding} if reader.ids else {}))


def _windowed(reader: Any, recipe: StepRecipe, shape: dict[str, Any], token: dict[str, Any]) -> nn.Module:
    """The network without memory, with as many weights as the gru of two directions."""
    if not reader.ids:
        twin = SequenceNetwork("gru", **shape, reads="each", bidirectional=True)
        options = windowed_like(twin, recipe.window)
        return SequenceNetwork("mlp", **{name: v for name, v in options.items() if name not in ("network", "cell")})
    inner = TokenNetwork("gru", **shape, **token, reads="each", bidirectional=True)
    units = windowed_like(inner.read, recipe.window)["units"]
    return TokenNetwork("mlp", **shape | {"units": units}, **token, reads="each", window=recipe.window)


# Its training


def learn_anew(estimator: Any, x: Sequence[Any], ids: Sequence[Array], weight: Sequence[Array]) -> None:
    """Fit a new network to sequences with the places of their tags and the weights of their steps."""
    held = _held_out(estimator, weight)
    late = [place for place in held if weight[place].any()]
    early = [place for place in range(len(x)) if place not in set(held)]
    seen = _merged([x[k] for k in early], [ids[k] for k in early], [weight[k] for k in early])
    longest = PIECE if estimator.longest is None else estimator.longest
    size = 32 if estimator.batch_size is None else estimator.batch_size
    recipe = start(estimator, seen[0], seen[2], _updates(estimator, seen[0], longest, size))
    pieces = _pieces(estimator._read(seen[0]), seen[1], seen[2], recipe.longest)
    if len(pieces[0]) > len(seen[0]):
        cut = sum(len(s) > recipe.longest for s in seen[0])
        estimator.notes_ += (
            f"{cut} of {len(seen[0])} sequences are longer than {recipe.longest} steps and learned in pieces.",
        )
    batches = _batches(*pieces, recipe, estimator.seed_, epochs=-(-recipe.updates * recipe.size // len(pieces[0])) + 1)
    validation = None
    if late:
        parts = _pieces(
            estimator._read([x[k] for k in late]), [ids[k] for k in late], [weight[k] for k in late], recipe.longest
        )
        validation = _batches(*parts, recipe, None, epochs=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(estimator.seed_)
        estimator.records_ = learn(
            estimator.net_,
            batches,
            loss="softmax",
            credit=estimator.credit_,
            rate=recipe.rate,
            decay=recipe.decay,
            updates=recipe.updates,
            validation=validation,
            validate_every=None if validation is None else max(batches.per_epoch, recipe.updates // LOOKS),
            patience=None if validation is None else PATIENCE if estimator.patience is None else estimator.patience,
        )
    estimator.n_iter_ = len(estimator.records_)


def learn_on(estimator: Any, x: Sequence[Any], ids: Sequence[Array], weight: Sequence[Array], *, carry: bool) -> None:
    """One pass at a steady rate; with carry each row goes on from where it stood, in one update."""
    recipe, net = estimator.recipe_, estimator.net_
    if not sum(float(w.sum()) for w in weight):
        raise ValueError("X must have a step with a weight above 0; got none to learn from.")
    if not hasattr(estimator, "optimizer_"):
        estimator.optimizer_ = adam(net, recipe.rate, recipe.decay)
    estimator.calls_ += 1
    seed, credit = estimator.seed_ + estimator.calls_, estimator.credit_
    source: Any
    if carry:
        check_streams(estimator, "carry=True")
        state = getattr(estimator, "state_", None)
        if state is not None and estimator.rows_ != len(x):
            raise ValueError(f"X must be the next steps of the same {estimator.rows_} streams; got {len(x)}.")
        read = estimator._read(x)
        source, credit = [_side_by_side(read, ids, weight)], From(credit, state)
    else:
        merged = _merged(x, ids, weight)
        pieces = _pieces(estimator._read(merged[0]), merged[1], merged[2], recipe.longest)
        source = _batches(*pieces, recipe, seed, epochs=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        records = learn(net, source, loss="softmax", credit=credit, optimizer=estimator.optimizer_)
    if carry:
        estimator.state_, estimator.rows_ = advance(net, read, state), len(x)
    estimator.records_ = [*estimator.records_, *records]
    estimator.n_iter_ = len(estimator.records_)


def _updates(estimator: Any, x: Sequence[Any], longest: int, size: int) -> int:
    if estimator.updates is not None:
        if not isinstance(estimator.updates, (int, np.integer)) or estimator.updates < 1:
            raise ValueError(f"updates must be a whole number of at least 1; got {estimator.updates!r}.")
        return int(estimator.updates)
    steps = max(1, sum(map(len, x)))
    pieces = sum(-(-len(s) // longest) for s in x)
    updates = min(MOST, max(FEWEST, PASSES * -(-pieces // size)))
    a_batch = steps / max(1, -(-pieces // size))
    return int(max(FEWEST // 2, min(updates, STEPS / a_batch)))


def _held_out(estimator: Any, weight: Sequence[Array]) -> range:
    """The last sequences, which early stopping is judged on."""
    for name, value in (("validation_fraction", estimator.validation_fraction), ("patience", estimator.patience)):
        if value is not None and not estimator.early_stopping:
            raise ValueError(f"{name} must go with early_stopping=True; got {value!r}. Set it, or leave {name} out.")
    if not estimator.early_stopping:
        return range(0)
    share = HELD if estimator.validation_fraction is None else estimator.validation_fraction
    if not 0 < share < 1:
        raise ValueError(f"validation_fraction must be between 0 and 1; got {share!r}.")
    first = len(weight) - max(1, round(share * len(weight)))
    if not any(w.any() for w in weight[:first]) or not any(w.any() for w in weight[first:]):
        raise ValueError(
            f"early_stopping needs sequences to hold out and others to learn from; got {len(weight)} in all. "
            "Give more, or leave early_stopping out."
        )
    return range(first, len(weight))


def _merged(
    x: Sequence[Any], ids: Sequence[Array], weight: Sequence[Array]
) -> tuple[list[Any], list[Array], list[Array]]:
    """Equal sequences with equal tags as one of their summed weights, in an order of their own; without the weightless.

    So a fit depends neither on the order of the sequences nor on whether one stands there twice or has weight 2.
    """
    found: dict[Any, list[Any]] = {}
    for sequence, tags, w in zip(x, ids, weight, strict=True):
        if not w.any():
            continue
        text = isinstance(sequence, list)
        key = (len(tags), tuple(sequence) if text else np.ascontiguousarray(sequence).tobytes(), tags.tobytes())
        if key in found:
            found[key][2] = found[key][2] + w
        else:
            found[key] = [sequence, tags, w]
    rows = [found[key] for key in sorted(found)]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _pieces(
    x: Sequence[Array], ids: Sequence[Array], weight: Sequence[Array], longest: int
) -> tuple[list[Array], list[Array], list[Array]]:
    """Longer sequences cut into pieces of so many steps; pieces without weight are left out."""
    cut: tuple[list[Array], list[Array], list[Array]] = ([], [], [])
    for row in zip(x, ids, weight, strict=True):
        for first in range(0, len(row[0]), longest):
            if row[2][first : first + longest].any():
                for parts, part in zip(cut, row, strict=True):
                    parts.append(part[first : first + longest])
    return cut


def _batches(
    x: Sequence[Array], y: Sequence[Array], weight: Sequence[Array], recipe: StepRecipe, seed: int | None, epochs: int
) -> Batches:
    return Batches(x=x, y=y, weight=weight, each=True, size=recipe.size, epochs=epochs, seed=seed)


def _side_by_side(x: Sequence[Array], ids: Sequence[Array], weight: Sequence[Array]) -> Chunk:
    """A sequence a row, without a restart at the start."""
    T, B = max(map(len, x)), len(x)
    pattern = next(s for s in x if len(s))
    numbers = pattern.dtype.kind == "f"
    padded = np.zeros((T, B, *pattern.shape[1:]), np.float32 if numbers else np.int64)
    y, mask = np.zeros((T, B), np.int64), np.zeros((T, B), np.float32)
    for row, (sequence, tags, w) in enumerate(zip(x, ids, weight, strict=True)):
        padded[: len(sequence), row], y[: len(sequence), row], mask[: len(sequence), row] = sequence, tags, w
    return Chunk(torch.from_numpy(padded), torch.from_numpy(y), torch.from_numpy(mask), None, True)
