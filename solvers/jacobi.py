"""Jacobi's fixed-point iteration: A is zero."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.jacobians import Jacobian, Zero
from recsolve.recurrence.engine import Verdict
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.method import CorrectionSolver
from recsolve.solvers.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Jacobi(CorrectionSolver[Iterate]):
    """A[t] = 0, so h[t] <- f(h[t-1], u[t]) at every t: no scan, and the rate of the recurrence's own contraction.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> sol = rs.solve(rec, method="jacobi")
    >>> sol.success, sol.stats["njev"], sol.stats["nscan"]
    (True, 0, 0)
    """

    name = "jacobi"
    group = "fixed point"
    place = 1
    matrix = "0"
    cite = "Song, Meng, Liao, Ermon, ICML 2021 (arXiv 2002.03629)"
    finite_termination = True
    exact_on_affine = "none"

    def direct(self, problem: Problem) -> Verdict | None:
        return problem.engine.solve("jacobi", problem.tolerance)

    def preconditioner(self, problem: Problem, iterate: Iterate) -> Jacobian:
        return Zero(iterate.values, problem.recurrence.layout)
