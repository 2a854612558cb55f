"""Where a recurrence of a cell meets the loops that are compiled from its function."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from recsolve.arrays import Array, kind_of
from recsolve.fused_stages import Staged
from recsolve.kernels import choose
from recsolve.kernels.chain import Chain
from recsolve.kernels.fused import Fused
from recsolve.kernels.fused_cuda import FusedCuda
from recsolve.kernels.fused_mixing import FusedMixing
from recsolve.kernels.fused_stages import FusedStages
from recsolve.kernels.products_cuda import ProductsCuda
from recsolve.kernels.source import elementwise_module, inputs_of
from recsolve.kernels.stages_cuda import StagesCuda
from recsolve.mixings import Diagonal
from recsolve.tracing import trace, trace_pullback

if TYPE_CHECKING:
    from recsolve.cell import Cell
    from recsolve.cell_recurrence import CellRecurrence
    from recsolve.weighted_cell import WeightedCell

Loops = TypeVar("Loops")
_LOG = logging.getLogger("recsolve")


class FusedCell:
    """The compiled loops of a cell, bound to the arrays of one recurrence.

    Parameters
    ----------
    loops : Fused or FusedCuda
        For NumPy arrays, or arrays on a GPU.
    recurrence : CellRecurrence
    """

    def __init__(self, loops: Fused | FusedCuda, recurrence: CellRecurrence):
        names, cell = recurrence.cell.cell, recurrence.cell
        self.loops, self.batch, self.names = loops, len(recurrence.batch), names
        self.inputs = [recurrence.drive[name] for name in names.drives]
        self.inputs += [cell.mixings[name].weight for name in names.mixings]
        self.inputs += [cell.parameters[name] for name in names.parameters]
        self.chain = Chain(recurrence.initial, recurrence.restart, recurrence.reset)

    def walk(self, states: Array, start: int = 0) -> None:
        """Fill the rows of ``states`` from ``start`` on, one after the other."""
        self.loops.walk(self.inputs, states, self.batch, self.chain, start)

    def newton(self, states: Array, window: int, tol: tuple[float, float]) -> tuple[int, float, dict[str, int]]:
        """Fill ``states`` by Newton's method in windows; return what :meth:`Fused.newton` does."""
        return self.loops.newton(self.inputs, states, self.batch, self.chain, window, tol)

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
    """Return the compiled loops of a recurrence whose mixings are all diagonal, or None where it goes to NumPy.

    Raises
    ------
    TypeError
        When a backend that compiles is forced and the cell cannot be traced; the message has the line.
    """
    if not _diagonal(recurrence):
        return None
    cell, ties = recurrence.cell.cell, ties_of(recurrence)
    if _compiles(recurrence):
        loops: Fused | FusedCuda | None = traced(lambda: loops_of(cell, ties, recurrence.dtype))
    elif launches(recurrence):
        loops = traced(lambda: cuda_loops_of(cell, ties))
    else:
        return None
    return None if loops is None else FusedCell(loops, recurrence)


def _diagonal(recurrence: CellRecurrence) -> bool:
    return all(isinstance(m, Diagonal) for m in recurrence.cell.mixings.values())


def _compiles(recurrence: CellRecurrence) -> bool:
    if kind_of(recurrence.initial) != "numpy":
        return False
    return choose.compiles(recurrence.length, int(np.prod(recurrence.shape)))


def launches(recurrence: CellRecurrence) -> bool:
    """Return whether CUDA kernels compiled from the cell evaluate a recurrence."""
    return choose.launches(recurrence.initial, recurrence.length, int(np.prod(recurrence.shape)))


def ties_of(recurrence: CellRecurrence) -> tuple[tuple[str, float], ...]:
    """Return the derivatives at ties of a recurrence, by operation."""
    return tuple(sorted(recurrence.ties.items()))


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


@lru_cache(maxsize=128)
def cuda_loops_of(cell: Cell, ties: tuple[tuple[str, float], ...]) -> FusedCuda:
    """Return the solves on a GPU of a cell with diagonal mixings, in any dtype.

    Raises
    ------
    TypeError
        For what cannot be traced.
    """
    return FusedCuda.of(trace(cell, ties=dict(ties)), trace_pullback(cell, ties=dict(ties)))


