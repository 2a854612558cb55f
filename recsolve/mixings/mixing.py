"""The base of mixings: what a linear map of units is, and what follows from ``matvec``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from recsolve.base.arrays import Array, namespace, to_host, to_native
from recsolve.base.links import sever, to_linked
from recsolve.base.overriding import changed, derive, stated


class Mixing(ABC):
    """A linear map on the units of a state, called inside a cell as ``W.name(x)``.

    A mixing of your own is a subclass that defines ``matvec``; nothing else is needed to solve with any method, and
    to differentiate with respect to all but its weight. What else a mixing does is derived from ``matvec``: ``dense``
    applies it to every unit vector, the other methods take that matrix. So a subclass of ``Dense`` that overrides
    ``matvec`` does not keep the transpose of ``Dense``; override what you can do faster. These are the rules:

    - ``matvec(x)`` is linear in x, keeps its shape (..., *lanes, n), and does not couple lanes. A cell refuses one that
      is not 0 at 0; otherwise ``trusted``, ``adjoint`` and ``tangent`` compare it with differences.
    - ``weight`` is the one array that is trained, cast and moved: ``map`` replaces it and keeps all other attributes.
      Where it is not (*lanes, n, n), or (n,), override ``units`` and ``lanes``. Constants follow it to its device:
      ``recsolve.mixings.mixing.beside``.
    - The derivative with respect to the weight is unknown, and is refused, until the class defines
      ``weight_cotangent`` (for ``adjoint``) and ``weight_tangent`` (for ``tangent``); second derivatives want both, and
      ``weight_curvature``.
    - Compiled loops and bounds on errors know matrices, not methods. They take a mixing whose class *states its form*
      in its own body: ``form = "dense"`` says that it is exactly the map of its ``weight`` that ``Dense`` is, whatever
      else it does. Subclasses do not inherit the statement. All other mixings are evaluated by NumPy, and
      ``Solution.error_bound`` is inf.
    - A class that states ``linear = True`` in its own body is not compared with differences, and compiled scans take
      its matrix up to 128 units; subclasses do not inherit that either. The mixings of this package state it.

    :func:`recsolve.testing.check_mixing` tests these rules on a mixing of yours.

    Parameters
    ----------
    weight : array
        The entries: Diagonal (*lanes, n), Heads (H, n, n), Dense (n, n).

    Attributes
    ----------
    form : {"diagonal", "dense", "heads"} or None
        The map that the class states to be.
    linear : bool
        Whether the class states that ``matvec`` is linear, and that what it overrides besides agrees with it.
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
    >>> class Positive(rs.mixings.Dense):  # softplus of the weight
    ...     def matvec(self, x):
    ...         return x @ np.log1p(np.exp(self.weight)).T
    ...     def weight_cotangent(self, g, x):
    ...         return super().weight_cotangent(g, x) / (1 + np.exp(-self.weight))
    >>> W = Positive(np.full((3, 3), -2.0))
    >>> rs.testing.check_mixing(W)
    >>> cell = rs.cells.Elman.with_weights(mixings={"h": W})
    >>> sol = rs.solve(cell.recurrence(drive={"h": np.ones((50, 3))}))
    >>> sol.success, rs.adjoint(sol, final=np.ones(3)).mixings.h.shape
    (True, (3, 3))
    """

    name: ClassVar[str] = "mixing"
    form: ClassVar[str | None] = None
    linear: ClassVar[bool] = False
    weight_ndim: ClassVar[int | None] = None
    moves: bool = False  # whether it is another map at each step, with axes (T, *batch) of its own

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if cls.__call__ is not Mixing.__call__:
            raise TypeError(f"{cls.__name__} overrides __call__; wanted matvec, which all users of a mixing call")
        if cls.form not in (None, *_FORMS):
            raise TypeError(f"form of {cls.__name__} is {cls.form!r}; wanted None or one of {', '.join(_FORMS)}")
        derive(cls, Mixing, "matvec", _DERIVED)

    def __init__(self, weight: Any):
        weight = to_linked(weight, "weight")
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
        return severed(of_matrices(self.dense().swapaxes(-1, -2)), self)

    def rmatvec(self, x: Array) -> Array:
        """Return W^T x."""
        return self.transpose().matvec(x)  # type: ignore[no-any-return]

    def diagonal(self) -> Array:
        """Return the diagonal of W, shape (*lanes, n)."""
        return namespace(self.weight).diagonal(self.dense(), axis1=-2, axis2=-1)  # type: ignore[no-any-return]

    def hadamard_transpose(self, other: Mixing) -> Mixing:
        """Return the mixing with entries W[a, b] V[b, a], whose product with q is the diagonal of W diag(q) V."""
        return severed(of_matrices(self.dense() * other.dense().swapaxes(-1, -2)), self, other)

    @property
    def rounding(self) -> float:
        """How far W x rounds, as a multiple of elementwise arithmetic: a sum of n terms is sqrt(n) ||row of W|| / 8."""
        rows = (self.dense().astype(np.float64) ** 2).sum(axis=-1)
        return float(to_host(rows.max())) ** 0.5 * self.units**0.5 / 8  # type: ignore[no-any-return]

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        """Return the cotangent of the weight, summed over all leading axes, for y = W x with cotangent g.

        TypeError where it is not known how y depends on the weight, here and in ``weight_tangent``.
        """
        raise TypeError(_UNKNOWN.format(type(self).__name__, "weight_cotangent(g, x)", "gradient of"))

    def weight_tangent(self, tangent: Array, x: Array) -> Array:
        """Return the tangent of y = W x for a tangent of the weight."""
        raise TypeError(_UNKNOWN.format(type(self).__name__, "weight_tangent(tangent, x)", "derivative along"))

    def rmatvec_tangent(self, tangent: Array, x: Array) -> Array:
        """Return the tangent of W^T x for a tangent of the weight."""
        xp, n, lanes = namespace(x), self.units, self.lanes
        units = xp.eye(n, dtype=x.dtype).reshape(n, *(1,) * len(lanes), n)
        columns = self.weight_tangent(tangent, xp.broadcast_to(units, (n, *lanes, n)))
        return of_matrices(xp.moveaxis(columns, 0, -2)).matvec(x)  # type: ignore[no-any-return]

    def weight_curvature(self, tangent: Array, g: Array, x: Array) -> Array:
        """Return the derivative of ``weight_cotangent(g, x)`` along a tangent of the weight, for second derivatives.

        It is 0 of a map that is linear in its weight.
        """
        raise TypeError(_UNKNOWN.format(type(self).__name__, "weight_curvature(tangent, g, x)", "second derivative by"))

    def at(self, steps: Any) -> Mixing:
        """Return the mixing at some steps; it is the same at all of them, unless it ``moves``."""
        return self

    def map(self, function: Any) -> Mixing:
        """Return the same mixing with ``function`` applied to its weight (a dtype or device change)."""
        return severed(changed(self, weight=to_native(function(self.weight), "weight")), self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(weight {self.weight.shape} {self.weight.dtype})"


_UNKNOWN = "{} defines matvec and no {}, so the {} its weight is not known; define it"
_FORMS = ("diagonal", "dense", "heads")
_NARROW = 128  # units up to which the product with a matrix costs less than a call from Python
_DERIVED = (
    "dense", "transpose", "rmatvec", "diagonal", "hadamard_transpose", "rounding", "weight_cotangent", "weight_tangent",
    "rmatvec_tangent", "weight_curvature",
)  # fmt: skip


class LinearInWeight(Mixing):
    """What mixings share whose map is linear in its weight as well."""

    def weight_curvature(self, tangent: Array, g: Array, x: Array) -> Array:
        return namespace(tangent).zeros_like(tangent)  # type: ignore[no-any-return]


# The mixings of one matrix per lane, by the axes of their weight; they enter themselves, for their files import this
# one. Any other number of axes has the class of None.
OF_MATRICES: dict[int | None, type[Mixing]] = {}


def of_matrices(weight: Array) -> Mixing:
    """Return the mixing of matrices (*lanes, n, n)."""
    return OF_MATRICES.get(weight.ndim, OF_MATRICES[None])(weight)


def severed(made: Mixing, *of: Mixing) -> Mixing:
    """Return a mixing whose weight was computed of others, to which gradients do not go back."""
    for mixing in of:
        sever(made.weight, mixing.weight)
    return made


def beside(x: Any, weight: Array) -> Any:
    """Return an array as one of the kind of a weight, on its device: the constants of a mixing follow its weight."""
    return namespace(weight).asarray(x if namespace(weight) is namespace(x) else to_host(x))


def form_of(mixing: Mixing) -> str | None:
    """Return which map of its weight a mixing is, if its class states that; what it states is never inherited."""
    return stated(mixing, "form")  # type: ignore[no-any-return]


def from_plain(mixing: Mixing, g: Array) -> Array:
    """Return the cotangent of the weight of a mixing, given that of the weight of :func:`plain_of` it."""
    return mixing.from_plain(g) if stated(mixing, "plain") else g  # type: ignore[attr-defined]


def plain_of(mixing: Mixing) -> Mixing:
    """Return the mixing that is the same map without a mask, if its class states that it has one in ``plain``."""
    return mixing.plain if stated(mixing, "plain") else mixing  # type: ignore[attr-defined]


def states_linear(mixing: Mixing) -> bool:
    """Return whether a mixing is linear and differentiates as it says, if its class states that."""
    within = getattr(mixing, "within", None)  # the mixing that one like Masked is made of
    return form_of(mixing) is not None or (bool(stated(mixing, "linear")) and (within is None or states_linear(within)))


def has_matrix(mixing: Mixing) -> bool:
    """Return whether products with Jacobians may take the matrices of a coupling mixing, (n, n) or (H, n, n), for it.

    Those are its weight, or a small matrix where the class states that it is linear.
    """
    if (form := form_of(mixing)) is not None:
        return form != "diagonal"
    return states_linear(mixing) and mixing.units <= _NARROW and len(mixing.lanes) < 2 and not mixing.moves


def matrix_of(mixing: Mixing) -> Array:
    """Return the matrices of a mixing that :func:`has_matrix`."""
    return mixing.dense() if form_of(mixing) is None else mixing.weight


def couples(mixing: Mixing) -> bool:
    """Return whether a mixing couples units, for all that is known."""
    return form_of(mixing) != "diagonal"
