"""The error that a trajectory's residual causes: what is stated of it, and whether that is small.

The residual in finer arithmetic, f - h without the rounding of f, is all that separates the states from the truth. To
first order its error e obeys e[t] = J[t] e[t-1] + r[t]: one scan, the next step of Newton's method. A second step, from
where the first one leads, shows what that order is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve.analysis.condition import DIAGONAL, condition, growth
from recsolve.analysis.finer import Finer
from recsolve.analysis.structure_truth import Verification
from recsolve.base.arrays import Array, namespace, to_host
from recsolve.jacobians import Jacobian
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


def not_trusted(derivative: Verification, found: Estimate) -> str:
    """Return why states that meet their test are not trusted, as the end of a sentence."""
    if not derivative.holds:
        return f"but it is not trusted: {derivative.reason}"
    off = f"about {found.error:.1e}" if found.linear and np.isfinite(found.error) else "more than is known"
    return f"but it is not trusted: states may be off by {off} although their residual is small"


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
    cut, finer = recurrence.over_event(recurrence.starts), Finer(recurrence)
    return estimate_together(
        [recurrence],
        [states],
        lambda states: [finer.values(states[0])],
        lambda residuals: [affine_scan(J, residuals[0], reset=cut)],
        lambda: condition(recurrence, states),
    )


def estimate_together(
    recurrences: Sequence[Recurrence],
    states: Sequence[Array],
    values: Callable[[Sequence[Array]], Sequence[Array]],
    correction: Callable[[Sequence[Array]], Sequence[Array]],
    kappa: Callable[[], float],
    sizes: Callable[[Recurrence, Array], Array] = sizes_of,
) -> Estimate:
    """Return an estimate of the error of trajectories that feed each other, as :func:`estimate` does of one.

    Parameters
    ----------
    recurrences : sequence of Recurrence
    states : sequence of arrays, each (T, *batch, *event)
        Native, not empty.
    values : callable
        Returns f of each at some states of all, in finer arithmetic where there is one.
    correction : callable
        Returns the solution of the linearised system for a residual of each, in their dtype.
    kappa : callable
        Returns the conditioning of the system; called where there is no finer arithmetic.
    sizes : callable
        As :func:`recsolve.recurrence.scale.sizes_of`, of trajectories of which other parts are elsewhere.

    Returns
    -------
    Estimate
        Of all together: the largest numbers of any.
    """
    with np.errstate(all="ignore"):
        found = values(states)
        first = correction([_left(*part) for part in zip(recurrences, found, states, strict=True)])
        moved = [h.astype(f.dtype) + e for h, f, e in zip(states, found, first, strict=True)]
        again = values(moved)
        second = correction([_left(*part) for part in zip(recurrences, again, moved, strict=True)])
        parts = zip(recurrences, again, states, first, second, strict=True)
        each = [_judged(rec, f.dtype, kappa, *(sizes(rec, x) for x in sized)) for rec, f, *sized in parts]
    return Estimate(max(e.error for e in each), max(e.relative for e in each), all(e.linear for e in each))


class EstimateInOrder:
    """The estimate of the error of a trajectory that is shown window after window: errors of one enter the next.

    Parameters
    ----------
    recurrence : Recurrence
        The whole.

    Attributes
    ----------
    condition : float
        kappa of the windows so far; NaN where J is not diagonal.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.analysis.trust import EstimateInOrder
    >>> rec = rs.Recurrence.from_function(lambda h, u: 0.5 * h + u, inputs=np.ones((3, 1)), initial=np.zeros(1))
    >>> states, running = np.array([[1.0], [1.5], [2.0]]), EstimateInOrder(rec)
    >>> for start, stop in (0, 1), (1, 3):
    ...     running.add(rec.between(start, stop, states), states[start:stop])
    >>> running.estimate.error
    0.25
    """

    def __init__(self, recurrence: Recurrence):
        self._whole, self._dtype = recurrence, Finer(recurrence).dtype
        self.condition = 1.0
        self._sizes: tuple[Array, ...] | None = None  # of states, of first and of second corrections
        self._ends: tuple[Array, Array, Array] | None = None  # both corrections and the corrected state, at the end
        self._kappa: Array | None = None

    def add(self, recurrence: Recurrence, states: Array) -> None:
        """Look at the next window: its recurrence, from the last state of the one before, and its states."""
        if not states.size:
            return
        finer, ends = Finer(recurrence), self._ends
        finer.dtype = self._dtype
        before, more, state = (None, None, None) if ends is None else ends
        with np.errstate(all="ignore"):
            _, J = recurrence.linearise(states)
            cut = self._cut(recurrence)
            first = affine_scan(J, _left(recurrence, finer.values(states), states), initial=before, reset=cut)
            moved = states.astype(finer.dtype) + first
            left = _left(recurrence, finer.values(moved, before=state), moved)
            second = affine_scan(J, left, initial=more, reset=cut)
            sizes = tuple(sizes_of(recurrence, x) for x in (states, first, second))
            self._grow(J, cut)
        known = sizes if self._sizes is None else self._sizes
        self._sizes = tuple(namespace(a).maximum(a, b) for a, b in zip(sizes, known, strict=True))
        self._ends, self._dtype = (first[-1], second[-1], moved[-1]), finer.dtype

    def _cut(self, recurrence: Recurrence) -> Array | None:
        """Return the steps that do not see the one before, be it of the window before."""
        mask = recurrence.starts if self._ends is None else recurrence.reset
        return None if mask is None else recurrence.over_event(mask)

    def _grow(self, J: Jacobian, cut: Array | None) -> None:
        if type(J) not in DIAGONAL or np.isnan(self.condition):
            self.condition = float("nan")
            return
        kappa = growth(J, cut, self._kappa)
        self._kappa, self.condition = kappa[-1], max(self.condition, _finite(kappa.max()))

    @property
    def estimate(self) -> Estimate:
        """The estimate of all that was shown."""
        if self._sizes is None:
            return Estimate(0.0, 0.0, True)
        with np.errstate(all="ignore"):
            return _judged(self._whole, self._dtype, lambda: self.condition, *self._sizes)


def _left(recurrence: Recurrence, values: Array, states: Array) -> Array:
    return (values - states).astype(recurrence.dtype)


def _judged(
    recurrence: Recurrence, finer: Any, kappa: Callable[[], float], size: Array, e: Array, rest: Array
) -> Estimate:
    """Return the estimate from the sizes of states, of a first and of a second correction, with f in a finer dtype."""
    eps = float(np.finfo(recurrence.dtype).eps)
    if finer == recurrence.dtype:
        e = e + kappa() * eps * max(1.0, recurrence.rounding) * size
    least = 4 * float(np.finfo(recurrence.dtype).smallest_subnormal)
    noise = _NOISE * (float(np.finfo(finer).eps) * size + least)  # which a second correction may be
    linear = (rest <= _LINEAR * e) | (rest <= noise)
    e = e + rest
    relative = namespace(e).where(e <= least, 0.0, e / size)
    return Estimate(_finite(e.max()), _finite(relative.max()), bool(linear.all()))


def _finite(x: Array) -> float:
    found = float(to_host(x))
    return found if np.isfinite(found) else float("inf")
