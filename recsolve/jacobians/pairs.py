"""Jacobians of named states: which components depend on which, and one array of entries for each such pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.base.overriding import changed
from recsolve.jacobians.diagonals import Diagonal
from recsolve.jacobians.jacobian import Jacobian, fits
from recsolve.jacobians.matrices import LaneDense
from recsolve.jacobians.pattern import Group, Pattern, taken


class Pairs(Jacobian):
    """J[t] of a named state, with entries for those pairs of components alone that depend on each other.

    An affine scan solves for the components in an order in which each comes after those that it depends on, so that a
    component by itself costs a scan of its own structure: what is triangular among components is never dense.

    Parameters
    ----------
    blocks : mapping of array, shape (T, *batch, L, a, b)
        By pairs (result, operand), as the places of the pattern say.
    pattern : Pattern
    layout : Layout
        Of the flat state, ``Layout(units=N)``.
    like : array, shape (T, *batch, N)
        Any array of the shape and dtype of the states.

    Raises
    ------
    ValueError
        When the shape of a block does not fit the pattern.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(
    ...     lambda s, u: {"m": 0.5 * s.m + u, "h": s.h * s.m[..., None]}, inputs=np.ones(9),
    ...     state={"m": (), "h": ("d",)}, initial={"m": np.array(1.0), "h": np.ones(3)},
    ...     structure={("m", "m"): "diagonal", ("h", "h"): "diagonal", ("h", "m"): "diagonal"})
    >>> J = rec.linearise(rec.guess())[1]
    >>> type(J).__name__, J.todense()[0].tolist()[1]
    ('Pairs', [1.0, 1.0, 0.0, 0.0])
    """

    def __init__(self, blocks: Mapping[tuple[str, str], Array], pattern: Pattern, layout: Layout, like: Array):
        self.blocks, self.pattern, self.layout, self.like = dict(blocks), pattern, layout, like
        self.check()

    def check(self) -> None:
        if self.layout != Layout(units=self.pattern.named.size):
            raise ValueError(
                f"layout is {self.layout}; wanted the flat state of the pattern, {self.pattern.named.size}"
            )
        fits(self, "like", self.like.shape, self.layout.event)
        for pair, (rows, columns) in self.pattern.places.items():
            wanted = (*self.leading, *rows.shape, columns.shape[1])
            if self.blocks[pair].shape != wanted:
                raise ValueError(f"block {pair} has shape {tuple(self.blocks[pair].shape)}; wanted {wanted}")

    @property
    def leading(self) -> tuple[int, ...]:
        return self.layout.leading(self.like)

    def _mapped(self, change: Callable[[tuple[str, str], Array], Array]) -> Pairs:
        return changed(self, blocks={pair: change(pair, block) for pair, block in self.blocks.items()})

    def __getitem__(self, index: slice | Array | int) -> Pairs:
        return changed(self._mapped(lambda _, block: block[index]), like=self.like[index])

    def product(self, pair: tuple[str, str], v: Array) -> Array:
        """Return what one component gets from another one of the flat states v, (T, *batch, L, a)."""
        block, operand = self.blocks[pair], taken(v, self.pattern.places[pair].columns)
        if block.shape[-1] == 1:
            return block[..., 0] * operand
        return (block @ operand[..., None])[..., 0]

    def matvec(self, v: Array) -> Array:
        xp = namespace(v)
        result = xp.zeros_like(v)
        for pair, (rows, _) in self.pattern.places.items():
            result[..., xp.asarray(rows)] += self.product(pair, v)
        return result  # type: ignore[no-any-return]

    def transpose(self) -> Pairs:
        blocks = {(b, a): block.swapaxes(-1, -2) for (a, b), block in self.blocks.items()}
        return changed(self, blocks=blocks, pattern=self.pattern.transposed)

    def scale(self, factor: float) -> Pairs:
        return self._mapped(lambda _, block: factor * block)

    def between(self, rows: Array, columns: Array) -> Pairs:
        def scaled(pair: tuple[str, str], block: Array) -> Array:
            places = self.pattern.places[pair]
            return block * taken(rows, places.rows)[..., None] * taken(columns, places.columns)[..., None, :]

        return self._mapped(scaled)

    def diagonal(self) -> Diagonal:
        xp = namespace(self.like)
        entries = xp.zeros_like(self.like)
        for (a, b), (rows, _) in self.pattern.places.items():
            if a == b:
                entries[..., xp.asarray(rows)] = xp.diagonal(self.blocks[a, b], axis1=-2, axis2=-1)
        return Diagonal(entries, self.layout)

    def block(self) -> Jacobian:
        return self.diagonal()

    def lane_dense(self) -> LaneDense:
        xp, size = namespace(self.like), self.pattern.named.size
        matrix = xp.zeros((*self.leading, size, size), dtype=self.like.dtype)
        for pair, (rows, columns) in self.pattern.places.items():
            matrix[..., xp.asarray(rows[:, :, None]), xp.asarray(columns[:, None, :])] = self.blocks[pair]
        return LaneDense(matrix, self.layout)

    def within(self, group: Group) -> Jacobian | None:
        """Return the Jacobian of the components of a group on their own, as lanes (L, w); None where it is zero."""
        pairs = [(a, b) for a, b in self.blocks if a in group.names and b in group.names]
        if not pairs:
            return None
        xp, (lanes, width) = namespace(self.like), group.places.shape
        places = self.pattern.places
        if len(pairs) == 1 and np.array_equal(places[pairs[0]].rows, group.places):
            data = self.blocks[pairs[0]]
        else:
            lane, unit = np.zeros((2, self.pattern.named.size), dtype=np.int64)
            lane[group.places], unit[group.places] = np.indices((lanes, width))
            data = xp.zeros((*self.leading, lanes, width, width), dtype=self.like.dtype)
            for pair in pairs:
                rows, columns = places[pair].rows[:, :, None], places[pair].columns[:, None, :]
                at = (lane[rows], unit[rows], unit[columns])
                data[(..., *map(xp.asarray, np.broadcast_arrays(*at)))] = self.blocks[pair]
        if width == 1:
            return Diagonal(data[..., 0, 0], Layout(units=lanes))
        return LaneDense(data, Layout(lanes=(lanes,), units=width))
