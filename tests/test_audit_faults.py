"""Audit of loops with a planted fault: each gives its sentence."""

from __future__ import annotations

import pytest
import torch
from audit_case import (
    CHUNKS,
    CellModel,
    K,
    Loop,
    Model,
    assert_right,
    chunked,
    detach,
    handed_back,
    keep,
    replayed,
    run,
    squared,
    stream,
)
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, TensorDataset

from throughtime.verify.audit import audit


def test_recipe_that_gives_0_288_for_0_108() -> None:
    """x_t = w x_{t-1}, w = 0.2, x_0 = 0.9: d x_3 / dw is 3 w^2 x_0 = 0.108. Each use that an error x_t reaches adds
    w^(t-1) x_0; the recipe's third update adds up to 0.288."""
    report = run(handed_back(1, 3), CellModel())
    third = report.updates[2][:3, :3].sum(1)
    x_0, w = 0.9, 0.2
    assert float(sum(third[t] * w**t * x_0 for t in range(3))) == pytest.approx(0.288, abs=0.002)
    assert third[2] * w**2 * x_0 == pytest.approx(0.108, abs=0.002)
    assert any("taken up again" in said or "handed back without being cleared" in said for said in report.findings)
    assert "Errors are counted up to 2 times" in report.findings[0]


def test_tensor_split_makes_k_pieces() -> None:
    report = run(chunked(pieces=lambda x: x.tensor_split(K)))
    assert any("cut into 4 pieces, of 4 and 3 steps, in place of pieces of one length" in f for f in report.findings)
    x, y = stream(12)
    report = audit(chunked(pieces=lambda x: x.tensor_split(K)), Model(), x, y, expect=(K, K))
    assert report.name == "BPTT(3; 3)"
    assert report.findings[0].startswith("This is BPTT(3; 3) in place of BPTT(4; 4). The stream is cut into 4 pieces")


def test_off_by_one_against_what_is_expected() -> None:
    assert run(replayed(5, 1), expect=(4, 1)).findings == ("This is BPTT(5; 1) in place of BPTT(4; 1).",)
    assert run(replayed(4, 1), expect=(4, 1)).findings == ()


FAULTS: dict[str, tuple[Loop, type, str]] = {
    "h not detached": (chunked(cut=keep), nn.GRU, "The state is not detached before the next window begins"),
    "c not detached": (
        chunked(cut=lambda s: (s[0].detach(), s[1])),
        nn.LSTM,
        "c of the LSTM is not detached where the other states are",
    ),
    "h not detached, but c": (
        chunked(cut=lambda s: (s[0], s[1].detach())),
        nn.LSTM,
        "h of the LSTM is not detached where the other states are",
    ),
    "state restarts": (chunked(cut=lambda s: None), nn.LSTM, "The state restarts at every batch: at steps 4, 8 and 12"),
    "output detached": (
        chunked(loss=lambda p, y: squared(p.detach().requires_grad_(), y)),
        nn.RNN,
        "No error reaches the recurrent weights: the output is detached",
    ),
    "mean over chunk": (
        chunked(loss=nn.functional.mse_loss),
        nn.RNN,
        "The errors at steps 12 to 13 weigh 2 times what others do: the loss is the mean over each chunk",
    ),
    "last step alone": (
        chunked(loss=lambda p, y: squared(p[-1], y[-1]), pieces=lambda x: x[:12].split(K)),
        nn.RNN,
        "Only the error at the last of every 4 steps is counted",
    ),
    "tail dropped": (
        chunked(pieces=lambda x: x[: len(x) // 5 * 5].split(5)),
        nn.RNN,
        "The last 4 steps never learn: the loop never reads them",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_chunks(fault: str) -> None:
    loop, kind, sentence = FAULTS[fault]
    report = run(loop, Model(kind))
    assert [said for said in report.findings if said.startswith(sentence)], report.findings


def loop_with(order: str) -> Loop:
    """Chunks whose calls come in another order: z zero_grad, b backward, c clip, s step; capitals only at the end."""

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
        parts = list(zip(x.split(K), y.split(K), strict=True))
        for index, (part, wanted) in enumerate(parts):
            prediction, state = model(part, state)
            state = detach(state)
            for letter in order:
                if letter.isupper() and index < len(parts) - 1:
                    continue
                {
                    "z": optimizer.zero_grad,
                    "b": squared(prediction, wanted).backward,
                    "c": lambda: clip_grad_norm_(model.parameters(), 1.0),
                    "s": optimizer.step,
                }[letter.lower()]()

    return loop


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ("bs", "Errors are counted again at every later update"),
        ("zcbs", "Gradients are clipped before backward or after the update"),
        ("zbsc", "Gradients are clipped before backward or after the update"),
        ("zbS", "The gradients of the errors at steps 0 to 11 are thrown away"),
        ("bzs", "All gradients are thrown away"),
        ("zb", "No torch.optim optimizer of the module was seen to step"),
    ],
)
def test_faults_of_order(order: str, sentence: str) -> None:
    report = run(loop_with(order))
    assert report.findings[0].startswith(sentence)
    assert len(report.findings) == 1


def test_order_that_is_right() -> None:
    assert_right(run(loop_with("zbcs")), "BPTT(4; 4)", CHUNKS)
    assert_right(run(loop_with("bS")), "BPTT(4; 4)", CHUNKS)


def test_detach_thrown_away_or_late() -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state, loss = torch.optim.SGD(model.parameters(), lr=0.1), None, 0.0
        for t in range(len(x)):
            prediction, state = model(x[t], state)
            loss = loss + squared(prediction, y[t])
            if t % K == 0 and t:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss = 0.0
            if t % K == 1 and t > 1:
                state = state.detach()

    report = run(loop, CellModel())
    assert report.findings[0].startswith("The state is not detached before the next window begins")
    assert any(said.startswith("The last step never learns: no backward takes up") for said in report.findings)


def test_graph_that_is_kept_grows() -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
        for part, wanted in zip(x.split(K), y.split(K), strict=True):
            prediction, state = model(part, state)
            optimizer.zero_grad()
            squared(prediction, wanted).backward(retain_graph=True)
            optimizer.step()

    report = run(loop)
    assert report.name == "BPTT(14; 4), back to the first step at every update"
    assert report.findings[0].startswith("The state is never detached: every update goes back to the first step")


def test_shuffled_windows_with_the_state_carried() -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
        windows = TensorDataset(torch.stack(x[:12].split(K)), torch.stack(y[:12].split(K)))
        for part, wanted in DataLoader(windows, batch_size=1, shuffle=True):
            prediction, state = model(part[0], state)
            optimizer.zero_grad()
            squared(prediction, wanted[0]).backward()
            optimizer.step()
            state = state.detach()

    report = run(loop)
    assert report.findings[0].startswith("The state is carried, but the order is shuffled: step ")


def test_windows_that_overlap_and_count_all() -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for start in range(0, len(x) - K + 1, 2):
            optimizer.zero_grad()
            squared(model(x[start : start + K])[0], y[start : start + K]).backward()
            optimizer.step()

    report = run(loop)
    assert any(said.startswith("Errors are counted up to 2 times") and "overlap" in said for said in report.findings)
    assert any(said.startswith("The state restarts at every batch") for said in report.findings)
