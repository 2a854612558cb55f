"""The maps that CUDA kernels compose: their C++ types, and what a kernel must know of their sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

STATES = 32  # of a finite set at most: an image takes five bits


class MapType(NamedTuple):
    """The C++ type of a map, the numbers that an element of it has in memory, and those that a composed one has.

    ``weight`` is the size of an affine map that needs as many registers.
    """

    name: str
    numbers: int
    size: int
    weight: int


def _linear(algebra: str) -> Callable[[str, int], MapType]:
    """Return the types of affine maps whose matrices have so many rows."""

    def of(number: str, parts: int) -> MapType:
        square = parts * parts
        name = f"Linear<{number}, {parts}, recsolve::{algebra}<{number}>>"
        size = square + parts + 1
        return MapType(name, square + parts, size, size + (algebra != "Real" and number == "double"))

    return of


def _single(name: str, numbers: int, size: int, *, heavy: bool = False) -> Callable[[str, int], MapType]:
    """Return the types of maps whose sizes are always the same; heavy ones need more registers than that in double."""
    return lambda number, parts: MapType(f"{name}<{number}>", numbers, size, size + (heavy and number == "double"))


def _finite(states: int) -> MapType:
    each = 8 if states <= 16 else 6  # images that fit into a word
    size = -(-states // each) + 2
    return MapType(f"FiniteMap<{states}>", states, size, size)


_TYPES = {
    "affine": _linear("Real"),
    "max_min": _linear("MaxMin"),
    "max_plus": _linear("MaxPlus"),
    "min_plus": _linear("MinPlus"),
    "clamp": _single("Clamp", 2, 3),
    "addition": _single("Addition", 1, 2),
    "saturating_add": _single("SaturatingAdd", 3, 4),
    "complex_affine": _single("ComplexAffine", 4, 5),
    "logsumexp": _single("LogSumExp", 2, 3, heavy=True),
    "moebius": _single("Moebius", 4, 6),
    "riccati": _single("Riccati", 3, 4),
}


@cache
def map_type(name: str, parts: int, number: str) -> MapType:
    """Return the type of a map.

    Parameters
    ----------
    name : str
        A key of the table above, or ``finite_map:n`` for a set of n states.
    parts : int
        Numbers of a state.
    number : str
        The C++ type of the arithmetic.
    """
    kind, _, states = name.partition(":")
    found = _finite(int(states)) if kind == "finite_map" else _TYPES[kind](number, parts)
    return found._replace(name=f"recsolve::{found.name}")
