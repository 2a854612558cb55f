"""Sweeps on the GPU bound to a cell's recurrence: quasi-Newton for cells whose mixings read the state."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from recsolve.base.arrays import Array
from recsolve.kernels.codegen.cuda_stages import SweepCell, sweep_cell
from recsolve.kernels.gpu.cell.sweeps import Given, SweepsCuda
from recsolve.kernels.starts import Starts
from recsolve.mixings import couples
from recsolve.recurrence.current import Traced
from recsolve.recurrence.engine import launches, traced_of
from recsolve.symbolic.graph import Leaf

if TYPE_CHECKING:
    from recsolve.recurrence.cell_recurrence import CellRecurrence


def given(recurrence: CellRecurrence, cell: SweepCell) -> Given:
    """Return the arrays of a recurrence as its sweeps take them."""
    weighted = recurrence.cell
    constants: dict[Leaf, Array] = {Leaf("parameter", name): p for name, p in weighted.parameters.items()}
    for name, mixing in weighted.mixings.items():
        constants[Leaf("weight", name)] = mixing.diagonal() if couples(mixing) else mixing.weight
    return Given(
        drives=[recurrence.drive[name] for name in cell.drives],
        constants=[constants[leaf] for leaf in cell.constants],
        weights={name: m.weight for name, m in weighted.mixings.items() if couples(m)},
        starts=Starts(recurrence.initial, recurrence.restart, recurrence.reset),
        shape=recurrence.shape,
        layout=recurrence.layout,
        like=recurrence.drive_like,
    )


def sweeps(recurrence: CellRecurrence) -> SweepsCuda | None:
    """Return the sweeps of a recurrence; None on the CPU, and for mixings of what is computed from the state."""
    if not launches(recurrence) or (traced := traced_of(recurrence)) is None:
        return None
    return sweeps_of(traced)


@lru_cache(maxsize=128)
def sweeps_of(traced: Traced, machine: Any = None) -> SweepsCuda | None:
    """Return the sweeps of a traced cell; None if its mixings see what is computed from the state."""
    found = sweep_cell(traced.program)
    return None if found is None else SweepsCuda(found, machine)
