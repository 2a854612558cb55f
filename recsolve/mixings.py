"""Mixings: the linear maps inside a cell, and the only thing in it that couples units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from recsolve.base.arrays import Array, matmul_last, namespace, to_native
from recsolve.base.overriding import changed, derive, stated

__all__ = ["MIXINGS", "Dense", "Diagonal", "Heads", "Mixing"]


class Mixing(ABC):
    """A linear map on the units of a state, called inside a cell as ``W.name(x)``.

    A mixing of your own is a subclass that defines ``matvec``; nothing else is needed to solve with any method, and
    to differentiate with respect to all but its weight. What else a mixing does is derived from ``matvec``: ``dense``
    applies it to every unit vector, the other methods take that matrix. So a subclass of ``Dense`` that overrides
    ``matvec`` does not keep the transpose of ``Dense``; override what you can do faster. These are the rules:

    - ``matvec(x)`` is linear in x, keeps its shape (..., *lanes, n), and does not couple lanes. A cell refuses one that
      is not 0 at 0; otherwise ``trusted``, ``adjoint`` and ``tangent`` compare it with differences.
    - ``weight`` is the one array that is trained, cast and moved: ``map`` replaces it and keeps all other attributes.
      Where it is not (*lanes, n, n), or (n,), override ``units`` and ``lanes``.
    - The derivative with respect to the weight is unknown, and is refused, until the class defines
      ``weight_cotangent`` (for ``adjoint``) and ``weight_tangent`` (for ``tangent``).
    - Compiled loops and bounds on errors know matrices, not methods. They take a mixing whose class *states its form*
      in its own body: ``form = "dense"`` says that it is exactly the map of its ``weight`` that ``Dense`` is, whatever
      else it does. Subclasses do not inherit the statement. All other mixings are evaluated by NumPy, and
      ``Solution.error_bound`` is inf.

    Parameters
    ----------
    weight : array
        The entries: Diagonal (n,), Heads (H, n, n), Dense (n, n).

    Attributes
    ----------
    form : {"diagonal", "dense", "heads"} or None
        The map that the class states to be.
    weight_ndim : int or None
        Axes that the weight must have, the last two equal; None for any.

    Raises
    ------
    ValueError
        For a weight of another shape.
    TypeError
        For another dtype; and when a subclass is made that overrides ``__call__``, or states an unknown form.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> class Masked(rs.mixings.Dense):
    ...     def __init__(self, weight, mask):
    ...         super().__init__(weight)
    ...         self.mask = mask
    ...     def matvec(self, x):
    ...         return x @ (self.mask * self.weight).T
    ...     def weight_cotangent(self, g, x):
    ...         return self.mask * super().weight_cotangent(g, x)
    >>> W = Masked(np.full((3, 3), 0.5), np.tri(3))
    >>> W.rmatvec(np.ones(3))
    array([1.5, 1. , 0.5])
    >>> cell = rs.cells.Elman.with_weights(mixings={"h": W})
    >>> sol = rs.solve(cell.recurrence(drive={"h": np.ones((50, 3))}))
    >>> sol.success, rs.adjoint(sol, final=np.ones(3)).mixings.h[0, 1]
    (True, np.float64(0.0))
    """

    name: ClassVar[str] = "mixing"
    form: ClassVar[str | None] = None
    weight_ndim: ClassVar[int | None] = None

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if cls.__call__ is not Mixing.__call__:
            raise TypeError(f"{cls.__name__} overrides __call__; wanted matvec, which all users of a mixing call")
        if cls.form not in (None, *_FORMS):
            raise TypeError(f"form of {cls.__name__} is {cls.form!r}; wanted None or one of {', '.join(_FORMS)}")
        derive(cls, Mixing, "matvec", _DERIVED)

    def __init__(self, weight: Any):
        weight = to_native(weight, "weight")
        if self.weight_ndim is not None and (
            weight.ndim != self.weight_ndim or (weight.ndim > 1 and weight.shape[-1] != weight.shape[-2])
        ):
            wanted = ("(n,)", "(n, n)", "(H, n, n)")[self.weight_ndim - 1]
            raise ValueError(f"weight of a {self.name} mixing has shape {weight.shape}; wanted {wanted}")
        self.weight = weight

    @property
    def lanes(self) -> tuple[int, ...]:
        """The lane axes that this mixing gives the state."""
        return ()

    @property
    def units(self) -> int:
        """The width of a lane."""
        return int(self.weight.shape[-1])

    def __call__(self, x: Any) -> Any:
        return self.matvec(x)

    @abstractmethod
    def matvec(self, x: Any) -> Any:
        """Return W x over the last axis, shape as ``x`` (..., *lanes, n)."""

    # What is derived from it -----------------------------------------------------------------------------------

    def dense(self) -> Array:
        """Return W as matrices (*lanes, n, n)."""
        xp, n, lanes = namespace(self.weight), self.units, self.lanes
        units = xp.eye(n, dtype=self.weight.dtype).reshape(n, *(1,) * len(lanes), n)
        return xp.moveaxis(self.matvec(xp.broadcast_to(units, (n, *lanes, n))), 0, -1)  # type: ignore[no-any-return]

    def transpose(self) -> Mixing:
        """Return W^T."""
        return _of_matrices(self.dense().swapaxes(-1, -2))

    def rmatvec(self, x: Array) -> Array:
        """Return W^T x."""
        return self.transpose().matvec(x)  # type: ignore[no-any-return]

    def diagonal(self) -> Array:
        """Return the diagonal of W, shape (*lanes, n)."""
        return namespace(self.weight).diagonal(self.dense(), axis1=-2, axis2=-1)  # type: ignore[no-any-return]

    def hadamard_transpose(self, other: Mixing) -> Mixing:
        """Return the mixing with entries W[a, b] V[b, a], whose product with q is the diagonal of W diag(q) V."""
        return _of_matrices(self.dense() * other.dense().swapaxes(-1, -2))

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        """Return the cotangent of the weight, summed over all leading axes, for y = W x with cotangent g.

        TypeError where it is not known how y depends on the weight, here and in ``weight_tangent``.
        """
        raise TypeError(_UNKNOWN.format(type(self).__name__, "weight_cotangent(g, x)", "gradient of"))

    def weight_tangent(self, tangent: Array, x: Array) -> Array:
        """Return the tangent of y = W x for a tangent of the weight."""
        raise TypeError(_UNKNOWN.format(type(self).__name__, "weight_tangent(tangent, x)", "derivative along"))

    def map(self, function: Any) -> Mixing:
        """Return the same mixing with ``function`` applied to its weight (a dtype or device change)."""
        return changed(self, weight=to_native(function(self.weight), "weight"))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(weight {self.weight.shape} {self.weight.dtype})"


_UNKNOWN = "{} defines matvec and no {}, so the {} its weight is not known; define it"
_FORMS = ("diagonal", "dense", "heads")
_DERIVED = (
    "dense", "transpose", "rmatvec", "diagonal", "hadamard_transpose", "weight_cotangent", "weight_tangent"
)  # fmt: skip


def form_of(mixing: Mixing) -> str | None:
    """Return which map of its weight a mixing is, if its class states that; what it states is never inherited."""
    return stated(mixing, "form")  # type: ignore[no-any-return]


def couples(mixing: Mixing) -> bool:
    """Return whether a mixing couples units, for all that is known."""
    return form_of(mixing) != "diagonal"


class Diagonal(Mixing):
    """Each unit sees only itself: y = a * x. Elementwise, so cells inline it.

    Parameters
    ----------
    weight : array, shape (n,)
        a, float32 or float64.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.mixings.Diagonal(np.array([1.0, 2.0]))(np.ones((5, 2)))[0].tolist()
    [1.0, 2.0]
    """

    name = form = "diagonal"
    weight_ndim = 1

    def matvec(self, x: Any) -> Any:
        return self.weight * x

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        return (g * x).reshape(-1, self.units).sum(axis=0)  # type: ignore[no-any-return]

    def weight_tangent(self, tangent: Array, x: Array) -> Array:
        return tangent * x

    def transpose(self) -> Mixing:
        return self

    def diagonal(self) -> Array:
        return self.weight  # type: ignore[no-any-return]

    def dense(self) -> Array:
        return namespace(self.weight).eye(self.units, dtype=self.weight.dtype) * self.weight  # type: ignore[no-any-return]


class _Matrices(Mixing):
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
        return _of_matrices(tangent).matvec(x)  # type: ignore[no-any-return]


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


def _of_matrices(weight: Array) -> Mixing:
    """Return the mixing of matrices (*lanes, n, n)."""
    return {2: Dense, 3: Heads}.get(weight.ndim, _PerLane)(weight)


MIXINGS: dict[str, type[Mixing]] = {m.name: m for m in (Diagonal, Heads, Dense)}


def make(kind: str, hidden_size: int, heads: int | None, draw: Any) -> Mixing:
    """Return a mixing of ``kind`` for ``hidden_size`` units in all, with weights from ``draw(shape)``.

    Raises
    ------
    ValueError
        For an unknown kind, or heads that do not divide the units.
    """
    if kind not in MIXINGS:
        raise ValueError(f"mixing is {kind!r}; wanted one of {', '.join(MIXINGS)}")
    if kind != "heads":
        if heads is not None:
            raise ValueError(f"heads is {heads} with mixing {kind!r}; heads belongs to mixing='heads'")
        shape: tuple[int, ...] = (hidden_size,) if kind == "diagonal" else (hidden_size, hidden_size)
        return MIXINGS[kind](draw(shape))
    heads = 4 if heads is None else heads
    if heads < 1 or hidden_size % heads:
        raise ValueError(f"heads is {heads}; wanted a divisor of hidden_size {hidden_size}")
    return Heads(draw((heads, hidden_size // heads, hidden_size // heads)))
