"""The sequential loop: the oracle of every other method."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.base.arrays import Array
from recsolve.base.status import Status
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.engine import Verdict
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.method import Solver
from recsolve.solvers.problem import Problem
from recsolve.solvers.state import State


def loop(recurrence: Recurrence, *, known: Array | None = None, start: int = 0) -> Array:
    """Return h[t] = f(h[t-1], u[t]) step by step, keeping the rows of ``known`` before ``start``."""
    return recurrence.bind().walk(known, start)


@dataclass(frozen=True)
class Repeats(State):
    """How often the loop has been repeated, which can only repeat its result."""

    times: int = 0


@dataclass(frozen=True, kw_only=True)
class Sequential(Solver[Iterate, Repeats]):
    """h[1], h[2], ..., h[T], one after the other: the oracle of every other method. Its first iterate is the answer.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> sol = rs.solve(rec, method="sequential")
    >>> sol.nit, float(sol.residuals[-1]) < 1e-15
    (0, True)
    """

    name = "sequential"
    group = "reference"
    place = 1
    matrix = "none: one step after the other"
    cite = "the definition"
    finite_termination = True
    exact_on_affine = "all"

    def direct(self, problem: Problem) -> Verdict | None:
        return problem.engine.solve("walk", problem.tolerance)

    def start(self, problem: Problem) -> Iterate:
        problem.count_evaluation()
        return problem.excused(problem.evaluate(problem.engine.walk(), jacobian=False))

    def init(self, problem: Problem, iterate: Iterate) -> Repeats:
        return Repeats()

    def step(self, problem: Problem, iterate: Iterate, state: Repeats) -> tuple[Iterate, Repeats]:
        return self.start(problem), Repeats(state.times + 1)

    def terminate(self, problem: Problem, iterate: Iterate, state: Repeats) -> Status | None:
        return Status.STALLED if state.times else None
