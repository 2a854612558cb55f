"""Newton's method (DEER): A is the Jacobian."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.jacobians import Jacobian
from recsolve.solvers.iterate import Linearised
from recsolve.solvers.method import CorrectionSolver
from recsolve.solvers.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Newton(CorrectionSolver[Linearised]):
    """A[t] = J[t] = d f / d h at the iterate (DEER): quadratic near the solution, one update on affine recurrences.

    One scan of the Jacobian in its own structure per iteration: elementwise where units do not couple, n x n matrices
    where they do.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 0.9 * h + u, inputs=np.ones((60, 2)), initial=np.zeros(2), structure="diagonal")
    >>> rs.solve(rec, method="newton").nit  # f is affine
    1
    """

    name = "newton"
    group = "newton-type"
    place = 1
    matrix = "J"
    cite = "Lim, Zhu, Selfridge, Kasim, ICLR 2024 (arXiv 2309.12252)"
    finite_termination = True
    exact_on_affine = "all"

    def preconditioner(self, problem: Problem, iterate: Linearised) -> Jacobian:
        return iterate.jacobian
