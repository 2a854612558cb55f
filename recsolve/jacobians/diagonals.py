"""Structures whose entries multiply a state one by one: Zero, Identity, Scalar and Diagonal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.base.overriding import changed
from recsolve.jacobians.jacobian import STRUCTURES, Entries, Jacobian, fits, structure

if TYPE_CHECKING:
    from recsolve.jacobians.matrices import LaneDense


class _Simple(Jacobian):
    """What Zero and Identity share: no entries, only a shape, a dtype and a namespace carried by ``like``."""

    def __init__(self, like: Array, layout: Layout):
        if not hasattr(like, "shape"):
            raise TypeError(f"like of {type(self).__name__} is {type(like).__name__}; wanted an array")
        self.like = like  # any array of the shape and dtype of the states
        self.layout = layout
        self.check()

    def check(self) -> None:
        fits(self, "like", self.like.shape, self.layout.event)

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


@structure
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


@structure
class Identity(_Simple):
    """J[t] = I.

    Parameters
    ----------
    like, layout
        As for :class:`Zero`, with the same errors.

    Raises
    ------
    ValueError
        When the shape of ``like`` does not end in the event of the layout.

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


@structure
class Scalar(Entries):
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


@structure
class Diagonal(Entries):
    """J[t] = diag(a[t]), entries in the shape of the states.

    Parameters
    ----------
    data : array, shape (T, *batch, *event)
        a, float32 or float64; 1 in place of a number of the event stands for all.
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

    def between(self, rows: Array, columns: Array) -> Jacobian:
        return Diagonal(self.data * (rows * columns), self.layout)

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
        return STRUCTURES["Block"](blocks, self.layout)  # type: ignore[no-any-return]

    def lane_dense(self) -> LaneDense:
        vectors = self.layout.lane_vectors(self.data)
        xp, width = namespace(vectors), self.layout.lane_width
        return STRUCTURES["LaneDense"](vectors[..., None] * xp.eye(width, dtype=vectors.dtype), self.layout)  # type: ignore[no-any-return]
