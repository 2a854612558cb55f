"""The one loop: budget, history, callback, progress and status, for every solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.base.memory import keep_freed
from recsolve.base.status import Status
from recsolve.base.tolerance import Tolerance
from recsolve.recurrence.binding import parts_as
from recsolve.recurrence.engine import Verdict
from recsolve.solvers.acceptance import Acceptance
from recsolve.solvers.active import Active, Guess
from recsolve.solvers.evaluation import Direct, Settled
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.method import Method, Solver, Stage
from recsolve.solvers.problem import Problem
from recsolve.solvers.registry import check_applies
from recsolve.solvers.state import State

_FINAL = (Status.CONVERGED, Status.ACCEPTED, Status.NONFINITE)  # no other stage would do better
_IMPROVED = 0.99  # max|r| must fall below this share of its best value to count as progress
_PACKAGE = __name__.partition(".")[0] + "."
_BLOWN_UP = 1e3  # and a rise above this multiple of it counts as divergence

Observe = Callable[[Active, Iterate, int, dict[str, Array]], None]


@dataclass
class History:
    """max|r| of every iterate, and when progress was last made."""

    residuals: list[float] = field(default_factory=list)
    best: float = np.inf
    rows: int = -1
    since: int = 0

    def begin(self) -> None:
        """Reset the measure of progress: a stage begins."""
        self.best, self.rows, self.since = np.inf, -1, 0

    def record(self, worst: float, rows: int) -> None:
        """Add an iterate by its max|r| and the number of its exact rows."""
        self.residuals.append(worst)
        improved = worst < _IMPROVED * self.best or rows > self.rows
        self.since = 0 if improved else self.since + 1
        self.best = min(self.best, worst) if np.isfinite(worst) else self.best
        self.rows = max(self.rows, rows)


def status_of(iterate: Iterate, history: History, nit: int, limit: int, patience: int) -> Status | None:
    """Return how the solve ends at this iterate, or None to go on; the formulas are those of ``Status``."""
    if iterate.done:
        return Status.CONVERGED
    if iterate.blocked:
        return Status.NONFINITE
    if history.since >= patience:
        grown = not (np.isfinite(iterate.worst) and iterate.worst <= _BLOWN_UP * history.best)
        return Status.DIVERGED if grown else Status.STALLED
    return Status.MAXITER if nit >= limit else None


@dataclass
class Run:
    """One solve: its history, and how many iterations it has taken.

    Parameters
    ----------
    problem : Problem
    maxiter, patience : int
    observe : callable, optional
        ``observe(active, iterate, nit, report)`` after every iterate.
    measured : callable, optional
        Returns the tolerance in the size of the states, which is looked at once there is something to iterate.
    acceptance : Acceptance, optional
        Which rows the user accepts as they are.
    """

    problem: Problem
    maxiter: int
    patience: int
    observe: Observe | None = None
    measured: Callable[[], Tolerance] | None = None
    acceptance: Acceptance | None = None
    history: History = field(default_factory=History)
    nit: int = 0
    stage: Stage | None = None
    stopped: bool = False

    def to_end(self, method: Method, guess: Guess) -> tuple[Iterate | Settled, Status]:
        """Run the stages of a method until one of them converges, and return the last iterate and its status."""
        may_be_direct = guess is None and self.observe is None and self.acceptance is None
        if may_be_direct and (ended := self._directly(method)) is not None:
            return ended
        if self._measure() and may_be_direct and (ended := self._directly(method)) is not None:
            return ended
        with parts_as(self.problem.engine):
            for stage in method.stages(self.problem):
                check_applies(stage.solver, self.problem.recurrence)
                self.stage = stage
                may_be_direct &= not self.history.residuals and stage.solver is not method and stage.window is None
                if may_be_direct and (ended := self._directly(stage.solver, stage.iterations)) is not None:
                    return ended
                iterate, status = self._run(stage, guess)
                if status in _FINAL or self.stopped or self.nit >= self.maxiter:
                    break
                guess = iterate.states
        return iterate, status

    def restart(self) -> None:
        """Forget what has been found: the tolerance is another one."""
        self.history, self.nit, self.stage, self.measured = History(), 0, None, None
        if self.acceptance is not None:
            self.acceptance.forget()

    def _measure(self) -> bool:
        """Take the tolerance in the size of the states, and return whether it is another one."""
        before = self.problem.tolerance
        if self.measured is not None:
            self.problem.tolerance, self.measured = self.measured(), None
        return self.problem.tolerance != before

    def _directly(self, method: Method, limit: int | None = None) -> tuple[Iterate | Settled, Status] | None:
        """Return the result of compiled loops, if the method has them and it passes the test within a stage's limit."""
        problem, found = self.problem, None if limit == 0 else method.direct(self.problem)
        if found is None:
            return None
        if isinstance(found, Verdict):
            for name, count in found.counts.items():
                problem.counts[name] += count
        if found.iterations > (self.maxiter if limit is None else min(limit, self.maxiter)):
            return None
        iterate: Iterate | Settled
        if (worst := _vouched(method, found)) is not None:
            iterate, status = _settled(problem, found, worst), Status.CONVERGED
        else:
            iterate, ended = self._tested(found)
            if ended not in (Status.CONVERGED, Status.NONFINITE):
                return None
            status = ended
        self.nit = found.iterations
        self.history.record(iterate.worst, iterate.progress)
        return iterate, status

    def _tested(self, found: Direct | Verdict) -> tuple[Iterate, Status | None]:
        """Return the iterate of states that compiled loops have found, tested as every iterate is."""
        if found.values is None:
            iterate = self.problem.evaluate(found.states, jacobian=False)
        else:
            iterate = self.problem.judge(found.states, found.values)
        return iterate, status_of(iterate, self.history, 0, self.maxiter, self.patience)

    def _run(self, stage: Stage, guess: Guess) -> tuple[Iterate, Status]:
        keep_freed()
        solver, limit = stage.solver, self.maxiter
        if stage.iterations is not None:
            limit = min(limit, self.nit + stage.iterations)
        self.problem.jacobian = solver.needs_jacobian
        self.history.begin()
        active = Active(self.problem, stage.window, self.acceptance)
        given = active.open(guess)
        iterate = active.frozen(solver.start(active.problem) if given is None else active.problem.evaluate(given))
        state = _first_state(solver, active.problem, iterate)
        if self.nit == 0:
            self._record(solver, active, iterate, state)
        while True:
            while not self.stopped and (moved := active.slide(iterate)) is not None:
                iterate, state = moved, _first_state(solver, active.problem, moved)
            status = self._ended(solver, active, iterate, state, limit)
            if status is not None:
                whole = active.evaluate_whole(iterate)
                self.history.residuals[-1] = whole.worst
                status = status_of(whole, self.history, self.nit, limit, self.patience) or status
                status = Status.ACCEPTED if active.accepted(whole) else status
                if status is not Status.CONVERGED or whole.done:
                    return whole, Status.STOPPED if self.stopped and status is Status.MAXITER else status
                iterate = active.resume(whole)
                state = _first_state(solver, active.problem, iterate)
                self.history.begin()
            iterate, state = active.narrow(iterate, state)
            iterate, state = solver.step(active.problem, iterate, state)
            iterate = active.frozen(iterate)
            self.nit += 1
            self._record(solver, active, iterate, state)

    def _record(self, solver: Solver[Any, Any], active: Active, iterate: Iterate, state: State | None) -> None:
        self.history.record(active.worst(iterate), active.progress(iterate))
        if self.observe is not None:
            try:
                self.observe(active, iterate, self.nit, solver.report(state))
            except StopIteration:
                self.stopped = True

    def _ended(
        self, solver: Solver[Any, Any], active: Active, iterate: Iterate, state: State | None, limit: int
    ) -> Status | None:
        if self.stopped:
            return Status.STOPPED
        status = status_of(iterate, self.history, self.nit, limit, self.patience)
        status = Status.ACCEPTED if active.accepted(iterate) else status
        if not active.complete and status in _FINAL:
            return Status.MAXITER if self.nit >= limit else None  # of a window only, which moves on
        return status or solver.terminate(active.problem, iterate, state)


def _vouched(method: Method, found: Direct | Verdict) -> float | None:
    """Return max |r| where loops of this package have tested every number; what else is found the driver tests."""
    ours = type(method).direct.__module__.startswith(_PACKAGE)
    worst = found.worst if ours and isinstance(found, Verdict) else None
    return worst if worst is not None and 0 <= worst < np.inf else None


def _settled(problem: Problem, found: Direct | Verdict, worst: float) -> Settled:
    return Settled(problem, found.states, worst, found.largest if isinstance(found, Verdict) else None)


def _first_state(solver: Solver[Any, Any], problem: Problem, iterate: Iterate) -> State | None:
    """Return the solver's state, of which the driver must be able to set parts aside."""
    state = solver.init(problem, iterate)
    if state is None or isinstance(state, State):
        return state
    raise TypeError(f"init of {type(solver).__name__} returned a {type(state).__name__}; wanted a State, or None")
