"""Reading one layer of a trained network from a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recsolve.interop.contents import read_contents
from recsolve.interop.modules import Weights
from recsolve.recurrence import torch_weights

if TYPE_CHECKING:
    from recsolve.recurrence.weighted_cell import WeightedCell


def cell_of(
    path: str | os.PathLike[str], keys: str | Sequence[str] | None, layer: int | None, reverse: bool, nonlinearity: str
) -> WeightedCell:
    """Return one layer and direction of a network as a cell; arguments and errors are those of ``recsolve.load``."""
    from recsolve import cells

    name, weights = read_weights(path, keys, nonlinearity)
    found = list(torch_weights.ends(weights))
    if layer is None and (found[-1][0] > 0 or (len(found) > 1 and not reverse)):
        raise ValueError(
            f"{path} holds {torch_weights.described(found)}; pass layer= (and reverse=), or use recsolve.Layers.load "
            "for all of them"
        )
    if (layer or 0, reverse) not in found:
        seen = f"layer {layer or 0}{' reverse' if reverse else ''}"
        raise ValueError(f"{path} holds {torch_weights.described(found)}, not {seen}")
    return torch_weights.cell_from_weights(cells.get(name), weights, layer or 0, reverse)


def read_weights(
    path: str | os.PathLike[str], keys: str | Sequence[str] | None = None, nonlinearity: str = "tanh"
) -> tuple[str, Weights]:
    """Return the cell's name and the weights of one recurrent module in a file, by torch's names.

    Parameters
    ----------
    path, keys, nonlinearity
        As in :func:`recsolve.load`.

    Returns
    -------
    name : str
        A name in ``recsolve.cells``.
    weights : dict of array
        float32 or float64.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError, TypeError
        As :func:`recsolve.load`.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity is {nonlinearity!r}; wanted 'tanh' or 'relu'")
    module = read_contents(path, keys).one()
    return {"rnn": "elman" if nonlinearity == "tanh" else "elman_relu"}.get(module.cell, module.cell), module.weights
