"""The report of an audit, what it leaves as it is, and what is refused."""

from __future__ import annotations

import matplotlib
import pytest
import torch
from audit_case import A, B, H, I, Model, T, chunked, epochwise, run, stream
from torch import Tensor, nn

from throughtime.verify.audit import audit


def test_report_fits_a_screen_and_is_drawn() -> None:
    report = run(chunked(cut=lambda s: (s[0].detach(), s[1])), Model(nn.LSTM))
    lines = str(report).splitlines()
    assert lines[0] == "This loop computes BPTT(4; 4)."
    assert max(map(len, lines)) < 80
    assert str(report).isascii()
    right = str(run(chunked()))
    assert "       4  ....#\n       5  ....##\n" in right
    matplotlib.use("Agg")
    axes = report.plot()
    assert axes.get_title() == "BPTT(4; 4)"
    assert report.plot(axes) is axes
    matplotlib.pyplot.close("all")


def test_nothing_of_the_users_is_changed() -> None:
    model = Model(nn.LSTM)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    random, backward = torch.get_rng_state(), torch.autograd.backward
    x, y = stream()
    drawn = torch.get_rng_state()
    audit(chunked(), model, x, y)
    assert not torch.equal(random, drawn)
    torch.testing.assert_close(torch.get_rng_state(), drawn, rtol=0, atol=0)
    assert torch.autograd.backward is backward
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    assert all(weight.grad is None for weight in model.parameters())


def test_what_is_refused() -> None:
    x, y = stream()
    with pytest.raises(ValueError, match=r"module must be called with steps of x as they stand there"):
        audit(lambda model, x, y: epochwise(model, x * 2, y), Model(), x, y)
    with pytest.raises(ValueError, match=r"y must have two values at least"):
        audit(epochwise, Model(), x, torch.zeros(T, B, A))
    with pytest.raises(ValueError, match=r"y must begin with the axes of x"):
        audit(epochwise, Model(), x, y[:-1])
    both, projected = Model(), Model()
    both.rnn, projected.rnn = nn.RNN(I, H, bidirectional=True), nn.LSTM(I, H, proj_size=2)
    with pytest.raises(ValueError, match=r"rnn must go forward in time"):
        audit(epochwise, both, x, y)
    with pytest.raises(ValueError, match=r"rnn must have no proj_size"):
        audit(epochwise, projected, x, y)
    with pytest.raises(ValueError, match=r"loop must call the module's recurrent layers"):
        audit(lambda model, x, y: None, Model(), x, y)
    with pytest.raises(ValueError, match=r"rnn has none with requires_grad"):
        audit(epochwise, Model().requires_grad_(False), x, y)
    with pytest.raises(ValueError, match=r"padding must be bool"):
        audit(epochwise, Model(), x, y, padding=torch.zeros(T))
    with pytest.raises(RuntimeError, match="mine"):
        audit(_raises, Model(), x, y)


def _raises(model: nn.Module, x: Tensor, y: Tensor) -> None:
    raise RuntimeError("mine")
