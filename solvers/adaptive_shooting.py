"""Multiple shooting that lengthens its blocks where the residual does not fall: a globalisation that never stalls."""

from __future__ import annotations

from dataclasses import dataclass, replace

from recsolve.base.arrays import Array, namespace
from recsolve.solvers.blocks import Blocks, block_ends, sweep
from recsolve.solvers.globalised import Merit
from recsolve.solvers.iterate import Linearised
from recsolve.solvers.multiple_shooting import MultipleShooting
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import number


@dataclass(frozen=True, kw_only=True)
class AdaptiveShooting(MultipleShooting):
    """Newton's step for the ends of blocks, with blocks of twice the length whenever the merit does not fall enough.

    A line search takes a part of a Newton step whose linear model was wrong. Here the model is made better: f itself is
    followed for longer, and Newton carries corrections over fewer ends. The merit is the sum of r^2 over rows that are
    not exact yet. A step that raises it is taken back in that sequence; whenever it falls to more than the share
    ``fall``, blocks are doubled, and paths follow f from the ends that are left. A block of all T steps is the loop:
    whatever f is, at most log2(T) doublings are followed by the exact answer, after about 2 T dependent steps.

    Parameters
    ----------
    block : int or None
        How many steps a block has at first, at least 1; None: about sqrt(T).
    fall : float
        In (0, 1).

    Raises
    ------
    ValueError
        For another ``block`` or ``fall``.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> u = np.random.default_rng(0).standard_normal((300, 1))
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 3 * np.sin(h) + u, inputs=u, initial=np.zeros(1), structure="diagonal")
    >>> rs.solve(rec, method="adaptive_shooting").nit < rs.solve(rec, method="multiple_shooting").nit
    True
    """

    name = "adaptive_shooting"
    group = "globalised"
    place = 0
    matrix = "J along the paths inside blocks that lengthen"
    cite = (
        "this project; shooting in blocks as multiple_shooting; why lifted steps contract where Newton's do not: "
        "Albersmeyer and Diehl, SIAM J. Optim. 20 (2010)"
    )
    causal = False  # how long blocks are depends on late rows too

    fall: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        number("fall", self.fall, 0, 1)

    def step(self, problem: Problem, iterate: Linearised, state: Blocks) -> tuple[Linearised, Blocks]:
        rec, merit = problem.recurrence, Merit.at(problem, iterate)
        if state.steps >= rec.length:
            return self._loop(problem, iterate), state
        moved, state = super().step(problem, iterate, state)
        before, after = merit.of(iterate.residual), merit.of(moved.residual)
        settled: Array = moved.converged.all(axis=0, keepdims=True)  # type: ignore[assignment]
        if bool(((after <= self.fall * before) | rec.over_event(settled)).all()):
            return moved, state
        longer = replace(state, steps=min(2 * state.steps, rec.length))
        if longer.steps == rec.length:
            return self._loop(problem, iterate), longer
        kept = namespace(before).where(after <= before, moved.states, iterate.states)
        followed = sweep(problem, kept, longer.steps, block_ends(rec.length, longer.steps).start)
        return problem.advance(iterate, followed), longer

    @staticmethod
    def _loop(problem: Problem, iterate: Linearised) -> Linearised:
        """Return the path of a single block: no end is left to correct, and nothing to guard."""
        problem.count_evaluation()
        return problem.evaluate(problem.engine.walk(iterate.states, iterate.leading_times), jacobian=True)
