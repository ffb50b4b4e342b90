"""Audit of where states come from and where they are cut: what is said is true, or it is refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from audit_case import A, B, CellModel, H, I, K, Model, T, chunked, detach, run, squared
from torch import Tensor, nn

# Where states are cut


def dropped(state: Any) -> Any:
    """The result of detach is not kept."""
    state[0].detach()
    return state


@pytest.mark.parametrize("cut", [lambda state: state, dropped], ids=["none", "dropped"])
@pytest.mark.parametrize(("kind", "layers"), [(nn.GRU, 1), (nn.LSTM, 1), (nn.GRU, 2), (nn.LSTM, 2)])
def test_a_state_never_detached_is_found_in_stacks_and_in_lstms(
    kind: type, layers: int, cut: Callable[[Any], Any]
) -> None:
    report = run(chunked(cut, retain=True), Model(kind, layers))
    assert [said.split(":")[0] for said in report.findings] == ["The state is never detached"]


def test_several_states_are_spoken_of_in_the_plural() -> None:
    report = run(chunked(lambda state: (state[0].detach(), state[1]), retain=True), Model(nn.LSTM, 2))
    said = "c of layer 0 of rnn and c of layer 1 of rnn are not detached where the other states are: their errors"
    assert report.findings[0].startswith(said)


def test_a_state_changed_by_hand_is_not_said_to_restart() -> None:
    (said,) = run(chunked(lambda state: (0.9 * state).detach())).findings
    assert said.startswith("The state at steps 4, 8 and 12 comes from something that the audit cannot follow")


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
            squared(prediction, wanted).backward()
            optimizer.step()

    report = run(loop)
    assert report.name == f"BPTT({K}; {K})"
    assert not report.findings


def test_other_data_with_a_gradient_is_still_refused() -> None:
    with pytest.raises(ValueError, match="must be called with steps of x"):
        run(lambda model, x, y: chunked()(model, 2 * x + 1, y))


# Rows and batches


def test_rows_that_change_places() -> None:
    report = run(chunked(cut=lambda s: s.detach().flip(1)))
    assert report.findings[0].startswith("A row goes on from the state of another row, at steps 4, 8 and 12")

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), torch.zeros(B, H)
        predictions = []
        for t in range(len(x)):
            prediction, state = model(x[t], state.roll(1, 0))
            predictions.append(prediction)
        squared(torch.stack(predictions), y).backward()
        optimizer.step()

    assert any("reach the steps of row 1" in said for said in run(loop, CellModel()).findings)


def batches(model: nn.Module, x: Tensor, y: Tensor, reset: bool = False) -> None:
    """Two rows at a time, from their first chunk to their last."""
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
    for rows, targets in zip(x.split(2, 1), y.split(2, 1), strict=True):
        state = None if reset else state
        for part, wanted in zip(rows.split(K), targets.split(K), strict=True):
            prediction, state = model(part, state)
            state = detach(state)
            optimizer.zero_grad()
            squared(prediction, wanted).backward()
            optimizer.step()


def test_a_batch_of_other_rows_that_gets_the_state_of_the_one_before() -> None:
    assert run(batches, rows=4).findings == (
        "A row goes on from the state of another row, at step 0: row 2 from that of row 0 after step 13. Start from "
        "zeros where other rows begin.",
    )
    assert run(lambda model, x, y: batches(model, x, y, reset=True), rows=4).findings == ()


def test_rows_that_are_shuffled_between_batches() -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
        for part, wanted in zip(x.split(K), y.split(K), strict=True):
            order = torch.tensor([0, 2, 1, 3])  # row 0 keeps its place
            prediction, state = model(part[:, order] if state is not None else part, state)
            state = detach(state)
            optimizer.zero_grad()
            squared(prediction, wanted).backward()
            optimizer.step()

    (said,) = run(loop, rows=4).findings
    assert said.startswith(
        "A row goes on from the state of another row, at step 4: row 1 at step 4 from that of row 2. Keep every stream"
    )


# Several layers


class Context(nn.Module):
    """An encoder whose last output is all that a decoder reads, at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.dec, self.fc = nn.GRU(I, H), nn.GRU(H, H), nn.Linear(H, A)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.enc(x)
        return self.fc(self.dec(h[-1:].expand_as(h))[0])


class Pair(nn.Module):
    """An encoder whose state a decoder goes on from; it reads zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.dec, self.fc = nn.GRU(I, H), nn.GRU(I, H), nn.Linear(H, A)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.enc(x)
        return self.fc(self.dec(torch.zeros_like(x), state)[0])


class Parts(nn.Module):
    """Two layers that read different parts of the stream."""

    def __init__(self, begin: int) -> None:
        super().__init__()
        self.enc, self.dec, self.fc, self.begin = nn.GRU(I, H), nn.GRU(I, H), nn.Linear(H, A), begin

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dec(x[self.begin :])[0] + self.enc(x[:6])[0][-1])


def whole(model: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters())
    prediction = model(x)
    optimizer.zero_grad()
    nn.functional.mse_loss(prediction, y[len(y) - len(prediction) :]).backward()
    optimizer.step()


@pytest.mark.parametrize("begin", [6, 5])
def test_layers_that_read_different_steps_are_refused(begin: int) -> None:
    with pytest.raises(ValueError, match=rf"h of enc at steps 0 to 5, h of dec at steps {begin} to 13\. Audit each"):
        run(whole, Parts(begin))


def test_a_decoder_is_refused_whatever_it_reads() -> None:
    with pytest.raises(ValueError, match="got dec, which goes on from the state of enc, as a decoder does"):
        run(whole, Pair())
    with pytest.raises(ValueError, match="got errors at step 0 that reach h of enc at step 13, as through a layer"):
        run(whole, Context())


def test_a_recurrent_layer_that_is_never_called_does_not_count() -> None:
    model = Model()
    model.spare = nn.LSTM(I, H)
    report = run(chunked(), model)
    assert report.name == f"BPTT({K}; {K})"
    assert not report.findings


def short(model: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters())
    prediction, _ = model(x[:-1])
    optimizer.zero_grad()
    nn.functional.mse_loss(prediction, y[:-1]).backward()
    optimizer.step()


def test_one_step_is_spoken_of_in_the_singular() -> None:
    report = run(short)
    assert report.findings == (
        "The last step never learns: the loop never reads it. Take up the rest that fills no window.",
    )
