"""The base of structured Jacobians: the structure is the type.

A Jacobian holds J[t] = d h[t] / d h[t-1] for all t at once. The order Zero < Identity < Scalar < Diagonal < Block <
LaneDense is inclusion, and each of these is closed under composition. ``diagonal``, ``block`` and ``lane_dense``
convert along it: upwards exactly, downwards by keeping that part of the matrix. PermutationDiagonal, LowRank and Banded
lie between Diagonal and LaneDense, beside one another: a product with a diagonal stays what it is, one of two kinds is
dense.

A structure of your own is a subclass with ``matvec``. If it overrides the ``matvec`` of a structure of this package,
all else is derived from it by products with unit vectors, and scans step through time with it: they recognise the
structures of this package by their exact types.

Shapes (T time, k components, n units): Scalar (T, *batch), Diagonal (T, *batch, [k], *lanes, n), Block
(T, *batch, k, k, *lanes, n) with [i, j] = d h'_i / d h_j, LaneDense (T, *batch, *lanes, k n, k n).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.base.overriding import changed, derive

if TYPE_CHECKING:
    from recsolve.jacobians.diagonals import Diagonal
    from recsolve.jacobians.matrices import LaneDense

Structure = TypeVar("Structure", bound="type[Jacobian]")

# The structures that convert into one another, by name. They enter themselves: no file imports those above it.
STRUCTURES: dict[str, Any] = {}


def structure(cls: Structure) -> Structure:
    """Enter a structure among those that others convert to."""
    STRUCTURES[cls.__name__] = cls
    return cls


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
        columns = xp.stack([layout.lane_vectors(self.matvec(v)) for v in vectors], axis=-1)
        return STRUCTURES["LaneDense"](columns, layout)  # type: ignore[no-any-return]

    def transpose(self) -> Jacobian:
        """Return J[t]^T as a Jacobian.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> J = rs.jacobians.LaneDense(np.array([[[1.0, 2.0], [3.0, 4.0]]]), rs.Layout(units=2))
        >>> J.transpose().data[0].tolist(), J.rmatvec(np.array([[1.0, 10.0]]))
        ([[1.0, 3.0], [2.0, 4.0]], array([[31., 42.]]))
        """
        return self.lane_dense().transpose()

    def rmatvec(self, v: Array) -> Array:
        """Return J[t]^T v[t] for all t; shapes and dtypes as those of ``matvec``."""
        return self.transpose().matvec(v)

    def where(self, seen: Array, v: Array) -> Array:
        """Return J[t] v[t] at the steps that see the one before (a mask over states), and 0 at others, selected."""
        return namespace(v).where(seen, self.matvec(v), v.dtype.type(0))  # type: ignore[no-any-return]

    def carry(self, d: Array) -> Array:
        """Return J[t] d[t-1] for all t of an array (T, *batch, *event), where d is 0 before the first."""
        before = namespace(d).empty_like(d)
        before[1:], before[:1] = d[:-1], 0
        return self.matvec(before)

    def _product(self, earlier: Any) -> Jacobian:
        """Return self[t] earlier[t] for two Jacobians of the same type."""
        return self.lane_dense()._product(earlier.lane_dense())

    def _lifted(self, rank: int, other: Jacobian) -> Jacobian:
        """Return this Jacobian, exactly, in the structure of a higher rank, which ``other`` has."""
        diagonal = STRUCTURES["Diagonal"].rank
        if self.rank >= rank:
            return self
        if rank == diagonal:
            return self.diagonal()
        if rank == STRUCTURES["Block"].rank:
            return self.block()
        return other._holding(self.diagonal()) if self.rank <= diagonal else self.lane_dense()

    def _holding(self, diagonal: Diagonal) -> Jacobian:
        """Return a diagonal in this structure."""
        return diagonal.lane_dense()

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
        zero, identity = STRUCTURES["Zero"], STRUCTURES["Identity"]
        if type(self) is zero or type(earlier) is identity:
            return self
        if type(earlier) is zero or type(self) is identity:
            return earlier
        rank = max(self.rank, earlier.rank)
        return self._lifted(rank, earlier)._product(earlier._lifted(rank, self))

    def scale(self, factor: float) -> Jacobian:
        """Return factor J[t] as a Jacobian.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rs.jacobians.Scalar(np.array([3.0, 4.0]), rs.Layout(units=2)).scale(0.5).data
        array([1.5, 2. ])
        """
        return self.lane_dense().scale(factor)

    def between(self, rows: Array, columns: Array) -> Jacobian:
        """Return diag(rows) J[t] diag(columns), of arrays (T, *batch, *event), or with 1 in place of T and batch.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> J = rs.jacobians.LaneDense(np.array([[[1.0, 2.0], [3.0, 4.0]]]), rs.Layout(units=2))
        >>> J.between(np.array([[10.0, 1.0]]), np.array([[1.0, 0.5]])).data[0].tolist()
        [[10.0, 10.0], [3.0, 2.0]]
        """
        return self.lane_dense().between(rows, columns)

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
        """Return the full matrices (T, *batch, N, N) in the order of a flattened state, N numbers; for small states.

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
    "rank", "composable", "lane_dense", "transpose", "rmatvec", "_product", "_holding", "scale", "between", "diagonal",
    "block",
)  # fmt: skip


