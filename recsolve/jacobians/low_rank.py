"""A diagonal plus a product of thin matrices: delta rules and gated fast weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.base.overriding import changed
from recsolve.jacobians.diagonals import Diagonal
from recsolve.jacobians.jacobian import Entries, Jacobian, fits, repeated, structure
from recsolve.jacobians.matrices import LaneDense


@structure
class LowRank(Entries):
    """J[t] = diag(a[t]) + U[t] V[t]^T in every lane, of rank r: a product with a vector costs O(w r).

    Scans step through time with it. Products of two are formed exactly, of rank r1 + r2, and dense where that is no
    less than the width w.

    Parameters
    ----------
    data : array, shape (T, *batch, *event)
        a, float32 or float64; 1 in place of a number of the event stands for all.
    left, right : array, shape (T, *batch, *lanes, w, r)
        U and V, with w = k n numbers in a lane, components first, in the dtype of ``data``. 1 in place of a number of
        lanes stands for all: rows of a fast weight that share a key.
    layout : Layout

    Raises
    ------
    TypeError
        For what is no array, or arrays of different dtypes.
    ValueError
        When a shape does not fit the layout.

    Notes
    -----
    The delta rule is I - beta k k^T (Schlag, Irie, Schmidhuber, ICML 2021, arXiv 2102.11174); RWKV-7's matrix is
    diag(w) - k (a k)^T.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> key = np.array([[0.6, 0.8]])  # one step
    >>> J = rs.jacobians.LowRank(np.ones((1, 2)), -key[..., None], key[..., None], rs.Layout(units=2))
    >>> J.matvec(np.array([[3.0, 4.0]])).round(12) + 0.0  # what lies along the key is forgotten
    array([[0., 0.]])
    >>> J.left.shape, J.compose(J).diagonal().data.round(2).tolist()
    ((1, 2, 1), [[0.64, 0.36]])
    """

    rank, composable = 5, False

    def __init__(self, data: Array, left: Array, right: Array, layout: Layout):
        for name, x in (("left", left), ("right", right)):
            if not hasattr(x, "shape"):
                raise TypeError(f"{name} of {type(self).__name__} is {type(x).__name__}; wanted an array")
        self.left, self.right = left, right
        super().__init__(data, layout)
        if not data.dtype == left.dtype == right.dtype:
            seen = f"{data.dtype}, {left.dtype} and {right.dtype}"
            raise TypeError(f"data, left and right of {type(self).__name__} have dtypes {seen}; wanted one dtype")

    def check(self) -> None:
        super().check()
        thin = (*self.layout.lanes, self.layout.lane_width, self.left.shape[-1] if self.left.ndim else 0)
        for name in ("left", "right"):
            x = repeated(getattr(self, name), thin, own=(-2, -1))
            fits(self, name, x.shape, thin)
            if tuple(x.shape[: x.ndim - len(thin)]) != self.leading:
                wanted = (*self.leading, *thin)
                raise ValueError(f"{name} of {type(self).__name__} has shape {tuple(x.shape)}; wanted {wanted} as data")
            setattr(self, name, x)

    @property
    def leading(self) -> tuple[int, ...]:
        return self.layout.leading(self.data)

    def _mapped(self, function: Callable[[Array], Array]) -> Self:
        return changed(self, data=function(self.data), left=function(self.left), right=function(self.right))

    def __getitem__(self, index: slice | Array | int) -> Self:
        return changed(self, data=self.data[index], left=self.left[index], right=self.right[index])

    @property
    def _entries(self) -> Array:
        """The diagonal by lanes, (T, *batch, *lanes, w)."""
        return self.layout.lane_vectors(self.data)

    def matvec(self, v: Array) -> Array:
        x = self.layout.lane_vectors(v)
        seen = self.right.swapaxes(-1, -2) @ x[..., None]
        return self.layout.from_lane_vectors(self._entries * x + (self.left @ seen)[..., 0])

    def transpose(self) -> Jacobian:
        return changed(self, left=self.right, right=self.left)

    def scale(self, factor: float) -> Jacobian:
        return changed(self, data=factor * self.data, left=factor * self.left)

    def between(self, rows: Array, columns: Array) -> Jacobian:
        left, right = (self.layout.lane_vectors(x)[..., None] for x in (rows, columns))
        return changed(self, data=self.data * (rows * columns), left=self.left * left, right=self.right * right)

    def _product(self, earlier: Any) -> Jacobian:
        if not isinstance(earlier, LowRank):
            return super()._product(earlier)
        if self.left.shape[-1] + earlier.left.shape[-1] >= self.layout.lane_width:
            return super()._product(earlier)
        a, b = self._entries[..., None], earlier._entries[..., None]
        moved = a * earlier.left + self.left @ (self.right.swapaxes(-1, -2) @ earlier.left)
        xp = namespace(moved)
        left, right = (xp.concatenate(pair, -1) for pair in ((self.left, moved), (b * self.right, earlier.right)))
        return changed(self, data=self.data * earlier.data, left=left, right=right)

    def _holding(self, diagonal: Diagonal) -> Jacobian:
        return changed(self, data=diagonal.data, left=self.left[..., :0], right=self.right[..., :0])

    def diagonal(self) -> Diagonal:
        within = self.layout.from_lane_vectors((self.left * self.right).sum(axis=-1))
        return Diagonal(self.data + within, self.layout)

    def lane_dense(self) -> LaneDense:
        dense = self.left @ self.right.swapaxes(-1, -2)
        places = namespace(dense).arange(self.layout.lane_width)
        dense[..., places, places] += self._entries
        return LaneDense(dense, self.layout)
