"""Maps of a finite set to itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.kernels.monoids.cuda_map import CudaMap, MapType, Operands
from recsolve.kernels.monoids.monoid import Monoid, given

INTEGERS = tuple(np.dtype(name) for name in ("uint8", "int8", "int16", "int32", "int64"))
STATES = 32  # on a GPU at most, as in cuda/scan/monoids/finite_map.cuh


@dataclass(frozen=True)
class _States(CudaMap):
    """A map of so many states, of which a composed one packs the images into words."""

    states: int = 0

    def of(self, argument: str) -> CudaMap:
        return replace(self, states=int(argument))

    def type_of(self, number: str, parts: int) -> MapType:
        each = 8 if self.states <= 16 else 6  # images that fit into a word
        size = -(-self.states // each) + 2
        return MapType(f"FiniteMap<{self.states}>", self.states, size, size)

    def operands(self, monoid: str, elements: Any) -> Operands | None:
        (e,) = elements
        states, last = e.shape[-1], e.ndim - 1
        return Operands(f"{monoid}:{states}", 1, ((e, (last,)),)) if states <= STATES else None


class FiniteMap(Monoid):
    """i -> e[i] for states i of 0, ..., n - 1: automata, permutations, lookups. Exact.

    Elements are a tuple (e,) of one array (T, ..., n), uint8, int8, int16, int32 or int64: e[t, ..., i] is where state
    i goes; states are (...). Composition is a gather of n numbers, so a scan does n times the work of the loop (Hillis
    and Steele, CACM 29, 1986; Ladner and Fischer, JACM 27, 1980). A cut step acts on ``initial``.

    Raises
    ------
    ValueError
        For other than one array, no states, states that are not 0 to n - 1, or without an initial state.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.scan("finite_map", (np.array([[1, 2, 0], [0, 0, 2], [1, 2, 0]]),), initial=0)
    array([1, 0, 1])
    """

    name, letters, place, dtypes = "finite_map", ("e",), 10, INTEGERS
    cuda = _States()

    def prepare(self, elements: Any) -> tuple[Array]:
        (e,) = given(self.title, self.letters, elements)
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

    def linearise(self, elements: tuple[Array], before: Array) -> NoReturn:
        raise TypeError("the finite_map monoid has no derivative: its states are of a finite set")

    def check_initial(self, elements: tuple[Array], initial: Array) -> None:
        _check_range("initial", initial, elements[0].shape[-1])


def _check_range(name: str, x: Array, n: int) -> None:
    """Refuse states that do not exist. On a GPU this waits for two numbers."""
    if x.size and not (int(x.min()) >= 0 and int(x.max()) < n):
        raise ValueError(f"{name} has states from {int(x.min())} to {int(x.max())}; wanted 0 to {n - 1}")
