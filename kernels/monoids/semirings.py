"""Affine maps over semirings in which the sum is a maximum or a minimum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.layout import Layout
from recsolve.jacobians import Jacobian, LaneDense
from recsolve.kernels.monoids.cuda_map import LinearMap
from recsolve.kernels.monoids.monoid import Monoid, Pull, exact_range, given, linear

# Products of matrices that multiply no more numbers than this at a step take less time than the calls that they spare.
_FEW = 128


class Tropical(Monoid):
    """x -> A x + b with a maximum or minimum for the sum, and a sum or minimum for the product.

    Elements are a pair (A, b), float16, float32 or float64: A of the shape of b acts on every number by itself, and A
    (T, ..., n, n) on the last axis of b (T, ..., n), for instance x[i] -> max(b[i], max_j min(A[i, j], x[j])). A cut
    step gives b, as if the state before were the semiring's zero. NaN propagates, in a matrix to all of the rows.
    Composition is that of affine maps (Baccelli, Cohen, Olsder and Quadrat, *Synchronization and Linearity*, 1992,
    section 3).

    Attributes
    ----------
    plus, times : callable
        The operations, which keep NaN.
    zero, one : float
        Their neutral elements.

    Raises
    ------
    ValueError
        For other than two arrays, or shapes that do not fit.
    """

    letters = ("A", "b")
    plus: Callable[[Array, Array], Array]
    times: Callable[[Array, Array], Array]
    zero: float
    one: float

    def prepare(self, elements: Any) -> tuple[Array, Array]:
        return linear(self.letters, given(self.title, self.letters, elements))

    def like(self, elements: tuple[Array, Array]) -> Array:
        return elements[1]

    def act(self, elements: tuple[Array, Array], states: Array) -> Array:
        A, b = elements
        if A.ndim > b.ndim:
            return self.plus(self._sum(self.times(A, states[..., None, :]), b), b)
        return self.plus(self.times(A, states), b)

    def compose(self, later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        A, B = later[0], earlier[0]
        times = exact_range if self.times is np.add else self.times
        if A.ndim > later[1].ndim:
            product = self._sum(times(A[..., :, None, :], B.swapaxes(-1, -2)[..., None, :, :]), A)
        else:
            product = times(A, B)
        return product, self.act(later, earlier[1])

    def identity(self, elements: tuple[Array, Array]) -> tuple[Array, Array]:
        A, b = elements
        xp = namespace(b)
        one, zero = b.dtype.type(self.one), b.dtype.type(self.zero)
        eye = xp.eye(b.shape[-1], dtype=bool) if A.ndim > b.ndim else xp.ones((), dtype=bool)
        return xp.broadcast_to(xp.where(eye, one, zero), A.shape), xp.full_like(b, self.zero)

    def constant(self, elements: tuple[Array, Array], initial: Array | None) -> Array:
        return elements[1]

    def composable(self, elements: tuple[Array, Array]) -> bool:
        A, b = elements
        exact = self.times is not np.add  # products of matrices round sums that the loop does not
        return A.ndim == b.ndim or (exact and A.size * A.shape[-1] <= _FEW * len(A))

    def mixed(self, elements: tuple[Array, Array]) -> tuple[int, ...]:
        return () if elements[0].ndim == elements[1].ndim else (-1,)

    def linearise(self, elements: tuple[Array, Array], before: Array) -> tuple[Jacobian, Pull]:
        """With matrices, those of the paths that win (of several the first), each an elementwise map of its start."""
        A, b = elements
        if A.ndim == b.ndim:
            return super().linearise(elements, before)
        if not A.size:
            return LaneDense(A, Layout(units=A.shape[-1])), lambda g: (A, g)
        xp = namespace(A)
        starts = xp.broadcast_to(before[..., None, :], A.shape)
        paths = self.times(A, starts)
        best = (paths.argmax(axis=-1) if self.plus is np.maximum else paths.argmin(axis=-1))[..., None]
        wins = best == xp.arange(A.shape[-1])

        def won(x: Array) -> Array:
            return xp.take_along_axis(x, best, axis=-1)[..., 0]  # type: ignore[no-any-return]

        def spread_out(x: Array) -> Array:
            return xp.where(wins, x[..., None], x.dtype.type(0))  # type: ignore[no-any-return]

        slopes, pull = super().linearise((won(A), b), won(starts))

        def pull_paths(g: Array) -> tuple[Array | None, ...]:
            into_A, into_b = pull(g)
            assert into_A is not None
            return spread_out(into_A), into_b

        return LaneDense(spread_out(slopes.diagonal().data), Layout(units=A.shape[-1])), pull_paths

    def forget(self, elements: tuple[Array, Array], cotangent: Array) -> tuple[None, Array]:
        return None, cotangent

    def _sum(self, terms: Array, like: Array) -> Array:
        """Add up the last axis; ``like`` is what an empty sum looks like."""
        if not terms.shape[-1]:
            return namespace(like).full_like(like, self.zero)  # type: ignore[no-any-return]
        return terms.max(axis=-1) if self.plus is np.maximum else terms.min(axis=-1)  # type: ignore[no-any-return]


class MaxMin(Tropical):
    """x -> max(b, min(A, x)): the widest path. Nothing rounds; matrices of plus and minus infinity permute.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.scan("max_min", (np.array([9.0, 2.0, 9.0]), np.array([4.0, 1.0, 3.0])))
    array([4., 2., 3.])
    """

    name, place, plus, times, zero, one = "max_min", 5, np.maximum, np.minimum, -np.inf, np.inf
    cuda = LinearMap("MaxMin")


class MaxPlus(Tropical):
    """x -> max(b, A + x): the longest path.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> A = np.array([[[1.0, 5.0], [-np.inf, 2.0]]])  # one step between two nodes
    >>> rs.scan("max_plus", (A, np.full((1, 2), -np.inf)), initial=np.zeros(2))
    array([[5., 2.]])
    """

    name, place, plus, times, zero, one = "max_plus", 6, np.maximum, np.add, -np.inf, 0.0
    cuda = LinearMap("MaxPlus")


class MinPlus(Tropical):
    """x -> min(b, A + x): the shortest path.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.scan("min_plus", (np.ones(3), np.array([4.0, 9.0, 2.0])))
    array([4., 5., 2.])
    """

    name, place, plus, times, zero, one = "min_plus", 7, np.minimum, np.add, np.inf, 0.0
    cuda = LinearMap("MinPlus")
