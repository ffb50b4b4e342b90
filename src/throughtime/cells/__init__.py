"""The cells by name; a new cell is one file and one line here."""

from throughtime.cells.base import Cell
from throughtime.cells.ctrnn import CTRNN
from throughtime.cells.elman import Elman
from throughtime.cells.gru import GRU
from throughtime.cells.lstm import LSTM
from throughtime.spelling import parse, spell

__all__ = ["CTRNN", "GRU", "LSTM", "Cell", "Elman", "cell_named", "cells", "spell_cell"]

cells: dict[str, type[Cell]] = {"elman": Elman, "gru": GRU, "lstm": LSTM, "ctrnn": CTRNN}


def cell_named(name: str | Cell) -> Cell:
    """The cell that a spelling such as `lstm` or `elman:phi=relu` names; a Cell is returned as it is."""
    return name if isinstance(name, Cell) else parse(name, cells, "cell")


def spell_cell(cell: Cell) -> str:
    """The spelling of a cell, or the name of its class when it is not one of the library's."""
    return spell(cell, cells) if type(cell) in cells.values() else type(cell).__name__
