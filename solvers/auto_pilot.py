"""The pilot of ``auto``: which method to take, measured on the first steps, predicted for all, said in words."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TextIO

import numpy as np

from recsolve.base.arrays import kind_of
from recsolve.base.status import Status
from recsolve.base.tolerance import Tolerance, tolerance_for
from recsolve.kernels.compile_clock import CompilationRefused, refusing
from recsolve.recurrence.base import Recurrence, check_recurrence
from recsolve.recurrence.binding import parts_as
from recsolve.recurrence.engine import Engine
from recsolve.solvers.adaptive_shooting import AdaptiveShooting
from recsolve.solvers.choice import Candidate, Choice
from recsolve.solvers.composite import Windowed
from recsolve.solvers.gauss_seidel import GaussSeidel
from recsolve.solvers.jacobi import Jacobi
from recsolve.solvers.newton import Newton
from recsolve.solvers.pilot import Pilot, described, iterated, seconds_of_loop, timed
from recsolve.solvers.sequential import Sequential

_FEWEST = 256  # with fewer steps nothing is worth measuring
_BRIEF = 12e-3  # seconds: with a shorter loop neither, for measuring takes a few milliseconds
_REPAYS = 1.0  # seconds: with a shorter loop others are not worth compiling, which takes seconds
_CACHED = 4 << 20  # bytes of weights that stay near a core
_WINDOW = 256
_AFFORDED = 0.2  # of the time of the loop, for Newton's method on the pilot,
_FEW = 8  # which has so many iterations in any case
_SHOTS = 6  # iterations of adaptive shooting


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
    tolerance = tolerance_for(recurrence, tol)
    choice = choose(recurrence, tolerance)
    if choice.chosen.seconds == 0 and choice.chosen.method.name == Sequential.name:  # it is taken without being timed
        choice.candidates = [replace(choice.chosen, seconds=seconds_of_loop(recurrence, tolerance))]
    print(choice, file=sys.stdout if file is None else file)
    return choice


def choose(recurrence: Recurrence, tolerance: Tolerance, engine: Engine | None = None) -> Choice:
    """Measure the first steps, and return the methods that could be fast with their predicted costs.

    Parameters
    ----------
    recurrence : Recurrence
    tolerance : Tolerance
        To which memory is measured and Newton's method is solved.
    engine : Engine, optional
        That of the recurrence, where it is bound already.

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
    engine, on_gpu = engine or recurrence.bind(), kind_of(recurrence.initial) == "cupy"
    compiled = engine.compiled
    if on_gpu and engine.whole and tolerance.lanes is None:
        whole = Candidate(Windowed(), "newton, compiled whole for the GPU", 0, 0.0)
        reason = "All mixings are diagonal: segments of time are walked or solved side by side on the GPU, and checked."
        found = [whole, Candidate(Sequential(), "sequential", 0, float("inf"))]
        return Choice(found, [described(recurrence), reason])
    if on_gpu and compiled:
        walk = Candidate(Sequential(), "sequential", 0, 0.0)
        reason = "Where sweeps do not converge, a compiled walk takes less than two iterations of Newton's method."
        return Choice([walk], [described(recurrence), reason])
    if compiled and (engine.whole or engine.weight <= _CACHED):
        walk = Candidate(Sequential(), "sequential", 0, 0.0)
        reason = (
            "All mixings are diagonal: one compiled walk reads the drives once, and every other method more often."
            if engine.whole
            else "The weights fit into a cache: a compiled walk is faster than what goes over the steps several times."
        )
        return Choice([walk], [described(recurrence), reason])
    with np.errstate(all="ignore"), parts_as(engine):
        pilot = Pilot(recurrence, tolerance, engine)
        choice = Choice([Candidate(Sequential(), "sequential", 0, T * pilot.step)])
        choice.reasons += [described(recurrence), pilot.loop_described]
        if T * pilot.step < _BRIEF:
            choice.reasons.append("To measure what else there is would take as long.")
            pilot.costs.keep()
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
    pilot.costs.keep()
    loop_or_known = (
        c for c in choice.candidates if c.method.name == Sequential.name or recurrence.takes(c.method.name)
    )
    choice.candidates = list(loop_or_known)
    return choice


def _consider_fixed_points(choice: Choice, pilot: Pilot, T: int) -> None:
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
    judging = pilot.iteration(Jacobi(), T)
    choice.candidates.append(Candidate(Jacobi(), "jacobi", jacobi, (jacobi + 1) * judging))
    best = None
    for m in (2**k for k in range(2, T.bit_length())):
        count = int(np.ceil(memory / m)) + 1
        sweep = pilot.sweep(m, T)
        if count * m < T and (best is None or count * sweep + judging < best.seconds):
            label = f"gauss_seidel in chunks of {m}"
            best = Candidate(GaussSeidel(chunk=m), label, count, count * sweep + judging)
    if best is not None:
        choice.candidates.append(best)


def _consider_newton(choice: Choice, pilot: Pilot, T: int) -> None:
    """Add Newton, on the whole and in windows."""
    fastest = min(candidate.seconds for candidate in choice.candidates)
    if fastest < 6 * pilot.iteration(Jacobi(), T):
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
    newton = Newton()
    afforded = max(int(_AFFORDED * fastest / pilot.iteration(newton, pilot.length)), _FEW)
    run, status = iterated(newton, pilot.short, pilot.tolerance, min(afforded, pilot.length // 4))
    if status is not Status.CONVERGED:
        choice.reasons.append(
            f"Newton's method takes more than {run.nit} iterations for the first {pilot.length} steps."
        )
        _consider_shooting(choice, pilot, T)
        return
    # What forgets within the pilot converges everywhere as there; else corrections have to go further.
    growth = 1 if pilot.memory < pilot.length else round(np.log2(min(T, pilot.memory) / pilot.length)) + 1
    count = run.nit + growth
    choice.candidates.append(Candidate(newton, "newton", count, (count + 1) * pilot.iteration(newton, T)))
    if 4 * _WINDOW <= T:
        windows = T / _WINDOW
        count = round(1.2 * windows * (run.nit + 1))  # a window moves when a part of it has converged
        label = f"newton in windows of {_WINDOW} steps"
        choice.candidates.append(
            Candidate(Windowed(window=_WINDOW), label, count, count * pilot.iteration(newton, _WINDOW))
        )


def _consider_shooting(choice: Choice, pilot: Pilot, T: int) -> None:
    """Add shooting in blocks that lengthen, where Newton's method is lost although perturbations die out."""
    P = pilot.length
    judging = pilot.iteration(Jacobi(), P)
    trial = _SHOTS * (2 * P**0.5 * pilot.step + 3 * judging)  # paths along blocks of sqrt(P) steps, and Newton
    if not pilot.forgets or trial > _AFFORDED * T * pilot.step:
        return
    seconds, (run, status) = timed(
        lambda: iterated(AdaptiveShooting(), pilot.short, pilot.tolerance, pilot.length // 4), 1
    )
    seconds = pilot.costs.noted(f"adaptive_shooting over {P}", seconds / (run.nit + 1)) * (run.nit + 1)
    if status is Status.CONVERGED:
        # Blocks have sqrt(T) steps, and may double twice more.
        longer = max((T / P) ** 0.5, pilot.iteration(Jacobi(), T) / judging)
        count = run.nit + 2
        predicted = (count + 1) / (run.nit + 1) * seconds * longer
        choice.candidates.append(Candidate(AdaptiveShooting(), "adaptive_shooting", count, predicted))
