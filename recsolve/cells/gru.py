"""Gated recurrent units: torch's, Cho's and ParaRNN's."""

from __future__ import annotations

from typing import Any

from recsolve.math import sigmoid, tanh
from recsolve.recurrence.cell import Cell


def gru(s: Any, W: Any, u: Any, p: Any) -> Any:
    """The GRU of torch and cuDNN: the reset gate acts after the matrix.

    r, z = sigmoid(W h + u) with mixings and drives of their own, n = tanh(u_n + r (W_n h + b_n)), h' = (1 - z) n + z h.
    Drives u and the parameter b_n are (*lanes, n).
    """
    r = sigmoid(W.r(s.h) + u.r)
    z = sigmoid(W.z(s.h) + u.z)
    n = tanh(u.n + r * (W.n(s.h) + p.b_n))
    return (1 - z) * n + z * s.h


def cho_gru(s: Any, W: Any, u: Any, p: Any) -> Any:
    """The GRU of Cho et al.: the reset gate acts before the matrix, so mixings nest.

    r, z = sigmoid(W h + u) with mixings and drives of their own, n = tanh(W_n (r h) + u_n), h' = z h + (1 - z) n.
    """
    r = sigmoid(W.r(s.h) + u.r)
    z = sigmoid(W.z(s.h) + u.z)
    n = tanh(W.n(r * s.h) + u.n)
    return z * s.h + (1 - z) * n


def pararnn_gru(s: Any, W: Any, u: Any, p: Any) -> Any:
    """ParaRNN's GRU, meant for diagonal mixings; its z opens where torch's closes.

    r, z = sigmoid(W h + u) with mixings and drives of their own, n = tanh(r W_n h + u_n), h' = (1 - z) h + z n.
    """
    z = sigmoid(W.z(s.h) + u.z)
    r = sigmoid(W.r(s.h) + u.r)
    n = tanh(W.n(s.h) * r + u.n)
    return (1 - z) * s.h + z * n


GRU = Cell(gru, state=("h",), output="h", cite="Cho et al., arXiv 1406.1078, as in torch.nn.GRU")
ChoGRU = Cell(cho_gru, state=("h",), output="h", cite="Cho et al., arXiv 1406.1078")
ParaRNNGRU = Cell(pararnn_gru, state=("h",), output="h", cite="Danieli et al., arXiv 2510.21450")
