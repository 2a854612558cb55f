"""One number in every column: a permutation, or any other map of units, times a diagonal."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from recsolve.base.arrays import Array, freeze, namespace
from recsolve.base.layout import Layout
from recsolve.base.overriding import changed
from recsolve.jacobians.diagonals import Diagonal
from recsolve.jacobians.jacobian import Entries, Jacobian, repeated, structure
from recsolve.jacobians.matrices import LaneDense


@structure
class PermutationDiagonal(Entries):
    """J[t] e_j = d[t, j] e_p(j): a map p of the numbers of a lane times a diagonal, closed under products.

    A product with a vector, and a product of two of them, cost what they cost for a :class:`Diagonal`: (p2 after p1,
    d2[p1(j)] d1[j]). So scans run chunks side by side, in work linear in the width.

    Parameters
    ----------
    permutation : array of int, shape (w,) or (T, *batch, *lanes, w)
        p, with w = k n numbers in a lane, components first; one for all steps, or one each. It need not be one to one:
        numbers that go to the same place are added there.
    data : array, shape (T, *batch, *event)
        d, float32 or float64; 1 in place of a number of the event stands for all.
    layout : Layout

    Attributes
    ----------
    index : array of int, shape (w,) or (T, *batch, *lanes, w)
        Where the entries are: column j has its own in row ``index[j]``, or with ``rows`` row i has its own in column
        ``index[i]``.
    rows : bool
        False for what is made here, True for its transpose.

    Raises
    ------
    TypeError
        For a ``permutation`` that is not of integers.
    ValueError
        When a shape does not fit the layout, or for numbers outside 0..w-1.

    Notes
    -----
    The matrices of PD networks, which solve word problems of groups: Merrill et al., "Why are linear RNNs more
    parallelizable?" (arXiv 2603.03612).

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> turn = rs.jacobians.PermutationDiagonal(np.array([1, 2, 0]), np.array([[1.0, 2.0, 3.0]]), rs.Layout(units=3))
    >>> turn.matvec(np.array([[10.0, 20.0, 30.0]]))  # 10 goes to place 1, twice 20 to place 2, three times 30 to 0
    array([[90., 10., 40.]])
    >>> turn.compose(turn).todense()[0].tolist()
    [[0.0, 6.0, 0.0], [0.0, 0.0, 3.0], [2.0, 0.0, 0.0]]
    """

    rank, composable = 5, True

    def __init__(self, permutation: Any, data: Array, layout: Layout):
        super().__init__(data, layout)
        self.index, self.rows = self._placed(permutation), False

    def check(self) -> None:
        super().check()
        if "index" in vars(self):
            self._check_places(self.index)

    def _check_places(self, p: Array) -> None:
        w, full = self.layout.lane_width, (*self.leading, *self.layout.lanes, self.layout.lane_width)
        if p.shape not in ((w,), full):
            name = type(self).__name__
            raise ValueError(f"permutation of {name} has shape {tuple(p.shape)}; wanted {(w,)} or {full}")

    def _placed(self, permutation: Any) -> Array:
        """Return the map of the user as indices, checked."""
        p, name, w = namespace(self.data).asarray(permutation), type(self).__name__, self.layout.lane_width
        if p.dtype.kind not in "iu":
            raise TypeError(f"permutation of {name} has dtype {p.dtype}; wanted integers")
        full = (*self.leading, *self.layout.lanes, w)
        p = repeated(p, full, own=(-1,)) if p.ndim == len(full) else p
        self._check_places(p)
        if bool(((p < 0) | (p >= w)).any()):
            raise ValueError(f"permutation of {name} has numbers outside 0 to {w - 1}, the places in a lane")
        return freeze(p.astype(np.intp, copy=False))  # compiled loops index by it

    @property
    def leading(self) -> tuple[int, ...]:
        return self.layout.leading(self.data)

    @property
    def _entries(self) -> Array:
        """The diagonal by lanes, (T, *batch, *lanes, w)."""
        return self.layout.lane_vectors(self.data)

    def __getitem__(self, index: slice | Array | int) -> Self:
        places = self.index if self.index.ndim == 1 and self.leading else self.index[index]
        return changed(self, data=self.data[index], index=places)

    def _by(self, *, rows: bool) -> PermutationDiagonal | None:
        """Return the same matrices with their entries listed by rows or by columns; None where p is not one to one."""
        if self.rows == rows:
            return self
        xp, p = namespace(self.index), self.index
        places = xp.arange(p.shape[-1])
        inverse = xp.zeros_like(p)
        inverse.reshape(-1, len(places))[_each(inverse), p.reshape(-1, len(places))] = places
        if not bool((_pick(p, inverse) == places).all()):
            return None
        data = self.layout.from_lane_vectors(_pick(self._entries, inverse))
        return changed(self, index=inverse, data=data, rows=rows)

    def matvec(self, v: Array) -> Array:
        x = self.layout.lane_vectors(v)
        if self.rows:
            return self.layout.from_lane_vectors(self._entries * _pick(x, self.index))
        return self.layout.from_lane_vectors(_add_at(self._entries * x, self.index))

    def transpose(self) -> Jacobian:
        return changed(self, rows=not self.rows)

    def between(self, rows: Array, columns: Array) -> Jacobian:
        left, right = (self.layout.lane_vectors(x) for x in (rows, columns))
        if self.rows:
            right = _pick(right, self.index)
        else:
            left = _pick(left, self.index)
        return changed(self, data=self.layout.from_lane_vectors(self._entries * left * right))

    def _product(self, earlier: Any) -> Jacobian:
        if not isinstance(earlier, PermutationDiagonal):
            return super()._product(earlier)
        rows = self.rows
        later, first = self, earlier._by(rows=rows)
        if first is None and (turned := self._by(rows=not rows)) is not None:
            later, first, rows = turned, earlier, not rows
        if first is None:  # one gathers and one adds up: no single entry is left
            return super()._product(earlier)
        a, b = (later, first) if rows else (first, later)  # a's entry of a row or column leads to b's
        data = self.layout.from_lane_vectors(a._entries * _pick(b._entries, a.index))
        return changed(self, index=_pick(b.index, a.index), data=data, rows=rows)

    def _holding(self, diagonal: Diagonal) -> Jacobian:
        places = namespace(self.index).arange(self.layout.lane_width)
        return changed(self, index=places, data=diagonal.data)

    def diagonal(self) -> Diagonal:
        xp, entries = namespace(self.index), self._entries
        places = xp.arange(self.layout.lane_width)
        kept = xp.where(self.index == places, entries, entries.dtype.type(0))
        return Diagonal(self.layout.from_lane_vectors(kept), self.layout)

    def lane_dense(self) -> LaneDense:
        xp, entries = namespace(self.index), self._entries
        w = self.layout.lane_width
        dense, places = xp.zeros((*entries.shape, w), dtype=entries.dtype), xp.arange(w)
        index = xp.broadcast_to(self.index, entries.shape).reshape(-1, w)
        row, column = (places, index) if self.rows else (index, places)
        dense.reshape(-1, w, w)[_each(entries), row, column] = entries.reshape(-1, w)
        return LaneDense(dense, self.layout)


def _each(x: Array) -> Array:
    """Return the numbers of all lanes of ``x``, (lanes, 1)."""
    return namespace(x).arange(int(np.prod(x.shape[:-1])))[:, None]  # type: ignore[no-any-return]


def _pick(x: Array, index: Array) -> Array:
    """Return x[index] along the last axis, of arrays (..., w), or (w,) for all."""
    if index.ndim == 1:
        return x[..., index]
    xp = namespace(x)
    return xp.take_along_axis(x.reshape((1,) * (index.ndim - x.ndim) + x.shape), index, axis=-1)  # type: ignore[no-any-return]


def _add_at(x: Array, index: Array) -> Array:
    """Return y with y[index] += x along the last axis."""
    xp = namespace(x)
    y = xp.zeros_like(x, order="C")
    w = x.shape[-1]
    places = xp.broadcast_to(index, x.shape).reshape(-1, w)
    xp.add.at(y.reshape(-1), (_each(x) * w + places).reshape(-1), x.reshape(-1))
    return y  # type: ignore[no-any-return]
