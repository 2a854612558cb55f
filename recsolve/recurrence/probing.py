"""What the function of a cell reads, found by calling it: mixings, drives, parameters, and which drives are indices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, same_bits
from recsolve.base.names import Names
from recsolve.base.status import NOT_A_FUNCTION
from recsolve.symbolic.units import indices_watched

Shape = Callable[[str, str], tuple[int, ...]]  # of what is given, by its kind and name


class Read(NamedTuple):
    """The names that a function reads, in order of first use.

    Attributes
    ----------
    mixings, drives, parameters : tuple of str
    indices : tuple of str
        The drives by which units are gathered.
    """

    mixings: tuple[str, ...]
    drives: tuple[str, ...]
    parameters: tuple[str, ...]
    indices: tuple[str, ...]


class _Probe:
    """A namespace that records which names a cell function reads, in order, each with a value of its own."""

    def __init__(self, value: Callable[[str], Any]):
        self._value = value
        self.seen: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self.seen:
            self.seen[name] = self._value(name)
        return self.seen[name]


class _Opaque:
    """Stands for an index: nothing can be computed with it."""

    __array_ufunc__ = None

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("an index is no number")


def read(function: Callable[..., Any], name: str, state: Iterable[str], shape: Shape, *, ragged: bool = False) -> Read:
    """Return what the function of a cell reads.

    Parameters
    ----------
    function : callable
    name : str
        Of the cell, for the errors.
    state : iterable of str
        Components.
    shape : callable
        ``shape(kind, name)`` of the arrays that the function is called with, of a "component", "drive" or "parameter".
    ragged : bool
        Whether components have shapes of their own, so that the function may return them by name.

    Raises
    ------
    ValueError
        When it does not return one array for each component, returns something else when it is called again, takes an
        index that is no drive, or computes with one that is.
    """
    names = tuple(state)
    W = _Probe(lambda name: lambda x: x)
    u, p = (_Probe(lambda name, kind=kind: np.full(shape(kind, name), 0.5)) for kind in ("drive", "parameter"))  # type: ignore[misc]

    def called() -> tuple[Any, list[Any]]:
        s = Names({n: np.full(shape("component", n), 0.5) for n in names}, "component")
        with np.errstate(all="ignore"), indices_watched() as gathered:
            return function(s, W, u, p), gathered

    result, gathered = called()
    parts = parts_of(result, names, name, ragged)
    indices = tuple(n for n, drive in u.seen.items() if any(x is drive for x in gathered))
    if any(all(x is not drive for drive in u.seen.values()) for x in gathered):
        raise ValueError(f"{name} gathers by what is no drive u.name; of what does not change make a mixing, Gather")
    u.seen.update({n: _Opaque() for n in indices})
    for _ in range(2):
        try:
            again = parts_of(called()[0], names, name, ragged)
        except TypeError as error:
            if not indices:
                raise
            raise ValueError(f"{name} computes with an index of gather, one of {indices}; wanted numbers") from error
        if not all(same_bits(np.asarray(x), np.asarray(y)) for x, y in zip(parts, again, strict=True)):
            raise ValueError(NOT_A_FUNCTION.format(name=name))
    found = Read(tuple(W.seen), tuple(u.seen), tuple(p.seen), indices)
    taken = sorted({*names, *found.mixings, *found.drives, *found.parameters} & set(dir(Names)))
    if taken:
        raise ValueError(f"{name} uses the names {taken}, which mappings have as methods; rename them")
    return found


def parts_of(result: Any, names: tuple[str, ...], name: str, ragged: bool) -> list[Array]:
    """Return what a cell returned, as one array for each component."""
    if ragged and isinstance(result, dict):
        if result.keys() != set(names):
            raise ValueError(f"{name} returns components {tuple(result)}; wanted {names}")
        return [result[n] for n in names]
    if isinstance(result, (list, dict)):
        raise ValueError(f"{name} returns a {type(result).__name__}; wanted an array, or a tuple of arrays")
    parts = list(result) if isinstance(result, tuple) else [result]
    if len(parts) != len(names):
        raise ValueError(f"{name} returns {len(parts)} components; wanted {len(names)}: {names}")
    return parts
