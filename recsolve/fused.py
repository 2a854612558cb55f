"""Where a recurrence of a cell meets the loops that are compiled from its function."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.arrays import Array, kind_of
from recsolve.kernels import choose
from recsolve.kernels.fused import Chain, Fused
from recsolve.kernels.source import elementwise_module, inputs_of
from recsolve.mixings import Diagonal
from recsolve.tracing import trace, trace_pullback

if TYPE_CHECKING:
    from recsolve.cell import Cell
    from recsolve.cell_recurrence import CellRecurrence

_LOG = logging.getLogger("recsolve")


class FusedCell:
    """The compiled loops of a cell, bound to the arrays of one recurrence.

    Parameters
    ----------
    loops : Fused
    recurrence : CellRecurrence
    """

    def __init__(self, loops: Fused, recurrence: CellRecurrence):
        names, cell = recurrence.cell.cell, recurrence.cell
        self.loops, self.batch, self.names = loops, len(recurrence.batch), names
        self.inputs = [recurrence.drive[name] for name in names.drives]
        self.inputs += [cell.mixings[name].weight for name in names.mixings]
        self.inputs += [cell.parameters[name] for name in names.parameters]
        self.chain = Chain(recurrence.initial, recurrence.restart, recurrence.reset)

    def walk(self, states: Array, start: int = 0) -> None:
        """Fill the rows of ``states`` from ``start`` on, one after the other."""
        self.loops.walk(*self._from(states, start))

    def newton(self, states: Array, window: int, tol: tuple[float, float]) -> int:
        """Fill ``states`` by Newton's method in windows; return the most iterations that lanes took, in all windows."""
        return self.loops.newton(*self._from(states, 0), window, tol)

    def _from(self, states: Array, start: int) -> tuple[list[Array], Array, int, Chain]:
        if start == 0:
            return self.inputs, states, self.batch, self.chain
        drives = [u[start:] for u in self.inputs[: self.loops.drives]]
        reset = None if self.chain.reset is None else self.chain.reset[start:]
        chain = Chain(states[start - 1], self.chain.restart, reset)
        return [*drives, *self.inputs[self.loops.drives :]], states[start:], self.batch, chain

    def evaluate(self, previous: Array, values: Array) -> None:
        """Fill ``values`` with f at all t."""
        self.loops.evaluate(self.inputs, previous, values, self.batch)

    def linearise(self, previous: Array, values: Array, J: Array) -> None:
        """Fill ``values`` with f at all t and J with its Jacobian."""
        self.loops.linearise(self.inputs, previous, values, J, self.batch)

    def adjoint(self, states: Array, cotangent: Array) -> tuple[Array, list[Array], Array, Array]:
        """Return what :meth:`recsolve.kernels.fused.Fused.adjoint` does."""
        return self.loops.adjoint(self.inputs, states, cotangent, self.batch, self.chain)


def fused(recurrence: CellRecurrence) -> FusedCell | None:
    """Return the compiled loops of a recurrence, or None where NumPy is to evaluate it.

    Raises
    ------
    TypeError
        When the backend ``numba`` is forced and the cell cannot be traced; the message has the line.
    """
    cell = recurrence.cell
    if kind_of(recurrence.initial) != "numpy" or not all(isinstance(m, Diagonal) for m in cell.mixings.values()):
        return None
    steps, numbers = recurrence.length, int(np.prod(recurrence.shape))
    if not choose.compiles(steps, numbers):
        return None
    try:
        loops = loops_of(cell.cell, tuple(sorted(recurrence.ties.items())), recurrence.dtype)
    except TypeError as error:
        if choose.forced():
            raise
        _LOG.info("%s; NumPy evaluates it", error)
        return None
    return FusedCell(loops, recurrence)


@lru_cache(maxsize=128)
def loops_of(cell: Cell, ties: tuple[tuple[str, float], ...], dtype: np.dtype[Any]) -> Fused:
    """Return the compiled loops of a cell with diagonal mixings.

    Raises
    ------
    TypeError
        For what cannot be traced.
    """
    program = trace(cell, ties=dict(ties))
    source = elementwise_module(program, trace_pullback(cell, ties=dict(ties)), dtype)
    assert [leaf.name for leaf in inputs_of(program)] == [*cell.drives, *cell.mixings, *cell.parameters]
    return Fused(source, cell.name, len(cell.state), len(cell.drives))
