"""The hoisted input projection: the drives of all steps as one matrix product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Self

import numpy as np

from recsolve.base.arrays import Array, matmul_last, namespace
from recsolve.base.links import Leaf, sever_all, to_linked
from recsolve.base.names import Names
from recsolve.base.overriding import changed, stale


def _unknown(self: Any, *args: Any) -> NoReturn:
    raise TypeError(
        f"{type(self).__name__} overrides __call__, so its derivatives are not known; define push, pull and "
        "weight_cotangents too (for second derivatives push_weights and pull_moved)"
    )


class Projection:
    """u[t] = W x[t] + b for every drive of a cell, for all t in one matrix product.

    Parameters
    ----------
    weights : mapping of arrays
        Drive name to weight, each (*lanes, n, input_size), float32 or float64.
    biases : mapping of arrays
        Drive name to bias, each (*lanes, n).

    Raises
    ------
    ValueError
        When the shapes do not agree.
    TypeError
        For other dtypes.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> project = rs.Projection({"h": np.ones((4, 3))}, {"h": np.zeros(4)})
    >>> project(np.ones((20, 3)))["h"].shape
    (20, 4)
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name in ("push", "push_weights", "pull", "pull_moved", "weight_cotangents"):
            if stale(cls, name, "__call__"):
                setattr(cls, name, _unknown)

    def __init__(self, weights: Mapping[str, Any], biases: Mapping[str, Any]):
        self.weights = {name: to_linked(w, f"projection weight {name}") for name, w in weights.items()}
        self.biases = {name: to_linked(b, f"projection bias {name}") for name, b in biases.items()}
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
        """Units of all lanes together."""
        return int(self.matrix.shape[0]) // len(self.weights)

    def map(self, function: Callable[[Array], Array]) -> Self:
        """Return the projection with ``function`` applied to every array."""
        mapped = changed(self)
        weights, biases = ({n: function(x) for n, x in arrays.items()} for arrays in (self.weights, self.biases))
        Projection.__init__(mapped, weights, biases)
        sever_all(mapped, self)
        return mapped

    def leaves(self) -> dict[Leaf, Array]:
        """Return the weights and biases, by what gradients call them."""
        weights: dict[Leaf, Array] = {("weight", n): w for n, w in self.weights.items()}
        return weights | {("bias", n): b for n, b in self.biases.items()}

    def _split(self, drives: Array) -> dict[str, Array]:
        """Cut stacked drives (..., gates * units) into one view per drive."""
        split = drives.reshape(*drives.shape[:-1], len(self.weights), *self.event)
        axis = drives.ndim - 1
        return {n: split[(slice(None),) * axis + (i,)] for i, n in enumerate(self.weights)}

    def push(self, x: Array) -> dict[str, Array]:
        """Return the tangents of the drives, each (T, *batch, *lanes, n), for a tangent ``x`` of the input."""
        return self._split(matmul_last(x, self.matrix))

    def push_weights(self, moved: Mapping[Leaf, Array], x: Array) -> dict[str, Array]:
        """Return the tangents of the drives for tangents of some of :meth:`leaves`, at the input ``x``."""
        return dict(Projection.__call__(self._moved(moved), x))

    def pull_moved(self, moved: Mapping[Leaf, Array], drives: Mapping[str, Array]) -> Array:
        """Return how the cotangent of the input moves with the weights, for cotangents of the drives by name."""
        return Projection.pull(self._moved(moved), drives)

    def _moved(self, moved: Mapping[Leaf, Array]) -> Projection:
        """Return the projection of tangents of weights and biases, 0 where there are none."""
        zero = namespace(self.matrix).zeros_like
        known = {leaf: moved[leaf] if leaf in moved else zero(x) for leaf, x in self.leaves().items()}
        return Projection({n: known["weight", n] for n in self.weights}, {n: known["bias", n] for n in self.biases})

    def pull(self, drives: Mapping[str, Array]) -> Array:
        """Return the cotangent of the input, (T, *batch, input), for cotangents of the drives by name."""
        return matmul_last(self._stack(drives), self.matrix.T)

    def weight_cotangents(self, drives: Mapping[str, Array], x: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the cotangents of weights and biases, by drive, for cotangents of the drives at the input ``x``."""
        stacked = self._stack(drives)
        rows = stacked.reshape(int(np.prod(stacked.shape[:-1])), self.matrix.shape[0])
        shape = (len(self.weights), *self.event)
        weights = (rows.T @ x.reshape(len(rows), self.input_size)).reshape(*shape, self.input_size)
        biases = rows.sum(axis=0).reshape(shape)
        return dict(zip(self.weights, weights, strict=True)), dict(zip(self.weights, biases, strict=True))

    def _stack(self, drives: Mapping[str, Array]) -> Array:
        """Join drives (..., *lanes, n) into (..., gates * units)."""
        units = int(np.prod(self.event))
        flat = [drives[n].reshape(*drives[n].shape[: drives[n].ndim - len(self.event)], units) for n in self.weights]
        return namespace(flat[0]).concatenate(flat, axis=-1)  # type: ignore[no-any-return]

    def __call__(self, x: Array) -> Names:
        """Return the drives of ``x``, each (T, *batch, *lanes, n), in the memory order of x.

        Parameters
        ----------
        x : array, shape (T, *batch, input)

        Raises
        ------
        ValueError
            When the last axis of x is not the input, or there is no time axis.
        """
        if x.ndim < 2 or x.shape[-1] != self.input_size:
            raise ValueError(f"x has shape {x.shape}; wanted (T, *batch, {self.input_size})")
        drives = matmul_last(x, self.matrix)
        drives += self.offset
        return Names(self._split(drives), "drive")
