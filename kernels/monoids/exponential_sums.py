"""What the monoids of running sums of exponentials share: weights beside a maximum, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.base.ties import at_tie
from recsolve.jacobians import Jacobian
from recsolve.jacobians.jacobian import Entries


def weight(m: Array, greatest: Array) -> Array:
    """Return e^(m - greatest), selected to 1 for equals because inf - inf is NaN."""
    return namespace(m).where(m == greatest, m.dtype.type(1), np.exp(m - greatest))  # type: ignore[no-any-return]


def joined(m: Array, sums: Array) -> Array:
    """Return states (..., 1 + d), the maximum before the sums."""
    return namespace(m).concatenate([m[..., None], sums], axis=-1)  # type: ignore[no-any-return]


class Arrow(Entries):
    """The matrix [[p, 0], [q, w I]] on a maximum and the sums after it, entries (p, w, q) on the last axis.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.base.layout import Layout
    >>> Arrow(np.array([[0.0, 0.5, 2.0, 3.0]]), Layout(units=3)).matvec(np.array([[1.0, 10.0, 20.0]]))
    array([[ 0.,  7., 13.]])
    """

    rank, composable = 5, True

    @property
    def _event(self) -> tuple[int, ...]:
        return (self.layout.event[0] + 1,)

    @property
    def leading(self) -> tuple[int, ...]:
        return tuple(self.data.shape[:-1])

    def _parts(self) -> tuple[Array, Array, Array]:
        return self.data[..., :1], self.data[..., 1:2], self.data[..., 2:]

    def matvec(self, v: Array) -> Array:
        p, w, q = self._parts()
        return _row(p * v[..., :1], w * v[..., 1:] + q * v[..., :1])

    def transpose(self) -> Jacobian:
        return TransposedArrow(self.data, self.layout)

    def _product(self, earlier: Arrow) -> Jacobian:
        (p, w, q), (before, also, column) = self._parts(), earlier._parts()
        return Arrow(_row(p * before, w * also, q * before + w * column), self.layout)


class TransposedArrow(Arrow):
    """The matrix [[p, q^T], [0, w I]], entries (p, w, q) on the last axis."""

    rank, composable = 5, True

    def matvec(self, v: Array) -> Array:
        p, w, q = self._parts()
        return _row(p * v[..., :1] + (q * v[..., 1:]).sum(axis=-1, keepdims=True), w * v[..., 1:])

    def transpose(self) -> Jacobian:
        return Arrow(self.data, self.layout)

    def _product(self, earlier: Arrow) -> Jacobian:
        (p, w, q), (before, also, row) = self._parts(), earlier._parts()
        return TransposedArrow(_row(p * before, w * also, p * row + q * also), self.layout)


def _row(*parts: Array) -> Array:
    return namespace(parts[0]).concatenate(parts, axis=-1)  # type: ignore[no-any-return]


def linearise_sums(
    carried: Array, sums: Array, m: Array, v: Array
) -> tuple[Arrow, Callable[[Array], tuple[Array, Array, Array]]]:
    """Return the derivative of (M', S') with M' = max(M, m), S' = S e^(M - M') + v e^(m - M').

    Parameters
    ----------
    carried, m : array, shape (...)
        M and m. At a tie M passes the share of ``maximum``; whichever it is, S' e^M' has its derivative.
    sums, v : array, shape (..., d)
        S and v.

    Returns
    -------
    Arrow
        With respect to (M, S).
    callable
        Takes a cotangent (..., 1 + d) to those of M, m and v.
    """
    xp, number = namespace(m), m.dtype.type
    greatest = np.maximum(carried, m)
    p = xp.where(carried > m, number(1), xp.where(carried == m, number(at_tie("maximum")), number(0)))
    p, kept, new = (x[..., None] for x in (p, weight(carried, greatest), weight(m, greatest)))
    q = sums * kept * (1 - p) - v * new * p
    J = Arrow(_row(p, kept, q), Layout(units=1 + q.shape[-1]))

    def pull(g: Array) -> tuple[Array, Array, Array]:
        turned = (q * g[..., 1:]).sum(axis=-1)
        through = p[..., 0] * g[..., 0]
        return through + turned, g[..., 0] - through - turned, new * g[..., 1:]

    return J, pull
