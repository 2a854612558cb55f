"""Bidirectional RNN, as the Critical Review of Recurrent Neural Networks for Sequence Learning has it.

A network that goes forwards and one that goes backwards see the same input and nothing of each other (Lipton, Berkowitz
and Elkan, arXiv 1506.00019; Schuster and Paliwal 1997):

    h_t = sigmoid(W_hx x_t + W_hh h_{t-1} + b_h),   z_t = sigmoid(W_zx x_t + W_zz z_{t+1} + b_z),
    y_t = softmax(W_yh h_t + W_yz z_t + b_y)

Two chains side by side are one graph, of nodes (2, T): one solve finds both, a level being the step t of the one and
the step T + 1 - t of the other. The Jacobian is dense, the derivative of the sigmoid times a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.math import sigmoid, softmax
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``gain`` scales the matrices between states, of which rows have a norm of about gain."""

    length: int = 1024
    batch: int = 2
    inputs: int = 4
    units: int = 8
    classes: int = 3
    gain: float = 2.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    """Draw input and weights; the first axis of the latter is the direction, forwards and backwards."""
    n, random = config.units, Draw(config.seed, config.dtype)
    return {
        "x": random.normal(config.length, config.batch, config.inputs),
        "Wx": random.normal(2, n, config.inputs, scale=config.inputs**-0.5),
        "W": random.normal(2, n, n, scale=config.gain * n**-0.5),
        "b": random.normal(2, n, scale=0.1),
        "Wy": random.normal(2, config.classes, n, scale=n**-0.5),
        "by": random.normal(config.classes, scale=0.1),
    }


def _step(h: Any, u: Any, p: Any) -> Any:
    return sigmoid(u["x"] + rs.graphs.matmul(h[0], p.W.swapaxes(-1, -2), u["direction"]))


def make(arrays: Arrays) -> rs.Recurrence:
    x, Wx, W, b = (arrays[name] for name in ("x", "Wx", "W", "b"))
    T, batch, n = *x.shape[:2], W.shape[-1]
    drive = np.stack([x @ Wx[d].T + b[d] for d in range(2)])
    return rs.Recurrence.from_graph(
        _step,
        rs.graphs.together(rs.graphs.grid(T), rs.graphs.grid(T, directions=(-1,))),
        inputs={"x": drive, "direction": np.broadcast_to([[0], [1]], (2, T))},
        initial=np.zeros((batch, n), x.dtype),
        parameters={"W": W},
    )


def read(arrays: Arrays, states: Array) -> Array:
    """Return y, (T, batch, classes)."""
    return softmax(states[0] @ arrays["Wy"][0].T + states[1] @ arrays["Wy"][1].T + arrays["by"])  # type: ignore[no-any-return]


SYSTEMS = (
    system_of(
        __name__,
        name="brnn",
        make=make,
        structure="dense, within a direction",
        title="Critical Review",
        cite="Lipton, Berkowitz and Elkan, arXiv 1506.00019",
    ),
)
