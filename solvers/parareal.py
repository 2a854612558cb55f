"""Parareal: a cheap map carries corrections from block to block."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.base.arrays import Array, namespace
from recsolve.jacobians import Jacobian
from recsolve.solvers.blocks import BlockSolver, CoarseLevel, Level, Map, block_ends, one_step
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import one_of

COARSE = ("frozen", "subsample")


@dataclass(frozen=True, kw_only=True)
class Parareal(BlockSolver[Iterate]):
    """U[n] <- F(U[n-1]) + G(new U[n-1]) - G(U[n-1]): F is a block of steps, G a cheap map in its place.

    An iteration makes one more block exact, whatever G is; a good G ends sooner.

    Parameters
    ----------
    block : int or None
        m, how many steps a block has; None: about sqrt(T).
    coarse : {"frozen", "subsample"} or callable
        G. ``frozen`` is affine: the product over the block of the k x k blocks of J per unit (its diagonal when k = 1),
        at the first path; all blocks are corrected in one scan. ``subsample``, which is also taken where f has no
        derivative, is one step of f with the last drive of the block. A callable ``coarse(ends, previous)`` gets the
        recurrence of the last steps of some blocks and the states (blocks, *batch, *event) before these blocks, and
        returns states in their place: ``lambda ends, h: ends.apply(ends.apply(h))`` is two such steps. With both, block
        follows block.

    Raises
    ------
    ValueError
        For another ``block`` or ``coarse``, and where a callable returns another shape or dtype than it was given.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 0.9 * h + u, inputs=np.ones((60, 2)), initial=np.zeros(2), structure="diagonal")
    >>> rs.solve(rec, method="parareal").nit  # f is affine and units do not couple: G is F
    1
    """

    name = "parareal"
    place = 3
    matrix = "a cheap map over each block"
    cite = "Lions, Maday, Turinici, C. R. Acad. Sci. Paris I 332 (2001)"
    exact_on_affine = "per-unit"

    coarse: str | Map = "frozen"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("coarse", self.coarse, COARSE, or_callable=True)

    @property
    def phi(self) -> Map:
        """G, where it is not affine."""
        return self.coarse if callable(self.coarse) else one_step

    def solve(self, level: CoarseLevel, m: int) -> Array:
        """Return the corrected ends."""
        return level.in_order()

    def remember(self, problem: Problem, iterate: Iterate) -> Jacobian | None:
        frozen = self.coarse == "frozen" and problem.recurrence.takes("newton")
        return problem.linearise(iterate).block() if frozen else None

    def correct(self, problem: Problem, iterate: Iterate, m: int, coarse: Jacobian | None) -> Array:
        if coarse is not None:
            return problem.correct(iterate, coarse)  # the residual is zero inside blocks: products come of themselves
        fine, rows = Level(problem, problem.recurrence, one_step), block_ends(problem.recurrence.length, m)
        ends = namespace(iterate.values).array(iterate.values)
        ends[rows] = self.solve(fine.coarsen(self.phi, m, iterate.states, iterate.values[rows]), m)
        return ends  # type: ignore[no-any-return]
