"""Where the numbers of arrays lie, as CUDA kernels see them: views, and the structure of a scan.

Axes that are independent of each other (the *lanes*: batch, units) are merged where all arrays allow it and counted
from the innermost one of the result outwards. Nothing is copied, except arrays whose strides are no multiple of a
number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, address
from recsolve.kernels.codegen.cuda_structures import VIEW, constants, fields_at, structure

AXES, LANES = (constants("common/view")[name] for name in ("AXES", "LANES"))
INPUTS = tuple(f"in{i}" for i in range(constants("scan/problem")["INPUTS"]))


def _apart(described: np.dtype[Any]) -> np.dtype[Any]:
    """Return a structure with a field for each input, such as ``in0``, where it has an array of them."""
    fields: list[Any] = []
    for name, (kind, *_) in (described.fields or {}).items():
        each = kind.shape == (len(INPUTS),)
        fields += [(f"{name}{i}", kind.base) for i in range(len(INPUTS))] if each else [(name, kind)]
    return np.dtype(fields)


PROBLEM = _apart(structure("scan/problem", "Problem"))
AT = fields_at(PROBLEM)


class Strides(NamedTuple):
    """Distances in an array, in numbers: of times, of rows and columns of an element, of the axes of lanes."""

    time: int
    row: int
    column: int
    lanes: tuple[int, ...]


def lowest(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return how far the memory of an array begins before its first number, in bytes: where it is seen backwards."""
    return sum(min(s, 0) * (n - 1) for n, s in zip(shape, strides, strict=True) if n)


def aligned(x: Array) -> Array:
    """Return ``x``, copied if its numbers lie between those of an array of its dtype."""
    size = x.itemsize
    return x.copy() if address(x) % size or not _multiples(x.strides, size) else x


@lru_cache(maxsize=4096)
def _multiples(strides: tuple[int, ...], size: int) -> bool:
    return not any(s % size for s in strides)


def stretched(shape: tuple[int, ...], strides: tuple[int, ...], to: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of an array that is broadcast to a shape; ValueError where it cannot be."""
    new = len(to) - len(shape)
    if new < 0 or any(n not in (1, m) for n, m in zip(shape, to[new:], strict=True)):
        raise ValueError(f"an array has shape {shape}; wanted one that broadcasts to {to}")
    return (*(0,) * new, *(s if n > 1 else 0 for n, s in zip(shape, strides, strict=True)))


def strides_of(x: Array, components: Sequence[int] = ()) -> Strides:
    """Return the distances in an array (T, ...); ``components`` are the axes of rows and columns of its elements."""
    return distances(x.shape, x.strides, x.itemsize, components)


def distances(shape: Sequence[int], strides: Sequence[int], size: int, components: Sequence[int] = ()) -> Strides:
    """Return the distances between numbers of so many bytes."""
    own = [s // size if n > 1 else 0 for n, s in zip(shape, strides, strict=True)]
    row, column = (*(own[axis] for axis in components), 0, 0)[:2]
    lanes = own[1:] if not components else [s for axis, s in enumerate(own) if axis and axis not in components]
    return Strides(own[0], row, column, tuple(lanes))


def innermost(strides: Sequence[int]) -> list[int]:
    """Return axes in the order in which lanes are counted: the nearest in memory first."""
    return sorted(range(len(strides)), key=lambda axis: abs(strides[axis]))


def merge(sizes: Sequence[int], lanes: Sequence[tuple[int, ...]]) -> tuple[list[int], list[list[int]]]:
    """Merge axes; return their sizes, the innermost axis of the first array first, and the strides of each array."""
    order = [axis for axis in innermost(lanes[0]) if sizes[axis] != 1]
    merged: list[int] = []
    strides: list[list[int]] = [[] for _ in lanes]
    for axis in order:
        if merged and all(own[axis] == run[-1] * merged[-1] for own, run in zip(lanes, strides, strict=True)):
            merged[-1] *= sizes[axis]
            continue
        merged.append(sizes[axis])
        for own, run in zip(lanes, strides, strict=True):
            run.append(own[axis])
    return merged or [1], strides if merged else [[0] for _ in lanes]


@lru_cache(maxsize=64)
def places(header: str, name: str, **counts: int) -> dict[str, Any]:
    """Return the place of every field among the integers of a structure, or those of an array of views."""
    places: dict[str, Any] = {}
    for field, (kind, offset, *_) in (structure(header, name, **counts).fields or {}).items():
        many = kind.subdtype is not None and kind.base == VIEW
        each = [offset // 8 + i * VIEW.itemsize // 8 for i in range(kind.shape[0])] if many else offset // 8
        places[field] = each
    return places


def problem(steps: int, sizes: Sequence[int], arrays: dict[str, Strides]) -> Array:
    """Return an array of one ``Problem`` without addresses and tiles; ``arrays`` begins with what orders the lanes."""
    merged, strides = merge(sizes, [x.lanes for x in arrays.values()])
    filled = np.zeros(1, PROBLEM)
    p = filled[0]
    p["steps"], p["lanes"] = steps, prod(sizes)
    p["sizes"] = 1
    p["sizes"][: len(merged)] = merged
    for (name, x), run in zip(arrays.items(), strides, strict=True):
        view = p[name]
        view["time"], view["row"], view["column"] = x[:3]
        view["lane"][: len(run)] = run
    return filled


def by_time(p: Any, name: str) -> bool:
    """Return whether the times of an array are nearer in memory than its lanes."""
    time, lane = abs(int(p[name]["time"])), abs(int(p[name]["lane"][0]))
    return bool(p["lanes"] == 1 or 0 < time < lane)


def contiguous(p: Any, names: Sequence[str], count: int) -> bool:
    """Return whether lanes of all these arrays come ``count`` at a time, if the arrays begin at multiples of that."""
    rest = [p[name][field] for name in names for field in ("time", "row", "column")]
    rest += [stride for name in names for stride in p[name]["lane"][1:]]
    inner = all(p[name]["lane"][0] == 1 for name in names)
    return bool(inner and p["sizes"][0] % count == 0 and not any(stride % count for stride in rest))


def contiguous_times(p: Any, names: Sequence[str], count: int) -> bool:
    """Return whether times of all these arrays, in either direction, come ``count`` at a time, if they begin so."""
    rest = [stride for name in names for stride in (p[name]["row"], p[name]["column"], *p[name]["lane"])]
    inner = all(abs(p[name]["time"]) == 1 for name in names)
    return bool(inner and p["steps"] % count == 0 and not any(stride % count for stride in rest))
