"""Quasi-Newton (quasi-DEER): A is the part of the Jacobian within each unit."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.solvers.base import CorrectionSolver
from recsolve.solvers.problem import Iterate, Problem

from recsolve.jacobians import Jacobian


@dataclass(frozen=True, kw_only=True)
class QuasiNewton(CorrectionSolver):
    """A[t] = the k x k block of each unit (the diagonal when k = 1): work linear in the width of the state."""

    name = "quasi_newton"
    matrix = "k x k block of J per unit"
    cite = "Gonzalez, Warrington, Smith, Linderman, NeurIPS 2024 (arXiv 2407.19115)"
    finite_termination = True
    exact_on_affine = "per-unit"

    def preconditioner(self, problem: Problem, iterate: Iterate) -> Jacobian:
        assert iterate.jacobian is not None
        return iterate.jacobian.block()
