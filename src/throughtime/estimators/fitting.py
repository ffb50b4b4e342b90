"""Fitting an estimator of whole sequences: the network that its parameters ask for, and its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from throughtime.cells import Cell
from throughtime.chunk import Chunk, Source
from throughtime.credit import BPTT, Credit, credit_named, spell_credit
from throughtime.data.sequences import Batches
from throughtime.estimators.answering import advance
from throughtime.estimators.intake import seed_of
from throughtime.estimators.learning import adam, distinct, learn
from throughtime.estimators.numbers import NumberReader
from throughtime.estimators.recipes import Recipe, for_numbers
from throughtime.estimators.texts import LONGEST, TextRecipe, for_texts, text_network
from throughtime.estimators.words import WordReader
from throughtime.nets import Loss, Network
from throughtime.sequence_network import SequenceNetwork, check_reads, windowed_like
from throughtime.state import State

Array = NDArray[Any]
Numbers = NDArray[np.float64]

HELD, PATIENCE, LOOKS = 0.15, 10, 40
"""With early stopping: the share of the sequences held out, how many evaluations without a new best are waited for,
and how many there are at most."""


WINDOW = 8
"""Steps that the network without memory sees."""


def fit_anew(
    estimator: Any, X: Sequence[Any], y: Array, weight: Numbers, *, outputs: int, loss: Loss | str, groups: Array | None
) -> None:
    """Set reader_, net_, records_ and n_iter_ from sequences, their targets and weights.

    groups: of each sequence its class, or None; early stopping holds out the last ones of each.
    """
    seed = seed_of(estimator.random_state)
    held = _held_out(estimator, groups, weight)
    x, targets, weights = distinct([X[k] for k in np.flatnonzero(~held).tolist()], y[~held], weight[~held])
    recipe = prepare(estimator, x, weights, outputs, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        epochs = -(-recipe.updates // -(-len(x) // recipe.size))
        batches = _batches(estimator.reader_, x, targets, weights, recipe, seed, epochs)
        validation = None
        if held.any():
            late = np.flatnonzero(held & (weight > 0))
            x_late = [X[k] for k in late.tolist()]
            validation = _batches(estimator.reader_, x_late, y[late], weight[late], recipe, None, 1)
        estimator.records_ = learn(
            estimator.net_,
            batches,
            loss=loss,
            credit=estimator.credit_,
            rate=recipe.rate,
            decay=recipe.decay,
            updates=recipe.updates,
            validation=validation,
            validate_every=None if validation is None else max(batches.per_epoch, recipe.updates // LOOKS),
            patience=None if validation is None else _or(estimator.patience, PATIENCE),
        )
    estimator.n_iter_ = len(estimator.records_)


def prepare(estimator: Any, x: Sequence[Any], weight: Numbers, outputs: int, seed: int) -> Recipe | TextRecipe:
    """Set reader_, net_, credit_ and notes_, and forget what an earlier fit left for `go_on`; returns the recipe."""
    reader, recipe = _reader_and_recipe(estimator, x, weight)
    credit = check_credit(estimator, recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = network(reader, recipe, estimator.cell, outputs, whole=credit == BPTT())
    estimator.reader_, estimator.recipe_, estimator.credit_, estimator.net_ = reader, recipe, credit, net
    estimator.seed_, estimator.calls_ = seed, 0
    estimator.notes_ = reader.notes(x) if reader.ids else ()
    for name in ("optimizer_", "state_"):
        estimator.__dict__.pop(name, None)
    return recipe


def go_on(estimator: Any, X: Sequence[Any], y: Array, weight: Numbers, *, loss: Loss | str, carry: bool) -> None:
    """One pass of learning at a steady rate; with carry each row goes on from where it stood, in one update."""
    recipe, net = estimator.recipe_, estimator.net_
    source: Source
    credit: Credit
    if not hasattr(estimator, "optimizer_"):
        estimator.optimizer_ = adam(net, recipe.rate, recipe.decay)
    estimator.calls_ += 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(estimator.seed_ + estimator.calls_)
        if carry:
            source, credit = _carried(estimator, X, y, weight)
        else:
            x, targets, weights = distinct(X, y, weight)
            source = _batches(estimator.reader_, x, targets, weights, recipe, estimator.seed_ + estimator.calls_, 1)
            credit = estimator.credit_
        records = learn(net, source, loss=loss, credit=credit, optimizer=estimator.optimizer_)
    estimator.records_ = [*getattr(estimator, "records_", []), *records]
    estimator.n_iter_ = len(estimator.records_)
    if carry:
        estimator.state_ = advance(net, estimator.reader_.read(X), getattr(estimator, "state_", None))
        estimator.rows_ = len(X)


def network(reader: Any, recipe: Recipe | TextRecipe, cell: str, outputs: int, *, whole: bool) -> nn.Module:
    """The network of a recipe: SequenceNetwork, or Network, which every credit can run, where that does."""
    if isinstance(recipe, TextRecipe):
        return text_network(reader, recipe, cell, outputs)
    options = {"inputs": reader.inputs, "units": recipe.units, "outputs": outputs, "layers": recipe.layers}
    if cell == "mlp":
        wide = options | {"inputs": recipe.frame * reader.channels, "reads": recipe.reads, "dropout": recipe.dropout}
        twin = SequenceNetwork("gru", bidirectional=recipe.bidirectional, noise=recipe.noise, **wide)
        like = windowed_like(twin, recipe.window, reader.inputs, recipe.layers + 1)  # one alone would be very wide
        return SequenceNetwork("mlp", **{k: v for k, v in like.items() if k not in ("network", "cell")})
    if not whole and recipe.reads == "last" and not recipe.noise:
        return Network(cell, dropout=recipe.dropout, **options)
    return SequenceNetwork(
        cell,
        dropout=recipe.dropout,
        reads=recipe.reads,
        bidirectional=recipe.bidirectional,
        noise=recipe.noise,
        **options,
    )


def check_credit(estimator: Any, recipe: Recipe | TextRecipe) -> Credit:
    """The credit that is asked for. Raises ValueError where the network cannot be learned by it."""
    credit = BPTT() if estimator.credit is None else credit_named(estimator.credit)
    if recipe.bidirectional and credit != BPTT():
        raise ValueError(
            f"credit must be bptt for a bidirectional network, which needs the future of every step; got "
            f"{spell_credit(credit)}. Set bidirectional=False, or leave credit out."
        )
    if recipe.reads != "last" and not isinstance(credit, BPTT):
        raise ValueError(
            f"reads must be 'last' with credit {spell_credit(credit)}; got {recipe.reads!r}. Leave reads out, or take "
            "a credit of the bptt family."
        )
    return credit


def check_streams(estimator: Any, what: str) -> None:
    """Raise ValueError where an answer at every step needs a future that is not there."""
    if estimator.net_.layers.bidirectional:
        raise ValueError(
            f"{what} must go with one direction: this network is bidirectional and needs the whole sequence. "
            f"Make it {type(estimator).__name__}(bidirectional=False)."
        )


def _reader_and_recipe(estimator: Any, x: Sequence[Any], weight: Numbers) -> tuple[Any, Recipe | TextRecipe]:
    asked = {
        name: getattr(estimator, name)
        for name in (
            "units",
            "layers",
            "dropout",
            "noise",
            "reads",
            "bidirectional",
            "window",
            "updates",
            "frame",
            "stride",
        )
    }
    asked |= {"size": estimator.batch_size, "rate": estimator.learning_rate, "decay": estimator.weight_decay}
    _check_asked(estimator, asked)
    if (
        estimator.credit is not None and credit_named(estimator.credit) != BPTT()
    ):  # what every credit can run, unless something else is asked for
        simple = {"reads": "last", "bidirectional": False, "noise": 0.0}
        asked |= {name: value for name, value in simple.items() if asked[name] is None}
    if estimator.cell == "mlp" and asked["window"] is None:
        asked["window"] = WINDOW
    steps = [len(sequence) for sequence in x]
    if x and isinstance(x[0], str):
        for name in ("frame", "stride"):
            if asked.pop(name) is not None:
                raise ValueError(f"{name} must be left out for texts, which are read step by step.")
        words = WordReader(estimator.unit, longest=_or(estimator.longest, LONGEST)).fit(x, weight)
        return words, for_texts(len(x), sum(map(len, words.read(x))), **asked)
    for name in ("unit", "longest"):
        if getattr(estimator, name) not in ("auto", None):
            raise ValueError(f"{name} must be left out for numbers; it is of texts.")
    recipe = for_numbers(len(x), int(np.median(steps)), **asked)
    plain = estimator.cell == "mlp"  # its window is of steps
    reader = NumberReader(1, 1) if plain else NumberReader(recipe.frame, recipe.stride, recipe.bidirectional)
    return reader.fit(x, weight), recipe


def _check_asked(estimator: Any, asked: dict[str, Any]) -> None:
    if asked["window"] is not None and estimator.cell != "mlp":
        raise ValueError(f"window must go with cell='mlp'; got cell={estimator.cell!r}. Leave window out.")
    if not isinstance(asked["bidirectional"], (bool, np.bool_, type(None))):
        raise TypeError(f"bidirectional must be True, False or None; got {asked['bidirectional']!r}.")
    if not isinstance(estimator.cell, (str, Cell)):
        raise TypeError(f"cell must be a spelled name or a Cell; got {estimator.cell!r}.")
    for name, bound in (("learning_rate", "above"), ("weight_decay", "at least")):
        value = getattr(estimator, name)
        if value is not None and not isinstance(value, (int, float, np.number)):
            raise TypeError(f"{name} must be a number; got {value!r}.")
        if value is not None and not (value > 0 or (value == 0 and bound == "at least")):
            raise ValueError(f"{name} must be {bound} 0; got {value!r}.")
    for name in ("units", "layers", "window", "frame", "stride", "updates", "size"):
        value = asked[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
            spelled = "batch_size" if name == "size" else name
            raise ValueError(f"{spelled} must be a whole number of at least 1; got {value!r}.")
    if asked["reads"] is not None:
        check_reads(asked["reads"])
        if asked["reads"] == "each":
            raise ValueError("reads must be last, mean, max, or several as last+mean; got 'each', which is for tags.")
    for name, value in (("validation_fraction", estimator.validation_fraction), ("patience", estimator.patience)):
        if value is not None and not estimator.early_stopping:
            raise ValueError(f"{name} must go with early_stopping=True; got {value!r}. Set it, or leave {name} out.")


def _held_out(estimator: Any, groups: Array | None, weight: Numbers) -> Array:
    """Which sequences early stopping is judged on: the last ones of each class, in the order in which they stand."""
    held = np.zeros(len(weight), bool)
    if not estimator.early_stopping:
        return held
    share = _or(estimator.validation_fraction, HELD)
    if not 0 < share < 1:
        raise ValueError(f"validation_fraction must be between 0 and 1; got {share!r}.")
    groups = np.zeros(len(weight), int) if groups is None else groups
    for group in np.unique(groups):
        places = np.flatnonzero((groups == group) & (weight > 0))
        if len(places) > 1:
            held[places[len(places) - max(1, round(share * len(places))) :]] = True
    if not held.any() or not (weight[~held] > 0).any():
        raise ValueError(
            f"early_stopping needs sequences to hold out and others to learn from; got {int((weight > 0).sum())} in "
            "all. Give more, or leave early_stopping out."
        )
    return held


def _batches(
    reader: Any, x: Sequence[Any], y: Array, weight: Numbers, recipe: Recipe | TextRecipe, seed: int | None, epochs: int
) -> Batches:
    return Batches(x=reader.read(x), y=y, weight=weight, size=recipe.size, epochs=epochs, seed=seed)


@dataclass(frozen=True)
class From(Credit):
    """A credit whose streams begin in a state."""

    credit: Credit
    state: State

    def start(self, net: nn.Module, state: State = None) -> Any:
        return self.credit.start(net, self.state if state is None else state)

    def __call__(self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Any) -> Any:
        return self.credit(net, loss, chunk, memory)


def _carried(estimator: Any, X: Sequence[Any], y: Array, weight: Numbers) -> tuple[list[Chunk], Credit]:
    """The rows as one chunk without a restart, and the credit that begins where they stood."""
    check_streams(estimator, "carry=True")
    if not estimator.reader_.ids and estimator.reader_.frame > 1:
        raise ValueError(
            f"carry=True must go with frame=1, for a frame begins in the steps before; got {estimator.reader_.frame}."
        )
    state = getattr(estimator, "state_", None)
    if state is not None and estimator.rows_ != len(X):
        raise ValueError(
            f"X must be the next steps of the same {estimator.rows_} streams; got {len(X)}. "
            "With carry=True each row goes on; call partial_fit without carry for new sequences."
        )
    x = estimator.reader_.read(X)
    lengths = np.array([len(sequence) for sequence in x])
    if not (weight * lengths).any():
        raise ValueError("X must have a row with at least one step; got none to learn from.")
    T = lengths.max()
    ids = x[0].dtype.kind in "iu"
    padded = np.zeros((T, len(x), *x[0].shape[1:]), np.int64 if ids else np.float32)
    targets, mask = np.zeros((T, len(x), *y.shape[1:]), y.dtype), np.zeros((T, len(x)), np.float32)
    for row, sequence in enumerate(x):
        padded[: len(sequence), row] = sequence
        if len(sequence):
            targets[len(sequence) - 1, row], mask[len(sequence) - 1, row] = y[row], weight[row]
    wanted = torch.from_numpy(targets)
    wanted = wanted.float() if wanted.is_floating_point() else wanted
    chunk = Chunk(torch.from_numpy(padded), wanted, torch.from_numpy(mask), None, True)
    return [chunk], From(estimator.credit_, state)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
