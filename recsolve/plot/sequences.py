"""Which sequence of a batch, which component and units of a state; what the axis of steps is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsolve.base.arrays import Array

# What the axis of steps is called.
AXES = {"step": "step t", "node": "node", "level": "node, in the order of levels"}


def place_of(index: Any, shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Return an index of an array as a tuple.

    Parameters
    ----------
    index : int or tuple of int
        One number per axis; an int where there is one axis.
    shape : tuple of int
    name : str
        What errors call it.

    Raises
    ------
    ValueError
        For an index that the shape does not have.

    Examples
    --------
    >>> from recsolve.plot.sequences import place_of
    >>> place_of(2, (5,), "sequence"), place_of((1, 2), (2, 3), "units")
    ((2,), (1, 2))
    """
    place = tuple(index) if isinstance(index, (tuple, list, np.ndarray)) else (index,)
    whole = all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in place)
    if not whole or len(place) != len(shape) or not all(0 <= i < n for i, n in zip(place, shape, strict=True)):
        sizes = " x ".join(map(str, shape)) or "no axes"
        raise ValueError(f"{name} is {index!r}; wanted an index into {sizes}, counted from 0")
    return tuple(int(i) for i in place)


def chosen(x: Array, sequence: Any, lead: int, batch: int) -> Array:
    """Return x (*lead, *batch, ...) of one sequence, without the axes of the batch; all of it for None.

    Raises
    ------
    ValueError
        For a sequence that there is not.
    """
    if sequence is None:
        return x
    place = place_of(sequence, x.shape[lead : lead + batch], "sequence")
    return x[(slice(None),) * lead + place]


def selected(parts: Mapping[str, Array], component: Any, units: Any, most: int) -> tuple[list[tuple[str, Array]], int]:
    """Return lines with their names out of components (T, *shape), and how many there would be in all.

    Parameters
    ----------
    parts : mapping
    component : str or None
        None for all.
    units : sequence of int or of tuple of int, or None
        Of each component; None for up to ``most`` in all, spread evenly.
    most : int

    Raises
    ------
    ValueError
        For a component or units that there are not.
    """
    if component is not None and component not in parts:
        raise ValueError(f"component is {component!r}; wanted one of {tuple(parts)}")
    kept = dict(parts) if component is None else {component: parts[component]}
    if units is not None and (isinstance(units, (str, Mapping)) or not isinstance(units, (Sequence, np.ndarray))):
        raise TypeError(f"units is {type(units).__name__}; wanted a sequence of indices, or None")
    each, lines = max(most // len(kept), 1), []
    for name, part in kept.items():
        shape = part.shape[1:]
        places = _spread(shape, each) if units is None else [place_of(unit, shape, "units") for unit in units]
        for place in places:
            index: Any = (..., *place)
            lines.append((_named(name, place), part[index]))
    return lines, sum(int(np.prod(part.shape[1:])) for part in kept.values())


def _spread(shape: tuple[int, ...], most: int) -> list[tuple[int, ...]]:
    """Return up to so many indices into a shape, the first and the last among them."""
    total = int(np.prod(shape))
    flat = np.unique(np.linspace(0, max(total - 1, 0), min(total, most)).round().astype(int)).tolist()
    return [tuple(int(i) for i in np.unravel_index(j, shape)) if shape else () for j in flat]


def _named(name: str, place: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, place))}]" if place else name
