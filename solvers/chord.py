"""The chord method: Newton with a Jacobian that is kept."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.jacobians import Jacobian
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.method import Solver
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import whole_number
from recsolve.solvers.state import PerRow, State


@dataclass(frozen=True)
class Kept(State):
    """The Jacobian in use, None before the first step, and how many steps it has been used for."""

    jacobian: PerRow[Jacobian | None] = None
    age: int = 0


@dataclass(frozen=True, kw_only=True)
class Chord(Solver[Iterate, Kept]):
    """A[t] = J[t] of an earlier iterate: linear convergence, but linearised only now and then.

    Parameters
    ----------
    refresh : int or None
        The number of steps after which to linearise again, at least 1; None keeps the first Jacobian.

    Raises
    ------
    ValueError
        For another ``refresh``.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> sol = rs.solve(rec, method="chord")
    >>> sol.success, sol.stats["njev"]
    (True, 1)
    """

    name = "chord"
    group = "newton-type"
    place = 4
    matrix = "J of an earlier iterate"
    cite = "Ortega and Rheinboldt, Iterative Solution of Nonlinear Equations in Several Variables (1970), section 7.1"
    finite_termination = True
    exact_on_affine = "all"
    rowwise = True

    refresh: int | None = None

    def __post_init__(self) -> None:
        whole_number("refresh", self.refresh, 1, optional=True)

    def init(self, problem: Problem, iterate: Iterate) -> Kept:
        return Kept()

    def step(self, problem: Problem, iterate: Iterate, state: Kept) -> tuple[Iterate, Kept]:
        A, age = state.jacobian, state.age
        if A is None or age == self.refresh:
            A, age = problem.linearise(iterate), 0
        return problem.move(iterate, A), Kept(A, age + 1)
