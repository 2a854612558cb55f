"""The error that a trajectory's residual causes: what is stated of it, and whether that is small.

The residual in finer arithmetic, f - h without the rounding of f, is all that separates the states from the truth. To
first order its error e obeys e[t] = J[t] e[t-1] + r[t]: one scan, the next step of Newton's method. A second step, from
where the first one leads, shows what that order is worth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsolve.analysis.condition import condition
from recsolve.analysis.finer import Finer
from recsolve.base.arrays import Array, namespace, to_host
from recsolve.kernels.affine_scan import affine_scan
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.scale import sizes_of

SMALL = 1e-2  # of the size of states, an error up to which they are trusted
_LINEAR = 0.5  # of the first correction, what the second one may be
_NOISE = 1e4  # roundings


@dataclass(frozen=True)
class Estimate:
    """The error of a trajectory, to first order.

    Attributes
    ----------
    error : float
        max |e|, and what a second correction adds to it; inf where products of Jacobians overflow.
    relative : float
        The largest max |e| over max |h| of any that belong together: the units of a lane that couple, or a unit with
        its components, of one sequence at all t.
    linear : bool
        Whether the second correction is less than half as large as the first, so that first order is enough.
    """

    error: float
    relative: float
    linear: bool

    @property
    def small(self) -> bool:
        """Whether the states are within one percent."""
        return self.linear and self.relative <= SMALL


def estimate(recurrence: Recurrence, states: Array) -> Estimate:
    """Return an estimate of the error of a trajectory, from two evaluations of f and two scans.

    Where there is no finer arithmetic, the rounding of f counts as kappa eps max(1, ``recurrence.rounding``) max |h|,
    which it rarely comes near.

    Parameters
    ----------
    recurrence : Recurrence
    states : array, shape (T, *batch, *event)
        Native.

    Returns
    -------
    Estimate

    Raises
    ------
    TypeError
        As :meth:`recsolve.Recurrence.linearise`.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.analysis.trust import estimate
    >>> rec = rs.Recurrence.from_function(lambda h, u: 0.5 * h + u, inputs=np.ones((3, 1)), initial=np.zeros(1))
    >>> estimate(rec, np.array([[1.0], [1.5], [2.0]])).error
    0.25
    """
    if not states.size:
        return Estimate(0.0, 0.0, True)
    _, J = recurrence.linearise(states)
    cut, xp = recurrence.over_event(recurrence.starts), namespace(states)
    finer = Finer(recurrence)

    def correction(states: Array, values: Array) -> Array:
        return affine_scan(J, (values - states).astype(recurrence.dtype), reset=cut)

    with np.errstate(all="ignore"):
        values = finer.values(states)
        first = correction(states, values)
        moved = states.astype(values.dtype) + first
        second = correction(moved, finer.values(moved))
        size, e, rest = (sizes_of(recurrence, x) for x in (states, first, second))
        if finer.dtype == recurrence.dtype:
            rounding = condition(recurrence, states) * float(np.finfo(states.dtype).eps) * max(1.0, recurrence.rounding)
            e = e + rounding * size
        least = 4 * float(np.finfo(states.dtype).smallest_subnormal)
        noise = _NOISE * (float(np.finfo(values.dtype).eps) * size + least)  # which a second correction may be
        linear = (rest <= _LINEAR * e) | (rest <= noise)
        e = e + rest
        relative = xp.where(e <= least, 0.0, e / size)
        error, worst = (_finite(x.max()) for x in (e, relative))
    return Estimate(error, worst, bool(linear.all()))


def _finite(x: Array) -> float:
    found = float(to_host(x))
    return found if np.isfinite(found) else float("inf")
