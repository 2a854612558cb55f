"""Clamps, which do not round."""

from __future__ import annotations

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.kernels.monoids.cuda_map import SingleMap
from recsolve.kernels.monoids.monoid import Monoid


class Clamp(Monoid):
    """x -> max(min(r, x), s). Nothing rounds, so scans equal the loop bit for bit.

    Elements are a pair (r, s) of arrays (T, ...), float16, float32 or float64. A cut step gives
    max(min(r, initial), s). NaN propagates. Composition: (r2, s2) after (r1, s1) is
    (min(r2, r1), max(s2, min(r2, s1))); Ronca, arXiv 2605.06384.

    Raises
    ------
    ValueError
        For other than two arrays of one shape, or without an initial state.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.scan("clamp", (np.array([3.0, 9.0, 9.0]), np.array([0.0, 4.0, 0.0])), initial=5.0)
    array([3., 4., 4.])
    """

    name, letters, place = "clamp", ("r", "s"), 2
    cuda = SingleMap("Clamp", 2, 3, places=(0, 1))

    def act(self, elements: tuple[Array, Array], states: Array) -> Array:
        return np.maximum(np.minimum(elements[0], states), elements[1])

    def compose(self, later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        return np.minimum(later[0], earlier[0]), self.act(later, earlier[1])

    def identity(self, elements: tuple[Array, Array]) -> tuple[Array, Array]:
        xp = namespace(elements[0])
        return xp.full_like(elements[0], np.inf), xp.full_like(elements[1], -np.inf)
