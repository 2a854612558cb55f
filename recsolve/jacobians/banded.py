"""A few diagonals: stencils and chains of units that see their neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import index as whole
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.base.overriding import changed
from recsolve.jacobians.diagonals import Diagonal
from recsolve.jacobians.jacobian import Entries, Jacobian, structure
from recsolve.jacobians.matrices import LaneDense


@structure
class Banded(Entries):
    """m diagonals of the matrix of every lane: a product with a vector costs O(w m).

    Scans step through time with it. Products of two are formed exactly, on the sums of their offsets, and dense where
    these are no fewer than the width w.

    Parameters
    ----------
    data : array, shape (T, *batch, *lanes, m, w)
        ``data[..., a, j]`` = J[j - offsets[a], j], with w = k n numbers in a lane, components first: the form of
        ``scipy.sparse.dia_array``. Entries outside the matrix are not read. 1 in place of a number of lanes stands for
        all.
    offsets : sequence of int
        Columns minus rows of each diagonal, all different and between -w and w.
    layout : Layout

    Raises
    ------
    TypeError
        For offsets that are no integers.
    ValueError
        When the shape of ``data`` does not fit layout and offsets, or for other offsets.

    Notes
    -----
    The Jacobian of a ConvLSTM in its state is of this kind, a band per tap: Shi et al., NeurIPS 2015 (arXiv
    1506.04214).

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> J = rs.jacobians.Banded(np.ones((1, 2, 4)), (0, -1), rs.Layout(units=4))  # each unit and the one before it
    >>> J.matvec(np.array([[1.0, 2.0, 3.0, 4.0]]))
    array([[1., 3., 5., 7.]])
    >>> J.compose(J).offsets, J.compose(J).data[0, :, 0].tolist()
    ((-2, -1, 0), [1.0, 2.0, 1.0])
    """

    rank, composable, _own = 5, False, (-2, -1)

    def __init__(self, data: Array, offsets: Sequence[int], layout: Layout):
        try:
            self.offsets = tuple(whole(offset) for offset in offsets)
        except TypeError:
            raise TypeError(f"offsets of {type(self).__name__} is {offsets!r}; wanted integers") from None
        super().__init__(data, layout)

    def check(self) -> None:
        w = self.layout.lane_width
        if len(set(self.offsets)) < len(self.offsets) or any(abs(offset) >= w for offset in self.offsets):
            raise ValueError(
                f"offsets of {type(self).__name__} is {self.offsets}; wanted different integers between {-w} and {w}"
            )
        super().check()

    @property
    def _event(self) -> tuple[int, ...]:
        return (*self.layout.lanes, len(self.offsets), self.layout.lane_width)

    @property
    def leading(self) -> tuple[int, ...]:
        return tuple(self.data.shape[: self.data.ndim - 2 - len(self.layout.lanes)])

    def _bands(self) -> Iterator[tuple[Array, slice, slice]]:
        """Yield the entries of each diagonal, and the rows and columns that they are in."""
        w = self.layout.lane_width
        for a, offset in enumerate(self.offsets):
            rows = slice(max(-offset, 0), w - max(offset, 0))
            columns = slice(rows.start + offset, rows.stop + offset)
            yield self.data[..., a, columns], rows, columns

    def matvec(self, v: Array) -> Array:
        x = self.layout.lane_vectors(v)
        y = namespace(x).zeros((*np.broadcast_shapes(self.data.shape[:-2], x.shape[:-1]), x.shape[-1]), dtype=x.dtype)
        for entries, rows, columns in self._bands():
            y[..., rows] += entries * x[..., columns]
        return self.layout.from_lane_vectors(y)

    def _on(self, offsets: tuple[int, ...]) -> tuple[Banded, Array]:
        """Return zeros on other diagonals, and their entries to be filled."""
        shape = (*self.data.shape[:-2], len(offsets), self.layout.lane_width)
        data = namespace(self.data).zeros(shape, dtype=self.data.dtype)
        return changed(self, data=data, offsets=offsets), data

    def transpose(self) -> Jacobian:
        made, data = self._on(tuple(-offset for offset in self.offsets))
        for a, (entries, rows, _) in enumerate(self._bands()):
            data[..., a, rows] = entries
        return made

    def between(self, rows: Array, columns: Array) -> Jacobian:
        left, right = (self.layout.lane_vectors(x) for x in (rows, columns))
        made, data = self._on(self.offsets)
        for a, (entries, i, j) in enumerate(self._bands()):
            data[..., a, j] = entries * left[..., i] * right[..., j]
        return made

    def _product(self, earlier: Any) -> Jacobian:
        w = self.layout.lane_width
        if not isinstance(earlier, Banded):
            return super()._product(earlier)
        offsets = sorted({a + b for a in self.offsets for b in earlier.offsets if abs(a + b) < w})
        if len(offsets) >= w:
            return super()._product(earlier)
        made, data = self._on(tuple(offsets))
        for a, first in enumerate(self.offsets):
            for (entries, rows, columns), second in zip(earlier._bands(), earlier.offsets, strict=True):
                if abs(first + second) < w:
                    place = offsets.index(first + second)
                    data[..., place, columns] += self.data[..., a, rows] * entries
        return made

    def _holding(self, diagonal: Diagonal) -> Jacobian:
        return changed(self, data=self.layout.lane_vectors(diagonal.data)[..., None, :], offsets=(0,))

    def diagonal(self) -> Diagonal:
        if 0 in self.offsets:
            entries = self.data[..., self.offsets.index(0), :]
        else:
            entries = namespace(self.data).zeros((*self.data.shape[:-2], self.data.shape[-1]), dtype=self.data.dtype)
        return Diagonal(self.layout.from_lane_vectors(entries), self.layout)

    def lane_dense(self) -> LaneDense:
        w, xp = self.layout.lane_width, namespace(self.data)
        dense = xp.zeros((*self.data.shape[:-2], w, w), dtype=self.data.dtype)
        places = xp.arange(w)
        for entries, rows, columns in self._bands():
            dense[..., places[rows], places[columns]] = entries
        return LaneDense(dense, self.layout)
