"""The Languini Kitchen: a quasi-LSTM whose gates do not see its state, and a multi-head LSTM with one shared matrix.

With gates projected from the input x (Stanic et al., arXiv 2309.11197), g_k = W_k x + b_k for f, i, z, o:

quasi-LSTM:  c' = sigmoid(g_f + 1) c + sigmoid(g_i) tanh(g_z),   y = sigmoid(g_o) tanh(c')
mhLSTM:      g_k = W_k x + b_k + R_k h for every head h, with the same R_k and b_k for all of them,
             c' = sigmoid(g_f) c + sigmoid(g_i) tanh(g_z),   h' = sigmoid(g_o) tanh(c')

The Jacobian of the first is diagonal and known beforehand: one affine scan, which the paper takes in blocks, as a
triangular matrix of exp of differences of a running sum of log(f + 1e-8). The second is dense within a head, and has
to be iterated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.math import sigmoid
from recsolve.mixings import Dense
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``gain`` scales the rows of the shared matrix."""

    length: int = 1024
    batch: int = 2
    inputs: int = 8
    heads: int = 4
    units: int = 8
    gain: float = 0.5
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    n, width, random = config.units, config.inputs, Draw(config.seed, config.dtype)
    return {
        "x": random.normal(config.length, config.batch, width),
        "W": random.normal(4, config.heads * n, width, scale=width**-0.5),
        "b": random.normal(4, n, scale=0.1),
        "R": random.normal(4, n, n, scale=config.gain * n**-0.5),
    }


def _projected(arrays: Arrays) -> list[Array]:
    """Return W_k x + b_k by heads, (T, *batch, heads, units), for every gate; heads share b."""
    x, W, b = (arrays[name] for name in "xWb")
    heads = (*x.shape[:-1], -1, b.shape[-1])
    return [(x @ W[k].T).reshape(heads) + b[k] for k in range(4)]


def draw_quasi(config: Config) -> Arrays:
    return {name: array for name, array in draw(config).items() if name != "R"}


def gated(c: Any, u: Any) -> Any:
    return u["f"] * c + u["iz"]


def shown(c: Any, u: Any) -> Any:
    return u["o"] * np.tanh(c)


def quasi_lstm(arrays: Arrays) -> rs.Recurrence:
    f, i, z, o = (g.reshape(*g.shape[:-2], -1) for g in _projected(arrays))
    inputs = {"f": sigmoid(f + 1), "iz": sigmoid(i) * np.tanh(z), "o": sigmoid(o)}
    return rs.Recurrence.from_function(
        gated, inputs=inputs, initial=np.zeros_like(f[0]), structure="diagonal", readout=shown
    )


def scan(recurrence: rs.Recurrence) -> Array:
    f, iz, _ = recurrence.inputs  # type: ignore[attr-defined]
    found: Array = rs.scan("affine", (f, iz), initial=recurrence.initial)
    return found


def mh_lstm(arrays: Arrays) -> rs.Recurrence:
    f, i, z, o = _projected(arrays)
    mixings = {gate: Dense(R) for gate, R in zip("figo", arrays["R"], strict=True)}
    cell = rs.cells.LSTM.with_weights(mixings=mixings)  # heads that share a matrix are an axis of the batch
    return cell.recurrence(drive={"f": f, "i": i, "g": z, "o": o})


_PAPER = {"title": "The Languini Kitchen", "cite": "Stanic et al., arXiv 2309.11197"}
SYSTEMS = (
    system_of(
        __name__,
        name="quasi_lstm",
        draw=draw_quasi,
        make=quasi_lstm,
        scan=scan,
        structure="diagonal, independent of c",
        study="chunks",
        **_PAPER,
    ),
    system_of(__name__, name="mh_lstm", make=mh_lstm, structure="dense within a head, of both components", **_PAPER),
)
