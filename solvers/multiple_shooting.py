"""Multiple shooting: Newton's method for the states at the ends of blocks."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.base.arrays import Array
from recsolve.jacobians import Jacobian
from recsolve.solvers.blocks import BlockSolver
from recsolve.solvers.iterate import Linearised
from recsolve.solvers.problem import Problem


@dataclass(frozen=True, kw_only=True)
class MultipleShooting(BlockSolver[Linearised]):
    """U[n] <- F(U[n-1]) + A[n] (new U[n-1] - U[n-1]): F is a block of steps and A[n] its Jacobian.

    A[n] is the product of J[t] along the path from U[n-1]. On that path the residual is zero but at the ends, so that
    Newton's step of all rows is the step of the ends, in one scan. Then the rows inside follow f from the new ends.
    Blocks of one step are Newton's method.

    Parameters
    ----------
    block : int or None
        m, how many steps a block has, at least 1; None: about sqrt(T).

    Raises
    ------
    ValueError
        For another ``block``.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> u = np.random.default_rng(0).standard_normal((60, 1))
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 2 * np.sin(h) + u, inputs=u, initial=np.zeros(1), structure="diagonal")
    >>> rs.solve(rec, method=rs.solvers.MultipleShooting(block=10)).nit <= 6  # there are six blocks
    True
    """

    name = "multiple_shooting"
    place = 2
    matrix = "J along the paths inside blocks"
    cite = (
        "Keller, Numerical Methods for Two-Point Boundary-Value Problems (1968); in parallel over time: Bellen and "
        "Zennaro, J. Comput. Appl. Math. 25 (1989), Chartier and Philippe, Computing 51 (1993)"
    )
    exact_on_affine = "all"

    def correct(self, problem: Problem, iterate: Linearised, m: int, coarse: Jacobian | None) -> Array:
        return problem.correct(iterate, iterate.jacobian)
