"""Cells whose state stays as it is where an input is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recsolve.math import where
from recsolve.recurrence.cell import Cell
from recsolve.recurrence.weighted_cell import WeightedCell

_HELD = "_holding"


@dataclass(frozen=True)
class _Holding:
    """The function of a cell, with a drive that says where it is taken."""

    function: Callable[[Any, Any, Any, Any], Any]
    state: tuple[str, ...]

    def __call__(self, s: Any, W: Any, u: Any, p: Any) -> Any:
        new = self.function(s, W, u, p)
        parts = new if isinstance(new, tuple) else (new,)
        held = tuple(where(u.given > 0, part, s[name]) for part, name in zip(parts, self.state, strict=True))
        return held if isinstance(new, tuple) else held[0]


def holding(cell: WeightedCell) -> WeightedCell:
    """Return a cell with one more drive, ``given``: where that is 0 the state stays as it is.

    It is driven by ``recurrence(drive=...)``, the drives of the cell and ``given``, (T, *batch, 1), with a further 1
    for every axis of lanes, of which missing inputs have zeros. The other drives may be any finite numbers there: those
    of an input 0, say. All methods, gradients and compiled loops take such a cell as any other.

    Parameters
    ----------
    cell : WeightedCell

    Returns
    -------
    WeightedCell
        Without a projection.

    Raises
    ------
    TypeError
        For what is no WeightedCell.
    ValueError
        When the cell has a drive of that name already.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)
    >>> x = np.ones((50, 2, 3))
    >>> x[20:30, 1] = np.nan
    >>> known = ~np.isnan(x).any(axis=-1, keepdims=True)
    >>> drive = cell.drive(np.where(known, x, 0))
    >>> sol = rs.solve(rs.cells.holding(cell).recurrence(drive={**drive, "given": known.astype(x.dtype)}))
    >>> sol.success, bool((sol.states[20:30, 1] == sol.states[19, 1]).all())
    (True, True)
    """
    if not isinstance(cell, WeightedCell):
        raise TypeError(f"cell is {type(cell).__name__}; wanted a WeightedCell")
    return WeightedCell(held(cell.cell), cell.mixings, cell.parameters, None, cell.hidden_size)


def held(plain: Cell) -> Cell:
    """Return the definition with one more drive, ``given``."""
    if "given" in plain.drives:
        raise ValueError(f"{plain.name} has a drive given already; wanted a cell without one")
    function = _Holding(plain.function, plain.state)
    return Cell(function, state=plain.state, output=plain.output, name=plain.name + _HELD, cite=plain.cite)


def held_by(cell: Cell) -> Cell | None:
    """Return the definition of which :func:`held` has made a cell, None of others."""
    if type(cell.function) is not _Holding:
        return None
    of, name = cell.function, cell.name.removesuffix(_HELD)
    return Cell(of.function, state=of.state, output=cell.output, name=name, cite=cell.cite)
