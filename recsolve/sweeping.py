"""Where a recurrence of a cell meets sweeps on the GPU: quasi-Newton for cells whose mixings see the state."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from recsolve.arrays import Array
from recsolve.fused import kinds_of, launches, ties_of, traced
from recsolve.graph import Leaf
from recsolve.kernels.chain import Chain
from recsolve.kernels.source_cuda_stages import SweepCell, sweep_cell
from recsolve.kernels.sweeps_cuda import Given, SweepsCuda
from recsolve.mixings import Diagonal
from recsolve.tracing import trace

if TYPE_CHECKING:
    from recsolve.cell import Cell
    from recsolve.cell_recurrence import CellRecurrence


def given(recurrence: CellRecurrence, cell: SweepCell) -> Given:
    """Return the arrays of a recurrence as its sweeps take them."""
    weighted = recurrence.cell
    constants: dict[Leaf, Array] = {Leaf("parameter", name): p for name, p in weighted.parameters.items()}
    for name, mixing in weighted.mixings.items():
        constants[Leaf("weight", name)] = mixing.weight if isinstance(mixing, Diagonal) else mixing.diagonal()
    return Given(
        drives=[recurrence.drive[name] for name in cell.drives],
        constants=[constants[leaf] for leaf in cell.constants],
        weights={name: m.weight for name, m in weighted.mixings.items() if not isinstance(m, Diagonal)},
        chain=Chain(recurrence.initial, recurrence.restart, recurrence.reset),
        shape=recurrence.shape,
        layout=recurrence.layout,
        like=recurrence.drive_like,
    )


def sweeps(recurrence: CellRecurrence) -> SweepsCuda | None:
    """Return the sweeps of a recurrence; None on the CPU, and for mixings of what is computed from the state."""
    if not launches(recurrence):
        return None
    cell = recurrence.cell
    return traced(lambda: sweeps_of(cell.cell, kinds_of(cell), ties_of(recurrence)))


@lru_cache(maxsize=128)
def sweeps_of(
    cell: Cell, kinds: tuple[tuple[str, str], ...], ties: tuple[tuple[str, float], ...], machine: Any = None
) -> SweepsCuda | None:
    """Return the sweeps of a cell with mixings of these kinds, by name.

    Raises
    ------
    TypeError
        For what cannot be traced.
    """
    found = sweep_cell(trace(cell, dict(kinds), dict(ties)))
    return None if found is None else SweepsCuda(found, machine)
