"""Running sums of exponentials: the online softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.jacobians import Jacobian
from recsolve.kernels.monoids.cuda_map import Operands, SingleMap
from recsolve.kernels.monoids.exponential_sums import linearise_sums, weight
from recsolve.kernels.monoids.monoid import Monoid, Pull


class _Pairs(SingleMap):
    """A map of states that have two numbers on an axis after those of the elements."""

    def operands(self, monoid: str, elements: Any) -> Operands:
        return Operands(monoid, 2, tuple((x, ()) for x in elements), elements[0].ndim)


class LogSumExp(Monoid):
    """(M, S) -> (M', S') with S' e^M' = S e^M + s e^m and M' = max(M, m): running sums of exponentials.

    Elements are a pair (m, s) of arrays (T, ...), float16, float32 or float64; states (..., 2) have the two numbers on
    an axis of their own, the last, and M + log S is the logarithm of the sum. With S and s the sums of values weighted
    by e^m, S / S of weights alone is a softmax mean. No exponential overflows; m = -inf adds nothing. A cut step gives
    (m, s). NaN propagates. M is exact, S is rounded at every step (Milakov and Gimelshein, arXiv 1805.02867, the online
    softmax).

    Raises
    ------
    ValueError
        For other than two arrays of one shape.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.scan("logsumexp", (np.array([800.0, 800.0, 999.0]), np.ones(3)))  # 1 and 2 times e^800, and e^999
    array([[800.,   1.],
           [800.,   2.],
           [999.,   1.]])
    """

    name, letters, place = "logsumexp", ("m", "s"), 8
    cuda = _Pairs("LogSumExp", 2, 3, heavy=True, places=(0, 1))

    def like(self, elements: tuple[Array, Array]) -> Array:
        m = elements[0]
        return namespace(m).broadcast_to(m[..., None], (*m.shape, 2))  # type: ignore[no-any-return]

    def act(self, elements: tuple[Array, Array], states: Array) -> Array:
        return self._stacked(self.compose(elements, (states[..., 0], states[..., 1])))

    def compose(self, later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        (m2, s2), (m1, s1) = later, earlier
        m = np.maximum(m1, m2)
        return m, s1 * weight(m1, m) + s2 * weight(m2, m)

    def identity(self, elements: tuple[Array, Array]) -> tuple[Array, Array]:
        m, s = elements
        xp = namespace(m)
        return xp.full_like(m, -np.inf), xp.zeros_like(s)

    def constant(self, elements: tuple[Array, Array], initial: Array | None) -> Array:
        return self._stacked(elements)

    def _stacked(self, pair: tuple[Array, Array]) -> Array:
        return namespace(pair[0]).stack(pair, axis=-1)  # type: ignore[no-any-return]

    def mixed(self, elements: tuple[Array, Array]) -> tuple[int, ...]:
        return (-1,)

    def linearise(self, elements: tuple[Array, Array], before: Array) -> tuple[Jacobian, Pull]:
        m, s = elements
        J, pull = linearise_sums(before[..., 0], before[..., 1:], m, s[..., None])

        def pull_pair(g: Array) -> tuple[Array, Array]:
            _, into_m, into_s = pull(g)
            return into_m, into_s[..., 0]

        return J, pull_pair

    def forget(self, elements: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
        return cotangent[..., 0], cotangent[..., 1]
