"""Newton with a Jacobian made smaller: scaled towards zero, or clipped to the unit interval."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.jacobians import Jacobian
from recsolve.solvers.iterate import Linearised
from recsolve.solvers.method import CorrectionSolver
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import number

_PAPER = "Gonzalez, Kozachkov, Zoltowski, Clarkson, Linderman, NeurIPS 2025 (arXiv 2508.16817)"


@dataclass(frozen=True, kw_only=True)
class ScaledNewton(CorrectionSolver[Linearised]):
    """A[t] = (1 - k) J[t]: Newton at k = 0, Jacobi at k = 1, in between the scan damps what the dynamics amplify.

    Parameters
    ----------
    k : float
        In [0, 1].

    Raises
    ------
    ValueError
        For another k.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> rs.solve(rec, method="scaled_newton", options={"k": 0.0}).nit == rs.solve(rec, method="newton").nit
    True
    """

    name = "scaled_newton"
    group = "newton-type"
    place = 5
    matrix = "(1 - k) J"
    cite = _PAPER
    finite_termination = True
    exact_on_affine = "none"

    k: float = 0.2

    def __post_init__(self) -> None:
        number("k", self.k, 0, 1, closed=True)

    def preconditioner(self, problem: Problem, iterate: Linearised) -> Jacobian:
        return iterate.jacobian.scale(1.0 - self.k)


@dataclass(frozen=True, kw_only=True)
class ClippedNewton(CorrectionSolver[Linearised]):
    """A[t] = the diagonal of J[t] clipped to [-1, 1], so that no scan can explode.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> u = np.random.default_rng(0).standard_normal((60, 1))
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 2 * np.sin(h) + u, inputs=u, initial=np.zeros(1), structure="diagonal")
    >>> rs.solve(rec, method="clipped_newton").success
    True
    """

    name = "clipped_newton"
    group = "newton-type"
    place = 6
    matrix = "diagonal of J, clipped to [-1, 1]"
    cite = _PAPER
    finite_termination = True
    exact_on_affine = "none"

    def preconditioner(self, problem: Problem, iterate: Linearised) -> Jacobian:
        return iterate.jacobian.diagonal().clip(-1.0, 1.0)
