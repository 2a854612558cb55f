"""The engine of a cell's recurrence: loops compiled from its function, bound to its arrays."""

from __future__ import annotations

import logging
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array, kind_of
from recsolve.base.overriding import stated
from recsolve.kernels import backends
from recsolve.kernels.codegen.numba_elementwise import elementwise_module, inputs_of
from recsolve.kernels.cpu.cell.fused_loops import Fused
from recsolve.kernels.cpu.cell.mixing import FusedMixing
from recsolve.kernels.cpu.cell.stage_loops import FusedStages
from recsolve.kernels.gpu.cell.fused_solve import FusedCuda
from recsolve.kernels.gpu.cell.mixing_walk import MixingWalkCuda
from recsolve.kernels.gpu.cell.products import ProductsCuda
from recsolve.kernels.gpu.cell.stage_launches import StagesCuda
from recsolve.kernels.starts import Starts
from recsolve.mixings import couples, form_of
from recsolve.recurrence.current import Kinds, Ties, Traced, bound_once, traced_now
from recsolve.recurrence.staged_engine import Staged

if TYPE_CHECKING:
    from recsolve.recurrence.cell_recurrence import CellRecurrence
    from recsolve.recurrence.weighted_cell import WeightedCell

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
        self.starts = Starts(recurrence.initial, recurrence.restart, recurrence.reset)

    def walk(self, states: Array, start: int = 0) -> None:
        """Fill the rows of ``states`` from ``start`` on, one after the other."""
        self.loops.walk(self.inputs, states, self.batch, self.starts, start)

    def newton(self, states: Array, window: int, tol: tuple[float, float]) -> tuple[int, float, dict[str, int]]:
        """Fill ``states`` by Newton's method in windows; return what :meth:`Fused.newton` does."""
        return self.loops.newton(self.inputs, states, self.batch, self.starts, window, tol)

    def evaluate(self, previous: Array, values: Array) -> None:
        """Fill ``values`` with f at all t."""
        self.loops.evaluate(self.inputs, previous, values, self.batch)

    def linearise(self, previous: Array, values: Array, J: Array) -> None:
        """Fill ``values`` with f at all t and J with its Jacobian."""
        self.loops.linearise(self.inputs, previous, values, J, self.batch)

    def adjoint(self, states: Array, cotangent: Array) -> tuple[Array, list[Array], Array, Array]:
        """Return what :meth:`recsolve.kernels.cpu.cell.fused_loops.Fused.adjoint` does."""
        return self.loops.adjoint(self.inputs, states, cotangent, self.batch, self.starts)


@bound_once
def fused(recurrence: CellRecurrence) -> FusedCell | None:
    """Return the compiled loops of a recurrence whose mixings are all diagonal, or None where NumPy evaluates it.

    Raises
    ------
    TypeError
        When a backend that compiles is forced and the cell cannot be traced; the message has the line.
    ValueError
        When the cell is no function.
    """
    if not _diagonal(recurrence) or (traced := traced_of(recurrence)) is None:
        return None
    if launches(recurrence):
        return FusedCell(cuda_loops_of(traced), recurrence)
    return FusedCell(loops_of(traced, recurrence.dtype), recurrence)


@bound_once
def traced_of(recurrence: CellRecurrence) -> Traced | None:
    """Return the traced cell from which loops of a recurrence are compiled; None where NumPy evaluates it.

    Loops replace the methods of a class, so they take only classes that state that this is right, and mixings that
    state their form. A subclass, which may override anything, is evaluated by NumPy.

    Raises
    ------
    TypeError, ValueError
        As :func:`fused`.
    """
    if not (_compiles(recurrence) or launches(recurrence)):
        return None
    cell = recurrence.cell
    if unknown := unknown_parts(recurrence):
        _say_once(recurrence.description, ", ".join(sorted({type(x).__name__ for x in unknown})))
        return None
    try:
        return traced_now(cell.cell, kinds_of(cell), ties_of(recurrence))
    except TypeError as error:
        if backends.forced():
            raise
        _LOG.info("%s; NumPy evaluates it", error)
        return None


def unknown_parts(recurrence: CellRecurrence) -> list[object]:
    """Return the parts of a recurrence whose classes may change what f is: they do not state that they do not."""
    cell = recurrence.cell
    unknown: list[object] = [x for x in (recurrence, cell, cell.cell) if not stated(x, "compilable")]
    return [*unknown, *(m for m in cell.mixings.values() if form_of(m) is None)]


@cache
def _say_once(description: str, kinds: str) -> None:
    _LOG.info("%s: compiled loops do not know what %s does; NumPy evaluates it", description, kinds)


def _diagonal(recurrence: CellRecurrence) -> bool:
    return not any(couples(m) for m in recurrence.cell.mixings.values())


def _compiles(recurrence: CellRecurrence) -> bool:
    if kind_of(recurrence.initial) != "numpy":
        return False
    return backends.compiles(recurrence.length, int(np.prod(recurrence.shape)))


