"""Steps that must prove themselves: what the globalised methods share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from recsolve.arrays import Array, namespace
from recsolve.solvers.base import Solver
from recsolve.solvers.problem import Iterate, Problem


@dataclass(frozen=True, kw_only=True)
class Globalised(Solver):
    """Propose a step; where the residual does not fall as the model says, change the setting and propose again.

    The merit is the sum of r^2 over the rows that are not exact yet: where the dynamics expand, a global norm is ruled
    by late rows that cannot be right before the early ones are. The setting (a weight, a damping) and its acceptance
    are each sequence's own. Where every proposal is refused the pinned Newton step is taken, so that the front still
    advances, and the setting starts again.

    Parameters
    ----------
    trials : int
        How many proposals to make, at least 1.
    decrease : float
        The least share, in (0, 1), of the predicted fall of the merit with which a step is accepted.
    """

    group = "globalised"
    causal = False  # whether a step is accepted depends on late rows too
    needs_jacobian = True
    setting: ClassVar[str]

    trials: int = 8
    decrease: float = 1e-4

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"trials is {self.trials}; wanted at least 1")
        if not 0 < self.decrease < 1:
            raise ValueError(f"decrease is {self.decrease}; wanted a number between 0 and 1")

    @property
    @abstractmethod
    def first(self) -> float:
        """The setting to begin with."""

    def begin(self, problem: Problem, iterate: Iterate) -> Any:
        """Return what all proposals of an iteration share."""
        return None

    @abstractmethod
    def propose(self, problem: Problem, iterate: Iterate, shared: Any, setting: Array) -> tuple[Array, Array]:
        """Return a proposal, and the share of the merit, (1, *batch, 1...), by which the model says that it falls."""

    @abstractmethod
    def after_refusal(self, setting: Array) -> Array:
        """Return the setting for the next trial."""

    @abstractmethod
    def after_step(self, setting: Array, ratio: Array) -> Array:
        """Return the setting for the next iteration, from the fall of the merit over the predicted one."""

    def init(self, problem: Problem, iterate: Iterate) -> Array:
        """Return the setting of every sequence, (1, *batch, 1...)."""
        rec = problem.recurrence
        shape = (1, *rec.batch, *(1,) * len(rec.layout.event))
        return namespace(rec.initial).full(shape, self.first)  # type: ignore[no-any-return]

    def report(self, state: Any) -> dict[str, Array]:
        return {self.setting: state}

    def step(self, problem: Problem, iterate: Iterate, state: Any) -> tuple[Iterate, Any]:
        rec, xp, setting = problem.recurrence, namespace(iterate.states), state
        open_rows = rec.over_event(~iterate.leading)
        before, shared = merit(problem, iterate.residual, open_rows), self.begin(problem, iterate)
        for trial in range(self.trials):
            proposal, predicted = self.propose(problem, iterate, shared, setting)
            candidate = problem.advance(iterate, proposal)
            fall = 1.0 - merit(problem, candidate.residual, open_rows) / before
            ratio = xp.where(before == 0, 1.0, fall / predicted)
            refused = ~(ratio >= self.decrease)  # NaN refuses
            if not refused.any():
                return candidate, self.after_step(setting, ratio)
            if trial + 1 < self.trials:
                setting = xp.where(refused, self.after_refusal(setting), setting)
        assert iterate.jacobian is not None
        newton = problem.advance(iterate, problem.correct(iterate, iterate.jacobian))
        if not refused.all():
            merged = xp.where(refused, newton.states, candidate.states)
            newton = problem.evaluate(merged, pinned=problem.pinned(iterate))
        return newton, xp.where(refused, self.first, self.after_step(setting, ratio))


def merit(problem: Problem, residual: Array, open_rows: Array) -> Array:
    """Return the sum of r^2 of each sequence over the open rows, (1, *batch, 1...) in float64; NaN counts as inf."""
    xp = namespace(residual)
    r = xp.where(open_rows, residual, residual.dtype.type(0)).astype(np.float64)  # no overflow of float32 in r * r
    axes = (0, *range(1 + len(problem.recurrence.batch), r.ndim))
    total = (r * r).sum(axis=axes, keepdims=True)
    return xp.where(xp.isnan(total), xp.inf, total)  # type: ignore[no-any-return]
