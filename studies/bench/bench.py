"""Times of the compiled scans beside copies of the same bytes, the NumPy kernel and the error against the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.base.layout import Layout
from recsolve.jacobians import Block, Diagonal
from recsolve.kernels.cpu.threads import spread, threads
from recsolve.kernels.monoids.base import MONOIDS, Monoid
from recsolve.kernels.registry import get
from recsolve.studies.timing import in_turns

_LOOP_STEPS = 1 << 16  # the literal loop is run this far


@dataclass(frozen=True)
class BenchConfig:
    """The settings of the benchmark.

    Attributes
    ----------
    repeats : int
        Timed runs of each kernel; every run is followed by one of the copies.
    numbers : int
        T x batch x units of every shape.
    seed : int
    """

    repeats: int = 25
    numbers: int = 1 << 22
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}; wanted 1 or more")
        if self.numbers < 1 << 12 or self.numbers & (self.numbers - 1):
            raise ValueError(f"numbers is {self.numbers}; wanted a power of two, 4096 or more")


@dataclass(frozen=True)
class Timing:
    """One row of the table. Times are in seconds.

    Attributes
    ----------
    scan, shape : str
    megabytes : float
        Of the elements read and the result written.
    median, lower, upper, least : float
        Median, quartiles and minimum of the compiled scan, its result allocated afresh.
    traffic, copies : float
        Medians of copying on all threads into memory in use: half of these bytes to the other half (the same
        traffic), and each array once (twice the traffic).
    least_traffic, least_copies : float
        Their minima.
    numpy : float
        Median of the NumPy kernel.
    error : float
        max |y - loop| over max |loop|, in the first 65536 steps.
    """

    scan: str
    shape: str
    megabytes: float
    median: float
    lower: float
    upper: float
    least: float
    traffic: float
    copies: float
    least_traffic: float
    least_copies: float
    numpy: float
    error: float

    @property
    def label(self) -> str:
        """The timed case in words."""
        return f"{self.scan}, {self.shape}"

    def row(self) -> dict[str, Any]:
        """Return the timing with its ratios."""
        ratios = {"over_traffic": self.median / self.traffic, "over_copies": self.median / self.copies}
        return {**asdict(self), **ratios, "numpy_over_scan": self.numpy / self.median}


@dataclass(frozen=True)
class _Case:
    scan: str
    shape: str
    monoid: Monoid
    elements: tuple[Any, Array]
    initial: Array | None = None


def bench_scan(config: BenchConfig) -> Iterator[Timing]:
    """Time the scans, one after the other."""
    rng = np.random.default_rng(config.seed)
    for case in _cases(config, rng):
        yield _time(case, config.repeats)


def _cases(config: BenchConfig, rng: np.random.Generator) -> Iterator[_Case]:
    T, B, D = config.numbers >> 11, 8, 256
    for name, order in (("(T, B, D)", (T, B, D)), ("(B, T, D)", (B, T, D))):
        a, b = (x if order[0] == T else x.swapaxes(0, 1) for x in _random(order, rng))
        shape = f"T{T} B{B} D{D} {name}"
        diagonal, clamp = Diagonal(a, Layout(units=D)), MONOIDS["clamp"]
        yield _Case("diagonal", shape, MONOIDS["affine"], (diagonal, b))
        yield _Case("diagonal, reverse", shape, MONOIDS["affine"], (diagonal[::-1], b[::-1]))
        yield _Case("clamp", shape, clamp, (a, b), b[0])
        yield _Case("clamp, reverse", shape, clamp, (a[::-1], b[::-1]), b[0])
    for name, reverse in (("2 x 2 block", slice(None)), ("2 x 2 block, reverse", slice(None, None, -1))):
        A = Block(_random((T, B, 2, 2, D), rng)[0] / 2, Layout(components=2, units=D))
        b = _random((T, B, 2, D), rng)[1]
        yield _Case(name, f"T{T} B{B} D{D}", MONOIDS["affine"], (A[reverse], b[reverse]))
    for T in (1 << p for p in range(8, config.numbers.bit_length(), 2)):
        a, b = _random((T, config.numbers // T), rng)
        units = Layout(units=config.numbers // T)
        yield _Case("diagonal", f"T{T} lanes {units.units}", MONOIDS["affine"], (Diagonal(a, units), b))


def _random(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.random(shape, dtype=np.float32) * 2 - 1, rng.standard_normal(shape, dtype=np.float32)


def _time(case: _Case, repeats: int) -> Timing:
    compiled, reference = get("scan", "numba"), get("scan", "numpy")

    def run(kernel: Callable[..., Array], **options: Any) -> Array:
        return kernel(case.monoid, case.elements, initial=case.initial, **options)

    y = run(compiled)
    e = getattr(case.elements[0], "data", case.elements[0])
    size, error = e.nbytes + case.elements[1].nbytes + y.nbytes, _error(case, y)
    del y  # what the timed calls return takes its memory, as it does in a loop over solves
    seconds = in_turns([lambda: run(compiled), *_copies(size)], repeats)
    middle, least = np.median(seconds, axis=1), seconds.min(axis=1)
    lower, upper = np.quantile(seconds[0], (0.25, 0.75))
    return Timing(
        scan=case.scan,
        shape=case.shape,
        megabytes=size / 1e6,
        median=float(middle[0]),
        lower=float(lower),
        upper=float(upper),
        least=float(least[0]),
        traffic=float(middle[1]),
        copies=float(middle[2]),
        least_traffic=float(least[1]),
        least_copies=float(least[2]),
        numpy=float(np.median(in_turns([lambda: run(reference)], min(repeats, 3)))),
        error=error,
    )


def _copies(size: int) -> list[Callable[[], None]]:
    """Return functions that copy bytes on all threads: in all ``size`` read and written, and ``size`` of each."""

    def copying(count: int) -> Callable[[], None]:
        source, target, parts = np.ones(count, np.float32), np.ones(count, np.float32), threads()

        def share(first: int, last: int) -> None:
            part = slice(count * first // parts, count * last // parts)
            np.copyto(target[part], source[part])

        return lambda: spread(share, parts, parts)

    return [copying(size // 8), copying(size // 4)]


def _error(case: _Case, y: Array) -> float:
    steps = min(len(y), _LOOP_STEPS)
    elements = case.monoid.take(case.elements, slice(0, steps))
    loop = get("scan", "numpy")(case.monoid, elements, initial=case.initial, chunk=steps)
    return float(np.abs(y[:steps] - loop).max() / np.abs(loop).max())
