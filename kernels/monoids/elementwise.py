"""Monoids whose elements are arrays of one shape, each entry of which is a map of its own.

See :mod:`recsolve.kernels.monoids` for what a monoid is, and for the laws.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import FLOATS, Array, namespace
from recsolve.base.overriding import stale

STORED = (np.dtype(np.float16), *FLOATS)
_WORDS = {1: "a tuple", 2: "a pair", 3: "a triple", 4: "a tuple"}


def given(name: str, letters: tuple[str, ...], elements: Any) -> tuple[Array, ...]:
    """Return the arrays of ``elements`` if they are as many as ``letters``."""
    written = f"({', '.join(letters)}{',' * (len(letters) == 1)})"
    try:
        arrays = tuple(elements)
    except TypeError:
        arrays = ()
    if len(arrays) != len(letters):
        raise ValueError(
            f"elements of the {name} monoid are {_WORDS[len(letters)]} {written}; got {len(arrays)} arrays"
        )
    return arrays


def _never(self: Any, elements: Any) -> bool:
    return False


class Base:
    """What is common to most monoids."""

    name: str
    letters: tuple[str, ...]  # the arrays of an element
    dtypes: tuple[np.dtype[Any], ...] = STORED

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if stale(cls, "compose", "act"):  # it composes other maps
            cls.composable = _never  # type: ignore[method-assign]

    def prepare(self, elements: Any) -> Any:
        arrays = given(self.name, self.letters, elements)
        shapes = [tuple(x.shape) for x in arrays]
        if len(set(shapes)) > 1:
            seen = " and ".join(map(str, shapes)) if len(shapes) == 2 else ", ".join(map(str, shapes))
            raise ValueError(f"elements ({', '.join(self.letters)}) have shapes {seen}; wanted equal shapes")
        return arrays

    def like(self, elements: Any) -> Array:
        return elements[0]  # type: ignore[no-any-return]

    def take(self, elements: Any, index: Any) -> Any:
        return tuple(e[index] for e in elements)

    def composable(self, elements: Any) -> bool:
        return True

    def mixed(self, elements: Any) -> tuple[int, ...]:
        return ()

    def check_initial(self, elements: Any, initial: Array) -> None:
        """Accept any state."""


class Restarting(Base):
    """Monoids whose cut steps act on ``initial``: they have no state that stands for an absent past."""

    def act(self, elements: Any, states: Array) -> Array:
        raise NotImplementedError

    def constant(self, elements: Any, initial: Array | None) -> Array:
        if initial is None:
            raise ValueError(f"initial is None; the {self.name} monoid needs a state to act on")
        return self.act(elements, initial)


class Clamp(Restarting):
    """x -> max(min(r, x), s). Elements are a pair (r, s). Nothing rounds, so scans equal the loop bit for bit.

    Composition (Ronca, arXiv 2605.06384): (r2, s2) after (r1, s1) is (min(r2, r1), max(s2, min(r2, s1))). A cut step
    gives max(min(r, initial), s). NaN propagates.
    """

    name, letters = "clamp", ("r", "s")

    def act(self, elements: tuple[Array, Array], states: Array) -> Array:
        return np.maximum(np.minimum(elements[0], states), elements[1])

    def compose(self, later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        return np.minimum(later[0], earlier[0]), self.act(later, earlier[1])

    def identity(self, elements: tuple[Array, Array]) -> tuple[Array, Array]:
        xp = namespace(elements[0])
        return xp.full_like(elements[0], np.inf), xp.full_like(elements[1], -np.inf)


class Addition(Base):
    """x -> x + b: prefix sums. Elements are a tuple (b,) of one array; a cut step gives b.

    Equal to the loop bit for bit where no sum rounds (integers below 2^24 in float32, 2^53 in float64).
    """

    name, letters = "addition", ("b",)

    def act(self, elements: tuple[Array], states: Array) -> Array:
        return states + elements[0]

    def compose(self, later: tuple[Array], earlier: tuple[Array]) -> tuple[Array]:
        return (earlier[0] + later[0],)

    def identity(self, elements: tuple[Array]) -> tuple[Array]:
        return (namespace(elements[0]).zeros_like(elements[0]),)

    def constant(self, elements: tuple[Array], initial: Array | None) -> Array:
        return elements[0]


class SaturatingAdd(Restarting):
    """x -> max(min(x + d, hi), lo). Elements are a triple (d, lo, hi); with d = 0 this is a clamp.

    Composition: (d1 + d2, clip(lo1 + d2, lo2, hi2), clip(hi1 + d2, lo2, hi2)). A cut step acts on ``initial``. NaN
    propagates. Equal to the loop bit for bit where no sum of the d rounds: all d, bounds and states multiples of one
    power of two and less than 2^24 (float32) or 2^53 (float64) times it, as integers are.
    """

    name, letters = "saturating_add", ("d", "lo", "hi")

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


def exact_range(x: Array, y: Array) -> Array:
    """Return x + y, and NaN where finite numbers overflow: a loop that is bounded in between may not."""
    total = x + y
    xp = namespace(total)
    return xp.where(xp.isinf(total) & xp.isfinite(x) & xp.isfinite(y), total.dtype.type(np.nan), total)  # type: ignore[no-any-return]
