"""Gradients through a stack of layers, by torch's names where the cells are torch's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from recsolve.base.arrays import from_native, kind_of, namespace, to_native
from recsolve.base.names import Names
from recsolve.gradients.result import Gradients
from recsolve.recurrence.torch_weights import LAYOUTS
from recsolve.recurrence.weighted_cell import WeightedCell


@dataclass(frozen=True)
class LayersGradients:
    """The result of :meth:`LayersSolution.adjoint`.

    Arrays are of the kind and dtype of the input.

    Attributes
    ----------
    inputs : array
        With respect to the input x, in its shape; 0 at steps beyond ``lengths``.
    initial : array or tuple of arrays
        With respect to the initial states, in the shapes of ``hx``.
    solutions : tuple of Gradients
        One per layer and direction, in torch's order.
    directions : int
        1 or 2.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> stack = rs.Layers([[rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)]])
    >>> sol = stack.solve(np.ones((20, 3)))
    >>> g = sol.adjoint(output=np.ones((20, 8)))
    >>> {name: w.shape for name, w in g.weights.items()}
    {'weight_ih_l0': (24, 3), 'weight_hh_l0': (24, 8), 'bias_ih_l0': (24,), 'bias_hh_l0': (24,)}
    """

    inputs: Any
    initial: Any
    solutions: tuple[Gradients, ...]
    directions: int

    @cached_property
    def weights(self) -> Names:
        """With respect to all weights, by torch's names and in torch's shapes.

        Biases are among them where the module has none: their values are then 0. AttributeError for cells that torch
        has not; the gradients of their weights are in ``solutions``.
        """
        found = {}
        for index, gradients in enumerate(self.solutions):
            layer, reverse = divmod(index, self.directions)
            for name, parts in _stacked(gradients):
                native = [to_native(part, name) for part in parts]
                joined = namespace(native[0]).concatenate(native)
                found[f"{name}_l{layer}{'_reverse' if reverse else ''}"] = from_native(joined, kind_of(parts[0]))
        return Names(found, "weight")


def _stacked(gradients: Gradients) -> Iterator[tuple[str, list[Any]]]:
    """Yield torch's name of each weight of one layer and direction, and its gradients gate by gate."""
    weighted = gradients._cell("weights").cell
    name = weighted.cell.name
    if name not in LAYOUTS or type(weighted) is not WeightedCell:  # a subclass may show something else
        raise AttributeError(
            f"weights have torch's names only for the cells {', '.join(LAYOUTS)}; those of {name} "
            f"({type(weighted).__name__}) are in .mixings, .parameters and .projection of each of .solutions"
        )
    layout, biases = LAYOUTS[name], gradients.projection.biases
    inner = {gate: gradients.parameters[name] for gate, name in layout.inner_biases.items()}
    yield "weight_ih", [gradients.projection.weights[gate] for gate in layout.gates]
    yield "weight_hh", [gradients.mixings[gate] for gate in layout.gates]
    yield "bias_ih", [biases[gate] for gate in layout.gates]
    yield "bias_hh", [inner.get(gate, biases[gate]) for gate in layout.gates]
