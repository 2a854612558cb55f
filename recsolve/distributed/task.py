"""What ranks solve together: a recurrence of the own steps of each, one method, and how every part of it is solved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from recsolve import solvers
from recsolve.base.arrays import Array, difference, same_bits
from recsolve.base.links import unrecorded
from recsolve.base.shard import Timeline
from recsolve.base.status import Status
from recsolve.base.tolerance import Tolerance
from recsolve.distributed.ahead import Ahead
from recsolve.distributed.carries import LAST, MANY
from recsolve.guess import guess_of_steps
from recsolve.recurrence.base import Recurrence
from recsolve.solution import Solution
from recsolve.solve import solve, tolerance_of
from recsolve.solvers.evaluation import Evaluation, Settled

_STATUSES = list(Status)


class Facts(NamedTuple):
    """What all ranks know of how the steps of one have been solved."""

    length: int
    status: Status
    nit: int
    worst: float
    converged_prefix: int
    exact_prefix: int
    atol: float
    rtol: float
    unit: float

    def as_numbers(self) -> list[float]:
        """Return them as numbers of a message."""
        return [float(_STATUSES.index(x) if isinstance(x, Status) else x) for x in self]

    @classmethod
    def of(cls, solution: Solution) -> Facts:
        """Return those of the solution of one rank."""
        tolerance, worst = solution.tolerance, float(solution.residuals[-1]) if len(solution.residuals) else 0.0
        length = solution.recurrence.length
        done = solution.success
        return cls(
            length, solution.status, solution.nit, worst, length if done else solution.converged_prefix, -1,
            tolerance.atol, tolerance.rtol, tolerance.unit,
        )  # fmt: skip

    @classmethod
    def from_numbers(cls, numbers: Array) -> Facts:
        """Return those of a message."""
        length, status, nit, worst, converged, exact, *tested = numbers.tolist()
        return cls(int(length), _STATUSES[int(status)], int(nit), worst, int(converged), int(exact), *tested)


def first_missed(facts: Sequence[Facts]) -> int | None:
    """Return the rank whose steps failed first, in the order of steps, or else of which rows were accepted."""
    missed = [i for i, fact in enumerate(facts) if fact.status is not Status.CONVERGED]
    failed = [i for i in missed if facts[i].status is not Status.ACCEPTED]
    if not missed:
        return None
    short = (i for i in failed if facts[i].converged_prefix < facts[i].length)  # all have the status of common sweeps
    return next(short, (failed or missed)[0])


class Outcome(NamedTuple):
    """The solution of the own steps, the facts of all ranks in the order of steps, and the last state of all."""

    solution: Solution
    facts: list[Facts]
    final: Array


@dataclass(frozen=True)
class Task:
    """A solve of what ranks share.

    Attributes
    ----------
    recurrence : Recurrence
        Of the own steps, from the first state of all.
    solver : Method
    driver : mapping
        Options of the driver.
    settings : mapping
        ``tol`` and ``maxiter``.
    guess : object
        Of the own steps.
    ahead : Ahead
        What a device has been asked for of them, perhaps.
    """

    recurrence: Recurrence
    solver: solvers.Method
    driver: Mapping[str, Any]
    settings: Mapping[str, Any]
    guess: Any
    ahead: Ahead

    @property
    def timeline(self) -> Timeline:
        """Whose steps the others are."""
        assert self.recurrence.timeline is not None
        return self.recurrence.timeline

    def tolerance(self) -> Tolerance:
        """Return the test of every entry, the same on all ranks once they have agreed on the size of states."""
        return tolerance_of(self.settings["tol"], self.driver, self.recurrence)

    def part(self, start: Array, first: int = 0) -> Recurrence:
        """Return the recurrence of the own steps from ``first`` on, given the state before them."""
        rec = self.recurrence
        part = rec.window(first, rec.length, rec.wrap(start.copy()))
        part.take_scale(rec.state_scale)
        part.first_step = self.timeline.start + first
        return part

    def solved(self, start: Array, *, guess: Any = None, first: int = 0, fallback: str = "none") -> Solution:
        """Return the solution of the own steps from ``first`` on, given the state before them."""
        with unrecorded(self.recurrence.kind):
            found = solve(  # type: ignore[call-overload]
                self.part(start, first), method=self.solver, guess=guess, options=self.driver,
                fallback=fallback, **self.settings,
            )  # fmt: skip
        assert isinstance(found, Solution)
        return found

    def own_guess(self) -> Any:
        """Return the user's guess of the own steps."""
        return guess_of_steps(self.guess, self.recurrence, slice(0, self.recurrence.length))

    def forgotten(self) -> Array | None:
        """Return what comes out of the last steps, if these forget what comes in; else None.

        Solved twice, from the first state of all and from one on the way. That proves nothing: what comes out of all
        steps is compared with it.
        """
        rec = self.recurrence
        if rec.length < MANY * LAST:
            return None
        first = rec.length - LAST
        found = self.solved(rec.initial, first=first)
        if not found.success:
            return None
        states = found._iterate.states
        other = self.solved(states[LAST // 2], first=first)
        ends = states[-1:], other._iterate.states[-1:]
        same = other.success and bool(found.tolerance.met(*ends, difference(ends[1], ends[0])).all())
        return states[-1] if same else None

    def joined(self, solution: Solution, before: Array) -> Solution | None:
        """Return a solution as one of the state that truly comes before it; None where its first step does not fit."""
        rec, states = solution.recurrence, solution._iterate.states
        if not len(states) or same_bits(rec.initial, before):
            return solution
        part, tolerance = self.part(before), solution.tolerance
        first = Evaluation(part.window(0, 1), tolerance, jacobian=False).evaluate(states[:1])
        if not first.done:
            return None
        kept, evaluation = solution._iterate, Evaluation(part, tolerance, jacobian=False)
        iterate: Any
        if isinstance(kept, Settled):
            iterate = Settled(evaluation, states, max(kept.worst, first.worst), kept.largest)
        else:
            with np.errstate(all="ignore"):
                iterate = evaluation.evaluate(states)
            if solution.success and not iterate.done:  # all steps at once may round otherwise than those before did
                return None
        residuals = [*solution.residuals[:-1], iterate.worst]
        return Solution(
            part, solution.solver, iterate, solution.status, residuals, solution.nit, solution.stats, solution._remark,
            solution._asked,
        )  # fmt: skip
