"""The sequential loop: the oracle of every other method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recsolve.arrays import Array, empty_in_order
from recsolve.recurrence import Recurrence
from recsolve.solvers.base import Solver
from recsolve.solvers.problem import Iterate, Problem
from recsolve.status import Status


def loop(recurrence: Recurrence, *, known: Array | None = None, start: int = 0) -> Array:
    """Return h[t] = f(h[t-1], u[t]) step by step, keeping the rows of ``known`` before ``start``."""
    states = empty_in_order(recurrence.shape, recurrence.drive_like, 1 + len(recurrence.batch))
    if known is not None:
        states[:start] = known[:start]
    recurrence.follow(states, start)
    return states


@dataclass(frozen=True, kw_only=True)
class Sequential(Solver):
    """h[1], h[2], ..., h[T], one after the other. Its first iterate is the answer."""

    name = "sequential"
    group = "reference"
    place = 1
    matrix = "none: one step after the other"
    cite = "the definition"
    finite_termination = True
    exact_on_affine = "all"
    needs_jacobian = False

    def start(self, problem: Problem) -> Iterate:
        problem.count_evaluation()
        return problem.evaluate(loop(problem.recurrence))

    def init(self, problem: Problem, iterate: Iterate) -> int:
        """Return how often the loop has been asked for: a second time could only repeat the first."""
        return 0

    def step(self, problem: Problem, iterate: Iterate, state: Any) -> tuple[Iterate, Any]:
        return self.start(problem), state + 1

    def terminate(self, problem: Problem, iterate: Iterate, state: Any) -> Status | None:
        return Status.STALLED if state else None
