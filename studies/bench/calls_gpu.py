"""Public calls on a GPU: wall clock from Python to the result on the device, on data that forget and that remember.

The cell is the GRU with diagonal mixings, drives given, in float32. A bias of its update gate makes it remember: with
0, 2, 4, 6 and 8 it forgets in about 3, 9, 55, 400 and 3000 steps. The floor is a copy of the bytes that must move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array, to_host
from recsolve.studies.bench import table
from recsolve.studies.bench.board import BOARD, MULTIPLIERS, Config, Shape
from recsolve.studies.bench.harness import Bench, Gpu, Run, relative_error
from recsolve.studies.bench.table import Row, number, text
from recsolve.studies.bench.weighted import SCALE, recurrence

BIASES = (0, 2, 4, 6, 8)
_CELL = rs.cells.GRU
_CALLS = 8  # times the repeats of a kernel: Python is at its speed after some calls, and most take under a millisecond
_STEPS, _LANES = 4096, 32  # over which errors are measured
_ITERATED = ("S1", "S2")  # the shapes on which a method that iterates by the driver is timed


def rows(config: Config, gpu: Gpu | None = None) -> Iterator[Row]:
    """Time the calls, one after the other."""
    gpu = gpu or Gpu(config.repeats)
    for name in config.shapes:
        yield from _scans(name, BOARD[name], config, gpu)
        gpu.release()
        for bias in BIASES[:: 2 if config.quick else 1]:
            yield from _Solves(name, BOARD[name], bias, config, gpu).rows()
            gpu.release()


def _row(call: str, shape: str, memory: str, gpu: Gpu, run: Run, size: int, **more: Any) -> Row:
    """Time a call that makes so many bytes move."""
    seconds, floor = _to_the_result(gpu, run), gpu.floor(size)
    named = {"call_of": call, "shape": shape, "memory": memory, "floor": floor, "call": seconds}
    return named | {"ratio": seconds / floor, "error": None, "how": ""} | more


def _to_the_result(gpu: Gpu, run: Run) -> float:
    """Return the median of a call's wall clock, until its result lies on the device."""
    return gpu.call([run], _CALLS * gpu.repeats)


def _scans(name: str, shape: Shape, config: Config, gpu: Gpu) -> Iterator[Row]:
    B, T, D = shape
    random = gpu.xp.random.default_rng(config.seed)
    b = random.standard_normal((T, B, D), dtype=np.float32)
    for memory, multiplier in MULTIPLIERS.items():
        a = gpu.xp.empty_like(b)
        a[...] = multiplier(2 * random.random((T, B, D), dtype=np.float32) - 1)
        y = rs.scan("affine", (a, b))
        steps = slice(min(T, _STEPS)), slice(1), slice(_LANES)
        found, A, drive = (to_host(x[steps]) for x in (y, a, b))
        truth = rs.scan("affine", (A.astype(np.float64), drive.astype(np.float64)))
        run = partial(rs.scan, "affine", (a, b))
        yield _row("scan", name, memory, gpu, run, 3 * b.nbytes, error=relative_error(found, truth))


class _Solves:
    """A recurrence of one shape and memory."""

    def __init__(self, name: str, shape: Shape, bias: float, config: Config, gpu: Gpu):
        B, T, D = shape
        self.name, self.bias, self.gpu = name, bias, gpu
        host, random = np.random.default_rng(config.seed), gpu.xp.random.default_rng(config.seed)
        self.weights = {n: (SCALE * host.standard_normal(D)).astype(np.float32) for n in _CELL.mixings}
        self.weights |= {n: np.zeros(D, np.float32) for n in _CELL.parameters}
        self.drives = {n: random.standard_normal((T, B, D), dtype=np.float32) for n in _CELL.drives}
        self.drives["z"] += np.float32(bias)
        self.bytes = 4 * self.drives["z"].nbytes
        self.recurrence = recurrence(_CELL, self.drives, {n: gpu.xp.asarray(w) for n, w in self.weights.items()})

    def rows(self) -> Iterator[Row]:
        """Time all calls."""
        solution = rs.solve(self.recurrence, method="auto")
        yield self._solve("auto", solution)
        if self.bias == 0:
            yield self._solve("sequential", rs.solve(self.recurrence, method="sequential"))
        if self.name in _ITERATED:
            yield self._solve("newton", rs.solve(self.recurrence, method="newton"))
        c = self.gpu.xp.ones_like(solution.states)
        yield self._row("adjoint", partial(self._gradients, solution, c), 2 * self.bytes + c.nbytes)

    def _gradients(self, solution: rs.Solution, c: Array) -> Any:
        g = rs.adjoint(solution, states=c)
        return g.drive, g.mixings, g.parameters, g.initial

    def _row(self, call: str, run: Callable[[], Any], size: int, **more: Any) -> Row:
        return _row(call, self.name, f"bias {self.bias}", self.gpu, run, size, **more)

    def _solve(self, method: str, solution: rs.Solution) -> Row:
        how = f"{solution.status}, {solution.nit} iterations" if solution.nit else str(solution.status)
        run = partial(rs.solve, self.recurrence, method=method)
        return self._row(f"solve {method}", run, self.bytes, error=self._error(solution.states), how=how)

    def _error(self, states: Array) -> float | None:
        """Return the error over some steps and lanes against the loop in float64."""
        T = min(len(states), _STEPS)
        u = {n: to_host(x[:T, :1, :_LANES]).astype(np.float64) for n, x in self.drives.items()}
        w = {n: x[:_LANES].astype(np.float64) for n, x in self.weights.items()}
        with rs.backend("numpy"):
            exact = rs.solve(recurrence(_CELL, u, w), method="sequential").states
        return relative_error(to_host(states[:T, :1, :_LANES]), exact)


_COLUMNS = (
    text("call_of", "call"),
    text("shape"),
    text("memory"),
    number("floor us", "floor", 1e6),
    number("call us", "call", 1e6),
    number("ratio", "ratio"),
    table.error("error", "error"),
    text("how"),
)
_NOTE = (
    "call: wall clock of the public function, from Python to the result on the device; floor: a copy of the bytes that "
    "must move, in the same run; error: against the loop in float64, relative to its largest number."
)
BENCHES = {"gpu": Bench(rows, table.Table("public calls", _COLUMNS, _NOTE))}
