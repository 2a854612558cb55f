"""What CUDA kernels must know of a monoid: the C++ type of its map, how large that is, and which arrays it reads.

The map itself is in ``kernels/cuda/scan/monoids``, in a header that is called like the Python file of the monoid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array

ROWS = 32  # of a matrix at most: the threads of a warp


class MapType(NamedTuple):
    """The C++ type of a map, the numbers that an element of it has in memory, and those that a composed one has.

    ``weight`` is the size of an affine map that needs as many registers.
    """

    name: str
    numbers: int
    size: int
    weight: int


class Operands(NamedTuple):
    """How a map reads its elements.

    Attributes
    ----------
    map : str
        The name of the monoid; ``monoid:argument`` for a map other than its first (see :meth:`CudaMap.of`).
    parts : int
        Numbers of a state in one lane.
    inputs : tuple
        Arrays, and the axes of rows and columns of their elements.
    state : int or None
        The axis of the parts of a state.
    restarts : bool
        Whether cut steps need an initial state, as ``Monoid.restarts`` says.
    """

    map: str
    parts: int
    inputs: tuple[tuple[Array, tuple[int, ...]], ...]
    state: int | None = None
    restarts: bool = False


@dataclass(frozen=True, kw_only=True)
class CudaMap(ABC):
    """What the attribute ``cuda`` of a monoid says. Subclasses of the monoid do not inherit it."""

    def of(self, argument: str) -> CudaMap:
        """Return the map that is called ``monoid:argument``."""
        return self

    def dense(self, parts: int) -> bool:
        """Return whether a state has more parts than one thread holds, so that a warp must walk."""
        return False

    @abstractmethod
    def type_of(self, number: str, parts: int) -> MapType:
        """Return the C++ type, in ``namespace recsolve``, for a type of the arithmetic and the parts of a state."""

    def composes(self, parts: int) -> bool:
        """Return whether a composed map is an element as well, which :meth:`element` gives."""
        return False

    def element(self, elements: Any, numbers: Array, state: int | None) -> Any:
        """Return a composed map as elements of one time, of the structures of ``elements``.

        Parameters
        ----------
        elements : tuple
            Of which the map is composed.
        numbers : array, shape (size, ...)
            Its numbers for all lanes, as maps lie in memory: a, b, and whether it is constant.
        state : int or None
            The axis of the parts of a state, as of :class:`Operands`.
        """
        raise NotImplementedError

    @abstractmethod
    def operands(self, monoid: str, elements: Any) -> Operands | None:
        """Return how prepared elements are read, or None if kernels do not take them."""


@dataclass(frozen=True)
class SingleMap(CudaMap):
    """A map of single numbers: an element has one in each of its arrays.

    Parameters
    ----------
    name : str
        The C++ template, of the type of the arithmetic.
    numbers : int
        Of an element.
    size : int
        Of a composed map: the numbers a and b, and one that says whether it is constant.
    heavy : bool
        Whether it needs more registers than that in double precision.
    places : tuple of int
        Where the arrays of an element that is composed are among these numbers; empty where it is none.

    Examples
    --------
    >>> SingleMap("Clamp", 2, 3).type_of("float", 1)
    MapType(name='Clamp<float>', numbers=2, size=3, weight=3)
    """

    name: str
    numbers: int
    size: int
    heavy: bool = False
    places: tuple[int, ...] = ()

    def type_of(self, number: str, parts: int) -> MapType:
        weight = self.size + (self.heavy and number == "double")
        return MapType(f"{self.name}<{number}>", self.numbers, self.size, weight)

    def operands(self, monoid: str, elements: Any) -> Operands | None:
        if elements[0].dtype.kind == "c":
            return None
        return Operands(monoid, 1, tuple((x, ()) for x in elements))

    def composes(self, parts: int) -> bool:
        return bool(self.places)

    def element(self, elements: Any, numbers: Array, state: int | None) -> Any:
        return tuple(numbers[place][None] for place in self.places)


@dataclass(frozen=True)
class LinearMap(CudaMap):
    """An affine map x -> A x + b, where A is a number, or a matrix that acts on the last axis.

    Parameters
    ----------
    algebra : str
        The C++ template of its sums and products, of the type of the arithmetic.
    heavy : bool
        Whether it needs more registers than sums and products of numbers do, in double precision.
    held : int
        Rows of a matrix that one thread holds.

    Examples
    --------
    >>> LinearMap("MaxMin").type_of("float", 2)
    MapType(name='Linear<float, 2, recsolve::MaxMin<float>>', numbers=6, size=7, weight=7)
    """

    algebra: str
    heavy: bool = True
    held: int = 2

    def dense(self, parts: int) -> bool:
        return parts > self.held

    def type_of(self, number: str, parts: int) -> MapType:
        square = parts * parts
        name = f"Linear<{number}, {parts}, recsolve::{self.algebra}<{number}>>"
        size = square + parts + 1
        return MapType(name, square + parts, size, size + (self.heavy and number == "double"))

    def operands(self, monoid: str, elements: Any) -> Operands | None:
        A, b = elements
        if A.ndim == b.ndim:
            return Operands(monoid, 1, ((A, ()), (b, ())))
        n, last = b.shape[-1], A.ndim - 1
        if not 1 <= n <= ROWS:
            return None
        return Operands(monoid, n, ((A, (last - 1, last)), (b, (last - 1,))), last - 1)

    def composes(self, parts: int) -> bool:
        return not self.dense(parts)

    def element(self, elements: Any, numbers: Array, state: int | None) -> Any:
        if state is None:
            return numbers[:1], numbers[1:2]
        n = elements[1].shape[state]
        matrix = numbers[: n * n].reshape(n, n, *numbers.shape[1:])
        return np.moveaxis(matrix, (0, 1), (state - 1, state))[None], np.moveaxis(numbers[n * n : -1], 0, state - 1)[
            None
        ]
