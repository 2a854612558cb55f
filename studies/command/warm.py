"""Compile ahead: small solves of built-in cells, whose compiled loops are then on disk."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.base.progress import bar_of
from recsolve.kernels.cpu.threads import threads
from recsolve.studies.notices import told, with_notices

USUAL = ("elman", "gru", "lstm")  # what a new user meets first
METHODS = ("sequential", "newton", "quasi_newton", "damped_newton", "jacobi", "gauss_seidel", "windowed")
DTYPES = ("float64", "float32")
_T, _UNITS = 3, 2


class Part(NamedTuple):
    """What one process compiles: a cell with a mixing, or the scans of all of them where no cell is named."""

    dtype: str
    cell: str = ""
    mixing: str = "dense"

    def __str__(self) -> str:
        mixes = self.cell and rs.cells.get(self.cell).mixings
        return f"{self.cell or 'scans'}{f' {self.mixing}' if mixes else ''}, {self.dtype}"


def parts_of(what: Sequence[str]) -> list[Part]:
    """Return what is compiled for some cells, for the usual ones, or for ``["all"]``.

    Both dtypes take turns, so that two processes that begin side by side have little in common.

    Raises
    ------
    ValueError
        For a name that no cell has.
    """
    names = list(rs.cells.REGISTRY) if "all" in what else [rs.cells.get(name).name for name in what or USUAL]
    cells = [
        (name, mixing)
        for name in dict.fromkeys(names)
        for mixing in (("dense", "diagonal") if rs.cells.get(name).mixings else ("diagonal",))
    ]
    return [Part(dtype, *cell) for cell in [*cells, ()] for dtype in DTYPES]


def warm(what: Sequence[str]) -> None:
    """Compile in as many processes as there are cores, and say how far it is."""
    from joblib import Parallel, delayed, parallel_config

    parts = parts_of(what)
    workers = min(threads(), len(parts))
    with parallel_config("loky", n_jobs=workers, inner_max_num_threads=threads()), bar_of("compiling") as bar:
        parallel = Parallel(batch_size=1, return_as="generator_unordered")
        tasks = (delayed(with_notices)(compiled, part) for part in parts)
        for done, part in enumerate(told(parallel(tasks)), start=1):
            if bar is not None:
                bar(done, len(parts), str(part))
            else:
                print(f"compiled {part} ({done} of {len(parts)})", file=sys.stderr)


def compiled(part: Part) -> Part:
    """Solve in every way that has loops of its own; return the part when they are on disk."""
    with rs.backend("numba"):
        if part.cell:
            _cell(part)
        else:
            _scans(part.dtype)
    return part


def _cell(part: Part) -> None:
    cell = rs.cells.get(part.cell)
    weighted = cell.random(input_size=1, hidden_size=_UNITS, mixing=part.mixing, rng=0, dtype=np.dtype(part.dtype))
    rec = weighted.recurrence(np.ones((_T, 2, 1), part.dtype))
    for method in METHODS:
        solution = rs.solve(rec, method=method)
    rs.adjoint(solution, output=np.ones_like(solution.output))


def _scans(dtype: str) -> None:
    """Run the scans that solvers use: clamps, and affine maps of every structure."""
    b: Array = np.ones((_T, 4), dtype)
    rs.scan("clamp", (b, b), initial=b[0])
    for k in (2, 3, 4):
        layout = rs.Layout(components=k, units=_UNITS)
        states: Array = np.ones((_T, k, _UNITS), dtype)
        rs.scan("affine", (rs.jacobians.Block(np.ones((_T, k, k, _UNITS), dtype), layout), states))
    matrices = rs.jacobians.LaneDense(np.ones((_T, 4, 4), dtype), rs.Layout(units=4))
    rs.scan("affine", (matrices, b))
