"""Random weights of cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.mixings import Mixing, make, make_on
from recsolve.recurrence.projection import Projection
from recsolve.recurrence.ragged_cell import sizes_of

if TYPE_CHECKING:
    from recsolve.recurrence.cell import Cell


def drawn(
    cell: Cell,
    input_size: int,
    hidden_size: Any,
    mixing: str | Callable[[Any], Mixing],
    heads: int | None,
    gain: float,
    generator: np.random.Generator,
    dtype: Any,
) -> dict[str, Any]:
    """Return random mixings, parameters and a projection for a cell, as :meth:`Cell.random` describes them."""
    for name, size in (("input_size", input_size), ("hidden_size", 1 if cell.ragged else hidden_size)):
        if not isinstance(size, (int, np.integer)) or size < 1:
            raise ValueError(f"{name} is {size!r}; wanted a positive integer")
    if not isinstance(gain, (int, float, np.number)) or not np.isfinite(gain):
        raise ValueError(f"gain is {gain!r}; wanted a finite number")
    if not cell.mixings and gain != 1.0:
        raise ValueError(f"gain is {gain}, but {cell.name} has no mixings for it to scale; leave it at 1")

    def draw(shape: tuple[int, ...], units: int, scale: float = 1.0) -> Array:
        bound = 1.0 / np.sqrt(units)
        return (scale * generator.uniform(-bound, bound, shape)).astype(dtype)

    names = (*cell.projected, *cell.parameters)
    if cell.ragged:
        events = _events(cell, hidden_size)
        units = {name: event[-1] if event else 1 for name, event in events.items()}
        mixings = {
            n: make_on(n, mixing, events[n], heads, lambda shape, n=n: draw(shape, units[n], gain))
            for n in cell.mixings
        }
    else:
        mixings = {
            n: make(mixing, hidden_size, heads, lambda shape: draw(shape, hidden_size, gain)) for n in cell.mixings
        }
        layout = cell.layout(mixings, hidden_size)
        events = dict.fromkeys(names, (*layout.lanes, layout.lane_width // layout.components))
        units = dict.fromkeys(names, hidden_size)
    weights = {name: draw((*events[name], input_size), units[name]) for name in cell.projected}
    biases = {name: draw(events[name], units[name]) for name in cell.projected}
    parameters = {name: draw(events[name], units[name]) for name in cell.parameters}
    projection = Projection(weights, biases) if weights else None
    return {"mixings": mixings, "parameters": parameters, "projection": projection}


def _events(cell: Cell, hidden_size: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of drives, parameters and mixings by name; TypeError and ValueError name ``hidden_size``."""
    axes = cell.axis_names
    sizes = sizes_of({} if hidden_size is None else hidden_size, axes)
    if missing := [axis for axis in axes if axis not in sizes]:
        raise ValueError(f"hidden_size has no {missing}; wanted sizes for {axes}")
    return {n: tuple(sizes[axis] for axis in named) for n, named in cell.axes.items()}
