"""Sums with bounds."""

from __future__ import annotations

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.kernels.monoids.cuda_map import SingleMap
from recsolve.kernels.monoids.monoid import Monoid, exact_range


class SaturatingAdd(Monoid):
    """x -> max(min(x + d, hi), lo): a buffer that runs empty and overflows. With d = 0 this is a clamp.

    Elements are a triple (d, lo, hi) of arrays (T, ...), float16, float32 or float64. A cut step acts on ``initial``.
    NaN propagates. Composition: (d1 + d2, clip(lo1 + d2, lo2, hi2), clip(hi1 + d2, lo2, hi2)). Equal to the loop bit
    for bit where no sum of the d rounds: all d, bounds and states multiples of one power of two and less than 2^24
    (float32) or 2^53 (float64) times it, as integers are.

    Raises
    ------
    ValueError
        For other than three arrays of one shape, or without an initial state.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> flow = np.array([3.0, 4.0, -9.0])
    >>> rs.scan("saturating_add", (flow, np.zeros(3), np.full(3, 5.0)), initial=0.0)
    array([3., 5., 0.])
    """

    name, letters, place = "saturating_add", ("d", "lo", "hi"), 4
    cuda = SingleMap("SaturatingAdd", 3, 4, places=(0, 2, 1))

    def act(self, elements: tuple[Array, ...], states: Array) -> Array:
        d, lo, hi = elements
        return np.maximum(np.minimum(states + d, hi), lo)  # type: ignore[no-any-return]

    def compose(self, later: tuple[Array, ...], earlier: tuple[Array, ...]) -> tuple[Array, ...]:
        d, lo, hi = earlier
        return exact_range(d, later[0]), self.act(later, lo), self.act(later, hi)

    def identity(self, elements: tuple[Array, ...]) -> tuple[Array, ...]:
        d, lo, hi = elements
        xp = namespace(d)
        return xp.zeros_like(d), xp.full_like(lo, -np.inf), xp.full_like(hi, np.inf)
