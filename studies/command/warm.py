"""Compile ahead: tiny solves of all built-in cells, whose compiled loops are then on disk."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.recurrence.cell import Cell

DTYPES = (np.float32, np.float64)
_T, _UNITS = 3, 2


def warm() -> Iterator[str]:
    """Compile, and yield what is next before each part; the last one is empty."""
    cells = [cell for cell in vars(rs.cells).values() if isinstance(cell, Cell)]
    with rs.backend("numba"):
        for dtype in DTYPES:
            yield f"scans, {np.dtype(dtype).name}"
            _scans(dtype)
            for cell in cells:
                for mixing in ("diagonal", "dense") if cell.mixings else (None,):
                    yield f"{cell.name}{f' {mixing}' if mixing else ''}, {np.dtype(dtype).name}"
                    _cell(cell, mixing, dtype)
    yield ""


def _cell(cell: Cell, mixing: str | None, dtype: type) -> None:
    weighted = cell.random(input_size=1, hidden_size=_UNITS, mixing=mixing or "dense", rng=0, dtype=dtype)
    rec = weighted.recurrence(np.ones((_T, 2, 1), dtype))
    for method in ("sequential", "newton", "windowed"):
        solution = rs.solve(rec, method=method)
    rs.adjoint(solution, output=np.ones_like(solution.output))


def _scans(dtype: type) -> None:
    """Run the scans that solvers use: clamps, and affine maps of every structure."""
    b: Array = np.ones((_T, 4), dtype)
    rs.scan("clamp", (b, b), initial=b[0])
    for k in (2, 3, 4):
        layout = rs.Layout(components=k, units=_UNITS)
        states: Array = np.ones((_T, k, _UNITS), dtype)
        rs.scan("affine", (rs.jacobians.Block(np.ones((_T, k, k, _UNITS), dtype), layout), states))
    matrices = rs.jacobians.LaneDense(np.ones((_T, 4, 4), dtype), rs.Layout(units=4))
    rs.scan("affine", (matrices, b))
