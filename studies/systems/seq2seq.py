"""Sequence to Sequence Learning: a stack of LSTM reads a source, another one goes on from its states with the target.

In layer l of the encoder, and with weights of its own of the decoder, below is the output of layer l - 1 at the same
step, in the lowest layer the input x_t (Sutskever, Vinyals and Le, arXiv 1409.3215):

    i, f, o = sigmoid, g = tanh of  W_h h_{t-1} + W_x below + b,   c' = f c + i g,   h' = o tanh(c')

The decoder begins with the encoder's last (h, c), layer by layer, and is fed the target (teacher forcing): then layers
x time is one graph, in which encoder and decoder are kinds of nodes. It has layers + steps - 1 levels where one layer
after the other takes layers x steps; the paper laid its layers over GPUs for that. The source is read in reverse.

The Jacobian of a node is dense in (h, c) of the step before and in h below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.math import sigmoid
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``length`` is the number of steps, half of them the source's; rows of matrices have a norm of about ``gain``."""

    length: int = 512
    batch: int = 2
    layers: int = 4
    inputs: int = 4
    units: int = 8
    gain: float = 1.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    """Draw source, target and weights, whose first axis is encoder and decoder; gates are i, f, g, o."""
    n, L, random = config.units, config.layers, Draw(config.seed, config.dtype)
    source = config.length // 2
    return {
        "source": random.normal(source, config.batch, config.inputs),
        "target": random.normal(config.length - source, config.batch, config.inputs),
        "Wx": random.normal(2, config.inputs, 4 * n, scale=config.gain * config.inputs**-0.5),
        "Wbelow": random.normal(2, L - 1, n, 4 * n, scale=config.gain * n**-0.5),
        "Wh": random.normal(2, L, n, 4 * n, scale=config.gain * n**-0.5),
        "b": random.normal(2, L, 4 * n, scale=0.1),
    }


def _step(states: Any, u: Any, p: Any) -> Any:
    before, below = states
    seen = np.concatenate([before.h, below.h], axis=-1)
    i, f, g, o = np.split(rs.graphs.matmul(seen, p.W, u["kind"]) + u["x"], 4, axis=-1)
    c = sigmoid(f) * before.c + sigmoid(i) * np.tanh(g)
    return {"h": sigmoid(o) * np.tanh(c), "c": c}


def make(arrays: Arrays) -> rs.Recurrence:
    """Return the recurrence on layers x time of states (h, c), the source fed last step first."""
    sources, targets, Wx, Wh, b = (arrays[name] for name in ("source", "target", "Wx", "Wh", "b"))
    _, L, n, _ = Wh.shape
    S, T, batch = len(sources), len(sources) + len(targets), sources.shape[1]
    part = (np.arange(T) >= S).astype(int)  # 0 in the encoder, 1 in the decoder
    drive = np.array(np.broadcast_to(b[part].swapaxes(0, 1)[:, :, None], (L, T, batch, 4 * n)))
    drive[0] += np.concatenate([sources[::-1] @ Wx[0], targets @ Wx[1]])
    below = np.concatenate([np.zeros_like(Wh[:, :1]), arrays["Wbelow"]], axis=1)
    W = np.concatenate([Wh, below], axis=2).reshape(2 * L, 2 * n, 4 * n)
    return rs.Recurrence.from_graph(
        _step,
        rs.graphs.layers(L, T),
        inputs={"x": drive, "kind": L * part + np.arange(L)[:, None]},
        state={"h": ("n",), "c": ("n",)},
        initial={name: np.zeros((batch, n), drive.dtype) for name in "hc"},
        parameters={"W": W},
    )


SYSTEMS = (
    system_of(
        __name__,
        name="seq2seq_lstm",
        make=make,
        structure="dense in (h, c) of the step before, and in h of the layer below",
        title="Sequence to Sequence Learning",
        cite="Sutskever, Vinyals and Le, arXiv 1409.3215",
        study="seq2seq",
    ),
)
