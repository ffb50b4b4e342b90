"""Audit of a user's own loop: right loops are named and have no finding."""

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
    Model,
    T,
    assert_right,
    band,
    chunked,
    detach,
    epochwise,
    handed_back,
    replayed,
    run,
    squared,
    stream,
)
from torch import Tensor, nn

import throughtime as tt
from throughtime.verify.audit import audit


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM, tt.LSTM, tt.GRU])
@pytest.mark.parametrize("layers", [1, 2])
def test_chunks(kind: type, layers: int) -> None:
    report = run(chunked(), Model(kind, layers))
    assert_right(report, "BPTT(4; 4)", CHUNKS)
    assert len(report.carriers) == layers * (1 + (kind in (nn.LSTM, tt.LSTM)))


@pytest.mark.parametrize(("h", "every"), [(6, 3), (5, 3), (4, 1), (1, 1), (7, 2), (14, 1)])
def test_replayed_windows(h: int, every: int) -> None:
    report = run(replayed(h, every), Model(nn.LSTM))
    if h == T:
        assert report.name == "BPTT(14; 1), back to the first step at every update"
        assert report.findings == ()
    else:
        assert_right(report, f"BPTT({h}; {every})", band(h, every))
    assert len(report.updates) == -(-T // every)


def test_epochwise_and_two_epochs_alike() -> None:
    assert_right(run(epochwise, Model(nn.GRU)), f"BPTT({T}; {T}), epochwise", band(T, T))


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell, tt.GRUCell])
def test_cells(kind: type) -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state, loss = torch.optim.SGD(model.parameters(), lr=0.1), None, 0.0
        for t in range(len(x)):
            if t % K == 0 and t:
                state = detach(state)
            prediction, state = model(x[t], state)
            loss = loss + squared(prediction, y[t])
            if t % K == K - 1 or t == len(x) - 1:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss = 0.0

    assert_right(run(loop, CellModel(kind)), "BPTT(4; 4)", CHUNKS)


def test_the_librarys_own_network() -> None:
    net = tt.Network("lstm", inputs=I, units=H, outputs=A, layers=2)
    assert_right(run(chunked(), net), "BPTT(4; 4)", CHUNKS)


def test_recipe_of_pairs_that_clears_its_gradients() -> None:
    assert_right(run(handed_back(1, 3, clear=True), CellModel()), "BPTT(3; 1)", band(3, 1))


def test_batch_first() -> None:
    x, y = stream()
    loop = chunked(pieces=lambda x: x.split(K, 1))
    report = audit(loop, Model(nn.LSTM, batch_first=True), x.transpose(0, 1), y.transpose(0, 1), batch_first=True)
    assert_right(report, "BPTT(4; 4)", CHUNKS)


def test_ids_of_one_stream_whose_next_is_the_target() -> None:
    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.rnn, self.fc = nn.Embedding(7, 4), nn.LSTM(4, H), nn.Linear(H, 7)

        def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
            h, state = self.rnn(self.embed(x), state)
            return self.fc(h), state

    def loop(model: nn.Module, ids: Tensor) -> None:
        optimizer, state = torch.optim.SGD(model.parameters(), lr=20), None
        for start in range(0, len(ids) - 1, K):
            stop = min(start + K, len(ids) - 1)
            prediction, state = model(ids[start:stop], state)
            model.zero_grad()
            nn.functional.cross_entropy(
                prediction.flatten(0, 1), ids[start + 1 : stop + 1].flatten(), reduction="sum"
            ).backward()
            optimizer.step()
            state = detach(state)

    assert_right(audit(loop, Language(), torch.randint(7, (T + 1, B))), "BPTT(4; 4)", CHUNKS)


def test_a_cell_of_ones_own() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.2))

        def forward(self, x: Tensor, state: Tensor) -> Tensor:
            return self.w * state

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), torch.zeros(1, 1)
        for start in range(0, 6, 3):
            loss, state = 0.0, state.detach()
            for t in range(start, start + 3):
                state = model(x[t], state)
                loss = loss + squared(state, y[t])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    report = audit(loop, Own(), torch.randn(6, 1, 1), torch.randn(6, 1, 1), cells=(Own,))
    assert_right(report, "BPTT(3; 3)", band(3, 3, 6))
    with pytest.raises(ValueError, match=r"module must hold a recurrent layer or cell"):
        audit(loop, Own(), torch.randn(6, 1, 1), torch.randn(6, 1, 1))


def test_few_weights_count_in_several_runs() -> None:
    x, y = torch.randn(7, 1, I), torch.randn(7, 1, A)
    model = CellModel()
    model.cell, model.fc = nn.RNNCell(I, 1, bias=False), nn.Linear(1, A)

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
        loss = torch.zeros(())
        for part, wanted in zip(x, y, strict=True):
            prediction, state = model(part, state)
            loss = loss + squared(prediction, wanted)
        loss.backward()
        optimizer.step()

    assert_right(audit(loop, model, x, y), "BPTT(7; 7), epochwise", band(7, 7, 7))
