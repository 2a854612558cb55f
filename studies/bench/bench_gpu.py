"""Times of the CUDA scans beside the time that their bytes take at the bandwidth of a copy.

The *floor* of a scan is the time in which a device-to-device copy, measured in the same run, moves the bytes that the
scan must move. Kernel times are those of a captured CUDA graph of launches, which no call from Python delays; call
times are those of one call after the other from Python, without waiting for the device in between. Inputs rotate over
more memory than the caches hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.base.layout import Layout
from recsolve.jacobians import Block, Diagonal
from recsolve.kernels.gpu.scan import scan_cuda
from recsolve.kernels.monoids.base import MONOIDS, Monoid
from recsolve.studies.timing import in_turns

BOARD = {  # batch, steps, units
    "S1": (8, 512, 1024),
    "S2": (8, 2048, 1024),
    "S3": (8, 16384, 1024),
    "S4": (1, 16384, 256),
    "S5": (1, 131072, 256),
    "S6": (32, 2048, 2048),
    "odd 1": (1, 1_000_003, 64),
    "odd 2": (4, 5000, 768),
}
CACHES = 220_000_000  # bytes over which inputs rotate: the second-level cache of an H200 holds 50 MB
_LAUNCHES = 12  # of a graph at least
_LOOP_STEPS = 1 << 12  # the literal loop in float64 is run this far, over lanes enough to notice
_LOOP_LANES = 64


@dataclass(frozen=True)
class GpuBenchConfig:
    """The settings of the benchmark.

    Attributes
    ----------
    repeats : int
        Timed runs of each graph and of each series of calls.
    shapes : tuple of str
        Names of the board.
    quick : bool
        Only the diagonal scan.
    seed : int
    """

    repeats: int = 10
    shapes: tuple[str, ...] = tuple(BOARD)
    quick: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}; wanted 1 or more")
        if unknown := [name for name in self.shapes if name not in BOARD]:
            raise ValueError(f"shapes has {', '.join(unknown)}; wanted some of {', '.join(BOARD)}")


@dataclass(frozen=True)
class GpuTiming:
    """One row of the table. Times are in seconds, medians.

    Attributes
    ----------
    scan, shape, regime : str
    megabytes, floor : float
        The bytes that must move, and how long a copy of as many takes.
    kernel, call : float
        On the device alone, and of a call from Python.
    error : float
        max |y - loop in float64| over max |loop|, in the first 4096 steps of 64 lanes.
    """

    scan: str
    shape: str
    regime: str
    megabytes: float
    floor: float
    kernel: float
    call: float
    error: float

    @property
    def label(self) -> str:
        """The timed case in words."""
        return f"{self.scan}, {self.shape}"

    def row(self) -> dict[str, Any]:
        """Return the timing with its ratio."""
        found = {**asdict(self), "kernel_over_floor": self.kernel / self.floor}
        return {name: None if x != x else x for name, x in found.items()}


@dataclass(frozen=True)
class _Case:
    """A scan of elements that ``make`` gives, of a shape (batch, steps, units)."""

    scan: str
    shape: str
    make: Callable[[Any], tuple[Any, Array]]  # elements, from a CuPy random generator
    run: Callable[[tuple[Any, Array]], Array]
    truth: Callable[[tuple[Any, Array]], float]
    regime: Callable[[tuple[Any, Array]], str]


def bench_gpu_scan(config: GpuBenchConfig) -> Iterator[GpuTiming]:
    """Time the scans, one after the other.

    Raises
    ------
    ImportError
        Without CuPy.
    """
    if find_spec("cupy") is None:
        raise ImportError("scans on a GPU need CuPy: pip install 'recsolve[cuda13]' (or [cuda12])")
    bandwidth = copy_bandwidth(config.repeats)
    for case in _cases(config):
        yield _time(case, bandwidth, config)
        release()
    if not config.quick and "S3" in config.shapes:
        yield from _references("S3", bandwidth, config)


def copy_bandwidth(repeats: int) -> float:
    """Return the bytes that a copy on the device reads and writes per second: by the driver or a kernel."""
    import cupy

    x = cupy.ones(1 << 28, cupy.float32)
    y = cupy.empty_like(x)
    copies: list[Callable[[], Any]] = [lambda: cupy.copyto(y, x), lambda: cupy.positive(x, out=y)]
    stream = cupy.cuda.get_current_stream()
    times = [np.median([between(copy, stream) for _ in range(repeats + 2)][2:]) for copy in copies]
    times += [np.median(graph([copy] * 4, repeats)) for copy in copies]
    return float(2 * x.nbytes / min(times))


def release() -> None:
    """Give the memory that CuPy keeps back to the device."""
    import cupy

    cupy.get_default_memory_pool().free_all_blocks()


def _cases(config: GpuBenchConfig) -> Iterator[_Case]:
    for shape in config.shapes:
        B, T, D = BOARD[shape]
        for reverse in (False, True):
            yield _elementwise("diagonal", "affine", (T, B, D), shape, reverse=reverse)
        if config.quick:
            continue
        if shape in ("S3", "S6"):
            yield _elementwise("clamp", "clamp", (T, B, D), shape)
            yield _elementwise("diagonal, float64", "affine", (T, B, D), shape, dtype="float64")
            yield _elementwise("diagonal, float16", "affine", (T, B, D), shape, dtype="float16")
        if shape == "S3":
            yield _elementwise("diagonal, (B, T, D)", "affine", (T, B, D), shape, order=(1, 0, 2))
            for reverse in (False, True):
                yield _elementwise("diagonal, (B, D, T)", "affine", (T, B, D), shape, order=(1, 2, 0), reverse=reverse)
        if shape in ("S2", "S3", "S5", "S6"):
            yield _block(shape, (T, B, 2, D // 2))
        if shape in ("S4", "S5"):
            yield _elementwise("diagonal, all 1", "affine", (T, B, D), shape, scale=0.0)


def _elementwise(
    name: str,
    monoid: str,
    shape: tuple[int, int, int],
    label: str,
    *,
    dtype: str = "float32",
    order: tuple[int, int, int] = (0, 1, 2),
    reverse: bool = False,
    scale: float = 1.0,
) -> _Case:
    """Return a scan of numbers; ``order`` has the axes of the buffer, whose view (T, B, D) is scanned.

    Multipliers are uniform in (-1, 1), or all 1 if ``scale`` is 0: then nothing is forgotten.
    """
    units, back = Layout(units=shape[-1]), tuple(int(axis) for axis in np.argsort(order))
    op = MONOIDS[monoid]

    def make(random: Any) -> tuple[Any, Array]:
        buffer = tuple(shape[axis] for axis in order)
        a, b = (_uniform(random, buffer, dtype).transpose(back) for _ in range(2))
        if scale == 0:
            a[...] = 1
        if reverse:
            a, b = a[::-1], b[::-1]
        return (Diagonal(a, units) if monoid == "affine" else a), b

    initial = partial(_initial, monoid)
    return _Case(
        f"{name}, reverse" if reverse else name,
        label,
        make,
        lambda elements: scan_cuda.scan(op, elements, initial=initial(elements)),
        lambda elements: _error(op, elements, initial(elements)),
        lambda elements: scan_cuda.planned(op, elements, initial=initial(elements)),
    )


def _references(shape: str, bandwidth: float, config: GpuBenchConfig) -> Iterator[GpuTiming]:
    """Time prefix sums of other libraries over as many numbers: one array read, one written."""
    import cupy

    B, T, D = BOARD[shape]
    x = cupy.random.default_rng(config.seed).standard_normal(T * B * D, dtype=np.float32)
    runs: dict[str, Callable[[], Any]] = {"cupy.cumsum (CUB), 1-D": lambda: cupy.cumsum(x)}
    if find_spec("torch") is not None:
        import torch

        y = torch.as_tensor(x.reshape(T, B, D), device="cuda")
        runs["torch.cumsum over T"] = lambda: torch.cumsum(y, 0)
    stream = cupy.cuda.get_current_stream()
    for name, run in runs.items():
        seconds = float(np.median([between(run, stream) for _ in range(config.repeats + 2)][2:]))
        yield GpuTiming(name, shape, "", 2 * x.nbytes / 1e6, 2 * x.nbytes / bandwidth, seconds, seconds, float("nan"))


def _initial(monoid: str, elements: tuple[Any, Array]) -> Array | None:
    return elements[1][0] if monoid == "clamp" else None


def _block(label: str, shape: tuple[int, int, int, int]) -> _Case:
    T, B, k, D = shape
    op = MONOIDS["affine"]

    def make(random: Any) -> tuple[Any, Array]:
        A = _uniform(random, (T, B, k, k, D), "float32")
        A /= k
        return Block(A, Layout(components=k, units=D)), _uniform(random, shape, "float32")

    return _Case(
        "2 x 2 block",
        label,
        make,
        lambda elements: scan_cuda.scan(op, elements),
        lambda elements: _error(op, elements, None),
        lambda elements: scan_cuda.planned(op, elements),
    )


def _uniform(random: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """Return numbers in (-1, 1), made in pieces that leave room for the elements themselves."""
    import cupy

    x = cupy.empty(shape, dtype)
    flat = x.reshape(-1)
    piece = 1 << 26
    for first in range(0, flat.size, piece):
        part = flat[first : first + piece]
        part[...] = 2 * random.random(part.size, dtype=cupy.float32) - 1
    return x


def _time(case: _Case, bandwidth: float, config: GpuBenchConfig) -> GpuTiming:
    import cupy

    random = cupy.random.default_rng(config.seed)
    first = case.make(random)
    size = _entries(first).nbytes + 2 * first[1].nbytes
    rotated = [first, *(case.make(random) for _ in range(CACHES // size))]
    error, regime = case.truth(first), case.regime(first)
    runs = [partial(case.run, elements) for elements in rotated]
    repeated = runs * max(1, -(-_LAUNCHES // len(runs)) if size < CACHES else 1)
    return GpuTiming(
        scan=case.scan,
        shape=case.shape,
        regime=regime,
        megabytes=size / 1e6,
        floor=size / bandwidth,
        kernel=float(np.median(graph(repeated, config.repeats))),
        call=float(np.median(calls(repeated, config.repeats))),
        error=error,
    )


def graph(runs: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Return times of a launch, from graphs of all ``runs``."""
    import cupy

    cupy.cuda.runtime.deviceSynchronize()  # this stream does not wait for what others still make the inputs of
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        for run in [*runs[:1], *runs]:  # which also leaves memory for the results in the pool of the stream
            held = run()
        stream.synchronize()
        stream.begin_capture()
        for run in runs:
            held = run()
        captured = stream.end_capture()
        captured.launch(stream)
        seconds = [between(partial(captured.launch, stream), stream) / len(runs) for _ in range(repeats)]
    del held
    return seconds


