"""What must hold of every answer, asked of the oracle."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import numpy as np

from recsolve.base.status import Status

from . import oracle, problems

SLACK = 3  # roundings of f in a residual: that of f when it is solved, when it is judged, and in the states
TIMES = 10  # a trusted answer is within so many times what is stated
TRUSTED = 1e-2  # of the size of states, the error up to which they are trusted
COUNTS = Counter()


class Wrong(AssertionError):
    """Something that must not be; ``category`` is the column of the table it is counted in."""

    def __init__(self, category, text):
        super().__init__(f"{category}: {text}")
        self.category = category


class Nothing(Exception):
    """What was drawn is no problem of its kind; it is not counted."""


def require(holds, category, text):
    """Raise unless it holds."""
    if not holds:
        raise Wrong(category, text)


def _units(problem, tolerance, size):
    """Return the unit in which atol counts: 1, or the largest entry of the lane where it exceeds the size of states."""
    if getattr(tolerance, "lanes", None) is None or not size.size:
        return 1.0
    components = size.ndim - len(problem.model.lanes) - 2
    return np.maximum(size.max(axis=(components, -1), keepdims=True), tolerance.unit)


def solution(problem, sol, complete=False):
    """Judge a Solution; ``complete`` says that it must be the whole trajectory, as the loop gives it."""
    COUNTS["solutions"] += 1
    raw = np.asarray(sol.states)
    event = (problem.model.components,) * (problem.model.components > 1) + (*problem.model.lanes, problem.model.units)
    wanted = (problem.length, *problem.batch, *event)
    require(raw.shape == wanted, "wrong answer", f"states have shape {raw.shape}, wanted {wanted}")
    require(raw.dtype == problem.dtype, "wrong answer", f"states are {raw.dtype}, wanted {problem.dtype}")
    states = problem.with_components(raw)
    r, rounding, size = problems.defect(problem, states)
    with np.errstate(all="ignore"):
        bound = sol.tolerance.atol * _units(problem, sol.tolerance, size) + sol.tolerance.rtol * size
        allowed = 1.001 * bound + SLACK * rounding
        met = r <= allowed
        if sol.success:
            COUNTS["successes"] += 1
            _complain("false success", met, r, allowed, sol)
            _trust(problem, sol, states, bound + SLACK * rounding)
        else:
            _honest_failure(problem, sol, r, rounding, bound)
        if complete and np.isfinite(problem.plain).all():
            require(sol.success or sol.status is Status.STALLED, "wrong answer", f"not completed: {sol.message}")
            _complain("wrong answer", met, r, allowed, sol)
        rows = np.asarray(sol.converged_rows)
        by_row = met.all(axis=tuple(range(1 + len(problem.batch), met.ndim)))
        require((by_row | ~rows).all(), "false success", "converged_rows has rows whose residual is not met")
        if r.size and np.isfinite(r).all() and np.isfinite(rounding).all():
            low, high = (r - SLACK * rounding).max(), (r + SLACK * rounding).max()
            stated = float(sol.residuals[-1])
            require(
                0.999 * low <= stated <= 1.001 * high, "untrue residual", f"{stated:.3e} is stated, not {r.max():.3e}"
            )


def _complain(category, holds, seen, allowed, sol):
    if holds.all():
        return
    place = tuple(int(i) for i in np.argwhere(~holds)[0])
    raise Wrong(
        category,
        f"{sol.solver.name} {sol.status}: |h - f| = {float(seen[place]):.3e} at {place}, allowed "
        f"{float(allowed[place]):.3e}, in {int((~holds).sum())} of {holds.size} entries",
    )


def _honest_failure(problem, sol, r, rounding, bound):
    """Judge a status other than converged."""
    if sol.status is Status.NONFINITE:
        largest = np.abs(problem.plain).max(initial=0.0)
        overflowing = not largest < 1e-4 * np.sqrt(np.finfo(problem.dtype).max)
        require(overflowing, "false failure", "nonfinite, but the literal loop is finite")
    elif sol.status is not Status.STOPPED and r.size:
        within = r + SLACK * rounding <= 0.5 * bound
        require(not within.all(), "false failure", f"{sol.status}, but the residual is met everywhere: {sol.message}")


def _trust(problem, sol, states, defects):
    """Judge ``trusted`` and ``condition`` by the oracle's own derivative and its own trajectory."""
    if not states.size:
        require(sol.trusted, "wrong answer", "an empty solution is not trusted")
        return
    with unexpected("trusted"):
        trusted, kappa = bool(sol.trusted), float(sol.condition)
    error = np.abs(states - problem.truth)
    size, least = float(np.abs(states).max()), 4 * float(np.finfo(problem.dtype).smallest_subnormal)
    if trusted:
        COUNTS["trusted"] += 1
        far = float(error.max())
        require(
            far <= TIMES * min(TRUSTED * size, sol.error_estimate) + least,
            "wrong trust",
            f"{sol.solver.name} is trusted, states {sol.error_estimate:.1e}, kappa {kappa:.1e}, tolerance "
            f"{sol.tolerance.rtol:.1e}, and is {far:.1e} off",
        )
    before = oracle.previous_of(states, problem.initial, problem.starts)
    J = oracle.jacobian(problem.model, before, problem.drive)
    d = oracle.grouped(defects.astype(np.float64), problem.model)[..., None]
    E = oracle.amplified(J, np.concatenate([d, np.ones_like(d)], axis=-1), problem.starts)
    if E is None or not np.isfinite(E).all():
        return
    COUNTS["amplified"] += 1
    stated, own = E[..., 0], float(E[..., 1].max())
    gap = oracle.grouped(error.astype(np.float64), problem.model)
    # To first order, which says nothing where what is stated is not small.
    if trusted and stated.max() <= 1e-4 * size:
        beyond = gap > TIMES * stated
        require(
            not beyond.any(),
            "wrong trust",
            f"{sol.solver.name}: error {float(gap.max()):.3e}, beyond {TIMES} times the {float(stated.max()):.3e} of "
            "its residual and rounding",
        )
    if trusted and not problem.ties and size > least:  # of states that have underflowed, derivatives have too
        require(kappa * 30 >= own, "wrong trust", f"condition is {kappa:.2e}, by the oracle's derivative {own:.2e}")


@contextmanager
def unexpected(what):
    """Count any exception inside as one that should not be."""
    try:
        yield
    except Wrong:
        raise
    except Exception as error:
        raise Wrong("exception", f"{what}: {type(error).__name__}: {str(error)[:300]}") from error


@contextmanager
def unwritten(*arrays):
    """Check that nothing inside writes into arrays."""
    arrays = [a for a in arrays if a is not None]
    before = [np.array(a) for a in arrays]
    yield
    for a, b in zip(arrays, before, strict=True):
        require(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), "written", "an input was written into")
