"""Newton with successive over-relaxation: a fixed multiple of the Newton step."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.solvers.iterate import Linearised
from recsolve.solvers.method import Solver
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import number


@dataclass(frozen=True, kw_only=True)
class RelaxedNewton(Solver[Linearised, None]):
    """h <- (1 - omega) h + omega h_newton. Any omega but 1 gives up quadratic convergence and exactness.

    Parameters
    ----------
    omega : float
        In (0, 2).

    Raises
    ------
    ValueError
        For another omega.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> rs.solve(rec, method="relaxed_newton", options={"omega": 0.9}).nit > rs.solve(rec, method="newton").nit
    True
    """

    name = "relaxed_newton"
    group = "newton-type"
    place = 7
    matrix = "J, then a fixed multiple of the step"
    cite = "Danieli, Rodriguez, Sarabia, Suau, Zappella, ICLR 2026 (arXiv 2510.21450)"
    finite_termination = False
    exact_on_affine = "none"
    rowwise = True

    omega: float = 0.9

    def __post_init__(self) -> None:
        number("omega", self.omega, 0, 2)

    def step(self, problem: Problem, iterate: Linearised, state: None) -> tuple[Linearised, None]:
        return problem.move(iterate, iterate.jacobian, share=self.omega), state