def between(run: Callable[[], Any], stream: Any) -> float:
    """Return how long a stream takes for the work that a call puts on it, in seconds."""
    import cupy

    began, ended = cupy.cuda.Event(), cupy.cuda.Event()
    began.record(stream)
    run()
    ended.record(stream)
    ended.synchronize()
    return float(cupy.cuda.get_elapsed_time(began, ended) * 1e-3)


def calls(runs: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Return times of a call: from Python's side where the device waits for it, of the device where Python waits."""
    from cupy.cuda.runtime import deviceSynchronize

    def all_of_them() -> None:
        for run in runs:
            run()

    (seconds,) = in_turns([all_of_them], repeats, settle=deviceSynchronize)
    return [float(x) / len(runs) for x in seconds]


def _error(op: Monoid, elements: tuple[Any, Array], initial: Array | None) -> float:
    """Return the error against the loop in float64, of the first steps of the last lanes."""
    y = scan_cuda.scan(op, elements, initial=initial)
    some = (slice(0, _LOOP_STEPS), 0, ..., slice(-_LOOP_LANES, None))
    e, f, ours = (_double(x[some]) for x in (_entries(elements), elements[1], y))
    x = np.zeros_like(f[0]) if initial is None else _double(initial[some[1:]])
    states = np.empty_like(f)
    for t in range(len(f)):
        if isinstance(elements[0], Block):
            x = np.einsum("ijl,jl->il", e[t], x) + f[t]
        else:
            x = e[t] * x + f[t] if initial is None else np.maximum(np.minimum(e[t], x), f[t])
        states[t] = x
    return float(np.abs(ours - states).max() / np.abs(states).max())


def _entries(elements: tuple[Any, Array]) -> Any:
    return elements[0].data if isinstance(elements[0], (Block, Diagonal)) else elements[0]


def _double(x: Any) -> Array:
    return x.get().astype(np.float64)  # type: ignore[no-any-return]
