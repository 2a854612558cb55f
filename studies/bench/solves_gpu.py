"""Fused solves on a GPU beside the floor, whatever the data remember.

Every solve is converged to a defect of 1e-6 and is tested on the device; the error is against the loop in float64, and
beside it stands that of the loop in float32. Random weights forget in a few steps: biases of the update gate make a GRU
remember for 3, 9, 55, 400 and 3000 steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array, to_host
from recsolve.kernels.gpu.cell.fused_solve import fused
from recsolve.kernels.gpu.cell.solve_outcome import Outcome
from recsolve.kernels.starts import Starts
from recsolve.recurrence.cell import Cell
from recsolve.recurrence.current import traced_now
from recsolve.studies.bench import table
from recsolve.studies.bench.board import BOARD, Config, Shape, lengths
from recsolve.studies.bench.harness import Bench, Gpu, Run, relative_error, times_on_gpu
from recsolve.studies.bench.solves import USER, laid
from recsolve.studies.bench.table import Row
from recsolve.studies.bench.weighted import SCALE, recurrence
from recsolve.studies.draw.tables import three

_TOLERANCE = 1e-6, 1e-6
_LAUNCHES = 8  # of a graph at least
_CALLS = 3
_LOOP_STEPS, _LOOP_LANES = 4096, 32  # over which the errors are measured
_LONGEST, _UNITS = 1 << 20, 256  # of the solves over lengths
_LONGEST_WALK = 20_000  # steps one after the other that are worth waiting for
_BIASES = 0, 2, 4, 6, 8  # of the update gate
_WEIGHTS = SCALE, 1.0  # their standard deviations
_REMEMBERING = "S1", "S2", "S4", "S5"
_ADJOINTS = 4, 8  # biases at which adjoints are timed too
_ODD: tuple[Shape, ...] = (2, 100_003, 100), (1, 3_000_017, 48), (3, 7001, 640), (256, 130, 520)
_KINDS = {"float64": ("float64", False), "float16": ("float16", False), "(B, T, D)": ("float32", True)}
_WAYS: dict[str, dict[str, Any]] = {"one walk": {"segments": 1}, "auto": {}}
CELLS = {"GRU": rs.cells.GRU, "user's GRU": USER, "CIFG LSTM": rs.cells.ParaRNNLSTM}


class _Problem:
    """A cell on random data (T, B, D): rotating drives, weights and parameters, states to fill."""

    def __init__(
        self,
        cell: Cell,
        shape: Shape,
        gpu: Gpu,
        config: Config,
        dtype: str = "float32",
        by_batch: bool = False,
        scale: float = SCALE,
    ):
        B, T, D = shape
        xp, k = gpu.xp, len(cell.state)
        self.scale, self.bias = scale, 0
        self.cell, self.gpu, self.steps, self.loops = (
            cell,
            gpu,
            T,
            fused(traced_now(cell, tuple((name, "diagonal") for name in cell.mixings), ()), dtype),
        )
        host, random = np.random.default_rng(config.seed), xp.random.default_rng(config.seed)
        self.weights = {n: (scale * host.standard_normal(D)).astype(np.float32) for n in cell.mixings}
        self.weights |= {n: np.zeros(D, np.float32) for n in cell.parameters}
        initial = xp.zeros((B, D) if k == 1 else (B, k, D), np.float64 if dtype == "float64" else np.float32)
        self.starts = Starts(initial, initial)
        self.states = laid(lambda s: xp.empty(s, dtype), (T, *initial.shape), by_batch)
        self.bytes = (len(cell.drives) + k) * T * B * D * self.states.itemsize

        def drive() -> Array:
            return laid(lambda s: random.standard_normal(s, dtype=np.float32).astype(dtype), (T, B, D), by_batch)

        rest = [xp.asarray(x, dtype) for x in self.weights.values()]
        self.inputs: list[list[Array]] = gpu.rotated(lambda: [*(drive() for _ in cell.drives), *rest], self.bytes)

    def remember(self, bias: int) -> None:
        """Give the update gate another bias."""
        gate = self.cell.drives.index("z")
        for inputs in self.inputs:
            inputs[gate] += np.float32(bias - self.bias)
        self.bias = bias

    def solve(self, inputs: list[Array], **way: Any) -> Outcome:
        return self.loops.solve(inputs, self.states, 1, self.starts, _TOLERANCE, **way)

    def checked(self, inputs: list[Array], **way: Any) -> Outcome:
        """Solve, and read the states again as a verdict does."""
        outcome = self.solve(inputs, **way)
        outcome.judge()
        return outcome

    def times(self, runs: list[Run], size: int) -> Row:
        """Return the times on the device and of a call, which makes so many bytes move."""
        kernel = self.gpu.kernel(runs * max(1, _LAUNCHES // len(runs)))
        return times_on_gpu(self.gpu.floor(size), kernel, self.gpu.call(runs, _CALLS))

    def errors(self) -> Row:
        """Return the error of the states of the first inputs, over some steps and lanes, and that of the loop."""
        T, lanes = min(self.steps, _LOOP_STEPS), _LOOP_LANES
        drives = [to_host(u[:T, :1, :lanes]) for u in self.inputs[0][: len(self.cell.drives)]]
        exact, plain = (self._loop(drives, dtype) for dtype in (np.float64, np.float32))
        found = to_host(self.states[:T, :1, ..., :lanes])
        return {"error": relative_error(found, exact), "loop_error": relative_error(plain, exact)}

    def _loop(self, drives: list[Array], dtype: Any) -> Array:
        u = {n: x.astype(dtype) for n, x in zip(self.cell.drives, drives, strict=True)}
        w = {n: x[: drives[0].shape[-1]].astype(dtype) for n, x in self.weights.items()}
        with rs.backend("numpy"):
            return rs.solve(recurrence(self.cell, u, w), method="sequential").states  # type: ignore[no-any-return]


def rows(config: Config, gpu: Gpu | None = None) -> Iterator[Row]:
    """Time the solves, one after the other."""
    gpu = gpu or Gpu(config.repeats)
    for problem_rows in _groups(config, gpu):
        yield from problem_rows
        gpu.release()


def _groups(config: Config, gpu: Gpu) -> Iterator[Iterator[Row]]:
    """Yield the rows of one problem after the other, whose memory is free again after them."""
    for name, cell in CELLS.items():
        for shape in config.shapes:
            yield _on_board(name, shape, _Problem(cell, BOARD[shape], gpu, config))
    if config.quick:
        return
    for shape in config.shapes:
        for scale in _WEIGHTS if shape in _REMEMBERING else ():
            yield _memories(shape, _Problem(CELLS["GRU"], BOARD[shape], gpu, config, scale=scale))
    for what, kind in _KINDS.items() if "S3" in config.shapes else ():
        yield iter([_forward(f"GRU, {what}", "S3", _Problem(CELLS["GRU"], BOARD["S3"], gpu, config, *kind))])
    for odd in _ODD:
        yield iter([_forward("GRU", _words(odd), _Problem(CELLS["GRU"], odd, gpu, config))])
    for T in lengths(_LONGEST):
        yield _ways((1, T, _UNITS), _Problem(CELLS["GRU"], (1, T, _UNITS), gpu, config))


def _words(shape: Shape) -> str:
    return "B{} T{} D{}".format(*shape)


def _on_board(name: str, shape: str, problem: _Problem) -> Iterator[Row]:
    yield _forward(name, shape, problem)
    if name != "user's GRU":
        yield _backward(name, shape, problem)
    if name == "GRU" and shape == "S2" and find_spec("torch") is not None:
        yield _torch_loop(shape, problem)


def _memories(shape: str, problem: _Problem) -> Iterator[Row]:
    """Time a GRU that forgets, remembers, and hardly ever forgets."""
    for bias in _BIASES if problem.scale != SCALE else _BIASES[1:]:
        problem.remember(bias)
        yield _forward("GRU", shape, problem)
        if problem.scale == SCALE and bias in _ADJOINTS:
            yield _backward("GRU", shape, problem)


def _ways(shape: Shape, problem: _Problem) -> Iterator[Row]:
    """Time one walk through all of time, and what is chosen."""
    for name, way in _WAYS.items():
        if not way or shape[1] <= _LONGEST_WALK:
            yield _forward(f"GRU, {name}", _words(shape), problem, **way)


def _row(solve: str, shape: str, problem: _Problem, times: Row, **told: Any) -> Row:
    named: Row = {"solve": solve, "shape": shape, "bias": problem.bias, "weights": problem.scale, "segments": None}
    counts = {"checked_over_floor": None, "sweeps": 0, "redone": 0.0, "walked": 0}
    return named | times | {"error": None, "loop_error": None} | counts | told


def _forward(name: str, shape: str, problem: _Problem, **way: Any) -> Row:
    outcome = problem.solve(problem.inputs[0], **way)
    told = outcome.verdict()
    if not (told.complete and told.finite and told.met):
        raise ArithmeticError(f"{name}, {shape}, bias {problem.bias}: {told}")
    redone = told.redone / (told.segments * outcome.groups)
    counts: Row = {"segments": told.segments, "sweeps": told.sweeps, "redone": redone, "walked": told.walked}
    errors = problem.errors()
    times = problem.times([partial(problem.solve, inputs, **way) for inputs in problem.inputs], problem.bytes)
    checks = problem.times([partial(problem.checked, inputs, **way) for inputs in problem.inputs], problem.bytes)
    return _row(name, shape, problem, times, checked_over_floor=checks["kernel_over_floor"], **errors, **counts)


def _backward(name: str, shape: str, problem: _Problem) -> Row:
    """Time the adjoint with all gradients: it reads drives, states and cotangents, and writes drives and states."""
    problem.solve(problem.inputs[0])
    cotangent = problem.gpu.xp.random.default_rng(1).standard_normal(problem.states.shape, dtype=np.float32)
    run = partial(problem.loops.adjoint, problem.inputs[0], problem.states, cotangent, 1, problem.starts)
    return _row(f"{name} adjoint", shape, problem, problem.times([run], 2 * problem.bytes + problem.states.nbytes))


def _torch_loop(shape: str, problem: _Problem) -> Row:
    """Time a loop over torch's functions, which most would write."""
    import torch

    r, z, n, w_r, w_z, w_n, _ = (torch.as_tensor(x, device=problem.gpu.torch) for x in problem.inputs[0])

    def loop() -> Any:
        h, out = torch.zeros_like(r[0]), []
        for t in range(len(r)):
            gate, update = torch.sigmoid(r[t] + w_r * h), torch.sigmoid(z[t] + w_z * h)
            h = (1 - update) * torch.tanh(n[t] + gate * (w_n * h)) + update * h
            out.append(h)
        return torch.stack(out)

    with torch.inference_mode():
        seconds = problem.gpu.call([loop], _CALLS)
    times = times_on_gpu(problem.gpu.floor(problem.bytes), seconds, seconds)
    return _row("GRU, torch loop", shape, problem, times)


_MORE = (
    table.error("float32 loop", "loop_error"),
    table.times("checked", "checked_over_floor"),
    table.some("sweeps", "sweeps"),
    table.some("redone", "redone", three),
    table.some("in order", "walked"),
)
_TABLE = table.on_gpu("solves", "solve", "shape", more=_MORE)
_MEMORY = tuple(table.number(name, name) for name in ("bias", "weights", "segments"))
_NOTE = " checked: ratio with the states read again for a verdict; redone: walks of a segment after its first."
_SOLVES = replace(_TABLE, columns=(*_TABLE.columns[:2], *_MEMORY, *_TABLE.columns[2:]), note=_TABLE.note + _NOTE)
BENCHES = {"gpu": Bench(rows, _SOLVES)}
