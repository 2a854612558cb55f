"""Monoids of state maps: what a scan composes along time.

An element of a monoid stands for a map h -> e(h) of one step. A monoid says how to *act* with an element on a state,
how to *compose* two elements into one, which element does nothing, and what a step that is cut from its past gives.
Laws: compose is associative, ``identity`` is neutral, and act(compose(b, a), h) = act(b, act(a, h)).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from recsolve.base.arrays import FLOATS, Array, namespace
from recsolve.base.layout import Layout
from recsolve.jacobians import Block, Diagonal, Identity, Jacobian
from recsolve.kernels.monoids.elementwise import STORED, Addition, Base, Clamp, SaturatingAdd
from recsolve.kernels.monoids.semirings import MAX_MIN, MAX_PLUS, MIN_PLUS
from recsolve.kernels.monoids.special import FiniteMap, LogSumExp, Moebius


class Monoid(Protocol):
    """How a scan sees its elements. ``elements`` are opaque to the scan and have time first.

    Attributes
    ----------
    name : str
        In the registry.
    dtypes : tuple of dtype
        What elements may be stored as.
    """

    name: str
    dtypes: tuple[np.dtype[Any], ...]

    def prepare(self, elements: Any) -> Any:
        """Check user elements and return them in the monoid's own form."""

    def like(self, elements: Any) -> Array:
        """Return an array with the shape, dtype and memory order of the result."""

    def take(self, elements: Any, index: Any) -> Any:
        """Select times."""

    def act(self, elements: Any, states: Array) -> Array:
        """Return e[t](states[t])."""

    def compose(self, later: Any, earlier: Any) -> Any:
        """Return the elements of the maps later[t] after earlier[t]."""

    def identity(self, elements: Any) -> Any:
        """Return elements that do nothing, one per time of ``elements``."""

    def constant(self, elements: Any, initial: Array | None) -> Array:
        """Return what a step gives when it is cut from its past: a value, selected rather than multiplied out."""

    def composable(self, elements: Any) -> bool:
        """Return whether composing costs about as much as acting."""

    def mixed(self, elements: Any) -> tuple[int, ...]:
        """Return the axes of a state over which an element mixes numbers, so that they can only be cut together."""

    def check_initial(self, elements: Any, initial: Array) -> None:
        """Raise ValueError for what is no state."""


class Affine(Base):
    """h -> A h + b with structured A. Elements are a pair (A, b); an array A means a diagonal one.

    A cut step gives b (A is selected to 0), so for a recurrence put f(reset state, u[t]) there.
    """

    name, dtypes = "affine", (*STORED, np.dtype(np.complex64), np.dtype(np.complex128))

    def prepare(self, elements: Any) -> tuple[Jacobian, Array]:
        try:
            A, b = elements
        except (TypeError, ValueError):
            raise ValueError("elements of the affine monoid are a pair (A, b)") from None
        if not isinstance(A, Jacobian):
            A, b = np.asarray(A) if np.isscalar(A) else A, np.asarray(b) if np.isscalar(b) else b
            if A.shape != b.shape:
                raise ValueError(f"elements (A, b) have shapes {A.shape} and {b.shape}; wanted equal shapes")
            A = Diagonal(A, Layout(units=b.shape[-1] if b.ndim > 1 else None))
        else:
            A.check()  # its entries may have been exchanged since it was made
            if b.shape != (*A.leading, *A.layout.event):
                raise ValueError(
                    f"elements (A, b): b has shape {b.shape}; wanted {(*A.leading, *A.layout.event)} as A acts on"
                )
        return A, b

    def like(self, elements: tuple[Jacobian, Array]) -> Array:
        return elements[1]

    def take(self, elements: tuple[Jacobian, Array], index: Any) -> tuple[Jacobian, Array]:
        return elements[0][index], elements[1][index]

    def act(self, elements: tuple[Jacobian, Array], states: Array) -> Array:
        return elements[0].matvec(states) + elements[1]

    def compose(self, later: tuple[Jacobian, Array], earlier: tuple[Jacobian, Array]) -> tuple[Jacobian, Array]:
        return later[0].compose(earlier[0]), later[0].matvec(earlier[1]) + later[1]

    def identity(self, elements: tuple[Jacobian, Array]) -> tuple[Jacobian, Array]:
        A, b = elements
        return Identity(b, A.layout), namespace(b).zeros_like(b)

    def constant(self, elements: tuple[Jacobian, Array], initial: Array | None) -> Array:
        return elements[1]

    def composable(self, elements: tuple[Jacobian, Array]) -> bool:
        return elements[0].composable

    def mixed(self, elements: tuple[Jacobian, Array]) -> tuple[int, ...]:
        A = elements[0]
        if not A.layout.event or A.rank < Block.rank:
            return ()
        components = (A.layout.component_axis,) if A.layout.components > 1 else ()
        return (*components, -1) if A.rank > Block.rank else components