def fits(owner: Jacobian, name: str, seen: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raise ValueError unless a shape ends as it should."""
    if tuple(seen[len(seen) - len(wanted) :]) != wanted:
        ends = "".join(f", {n}" for n in wanted)
        raise ValueError(
            f"{name} of {type(owner).__name__} has shape {tuple(seen)}; wanted (T, *batch{ends}) for {owner.layout}"
        )


def repeated(x: Array, wanted: tuple[int, ...], own: tuple[int, ...] = ()) -> Array:
    """Return an array of which 1 in place of ``wanted``, among its last axes, stands for all: a view of it.

    Parameters
    ----------
    x : array, shape (..., *wanted)
    wanted : tuple of int
    own : tuple of int
        Places of ``wanted``, from the front or the end, where 1 does not stand for all: rows and columns of matrices.

    Returns
    -------
    array
        ``x`` itself where its shape ends as wanted, or in another way.
    """
    before = x.ndim - len(wanted)
    for i, (seen, full) in enumerate(zip(x.shape[max(before, 0) :], wanted, strict=False)):
        if seen != full and (seen != 1 or i in own or i - len(wanted) in own):
            return x
    return x if before < 0 else namespace(x).broadcast_to(x, tuple(x.shape[:before]) + wanted)


def _state_order(layout: Layout) -> tuple[Array, Array]:
    """Index that takes a matrix ordered by lane, component, unit to the order of a flattened state."""
    position = layout.lane_vectors(np.arange(layout.size).reshape(layout.event)).ravel()
    order = np.argsort(position)
    return order[:, None], order[None, :]


class Entries(Jacobian):
    """What the structures that hold an array of entries share."""

    _own: ClassVar[tuple[int, ...]] = ()  # where 1 does not stand for all, as `repeated` has it

    def __init__(self, data: Array, layout: Layout):
        if not hasattr(data, "shape"):
            raise TypeError(f"data of {type(self).__name__} is {type(data).__name__}; wanted an array")
        self.layout, self.data = layout, data
        event = self._event
        if tuple(data.shape[data.ndim - len(event) :]) != event:
            self.data = repeated(data, event, self._own)
        self.check()

    def check(self) -> None:
        fits(self, "data", self.data.shape, self._event)

    @property
    def _event(self) -> tuple[int, ...]:
        """The shape of the entries of one step and sequence."""
        return self.layout.event

    def scale(self, factor: float) -> Jacobian:
        return changed(self, data=factor * self.data)

    def _mapped(self, function: Callable[[Array], Array]) -> Self:
        """Return the same structure with a function of all its entries: their absolute values, or another dtype."""
        return changed(self, data=function(self.data))

    def __getitem__(self, index: slice | Array | int) -> Self:
        return changed(self, data=self.data[index])
