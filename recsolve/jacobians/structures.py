"""Structured Jacobians: the structure is the type.

A Jacobian holds J[t] = d h[t] / d h[t-1] for all t at once. Each structure is closed under composition, and the chain
Zero < Identity < Scalar < Diagonal < Block < LaneDense is ordered by inclusion. ``diagonal``, ``block`` and
``lane_dense`` convert along it: upwards exactly, downwards by keeping that part of the matrix.

A structure of your own is a subclass with ``matvec``. Where it overrides that of a structure here, all else is derived
from it, by products with unit vectors, and scans walk time with it: they know the structures of this file by their
exact types.

Shapes (T time, k components, n units): Scalar (T, *batch), Diagonal (T, *batch, [k], *lanes, n), Block
(T, *batch, k, k, *lanes, n) with [i, j] = d h'_i / d h_j, LaneDense (T, *batch, *lanes, k n, k n).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.base.overriding import changed, derive


class Jacobian(ABC):
    """J[t] for every t, acting on states (T, *batch, *event).

    Attributes
    ----------
    layout : Layout
        The event axes of the states it acts on.
    composable : bool
        Whether products stay in a structure that is cheap to compose, so that scans may run chunks side by side.
    """

    layout: Layout
    # Of a structure that only shows its products: the last place in the chain of structures, and no scan of chunks.
    rank: ClassVar[int] = 5
    composable: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        derive(cls, Jacobian, "matvec", _DERIVED)

    @property
    @abstractmethod
    def leading(self) -> tuple[int, ...]:
        """The shape (T, *batch)."""

    @abstractmethod
    def __getitem__(self, index: slice | Array | int) -> Self:
        """Select times."""

    @abstractmethod
    def matvec(self, v: Array) -> Array:
        """Return J[t] v[t] for all t, shape as ``v``."""

    def check(self) -> None:
        """Raise ValueError unless the entries fit the layout; compiled loops believe it."""
        return

    # What is derived from matvec -------------------------------------------------------------------------------

    def _like(self) -> Array:
        """Return an array of the dtype and kind of the entries."""
        for name in ("data", "like"):
            if name in vars(self):
                return vars(self)[name]  # type: ignore[no-any-return]
        raise TypeError(f"{type(self).__name__} has neither data nor like to derive matrices from; define lane_dense")

    def lane_dense(self) -> LaneDense:
        """Return one (k n) x (k n) matrix per lane."""
        layout, like = self.layout, self._like()
        xp, width = namespace(like), layout.lane_width
        units = xp.eye(width, dtype=like.dtype)
        shape = (*self.leading, *layout.lanes, width)
        vectors = [layout.from_lane_vectors(xp.broadcast_to(unit, shape)) for unit in units]
        return LaneDense(xp.stack([layout.lane_vectors(self.matvec(v)) for v in vectors], axis=-1), layout)

    def transpose(self) -> Jacobian:
        """Return J[t]^T."""
        return self.lane_dense().transpose()

    def rmatvec(self, v: Array) -> Array:
        """Return J[t]^T v[t] for all t, shape as ``v``."""
        return self.transpose().matvec(v)

    def _product(self, earlier: Any) -> Jacobian:
        """Return self[t] earlier[t] for two Jacobians of the same type."""
        return self.lane_dense()._product(earlier.lane_dense())

    def compose(self, earlier: Jacobian) -> Jacobian:
        """Return the product self[t] earlier[t], in the smallest structure of the chain that holds both."""
        if type(self) is Zero or type(earlier) is Identity:
            return self
        if type(earlier) is Zero or type(self) is Identity:
            return earlier
        rank = max(self.rank, earlier.rank)
        return _lift(self, rank)._product(_lift(earlier, rank))  # type: ignore[no-any-return]

    def scale(self, factor: float) -> Jacobian:
        """Return factor J[t]."""
        return self.lane_dense().scale(factor)

    def diagonal(self) -> Diagonal:
        """Return the diagonal of J[t]."""
        return self.lane_dense().diagonal()

    def block(self) -> Jacobian:
        """Return the k x k block of each unit (the diagonal when k = 1)."""
        return self.lane_dense().block()

    def todense(self) -> Array:
        """Return the full matrices (T, *batch, N, N), N numbers per state. Meant for tests and small states."""
        dense = self.lane_dense()
        lanes, width = self.layout.lanes, self.layout.lane_width
        xp, n_lanes = namespace(dense.data), int(np.prod(lanes))
        matrix = dense.data.reshape(*self.leading, n_lanes, width, width)
        full = xp.zeros((*self.leading, n_lanes, width, n_lanes, width), dtype=matrix.dtype)
        for lane in range(n_lanes):
            full[..., lane, :, lane, :] = matrix[..., lane, :, :]
        return full.reshape(*self.leading, n_lanes * width, n_lanes * width)[(..., *_state_order(self.layout))]  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(leading {self.leading}, {self.layout})"


_DERIVED = (
    "rank", "composable", "lane_dense", "transpose", "rmatvec", "_product", "scale", "diagonal", "block"
)  # fmt: skip


def _fits(owner: Jacobian, name: str, seen: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raise ValueError unless a shape ends as it should."""
    if len(seen) < len(wanted) or tuple(seen[len(seen) - len(wanted) :]) != wanted:
        ends = "".join(f", {n}" for n in wanted)
        raise ValueError(
            f"{name} of {type(owner).__name__} has shape {tuple(seen)}; wanted (T, *batch{ends}) for {owner.layout}"
        )