class Riccati(Base):
    """K -> A (I + K B)^-1 K A^T + C: how the gain of a Kalman filter moves on.

    Elements are triples (A, C, B) of matrices (..., m, m), C and B symmetric and not negative. K is symmetric with
    eigenvalues in [0, 1) when the elements are those of a filter, so nothing grows; for m = 1 this is a Moebius map. A
    cut step gives C. Composition: Särkkä and García-Fernández, IEEE Trans. Automatic Control 66 (2021), the three of
    its five entries that covariances need.
    """

    name, letters, dtypes = "riccati", ("A", "C", "B"), FLOATS  # it inverts, which halves are too few digits for

    def prepare(self, elements: Any) -> tuple[Array, Array, Array]:
        A, C, B = super().prepare(elements)
        if A.ndim < 3 or A.shape[-1] != A.shape[-2]:
            raise ValueError(f"elements (A, C, B) have shape {A.shape}; wanted (T, ..., m, m)")
        return A, C, B

    def like(self, elements: tuple[Array, ...]) -> Array:
        return elements[1]

    def act(self, elements: tuple[Array, ...], states: Array) -> Array:
        A, C, B = elements
        inner = product(inverse(identity_plus(product(states, B))), states)
        return product(product(A, inner), transpose(A)) + C

    def compose(self, later: tuple[Array, ...], earlier: tuple[Array, ...]) -> tuple[Array, ...]:
        (A2, C2, B2), (A1, C1, B1) = later, earlier
        through = inverse(identity_plus(product(C1, B2)))
        A = product(product(A2, through), A1)
        C = product(product(product(A2, through), C1), transpose(A2)) + C2
        B = product(product(product(transpose(A1), B2), through), A1) + B1
        return A, C, B

    def identity(self, elements: tuple[Array, ...]) -> tuple[Array, ...]:
        A, C, B = elements
        zero = namespace(A).zeros_like
        return identity_plus(zero(A)), zero(C), zero(B)

    def constant(self, elements: tuple[Array, ...], initial: Array | None) -> Array:
        return elements[1]

    def composable(self, elements: tuple[Array, ...]) -> bool:
        return bool(elements[0].shape[-1] == 1)  # B of a composed element grows, and I is lost beside it

    def mixed(self, elements: tuple[Array, ...]) -> tuple[int, ...]:
        return -2, -1


def product(X: Array, Y: Array) -> Array:
    """Return the matrix products X Y, elementwise where matrices are 1 x 1."""
    return X * Y if X.shape[-1] == 1 else X @ Y


def transpose(X: Array) -> Array:
    """Return the transposed matrices."""
    return X.swapaxes(-1, -2)


def identity_plus(X: Array) -> Array:
    """Return I + X."""
    return X + namespace(X).eye(X.shape[-1], dtype=X.dtype)  # type: ignore[no-any-return]


def inverse(X: Array) -> Array:
    """Return the inverse matrices; NaN when rounding has left one of them singular."""
    if X.shape[-1] == 1:
        return 1 / X
    try:
        return namespace(X).linalg.inv(X)  # type: ignore[no-any-return]
    except np.linalg.LinAlgError:
        return namespace(X).full_like(X, np.nan)  # type: ignore[no-any-return]


_ALL: tuple[Any, ...] = (
    Affine(), Clamp(), Addition(), SaturatingAdd(), MAX_MIN, MAX_PLUS, MIN_PLUS, LogSumExp(), Moebius(), FiniteMap(),
    Riccati(),
)  # fmt: skip
MONOIDS: dict[str, Monoid] = {monoid.name: monoid for monoid in _ALL}
