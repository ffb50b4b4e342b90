"""LanguageModel: the probability of the next character or word of a text, by scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from throughtime.chunk import Chunk
from throughtime.credit import BPTT, Credit, credit_named
from throughtime.data import Text, Vocabulary
from throughtime.estimators.fitting import From
from throughtime.estimators.intake import seed_of
from throughtime.estimators.learning import adam, learn
from throughtime.inference import read, sample, surprise
from throughtime.nets import Network
from throughtime.recipe import Recipe, recipe
from throughtime.shapes import Tensor

Numbers = NDArray[np.float64]

BREAK = "\n"
HELD, PATIENCE, LOOKS = 0.1, 5, 20
"""With early stopping: the share held out, evaluations without a new best that are waited for, evaluations in all."""


class LanguageModel(BaseEstimator):
    """ln p of a text, token by token, by a recurrent network that reads it in order; and samples of such texts.

    X is one string, or a list of strings. The texts are learned as one stream, with a line break before each and after
    the last; each is scored from a line break on, so that all its tokens count and the order of the texts does not.

    unit           char, byte or word (see Text). Tokens that fit did not see are one token, <unk>.
    cell           lstm, gru, elman, ctrnn, spelled as in Network.
    least          words seen fewer times are <unk>; for unit="word" alone. None: 2.
    units, layers, dropout   as in Network; words have one vector each, for reading and for answering.
    credit         how the error goes back: a Credit or its spelling; default BPTT(h, every) with the steps of a chunk.
    updates, streams, steps, learning_rate, weight_decay   of AdamW along a cosine, over streams read side by side.
    early_stopping hold out the last validation_fraction (0.1) of the tokens; stop after `patience` (5) evaluations
                   without a new lowest loss, and keep the weights that had it.
    random_state   None, a whole number, which is the seed as --seed of the command line is, or a RandomState.

    None is the choice of throughtime.recipe, as the command line makes it, kept as recipe_. After fit: vocabulary_,
    classes_ (its tokens), net_, records_ (one an update), n_iter_.
    """

    net_: Network
    recipe_: Recipe

    def __init__(
        self,
        *,
        unit: str = "char",
        cell: str = "lstm",
        least: int | None = None,
        units: int | None = None,
        layers: int = 1,
        dropout: float | None = None,
        credit: Credit | str | None = None,
        updates: int | None = None,
        streams: int | None = None,
        steps: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        early_stopping: bool = False,
        validation_fraction: float | None = None,
        patience: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.unit = unit
        self.cell = cell
        self.least = least
        self.units = units
        self.layers = layers
        self.dropout = dropout
        self.credit = credit
        self.updates = updates
        self.streams = streams
        self.steps = steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.requires_fit = True
        return tags

    def fit(self, X: str | Sequence[str], y: Any = None) -> LanguageModel:
        """Learn from one text, or several; y is not used."""
        text = self._text(texts_of(X), self._share())
        advice = self._prepare(text)
        validation, looks = None, None
        if self.early_stopping:
            held = len(text.part("validation")) - 1
            validation = text.chunks(min(32, max(1, held // 1000)), 256, "validation")
            looks = max(1, advice.updates // LOOKS)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed_)
            self.records_ = learn(
                self.net_,
                text.chunks(advice.streams, advice.steps),
                loss="softmax",
                credit=self.credit_,
                rate=advice.rate,
                decay=advice.decay,
                epochs=None,
                updates=advice.updates,
                validation=validation,
                validate_every=looks,
                patience=None if validation is None else PATIENCE if self.patience is None else self.patience,
            )
        self.n_iter_ = len(self.records_)
        return self

    def partial_fit(self, X: str | Sequence[str], y: Any = None) -> LanguageModel:
        """Go on with one stream: the texts follow those of the calls before, whose state is carried on.

        One pass at a steady rate, an update every `steps` tokens. The first call, unless fit came before, decides
        which tokens there are. A line break stands before each text.
        """
        texts = texts_of(X)
        if not hasattr(self, "net_"):
            self._share()
            self._prepare(self._text(texts, None))
        ids = self.vocabulary_.encode("".join(BREAK + text for text in texts))
        ids = np.concatenate([getattr(self, "last_", ids[:0]), ids])
        if len(ids) < 2:
            raise ValueError(f"X must have at least 1 {self.unit} to learn from; got none.")
        if not hasattr(self, "optimizer_"):
            self.optimizer_ = adam(self.net_, self.recipe_.rate, self.recipe_.decay)
        state, stream = getattr(self, "state_", None), torch.from_numpy(ids)[:, None]
        chunks = [
            Chunk(
                stream[k : k + self.recipe_.steps][: len(stream) - 1 - k],
                stream[k + 1 : k + 1 + self.recipe_.steps],
                end=k + self.recipe_.steps >= len(stream) - 1,
            )
            for k in range(0, len(stream) - 1, self.recipe_.steps)
        ]
        self.calls_ += 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed_ + self.calls_)
            records = learn(
                self.net_, chunks, loss="softmax", credit=From(self.credit_, state), optimizer=self.optimizer_
            )
        with torch.no_grad():
            for chunk in chunks:
                _, state = self.net_(chunk.x, state)
        self.state_, self.last_ = state, ids[-1:]
        self.records_ = [*self.records_, *records]
        self.n_iter_ = len(self.records_)
        return self

    def score_samples(self, X: str | Sequence[str]) -> Numbers:
        """(N,): ln p of each text, the sum over its tokens, in nats; 0 for an empty one."""
        return np.array([float(lost.double().sum()) for lost in self._log_likelihoods(X)])

    def score(self, X: str | Sequence[str], y: Any = None) -> float:
        """The mean of ln p over all tokens of all texts, in nats: higher is better."""
        found = torch.cat(self._log_likelihoods(X))
        if not len(found):
            raise ValueError("X must have a text that is not empty; got none to score on.")
        return float(found.double().mean())

    def perplexity(self, X: str | Sequence[str]) -> float:
        """exp(-score): between how many tokens the model is torn, on average."""
        return float(np.exp(-self.score(X)))

    def predict_proba(self, X: str | Sequence[str]) -> Numbers:
        """(N, tokens): the probability of what follows each text, in the order of classes_."""
        check_is_fitted(self, "net_")
        rows = [read(self.net_, self._ids(text))[0].double().softmax(-1).numpy() for text in texts_of(X)]
        return np.array(rows).reshape(len(rows), len(self.classes_))

    def predict(self, X: str | Sequence[str]) -> NDArray[Any]:
        """(N,): the most probable next token of each text."""
        chosen = self.predict_proba(X).argmax(1)
        return self.classes_[chosen]

    def sample(
        self, prompt: str = "", length: int = 200, *, temperature: float = 1.0, top_k: int | None = None,
        seed: int | None = None,
    ) -> str:  # fmt: skip
        """A text of `length` tokens that goes on from the prompt (not included); <unk> is never drawn.

        temperature 0 takes the most probable token; seed None draws anew in every call.
        """
        check_is_fitted(self, "net_")
        if length < 0:
            raise ValueError(f"length must be at least 0 tokens; got {length}.")
        never = [] if self.unit == "byte" else [0]
        drawn = sample(self.net_, self._ids(prompt), temperature=temperature, top_k=top_k, never=never, seed=seed)
        return self.vocabulary_.decode([token for _, token in zip(range(length), drawn, strict=False)])

    def _share(self) -> float:
        """The share that is held out; 0 without early stopping."""
        for name, value in (("validation_fraction", self.validation_fraction), ("patience", self.patience)):
            if value is not None and not self.early_stopping:
                raise ValueError(
                    f"{name} must go with early_stopping=True; got {value!r}. Set it, or leave {name} out."
                )
        share = HELD if self.validation_fraction is None else self.validation_fraction
        if not 0 < share < 1:
            raise ValueError(f"validation_fraction must be between 0 and 1; got {share!r}.")
        return share if self.early_stopping else 0.0

    def _text(self, texts: Sequence[str], share: float | None) -> Text:
        if not any(texts):
            raise ValueError("X must have a text that is not empty; got none to learn from.")
        if self.least is not None and self.unit != "word":
            raise ValueError(f"least must go with unit='word'; got unit={self.unit!r}. Leave least out.")
        options: dict[str, Any] = {} if self.least is None else {"least": self.least}
        whole = "".join(BREAK + text for text in texts) + BREAK
        unit: Any = self.unit
        return Text.of(whole, unit=unit, split=(1 - share, share, 0.0) if share else None, **options)

    def _prepare(self, text: Text) -> Recipe:
        """Set vocabulary_, classes_, recipe_, credit_, net_ and seed_."""
        self.vocabulary_: Vocabulary = text.vocabulary
        self.classes_ = np.array(text.vocabulary.tokens)
        advice = recipe(len(text.part()) - 1, text.unit, updates=self.updates, streams=self.streams, steps=self.steps)
        own = {"rate": self.learning_rate, "decay": self.weight_decay, "updates": self.updates, "units": self.units}
        own["dropout"] = self.dropout
        made = Recipe(**vars(advice) | {name: value for name, value in own.items() if value is not None})
        self.credit_ = BPTT(h=made.steps, every=made.steps) if self.credit is None else credit_named(self.credit)
        self.seed_, self.calls_, self.records_ = seed_of(self.random_state), 0, []
        if isinstance(self.random_state, (int, np.integer)):
            self.seed_ = int(self.random_state)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed_)
            self.net_ = Network(
                self.cell,
                inputs=text.size,
                outputs=text.size,
                units=made.units,
                layers=self.layers,
                embedding=made.units if made.tie else max(1, made.units // 2),
                dropout=made.dropout,
                tie=made.tie,
            )
        self.recipe_ = made
        for name in ("optimizer_", "state_", "last_"):
            self.__dict__.pop(name, None)
        return made

    def _ids(self, text: str) -> Tensor:
        return torch.from_numpy(self.vocabulary_.encode(BREAK + text))

    def _log_likelihoods(self, X: str | Sequence[str]) -> list[Tensor]:
        """Of each text ln p of every token, in order."""
        check_is_fitted(self, "net_")
        return [-surprise(self.net_, self._ids(text)) for text in texts_of(X)]


def texts_of(X: Any) -> list[str]:
    """The texts: of one string, that one. Raises TypeError for what are no strings."""
    texts = [X] if isinstance(X, str) else X
    if isinstance(texts, bytes) or not hasattr(texts, "__len__") or not hasattr(texts, "__iter__"):
        raise TypeError(f"X must be a string or a list of strings; got {type(X).__name__}.")
    odd = next((text for text in texts if not isinstance(text, str)), None)
    if odd is not None:
        raise TypeError(f"X must be a string or a list of strings; got {type(odd).__name__} in it.")
    return [str(text) for text in texts]
