"""Networks under one contract, `net(x, state, reset) -> (y, state)`; and they learn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from throughtime.cells import GRU, cells
from throughtime.chunk import Chunk
from throughtime.credit import BPTT
from throughtime.nets import (
    Adapted,
    Network,
    Window,
    build,
    cross_entropy,
    parameters_of,
    squared_error,
    sum_errors,
    window_like,
)
from throughtime.verify.credit import brute_force, compare, total
from throughtime.verify.result import rounding

DOUBLE = torch.float64
T, B, I, H, A = 9, 3, 4, 5, 2


def network(cell: str = "gru", **options: Any) -> Network:
    return Network(cell, **{"inputs": I, "units": H, "outputs": A} | options).double()


def window(**options: Any) -> Window:
    return Window(**{"inputs": I, "units": H, "outputs": A, "window": 3} | options).double()


def numbers() -> Tensor:
    return torch.randn(T, B, I, dtype=DOUBLE)


def ids() -> Tensor:
    return torch.randint(0, I, (T, B))


def close(a: Any, b: Any, steps: int = T) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=rounding(DOUBLE, steps, I + H))


@pytest.mark.parametrize("make", [network, window])
def test_ids_are_one_hot_numbers_and_an_identity_table(make: Any) -> None:
    plain, table = make(), make(embedding=I)
    table.load_state_dict(plain.state_dict() | {"embed.weight": torch.eye(I, dtype=DOUBLE)})
    x = ids()
    y, _ = plain(nn.functional.one_hot(x, I).double())
    close(plain(x)[0], y)
    close(table(x)[0], y)
    close(plain(x.int())[0], y)


@pytest.mark.parametrize("cell", cells)
@pytest.mark.parametrize("layers", [1, 2])
def test_the_state_may_start_anywhere_and_is_handed_on(cell: str, layers: int) -> None:
    net = network(cell, layers=layers)
    x, reset = numbers(), torch.rand(T, B) < 0.3
    start = tuple(torch.randn_like(slot) for slot in net.layers.start(x))
    y, last = net(x, start, reset)
    state: Any = start
    outputs = []
    for t in range(T):
        out, state = net(x[t : t + 1], state, reset[t : t + 1])
        outputs.append(out)
    close(y, torch.cat(outputs))
    close(last, state)
    assert not torch.equal(y, net(x, None, reset)[0])


@pytest.mark.parametrize("make", [network, window])
def test_a_row_that_restarts_is_a_row_of_its_own(make: Any) -> None:
    net = make()
    x, reset = numbers(), torch.zeros(T, B, dtype=torch.bool)
    reset[4, 1] = True
    y, last = net(x, None, reset)
    before, _ = net(x[:4])
    after, end = net(x[4:, 1:2])
    straight, _ = net(x)
    close(y[:4], before)
    close(y[4:, 1:2], after)
    close(y[:, [0, 2]], straight[:, [0, 2]])
    for given, wanted in zip(tuple(last), tuple(end), strict=True):
        close(given[:, 1:2] if given.dim() == 3 else given[1:2], wanted)


def test_gradient_reaches_whatever_the_initial_state_is_made_of() -> None:
    """One-to-many: the state is a function of an image, say; only the rows that do not restart at once depend on it."""
    net = network("lstm")
    made_of = nn.Linear(7, H).double()
    picture = torch.randn(B, 7, dtype=DOUBLE)
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[0, 1] = True
    state = made_of(picture)[None]
    y, _ = net(numbers(), (state, state), reset)
    (d_state,) = torch.autograd.grad(y.square().sum(), state, retain_graph=True)
    assert (d_state[0, 1] == 0).all()
    assert (d_state[0, [0, 2]] != 0).all()
    (grad,) = torch.autograd.grad(y.square().sum(), made_of.weight)
    assert grad.abs().sum() > 0


def test_tie_shares_one_weight_and_one_gradient() -> None:
    net = network("gru", inputs=6, outputs=6, embedding=H, tie=True)
    assert net.readout.weight is net.embed.weight  # type: ignore[union-attr]
    names = [name for name, _ in net.named_parameters()]
    assert "embed.weight" in names
    assert "readout.weight" not in names
    assert {"embed.weight", "readout.weight"} <= net.state_dict().keys()
    again = build(net.config()).double()
    again.load_state_dict(net.state_dict())
    x = torch.randint(0, 6, (T, B))
    assert torch.equal(again(x)[0], net(x)[0])
    assert again.readout.weight is again.embed.weight  # type: ignore[union-attr]


def test_dropout_acts_in_training_mode_only() -> None:
    for net in (network(layers=2, dropout=0.5), window(layers=2, dropout=0.5)):
        x = numbers()
        net.eval()
        assert torch.equal(net(x)[0], net(x)[0])
        calm, _ = net(x)
        net.train()
        assert not torch.equal(net(x)[0], net(x)[0])
        mean = torch.stack([net(x)[0] for _ in range(30)]).mean(0)
        assert (mean - calm).abs().mean() < 0.5


@pytest.mark.parametrize(
    "config",
    [
        {"network": "recurrent", "cell": "elman:phi=relu", "inputs": 4, "units": 5, "outputs": 2, "layers": 2,
         "embedding": 3, "dropout": 0.25, "tie": False, "backend": "reference"},
        {"network": "recurrent", "cell": "lstm", "inputs": 4, "units": 5, "outputs": 4, "layers": 1,
         "embedding": 5, "dropout": 0.0, "tie": True, "backend": "auto"},
        {"network": "window", "inputs": 4, "units": 5, "outputs": 2, "window": 3, "layers": 2, "embedding": 3,
         "dropout": 0.25},
    ],
)  # fmt: skip
def test_a_config_is_the_network(config: dict[str, Any]) -> None:
    net = build(config)
    assert net.config() == config
    again = build(net.config())
    again.load_state_dict(net.state_dict())
    net.eval()
    again.eval()
    x = ids()
    assert torch.equal(again(x)[0], net(x)[0])


def test_the_names_of_the_weights_are_torchs() -> None:
    net = network("lstm", layers=2)
    plain = nn.LSTM(I, H, num_layers=2).double()
    plain.load_state_dict({name: net.state_dict()[f"layers.{name}"] for name in plain.state_dict()})
    x = numbers()
    close(net(x)[0], net.readout(plain(x)[0]))
    assert [name for name in net.state_dict() if not name.startswith("layers.")] == [
        "readout.weight",
        "readout.bias",
    ]
    assert sorted(window().state_dict()) == [
        "hidden.0.bias",
        "hidden.0.weight",
        "readout.bias",
        "readout.weight",
    ]


def test_a_cell_of_ones_own_needs_no_name() -> None:
    net = Network(GRU(), inputs=I, units=H, outputs=A)
    assert net.config()["cell"] == "gru"
    assert net(torch.randn(T, B, I))[0].shape == (T, B, A)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"units": 0}, "units must be at least 1; got 0."),
        ({"inputs": 0}, "inputs must be at least 1; got 0."),
        ({"outputs": 0}, "outputs must be at least 1; got 0."),
        ({"layers": 0}, "layers must be at least 1; got 0."),
        ({"embedding": -1}, "embedding must be at least 0, where 0 means one-hot ids; got -1."),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; got 1.0."),
    ],
)
def test_sizes_that_cannot_be_are_refused(options: dict[str, Any], sentence: str) -> None:
    for make in (network, window):
        with pytest.raises(ValueError, match=sentence):
            make(**options)


def test_more_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"window must be at least 1; got 0\."):
        window(window=0)
    with pytest.raises(ValueError, match="tie must come with embedding = units and inputs = outputs; got embedding 0"):
        network(tie=True)
    with pytest.raises(ValueError, match="backend must be auto"):
        network(backend="fastest")
    with pytest.raises(ValueError, match=r"network must be recurrent, window, .* or committee; got 'mlp'"):
        build({"network": "mlp"})
    with pytest.raises(ValueError, match="cell must be elman, gru, lstm or ctrnn; got 'Mine'"):
        build(network().config() | {"cell": "Mine"})


@pytest.mark.parametrize("make", [network, window])
@pytest.mark.parametrize(
    ("x", "options", "sentence"),
    [
        (torch.zeros(T, B, I + 1), {}, r"x must be numbers \(T, B, 4\); got \(9, 3, 5\)."),
        (torch.zeros(T, B), {}, r"x must be numbers \(T, B, 4\); got \(9, 3\)."),
        (
            torch.zeros(T, B, I),
            {"embedding": 3},
            "x must be whole-number ids, as the network has an embedding",
        ),
        (torch.zeros(T, B, 1).long(), {}, r"x must be ids \(T, B\), or numbers \(T, B, 4\); got torch.int64"),
        (torch.full((T, B), I), {}, "x must be ids from 0 to 3; got 4 to 4."),
        (torch.full((T, B), -1), {"embedding": 3}, "x must be ids from 0 to 3; got -1 to -1."),
    ],
)
def test_inputs_that_do_not_fit_are_refused(make: Any, x: Tensor, options: dict[str, Any], sentence: str) -> None:
    net = make(**options).float()
    with pytest.raises(ValueError, match=sentence):
        net(x)


def test_states_that_do_not_fit_are_refused() -> None:
    x = numbers()
    for state in (torch.zeros(1, B, H), (torch.zeros(2, B, H),), (torch.zeros(1, 1, H),)):
        with pytest.raises(ValueError, match="state must be"):
            network("gru")(x, state)
    for state in (torch.zeros(1, B, H), (torch.zeros(2, B, I),)):
        with pytest.raises(ValueError, match=r"state must be a tensor \(2, 3, 4\), as the call before returned it"):
            window()(x, state)
    for net in (network(), window(), Adapted(nn.GRU(I, H).double())):
        for reset in (torch.zeros(T, B), torch.zeros(B, T, dtype=torch.bool)):
            with pytest.raises(ValueError, match="reset must be bool"):
                net(x, None, reset)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("embedding", [0, 3])
def test_window_is_an_mlp_over_the_last_inputs(k: int, embedding: int) -> None:
    net = window(window=k, layers=2, embedding=embedding)
    x = ids()
    y, _ = net(x)
    table = torch.eye(I, dtype=DOUBLE) if net.embed is None else net.embed.weight
    vectors = torch.cat((torch.zeros(k - 1, B, table.shape[1], dtype=DOUBLE), table[x]))
    for t in range(T):
        h = vectors[t : t + k].transpose(0, 1).flatten(1)
        for layer in net.hidden:
            h = torch.relu(h @ layer.weight.T + layer.bias)
        close(y[t], h @ net.readout.weight.T + net.readout.bias)


def test_window_reads_numbers_too_and_remembers_no_more_than_it_sees() -> None:
    net = window(window=3)
    x = numbers()
    y, state = net(x)
    assert state.shape == (2, B, I)
    assert torch.equal(state, x[-2:])
    other = x.clone()
    other[:4] += 1
    assert torch.equal(net(other)[0][6:], y[6:])
    assert not torch.equal(net(other)[0][5], y[5])
    close(net(torch.randn(1, B, I).double(), state)[0].shape, torch.Size([1, B, A]))


@pytest.mark.parametrize("credit", [BPTT(), BPTT(1), BPTT(2, 2), BPTT(5, 3), BPTT(3, replay=False)])
def test_the_gradient_of_a_window_is_exact_under_every_credit(credit: BPTT) -> None:
    net = window(window=3, embedding=3)
    chunk = Chunk(ids(), torch.randint(0, A, (T, B)), torch.rand(T, B).double(), torch.rand(T, B) < 0.2, end=True)
    error, count = sum_errors(cross_entropy, net(chunk.x, None, chunk.reset)[0], chunk)
    grads = torch.autograd.grad(error, list(net.parameters()))
    for cuts in ((), (4, 5), range(1, T)):
        given = total(credit, net, cross_entropy, chunk, cuts)
        assert given.count == pytest.approx(count)
        close(given.loss, error.detach())
        close(list(given.grads.values()), list(grads))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("embedding", [0, 12])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_window_like_has_as_many_weights(layers: int, embedding: int, k: int) -> None:
    net = Network("lstm", inputs=30, units=20, outputs=30, layers=layers, embedding=embedding)
    like = window_like(net, k)
    options = like.config()
    del options["network"]
    one_more = Window(**options | {"units": options["units"] + 1})
    off = abs(parameters_of(like) - parameters_of(net))
    assert off <= (parameters_of(one_more) - parameters_of(like) + 1) / 2
    assert (like.window, len(like.hidden)) == (k, layers)


def test_parameters_are_counted_once_and_only_where_they_learn() -> None:
    net = network("gru", inputs=6, outputs=6, embedding=H, tie=True)
    by_hand = 6 * H + 3 * H * (H + H + 2) + 6
    assert parameters_of(net) == by_hand
    net.readout.bias.requires_grad_(False)
    assert parameters_of(net) == by_hand - 6


class Nested(nn.Module):
    """A user's module: two LSTM layers of different widths, their states in nested tuples; `(x, hx) -> (y, hx)`."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.out = nn.LSTM(I, 3), nn.GRU(3, H), nn.Linear(H, A)

    def forward(self, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        low, high = (None, None) if hx is None else hx
        y, low = self.low(x, low)
        y, high = self.high(y, high)
        return self.out(y), (low, high)


def test_adapted_runs_any_module_with_restarts() -> None:
    module = Nested().double()
    net = Adapted(module)
    x, reset = numbers(), torch.zeros(T, B, dtype=torch.bool)
    y, state = net(x)
    wanted, hx = module(x)
    close(y, wanted)
    assert isinstance(state, tuple)
    close(state, hx)
    reset[4, 1] = True
    y, ((h, c), g) = net(x, None, reset)
    alone, ((h1, c1), g1) = module(x[4:, 1:2])
    close(y[4:, 1:2], alone)
    close([h[:, 1:2], c[:, 1:2], g[:, 1:2]], [h1, c1, g1])
    close(y[:, [0, 2]], wanted[:, [0, 2]])


@pytest.mark.parametrize(("h", "every"), [(None, 13), (1, 1), (4, 1), (5, 2), (3, 3)])
def test_adapted_modules_get_their_credit(h: int | None, every: int) -> None:
    net = Adapted(Nested()).double()
    x, reset = torch.randn(13, B, I, dtype=DOUBLE), torch.rand(13, B) < 0.2
    chunk = Chunk(x, torch.randn(13, B, A, dtype=DOUBLE), torch.rand(13, B).double(), reset, end=True)
    wanted = brute_force(net, squared_error, chunk, h, every)
    for cuts in ((), (4, 9), range(1, 13)):
        given = total(BPTT() if h is None else BPTT(h, every), net, squared_error, chunk, cuts)
        measured = compare(given, wanted, 13)
        assert measured.error <= measured.tolerance


def spelling_machine() -> Chunk:
    """machin -> achine, twice in a row: at each letter the next one."""
    letters = {letter: index for index, letter in enumerate("machine")}
    x = torch.tensor([letters[letter] for letter in "machin"])[:, None]
    y = torch.tensor([letters[letter] for letter in "achine"])[:, None]
    return Chunk(x, y, reset=torch.eye(6, 1).bool(), end=True)


@pytest.mark.parametrize(
    ("cell", "credit"),
    [*((cell, BPTT()) for cell in (*cells, "window")), ("gru", BPTT(4, 2)), ("gru", BPTT(4, replay=False))],
)
def test_every_network_learns_to_spell(cell: str, credit: BPTT) -> None:
    torch.manual_seed(3)
    sizes = {"inputs": 7, "units": 12, "outputs": 7}
    net: nn.Module = Window(window=2, **sizes) if cell == "window" else Network(cell, **sizes)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    chunk = spelling_machine()
    seen = []
    for _ in range(80):
        estimate = total(credit, net, cross_entropy, chunk)
        for name, weight in net.named_parameters():
            weight.grad = estimate.grads[name] / estimate.count
        optimizer.step()
        seen.append(float(estimate.loss / estimate.count))
    assert seen[0] == pytest.approx(math.log(7), abs=0.5)
    assert seen[-1] < 0.1
    assert torch.equal(net(chunk.x)[0].argmax(-1), chunk.y)


def test_a_window_like_a_network_is_counted_without_drawing():
    """The same seed gives the same first weights, whether its units were given or counted."""
    net = Network("gru", inputs=5, units=6, outputs=4)
    torch.manual_seed(3)
    counted = window_like(net, 4)
    torch.manual_seed(3)
    given = Window(inputs=5, units=counted.config()["units"], outputs=4, window=4)
    for one, other in zip(counted.parameters(), given.parameters(), strict=True):
        assert torch.equal(one, other)
