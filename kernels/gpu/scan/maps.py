"""The maps that CUDA kernels compose, as the monoids state them: their C++ types, and the headers these are in."""

from __future__ import annotations

from functools import cache

from recsolve.base.overriding import stated
from recsolve.kernels.monoids.cuda_map import CudaMap, MapType
from recsolve.kernels.monoids.monoid import MONOIDS


@cache
def cuda_map(name: str) -> CudaMap:
    """Return the map of a monoid by its name, ``monoid:argument`` for a map other than its first."""
    monoid, _, argument = name.partition(":")
    first: CudaMap = stated(MONOIDS[monoid], "cuda")
    return first.of(argument) if argument else first


@cache
def map_type(name: str, parts: int, number: str) -> MapType:
    """Return the type of a map.

    Parameters
    ----------
    name : str
        As in :func:`cuda_map`.
    parts : int
        Numbers of a state.
    number : str
        The C++ type of the arithmetic.
    """
    found = cuda_map(name).type_of(number, parts)
    return found._replace(name=f"recsolve::{found.name}")


def headers_of(*names: str) -> tuple[str, ...]:
    """Return the headers that maps are in, by default all: they are called like the files of their monoids."""
    monoids = [MONOIDS[name.partition(":")[0]] for name in names] or MONOIDS.values()
    modules = [type(monoid).__module__.rpartition(".")[2] for monoid in monoids if stated(monoid, "cuda")]
    return tuple(f"scan/monoids/{module}" for module in dict.fromkeys(modules))
