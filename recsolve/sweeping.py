"""Where a recurrence of a cell meets sweeps on the GPU: quasi-Newton for cells whose mixings see the state."""

from __future__ import annotations

import logging
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

from recsolve.arrays import Array
from recsolve.graph import Leaf
from recsolve.kernels import choose
from recsolve.kernels.chain import Chain
from recsolve.kernels.source_cuda_stages import SweepCell, sweep_cell
from recsolve.kernels.sweeps_cuda import Given, SweepsCuda
from recsolve.mixings import Diagonal
from recsolve.tracing import trace

if TYPE_CHECKING:
    from recsolve.cell import Cell
    from recsolve.cell_recurrence import CellRecurrence

_LOG = logging.getLogger("recsolve")


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
    cell = recurrence.cell
    if not choose.launches(recurrence.initial, recurrence.length, prod(recurrence.shape)):
        return None
    kinds = tuple((name, cell.mixings[name].name) for name in cell.cell.mixings)
    try:
        return sweeps_of(cell.cell, kinds, tuple(sorted(recurrence.ties.items())))
    except TypeError as error:
        _LOG.info("%s; it is evaluated array by array", error)
        return None


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
