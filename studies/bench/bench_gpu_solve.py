"""Times of fused solves on the GPU beside the time that their bytes take at the bandwidth of a copy.

As :mod:`recsolve.studies.bench.bench_gpu` for scans: kernel times are those of captured graphs over inputs that rotate
over more memory than the caches hold. Every solve is converged to a defect of 1e-6 and is tested on the device; the
error is against the loop in float64, and beside it stands that of the loop in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array, to_host
from recsolve.kernels.gpu.cell.elementwise import FusedCuda, Outcome
from recsolve.kernels.starts import Starts
from recsolve.mixings import Diagonal
from recsolve.recurrence.cell import Cell
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.current import traced_now
from recsolve.recurrence.engine import cuda_loops_of
from recsolve.studies.bench import bench_gpu
from recsolve.studies.bench.bench_gpu import BOARD, CACHES, GpuBenchConfig
from recsolve.studies.bench.bench_solve import USER

_SCALE = 0.5  # of the weights
_TOLERANCE = 1e-6, 1e-6
_LAUNCHES = 8  # of a graph at least
_LOOP_STEPS, _LOOP_LANES = 4096, 32  # over which the errors are measured
_LENGTHS = tuple(1 << n for n in range(8, 21, 2))
_UNITS = 256  # of the solves over lengths
_LONGEST_WALK = 20_000  # steps one after the other that are worth waiting for
CELLS = {"GRU": rs.cells.GRU, "user's GRU": USER, "CIFG LSTM": rs.cells.ParaRNNLSTM}


@dataclass(frozen=True)
class GpuSolveTiming:
    """One row of the table. Times are in seconds, medians.

    Attributes
    ----------
    solve, shape, plan : str
        The plan is the regime, with the number of segments of time.
    floor, kernel, call : float
        How long a copy takes for the bytes that must move, the solve on the device, and a call from Python.
    error, loop_error : float
        max |h - h64| over max |h64|, of the solve and of the loop in float32; NaN where they are not measured.
    sweeps : float
        Of a window, on average; 0 where none was solved.
    redone : int
        How often a segment of 32 lanes was solved again.
    """

    solve: str
    shape: str
    plan: str
    floor: float
    kernel: float
    call: float
    error: float = float("nan")
    loop_error: float = float("nan")
    sweeps: float = 0.0
    redone: int = 0

    @property
    def label(self) -> str:
        """The timed case in words."""
        return f"{self.solve}, {self.shape}"

    def row(self) -> dict[str, Any]:
        """Return the timing with its ratio; None where there is no number."""
        found = {**asdict(self), "kernel_over_floor": self.kernel / self.floor}
        return {name: None if x != x else x for name, x in found.items()}


class _Problem:
    """A cell on random data (T, B, D): rotating drives, weights and parameters, states to fill."""

    def __init__(
        self, cell: Cell, shape: tuple[int, int, int], dtype: str, config: GpuBenchConfig, by_batch: bool = False
    ):
        import cupy

        B, T, D = shape
        self.cell, self.k, self.steps, self.by_batch = cell, len(cell.state), T, by_batch
        self.loops: FusedCuda = cuda_loops_of(traced_now(cell, tuple((name, "diagonal") for name in cell.mixings), ()))
        host, random = np.random.default_rng(config.seed), cupy.random.default_rng(config.seed)
        self.weights = [(_SCALE * host.standard_normal(D)).astype(np.float32) for _ in cell.mixings]
        self.parameters = [np.zeros(D, np.float32) for _ in cell.parameters]
        rest = [cupy.asarray(x, dtype) for x in (*self.weights, *self.parameters)]
        number = np.float64 if dtype == "float64" else np.float32
        initial = cupy.zeros((B, D) if self.k == 1 else (B, self.k, D), number)
        self.starts = Starts(initial, initial)
        self.states = self._laid(lambda s: cupy.empty(s, dtype), (T, B, D) if self.k == 1 else (T, B, self.k, D))
        size = (len(cell.drives) + self.k) * T * B * D * self.states.itemsize
        self.bytes = size

        def drive() -> Array:
            return self._laid(lambda s: random.standard_normal(s, dtype=np.float32).astype(dtype), (T, B, D))

        self.inputs = [[*(drive() for _ in cell.drives), *rest] for _ in range(1 + CACHES // size)]

    def _laid(self, make: Callable[[tuple[int, ...]], Array], shape: tuple[int, ...]) -> Array:
        """Return an array (T, B, ...), whose memory is (B, T, ...) if that is wanted."""
        if not self.by_batch:
            return make(shape)
        return make((shape[1], shape[0], *shape[2:])).swapaxes(0, 1)

    def solve(self, inputs: list[Array], **way: Any) -> Outcome:
        return self.loops.solve(inputs, self.states, 1, self.starts, _TOLERANCE, **way)

    def errors(self) -> tuple[float, float]:
        """Return the error of the states of the first inputs, over some steps and lanes, and that of the loop."""
        T, lanes = min(self.steps, _LOOP_STEPS), _LOOP_LANES
        drives = [to_host(u[:T, :1, :lanes]) for u in self.inputs[0][: len(self.cell.drives)]]
        found = to_host(self.states[:T, :1, ..., :lanes]).astype(np.float64)
        exact, plain = (self._loop(drives, dtype) for dtype in (np.float64, np.float32))
        size = np.abs(exact).max()
        return float(np.abs(found - exact).max() / size), float(np.abs(plain - exact).max() / size)

    def _loop(self, drives: list[Array], dtype: Any) -> Array:
        cell, lanes = self.cell, drives[0].shape[-1]
        weights = {n: Diagonal(w[:lanes].astype(dtype)) for n, w in zip(cell.mixings, self.weights, strict=True)}
        parameters = {n: p[:lanes].astype(dtype) for n, p in zip(cell.parameters, self.parameters, strict=True)}
        weighted = cell.with_weights(mixings=weights, parameters=parameters, hidden_size=lanes)
        rec: CellRecurrence = weighted.recurrence(
            drive={n: u.astype(dtype) for n, u in zip(cell.drives, drives, strict=True)}
        )
        with rs.backend("numpy"):
            return rs.solve(rec, method="sequential").states  # type: ignore[no-any-return]


def bench_gpu_solve(config: GpuBenchConfig) -> Iterator[GpuSolveTiming]:
    """Time the solves, one after the other.

    Raises
    ------
    ImportError
        Without CuPy.
    """
    if find_spec("cupy") is None:
        raise ImportError("solves on a GPU need CuPy: pip install 'recsolve[cuda13]' (or [cuda12])")
    bandwidth = bench_gpu.copy_bandwidth(config.repeats)
    for name, cell in CELLS.items():
        for shape in config.shapes:
            problem = _Problem(cell, BOARD[shape], "float32", config)
            yield _forward(name, shape, problem, bandwidth, config)
            if name != "user's GRU":
                yield _backward(name, shape, problem, bandwidth, config)
            if name == "GRU" and shape == "S2" and find_spec("torch") is not None:
                yield _torch_loop(shape, problem, bandwidth)
            del problem
            bench_gpu.release()
    kinds = {"float64": ("float64", False), "float16": ("float16", False), "(B, T, D)": ("float32", True)}
    for what, (dtype, by_batch) in kinds.items():
        if "S3" in config.shapes and not config.quick:
            problem = _Problem(CELLS["GRU"], BOARD["S3"], dtype, config, by_batch)
            yield _forward(f"GRU, {what}", "S3", problem, bandwidth, config)
            del problem
            bench_gpu.release()
    if not config.quick:
        yield from _lengths(bandwidth, config)


def _timed(runs: list[Callable[[], Any]], config: GpuBenchConfig) -> tuple[float, float]:
    """Return the times on the device and of a call."""
    repeated = runs * max(1, _LAUNCHES // len(runs))
    return float(np.median(bench_gpu.graph(repeated, config.repeats))), float(np.median(bench_gpu.calls(runs, 3)))


def _forward(
    name: str, shape: str, problem: _Problem, bandwidth: float, config: GpuBenchConfig, **way: Any
) -> GpuSolveTiming:
    outcome = problem.solve(problem.inputs[0], **way)
    error, loop_error = problem.errors()
    kernel, call = _timed([partial(problem.solve, inputs, **way) for inputs in problem.inputs], config)
    return GpuSolveTiming(
        *(name, shape, _way_taken(outcome), problem.bytes / bandwidth, kernel, call, error, loop_error),
        sweeps=outcome.sweeps,
        redone=outcome.redone,
    )


def _way_taken(outcome: Outcome) -> str:
    return f"{outcome.plan.regime} x{outcome.plan.segments}"


def _backward(name: str, shape: str, problem: _Problem, bandwidth: float, config: GpuBenchConfig) -> GpuSolveTiming:
    """Time the adjoint with all gradients: it reads drives, states and cotangents, and writes drives and states."""
    import cupy

    problem.solve(problem.inputs[0])
    cotangent = cupy.random.default_rng(1).standard_normal(problem.states.shape, dtype=np.float32)
    moved = 2 * problem.bytes + problem.states.nbytes
    run = partial(problem.loops.adjoint, problem.inputs[0], problem.states, cotangent, 1, problem.starts)
    kernel, call = _timed([run], config)
    return GpuSolveTiming(f"{name} adjoint", shape, "", moved / bandwidth, kernel, call)


def _torch_loop(shape: str, problem: _Problem, bandwidth: float) -> GpuSolveTiming:
    """Time a loop over torch's functions, which most would write."""
    import torch

    r, z, n = (torch.as_tensor(u, device="cuda") for u in problem.inputs[0][:3])
    w_r, w_z, w_n, _ = (torch.as_tensor(w, device="cuda") for w in problem.inputs[0][3:])

    def loop() -> Any:
        h, out = torch.zeros_like(r[0]), []
        for t in range(len(r)):
            gate, update = torch.sigmoid(r[t] + w_r * h), torch.sigmoid(z[t] + w_z * h)
            h = (1 - update) * torch.tanh(n[t] + gate * (w_n * h)) + update * h
            out.append(h)
        return torch.stack(out)

    with torch.inference_mode():
        seconds = float(np.median(bench_gpu.calls([loop], 3)))
    return GpuSolveTiming("GRU, torch loop", shape, "one step a time", problem.bytes / bandwidth, seconds, seconds)


def _lengths(bandwidth: float, config: GpuBenchConfig) -> Iterator[GpuSolveTiming]:
    """Time every regime over lengths, for one sequence of some units."""
    for T in _LENGTHS:
        problem = _Problem(CELLS["GRU"], (1, T, _UNITS), "float32", config)
        ways: dict[str, dict[str, Any]] = {
            "walk": {"regime": "walk", "segments": 1},
            "segments": {"regime": "walk"},
            "windows": {"regime": "windows", "segments": 1},
            "windows in segments": {"regime": "windows"},
            "auto": {},
        }
        for name, way in ways.items():
            if name in ("walk", "windows") and T > _LONGEST_WALK:
                continue
            yield _forward(name, f"B1 T{T} D{_UNITS}", problem, bandwidth, config, **way)
        del problem
        bench_gpu.release()