def launches(recurrence: CellRecurrence) -> bool:
    """Return whether CUDA kernels compiled from the cell evaluate a recurrence."""
    return backends.launches(recurrence.initial, recurrence.length, int(np.prod(recurrence.shape)))


def ties_of(recurrence: CellRecurrence) -> Ties:
    """Return the derivatives at ties of a recurrence, by operation."""
    return tuple(sorted(recurrence.ties.items()))


@lru_cache(maxsize=128)
def loops_of(traced: Traced, dtype: np.dtype[Any]) -> Fused:
    """Return the compiled loops of a cell with diagonal mixings."""
    program = traced.program
    source = elementwise_module(program, traced.back, dtype)
    assert [leaf.name for leaf in inputs_of(program)] == [*program.drives, *program.mixings, *program.parameters]
    return Fused(source, program.name, len(program.components), len(program.drives))


@lru_cache(maxsize=128)
def cuda_loops_of(traced: Traced) -> FusedCuda:
    """Return the solves on a GPU of a cell with diagonal mixings, in any dtype."""
    return FusedCuda.of(traced.program, traced.back)


class FusedWalk:
    """The compiled walk of a cell with mixings that couple units, bound to the arrays of one recurrence.

    Parameters
    ----------
    loops : FusedMixing or MixingWalkCuda
    recurrence : CellRecurrence
    """

    def __init__(self, loops: FusedMixing | MixingWalkCuda, recurrence: CellRecurrence):
        names, cell = recurrence.cell.cell, recurrence.cell
        self.loops, self.batch, self.drives = loops, len(recurrence.batch), len(names.drives)
        self.inputs = [recurrence.drive[name] for name in names.drives]
        self.inputs += [m.weight for m in cell.mixings.values() if not couples(m)]
        self.inputs += [cell.parameters[name] for name in names.parameters]
        self.mixings = {name: m.weight for name, m in cell.mixings.items() if couples(m)}
        self.starts = Starts(recurrence.initial, recurrence.restart, recurrence.reset)

    def walk(self, states: Array, start: int = 0) -> None:
        """Fill the rows of ``states`` from ``start`` on, one after the other."""
        inputs = [*(u[start:] for u in self.inputs[: self.drives]), *self.inputs[self.drives :]]
        self.loops.walk(inputs, self.mixings, states[start:], self.batch, self.starts.rest(states, start))


@bound_once
def walker(recurrence: CellRecurrence) -> FusedCell | FusedWalk | None:
    """Return the compiled walk of a recurrence, or None where NumPy takes its steps.

    Raises
    ------
    TypeError, ValueError
        As :func:`fused`.
    """
    if _diagonal(recurrence):
        return fused(recurrence)
    if (traced := traced_of(recurrence)) is None:
        return None
    if launches(recurrence):
        loops = walk_cuda_of(traced)
        return FusedWalk(loops, recurrence) if loops.takes(recurrence.initial[None], len(recurrence.batch)) else None
    return FusedWalk(walk_of(traced, recurrence.dtype), recurrence)


@bound_once
def staged(recurrence: CellRecurrence) -> Staged | None:
    """Return the compiled stages of a recurrence with mixings that couple units, or None where NumPy evaluates it.

    Raises
    ------
    TypeError, ValueError
        As :func:`fused`.
    """
    if _diagonal(recurrence) or (traced := traced_of(recurrence)) is None:
        return None
    if launches(recurrence):
        return Staged(*stages_cuda_of(traced), recurrence)
    return Staged(stages_of(traced, recurrence.dtype), walk_of(traced, recurrence.dtype), recurrence)


def kinds_of(cell: WeightedCell) -> Kinds:
    """Return the kinds of the mixings of a cell, all of which state their form, by name."""
    return tuple((name, str(form_of(cell.mixings[name]))) for name in cell.cell.mixings)


@lru_cache(maxsize=128)
def walk_of(traced: Traced, dtype: np.dtype[Any]) -> FusedMixing:
    """Return the compiled walk of a cell with mixings that couple units."""
    return FusedMixing(traced.program, dtype)


@lru_cache(maxsize=128)
def walk_cuda_of(traced: Traced) -> MixingWalkCuda:
    """Return the walk on a GPU of a cell with mixings that couple units."""
    return MixingWalkCuda(traced.program)


@lru_cache(maxsize=128)
def stages_of(traced: Traced, dtype: np.dtype[Any]) -> FusedStages:
    """Return the compiled stages of a cell with mixings that couple units."""
    return FusedStages(traced.program, dtype)


@lru_cache(maxsize=128)
def stages_cuda_of(traced: Traced) -> tuple[StagesCuda, ProductsCuda]:
    """Return the stages and products on a GPU of a cell with mixings that couple units."""
    return StagesCuda(traced.program), ProductsCuda(traced.program)
