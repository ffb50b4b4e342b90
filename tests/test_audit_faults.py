"""Audit of loops that are hard to tell: what is said of them is true, or they are refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from throughtime.verify.audit import Audit, audit

T, B, I, H, K = 12, 2, 3, 5, 4
Loop = Callable[..., Any]


class Model(nn.Module):
    def __init__(self, kind: type = nn.GRU, layers: int = 1) -> None:
        super().__init__()
        self.rnn = kind(I, H, layers)
        self.fc = nn.Linear(H, 1)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        h, state = self.rnn(x, state)
        return self.fc(h), state


def detach(state: Any) -> Any:
    return state.detach() if isinstance(state, Tensor) else tuple(part.detach() for part in state)


def chunked(
    cut: Callable[[Any], Any] = detach, term: Callable[[nn.Module], Any] = lambda model: 0.0, retain: bool = False
) -> Loop:
    """Chunks with the state carried on; what cuts the state, and a term of the loss, can be changed."""

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
        for part, wanted in zip(x.split(K), y.split(K), strict=True):
            prediction, state = model(part, state)
            state = cut(state)
            optimizer.zero_grad()
            (nn.functional.mse_loss(prediction, wanted) + term(model)).backward(retain_graph=retain)
            optimizer.step()

    return loop


def squares(model: nn.Module) -> Any:
    return 1e-3 * sum(weight.square().sum() for weight in model.parameters())


def found(loop: Loop, module: nn.Module | None = None, dtype: torch.dtype = torch.float32) -> Audit:
    x, y = torch.randn(T, B, I, dtype=dtype), torch.randn(T, B, 1, dtype=dtype)
    return audit(loop, (Model() if module is None else module).to(dtype), x, y)


def dropped(state: Any) -> Any:
    """The result of detach is not kept."""
    state[0].detach()
    return state


@pytest.mark.parametrize("cut", [lambda state: state, dropped], ids=["none", "dropped"])
@pytest.mark.parametrize(("kind", "layers"), [(nn.GRU, 1), (nn.LSTM, 1), (nn.GRU, 2), (nn.LSTM, 2)])
def test_a_state_never_detached_is_found_in_stacks_and_in_lstms(
    kind: type, layers: int, cut: Callable[[Any], Any]
) -> None:
    report = found(chunked(cut, retain=True), Model(kind, layers))
    assert [said.split(":")[0] for said in report.findings] == ["The state is never detached"]


class Pair(nn.Module):
    """An encoder whose state a decoder goes on from."""

    def __init__(self, split: int = 6, begin: int = 6) -> None:
        super().__init__()
        self.enc, self.dec, self.fc = nn.GRU(I, H), nn.GRU(I, H), nn.Linear(H, 1)
        self.split, self.begin = split, begin

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.enc(x[: self.split])
        return self.fc(self.dec(x[self.begin :], state)[0])


def whole(model: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters())
    prediction = model(x)
    optimizer.zero_grad()
    nn.functional.mse_loss(prediction, y[len(y) - len(prediction) :]).backward()
    optimizer.step()


@pytest.mark.parametrize("begin", [6, 5])
def test_layers_that_read_different_steps_are_refused(begin: int) -> None:
    with pytest.raises(ValueError, match=rf"h of enc at steps 0 to 5, h of dec at steps {begin} to 11\. Audit each"):
        found(whole, Pair(begin=begin))


def test_a_recurrent_layer_that_is_never_called_does_not_count() -> None:
    model = Model()
    model.spare = nn.LSTM(I, H)
    report = found(chunked(), model)
    assert report.name == f"BPTT({K}; {K})"
    assert not report.findings


def test_updates_by_hand_are_said_not_to_be_seen() -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        state = None
        for part, wanted in zip(x.split(K), y.split(K), strict=True):
            model.zero_grad()
            prediction, state = model(part, state)
            state = detach(state)
            nn.functional.mse_loss(prediction, wanted).backward()
            for weight in model.parameters():
                weight.data.add_(weight.grad, alpha=-0.1)

    assert found(loop).findings == (
        "No torch.optim optimizer of the module was seen to step. Updates by hand cannot be seen: use torch.optim.SGD "
        "for the audit.",
    )


def test_a_state_changed_by_hand_is_not_said_to_restart() -> None:
    (said,) = found(chunked(lambda state: (0.9 * state).detach())).findings
    assert said.startswith("The state at steps 4 and 8 comes from something that the audit cannot follow")


@pytest.mark.parametrize("steps", [3, K, T])
def test_validation_on_other_data_counts_nothing(steps: int) -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
        other = torch.randn(steps, B + 1, I)
        for part, wanted in zip(x.split(K), y.split(K), strict=True):
            with torch.no_grad():
                model(other)
            prediction, state = model(part, state)
            state = detach(state)
            optimizer.zero_grad()
            nn.functional.mse_loss(prediction, wanted).backward()
            optimizer.step()

    report = found(loop)
    assert report.name == f"BPTT({K}; {K})"
    assert not report.findings


def test_other_data_with_a_gradient_is_still_refused() -> None:
    with pytest.raises(ValueError, match="must be called with steps of x"):
        found(lambda model, x, y: chunked()(model, 2 * x + 1, y))


def test_gradients_in_which_the_counts_drown_are_refused_in_float32() -> None:
    with pytest.raises(ValueError, match="loop must give the recurrent weights gradients of the size of its errors"):
        found(chunked(term=squares))


def test_a_term_of_the_weights_does_not_matter_in_float64() -> None:
    report = found(chunked(term=squares), dtype=torch.float64)
    assert report.name == f"BPTT({K}; {K})"
    assert not report.findings


def test_several_states_are_spoken_of_in_the_plural() -> None:
    report = found(chunked(lambda state: (state[0].detach(), state[1]), retain=True), Model(nn.LSTM, 2))
    said = "c of layer 0 of rnn and c of layer 1 of rnn are not detached where the other states are: their errors"
    assert report.findings[0].startswith(said)


def short(model: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters())
    prediction, _ = model(x[:-1])
    optimizer.zero_grad()
    nn.functional.mse_loss(prediction, y[:-1]).backward()
    optimizer.step()


def test_one_step_is_spoken_of_in_the_singular() -> None:
    report = found(short)
    assert report.findings == (
        "The last step never learns: the loop never reads it. Take up the rest that fills no window.",
    )