def _state_order(layout: Layout) -> tuple[Array, Array]:
    """Index that takes a matrix ordered by lane, component, unit to the order of a flattened state."""
    position = layout.lane_vectors(np.arange(layout.size).reshape(layout.event)).ravel()
    order = np.argsort(position)
    return order[:, None], order[None, :]


def _lift(jacobian: Jacobian, rank: int) -> Any:
    """Embed a Jacobian exactly in the structure of a higher rank."""
    if jacobian.rank >= rank:
        return jacobian
    if rank == Diagonal.rank:
        return jacobian.diagonal()
    return jacobian.block() if rank == Block.rank else jacobian.lane_dense()


class _Simple(Jacobian):
    """What Zero and Identity share: no entries, only a shape, a dtype and a namespace carried by ``like``."""

    def __init__(self, like: Array, layout: Layout):
        self.like = like  # any array of the shape and dtype of the states
        self.layout = layout
        self.check()

    def check(self) -> None:
        _fits(self, "like", self.like.shape, self.layout.event)

    @property
    def leading(self) -> tuple[int, ...]:
        return self.layout.leading(self.like)

    def __getitem__(self, index: slice | Array | int) -> Self:
        return changed(self, like=self.like[index])

    def transpose(self) -> Jacobian:
        return self

    def scale(self, factor: float) -> Jacobian:
        return self.diagonal().scale(factor)

    def _product(self, earlier: Self) -> Jacobian:
        return earlier

    def block(self) -> Jacobian:
        return self.diagonal().block()

    def lane_dense(self) -> LaneDense:
        return self.diagonal().lane_dense()


class Zero(_Simple):
    """J[t] = 0: the state does not depend on the one before it."""

    rank, composable = 0, True

    def matvec(self, v: Array) -> Array:
        return namespace(v).zeros_like(v)  # type: ignore[no-any-return]

    def diagonal(self) -> Diagonal:
        return Diagonal(namespace(self.like).zeros_like(self.like), self.layout)


class Identity(_Simple):
    """J[t] = I."""

    rank, composable = 1, True

    def matvec(self, v: Array) -> Array:
        return v

    def diagonal(self) -> Diagonal:
        return Diagonal(namespace(self.like).ones_like(self.like), self.layout)


class _Entries(Jacobian):
    """What the structures that hold an array of entries share."""

    def __init__(self, data: Array, layout: Layout):
        self.data = data
        self.layout = layout
        self.check()

    def check(self) -> None:
        _fits(self, "data", self.data.shape, self._event)

    @property
    def _event(self) -> tuple[int, ...]:
        """The shape of the entries of one step and sequence."""
        return self.layout.event

    def scale(self, factor: float) -> Jacobian:
        return changed(self, data=factor * self.data)

    def __getitem__(self, index: slice | Array | int) -> Self:
        return changed(self, data=self.data[index])


class Scalar(_Entries):
    """J[t] = a[t] I, with entries (T, *batch)."""

    rank, composable = 2, True

    @property
    def _event(self) -> tuple[int, ...]:
        return ()

    @property
    def leading(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    def _spread(self) -> Array:
        return self.data.reshape(self.data.shape + (1,) * len(self.layout.event))

    def matvec(self, v: Array) -> Array:
        return self._spread() * v

    def transpose(self) -> Jacobian:
        return self

    def _product(self, earlier: Self) -> Jacobian:
        return Scalar(self.data * earlier.data, self.layout)

    def diagonal(self) -> Diagonal:
        spread = self._spread()
        return Diagonal(namespace(spread).broadcast_to(spread, self.leading + self.layout.event), self.layout)

    def block(self) -> Jacobian:
        return self.diagonal().block()

    def lane_dense(self) -> LaneDense:
        return self.diagonal().lane_dense()


class Diagonal(_Entries):
    """J[t] = diag(a[t]), with entries of the shape of the states."""

    rank, composable = 3, True

    @property
    def leading(self) -> tuple[int, ...]:
        return self.layout.leading(self.data)

    def matvec(self, v: Array) -> Array:
        return self.data * v

    def clip(self, low: float, high: float) -> Diagonal:
        """Return the diagonal with its entries clamped; NaN stays NaN."""
        return Diagonal(self.data.clip(low, high), self.layout)

    def transpose(self) -> Jacobian:
        return self

    def _product(self, earlier: Self) -> Jacobian:
        return Diagonal(self.data * earlier.data, self.layout)

    def diagonal(self) -> Diagonal:
        return self

    def block(self) -> Jacobian:
        k = self.layout.components
        if k == 1:
            return self
        axis = len(self.leading)
        shape = (*self.leading, k, k, *self.layout.event[1:])
        blocks = namespace(self.data).zeros(shape, dtype=self.data.dtype)
        for i in range(k):
            blocks[(slice(None),) * axis + (i, i)] = self.layout.component(self.data, i)
        return Block(blocks, self.layout)

    def lane_dense(self) -> LaneDense:
        vectors = self.layout.lane_vectors(self.data)
        xp, width = namespace(vectors), self.layout.lane_width
        return LaneDense(vectors[..., None] * xp.eye(width, dtype=vectors.dtype), self.layout)


class Block(_Entries):
    """One k x k block per unit: entries (T, *batch, k, k, *lanes, n), [i, j] = d h'_i / d h_j."""

    rank, composable = 4, True

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


class LaneDense(_Entries):
    """One dense matrix per lane: entries (T, *batch, *lanes, k n, k n)."""

    rank = 5
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
