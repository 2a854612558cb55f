"""Newton's method (DEER): A is the Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from recsolve.base.arguments import check_callable
from recsolve.jacobians import Jacobian
from recsolve.solvers.iterate import Iterate, Linearised
from recsolve.solvers.method import CorrectionSolver
from recsolve.solvers.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Newton(CorrectionSolver[Linearised]):
    """A[t] = J[t] = d f / d h at the iterate (DEER): quadratic near the solution, one update on affine recurrences.

    One scan of the Jacobian in its own structure per iteration: elementwise where units do not couple, n x n matrices
    where they do.

    Parameters
    ----------
    A : callable, optional
        ``A(problem, iterate)`` returns what stands in for J: a :class:`recsolve.jacobians.Jacobian`, in any structure,
        of the rows of the iterate. Rows that are solved are set aside: ``problem.index`` says which of (T, *batch) are
        left, ``problem.part_of(x)`` takes them from an array of all rows, and so does the driver from a Jacobian of
        all. ``problem.linearise(iterate)`` is J, which is not formed unless asked for.

    Raises
    ------
    TypeError
        For an A that is no callable; at the solve, for what is no Jacobian.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 0.9 * h + u, inputs=np.ones((60, 2)), initial=np.zeros(2), structure="diagonal")
    >>> rs.solve(rec, method="newton").nit  # f is affine
    1

    A map near f, whose derivative is known, stands in for a derivative that f has not:

    >>> u = np.random.default_rng(0).standard_normal((60, 4, 2))
    >>> rough = rs.Recurrence.from_function(
    ...     lambda h, u: 0.8 * np.tanh(h) + 0.01 * np.round(h, 1) + u, inputs=u, initial=np.zeros((4, 2)))
    >>> def smooth(problem, iterate):
    ...     previous = problem.recurrence.previous(iterate.states)
    ...     return rs.jacobians.Diagonal(0.8 / np.cosh(previous) ** 2, problem.recurrence.layout)
    >>> rs.solve(rough, method=rs.solvers.Newton(A=smooth)).success
    True
    """

    name = "newton"
    group = "newton-type"
    place = 1
    matrix = "J"
    cite = "Lim, Zhu, Selfridge, Kasim, ICLR 2024 (arXiv 2309.12252)"
    finite_termination = True
    exact_on_affine = "all"

    A: Callable[[Problem, Iterate], Jacobian] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.A is not None:
            check_callable("A", self.A, "A(problem, iterate)")
            object.__setattr__(self, "needs_jacobian", False)

    def preconditioner(self, problem: Problem, iterate: Linearised) -> Jacobian:
        return iterate.jacobian if self.A is None else problem.fitting(self.A(problem, iterate), "A")
