"""One layer in one direction: its cell, its weights, and the tensors that a solve is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from recsolve.mixings import Mixing
from recsolve.recurrence.cell import Cell


@dataclass
class Direction:
    """One layer in one direction: the cell, and its weights as they are now.

    Attributes
    ----------
    cell : Cell
    mixings : mapping of callables
        What makes a mixing of its weight, by name.
    drives : tuple of str
    event : tuple of int
        (*lanes, n), the axes of a drive.
    projection : tensor, shape (drives units, input)
        Rows drive by drive, in the order of ``drives``.
    offset : tensor, shape (drives units), or None
    weights, parameters : mapping of tensors
        Of the mixings, and elementwise ones.
    readout : tensor, shape (p, n), or None
        Which shows p numbers of the n that the cell shows.
    recurrent : tensor, shape (drives units, p), or None
        With a readout: what an initial output is multiplied with.
    """

    cell: Cell
    mixings: Mapping[str, Callable[[Any], Mixing]]
    drives: tuple[str, ...]
    event: tuple[int, ...]
    projection: Any
    offset: Any
    weights: Mapping[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    readout: Any = None
    recurrent: Any = None

    @property
    def shown(self) -> int:
        """Which component the cell shows."""
        return self.cell.state.index(self.cell.output)

    def given(self) -> list[Any]:
        """Return all tensors that it has."""
        more = (self.projection, self.offset, self.readout, self.recurrent)
        return [x for x in (*more, *self.weights.values(), *self.parameters.values()) if x is not None]

    def project(self, x: Any) -> Any:
        """Return the drives (T, B, drives units) of steps (T, B, input), which lie in memory as these do."""
        if not x.is_contiguous() and x.transpose(0, 1).is_contiguous():
            return functional.linear(x.transpose(0, 1), self.projection, self.offset).transpose(0, 1)
        return functional.linear(x, self.projection, self.offset)

    def tensors(self, rows: Any, starts: Sequence[Any], resets: Any, *, begins: bool = True) -> dict[str, Any]:
        """Return what a solve is made of, by the names that ``solve_cell`` has, None for nothing.

        Parameters
        ----------
        rows : tensor, shape (T, B, drives units)
            In the dtype of states.
        starts : sequence of tensors (B, n), or of None
            The initial states, component by component; that of the shown one as it is read out.
        resets : tensor of bool, shape (T, B), or None
        begins : bool
            Whether sequences start at the first of these steps; else other ranks hold steps before it.
        """
        first, dtype = list(starts), rows.dtype
        if self.recurrent is not None and first[self.shown] is not None:
            # An initial output is seen through the mixings alone: what they make of it belongs to the drive.
            seen = functional.linear(first[self.shown], self.recurrent.to(dtype))
            rows = rows + _at_starts(seen, len(rows), resets, begins)
            first[self.shown] = torch.zeros_like(next(part for i, part in enumerate(first) if i != self.shown))
        drives = rows.unflatten(-1, (len(self.drives), *self.event)).unbind(2)
        found = {f"drive.{name}": drive for name, drive in zip(self.drives, drives, strict=True)}
        found |= {f"mixing.{name}": self.weights[name].to(dtype) for name in self.cell.mixings}
        found |= {f"parameter.{name}": self.parameters[name].to(dtype) for name in self.cell.parameters}
        initial = None
        if first[0] is not None:
            shaped = [part.unflatten(-1, self.event) for part in first]
            initial = shaped[0] if len(shaped) == 1 else torch.stack(shaped, dim=1)
        return {**found, "initial": initial, "reset": resets}

    def parts(self, states: Any) -> list[Any]:
        """Return the components (T, B, n) of states (T, B, *event), the shown one read out."""
        parts = [part.flatten(2) for part in (states.unbind(2) if len(self.cell.state) > 1 else [states])]
        if self.readout is not None:
            parts[self.shown] = functional.linear(parts[self.shown], self.readout.to(states.dtype))
        return parts


def stored(module: Any, name: str) -> Any:
    """Return a parameter of a module, to be changed in place; ValueError where it is computed of others."""
    if name not in module._parameters:
        raise ValueError(f"{name} is reparametrized; wanted a parameter, which can be changed in place")
    return module._parameters[name]


def wide(x: Any) -> Any:
    """Return the dtype of states: float64 for float64, and else float32."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def _at_starts(x: Any, length: int, resets: Any, begins: bool) -> Any:
    """Return (T, B, n) with ``x`` (B, n) where sequences start, at the first step and at resets, and 0 elsewhere."""
    starts = torch.zeros(length, x.shape[0], dtype=torch.bool, device=x.device)
    if resets is not None:
        starts |= resets
    starts[: int(begins)] = True
    return torch.where(starts[..., None], x, 0)
