"""Cells with diagonal weights, as benchmarks solve them."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.mixings import Diagonal
from recsolve.recurrence.cell import Cell
from recsolve.recurrence.cell_recurrence import CellRecurrence

SCALE = 0.5  # of the weights
Arrays = dict[str, Array]


def weights(cell: Cell, units: int, rng: np.random.Generator) -> Arrays:
    """Return random weights and parameters of a cell, in float32."""
    return {n: SCALE * rng.standard_normal(units, dtype=np.float32) for n in (*cell.mixings, *cell.parameters)}


def recurrence(cell: Cell, u: dict[str, Any], w: Arrays) -> CellRecurrence:
    """Return a cell with diagonal weights and parameters ``w`` on drives ``u``."""
    weighted = cell.with_weights(
        mixings={n: Diagonal(w[n]) for n in cell.mixings},
        parameters={n: w[n] for n in cell.parameters},
        hidden_size=next(iter(u.values())).shape[-1],
    )
    return weighted.recurrence(drive=u)
