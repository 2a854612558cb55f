"""The one loop: budget, history, callback, progress and status, for every solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from recsolve.arrays import Array
from recsolve.solvers.base import Solver
from recsolve.solvers.problem import Iterate, Problem
from recsolve.status import Status

_IMPROVED = 0.99  # max|r| must fall below this share of its best value to count as progress
_BLOWN_UP = 1e3  # and a rise above this multiple of it counts as divergence


@dataclass
class History:
    """max|r| of every iterate, and when progress was last made."""

    residuals: list[float] = field(default_factory=list)
    best: float = np.inf
    rows: int = -1
    since: int = 0

    def record(self, iterate: Iterate) -> None:
        """Add an iterate."""
        self.residuals.append(iterate.worst)
        improved = iterate.worst < _IMPROVED * self.best or iterate.progress > self.rows
        self.since = 0 if improved else self.since + 1
        self.best = min(self.best, iterate.worst) if np.isfinite(iterate.worst) else self.best
        self.rows = max(self.rows, iterate.progress)


def status_of(iterate: Iterate, history: History, nit: int, maxiter: int, patience: int) -> Status | None:
    """Return how the solve ends at this iterate, or None to go on; the formulas are those of ``Status``."""
    if bool(iterate.converged.all()):
        return Status.CONVERGED
    if iterate.blocked:
        return Status.NONFINITE
    if history.since >= patience:
        grown = not iterate.worst <= _BLOWN_UP * history.best
        return Status.DIVERGED if grown else Status.STALLED
    return Status.MAXITER if nit >= maxiter else None


def iterate_to_end(
    solver: Solver,
    problem: Problem,
    guess: Array | None,
    *,
    maxiter: int,
    patience: int,
    observe: Callable[[Iterate, int], None] | None,
) -> tuple[Iterate, Status, History, int]:
    """Run the loop and return the last iterate, its status, the history and the number of iterations."""
    history, nit = History(), 0
    iterate = solver.start(problem) if guess is None else problem.evaluate(guess)
    state = solver.init(problem, iterate)
    while True:
        history.record(iterate)
        try:
            if observe is not None:
                observe(iterate, nit)
        except StopIteration:
            done = status_of(iterate, history, nit, maxiter, patience)
            return iterate, done or Status.STOPPED, history, nit
        status = status_of(iterate, history, nit, maxiter, patience) or solver.terminate(problem, iterate, state)
        if status is not None:
            return iterate, status, history, nit
        iterate, state = solver.step(problem, iterate, state)
        nit += 1
