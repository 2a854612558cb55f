"""Moebius maps of the projective line."""

from __future__ import annotations

import numpy as np

from recsolve.base.arrays import FLOATS, Array, namespace
from recsolve.kernels.monoids.cuda_map import SingleMap
from recsolve.kernels.monoids.monoid import Monoid


class Moebius(Monoid):
    """x -> (a x + b) / (c x + d) on the projective line, where inf (of either sign) goes to a / c.

    Elements are (a, b, c, d), arrays (T, ...), float32 or float64: it divides, which halves are too few digits for.
    Composition is that of 2 x 2 matrices, each scaled by a power of two, which changes no map and no digit, so that
    products neither overflow nor vanish. A cut step acts on ``initial``. NaN propagates. Every step rounds. Where all
    entries and states are positive nothing cancels, and a scan is as accurate as the loop; near a pole neither is.

    Raises
    ------
    ValueError
        For other than four arrays of one shape, or without an initial state.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> one, zero = np.ones(4), np.zeros(4)
    >>> rs.scan("moebius", (one, one, one, zero), initial=1.0)  # 1 + 1 / x: quotients of Fibonacci's numbers
    array([2.        , 1.5       , 1.66666667, 1.6       ])
    """

    name, letters, place, dtypes = "moebius", ("a", "b", "c", "d"), 9, FLOATS
    cuda = SingleMap("Moebius", 4, 6, places=(0, 1, 2, 3))

    def act(self, elements: tuple[Array, ...], states: Array) -> Array:
        a, b, c, d = elements
        xp = namespace(states)
        far = xp.isinf(states)
        return xp.where(far, a, a * states + b) / xp.where(far, c, c * states + d)  # type: ignore[no-any-return]

    def compose(self, later: tuple[Array, ...], earlier: tuple[Array, ...]) -> tuple[Array, ...]:
        a, b, c, d = self._normal(earlier)
        e, f, g, h = self._normal(later)
        return self._normal((e * a + f * c, e * b + f * d, g * a + h * c, g * b + h * d))

    def _normal(self, entries: tuple[Array, ...]) -> tuple[Array, ...]:
        """Scale by a power of two so that the largest entry lies in [1/2, 1); what is not finite stays so."""
        a, b, c, d = entries
        xp = namespace(a)
        largest = np.maximum(np.maximum(abs(a), abs(b)), np.maximum(abs(c), abs(d)))
        exponent = xp.where(xp.isfinite(largest), xp.frexp(largest)[1], 0)
        return tuple(xp.ldexp(x, -exponent) for x in entries)

    def identity(self, elements: tuple[Array, ...]) -> tuple[Array, ...]:
        xp = namespace(elements[0])
        one, zero = xp.ones_like(elements[0]), xp.zeros_like(elements[0])
        return one, zero, zero, one
