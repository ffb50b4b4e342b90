"""The laws that the library keeps, as functions: for its tests, and for cells and algorithms of your own."""

from throughtime.verify.cell import check_cell
from throughtime.verify.credit import brute_force, check_credit
from throughtime.verify.result import Result, require, table
from throughtime.verify.shipped import laws, run

__all__ = ["Result", "brute_force", "check_cell", "check_credit", "laws", "require", "run", "table"]
