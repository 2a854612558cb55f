"""The pilot of ``auto``: which method to take, measured on the first steps, predicted for all, said in words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TextIO

import numpy as np

from recsolve.base.arrays import Array, difference, kind_of, to_host
from recsolve.base.status import Status
from recsolve.base.tolerance import Tolerance, tolerance_for
from recsolve.kernels.backends import backend
from recsolve.kernels.compile_clock import CompilationRefused, Stopwatch, refusing
from recsolve.recurrence.base import Recurrence, check_recurrence
from recsolve.solvers.active import Active
from recsolve.solvers.adaptive_shooting import AdaptiveShooting
from recsolve.solvers.choice import Candidate, Choice
from recsolve.solvers.composite import Windowed
from recsolve.solvers.driver import Run
from recsolve.solvers.gauss_seidel import GaussSeidel
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.jacobi import Jacobi
from recsolve.solvers.newton import Newton
from recsolve.solvers.problem import Problem
from recsolve.solvers.sequential import Sequential, loop

_FEWEST = 256  # with fewer steps nothing is worth measuring
_BRIEF = 12e-3  # seconds: with a shorter loop neither, for measuring takes a few milliseconds
_SHARE = 32  # the pilot has T / _SHARE steps, from _SHORTEST to _LONGEST
_REPAYS = 1.0  # seconds: with a shorter loop others are not worth compiling, which takes seconds
_SHORTEST, _LONGEST = 24, 256
_CACHED = 4 << 20  # bytes of weights that stay near a core
_WINDOW = 256
_REPEATS = 2
_AFFORDED, _FEW = (
    0.2,
    4,
)  # of the time of the loop, for Newton's method on the pilot; iterations that it has in any case
_SHOTS = 6  # iterations of adaptive shooting
_LONGER = 4  # times the steps of the pilot, over which iterations are timed too


def explain(recurrence: Recurrence, *, tol: float | None = None, file: TextIO | None = None) -> Choice:
    """Print which method ``auto`` takes for a recurrence, and why.

    Parameters
    ----------
    recurrence : Recurrence
    tol : float, optional
        As in :func:`recsolve.solve`.
    file : text file, optional
        Where to print; default: standard output.

    Returns
    -------
    Choice
        The same as an object: ``chosen``, ``candidates`` with predicted iterations and seconds, ``reasons``.

    Raises
    ------
    TypeError
        When ``recurrence`` is no Recurrence.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)
    >>> choice = rs.explain(cell.recurrence(np.ones((50, 3))))
    auto takes sequential.
    50 steps are too few for anything to be faster than one after the other.
    """
    check_recurrence(recurrence, graphs=False)
    choice = choose(recurrence, tolerance_for(recurrence, tol))
    print(choice, file=sys.stdout if file is None else file)
    return choice


def choose(recurrence: Recurrence, tolerance: Tolerance) -> Choice:
    """Measure the first steps, and return the methods that could be fast with their predicted costs.

    Parameters
    ----------
    recurrence : Recurrence
    tolerance : Tolerance
        To which memory is measured and Newton's method is solved.

    Returns
    -------
    Choice

    Notes
    -----
    The loop costs what its first steps cost. Methods that need f alone live off the memory of the recurrence: after how
    many steps a perturbation is below the tolerance, which is Jacobi's count. Newton is solved on the pilot, where
    scans of its Jacobian do not walk time as the loop does.
    """
    T = recurrence.length
    if not recurrence.stepwise and recurrence.takes(Jacobi.name):
        reason = "A step sees more than the state before it: a sweep is one call of f, and the loop one of every step."
        return Choice(
            [Candidate(Jacobi(), "jacobi", T, 0.0), Candidate(Sequential(), "sequential", 0, np.inf)], [reason]
        )
    if T < _FEWEST or 0 in recurrence.shape:
        reason = f"{T} steps are too few for anything to be faster than one after the other."
        return Choice([Candidate(Sequential(), "sequential", 0, 0.0)], [reason])
    engine, on_gpu = recurrence.bind(), kind_of(recurrence.initial) == "cupy"
    compiled = engine.compiled
    if on_gpu and engine.whole and tolerance.lanes is None:
        whole = Candidate(Windowed(), "newton, compiled whole for the GPU", 0, 0.0)
        reason = "All mixings are diagonal: segments of time are walked or solved side by side on the GPU, and checked."
        found = [whole, Candidate(Sequential(), "sequential", 0, float("inf"))]
        return Choice(found, [_described(recurrence), reason])
    if on_gpu and compiled:
        walk = Candidate(Sequential(), "sequential", 0, 0.0)
        reason = "Where sweeps do not converge, a compiled walk takes less than two iterations of Newton's method."
        return Choice([walk], [_described(recurrence), reason])
    if compiled and (engine.whole or engine.weight <= _CACHED):
        walk = Candidate(Sequential(), "sequential", 0, 0.0)
        reason = (
            "All mixings are diagonal: one compiled walk reads the drives once, and every other method more often."
            if engine.whole
            else "The weights fit into a cache: a compiled walk is faster than what goes over the steps several times."
        )
        return Choice([walk], [_described(recurrence), reason])
    # The first steps are timed with the backend that the whole takes.
    same = backend("numba") if compiled else nullcontext()
    with np.errstate(all="ignore"), same:
        pilot = _Pilot(recurrence, tolerance, compiled)
        choice = Choice([Candidate(Sequential(), "sequential", 0, T * pilot.step)])
        choice.reasons += [pilot.described, pilot.loop_described]
        if T * pilot.step < _BRIEF:
            choice.reasons.append("To measure what else there is would take as long.")
            return choice
        try:
            with refusing(T * pilot.step < _REPAYS):
                pilot.measure()
                _consider_fixed_points(choice, pilot, T)
                _consider_newton(choice, pilot, T)
        except CompilationRefused:
            choice.reasons.append(
                "What else there is would first have to be compiled, which costs more than it could save here; "
                "a solve by name, as method='jacobi', compiles it."
            )
    loop_or_known = (
        c for c in choice.candidates if c.method.name == Sequential.name or recurrence.takes(c.method.name)
    )
    choice.candidates = list(loop_or_known)
    return choice


def _described(recurrence: Recurrence) -> str:
    count, size = int(np.prod(recurrence.batch)), recurrence.layout.size
    sequences = "1 sequence" if count == 1 else f"{count} sequences"
    numbers = "1 number" if size == 1 else f"{size} numbers"
    return f"{recurrence.length} steps of {sequences} with {numbers} per state, as {recurrence.kind} arrays."


class _Pilot:
    """The first steps, timed. All times are in seconds, the least of a few repeats."""

    def __init__(self, recurrence: Recurrence, tolerance: Tolerance, compiled: bool):
        self.tolerance = tolerance
        self.length = min(max(recurrence.length // _SHARE, _SHORTEST), _LONGEST)
        self.short = short = recurrence.window(0, self.length)
        self.longer = recurrence.window(0, min(_LONGER * self.length, recurrence.length))
        whole, self.states = _timed(lambda: loop(short), _REPEATS if compiled else 1)
        self.step = whole / self.length
        if compiled:  # a call costs more than the steps of a pilot
            few = short.window(0, self.length // 4)
            self.step = max(whole - _timed(lambda: loop(few))[0], 0.0) / (self.length - few.length)
        self.longest = _longest_segment(recurrence)
        self.described = _described(recurrence)
        self.loop_described = (
            f"The first {self.length} steps, one after the other, took {1e3 * whole:.3g} ms: "
            f"all would take {1e3 * self.step * recurrence.length:.3g} ms."
        )

    def measure(self) -> None:
        """Measure the costs of the other methods: memory, f at many times at once, judging an iterate."""
        memory = self._memory()
        self.forgets, self.memory = memory < float("inf"), min(memory, self.longest)
        self.cut, _ = _timed(lambda: self.short.window(0, max(self.length // 4, 1)))
        at_once, _ = _timed(lambda: self.short.evaluate(self.states))
        self.slope = max(at_once - self.step, 0.0) / (self.length - 1)  # of the time of f, per row
        self._judge = [self._judging(self.short, _REPEATS), self._judging(self.longer, 1)]

    def _judging(self, part: Recurrence, repeats: int) -> float:
        """Return the time of an iteration that needs f alone, with all that the driver does."""

        def iterate() -> Run:
            run = Run(Problem(part, self.tolerance, pin=True, jacobian=False), 1, part.length)
            run.to_end(Jacobi(), None)
            return run

        seconds, run = _timed(iterate, repeats)
        return float(seconds / (run.nit + 1))

    def judging(self, rows: int) -> float:
        """Return the time to evaluate and judge an iterate of ``rows`` rows."""
        few, most = self.length, self.longer.length
        slope = max(self._judge[1] - self._judge[0], 0.0) / max(most - few, 1)
        return self._judge[0] + slope * (rows - few)

    def _memory(self) -> float:
        """Return after how many steps loops from two states meet, without resets; inf if they do not come closer."""
        other = self.short.window(0, self.length, self.short.wrap(self.states[-1].copy()))
        states = self.states
        if self.short.reset is not None:
            free = self.short.window(0, self.length)
            free.reset = other.reset = None
            states = loop(free)
        apart = to_host(abs(difference(loop(other), states)))
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


def _longest_segment(recurrence: Recurrence) -> int:
    """Return how many steps a sequence has at most between resets."""
    if recurrence.reset is None:
        return recurrence.length
    starts = to_host(recurrence.starts).reshape(recurrence.length, -1).T
    edges = (np.append(np.flatnonzero(sequence), recurrence.length) for sequence in starts)
    return max(int(np.diff(edge).max()) for edge in edges)


def _timed(call: Callable[[], Any], repeats: int = _REPEATS) -> tuple[float, Any]:
    """Return the least time of a call, compilation left out, and what it returned."""
    least, out = float("inf"), None
    for _ in range(repeats):
        watch = Stopwatch()
        out = call()
        if hasattr(out, "strides"):
            to_host(out[-1:])  # an accelerator may still be at work
        least = min(least, watch.seconds)
    return least, out


def _consider_fixed_points(choice: Choice, pilot: _Pilot, T: int) -> None:
    """Add Jacobi and Gauss-Seidel, if perturbations die out."""
    memory = pilot.memory
    if not memory < 0.7 * T:
        choice.reasons.append(
            "Perturbations of the initial state do not die out within these steps, so methods that need f alone "
            "would take as many iterations as there are steps, or blocks of them."
        )
        return
    about = "" if memory <= pilot.length else "about "
    choice.reasons.append(f"Perturbations of the initial state fall below the tolerance in {about}{memory:.0f} steps.")
    jacobi = round(memory)
    judging = pilot.judging(T)
    choice.candidates.append(Candidate(Jacobi(), "jacobi", jacobi, (jacobi + 1) * judging))
    best = None
    for m in (2**k for k in range(2, T.bit_length())):
        count = int(np.ceil(memory / m)) + 1
        sweep = (m - 1) * (pilot.step + pilot.cut + pilot.slope * T / m) + judging
        if count * m < T and (best is None or count * sweep + judging < best.seconds):
            label = f"gauss_seidel in chunks of {m}"
            best = Candidate(GaussSeidel(chunk=m), label, count, count * sweep + judging)
    if best is not None:
        choice.candidates.append(best)


def _consider_newton(choice: Choice, pilot: _Pilot, T: int) -> None:
    """Add Newton, on the whole and in windows."""
    fastest = min(candidate.seconds for candidate in choice.candidates)
    if fastest < 6 * pilot.judging(T):
        choice.reasons.append("Newton's iterations would cost more than that.")
        return
    try:
        composable = pilot.short.linearise(pilot.states)[1].composable
    except (TypeError, ValueError):
        choice.reasons.append("f cannot be differentiated, so that newton is out of the question.")
        return
    if not composable:
        choice.reasons.append(
            "Units couple, so that a scan of the Jacobian walks time as the loop does: newton cannot be faster here."
        )
        return
    watch = Stopwatch()

    def in_time(active: Active, iterate: Iterate, nit: int, report: dict[str, Array]) -> None:
        if watch.seconds > _AFFORDED * fastest and nit >= _FEW:
            raise StopIteration

    problem = Problem(pilot.short, pilot.tolerance, pin=True, jacobian=True)
    run = Run(problem, pilot.length // 4, pilot.length, in_time)
    seconds, (_, status) = _timed(lambda: run.to_end(Newton(), None), 1)
    if status is not Status.CONVERGED:
        choice.reasons.append(
            f"Newton's method takes more than {run.nit} iterations for the first {pilot.length} steps."
        )
        _consider_shooting(choice, pilot, T)
        return
    per_iteration = seconds / (run.nit + 1)

    def cost(rows: int) -> float:
        return float(per_iteration * pilot.judging(rows) / pilot.judging(pilot.length))

    count = run.nit + round(np.log2(T / pilot.length))
    choice.candidates.append(Candidate(Newton(), "newton", count, (count + 1) * cost(T)))
    if 4 * _WINDOW <= T:
        windows = T / _WINDOW
        count = round(1.2 * windows * (run.nit + 1))  # a window moves when a part of it has converged
        label = f"newton in windows of {_WINDOW} steps"
        choice.candidates.append(Candidate(Windowed(window=_WINDOW), label, count, count * cost(_WINDOW)))


def _consider_shooting(choice: Choice, pilot: _Pilot, T: int) -> None:
    """Add shooting in blocks that lengthen, where Newton's method is lost although perturbations die out."""
    P = pilot.length
    trial = _SHOTS * (2 * P**0.5 * pilot.step + 3 * pilot.judging(P))  # paths along blocks of sqrt(P) steps, and Newton
    if not pilot.forgets or trial > _AFFORDED * T * pilot.step:
        return
    run = Run(Problem(pilot.short, pilot.tolerance, pin=True, jacobian=True), pilot.length // 4, pilot.length)
    seconds, (_, status) = _timed(lambda: run.to_end(AdaptiveShooting(), None), 1)
    if status is Status.CONVERGED:
        # Blocks have sqrt(T) steps, and may double twice more.
        longer = max((T / pilot.length) ** 0.5, pilot.judging(T) / pilot.judging(pilot.length))
        count = run.nit + 2
        predicted = (count + 1) / (run.nit + 1) * seconds * longer
        choice.candidates.append(Candidate(AdaptiveShooting(), "adaptive_shooting", count, predicted))
