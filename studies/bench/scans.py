"""Scans: on the CPU beside copies of the same bytes and the NumPy kernel, on a GPU beside the floor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, to_host
from recsolve.base.layout import Layout
from recsolve.jacobians import Block, Diagonal
from recsolve.kernels.gpu.scan import scan_cuda
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.registry import get
from recsolve.studies.bench import table
from recsolve.studies.bench.board import BOARD, MULTIPLIERS, Config, lengths
from recsolve.studies.bench.harness import (
    Bench,
    Gpu,
    Run,
    copies,
    quartiles,
    relative_error,
    times_on_gpu,
)
from recsolve.studies.bench.table import Row
from recsolve.studies.timing import in_turns

_LAUNCHES = 12  # of a graph at least
_PIECE = 1 << 26  # random numbers that are made at once, which leaves room for the elements themselves
_CPU_LOOP = (slice(0, 1 << 16),)  # what the literal loop is run over
_GPU_LOOP = (slice(0, 1 << 15), 0, ..., slice(-64, None))

Elements = tuple[Any, Array]


@dataclass(frozen=True)
class Scan:
    """A scan to time.

    Attributes
    ----------
    name, label : str
        What it is and of which shape, for the table.
    shape : tuple of int
        Of the results: (T, ..., units), or (T, batch, components, units) of blocks.
    monoid, dtype : str
    components : int
        More than 1 for blocks.
    order : tuple of int, optional
        The axes of the buffer, whose view is scanned.
    reverse : bool
    multipliers : str
        Of :data:`recsolve.studies.bench.board.MULTIPLIERS`.
    """

    name: str
    label: str
    shape: tuple[int, ...]
    monoid: str = "affine"
    dtype: str = "float32"
    components: int = 1
    order: tuple[int, ...] | None = None
    reverse: bool = False
    multipliers: str = "uniform"

    def make(self, xp: Any, random: Any) -> Elements:
        """Return elements from a random generator of NumPy or CuPy."""
        k, order = self.components, self.order or tuple(range(len(self.shape)))
        back = tuple(int(axis) for axis in np.argsort(order))
        a = _uniform(xp, random, (*self.shape[:-1], k, self.shape[-1]) if k > 1 else self._buffer(order), self.dtype)
        b = _uniform(xp, random, self._buffer(order), self.dtype).transpose(back)
        if k == 1:
            a = a.transpose(back)
        else:
            a /= k
        a[...] = MULTIPLIERS[self.multipliers](a)
        return self.of(a[::-1], b[::-1]) if self.reverse else self.of(a, b)

    @property
    def size(self) -> int:
        """The bytes that must move: of the elements, and of the results."""
        return (self.components + 2) * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def _buffer(self, order: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in order)

    def of(self, a: Array, b: Array) -> Elements:
        """Return numbers, or matrices, as elements."""
        layout = Layout(components=self.components, units=b.shape[-1])
        return (a if self.monoid == "clamp" else (Block if self.components > 1 else Diagonal)(a, layout)), b

    def run(self, scan: Any, elements: Elements, **options: Any) -> Any:
        """Scan elements; those that have no identity start from the first of them."""
        initial = elements[1][0] if self.monoid == "clamp" else None
        return scan(MONOIDS[self.monoid], elements, initial=initial, **options)

    def error(self, y: Array, elements: Elements, some: Any, dtype: Any) -> float | None:
        """Return the error against the literal loop in a dtype, over some of the numbers."""
        ours, *parts = (to_host(x[some]).astype(dtype, copy=False) for x in (y, _entries(elements), elements[1]))
        return relative_error(ours, self.run(get("scan", "numpy"), self.of(*parts), chunk=len(ours)))


def _entries(elements: Elements) -> Any:
    return elements[0].data if isinstance(elements[0], (Block, Diagonal)) else elements[0]


def _uniform(xp: Any, random: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """Return numbers in (-1, 1)."""
    x = xp.empty(shape, dtype)
    flat = x.reshape(-1)
    for first in range(0, flat.size, _PIECE):
        part = flat[first : first + _PIECE]
        part[...] = 2 * random.random(part.size, dtype=xp.float32) - 1
    return x


def cpu_cases(config: Config) -> Iterator[Scan]:
    """Yield what is timed on the CPU: one shape in two orders, blocks, and as many numbers at all lengths."""
    B, T, D = config.shape
    for name, order in (("(T, B, D)", (0, 1, 2)), ("(B, T, D)", (1, 0, 2))):
        for monoid in ("affine", "clamp"):
            kind, label = "diagonal" if monoid == "affine" else monoid, f"T{T} B{B} D{D} {name}"
            yield from _both_ways(Scan(kind, label, (T, B, D), monoid, order=order))
    yield from _both_ways(Scan("2 x 2 block", f"T{T} B{B} D{D}", (T, B, 2, D), components=2))
    for T in lengths(config.numbers):
        lanes = config.numbers // T
        yield Scan("diagonal", f"T{T} lanes {lanes}", (T, lanes))


def gpu_cases(config: Config) -> Iterator[Scan]:
    """Yield what is timed on a GPU: the board, and dtypes, orders and memories on some shapes of it."""
    for name in config.shapes:
        B, T, D = BOARD[name]
        plain = partial(Scan, label=name, shape=(T, B, D))
        yield from _both_ways(plain("diagonal"))
        if config.quick:
            continue
        for memory in list(MULTIPLIERS)[1:]:
            yield plain(f"diagonal, {memory}", multipliers=memory)
        if name in ("S3", "S6"):
            yield plain("clamp", monoid="clamp")
            yield plain("diagonal, float64", dtype="float64")
            yield plain("diagonal, float16", dtype="float16")
        if name == "S3":
            yield plain("diagonal, (B, T, D)", order=(1, 0, 2))
            yield from _both_ways(plain("diagonal, (B, D, T)", order=(1, 2, 0)))
        if name in ("S2", "S3", "S5", "S6"):
            yield Scan("2 x 2 block", name, (T, B, 2, D // 2), components=2)


def _both_ways(scan: Scan) -> Iterator[Scan]:
    yield scan
    yield replace(scan, name=f"{scan.name}, reverse", reverse=True)


def cpu_rows(config: Config) -> Iterator[Row]:
    """Time the compiled scans on the CPU."""
    compiled, reference = get("scan", "numba"), get("scan", "numpy")
    for case in cpu_cases(config):
        elements = case.make(np, np.random.default_rng(config.seed))
        y = case.run(compiled, elements)
        size, error = case.size, case.error(y, elements, _CPU_LOOP, y.dtype)
        del y  # what the timed calls return takes its memory, as it does in a loop over solves
        run, by_numpy = partial(case.run, compiled, elements), partial(case.run, reference, elements)
        own, traffic, twice = in_turns([run, *copies(size)], config.repeats)
        found = {
            "scan": case.name, "shape": case.label, "megabytes": size / 1e6,
            **quartiles(own), "least": float(own.min()),
            "traffic": float(np.median(traffic)), "copies": float(np.median(twice)),
            "least_traffic": float(traffic.min()), "least_copies": float(twice.min()),
            "numpy": float(np.median(in_turns([by_numpy], min(config.repeats, 3)))), "error": error,
        }  # fmt: skip
        yield found | {
            "over_traffic": found["median"] / found["traffic"],
            "over_copies": found["median"] / found["copies"],
            "numpy_over_scan": found["numpy"] / found["median"],
        }


def gpu_rows(config: Config, gpu: Gpu | None = None) -> Iterator[Row]:
    """Time the CUDA scans, and prefix sums of other libraries."""
    gpu = gpu or Gpu(config.repeats)
    for case in gpu_cases(config):
        yield _on_gpu(case, gpu, config)
        gpu.release()
    if not config.quick and "S3" in config.shapes:
        yield from _references("S3", gpu, config)


def _on_gpu(case: Scan, gpu: Gpu, config: Config) -> Row:
    make = partial(case.make, gpu.xp, gpu.xp.random.default_rng(config.seed))
    size = case.size
    inputs = gpu.rotated(make, size)
    first = inputs[0]
    error = case.error(case.run(scan_cuda.scan, first), first, _GPU_LOOP, np.float64)
    regime = case.run(scan_cuda.planned, first)
    runs: list[Run] = [partial(case.run, scan_cuda.scan, elements) for elements in inputs]
    runs *= max(1, -(-_LAUNCHES // len(runs)) if size < gpu.caches else 1)
    return {
        "scan": case.name, "shape": case.label, "regime": regime, "megabytes": size / 1e6,
        **times_on_gpu(gpu.floor(size), gpu.kernel(runs), gpu.call(runs)), "error": error,
    }  # fmt: skip


def _references(shape: str, gpu: Gpu, config: Config) -> Iterator[Row]:
    """Time prefix sums of other libraries over as many numbers: one array read, one written."""
    B, T, D = BOARD[shape]
    x = gpu.xp.random.default_rng(config.seed).standard_normal(T * B * D, dtype=np.float32)
    runs: dict[str, Run] = {"cupy.cumsum (CUB), 1-D": lambda: gpu.xp.cumsum(x)}
    if find_spec("torch") is not None:
        import torch

        y = torch.as_tensor(x.reshape(T, B, D), device=gpu.torch)
        runs["torch.cumsum over T"] = lambda: torch.cumsum(y, 0)
    for name, run in runs.items():
        size, seconds = 2 * x.nbytes, gpu.alone(run)
        yield {
            "scan": name, "shape": shape, "regime": "", "megabytes": size / 1e6,
            **times_on_gpu(gpu.floor(size), seconds, seconds), "error": None,
        }  # fmt: skip


_CPU_TABLE = table.Table(
    "scans, float32",
    (
        table.text("scan"),
        table.text("shape"),
        *table.middle(),
        table.number("least", "least", 1e3),
        table.number("x traffic", "over_traffic"),
        table.number("x copies", "over_copies"),
        table.times("NumPy", "numpy_over_scan"),
        table.error("error", "error"),
    ),
    "x traffic: over copying half of the bytes to the other half; x copies: over copying every array once; all on "
    "as many threads. NumPy: its time over this one. error: against the loop, relative.",
)
BENCHES = {
    "cpu": Bench(cpu_rows, _CPU_TABLE),
    "gpu": Bench(gpu_rows, table.on_gpu("scans", "scan", "shape", "regime")),
}
