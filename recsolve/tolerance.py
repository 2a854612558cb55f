"""Tolerances: one place, derived from the dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.arrays import Array, namespace
from recsolve.layout import Layout

if TYPE_CHECKING:
    from recsolve.recurrence import Recurrence

# A trajectory is trusted when an error of one tolerance in every step may grow to at most this.
TRUSTED = 1e-2


# However large the weights, the default tolerance stays below this many eps.
_MOST = 64


def default_tol(dtype: Any, rounding: float = 1.0) -> float:
    """Return 4 eps max(1, rounding), at most 64 eps, used as both atol and rtol.

    Without coupling that makes |r| <= 8 eps max(1, |h|, |F|), a few units in the last place: the floor that rounding
    leaves. ``rounding`` says how much larger the rounding of f itself is (``Recurrence.rounding``).
    """
    return min(4 * max(1.0, rounding), _MOST) * float(np.finfo(dtype).eps)


@dataclass(frozen=True)
class Tolerance:
    """The elementwise test |r| <= atol + rtol max(|h|, |F|), failed by NaN and inf.

    Attributes
    ----------
    atol, rtol : float
    lanes : Layout or None
        When given, atol counts in units of max(1, largest |h| and |F| of the lane at that time). So it is by default
        where units couple: the sums inside f then round in proportion to the largest unit, and a small one cannot be
        better than that. A tolerance that the user gives is taken as it is.
    """

    atol: float
    rtol: float
    lanes: Layout | None = None

    def met(self, states: Array, values: Array, residual: Array) -> Array:
        """Return where the test holds, entry by entry."""
        xp = namespace(states)
        size = xp.maximum(xp.abs(states), xp.abs(values))
        bound = self.atol * self._unit(size) + self.rtol * size
        return (xp.abs(residual) <= bound) & xp.isfinite(residual)  # type: ignore[no-any-return]

    def _unit(self, size: Array) -> Any:
        if self.lanes is None or not size.size:
            return 1.0
        axes = (-1,) if self.lanes.components == 1 else (self.lanes.component_axis, -1)
        return namespace(size).maximum(size.max(axis=axes, keepdims=True), 1)


def tolerance_for(recurrence: Recurrence, tol: float | None = None) -> Tolerance:
    """Return the test that a solve uses: ``tol`` as it is, or the default of the recurrence."""
    if tol is not None:
        return Tolerance(tol, tol)
    base = default_tol(recurrence.dtype, recurrence.rounding)
    return Tolerance(base, base, recurrence.layout if recurrence.rounding > 0 else None)


def agreement(tol: float, dtype: Any, magnitude: float, condition: float) -> float:
    """Return 30 (tol + u max|h|) kappa, within which two converged trajectories agree.

    Parameters
    ----------
    tol : float
        The residual tolerance of both.
    dtype : dtype
        Its rounding unit is u = eps / 2.
    magnitude : float
        max|h|.
    condition : float
        kappa, the conditioning of the bidiagonal system.
    """
    return 30.0 * (tol * max(1.0, magnitude) + 0.5 * float(np.finfo(dtype).eps) * magnitude) * condition
