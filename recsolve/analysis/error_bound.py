"""A rigorous bound on the error of a trajectory, verified in parallel over windows of time.

Let d[t] be the distance of the states h[t] to the exact trajectory, or to the one that the sequential loop computes.
Suppose balls of radii rho[t] around h[t]. While d[t-1] <= rho[t-1], the mean value theorem gives

    d[t] <= |F[t] - h[t]| + |J[t]| d[t-1] + 2 defect[t],     F[t] = f(h[t-1], u[t]) as computed,

with J over the ball, and the rounding of f counted once for F and once for the loop. The solution e of the equality is
one scan. If e <= rho everywhere, then d <= e by induction on t; otherwise larger balls are tried. (Moore 1966; the
check that a ball maps into itself is Krawczyk's and Rump's.)

Matrices of absolute values forget cancellation, so |J| grows where J contracts. Where the matrices of lanes are small
enough to be formed, d is also bounded in moving frames: with A[t] Q[t-1] = Q[t] R[t], the coordinates z = Q^T d obey
z[t] = R[t] z[t-1] + ..., and products of the triangular |R| grow as the singular directions do, not as |A|
(Lohner 1987). Both hold, so the smaller one counts, entry by entry.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.analysis.enclosure import Enclosure, enclose
from recsolve.analysis.rounding import magnitude
from recsolve.base.arrays import Array, kind_of
from recsolve.base.layout import Layout
from recsolve.jacobians import Jacobian, LaneDense
from recsolve.kernels.affine_scan import affine_scan
from recsolve.recurrence.base import Recurrence

_ROUNDS = 30
_INFLATION = 2.0
_NUMBERS = 2**19  # in the Jacobian of a window, of which there are several at a time
_EPS = float(np.finfo(np.float64).eps)
_TINY = 1e-300  # added to every source; more than underflow can lose


def error_bound(recurrence: Recurrence, states: Array) -> float:
    """Return a bound on max |h - h of the exact recurrence|, or inf; see :attr:`recsolve.Solution.error_bound`.

    Parameters
    ----------
    recurrence : Recurrence
    states : array, shape (T, *batch, *event)
        Native.

    Returns
    -------
    float
        inf where nothing is proved: for states on a GPU or not finite, and for an f that intervals cannot follow.

    Notes
    -----
    Interval arithmetic: Moore, Kearfott and Cloud, "Introduction to Interval Analysis" (2009).

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.analysis.error_bound import error_bound
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 0.5 * np.sin(h) + u, inputs=np.ones((9, 1)), initial=np.zeros(1), structure="diagonal")
    >>> 0 < error_bound(rec, rs.solve(rec).states) < 1e-14
    True
    """
    if not states.size:
        return 0.0
    if kind_of(states) == "cupy" or not np.isfinite(states).all():
        return float("inf")
    with np.errstate(all="ignore"):
        try:
            return _verified(recurrence, states)
        except Exception:  # f is the user's own code, and may raise anything on intervals
            return float("inf")


def _verified(recurrence: Recurrence, states: Array) -> float:
    previous, starts = recurrence.previous(states), recurrence.over_event(recurrence.starts)
    distance = np.abs(recurrence.evaluate(states).astype(np.float64) - states) * (1 + _EPS)
    first: Any = enclose(recurrence.window(0, 1), previous[:1], np.zeros(states[:1].shape)).jacobian
    width = first.data.shape[-1] if isinstance(first, LaneDense) else 1
    rows = max(_NUMBERS * len(states) // (states.size * width), 1)
    largest, before = 0.0, None
    for start in range(0, len(states), rows):
        cut = slice(start, min(start + rows, len(states)))
        part = recurrence.window(cut.start, cut.stop)
        window = _Window(part, previous[cut], distance[cut], starts[cut], before)
        if not window.verify():
            return float("inf")
        largest, before = max(largest, float(window.e.max())), window
    return largest


class _Window:
    """Some steps; the window before bounds how far from the truth the first of them starts."""

    e: Array

    def __init__(self, recurrence: Recurrence, previous: Array, distance: Array, starts: Array, before: _Window | None):
        self.recurrence, self.previous, self.distance = recurrence, previous, distance
        self.starts = np.broadcast_to(starts, distance.shape)
        self.initial = np.zeros(distance.shape[1:]) if before is None else before.e[-1]
        centre = enclose(recurrence, previous, np.zeros(distance.shape))
        J: Any = centre.jacobian
        self.frames: _Frames | None = None
        if isinstance(centre.jacobian, LaneDense):
            self.frames = _Frames(J.data.centre, J.layout, None if before is None else before.frames)
        self.e = self._majorant(centre, np.zeros(distance.shape))

    def verify(self) -> bool:
        """Return whether balls are found that contain their own majorant, so that ``e`` is a bound."""
        for _ in range(_ROUNDS):
            if not np.isfinite(self.e).all():
                break
            rho = _INFLATION * self.e
            radius = np.where(self.starts, 0.0, np.concatenate([self.initial[None], rho[:-1]]))
            self.e = self._majorant(enclose(self.recurrence, self.previous, radius), radius)
            if (self.e <= rho).all():
                return True
        return False

    def _majorant(self, enclosure: Enclosure, radius: Array) -> Array:
        """Return e, given that the state before step t is within radius[t]."""
        J: Any = enclosure.jacobian
        source = (self.distance + 2.0 * enclosure.defect) * (1 + 4 * _EPS) + _TINY
        if self.frames is None:
            return _scan(J, source, self.initial, self.starts)
        layout: Layout = J.layout
        leading = source.shape[: source.ndim - len(self.recurrence.layout.event)]

        def vectors(x: Array) -> Array:
            return layout.lane_vectors(x.reshape(*leading[len(source.shape) - x.ndim :], *layout.event))

        matrices = LaneDense(magnitude(J.data), self.frames.layout)
        by_entry = _scan(matrices, vectors(source), vectors(self.initial), vectors(self.starts))
        by_frame = self.frames.majorant(J.data, vectors(source), vectors(radius), vectors(self.starts))
        return layout.from_lane_vectors(np.fmin(by_entry, by_frame)).reshape(source.shape)


class _Frames:
    """Moving frames along matrices A (T, *batch, *lanes, n, n).

    With Q^T Q = I + G, z = Q^T d and |(I + G)^-1 - I| <= gamma entry by entry, the exact z obeys
    |z[t]| <= |Q[t]^T A[t] Q[t-1]| (I + gamma 1) |z[t-1]| + |Q[t]^T| source, and |d| <= |Q| (I + gamma 1) |z|.
    """

    last: Array
    z: Array
    gamma: float

    def __init__(self, A: Array, layout: Layout, before: _Frames | None):
        n = A.shape[-1]
        self.A, self.layout = A, Layout(lanes=layout.lanes, units=n)
        Q, earlier = np.empty_like(A), np.empty_like(A)
        last = np.broadcast_to(np.eye(n), A.shape[1:]) if before is None else before.last
        self.initial = np.zeros(A.shape[1:-1]) if before is None else before.z[-1]
        for t in range(len(A)):
            earlier[t] = last
            last = Q[t] = np.linalg.qr(A[t] @ last)[0]
        self.last, self.Q = last, np.abs(Q)
        drift = np.abs(Q.swapaxes(-1, -2) @ Q - np.eye(n)).sum(axis=-1).max() + 2 * n * n * _EPS
        self.gamma = max(2 * drift if drift < 0.1 else np.inf, 0.0 if before is None else before.gamma)
        size = np.sqrt((A * A).sum(axis=(-2, -1), keepdims=True))
        R = np.abs(Q.swapaxes(-1, -2) @ (A @ earlier)) + 4 * n * n * _EPS * size  # |Q^T| |A| |Q| <= 2 ||A||
        self.R = R + self.gamma * R.sum(axis=-1, keepdims=True)

    def majorant(self, J: Any, source: Array, radius: Array, starts: Array) -> Array:
        """Return a bound on d for Jacobians anywhere in the interval J."""
        slack = 1 + 8 * self.A.shape[-1] * _EPS
        apart = np.maximum(J.upper - self.A, self.A - J.lower)
        full = (source + _apply(apart, radius) * slack) * slack
        self.z = _scan(LaneDense(self.R, self.layout), _apply(self.Q.swapaxes(-1, -2), full), self.initial, starts)
        d: Array = _apply(self.Q, self.z + self.gamma * self.z.sum(axis=-1, keepdims=True)) * slack * slack
        return d


def _apply(matrices: Array, x: Array) -> Array:
    return np.asarray(matrices @ x[..., None])[..., 0]


def _scan(J: Jacobian, source: Array, initial: Array, starts: Array) -> Array:
    """Return the solution of e[t] = |J[t]| e[t-1] + source[t], raised by a bound on the rounding of the scan.

    Everything is nonnegative, so errors are relative. No path through time rounds more than 2 T times (compositions and
    steps), each time in sums of a few times the width of a lane.
    """
    e = affine_scan(J, source, initial=initial, reset=starts)
    roundings = 2 * len(source) * (8 * J.layout.lane_width + 64)
    return e * (1 + 2 * roundings * _EPS)
