"""Audit of a user's own loop: right loops are named and have no finding; every planted fault gives its sentence."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import matplotlib
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, TensorDataset

import throughtime as tt
from throughtime.verify.audit import Audit, audit

T, B, I, H, A, K = 14, 2, 3, 5, 2, 4
Loop = Callable[..., Any]


class Model(nn.Module):
    """A recurrent layer and a readout, as most people write it."""

    def __init__(self, kind: type = nn.RNN, layers: int = 1, batch_first: bool = False) -> None:
        super().__init__()
        self.rnn = kind(I, H, num_layers=layers, batch_first=batch_first)
        self.fc = nn.Linear(H, A)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        h, state = self.rnn(x, state)
        return self.fc(h), state


class CellModel(nn.Module):
    def __init__(self, kind: type = nn.RNNCell) -> None:
        super().__init__()
        self.cell = kind(I, H)
        self.fc = nn.Linear(H, A)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        state = self.cell(x, state)
        return self.fc(state[0] if isinstance(state, tuple) else state), state


def stream(steps: int = T) -> tuple[Tensor, Tensor]:
    return torch.randn(steps, B, I), torch.randn(steps, B, A)


def detach(state: Any) -> Any:
    return state.detach() if isinstance(state, Tensor) else tuple(part.detach() for part in state)


def squared(y: Tensor, wanted: Tensor) -> Tensor:
    return (y - wanted).square().sum()


def chunked(
    cut: Callable[[Any], Any] = detach, loss: Loop = squared, pieces: Callable[[Tensor], Any] = lambda x: x.split(K)
) -> Loop:
    """Chunks with the state carried on; what is done to the state, the loss and the pieces can be changed."""

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state = torch.optim.Adam(model.parameters()), None
        for part, wanted in zip(pieces(x), pieces(y), strict=True):
            prediction, state = model(part, state)
            optimizer.zero_grad()
            loss(prediction, wanted).backward()
            clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            state = cut(state)

    return loop


def replayed(h: int, every: int) -> Loop:
    """BPTT(h; every): forward once without a gradient, then every window again from the state before it."""

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        states: list[Any] = [None]
        with torch.no_grad():
            for t in range(len(x)):
                states.append(model(x[t : t + 1], states[-1])[1])
        for start in range(0, len(x), every):
            stop = min(start + every, len(x))
            first = max(0, stop - h)
            prediction, _ = model(x[first:stop], states[first])
            optimizer.zero_grad()
            squared(prediction[start - first :], y[start:stop]).backward()
            optimizer.step()

    return loop


def epochwise(model: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x)[0], y).backward()
        optimizer.step()


def handed_back(k1: int, k2: int, clear: bool = False) -> Loop:
    """The popular recipe for k1 != k2: pairs (detached state that went in, state that came out) of every step; the
    .grad of a later one is handed to the one before."""

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        state = torch.zeros(B, H)
        pairs: list[tuple[Tensor, Tensor]] = []
        for t in range(len(x)):
            entered = state.detach().requires_grad_()
            prediction, state = model(x[t], entered)
            pairs = [*pairs, (entered, state)][-k2:]
            if (t + 1) % k1:
                continue
            optimizer.zero_grad()
            for before, _ in pairs if clear else ():
                before.grad = None
            squared(prediction, y[t]).backward(retain_graph=True)
            for (_, out), (later, _) in list(pairwise(pairs))[::-1]:
                out.backward(later.grad, retain_graph=True)
            optimizer.step()

    return loop


def run(loop: Loop, module: nn.Module | None = None, **options: Any) -> Audit:
    x, y = stream()
    return audit(loop, Model() if module is None else module, x, y, **options)


def band(h: int, every: int, steps: int = T) -> Tensor:
    """The matrix of BPTT(h; every) by its definition."""
    matrix = torch.zeros(steps, steps, dtype=torch.float64)
    for t in range(steps):
        stop = min((t // every + 1) * every, steps)
        matrix[t, max(0, stop - h) : t + 1] = 1
    return matrix


CHUNKS = torch.block_diag(*(torch.ones(size, size, dtype=torch.float64).tril() for size in (4, 4, 4, 2)))


def assert_right(report: Audit, name: str, matrix: Tensor) -> None:
    assert report.name == name
    assert report.findings == ()
    torch.testing.assert_close(report.matrix, matrix, rtol=0, atol=0.01)


# Right loops


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


# Planted faults


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


def keep(state: Any) -> Any:
    return state


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


def test_optimizer_without_the_recurrent_weights() -> None:
    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.SGD(model.fc.parameters(), lr=0.1)
        squared(model(x)[0], y).backward()
        optimizer.step()

    assert run(loop).findings == ("The recurrent weights are not given to the optimizer: they never learn.",)


# The report, and what is refused


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
