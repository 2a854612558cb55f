"""Monoids of state maps: what a scan composes along time.

An element of a monoid stands for a map h -> e(h) of one step. A monoid says how to *act* with an element on a state,
how to *compose* two elements into one, which element does nothing, and what a step that is cut from its past gives.
Laws: compose is associative, ``identity`` is neutral, and act(compose(b, a), h) = act(b, act(a, h)).
"""

from __future__ import annotations

from math import inf
from typing import Any, ClassVar, Protocol

import numpy as np

from recsolve.base.arrays import FLOATS, Array, namespace
from recsolve.base.overriding import stale
from recsolve.kernels.monoids.cuda_map import CudaMap

STORED = (np.dtype(np.float16), *FLOATS)
_WORDS = {2: "a pair", 3: "a triple"}


class Monoid(Protocol):
    """How a scan sees its elements. ``elements`` are opaque to the scan and have time first.

    Attributes
    ----------
    name : str
        In the registry.
    dtypes : tuple of dtype
        What elements may be stored as. States have the same dtype, float32 for elements in float16.

    Notes
    -----
    Blelloch, "Prefix sums and their applications" (1990).

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.kernels.monoids import MONOIDS
    >>> clamp = MONOIDS["clamp"]
    >>> elements = clamp.prepare((np.array([3.0, 2.0]), np.array([0.0, 1.0])))
    >>> clamp.act(elements, np.array([5.0, 5.0]))
    array([3., 2.])
    >>> clamp.compose(clamp.take(elements, 1), clamp.take(elements, 0))  # max(min(x, 2), 1) after max(min(x, 3), 0)
    (np.float64(2.0), np.float64(1.0))
    """

    name: str
    dtypes: tuple[np.dtype[Any], ...]

    def prepare(self, elements: Any) -> Any:
        """Check user elements and return them in the monoid's own form; raise ValueError for shapes and values."""

    def simplest(self, elements: Any) -> tuple[Monoid, Any]:
        """Return the simplest monoid and elements of the same maps: itself, or one of plain arrays."""

    def like(self, elements: Any) -> Array:
        """Return an array with the shape (T, ...), dtype and memory order of the result."""

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


def _never(self: Any, elements: Any) -> bool:
    return False


class Base:
    """What is common to most monoids. A subclass defines act, compose, identity and constant.

    Attributes
    ----------
    name : str
        What users pass as ``monoid``. A class without one of its own is not entered in the registry.
    letters : tuple of str
        What the arrays of an element are called. They have equal shapes, (T, ...), unless ``prepare`` says otherwise.
    dtypes : tuple of dtype
        What elements may be stored as; by default float16, float32 and float64.
    place : float
        Where it is listed, the smallest first; those without one come last, by name.
    cuda : CudaMap, optional
        The map for GPUs, in ``kernels/cuda/scan/monoids``; see :mod:`recsolve.kernels.monoids.cuda_map`. Without one
        the scan of NumPy runs there.
    """

    name: str
    letters: tuple[str, ...]
    dtypes: tuple[np.dtype[Any], ...] = STORED
    place: ClassVar[float] = inf
    cuda: CudaMap | None = None

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

    def simplest(self, elements: Any) -> tuple[Monoid, Any]:
        return self, elements  # type: ignore[return-value]

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


def given(name: str, letters: tuple[str, ...], elements: Any) -> tuple[Any, ...]:
    """Return the arrays of ``elements`` if they are as many as ``letters``."""
    written = f"({', '.join(letters)}{',' * (len(letters) == 1)})"
    try:
        arrays = tuple(elements)
    except TypeError:
        arrays = ()
    if len(arrays) != len(letters):
        form = _WORDS.get(len(letters), "a tuple")
        seen = f"{len(arrays)} array{'s' * (len(arrays) != 1)}"
        raise ValueError(f"elements of the {name} monoid are {form} {written}; got {seen}")
    return arrays


def exact_range(x: Array, y: Array) -> Array:
    """Return x + y, and NaN where finite numbers overflow: a loop that is bounded in between may not."""
    total = x + y
    xp = namespace(total)
    return xp.where(xp.isinf(total) & xp.isfinite(x) & xp.isfinite(y), total.dtype.type(np.nan), total)  # type: ignore[no-any-return]


MONOIDS: dict[str, Monoid] = {}
"""The monoids by name, in the order in which they are listed; entered when the folder is imported."""
