"""The hoisted input projection: the drives of all steps as one matrix product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from recsolve.arrays import Array, matmul_last, namespace, to_native
from recsolve.names import Names


class Projection:
    """u[t] = W x[t] + b for every drive of a cell.

    Parameters
    ----------
    weights : mapping of arrays
        Drive name to weight, each (*lanes, n, input_size).
    biases : mapping of arrays
        Drive name to bias, each (*lanes, n).
    """

    def __init__(self, weights: Mapping[str, Any], biases: Mapping[str, Any]):
        self.weights = {name: to_native(w, f"projection weight {name}") for name, w in weights.items()}
        self.biases = {name: to_native(b, f"projection bias {name}") for name, b in biases.items()}
        shapes = {w.shape for w in self.weights.values()}
        if len(shapes) != 1 or {b.shape for b in self.biases.values()} != {next(iter(shapes))[:-1]}:
            seen = {n: (w.shape, self.biases[n].shape) for n, w in self.weights.items()}
            raise ValueError(f"projection shapes are {seen}; wanted (*lanes, n, input) and (*lanes, n), all alike")
        xp = namespace(next(iter(self.weights.values())))
        self.event = next(iter(shapes))[:-1]
        self.input_size = int(next(iter(shapes))[-1])
        self.matrix = xp.concatenate([w.reshape(-1, self.input_size) for w in self.weights.values()])
        self.offset = xp.concatenate([b.ravel() for b in self.biases.values()])

    @property
    def hidden_size(self) -> int:
        return int(self.matrix.shape[0]) // len(self.weights)

    def map(self, function: Callable[[Array], Array]) -> Projection:
        """Return the projection with ``function`` applied to every array."""
        return Projection(
            {n: function(w) for n, w in self.weights.items()}, {n: function(b) for n, b in self.biases.items()}
        )

    def __call__(self, x: Array) -> Names:
        """Return the drives of ``x`` (T, *batch, input), each (T, *batch, *lanes, n), in the memory order of x.

        Raises
        ------
        ValueError
            When the last axis of x is not the input, or there is no time axis.
        """
        if x.ndim < 2 or x.shape[-1] != self.input_size:
            raise ValueError(f"x has shape {x.shape}; wanted (T, *batch, {self.input_size})")
        drives = matmul_last(x, self.matrix)
        drives += self.offset
        split = drives.reshape(*drives.shape[:-1], len(self.weights), *self.event)
        axis = x.ndim - 1
        return Names({n: split[(slice(None),) * axis + (i,)] for i, n in enumerate(self.weights)}, "drive")
