"""Monoids for special states: sums of exponentials, points of a projective line, members of a finite set."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import FLOATS, Array, namespace
from recsolve.kernels.monoids.elementwise import Base, Restarting, given

INTEGERS = tuple(np.dtype(name) for name in ("uint8", "int8", "int16", "int32", "int64"))


class LogSumExp(Base):
    """(M, S) -> (M', S') with S' e^M' = S e^M + s e^m and M' = max(M, m): running sums of exponentials.

    Elements are a pair (m, s); a state has the two numbers on an axis of its own, the last, and M + log S is the
    logarithm of the sum. With S and s the sums of values weighted by e^m, S / S of weights alone is a softmax mean. No
    exponential overflows; m = -inf adds nothing. A cut step gives (m, s). NaN propagates. M is exact, S is rounded at
    every step (Milakov and Gimelshein, arXiv 1805.02867, the online softmax).
    """

    name, letters = "logsumexp", ("m", "s")

    def like(self, elements: tuple[Array, Array]) -> Array:
        m = elements[0]
        return namespace(m).broadcast_to(m[..., None], (*m.shape, 2))  # type: ignore[no-any-return]

    def act(self, elements: tuple[Array, Array], states: Array) -> Array:
        return self._stacked(self.compose(elements, (states[..., 0], states[..., 1])))

    def compose(self, later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        (m2, s2), (m1, s1) = later, earlier
        m = np.maximum(m1, m2)
        return m, s1 * self._weight(m1, m) + s2 * self._weight(m2, m)

    def _weight(self, m: Array, greatest: Array) -> Array:
        """Return e^(m - greatest), selected to 1 for equals because inf - inf is NaN."""
        return namespace(m).where(m == greatest, m.dtype.type(1), np.exp(m - greatest))  # type: ignore[no-any-return]

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


class Moebius(Restarting):
    """x -> (a x + b) / (c x + d) on the projective line, where inf (of either sign) goes to a / c.

    Elements are (a, b, c, d). Composition is that of 2 x 2 matrices, each scaled by a power of two, which changes no
    map and no digit, so that products neither overflow nor vanish. A cut step acts on ``initial``. NaN propagates.
    Every step rounds. Where all entries and states are positive nothing cancels, and a scan is as accurate as the
    loop; near a pole neither is.
    """

    name, letters, dtypes = "moebius", ("a", "b", "c", "d"), FLOATS

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


class FiniteMap(Restarting):
    """i -> e[i] for states i of 0, ..., n - 1: automata, permutations, lookups. Exact.

    Elements are a tuple (e,) of one integer array (T, ..., n): e[t, ..., i] is where state i goes. Composition is a
    gather of n numbers, so a scan does n times the work of the loop (Hillis and Steele, CACM 29, 1986; Ladner and
    Fischer, JACM 27, 1980). A cut step acts on ``initial``.
    """

    name, letters, dtypes = "finite_map", ("e",), INTEGERS

    def prepare(self, elements: Any) -> tuple[Array]:
        (e,) = given(self.name, self.letters, elements)
        if e.ndim < 2 or not e.shape[-1]:
            raise ValueError(f"elements (e,) has shape {e.shape}; wanted (T, ..., n) with n of 1 or more")
        _check_range("elements (e,)", e, e.shape[-1])
        return (e,)

    def like(self, elements: tuple[Array]) -> Array:
        return elements[0][..., 0]

    def act(self, elements: tuple[Array], states: Array) -> Array:
        (e,), xp = elements, namespace(states)
        from_states = xp.broadcast_to(states, e.shape[:-1])[..., None]
        return xp.take_along_axis(e, from_states, axis=-1)[..., 0]  # type: ignore[no-any-return]

    def compose(self, later: tuple[Array], earlier: tuple[Array]) -> tuple[Array]:
        return (namespace(later[0]).take_along_axis(later[0], earlier[0], axis=-1),)

    def identity(self, elements: tuple[Array]) -> tuple[Array]:
        (e,) = elements
        xp = namespace(e)
        return (xp.broadcast_to(xp.arange(e.shape[-1], dtype=e.dtype), e.shape),)

    def check_initial(self, elements: tuple[Array], initial: Array) -> None:
        _check_range("initial", initial, elements[0].shape[-1])


def _check_range(name: str, x: Array, n: int) -> None:
    """Refuse states that do not exist. On a GPU this waits for two numbers."""
    if x.size and not (int(x.min()) >= 0 and int(x.max()) < n):
        raise ValueError(f"{name} has states from {int(x.min())} to {int(x.max())}; wanted 0 to {n - 1}")
