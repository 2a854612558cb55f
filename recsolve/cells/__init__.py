"""The built-in cells, one file per family, and their registry."""

from __future__ import annotations

from inspect import cleandoc

from recsolve.cells.elman import Elman, ElmanReLU
from recsolve.cells.ensemble import ensemble
from recsolve.cells.gated import MGU, SLSTM, Leaky
from recsolve.cells.gru import GRU, ChoGRU, ParaRNNGRU
from recsolve.cells.holding import holding
from recsolve.cells.lstm import LSTM, ParaRNNLSTM
from recsolve.cells.minmax import MinMax
from recsolve.recurrence.cell import Cell

REGISTRY: dict[str, Cell] = {
    cell.name: cell
    for cell in (Elman, ElmanReLU, GRU, ChoGRU, ParaRNNGRU, MGU, Leaky, LSTM, ParaRNNLSTM, SLSTM, MinMax)
}

_DOCUMENTED = """{equations}

Attributes
----------
state : tuple of str, {cell.state}
    States are (T, *batch, {components}*lanes, n), float32 or float64; ``output``, what the cell shows of them, is
    {cell.output}, (T, *batch, *lanes, n).
mixings : tuple of str, {cell.mixings}
    Each a map of the n units of a lane: see :mod:`recsolve.mixings`.
drives : tuple of str, {cell.drives}
    Each (T, *batch, *lanes, n), in the dtype of the weights. ``recurrence(x)`` makes them of x (T, *batch, input_size).
parameters : tuple of str, {cell.parameters}
    Each (*lanes, n).

Examples
--------
>>> import numpy as np, recsolve as rs
>>> cell = rs.cells.get("{cell.name}").random(input_size=3, hidden_size=8, rng=0)
>>> sol = rs.solve(cell.recurrence(np.ones((50, 2, 3))))
>>> sol.success, sol.states.shape, sol.output.shape
(True, (50, 2, {components}8), (50, 2, 8))

References
----------
{cell.cite}
"""
for _cell in REGISTRY.values():
    _components = f"{len(_cell.state)}, " if len(_cell.state) > 1 else ""
    _equations = cleandoc(_cell.function.__doc__ or "")
    _cell.__doc__ = _DOCUMENTED.format(cell=_cell, components=_components, equations=_equations)


def get(name: str) -> Cell:
    """Return a built-in cell by name.

    Parameters
    ----------
    name : str
        A key of ``REGISTRY``, such as ``"gru"``.

    Returns
    -------
    Cell

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.

    Examples
    --------
    >>> import recsolve as rs
    >>> rs.cells.get("gru")
    Cell(gru: state ('h',), mixings ('r', 'z', 'n'), drives ('r', 'z', 'n'))
    """
    if name not in REGISTRY:
        raise ValueError(f"cell is {name!r}; wanted one of {', '.join(REGISTRY)}")
    return REGISTRY[name]


__all__ = [
    "GRU",
    "LSTM",
    "MGU",
    "REGISTRY",
    "SLSTM",
    "ChoGRU",
    "Elman",
    "ElmanReLU",
    "Leaky",
    "MinMax",
    "ParaRNNGRU",
    "ParaRNNLSTM",
    "ensemble",
    "get",
    "holding",
]


def __dir__() -> list[str]:
    return sorted(__all__)
