"""Structures with matrices: :class:`Block`, one per unit, and :class:`LaneDense`, one per lane."""

from __future__ import annotations

from typing import Self

from recsolve.base.arrays import Array, namespace
from recsolve.jacobians.diagonals import Diagonal
from recsolve.jacobians.jacobian import Entries, Jacobian, structure


@structure
class Block(Entries):
    """One k x k block per unit, for k components: what cells with diagonal mixings have.

    Parameters
    ----------
    data : array, shape (T, *batch, k, k, *lanes, n)
        [i, j] = d h'_i / d h_j, float32 or float64; 1 in place of a number of lanes or units stands for all.
    layout : Layout
        With at least two components.

    Raises
    ------
    ValueError
        For one component, which is a Diagonal, and when the shape of ``data`` does not fit the layout.

    Notes
    -----
    The Jacobian of the LSTM of ParaRNN (Danieli et al., ICLR 2026, arXiv 2510.21450).

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> layout = rs.Layout(components=2, units=3)
    >>> rs.jacobians.Block(np.ones((5, 2, 2, 3)), layout).matvec(np.ones((5, 2, 3)))[0].tolist()
    [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    """

    rank, composable, _own = 4, True, (0, 1)

    def check(self) -> None:
        if self.layout.components < 2:
            raise ValueError(f"Block has {self.layout}; wanted components >= 2 (one by one they are a Diagonal)")
        super().check()

    @property
    def _event(self) -> tuple[int, ...]:
        return (self.layout.components, *self.layout.event)

    @property
    def _axis(self) -> int:
        return self.data.ndim - len(self.layout.event) - 1

    @property
    def leading(self) -> tuple[int, ...]:
        return tuple(self.data.shape[: self._axis])

    def _entry(self, i: int, j: int) -> Array:
        return self.data[(slice(None),) * self._axis + (i, j)]

    def matvec(self, v: Array) -> Array:
        columns = v[(slice(None),) * (v.ndim - len(self.layout.event)) + (None,)]  # (..., 1, k, *lanes, n)
        return (self.data * columns).sum(axis=self.layout.component_axis)  # type: ignore[no-any-return]

    def transpose(self) -> Jacobian:
        return Block(self.data.swapaxes(self._axis, self._axis + 1), self.layout)

    def between(self, rows: Array, columns: Array) -> Jacobian:
        before = (slice(None),) * self._axis
        return Block(self.data * rows[(*before, slice(None), None)] * columns[(*before, None)], self.layout)

    def _product(self, earlier: Self) -> Jacobian:
        k, axis = self.layout.components, self._axis
        xp = namespace(self.data)
        rows = [
            xp.stack([sum(self._entry(i, m) * earlier._entry(m, j) for m in range(k)) for j in range(k)], axis=axis)
            for i in range(k)
        ]
        return Block(xp.stack(rows, axis=axis), self.layout)

    def diagonal(self) -> Diagonal:
        k = self.layout.components
        entries = [self._entry(i, i) for i in range(k)]
        return Diagonal(namespace(self.data).stack(entries, axis=self._axis), self.layout)

    def block(self) -> Jacobian:
        return self

    def lane_dense(self) -> LaneDense:
        k, n = self.layout.components, self.layout.lane_width // self.layout.components
        xp, lanes = namespace(self.data), self.layout.lanes
        dense = xp.zeros((*self.leading, *lanes, k, n, k, n), dtype=self.data.dtype)
        units = xp.arange(n)
        for i in range(k):
            for j in range(k):
                dense[..., i, units, j, units] = self._entry(i, j)
        return LaneDense(dense.reshape(*self.leading, *lanes, k * n, k * n), self.layout)


@structure
class LaneDense(Entries):
    """One dense matrix per lane, which couples all components and units of the lane.

    Parameters
    ----------
    data : array, shape (T, *batch, *lanes, k n, k n)
        Ordered by component, then unit; float32 or float64. 1 in place of a number of lanes stands for all: heads that
        share a matrix.
    layout : Layout

    Raises
    ------
    ValueError
        When the shape of ``data`` does not fit the layout.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> layout = rs.Layout(lanes=(2,), units=3)  # two heads
    >>> rs.jacobians.LaneDense(np.ones((5, 2, 3, 3)), layout).matvec(np.ones((5, 2, 3)))[0].tolist()
    [[3.0, 3.0, 3.0], [3.0, 3.0, 3.0]]
    """

    rank, _own = 5, (-2, -1)
    composable = False  # n times the work of a product with a vector

    @property
    def _event(self) -> tuple[int, ...]:
        return (*self.layout.lanes, self.layout.lane_width, self.layout.lane_width)

    @property
    def leading(self) -> tuple[int, ...]:
        return tuple(self.data.shape[: self.data.ndim - 2 - len(self.layout.lanes)])

    def matvec(self, v: Array) -> Array:
        vectors = self.layout.lane_vectors(v)
        return self.layout.from_lane_vectors((self.data @ vectors[..., None])[..., 0])

    def transpose(self) -> Jacobian:
        return LaneDense(self.data.swapaxes(-1, -2), self.layout)

    def between(self, rows: Array, columns: Array) -> Jacobian:
        left, right = (self.layout.lane_vectors(x) for x in (rows, columns))
        return LaneDense(self.data * left[..., None] * right[..., None, :], self.layout)

    def _product(self, earlier: Self) -> Jacobian:
        return LaneDense(self.data @ earlier.lane_dense().data, self.layout)

    def diagonal(self) -> Diagonal:
        entries = namespace(self.data).diagonal(self.data, axis1=-2, axis2=-1)
        return Diagonal(self.layout.from_lane_vectors(entries), self.layout)

    def block(self) -> Jacobian:
        k, width = self.layout.components, self.layout.lane_width
        if k == 1:
            return self.diagonal()
        n, xp = width // k, namespace(self.data)
        split = self.data.reshape(*self.data.shape[:-2], k, n, k, n)
        units = xp.diagonal(split, axis1=-3, axis2=-1)  # (..., *lanes, k, k, n)
        lanes = len(self.layout.lanes)
        return Block(xp.moveaxis(units, (-3, -2), (-3 - lanes, -2 - lanes)), self.layout)

    def lane_dense(self) -> LaneDense:
        return self
