"""Iterations over all steps of all ranks at once: h[t] <- F[t] + A[t] d[t-1] with one message each.

Every solver whose steps are ``rowwise`` steps as it does on one device, on a problem of the own steps of each rank
(:class:`recsolve.distributed.shared_problem.SharedProblem`): where it moves an iterate or sums over time, a message is
exchanged. A step that moves by a matrix takes one; one that sums over time first (``anderson``) takes two, and a search
for a step that lowers a sum over time (``damped_newton``) four, and two for every trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array
from recsolve.base.status import MIXES, Status
from recsolve.distributed.progress import Progress, all_blocked
from recsolve.distributed.rounds import before_each
from recsolve.distributed.shared_problem import NotComposable, SharedProblem
from recsolve.distributed.task import Facts, Outcome, Task
from recsolve.guess import first_iterate
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.recurrence.binding import walking
from recsolve.solution import Solution
from recsolve.solvers.driver import History, status_of
from recsolve.solvers.method import Solver


def can_sweep(solver: Any) -> bool:
    """Return whether all ranks step together with a solver."""
    return isinstance(solver, Solver) and solver.rowwise


class _All(NamedTuple):
    """What all ranks decide by, as the facts of one iterate."""

    done: bool
    blocked: bool
    worst: float


class _Ended(Exception):
    """There is no next iterate: all ranks have decided so, by the same message."""


class _Course:
    """How far all ranks are together, and how it ends."""

    def __init__(self, lengths: Sequence[int], limit: int, patience: int):
        self.lengths, self.limit, self.patience = lengths, limit, patience
        self.history, self.nit, self.status, self.mixes = History(), 0, Status.MAXITER, False
        self.progress: list[Progress] = []

    def decide(self, progress: Sequence[Progress], flags: Array) -> None:
        """Record an iterate of all ranks, and raise where it is the last one."""
        self.progress = list(progress)
        worst = float(np.max([p.worst for p in progress]))
        done = all(p.done for p in progress)
        blocked = not done and not np.isfinite(worst) and all_blocked(self.lengths, flags)
        self.history.record(worst, int(sum(p.exact_rows for p in progress)))
        self.mixes = any(p.mixes for p in progress)
        found: Any = _All(done, blocked, worst)
        status = status_of(found, self.history, self.nit, self.limit, self.patience)
        if self.mixes or status is not None:
            self.status = Status.STALLED if self.mixes or status is None else status
            raise _Ended


def solve_by_sweeps(task: Task, solver: Solver[Any, Any], limit: int, patience: int) -> Outcome | None:
    """Return the outcome, or None where A does not compose.

    Where the status is ``nonfinite``, steps after a number that is not finite have still to be followed.

    Parameters
    ----------
    task : Task
    solver : Solver
        One that is ``rowwise``.
    limit, patience : int
        As of the driver.
    """
    axis, watch = task.timeline, Stopwatch()
    course = _Course(axis.ordered, limit, patience)
    course.history.begin()
    with np.errstate(all="ignore"), walking(False):
        states, ends = _begun(task)
        problem = SharedProblem(task, ends, jacobian=solver.needs_jacobian, decide=course.decide)
        iterate: Any = problem.evaluate(states)
        first = problem.raw
        state = solver.init(problem, iterate)
        if problem.ends is not ends:
            raise TypeError(f"init of {type(solver).__name__} made a step; wanted that of step, or rowwise = False")
        problem.raw = first  # it may have evaluated other states
        while True:
            problem.begin(iterate)
            try:
                iterate, state = solver.step(problem, iterate, state)
            except _Ended:
                break
            except NotComposable:
                return None
            if iterate.states is not problem.raw.states or not problem.told:
                raise TypeError(
                    f"step of {type(solver).__name__} returned another iterate than problem.move or problem.advance "
                    "made last; wanted that, or rowwise = False"
                )
            course.nit += 1
    stats = {**problem.counts, "seconds": watch.seconds, "compile_seconds": watch.compile_seconds}
    last = problem.begun
    solution = Solution(
        problem.recurrence, solver, last, course.status, course.history.residuals, course.nit,
        {**stats, "completed_from": None}, MIXES.format(step="of a rank") if course.mixes else "", last.tolerance,
    )  # fmt: skip
    tested = last.tolerance.atol, last.tolerance.rtol, last.tolerance.unit
    facts = [
        Facts(length, course.status, course.nit, p.worst, int(p.converged), int(p.exact), *tested)
        for length, p in zip(axis.ordered, course.progress, strict=True)
    ]
    return Outcome(solution, facts, before_each(task, problem.ends)[-1])


def _begun(task: Task) -> tuple[Array, list[Array]]:
    """Return the first own states, and the last ones of all ranks."""
    axis, rec = task.timeline, task.recurrence
    given = first_iterate(task.own_guess(), rec)
    states = given(rec) if callable(given) else given
    if states is None:
        states = rec.bind().guess() if rec.length else rec.empty()
    (ends,) = axis.ranks.exchange((), [states[-1] if rec.length else rec.initial]).arrays
    return states, list(axis.in_order(ends))
