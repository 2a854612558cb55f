"""Damped Newton: a fraction of the Newton step, found by backtracking or by the gain ratio."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.base.arrays import Array, namespace
from recsolve.solvers.globalised import Globalised
from recsolve.solvers.iterate import Linearised
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import number, one_of

RULES = ("backtracking", "gain_ratio")


@dataclass(frozen=True, kw_only=True)
class DampedNewton(Globalised[Array]):
    """h <- h + w (newton step), with a weight w in (0, 1] per sequence; where every w is refused, the plain step F.

    Parameters
    ----------
    rule : {"backtracking", "gain_ratio"}
        ``backtracking`` begins every iteration at w = 1. ``gain_ratio`` keeps w from one iteration to the next, doubles
        it where the merit falls nearly as the linear model says, and shrinks it where it falls much less.
    shrink : float
        Factor on w after a refusal, in (0, 1).
    decrease, trials
        See :class:`recsolve.solvers.globalised.Globalised`.

    Raises
    ------
    ValueError
        For another rule, or a number outside its bounds.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> u = np.random.default_rng(0).standard_normal((60, 1))
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 2 * np.sin(h) + u, inputs=u, initial=np.zeros(1), structure="diagonal")
    >>> sol = rs.solve(rec, method="damped_newton", options={"rule": "gain_ratio", "trace": True})
    >>> sol.success, sol.trace.settings["weight"].shape == (sol.nit + 1,)
    (True, True)
    """

    name = "damped_newton"
    place = 1
    matrix = "J, with a line search"
    cite = (
        "Dennis and Schnabel, Numerical Methods for Unconstrained Optimization (1983), sections 6.3 and 6.4; "
        "Deuflhard, Newton Methods for Nonlinear Problems (2004)"
    )
    finite_termination = False
    exact_on_affine = "all"
    setting = "weight"
    rowwise = True

    rule: str = "backtracking"
    shrink: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("rule", self.rule, RULES)
        number("shrink", self.shrink, 0, 1)

    @property
    def first(self) -> float:
        return 1.0

    def begin(self, problem: Problem, iterate: Linearised) -> Array:
        """Return the full Newton point."""
        return problem.corrected(iterate, iterate.jacobian)

    def propose(self, problem: Problem, iterate: Linearised, shared: Array, setting: Array) -> tuple[Array, Array]:
        w = setting.astype(iterate.states.dtype)
        # Exactly the Newton point where w = 1. The linear model leaves (1 - w) r of the residual.
        between = namespace(shared).where(w == 1, shared, iterate.states + w * (shared - iterate.states))
        return between, 1.0 - (1.0 - setting) ** 2

    def last_resort(self, problem: Problem, iterate: Linearised) -> Array:
        # Not the Newton point: it may be far out, where saturated gates carry it on with a small residual, as
        # trained GRUs do, and no line search finds back from there. f of sane states is sane.
        return problem.guarded(iterate, iterate.values)

    def after_refusal(self, setting: Array) -> Array:
        return self.shrink * setting

    def after_step(self, setting: Array, ratio: Array) -> Array:
        xp = namespace(setting)
        if self.rule == "backtracking":
            return xp.ones_like(setting)  # type: ignore[no-any-return]
        # The model, in which r goes down by the share w, is trusted as far as the merit confirms it.
        grown = xp.where(ratio > 0.75, xp.minimum(2.0 * setting, 1.0), setting)
        return xp.where(ratio < 0.25, self.shrink * setting, grown)  # type: ignore[no-any-return]
