"""Elman's network: one mixing, one nonlinearity."""

from __future__ import annotations

from typing import Any

from recsolve.math import relu, tanh
from recsolve.recurrence.cell import Cell

_CITE = "Elman, Cognitive Science 14 (1990)"


def elman(s: Any, W: Any, u: Any, p: Any) -> Any:
    """Elman's network with tanh, as torch.nn.RNN: h' = tanh(W h + u), with one mixing and one drive, both ``h``."""
    return tanh(W.h(s.h) + u.h)


def elman_relu(s: Any, W: Any, u: Any, p: Any) -> Any:
    """Elman's network with relu, as torch.nn.RNN(nonlinearity="relu"): h' = max(W h + u, 0)."""
    return relu(W.h(s.h) + u.h)


Elman = Cell(elman, state=("h",), output="h", cite=_CITE)
ElmanReLU = Cell(elman_relu, state=("h",), output="h", cite=_CITE)
