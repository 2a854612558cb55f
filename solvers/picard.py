"""Picard's iteration: A is the identity."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.jacobians import Jacobian
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.method import CorrectionSolver
from recsolve.solvers.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Picard(CorrectionSolver[Iterate]):
    """A[t] = I, so the correction is a prefix sum: good where h[t] stays near h[t-1], as in fine time steps.

    On a graph A is the mean over the parents of a node.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: h + 0.01 * (u - h), inputs=np.ones((60, 2)), initial=np.zeros(2), structure="diagonal")
    >>> rs.solve(rec, method="picard").nit < rs.solve(rec, method="jacobi").nit
    True
    """

    name = "picard"
    group = "fixed point"
    place = 2
    matrix = "I"
    cite = "Shih, Belkhale, Ermon, Sadigh, Anari, NeurIPS 2023 (arXiv 2305.16317)"
    finite_termination = True
    exact_on_affine = "none"

    def preconditioner(self, problem: Problem, iterate: Iterate) -> Jacobian:
        return problem.recurrence.unit(iterate.values)
