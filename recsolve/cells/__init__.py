"""The built-in cells, one file per family, and their registry."""

from __future__ import annotations

from recsolve.cells.elman import Elman, ElmanReLU
from recsolve.cells.gated import MGU, SLSTM, Leaky
from recsolve.cells.gru import GRU, ChoGRU, ParaRNNGRU
from recsolve.cells.lstm import LSTM, ParaRNNLSTM
from recsolve.cells.minmax import MinMax
from recsolve.recurrence.cell import Cell

REGISTRY: dict[str, Cell] = {
    cell.name: cell
    for cell in (Elman, ElmanReLU, GRU, ChoGRU, ParaRNNGRU, MGU, Leaky, LSTM, ParaRNNLSTM, SLSTM, MinMax)
}


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
    "get",
]
