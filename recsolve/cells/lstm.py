"""Long short-term memory: torch's, and ParaRNN's with coupled gates and peepholes."""

from __future__ import annotations

from typing import Any

from recsolve.math import sigmoid, tanh
from recsolve.recurrence.cell import Cell


def lstm(s: Any, W: Any, u: Any, p: Any) -> Any:
    """The LSTM of torch, with a forget gate and no peepholes; states are (2, *lanes, n), h and c.

    i, f, o = sigmoid(W h + u) and g = tanh(W h + u), each with its own mixing and drive, c' = f c + i g,
    h' = o tanh(c').
    """
    i = sigmoid(W.i(s.h) + u.i)
    f = sigmoid(W.f(s.h) + u.f)
    g = tanh(W.g(s.h) + u.g)
    o = sigmoid(W.o(s.h) + u.o)
    c = f * s.c + i * g
    return o * tanh(c), c


def pararnn_lstm(s: Any, W: Any, u: Any, p: Any) -> Any:
    """ParaRNN's LSTM: input gate 1 - f, peepholes, and an output gate that sees the new c; states are (2, *lanes, n).

    f = sigmoid(W_f h + c_f c + u_f), g = tanh(W_g h + u_g), c' = f c + (1 - f) g, o = sigmoid(W_o h + c_o c' + u_o),
    h' = o tanh(c'), with parameters c_f and c_o of shape (*lanes, n).
    """
    f = sigmoid(W.f(s.h) + p.c_f * s.c + u.f)
    g = tanh(W.g(s.h) + u.g)
    c = f * s.c + (1 - f) * g
    o = sigmoid(W.o(s.h) + p.c_o * c + u.o)
    return o * tanh(c), c


LSTM = Cell(lstm, state=("h", "c"), output="h", cite="Hochreiter and Schmidhuber 1997, as in torch.nn.LSTM")
ParaRNNLSTM = Cell(pararnn_lstm, state=("h", "c"), output="h", cite="Danieli et al., arXiv 2510.21450")
