"""The hoisted input projection: the drives of all steps as one matrix product."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
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
        Drive name to weight, each (*lanes, n, input_size), float32 or float64; in place of (*lanes, n) the axes of the
        drive, where a cell gives its drives axes.
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
        shapes = {name: tuple(w.shape) for name, w in self.weights.items()}
        biased = {name: tuple(b.shape) for name, b in self.biases.items()}
        self.events = {name: shape[:-1] for name, shape in shapes.items()}
        inputs = {shape[-1:] for shape in shapes.values()}
        if self.events != biased or len(inputs) != 1 or () in inputs:
            raise ValueError(
                f"projection has weights of shapes {shapes} and biases of shapes {biased}; wanted (*lanes, n, input) "
                "and (*lanes, n), with one input"
            )
        xp = namespace(next(iter(self.weights.values())))
        self.input_size = int(next(iter(shapes.values()))[-1])
        self.matrix = xp.concatenate([w.reshape(-1, self.input_size) for w in self.weights.values()])
        self.offset = xp.concatenate([b.ravel() for b in self.biases.values()])
        ends = np.cumsum([prod(event) for event in self.events.values()]).tolist()
        self._cuts = dict(zip(self.events, map(slice, [0, *ends], ends), strict=False))

    @property
    def hidden_size(self) -> int:
        """Units of all lanes together, the same for all drives; ValueError where they are not."""
        if len({*self.events.values()}) > 1:
            raise ValueError(f"projection has drives of shapes {self.events}; wanted (*lanes, n), all alike")
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

    def _split(self, drives: Array, *rest: int) -> dict[str, Array]:
        """Cut stacked drives (..., gates * units, *rest) into one view per drive."""
        lead = drives.shape[: drives.ndim - 1 - len(rest)]
        places: dict[str, Any] = {n: (..., cut, *(slice(None),) * len(rest)) for n, cut in self._cuts.items()}
        return {n: drives[place].reshape((*lead, *self.events[n], *rest)) for n, place in places.items()}

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
        weights = rows.T @ x.reshape(len(rows), self.input_size)
        return self._split(weights, self.input_size), self._split(rows.sum(axis=0))

    def _stack(self, drives: Mapping[str, Array]) -> Array:
        """Join drives (..., *lanes, n) into (..., gates * units)."""
        flat = [drives[n].reshape((*drives[n].shape[: drives[n].ndim - len(event)], prod(event)))
                for n, event in self.events.items()]  # fmt: skip
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
