"""Audit of losses, heads, precisions and optimizers: what does not matter is not reported, and what does is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from audit_case import (
    CHUNKS,
    A,
    B,
    CellModel,
    H,
    I,
    K,
    Loop,
    Model,
    T,
    assert_right,
    band,
    chunked,
    detach,
    epochwise,
    run,
    squared,
    stream,
)
from torch import Tensor, nn

import throughtime as tt
from throughtime.verify.audit import Audit, audit

# Losses that are no sum over the steps


def root(y: Tensor, wanted: Tensor) -> Tensor:
    return (y - wanted).square().mean().sqrt()


def weighted(y: Tensor, wanted: Tensor) -> Tensor:
    return nn.functional.cross_entropy(y.flatten(0, 1), wanted.flatten(), torch.tensor([1.0, 2.0, 5.0]))


def labels(loop: Loop, steps: int = 12, rows: int = B) -> Audit:
    return audit(loop, Model(outputs=3), torch.randn(steps, rows, I), torch.randint(3, (steps, rows)))


@pytest.mark.parametrize("rows", [2, 3])
def test_a_root_and_a_weighted_mean_mix_no_rows(rows: int) -> None:
    x, y = stream(12, rows)
    assert_right(audit(chunked(loss=root), Model(), x, y), "BPTT(4; 4)", band(4, 4, 12))
    assert_right(labels(chunked(loss=weighted), rows=rows), "BPTT(4; 4)", band(4, 4, 12))


def test_a_weighted_mean_over_a_short_chunk_weighs_more() -> None:
    (said,) = labels(chunked(loss=weighted), 14).findings
    assert said.startswith("The errors at steps 12 to 13 weigh 2 times what others do: the loss is the mean over each")


@pytest.mark.parametrize(("rows", "loss", "row"), [(2, squared, "row 0"), (3, root, "row 0"), (2, root, "row 1")])
def test_rows_that_are_mixed_are_still_found(rows: int, loss: Loop, row: str) -> None:
    """Under a root row 1 has errors of its own; only what comes back from it with their sign tells."""

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state, predictions = torch.optim.SGD(model.parameters(), lr=0.1), torch.zeros(rows, H), []
        for part in x:
            prediction, state = model(part, state.roll(1, 0))
            predictions.append(prediction)
        loss(torch.stack(predictions), y).backward()
        optimizer.step()

    said = run(loop, CellModel(), rows=rows).findings
    assert said[-1].startswith(f"Errors of {row} reach the steps of row ")


def test_one_row_under_a_loss_that_is_no_sum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loop must have a loss that is a sum over the steps and rows; got one in"):
        labels(chunked(loss=weighted), rows=1)


# A loss that goes on


@pytest.mark.parametrize("retain", [True, False])
@pytest.mark.parametrize("fade", [1.0, 0.5])
def test_a_loss_that_is_never_begun_anew(retain: bool, fade: float) -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state, loss = torch.optim.SGD(model.parameters(), lr=0.1), None, 0.0
        for part, wanted in zip(x.split(K), y.split(K), strict=True):
            prediction, state = model(part, state)
            state = detach(state)
            loss = fade * loss + squared(prediction, wanted)
            optimizer.zero_grad()
            loss.backward(retain_graph=retain)
            optimizer.step()

    (said,) = run(loop).findings
    times = sum(fade**k for k in range(4))
    assert said.startswith(
        f"Errors are counted up to {times:.3g} times, at steps 0 to 11: the loss still holds them at the next "
        "backward. Begin a new loss after every update"
    )
    assert ("Torch says: Trying to backward through the graph a second time" in said) == (not retain)


# Heads


class Rectified(Model):
    """A head whose units are off for outputs that are all positive; without bias, or with one that is never passed."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(H, 8)
        with torch.no_grad():
            self.hidden.weight.copy_(-self.hidden.weight.abs())
            self.hidden.bias.fill_(bias)
        self.fc = nn.Linear(8, A)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        h, state = self.rnn(x, state)
        return self.fc(torch.relu(self.hidden(h))), state


def test_a_head_that_is_off_for_some_outputs_is_not_said_to_be_detached() -> None:
    assert_right(run(chunked(), Rectified(0.0)), "BPTT(4; 4)", CHUNKS)


def test_a_head_that_is_off_for_all_outputs_is_named() -> None:
    (said,) = run(chunked(), Rectified(-100.0)).findings
    assert said.startswith(
        "No error reaches the recurrent weights: all that comes back to the outputs is zero, as from"
    )


# Precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, tt.LSTM])
def test_modules_of_half_precision(dtype: torch.dtype, kind: type) -> None:
    x, y = stream(dtype=dtype)
    model = Model(kind).to(dtype)
    assert_right(audit(chunked(), model, x, y), "BPTT(4; 4)", CHUNKS)
    assert model.fc.weight.dtype == dtype

    def begun(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        state = torch.zeros(1, B, H, dtype=dtype)
        prediction, _ = model(x.to(dtype), (state, state) if kind is not nn.GRU else state)
        squared(prediction, y).backward()
        optimizer.step()

    assert_right(audit(begun, model, x, y), f"BPTT({T}; {T}), epochwise", band(T, T))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scaled", [False, True])
def test_autocast_and_a_scaler_of_the_loss(dtype: torch.dtype, scaled: bool) -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
        scaler = torch.amp.GradScaler("cpu", enabled=scaled)
        for part, wanted in zip(x.split(K), y.split(K), strict=True):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                prediction, state = model(part, state)
                loss = squared(prediction, wanted)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            state = detach(state)

    plain = torch.amp.GradScaler.scale
    assert_right(run(loop, Model(nn.LSTM)), "BPTT(4; 4)", CHUNKS)
    assert torch.amp.GradScaler.scale is plain


# Padding


def test_padded_steps() -> None:
    x, y = stream()
    padding = torch.zeros(T, B, dtype=torch.bool)
    padding[9:, 0] = padding[12:, 1] = True
    x[padding], y[padding] = 0.0, 0.0
    report = audit(epochwise, Model(), x, y, padding=padding)
    assert report.findings == (
        "Padded steps count in the loss: errors at steps 9 to 13. Leave them out by a mask, or by a target that the "
        "loss ignores.",
    )

    def masked(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([9, 12]), enforce_sorted=False)
        h, _ = nn.utils.rnn.pad_packed_sequence(model.rnn(packed)[0], total_length=T)
        ((model.fc(h) - y).square().sum(-1) * ~padding).sum().backward()
        optimizer.step()

    report = audit(masked, Model(), x, y, padding=padding)
    assert report.findings == ()
    assert report.name == "BPTT(9; 9), epochwise"


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, tt.LSTM])
def test_padding_behind_packed_rows_that_a_plain_mean_counts(ids: bool, counted: bool, kind: type) -> None:
    """No error reaches a step there, but the head learns from it."""
    padding, lengths = torch.zeros(T, B, dtype=torch.bool), torch.tensor([9, 12])
    padding[9:, 0] = padding[12:, 1] = True
    x = torch.randn(T, B, I)
    y = torch.randint(1, A, (T, B)) if ids else torch.randn(T, B, A)
    y[0, 0], y[padding] = 1, 0
    model = Model(kind, outputs=4 if ids else A)
    y = torch.randint(1, 4, (T, B)).masked_fill(padding, 0) if ids else y

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if kind is tt.LSTM:
            h, _ = model.rnn(x, lengths=lengths)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
            h, _ = nn.utils.rnn.pad_packed_sequence(model.rnn(packed)[0], total_length=T)
        prediction = model.fc(h)
        if ids:
            ignored = -100 if counted else 0
            loss = nn.functional.cross_entropy(prediction.flatten(0, 1), y.flatten(), ignore_index=ignored)
        else:
            loss = ((prediction - y).square() * (1 if counted else ~padding[..., None])).mean()
        loss.backward()
        optimizer.step()

    report = audit(loop, model, x, y, padding=padding)
    said = (
        "Padded steps count in the loss: errors at steps 9 to 13. Leave them out by a mask, or by a target that the "
        "loss ignores."
    )
    assert report.findings == (said,) * counted


# Optimizers


def test_optimizer_without_the_recurrent_weights() -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.1)
        squared(model(x)[0], y).backward()
        optimizer.step()

    assert run(loop).findings == ("The recurrent weights are not given to the optimizer: they never learn.",)


@pytest.mark.parametrize(
    ("left", "named"),
    [
        ("rnn.weight_hh", "rnn.weight_hh_l0 is given to no optimizer: it never learns."),
        ("rnn.weight_ih", "rnn.weight_ih_l0 is given to no optimizer: it never learns."),
        ("rnn.bias", "rnn.bias_ih_l0 and rnn.bias_hh_l0 are given to no optimizer: they never learn."),
        ("fc.", "fc.weight and fc.bias are given to no optimizer: they never learn."),
    ],
)
@pytest.mark.parametrize("inputs", [3, 9])
def test_weights_that_no_optimizer_is_given(left: str, named: str, inputs: int) -> None:
    """Whichever of W_ih and W_hh is the larger."""
    model = Model()
    model.rnn = nn.RNN(inputs, H)
    some = lambda model: [w for name, w in model.named_parameters() if not name.startswith(left)]  # noqa: E731
    report = audit(chunked(given=some), model, torch.randn(T, B, inputs), torch.randn(T, B, A))
    assert report.findings == (named,)
    torch.testing.assert_close(report.matrix, CHUNKS, rtol=0, atol=0.01)


def test_weights_that_do_not_learn_are_not_missed() -> None:
    model = Model()
    model.rnn.weight_ih_l0.requires_grad_(False)
    assert_right(run(chunked(), model), "BPTT(4; 4)", CHUNKS)


def test_updates_by_hand_are_said_not_to_be_seen() -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        state = None
        for part, wanted in zip(x.split(K), y.split(K), strict=True):
            model.zero_grad()
            prediction, state = model(part, state)
            state = detach(state)
            squared(prediction, wanted).backward()
            for weight in model.parameters():
                weight.data.add_(weight.grad, alpha=-0.1)

    assert run(loop).findings == (
        "No torch.optim optimizer of the module was seen to step. Updates by hand cannot be seen: use torch.optim.SGD "
        "for the audit.",
    )


def test_optimizers_of_parts_together_hold_all() -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (model.rnn, model.fc)]
        squared(model(x)[0], y).backward()
        for optimizer in optimizers:
            optimizer.step()

    assert run(loop).findings == ()


def squares(model: nn.Module) -> Any:
    return 1e-3 * sum(weight.square().sum() for weight in model.parameters())


def test_gradients_in_which_the_counts_drown_are_refused_in_float32() -> None:
    with pytest.raises(ValueError, match="loop must give the recurrent weights gradients of the size of its errors"):
        run(chunked(loss=nn.functional.mse_loss, term=squares))


def test_a_term_of_the_weights_does_not_matter_in_float64() -> None:
    x, y = stream(12, dtype=torch.float64)
    report = audit(chunked(loss=nn.functional.mse_loss, term=squares), Model().double(), x, y)
    assert_right(report, "BPTT(4; 4)", band(4, 4, 12))
