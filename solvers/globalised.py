"""Steps that are accepted only if they improve the iterate: the base of the globalised methods."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Generic, TypeVar

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.solvers.iterate import Iterate, Linearised
from recsolve.solvers.method import Solver
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import number, whole_number
from recsolve.solvers.state import PerSequence, State

Shared = TypeVar("Shared")


@dataclass(frozen=True)
class Setting(State):
    """The weight or damping of every sequence, (1, *batch, 1...)."""

    value: PerSequence[Array]


@dataclass(frozen=True, kw_only=True)
class Globalised(Solver[Linearised, Setting], Generic[Shared]):
    """Propose a step; where the residual does not fall as predicted, change the setting and propose again.

    The merit (``Merit``) is the sum of r^2 over the rows that are not exact yet: where the dynamics expand, a
    global norm is ruled by late rows that cannot be right before the early ones are. The setting (a weight, a damping)
    and its acceptance are each sequence's own. Where every proposal is refused the pinned ``last_resort`` is taken, so
    that the front still advances, and the setting starts again.

    Parameters
    ----------
    trials : int
        How many proposals to make, at least 1.
    decrease : float
        The least share, in (0, 1), of the predicted fall of the merit with which a step is accepted.

    Raises
    ------
    ValueError
        For a number outside its bounds.

    Examples
    --------
    >>> import recsolve as rs
    >>> issubclass(rs.solvers.Elk, rs.solvers.globalised.Globalised), rs.solvers.Elk(trials=3).trials
    (True, 3)
    """

    group = "globalised"
    causal = False  # whether a step is accepted depends on late rows too
    setting: ClassVar[str]

    trials: int = 8
    decrease: float = 1e-4

    def __post_init__(self) -> None:
        whole_number("trials", self.trials, 1)
        number("decrease", self.decrease, 0, 1)

    @property
    @abstractmethod
    def first(self) -> float:
        """The setting to begin with."""

    @abstractmethod
    def begin(self, problem: Problem, iterate: Linearised) -> Shared:
        """Return the data that all proposals of an iteration share."""

    @abstractmethod
    def propose(self, problem: Problem, iterate: Linearised, shared: Shared, setting: Array) -> tuple[Array, Array]:
        """Return a proposal, and the share of the merit, (1, *batch, 1...), by which the model says that it falls."""

    @abstractmethod
    def after_refusal(self, setting: Array) -> Array:
        """Return the setting for the next trial."""

    @abstractmethod
    def after_step(self, setting: Array, ratio: Array) -> Array:
        """Return the setting for the next iteration, from the fall of the merit over the predicted one."""

    def unproven(self, setting: Array) -> Array:
        """Return whose steps are taken without proof: by default no sequence's."""
        return namespace(setting).zeros_like(setting, dtype=bool)  # type: ignore[no-any-return]

    def last_resort(self, problem: Problem, iterate: Linearised) -> Array:
        """Return the next states of sequences that refused every proposal: by default the pinned Newton point."""
        return problem.corrected(iterate, iterate.jacobian)

    def init(self, problem: Problem, iterate: Iterate) -> Setting:
        rec = problem.recurrence
        shape = (1, *rec.batch, *(1,) * len(rec.layout.event))
        return Setting(namespace(rec.initial).full(shape, self.first))

    def report(self, state: Setting) -> dict[str, Array]:
        return {self.setting: state.value}

    def step(self, problem: Problem, iterate: Linearised, state: Setting) -> tuple[Linearised, Setting]:
        xp, setting = namespace(iterate.states), state.value
        merit, shared = Merit.at(problem, iterate), self.begin(problem, iterate)
        before = merit.of(iterate.residual)
        settled = problem.total(~iterate.converged) == 0
        done = (before == 0) | problem.recurrence.over_event(settled) | self.unproven(setting)

        def attempt(setting: Array) -> tuple[Linearised, Array, Array]:
            proposal, predicted = self.propose(problem, iterate, shared, setting)
            candidate = problem.advance(iterate, proposal)
            fall = 1.0 - merit.of(candidate.residual) / before
            ratio = xp.where(done, 1.0, fall / predicted)
            return candidate, ratio, ~(ratio >= self.decrease)  # NaN refuses

        candidate, ratio, refused = attempt(setting)
        for _ in range(self.trials - 1):
            if not refused.any():
                break
            setting = xp.where(refused, self.after_refusal(setting), setting)
            candidate, ratio, refused = attempt(setting)
        if not refused.any():
            return candidate, Setting(self.after_step(setting, ratio))
        again = xp.where(refused, self.first, self.after_step(setting, ratio))
        merged = xp.where(refused, self.last_resort(problem, iterate), candidate.states)
        return problem.advance(iterate, merged), Setting(again)


@dataclass(frozen=True)
class Merit:
    """What a step is judged by: the sum of r^2 of each sequence over some rows, each component in its own units.

    Attributes
    ----------
    problem : Problem
    rows : array of bool
        The rows that count, over the event: not exact yet, and not behind one where f is not finite.
    units : array or None
        The size of each component, (1, *batch, *event); None for one component. In one unit for all, the output of an
        sLSTM would not be seen beside its normaliser.
    """

    problem: Problem
    rows: Array
    units: Array | None

    @classmethod
    def at(cls, problem: Problem, iterate: Iterate) -> Merit:
        """Return the merit of steps from an iterate."""
        xp, rec = namespace(iterate.values), problem.recurrence
        finite = xp.isfinite(iterate.values)
        sane = problem.leading(finite.all(axis=problem.event_axes))
        rows = rec.over_event(sane & ~iterate.leading)
        return cls(problem, rows, _units(problem, xp.where(finite, iterate.values, iterate.values.dtype.type(0))))

    def in_units(self, residual: Array) -> Array:
        """Return a residual with each component in its own units."""
        return residual if self.units is None else residual / self.units

    def of(self, residual: Array) -> Array:
        """Return the sum for a residual, (1, *batch, 1...) in float64; NaN counts as inf."""
        xp = namespace(residual)
        r = xp.where(self.rows, self.in_units(residual), residual.dtype.type(0))
        r = r.astype(np.float64)  # no overflow of float32 in r * r
        total = self.problem.total(r * r, self.problem.event_axes)
        return xp.where(xp.isnan(total), xp.inf, total)  # type: ignore[no-any-return]


def _units(problem: Problem, values: Array) -> Array | None:
    """Return the root mean square of every component over time, lanes and units; None for one component."""
    if problem.recurrence.layout.components == 1 or not problem.steps or 0 in values.shape[1:]:
        return None
    xp, component = namespace(values), problem.event_axes[0]
    others = problem.event_axes[1:]
    count = problem.steps * prod(values.shape[axis] for axis in others)
    size = xp.sqrt(problem.total(values.astype(np.float64) ** 2, others) / count)
    # What is next to nothing beside the others may be their rounding: it is not blown up to their size.
    size = xp.maximum(size, float(np.finfo(values.dtype).eps) ** 0.5 * size.max(axis=component, keepdims=True))
    size = xp.broadcast_to(xp.where(size > 0, size, 1.0).astype(values.dtype), (1, *values.shape[1:]))
    return xp.ascontiguousarray(size)  # type: ignore[no-any-return]