class FusedWalk:
    """The compiled walk of a cell with mixings that couple units, bound to the arrays of one recurrence.

    Parameters
    ----------
    loops : FusedMixing
    recurrence : CellRecurrence
    """

    def __init__(self, loops: FusedMixing, recurrence: CellRecurrence):
        names, cell = recurrence.cell.cell, recurrence.cell
        self.loops, self.batch, self.drives = loops, len(recurrence.batch), len(names.drives)
        self.inputs = [recurrence.drive[name] for name in names.drives]
        self.inputs += [m.weight for m in cell.mixings.values() if isinstance(m, Diagonal)]
        self.inputs += [cell.parameters[name] for name in names.parameters]
        self.mixings = {name: m.weight for name, m in cell.mixings.items() if not isinstance(m, Diagonal)}
        self.chain = Chain(recurrence.initial, recurrence.restart, recurrence.reset)

    def walk(self, states: Array, start: int = 0) -> None:
        """Fill the rows of ``states`` from ``start`` on, one after the other."""
        inputs = [*(u[start:] for u in self.inputs[: self.drives]), *self.inputs[self.drives :]]
        self.loops.walk(inputs, self.mixings, states[start:], self.batch, self.chain.rest(states, start))


def walker(recurrence: CellRecurrence) -> FusedCell | FusedWalk | None:
    """Return the compiled walk of a recurrence, or None where NumPy is to take its steps.

    Raises
    ------
    TypeError
        As :func:`fused`.
    """
    if _diagonal(recurrence):
        return fused(recurrence)
    if not _compiles(recurrence):
        return None
    loops = traced(lambda: walk_of(recurrence.cell.cell, kinds_of(recurrence.cell), recurrence.dtype))
    return None if loops is None else FusedWalk(loops, recurrence)


def staged(recurrence: CellRecurrence) -> Staged | None:
    """Return the compiled stages of a recurrence with mixings that couple units, or None where NumPy evaluates it.

    Raises
    ------
    TypeError
        As :func:`fused`.
    """
    launched = launches(recurrence)
    if _diagonal(recurrence) or not (launched or _compiles(recurrence)):
        return None
    cell, kinds = recurrence.cell.cell, kinds_of(recurrence.cell)
    if launched:
        kernels = traced(lambda: stages_cuda_of(cell, kinds, ties_of(recurrence)))
        return None if kernels is None else Staged(*kernels, recurrence)
    loops = traced(lambda: stages_of(cell, kinds, ties_of(recurrence), recurrence.dtype))
    return None if loops is None else Staged(loops, walk_of(cell, kinds, recurrence.dtype), recurrence)


def kinds_of(cell: WeightedCell) -> tuple[tuple[str, str], ...]:
    """Return the kinds of the mixings of a cell, by name."""
    return tuple((name, cell.mixings[name].name) for name in cell.cell.mixings)


def traced(make: Callable[[], Loops]) -> Loops | None:
    """Return what is made of a traced cell, or None where it cannot be traced and NumPy may take its place."""
    try:
        return make()
    except TypeError as error:
        if choose.forced():
            raise
        _LOG.info("%s; NumPy evaluates it", error)
        return None


@lru_cache(maxsize=128)
def walk_of(cell: Cell, kinds: tuple[tuple[str, str], ...], dtype: np.dtype[Any]) -> FusedMixing:
    """Return the compiled walk of a cell with mixings of these kinds, by name.

    Raises
    ------
    TypeError
        For what cannot be traced.
    """
    return FusedMixing(trace(cell, dict(kinds)), dtype)


@lru_cache(maxsize=128)
def stages_of(
    cell: Cell, kinds: tuple[tuple[str, str], ...], ties: tuple[tuple[str, float], ...], dtype: np.dtype[Any]
) -> FusedStages:
    """Return the compiled stages of a cell with mixings of these kinds, by name.

    Raises
    ------
    TypeError
        For what cannot be traced.
    """
    return FusedStages(trace(cell, dict(kinds), dict(ties)), dtype)


@lru_cache(maxsize=128)
def stages_cuda_of(
    cell: Cell, kinds: tuple[tuple[str, str], ...], ties: tuple[tuple[str, float], ...]
) -> tuple[StagesCuda, ProductsCuda]:
    """Return the stages and products on a GPU of a cell with mixings of these kinds, by name.

    Raises
    ------
    TypeError
        For what cannot be traced.
    """
    program = trace(cell, dict(kinds), dict(ties))
    return StagesCuda(program), ProductsCuda(program)
