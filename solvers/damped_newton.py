"""Damped Newton: a fraction of the Newton step, found by backtracking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve.arrays import Array, namespace
from recsolve.solvers.base import Solver
from recsolve.solvers.problem import Iterate, Problem


def _merit(problem: Problem, iterate: Iterate, window: Array) -> Array:
    """Return the norm of the residual of each sequence over the window, (*batch); NaN counts as inf."""
    xp = namespace(iterate.residual)
    r = xp.where(window, iterate.residual, iterate.residual.dtype.type(0)).astype(np.float64)  # no overflow in r * r
    axes = (0, *range(1 + len(problem.recurrence.batch), r.ndim))
    norm = xp.sqrt((r * r).sum(axis=axes))
    return xp.where(xp.isnan(norm), norm.dtype.type(xp.inf), norm)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class DampedNewton(Solver):
    """h <- h + w (newton step), with w halved per sequence until the residual falls enough.

    The merit is the norm of the residual over the rows that are not exact yet: where the dynamics expand, a global
    norm is ruled by late rows that cannot be right before the early ones are. When every w is refused the pinned Newton
    step is taken, so that the front still advances.

    Parameters
    ----------
    shrink : float
        Factor on w after a refusal, in (0, 1).
    decrease : float
        c in the acceptance test merit(w) <= (1 - c w) merit(0), in (0, 1).
    trials : int
        How many values of w to try, at least 1.
    """

    name = "damped_newton"
    matrix = "J, with a backtracking line search"
    cite = "Dennis and Schnabel, Numerical Methods for Unconstrained Optimization (1983), section 6.3"
    finite_termination = False
    exact_on_affine = "all"

    shrink: float = 0.5
    decrease: float = 1e-4
    trials: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.shrink < 1:
            raise ValueError(f"shrink is {self.shrink}; wanted a number between 0 and 1")
        if not 0 < self.decrease < 1:
            raise ValueError(f"decrease is {self.decrease}; wanted a number between 0 and 1")
        if self.trials < 1:
            raise ValueError(f"trials is {self.trials}; wanted at least 1")

    def step(self, problem: Problem, iterate: Iterate, state: Any) -> tuple[Iterate, Any]:
        rec, xp = problem.recurrence, namespace(iterate.states)
        assert iterate.jacobian is not None
        window = rec.over_event(~iterate.leading)
        # 1. the full Newton step
        full = newton = problem.advance(iterate, problem.correct(iterate, iterate.jacobian))
        before, trial = _merit(problem, iterate, window), newton
        weight = xp.ones(rec.batch, dtype=rec.dtype)
        # 2. shrink the weight of the sequences that refuse it
        for _ in range(self.trials - 1):
            refused = ~(_merit(problem, trial, window) <= (1.0 - self.decrease * weight) * before)
            if not refused.any():
                return trial, state
            weight = xp.where(refused, self.shrink * weight, weight)
            trial = problem.advance(iterate, self._between(rec, iterate.states, newton.states, weight))
        # 3. sequences that refused every weight take the pinned Newton step
        refused = ~(_merit(problem, trial, window) <= (1.0 - self.decrease * weight) * before)
        if not refused.any():
            return trial, state
        return problem.evaluate(xp.where(self._spread(rec, refused), full.states, trial.states)), state

    @staticmethod
    def _spread(rec: Any, per_sequence: Array) -> Array:
        return per_sequence.reshape(per_sequence.shape + (1,) * len(rec.layout.event))

    def _between(self, rec: Any, states: Array, newton: Array, weight: Array) -> Array:
        """Return h + w (newton - h), and exactly the Newton point where w = 1."""
        w = self._spread(rec, weight)
        return namespace(states).where(w == 1, newton, states + w * (newton - states))  # type: ignore[no-any-return]
