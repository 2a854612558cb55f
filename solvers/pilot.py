"""The first steps of a recurrence, solved and timed: what ``auto`` predicts from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recsolve.base.arrays import difference, kind_of, to_host
from recsolve.base.status import Status
from recsolve.base.tolerance import Tolerance
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.binding import parts_as
from recsolve.recurrence.engine import Engine
from recsolve.solvers.costs import Costs, kind_of_problem
from recsolve.solvers.driver import Run
from recsolve.solvers.gauss_seidel import GaussSeidel
from recsolve.solvers.jacobi import Jacobi
from recsolve.solvers.method import Solver
from recsolve.solvers.problem import Problem
from recsolve.solvers.sequential import Sequential, loop

_SHARE = 32  # the pilot has T / _SHARE steps, a power of two from _SHORTEST to _LONGEST
_SHORTEST, _LONGEST = 32, 256
_LONGER = 16  # times the steps of the pilot, over which iterations are timed too
_CHUNK = 16  # steps of a chunk of Gauss-Seidel that is timed
_WALKED = 16_384  # steps at most over which a loop is timed that is chosen without a pilot
_REPEATS = 3  # of what is timed, more of what takes less than _ENOUGH seconds
_ENOUGH, _MOST = 5e-3, 10


def described(recurrence: Recurrence) -> str:
    count, size = int(np.prod(recurrence.batch)), recurrence.layout.size
    sequences = "1 sequence" if count == 1 else f"{count} sequences"
    numbers = "1 number" if size == 1 else f"{size} numbers"
    return f"{recurrence.length} steps of {sequences} with {numbers} per state, as {recurrence.kind} arrays."


class Pilot:
    """The first steps, timed. All times are in seconds, the least of a few repeats."""

    def __init__(self, recurrence: Recurrence, tolerance: Tolerance, engine: Engine):
        self.tolerance, self._compiled = tolerance, engine.compiled
        self.costs = Costs(kind_of_problem(recurrence, engine))
        self.length = min(max(_power(recurrence.length // _SHARE), _SHORTEST), _LONGEST)
        self.short = short = recurrence.window(0, self.length)
        self.longer = recurrence.window(0, min(_LONGER * self.length, recurrence.length))
        whole, self.states = timed(lambda: loop(short), _REPEATS if self._compiled else 1)
        self.step = whole / self.length
        if self._compiled:  # a call costs more than the steps of a pilot
            few = short.window(0, self.length // 4)
            self.step = max(whole - timed(lambda: loop(few))[0], 0.0) / (self.length - few.length)
        self.step = self.costs.noted(f"step of {self.length}", self.step)
        self.longest = _longest_segment(recurrence)
        self.loop_described = (
            f"The first {self.length} steps, one after the other, take {1e3 * self.step * self.length:.3g} ms: "
            f"all would take {1e3 * self.step * recurrence.length:.3g} ms."
        )

    def measure(self) -> None:
        """Measure the costs of the other methods: memory, f at many times at once, judging an iterate."""
        memory = self._memory()
        self.forgets, self.memory = memory < float("inf"), min(memory, self.longest)
        self.cut = self._cost("cut", lambda: self.short.window(0, max(self.length // 4, 1)))
        self.at_once = self._cost("f", lambda: self.short.evaluate(self.states))

    def _cost(self, work: str, call: Callable[[], Any]) -> float:
        return self.costs.of(f"{work} of {self.length}", lambda: timed(call)[0])

    def iteration(self, method: Solver[Any, Any], rows: int) -> float:
        """Return the time of an iteration over so many rows, with all that the driver does."""
        few, most = self.short.length, self.longer.length
        low, high = (self._iterating(method, part) for part in (self.short, self.longer))
        return low + max(high - low, 0.0) * (rows - few) / max(most - few, 1)

    def _iterating(self, method: Solver[Any, Any], part: Recurrence) -> float:
        def measure() -> float:
            seconds, (run, _) = timed(lambda: iterated(method, part, self.tolerance, 2))
            return float(seconds / (run.nit + 1))

        return self.costs.of(f"{method.name} over {part.length}", measure)

    def sweep(self, chunk: int, rows: int) -> float:
        """Return the time of an iteration of Gauss-Seidel in chunks: its steps, side by side, and judging them.

        What else it does, which the sum leaves out, is measured with one size of chunks.
        """
        tried = min(_CHUNK, self.longer.length)
        measured = self._iterating(GaussSeidel(chunk=tried), self.longer)
        return self._sweep(chunk, rows) * max(measured / self._sweep(tried, self.longer.length), 1.0)

    def _sweep(self, chunk: int, rows: int) -> float:
        slope = max(self.at_once - self.step, 0.0) / (self.length - 1)  # of the time of f, per row
        return (chunk - 1) * (self.step + self.cut + slope * rows / chunk) + self.iteration(Jacobi(), rows)

    def _memory(self) -> float:
        """Return after how many steps loops from two states meet, without resets; inf if they do not come closer."""
        other = self.short.window(0, self.length, self.short.wrap(self.states[-1].copy()))
        states = self.states
        if self.short.reset is not None:
            free = self.short.window(0, self.length)
            free.reset = other.reset = None
            states = loop(free)
        seconds, others = timed(lambda: loop(other), 1)
        if not self._compiled:  # it has taken so many steps once more
            self.step = self.costs.noted(f"step of {self.length}", seconds / self.length)
        apart = to_host(abs(difference(others, states)))
        d = apart.reshape(self.length, -1).max(axis=1)
        test = self.tolerance.above_rounding(self.short)  # below it states are the same, and any tolerance is met
        small = test.atol * test.unit + test.rtol * float(to_host(abs(self.states)).max())
        above = np.flatnonzero(~(d <= small))
        if not above.size:
            return 1.0
        if above[-1] + 1 < self.length:
            return float(above[-1] + 2)
        half = self.length // 2
        rate = np.log(d[-1] / d[half]) / (self.length - 1 - half)
        return float(self.length + np.log(small / d[-1]) / rate) if rate < 0 else float("inf")


def iterated(method: Solver[Any, Any], part: Recurrence, tolerance: Tolerance, iterations: int) -> tuple[Run, Status]:
    """Run a method that may take so many iterations, and return how it has ended."""
    run = Run(Problem(part, tolerance, pin=True, jacobian=method.needs_jacobian), iterations, part.length)
    return run, run.to_end(method, None)[1]


def _longest_segment(recurrence: Recurrence) -> int:
    """Return how many steps a sequence has at most between resets."""
    if recurrence.reset is None:
        return recurrence.length
    starts = to_host(recurrence.starts).reshape(recurrence.length, -1).T
    edges = (np.append(np.flatnonzero(sequence), recurrence.length) for sequence in starts)
    return max(int(np.diff(edge).max()) for edge in edges)


def timed(call: Callable[[], Any], repeats: int = _REPEATS) -> tuple[float, Any]:
    """Return the least time of a call, compilation left out, and what it returned; what is brief is called more often.

    With one repeat it is called once.
    """
    least, total, count, out = float("inf"), 0.0, 0, None
    while count < repeats or (repeats > 1 and total < _ENOUGH and count < _MOST):
        watch = Stopwatch()
        out = call()
        if hasattr(out, "strides"):
            to_host(out[-1:])  # an accelerator may still be at work
        least, total, count = min(least, watch.seconds), total + watch.seconds, count + 1
    return least, out


def seconds_of_loop(recurrence: Recurrence, tolerance: Tolerance) -> float:
    """Return how long the sequential loop takes, with all that the driver does; 0 on a GPU, where it is not timed."""
    T, engine = recurrence.length, recurrence.bind()
    if 0 in recurrence.shape or kind_of(recurrence.initial) == "cupy":
        return 0.0
    costs, many = Costs(kind_of_problem(recurrence, engine)), _power(min(T, _WALKED))

    def seconds(steps: int) -> float:
        part = recurrence.window(0, steps)
        return costs.of(f"loop of {steps}", lambda: timed(lambda: iterated(Sequential(), part, tolerance, 0))[0])

    with np.errstate(all="ignore"), parts_as(engine):
        whole, part = seconds(many), seconds(max(many // 4, 1))
    costs.keep()
    return whole + max(whole - part, 0.0) * (T - many) / max(many - many // 4, 1)


def _power(steps: int) -> int:
    """Return the largest power of two up to a number of steps: few kinds of work are kept."""
    return int(2 ** (max(steps, 1).bit_length() - 1))
