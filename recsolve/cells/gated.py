"""Smaller and larger gates: the minimal gated unit, the leaky unit, and the sLSTM."""

from __future__ import annotations

from typing import Any

from recsolve.math import exp, maximum, sigmoid, softplus, tanh
from recsolve.recurrence.cell import Cell


def mgu(s: Any, W: Any, u: Any, p: Any) -> Any:
    """The minimal gated unit: one gate forgets and resets; mixings nest.

    f = sigmoid(W_f h + u_f), h' = (1 - f) h + f tanh(W_h (f h) + u_h).
    """
    f = sigmoid(W.f(s.h) + u.f)
    return (1 - f) * s.h + f * tanh(W.h(f * s.h) + u.h)


def leaky(s: Any, W: Any, u: Any, p: Any) -> Any:
    """A leaky unit with a time constant of its own, 1 / sigmoid(p.rate) steps.

    h' = (1 - a) h + a tanh(W h + u) with a = sigmoid(p.rate), p.rate of shape (*lanes, n).
    """
    rate = sigmoid(p.rate)
    return (1 - rate) * s.h + rate * tanh(W.h(s.h) + u.h)


def slstm(s: Any, W: Any, u: Any, p: Any) -> Any:
    """The sLSTM: exponential input gate, normaliser n, stabiliser m. Its output does not depend on m.

    With a = W_i y + u_i and b = m + log sigmoid(W_f y + u_f), each unit does m' = max(a, b),
    c' = e^(b - m') c + e^(a - m') tanh(W_z y + u_z), n' = e^(b - m') n + e^(a - m'), and
    y' = sigmoid(W_o y + u_o) c' / n'.
    """
    i, kept = W.i(s.y) + u.i, s.m - softplus(-(W.f(s.y) + u.f))  # logarithms of the gates
    m = maximum(kept, i)
    write, keep = exp(i - m), exp(kept - m)
    c, n = keep * s.c + write * tanh(W.z(s.y) + u.z), keep * s.n + write
    return sigmoid(W.o(s.y) + u.o) * c / n, c, n, m


MGU = Cell(mgu, state=("h",), output="h", cite="Zhou, Wu, Zhang, Zhou, arXiv 1603.09420")
Leaky = Cell(leaky, state=("h",), output="h", cite="Khajehabdollahi et al., arXiv 2309.12927")
SLSTM = Cell(slstm, state=("y", "c", "n", "m"), output="y", cite="Beck et al., arXiv 2405.04517")
