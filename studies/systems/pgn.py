"""Parallel Gated Network (PGN): a gate between now and a window of the past, in place of a gated recurrence.

With x_s = 0 before the first step, a window of w steps, and weights W_p, W_g, W_c (Jia et al., arXiv 2409.17703):

    p_t = W_p (x_{t-w}, ..., x_{t-1}) + b_p,
    g = sigmoid(W_g (x_t, p_t) + b_g),   c = tanh(W_c (x_t, p_t) + b_c),   h_t = g p_t + (1 - g) c

It has a GRU's form with p_t in place of the state before, and so no recurrence: the Jacobian is zero, the path from any
input to the output has one step, and the price is a product with w inputs at every step. TPGN has series as pictures of
R rows with one period each, and this network along the columns, which are a batch, with w = R - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.math import sigmoid
from recsolve.studies.systems.fsmn import windows
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    length: int = 1024
    batch: int = 2
    inputs: int = 4
    units: int = 8
    window: int = 12
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    n, width, w, random = config.units, config.inputs, config.window, Draw(config.seed, config.dtype)
    return {
        "x": random.normal(config.length, config.batch, width),
        "W_p": random.normal(n, width, w, scale=(width * w) ** -0.5),
        "W_g": random.normal(n, width + n, scale=(width + n) ** -0.5),
        "W_c": random.normal(n, width + n, scale=(width + n) ** -0.5),
        "b": random.normal(3, n, scale=0.1),
    }


def gate(h: Any, u: Any, p: Any) -> Any:
    return gated(np.einsum("...iw,niw->...n", u["window"], p.W_p) + p.b[0], u["x"], p)


def gated(past: Any, x: Any, p: Any) -> Any:
    """Return g past + (1 - g) c: with the state before as the past it is the step of a gated network."""
    seen = np.concatenate([x, past], axis=-1)
    g, c = sigmoid(seen @ p.W_g.T + p.b[1]), np.tanh(seen @ p.W_c.T + p.b[2])
    return g * past + (1 - g) * c


def make(arrays: Arrays) -> rs.Recurrence:
    x, weights = arrays["x"], {name: arrays[name] for name in ("W_p", "W_g", "W_c", "b")}
    before = windows(x, weights["W_p"].shape[-1], 0)[..., :-1]
    initial = np.zeros((*x.shape[1:-1], len(weights["W_p"])), x.dtype)
    return rs.Recurrence.from_function(
        gate, inputs={"x": x, "window": before}, initial=initial, structure="zero", parameters=weights
    )


SYSTEMS = (
    system_of(
        __name__,
        name="pgn",
        make=make,
        structure="zero",
        title="Parallel Gated Network",
        cite="Jia et al., arXiv 2409.17703",
        study="pgn",
    ),
)
