"""MGRIT: multigrid over time, parareal with more relaxation and more levels."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.base.arrays import Array
from recsolve.solvers.blocks import Blocks, CoarseLevel, block_ends, steps_per_block, sweep
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.parareal import Parareal
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import one_of, whole_number


@dataclass(frozen=True, kw_only=True)
class MGRIT(Parareal):
    """V[n] = G(V[n-1]) + F(U[n-1]) - G(U[n-1]) at the ends of blocks, solved by the same on blocks of blocks.

    F-relaxation follows f inside blocks from their ends, the C-points; FCF then moves the ends on by f and follows
    again. A cycle relaxes, corrects the ends from the next coarser level, and follows from them. Two levels with F are
    parareal; FCF makes two more blocks exact in an iteration.

    Parameters
    ----------
    block : int or None
        m, the steps of a block, on every level; None: about T^(1/levels).
    coarse : {"frozen", "subsample"} or callable
        G, as of parareal, from each level to the next. Products compose, so for the affine ``frozen`` one scan is what
        any number of levels give.
    relaxation : {"FCF", "F"}
    levels : int
        At least 2; the coarsest is solved one block after the other.

    Raises
    ------
    ValueError
        For another setting, and where a callable returns another shape or dtype than it was given.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> mgrit = rs.solvers.MGRIT(block=5, coarse="subsample", levels=2)
    >>> rs.solve(rec, method=mgrit).nit <= 6  # two of the twelve blocks become exact in an iteration
    True
    """

    name = "mgrit"
    place = 4
    matrix = "a cheap map over each block, and blocks of blocks"
    cite = "Falgout, Friedhoff, Kolev, MacLachlan, Schroder, SIAM J. Sci. Comput. 36 (2014)"

    relaxation: str = "FCF"
    levels: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("relaxation", self.relaxation, ("F", "FCF"))
        whole_number("levels", self.levels, 2)

    def init(self, problem: Problem, iterate: Iterate) -> Blocks:
        return Blocks(steps_per_block(self.block, problem.recurrence.length, self.levels))

    def relax(self, problem: Problem, iterate: Iterate, m: int) -> Iterate:
        """Return the path after CF-relaxation, if that is set: ends move on by f, and the rows inside follow."""
        if self.relaxation == "F":
            return iterate
        keep = block_ends(problem.recurrence.length, m).start
        return problem.advance(iterate, sweep(problem, iterate.values, m, keep))

    def solve(self, level: CoarseLevel, m: int) -> Array:
        return self._cycle(level, m, self.levels - 1)

    def _cycle(self, level: CoarseLevel, m: int, levels: int) -> Array:
        """Return the states of a level after one cycle from those known."""
        length = level.recurrence.length
        if levels == 1 or length <= 1:
            return level.in_order()
        rows = block_ends(length, m)
        # 1. relax
        x = level.follow(level.known, m, rows.start)
        if self.relaxation == "FCF":
            x[rows] = level.at(x, rows)
            x = level.follow(x, m, rows.start)
        # 2. correct the ends of blocks from the next level
        x[rows] = self._cycle(level.coarsen(self.phi, m, x, level.at(x, rows)), m, levels - 1)
        # 3. follow from them
        return level.follow(x, m, rows.start)
