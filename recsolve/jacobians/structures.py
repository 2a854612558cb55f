"""Structured Jacobians: the structure is the type.

A Jacobian holds J[t] = d h[t] / d h[t-1] for all t at once. Each structure is closed under composition, and the order
Zero < Identity < Scalar < Diagonal < Block < LaneDense is inclusion. ``diagonal``, ``block`` and ``lane_dense`` convert
along it: upwards exactly, downwards by keeping that part of the matrix.

A structure of your own is a subclass with ``matvec``. If it overrides the ``matvec`` of a structure here, all else is
derived from it by products with unit vectors, and scans step through time with it: they recognise the structures of
this file by their exact types.

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
    """J[t] = d h[t] / d h[t-1] for every t, acting on states (T, *batch, *event).

    A subclass defines ``matvec``, ``leading`` and ``__getitem__``; all else is derived from products with unit vectors,
    in the dtype of its array ``data`` or ``like``.

    Attributes
    ----------
    layout : Layout
        The event axes of the states it acts on.
    composable : bool
        Whether products stay in a structure that is cheap to compose, so that scans may run chunks side by side.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> J = rs.jacobians.Diagonal(np.full((5, 3), 0.5), rs.Layout(units=3))
    >>> J, J.matvec(np.ones((5, 3)))[0].tolist()
    (Diagonal(leading (5,), Layout(components=1, lanes=(), units=3)), [0.5, 0.5, 0.5])
    """

    layout: Layout
    # For a structure that has products only: last in the order of inclusion, and no scan of chunks.
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
        """Return the Jacobian at some times: ``index`` selects along the first axis."""

    @abstractmethod
    def matvec(self, v: Array) -> Array:
        """Return J[t] v[t] for all t.

        Parameters
        ----------
        v : array, shape (T, *batch, *event)
            In the dtype of J.

        Returns
        -------
        array, shape (T, *batch, *event)

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> J = rs.jacobians.LaneDense(np.array([[[1.0, 2.0], [3.0, 4.0]]]), rs.Layout(units=2))
        >>> J.matvec(np.array([[1.0, 10.0]]))
        array([[21., 43.]])
        """

    def check(self) -> None:
        """Raise ValueError unless the entries fit the layout; compiled loops index by it."""
        return

    # What is derived from matvec -------------------------------------------------------------------------------

    def _like(self) -> Array:
        """Return an array of the dtype and kind of the entries."""
        for name in ("data", "like"):
            if name in vars(self):
                return vars(self)[name]  # type: ignore[no-any-return]
        raise TypeError(f"{type(self).__name__} has neither data nor like to derive matrices from; define lane_dense")

    def lane_dense(self) -> LaneDense:
        """Return J[t] as one matrix per lane: :class:`LaneDense`, (T, *batch, *lanes, k n, k n).

        Raises
        ------
        TypeError
            For a subclass that has neither ``data`` nor ``like``.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rs.jacobians.Diagonal(np.array([[2.0, 3.0]]), rs.Layout(units=2)).lane_dense().data
        array([[[2., 0.],
                [0., 3.]]])
        """
        layout, like = self.layout, self._like()
        xp, width = namespace(like), layout.lane_width
        units = xp.eye(width, dtype=like.dtype)
        shape = (*self.leading, *layout.lanes, width)
        vectors = [layout.from_lane_vectors(xp.broadcast_to(unit, shape)) for unit in units]
        return LaneDense(xp.stack([layout.lane_vectors(self.matvec(v)) for v in vectors], axis=-1), layout)

    def transpose(self) -> Jacobian:
        """Return J[t]^T as a Jacobian.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> J = rs.jacobians.LaneDense(np.array([[[1.0, 2.0], [3.0, 4.0]]]), rs.Layout(units=2))
        >>> J.transpose().data[0].tolist()
        [[1.0, 3.0], [2.0, 4.0]]
        """
        return self.lane_dense().transpose()

    def rmatvec(self, v: Array) -> Array:
        """Return J[t]^T v[t] for all t, shape and dtype as ``v`` (T, *batch, *event).

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> J = rs.jacobians.LaneDense(np.array([[[1.0, 2.0], [3.0, 4.0]]]), rs.Layout(units=2))
        >>> J.rmatvec(np.array([[1.0, 10.0]]))
        array([[31., 42.]])
        """
        return self.transpose().matvec(v)

    def _product(self, earlier: Any) -> Jacobian:
        """Return self[t] earlier[t] for two Jacobians of the same type."""
        return self.lane_dense()._product(earlier.lane_dense())

    def compose(self, earlier: Jacobian) -> Jacobian:
        """Return the product self[t] earlier[t], in the smallest structure that holds both.

        Parameters
        ----------
        earlier : Jacobian
            Of the same layout and leading shape; it acts first.

        Returns
        -------
        Jacobian

        Notes
        -----
        Affine maps with these products form a monoid, which a parallel scan needs: Blelloch 1990.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> layout = rs.Layout(units=2)
        >>> scalar = rs.jacobians.Scalar(np.array([3.0]), layout)
        >>> scalar.compose(rs.jacobians.Diagonal(np.array([[1.0, 2.0]]), layout)).data
        array([[3., 6.]])
        """
        if type(self) is Zero or type(earlier) is Identity:
            return self
        if type(earlier) is Zero or type(self) is Identity:
            return earlier
        rank = max(self.rank, earlier.rank)
        return _lift(self, rank)._product(_lift(earlier, rank))  # type: ignore[no-any-return]

    def scale(self, factor: float) -> Jacobian:
        """Return factor J[t] as a Jacobian.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rs.jacobians.Scalar(np.array([3.0, 4.0]), rs.Layout(units=2)).scale(0.5).data
        array([1.5, 2. ])
        """
        return self.lane_dense().scale(factor)

    def diagonal(self) -> Diagonal:
        """Return the diagonal of J[t]: :class:`Diagonal`, entries (T, *batch, *event).

        Notes
        -----
        Quasi-DEER iterates with it: Gonzalez et al., NeurIPS 2024 (arXiv 2407.19115).

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rs.jacobians.LaneDense(np.array([[[1.0, 2.0], [3.0, 4.0]]]), rs.Layout(units=2)).diagonal().data
        array([[1., 4.]])
        """
        return self.lane_dense().diagonal()

    def block(self) -> Jacobian:
        """Return the k x k block of each unit: :class:`Block`, or :class:`Diagonal` when k = 1.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> J = rs.jacobians.LaneDense(np.ones((5, 6, 6)), rs.Layout(components=2, units=3))
        >>> J.block().data.shape
        (5, 2, 2, 3)
        """
        return self.lane_dense().block()

    def todense(self) -> Array:
        """Return the full matrices, shape (T, *batch, N, N), N numbers per state. Meant for tests and small states.

        Rows and columns are in the order of a flattened state.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> J = rs.jacobians.Identity(np.zeros((5, 2, 3)), rs.Layout(lanes=(2,), units=3))
        >>> J.todense().shape
        (5, 6, 6)
        """
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
    """J[t] = 0: the state does not depend on the one before it.

    Parameters
    ----------
    like : array
        Any array of the shape and dtype of the states (T, *batch, *event); its values are not used.
    layout : Layout

    Raises
    ------
    ValueError
        When the shape of ``like`` does not end in the event of the layout.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.jacobians.Zero(np.ones((5, 3)), rs.Layout(units=3)).matvec(np.ones((5, 3))).sum()
    np.float64(0.0)
    """

    rank, composable = 0, True

    def matvec(self, v: Array) -> Array:
        return namespace(v).zeros_like(v)  # type: ignore[no-any-return]

    def diagonal(self) -> Diagonal:
        return Diagonal(namespace(self.like).zeros_like(self.like), self.layout)


class Identity(_Simple):
    """J[t] = I. Parameters and errors as for :class:`Zero`.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.jacobians.Identity(np.ones((1, 2)), rs.Layout(units=2)).todense()
    array([[[1., 0.],
            [0., 1.]]])
    """

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
    """J[t] = a[t] I, one number per step and sequence.

    Parameters
    ----------
    data : array, shape (T, *batch)
        a, float32 or float64.
    layout : Layout

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.jacobians.Scalar(np.array([2.0, 3.0]), rs.Layout(units=2)).matvec(np.ones((2, 2)))
    array([[2., 2.],
           [3., 3.]])
    """

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
    """J[t] = diag(a[t]), entries in the shape of the states.

    Parameters
    ----------
    data : array, shape (T, *batch, *event)
        a, float32 or float64.
    layout : Layout

    Raises
    ------
    ValueError
        When the shape of ``data`` does not end in the event of the layout.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.jacobians.Diagonal(np.array([[2.0, 3.0]]), rs.Layout(units=2)).matvec(np.ones((1, 2)))
    array([[2., 3.]])
    """

    rank, composable = 3, True

    @property
    def leading(self) -> tuple[int, ...]:
        return self.layout.leading(self.data)

    def matvec(self, v: Array) -> Array:
        return self.data * v

    def clip(self, low: float, high: float) -> Diagonal:
        """Return the diagonal with its entries clamped to [low, high]; NaN stays NaN.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rs.jacobians.Diagonal(np.array([[2.0, -3.0]]), rs.Layout(units=2)).clip(-1, 1).data
        array([[ 1., -1.]])
        """
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
    """One k x k block per unit, for k components: what cells with diagonal mixings have.

    Parameters
    ----------
    data : array, shape (T, *batch, k, k, *lanes, n)
        [i, j] = d h'_i / d h_j, float32 or float64.
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
    """One dense matrix per lane, which couples all components and units of the lane.

    Parameters
    ----------
    data : array, shape (T, *batch, *lanes, k n, k n)
        Ordered by component, then unit; float32 or float64.
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
