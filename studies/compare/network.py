"""A layer of the user's own network, and what it gets of an input: the output of the layers below."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from recsolve import Layers, WeightedCell, cells
from recsolve.base.arrays import Array
from recsolve.interop.checkpoint import read_weights
from recsolve.recurrence import torch_weights

DIRECTIONS = ("forward", "reverse")


class Choice(Protocol):
    """What of a comparison's options says which layer."""

    @property
    def weights(self) -> str | None: ...
    @property
    def keys(self) -> str | None: ...
    @property
    def layer(self) -> int | None: ...
    @property
    def direction(self) -> str | None: ...
    @property
    def nonlinearity(self) -> str: ...
    @property
    def input(self) -> str: ...
    @property
    def dtype(self) -> str: ...


def network(choice: Choice, data: Array) -> tuple[str, WeightedCell, Array]:
    """Return the title, the cell and the input of one layer and direction of a network in a file.

    Parameters
    ----------
    choice : Choice
        Options of ``recsolve compare``; ``weights`` is given.
    data : array, shape (T, B, channels)
        The input of the network.

    Raises
    ------
    ValueError
        As :func:`recsolve.load`, in the words of the command line; where the input does not fit.
    """
    path, reverse = str(choice.weights), choice.direction == "reverse"
    try:
        name, weights = read_weights(path, choice.keys, choice.nonlinearity)
    except (ValueError, TypeError) as error:
        raise ValueError(f"--weights: {error}") from None
    weights = {key: x.astype(choice.dtype) for key, x in weights.items()}
    found = torch_weights.ends(weights)
    layers = 1 + max(layer for layer, _ in found)
    layer = choice.layer or 0
    if (layer, reverse) not in found or (choice.layer is None and layers > 1):
        asked = "" if choice.layer is None else f", not --layer {layer}{' --direction reverse' * reverse}"
        raise ValueError(
            f"--weights {path} holds {torch_weights.described(found)}; pass --layer (and --direction reverse) for one "
            f"of them{asked}"
        )

    def cell_of(layer: int, reverse: bool) -> WeightedCell:
        return torch_weights.cell_from_weights(cells.get(name), weights, layer, reverse)

    cell = cell_of(layer, reverse)
    below = [[cell_of(*place) for place in found if place[0] == i] for i in range(layer)]
    wanted = (below[0][0] if below else cell).input_size
    if wanted != data.shape[-1]:
        raise ValueError(
            f"--weights {path} wants {wanted} channels, --input {choice.input} has {data.shape[-1]}; pass one that fits"
        )
    x = Layers(below).run(data, method="sequential")[0] if below else data
    which = f", layer {layer}" * (layers > 1) + ", reverse" * reverse
    return f"{cell.cell.name} from {Path(path).name}{which}, {cell.hidden_size} units", cell, x[::-1] if reverse else x
