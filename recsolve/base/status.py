"""How a solve ended, and what to do about it."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """How a solve ended; a string, so that ``solution.status == "converged"`` holds.

    With r = f(h[t-1], u[t]) - h[t] of the states returned, computed afresh for all t at once:

    ``converged``
        |r| <= atol m + rtol max(|h|, |f|) in every entry, where atol, rtol and m are those of ``Solution.tolerance``:
        m = 1 if you gave ``tol`` or ``atol``, or units do not couple; else m is the largest of ``tolerance.unit`` (1
        where states are of ordinary size) and all |h| and |f| in the entry's lane at its step.
        ``str(solution.tolerance)`` states the test with its numbers.
    ``accepted``
        Every row meets that test or was accepted by the rule in ``options["accept"]``, and some by the rule alone:
        ``Solution.converged_rows`` tells which.
    ``nonfinite``
        Every sequence (or segment between resets) has converged, or has converged up to a row whose own f(h[t-1], u[t])
        is inf or NaN. All numbers that do not depend on such a row are right: ``Solution.converged_entries``.
    ``maxiter``
        None of the above after ``maxiter`` iterations.
    ``diverged``
        For ``patience`` iterations in a row there was no progress: neither has the number of rows that are exact and
        leading, or set aside as solved, grown, nor has max|r| fallen below 0.99 times its smallest value of this stage
        of the method. And max|r| exceeds 1000 times that value or is not finite. (Only without the pin, which makes
        the number grow.)
    ``stalled``
        There was no progress in the same sense, and max|r| has not grown by that much; or the states are the sequential
        loop's own, and f evaluated for all t at once differs from them by more than its rounding explains; or f
        evaluated alone at the first, the middle or the last step differs from f evaluated for all t at once by more
        than sqrt(eps) (s + max |f|), with s = 1 where states are of ordinary size.
    ``stopped``
        The callback raised StopIteration.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0).recurrence(np.ones((30, 2)))
    >>> status = rs.solve(rec, maxiter=1).status
    >>> status, status == "maxiter", status.advice.split(";")[0]
    (<Status.MAXITER: 'maxiter'>, True, 'the iteration limit was reached')
    """

    CONVERGED = "converged"
    ACCEPTED = "accepted"
    NONFINITE = "nonfinite"
    MAXITER = "maxiter"
    DIVERGED = "diverged"
    STALLED = "stalled"
    STOPPED = "stopped"

    @property
    def advice(self) -> str:
        """What happened and what to try next, one sentence."""
        return _ADVICE[self]


_ADVICE = {
    Status.CONVERGED: "every entry of the residual meets the test that Solution.tolerance states",
    Status.ACCEPTED: "rows that miss the tolerance were accepted by the rule; without accept they would be solved",
    Status.NONFINITE: "the trajectory is inf or NaN from some step on; check the drive and the weights there",
    Status.MAXITER: (
        "the iteration limit was reached; raise maxiter, try another method (recsolve.diagnose predicts their "
        "iterations), or pass fallback='sequential' to complete the answer exactly"
    ),
    Status.DIVERGED: "the residual grows; keep the pin on, try another method, or fallback='sequential'",
    Status.STALLED: "the residual no longer falls; raise tol if it is below rounding, else try another method",
    Status.STOPPED: "the callback stopped the solve",
}

# The loop defines the answer, but the residual is taken with f evaluated for all t at once.
MISMATCH = (
    "the states are the sequential loop's own, but f evaluated for all t at once differs from them by {worst:.1e}, "
    "more than its rounding seems to explain: it mixes times or sequences (see recsolve.check_structure); if you know "
    "that it is rounding, raise tol"
)

# The residual is met, but by a function that is not a recurrence.
MIXES = (
    "f gives another value at step {step} alone than for all t at once, so what has been solved is no recurrence: f "
    "mixes times or sequences, or branches on them (give axis=-1 to sums and means, and np.where for branches)"
)

LEAKS = (
    "F of the first rows alone gives another row {step} than F of all rows: it is not strictly causal, or depends on "
    "how many rows there are"
)

NOT_A_FUNCTION = (
    "{name} is not a function: called again with the same arguments, it returned something else. Give what it draws, "
    "counts or reads from a clock as a drive"
)
