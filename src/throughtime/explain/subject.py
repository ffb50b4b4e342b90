"""The network that the page unrolls: one layer of 3 to 8 units, one bias a gate, in float64."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from throughtime.cells import GRU, LSTM, Cell, Elman, spell_cell
from throughtime.explain.problem import Problem
from throughtime.nets import Network
from throughtime.spelling import parse

CELLS: dict[str, type[Cell]] = {"elman": Elman, "gru": GRU, "lstm": LSTM}
FEWEST, MOST = 3, 8
"""Units."""
WIDEST = 16
"""Letters that a trained network may know."""


def network(problem: Problem, cell: str = "elman", units: int = 4, seed: int = 0) -> Network:
    """A network with first weights, uniform within 1 / sqrt(units). Raises ValueError for what a page cannot show."""
    kind = parse(cell, CELLS, "cell")
    if not FEWEST <= units <= MOST:
        raise ValueError(f"--units must be {FEWEST} to {MOST}, so that every number can be seen; got {units}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Network(kind, inputs=problem.width, units=units, outputs=problem.width, backend="reference").double()
    nn.init.zeros_(net.layers.get_parameter("bias_hh_l0"))
    return one_bias(net)


def trained(net: object, name: object) -> Network:
    """The network of a run, ready for the page. Raises ValueError when it is too large for one."""
    fits = (
        isinstance(net, Network)
        and type(net.layers.cell) in CELLS.values()
        and (net.layers.depth, net.embed, net.tie) == (1, None, False)
        and net.layers.units <= MOST
        and net.inputs <= WIDEST
    )
    if not fits:
        raise ValueError(
            f"--run must be one layer of elman, gru or lstm, of at most {MOST} units over at most {WIDEST} letters, "
            f"trained with --embedding 0; {name} is not."
        )
    assert isinstance(net, Network)
    return one_bias(deepcopy(net).double().eval())


def one_bias(net: Network) -> Network:
    """Move b_h into b_x, which changes no output, and let b_x alone learn: the b_h of the textbooks.

    The GRU's candidate has v = W_h h + b_h behind the reset gate; that part of b_h stays where it is, fixed.
    """
    units, cell = net.layers.units, net.layers.cell
    b_x, b_h = (net.layers.get_parameter(f"bias_{end}_l0") for end in ("ih", "hh"))
    with torch.no_grad():
        moved = b_h.clone()
        if isinstance(cell, GRU):
            moved[2 * units :] = 0
        b_x.add_(moved)
        b_h.sub_(moved)
    b_h.requires_grad_(False)
    return net


def spelled(net: Network) -> str:
    """The spelling of its cell."""
    return spell_cell(net.layers.cell)
