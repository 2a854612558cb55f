"""What is compiled of a cell: whether, for which recurrences, and the loops and kernels that are kept."""

from __future__ import annotations

import logging
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import kind_of
from recsolve.base.overriding import stated
from recsolve.kernels import backends
from recsolve.kernels.codegen.cuda_stages import sweep_cell
from recsolve.kernels.codegen.numba_elementwise import elementwise_module, inputs_of
from recsolve.kernels.cpu.cell.fused_loops import Fused
from recsolve.kernels.cpu.cell.mixing import FusedMixing
from recsolve.kernels.cpu.cell.stage_loops import FusedStages
from recsolve.kernels.gpu.cell.fused_solve import FusedCuda
from recsolve.kernels.gpu.cell.products import ProductsCuda
from recsolve.kernels.gpu.cell.stage_launches import StagesCuda
from recsolve.kernels.gpu.cell.sweeps import SweepsCuda
from recsolve.mixings import couples, form_of
from recsolve.recurrence.current import Kinds, Ties, Traced, traced_now

if TYPE_CHECKING:
    from recsolve.recurrence.cell_recurrence import CellRecurrence
    from recsolve.recurrence.weighted_cell import WeightedCell

_LOG = logging.getLogger("recsolve")


def traced_of(recurrence: CellRecurrence) -> Traced | None:
    """Return the traced cell from which loops of a recurrence are compiled; None where NumPy evaluates it.

    Loops replace the methods of a class, so they take only classes that state that this is right, and mixings that
    state their form. A subclass, which may override anything, is evaluated by NumPy.

    Raises
    ------
    TypeError
        When a backend that compiles is forced and the cell cannot be traced; the message has the line.
    ValueError
        When the cell is no function.
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


def _compiles(recurrence: CellRecurrence) -> bool:
    if kind_of(recurrence.initial) != "numpy":
        return False
    return backends.compiles(recurrence.length, int(np.prod(recurrence.shape)))


def launches(recurrence: CellRecurrence) -> bool:
    """Return whether CUDA kernels compiled from the cell evaluate a recurrence."""
    return backends.launches(recurrence.initial, recurrence.length, int(np.prod(recurrence.shape)))


def uncoupled(cell: WeightedCell) -> bool:
    """Return whether all mixings are diagonal, so that units do not couple."""
    return not any(couples(m) for m in cell.mixings.values())


def kinds_of(cell: WeightedCell) -> Kinds:
    """Return the kinds of the mixings of a cell, all of which state their form, by name."""
    return tuple((name, str(form_of(cell.mixings[name]))) for name in cell.cell.mixings)


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


@lru_cache(maxsize=128)
def walk_of(traced: Traced, dtype: np.dtype[Any]) -> FusedMixing:
    """Return the compiled walk of a cell with mixings that couple units."""
    return FusedMixing(traced.program, dtype)


@lru_cache(maxsize=128)
def parts_of(
    traced: Traced, dtype: np.dtype[Any] | None
) -> tuple[FusedStages | StagesCuda, FusedMixing | ProductsCuda]:
    """Return the stages and the products of a cell with mixings that couple units; on a GPU those of any dtype."""
    if dtype is None:
        return StagesCuda(traced.program), ProductsCuda(traced.program)
    return FusedStages(traced.program, dtype), walk_of(traced, dtype)


@lru_cache(maxsize=128)
def sweeps_of(traced: Traced, machine: Any = None) -> SweepsCuda | None:
    """Return the sweeps of a traced cell on a GPU; None if its mixings see what is computed from the state."""
    found = sweep_cell(traced.program)
    return None if found is None else SweepsCuda(found, machine)
