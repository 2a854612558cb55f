"""How everything is timed, and how wrong it may be.

On the CPU runs take turns with what they are measured against (:func:`recsolve.studies.timing.in_turns`). On a GPU the
time of a *kernel* is that of a captured CUDA graph of launches, which no call from Python delays; times of a *call* are
those of calls from Python, one after the other, without waiting for the device in between. Inputs rotate over more
memory than the caches hold. The *floor* is the time in which a copy, measured in the same run, moves the bytes that
must move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.threads import spread, threads
from recsolve.studies.bench.board import Config
from recsolve.studies.timing import in_turns

if TYPE_CHECKING:
    from recsolve.studies.bench.table import Row, Table

Run = Callable[[], Any]


@dataclass(frozen=True)
class Bench:
    """What is timed on one machine: rows, one after the other, and the table that shows them."""

    rows: Callable[[Config], Iterator[Row]]
    table: Table


def relative_error(y: Any, truth: Any) -> float | None:
    """Return max |y - truth| over max |truth|, of arrays of any library; None without a truth of that shape."""
    if truth is None or truth.shape != y.shape:
        return None
    return float(abs(y - truth).max() / abs(truth).max())


def quartiles(seconds: Array) -> Row:
    """Return the median and the quartiles."""
    lower, median, upper = np.quantile(seconds, (0.25, 0.5, 0.75))
    return {"median": float(median), "lower": float(lower), "upper": float(upper)}


def ratio(above: float | None, below: float | None) -> float | None:
    """Return a ratio of times, None where there is not one of them."""
    return None if above is None or below is None else above / below


def copies(size: int) -> list[Run]:
    """Return functions that copy bytes on all threads: in all ``size`` read and written, and ``size`` of each."""

    def copying(count: int) -> Run:
        source, target, parts = np.ones(count, np.float32), np.ones(count, np.float32), threads()

        def share(first: int, last: int) -> None:
            part = slice(count * first // parts, count * last // parts)
            np.copyto(target[part], source[part])

        return lambda: spread(share, parts, parts)

    return [copying(size // 8), copying(size // 4)]


class Gpu:
    """A CUDA device and its clock.

    Parameters
    ----------
    repeats : int
        Timed runs; medians are taken over them.
    xp : module, optional
        CuPy, or what stands in for it in tests.
    torch : str
        What torch calls the device.

    Raises
    ------
    ImportError
        Without CuPy.
    """

    copied = 1 << 28  # numbers of the copy whose bandwidth is the floor
    caches = 220_000_000  # bytes over which inputs rotate: the second-level cache of an H200 holds 50 MB

    def __init__(self, repeats: int, xp: Any = None, torch: str = "cuda"):
        if xp is None:
            if find_spec("cupy") is None:
                raise ImportError("times on a GPU need CuPy: pip install 'recsolve[cuda13]' (or [cuda12])")
            import cupy

            xp = cupy
        self.repeats, self.xp, self.torch = repeats, xp, torch

    @cached_property
    def bandwidth(self) -> float:
        """The bytes that a copy on the device reads and writes per second: by the driver or a kernel."""
        x = self.xp.ones(self.copied, self.xp.float32)
        y = self.xp.empty_like(x)
        both: list[Run] = [lambda: self.xp.copyto(y, x), lambda: self.xp.positive(x, out=y)]
        return float(2 * x.nbytes / min(time for copy in both for time in (self.alone(copy), self.kernel([copy] * 4))))

    def floor(self, size: int) -> float:
        """Return how long a copy takes to read and write so many bytes in all."""
        return size / self.bandwidth

    def rotated(self, make: Callable[[], Any], size: int) -> list[Any]:
        """Return inputs, more than the caches hold, where each makes ``size`` bytes move."""
        return [make() for _ in range(1 + self.caches // size)]

    def kernel(self, runs: Sequence[Run]) -> float:
        """Return the median time of a launch, from graphs of all ``runs``."""
        self.wait()  # the new stream does not wait for what others still make the inputs of
        stream = self.xp.cuda.Stream(non_blocking=True)
        with stream:
            for run in [*runs[:1], *runs]:  # which also leaves memory for the results in the pool of the stream
                held = run()
            stream.synchronize()
            stream.begin_capture()
            for run in runs:
                held = run()
            captured = stream.end_capture()
            captured.launch(stream)
            launch = partial(captured.launch, stream)
            seconds = np.median([self._between(launch, stream) for _ in range(self.repeats)])
        del held
        return float(seconds) / len(runs)

    def alone(self, run: Run) -> float:
        """Return the median time of what a call puts on the current stream, after two runs that warm up."""
        stream = self.xp.cuda.get_current_stream()
        return float(np.median([self._between(run, stream) for _ in range(self.repeats + 2)][2:]))

    def call(self, runs: Sequence[Run], repeats: int | None = None) -> float:
        """Return the median time of a call: Python's where the device waits for it, else that of the device."""

        def all_of_them() -> None:
            for run in runs:
                run()

        return float(np.median(in_turns([all_of_them], repeats or self.repeats, settle=self.wait))) / len(runs)

    def release(self) -> None:
        """Give the memory that CuPy keeps back to the device."""
        self.xp.get_default_memory_pool().free_all_blocks()

    def wait(self) -> None:
        self.xp.cuda.runtime.deviceSynchronize()

    def _between(self, run: Run, stream: Any) -> float:
        """Return how long a stream takes for what a call puts on it, in seconds."""
        began, ended = self.xp.cuda.Event(), self.xp.cuda.Event()
        began.record(stream)
        run()
        ended.record(stream)
        ended.synchronize()
        return float(self.xp.cuda.get_elapsed_time(began, ended) * 1e-3)


def times_on_gpu(floor: float, kernel: float, call: float) -> Row:
    """Return what every row of a GPU has."""
    return {"floor": floor, "kernel": kernel, "call": call, "kernel_over_floor": kernel / floor}
