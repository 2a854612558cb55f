"""How the gain of a Kalman filter moves on, and the products of matrices that says it."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from recsolve.base.arrays import FLOATS, Array, namespace
from recsolve.base.layout import Layout
from recsolve.jacobians import Jacobian
from recsolve.kernels.monoids.cuda_map import Operands, SingleMap
from recsolve.kernels.monoids.monoid import Monoid, Pull, given


class _Numbers(SingleMap):
    """A map of matrices that are 1 x 1."""

    def operands(self, monoid: str, elements: Any) -> Operands | None:
        return super().operands(monoid, elements) if elements[0].shape[-1] == 1 else None


class Riccati(Monoid):
    """K -> A (I + K B)^-1 K A^T + C: how the gain of a Kalman filter moves on.

    Elements are triples (A, C, B) of matrices (T, ..., m, m), float32 or float64, C and B symmetric and not negative. K
    is symmetric with eigenvalues in [0, 1) when the elements are those of a filter, so nothing grows; for m = 1 this is
    a Moebius map. A cut step gives C. Composition: Särkkä and García-Fernández, IEEE Trans. Automatic Control 66
    (2021), the three of its five entries that covariances need.

    Raises
    ------
    ValueError
        For other than three arrays of one shape, or matrices that are not square.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> A, C, B = np.full((3, 3, 1, 1), 0.5)
    >>> rs.scan("riccati", (A, C, B))[:, 0, 0]
    array([0.5       , 0.6       , 0.61538462])
    """

    name, letters, place = "riccati", ("A", "C", "B"), 11
    dtypes = FLOATS  # it inverts, which halves are too few digits for
    cuda = _Numbers("Riccati", 3, 4, places=(0, 2, 1))

    def prepare(self, elements: Any) -> tuple[Array, Array, Array]:
        for x, letter in zip(given(self.title, self.letters, elements), self.letters, strict=True):
            if x.ndim < 3 or x.shape[-1] != x.shape[-2]:
                raise ValueError(f"elements (A, C, B): {letter} has shape {x.shape}; wanted (T, ..., m, m)")
        A, C, B = super().prepare(elements)
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

    def linearise(self, elements: tuple[Array, ...], before: Array) -> tuple[Jacobian, Pull]:
        """Of the inverse P of I + K B and Q = P K: dQ = P dK (I - B Q) - Q dB Q."""
        A, _, B = elements
        P = inverse(identity_plus(product(before, B)))
        Q = product(P, before)
        J = Congruence(product(A, P), product(identity_plus(-product(B, Q)), transpose(A)))

        def pull(g: Array) -> tuple[Array, Array, Array]:
            into_A = product(product(g, A), transpose(Q)) + product(product(transpose(g), A), Q)
            AQ, QA = product(A, Q), product(Q, transpose(A))
            return into_A, g, -product(product(transpose(AQ), g), transpose(QA))

        return J, pull

    def forget(self, elements: tuple[Array, ...], cotangent: Array) -> tuple[None, Array, None]:
        return None, cotangent, None

    def composable(self, elements: tuple[Array, ...]) -> bool:
        return bool(elements[0].shape[-1] == 1)  # B of a composed element grows, and I is lost beside it

    def mixed(self, elements: tuple[Array, ...]) -> tuple[int, ...]:
        return -2, -1


class Congruence(Jacobian):
    """X -> L X R of matrices, (T, ..., m, m) each: the derivative of a Riccati map."""

    def __init__(self, left: Array, right: Array):
        self.left, self.right = left, right
        self.layout = Layout(lanes=(left.shape[-2],), units=left.shape[-1])

    @property
    def leading(self) -> tuple[int, ...]:
        return tuple(self.left.shape[:-2])

    def __getitem__(self, index: Any) -> Self:
        return type(self)(self.left[index], self.right[index])

    def matvec(self, v: Array) -> Array:
        return product(product(self.left, v), self.right)

    def transpose(self) -> Jacobian:
        return type(self)(transpose(self.left), transpose(self.right))


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
