"""Mixings whose weight is the map: a number per unit, one matrix, a matrix per lane."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import Array, matmul_last, namespace
from recsolve.mixings.mixing import OF_MATRICES, LinearInWeight, Mixing, of_matrices


class Diagonal(LinearInWeight):
    """Each unit sees only itself: y = a * x. Elementwise, so cells inline it.

    Parameters
    ----------
    weight : array, shape (*lanes, n)
        a, float32 or float64. Axes before the last give states lanes.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.mixings.Diagonal(np.array([1.0, 2.0]))(np.ones((5, 2)))[0].tolist()
    [1.0, 2.0]
    """

    name = form = "diagonal"

    def __init__(self, weight: Any):
        super().__init__(weight)
        if self.weight.ndim == 0:
            raise ValueError("weight of a diagonal mixing has shape (); wanted (*lanes, n)")

    @property
    def lanes(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[:-1])

    def matvec(self, x: Any) -> Any:
        return self.weight * x

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        return (g * x).reshape(-1, *self.weight.shape).sum(axis=0)  # type: ignore[no-any-return]

    def weight_tangent(self, tangent: Array, x: Array) -> Array:
        return tangent * x

    def rmatvec_tangent(self, tangent: Array, x: Array) -> Array:
        return tangent * x

    def transpose(self) -> Mixing:
        return self

    @property
    def rounding(self) -> float:
        return 0.0  # no sums

    def diagonal(self) -> Array:
        return self.weight  # type: ignore[no-any-return]

    def dense(self) -> Array:
        eye = namespace(self.weight).eye(self.units, dtype=self.weight.dtype)
        return eye * self.weight[..., None, :]  # type: ignore[no-any-return]


class _Matrices(LinearInWeight):
    """What mixings share whose weight is one matrix per lane, (*lanes, n, n)."""

    @property
    def lanes(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[:-2])

    def dense(self) -> Array:
        return self.weight  # type: ignore[no-any-return]

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        count = x.ndim - len(self.lanes) - 1
        leading = int(np.prod(x.shape[:count]))
        rows_g, rows_x = (v.reshape(leading, *self.lanes, self.units) for v in (g, x))
        return namespace(x).einsum("t...i,t...j->...ij", rows_g, rows_x)  # type: ignore[no-any-return]

    def weight_tangent(self, tangent: Array, x: Array) -> Array:
        return of_matrices(tangent).matvec(x)  # type: ignore[no-any-return]

    def rmatvec_tangent(self, tangent: Array, x: Array) -> Array:
        return self.weight_tangent(tangent.swapaxes(-1, -2), x)


class Dense(_Matrices):
    """Every unit sees every unit: y = W x.

    Parameters
    ----------
    weight : array, shape (n, n)
        W, float32 or float64.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.mixings.Dense(np.array([[1.0, 2.0], [3.0, 4.0]]))(np.ones((5, 2)))[0].tolist()
    [3.0, 7.0]
    """

    name = form = "dense"
    weight_ndim = 2

    def matvec(self, x: Array) -> Array:
        return matmul_last(x, self.weight)

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        return g.reshape(-1, self.units).T @ x.reshape(-1, self.units)


class Heads(_Matrices):
    """Units see the units of their own head: y[h] = R[h] x[h] on states (..., H, n).

    Parameters
    ----------
    weight : array, shape (H, n, n)
        R, float32 or float64. It gives states a lane axis of H heads.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.mixings.Heads(np.stack([np.eye(2), 2 * np.eye(2)]))(np.ones((5, 2, 2)))[0].tolist()
    [[1.0, 1.0], [2.0, 2.0]]
    """

    name = form = "heads"
    weight_ndim = 3

    def matvec(self, x: Array) -> Array:
        # One product per head over all times and sequences at once.
        by_head = np.moveaxis(x, -2, 0)
        rows = by_head.reshape(by_head.shape[0], int(np.prod(by_head.shape[1:-1])), by_head.shape[-1])
        mixed = rows @ self.weight.swapaxes(-1, -2)
        return np.moveaxis(mixed.reshape(by_head.shape), 0, -2)


class _PerLane(_Matrices):
    """The same over any number of lane axes."""

    def matvec(self, x: Array) -> Array:
        return (self.weight @ x[..., None])[..., 0]  # type: ignore[no-any-return]


OF_MATRICES.update({2: Dense, 3: Heads, None: _PerLane})
