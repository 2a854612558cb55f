"""Tolerances: one place, derived from the dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve.arrays import Array, namespace

# A trajectory is trusted when an error of one tolerance in every step may grow to at most this.
TRUSTED = 1e-2


def default_tol(dtype: Any, rounding: float = 1.0) -> float:
    """Return 4 eps max(1, rounding), used as both atol and rtol.

    Without coupling that makes |r| <= 8 eps max(1, |h|, |F|), a few units in the last place: the floor that rounding
    leaves. ``rounding`` says how much larger the rounding of f itself is (``Recurrence.rounding``).
    """
    return 4 * float(np.finfo(dtype).eps) * max(1.0, rounding)


@dataclass(frozen=True)
class Tolerance:
    """The elementwise test |r| <= atol + rtol max(|h|, |F|), failed by NaN and inf."""

    atol: float
    rtol: float

    def met(self, states: Array, values: Array, residual: Array) -> Array:
        """Return where the test holds, entry by entry."""
        xp = namespace(states)
        bound = self.atol + self.rtol * xp.maximum(xp.abs(states), xp.abs(values))
        return (xp.abs(residual) <= bound) & xp.isfinite(residual)  # type: ignore[no-any-return]


def error_bound(tol: float, dtype: Any, magnitude: float, condition: float) -> float:
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
