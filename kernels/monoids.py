"""Monoids of state maps: what a scan composes along time.

An element of a monoid stands for a map h -> e(h) of one step. A monoid says how to *act* with an element on a state,
how to *compose* two elements into one, which element does nothing, and what a step that is cut from its past gives.
Laws: compose is associative, ``identity`` is neutral, and act(compose(b, a), h) = act(b, act(a, h)).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from recsolve.arrays import Array, namespace
from recsolve.jacobians import Diagonal, Identity, Jacobian
from recsolve.layout import Layout


class Monoid(Protocol):
    """How a scan sees its elements. ``elements`` are opaque to the scan and have time first."""

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


class Affine:
    """h -> A h + b with structured A. Elements are a pair (A, b); an array A means a diagonal one.

    A cut step gives b (A is selected to 0), so for a recurrence put f(reset state, u[t]) there.
    """

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
        elif A.leading != A.layout.leading(b) or b.shape[len(A.leading) :] != A.layout.event:
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


class Clamp:
    """x -> max(min(r, x), s). Elements are a pair (r, s). Nothing rounds, so scans equal the loop bit for bit.

    Composition (Ronca, arXiv 2605.06384): (r2, s2) after (r1, s1) is (min(r2, r1), max(s2, min(r2, s1))). A cut step
    gives max(min(r, initial), s). NaN propagates.
    """

    def prepare(self, elements: Any) -> tuple[Array, Array]:
        try:
            r, s = elements
        except (TypeError, ValueError):
            raise ValueError("elements of the clamp monoid are a pair (r, s)") from None
        if r.shape != s.shape:
            raise ValueError(f"elements (r, s) have shapes {r.shape} and {s.shape}; wanted equal shapes")
        return r, s

    def like(self, elements: tuple[Array, Array]) -> Array:
        return elements[0]

    def take(self, elements: tuple[Array, Array], index: Any) -> tuple[Array, Array]:
        return elements[0][index], elements[1][index]

    def act(self, elements: tuple[Array, Array], states: Array) -> Array:
        return np.maximum(np.minimum(elements[0], states), elements[1])

    def compose(self, later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        return np.minimum(later[0], earlier[0]), self.act(later, earlier[1])

    def identity(self, elements: tuple[Array, Array]) -> tuple[Array, Array]:
        xp = namespace(elements[0])
        return xp.full_like(elements[0], np.inf), xp.full_like(elements[1], -np.inf)

    def constant(self, elements: tuple[Array, Array], initial: Array | None) -> Array:
        if initial is None:
            raise ValueError("initial is None; the clamp monoid needs a state to clamp")
        return self.act(elements, initial)

    def composable(self, elements: tuple[Array, Array]) -> bool:
        return True


class Riccati:
    """K -> A (I + K B)^-1 K A^T + C: how the gain of a Kalman filter moves on.

    Elements are triples (A, C, B) of matrices (..., m, m), C and B symmetric and not negative. K is symmetric with
    eigenvalues in [0, 1) when the elements are those of a filter, so nothing grows; for m = 1 this is a Moebius map. A
    cut step gives C. Composition: Särkkä and García-Fernández, IEEE Trans. Automatic Control 66 (2021), the three of
    its five entries that covariances need.
    """

    def prepare(self, elements: Any) -> tuple[Array, Array, Array]:
        try:
            A, C, B = elements
        except (TypeError, ValueError):
            raise ValueError("elements of the riccati monoid are a triple (A, C, B)") from None
        shapes = tuple(tuple(e.shape) for e in (A, C, B))
        if len(set(shapes)) > 1 or A.ndim < 3 or A.shape[-1] != A.shape[-2]:
            raise ValueError(f"elements (A, C, B) have shapes {shapes}; wanted equal shapes (T, ..., m, m)")
        return A, C, B

    def like(self, elements: tuple[Array, ...]) -> Array:
        return elements[1]

    def take(self, elements: tuple[Array, ...], index: Any) -> tuple[Array, ...]:
        return tuple(e[index] for e in elements)

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


MONOIDS: dict[str, Monoid] = {"affine": Affine(), "clamp": Clamp(), "riccati": Riccati()}
