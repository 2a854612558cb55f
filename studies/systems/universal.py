"""Universal Transformer: one layer of self-attention, applied again and again to all positions, with halting.

State H of m positions with d numbers each, over depth t (Dehghani et al., arXiv 1807.03819), with P_t the sum of the
sinusoids of position and of depth, and all weights the same at every depth:

    H' = H + P_t,   A = LN(H' + MultiHead(H')),   H_t = LN(A + W_2 relu(W_1 A + b_1) + b_2)

With adaptive computation time (Graves, arXiv 1603.08983) each position adds up p = sigmoid(w . H' + b) to its total c.
While c + p <= 1 - eps it goes on with weight p; the step that would take it further is its last, with weight 1 - c.
The output is y = sum of weight H_t; positions that have halted are copied, and others still attend to them.

The Jacobian is dense in all m d numbers. Which positions run is a step function of the state: its derivative is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.math import layer_norm, relu, sigmoid, softmax
from recsolve.studies.systems.system import Arrays, Draw, system_of

EPSILON = 0.01  # a position halts once less than this is left of its total of 1


@dataclass(frozen=True)
class Config:
    """``length`` is the depth; ``gain`` scales the weights, ``bias`` says how soon positions halt."""

    length: int = 64
    batch: int = 1
    positions: int = 4
    width: int = 6
    heads: int = 2
    hidden: int = 12
    gain: float = 1.0
    bias: float = -2.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    """Draw H_0 and the weights, and P from the depth."""
    d, e, random = config.width, config.width // config.heads, Draw(config.seed, config.dtype)
    return {
        "H": random.normal(config.batch, config.positions, d),
        "P": _sinusoids(config.length, config.positions, d).astype(config.dtype),
        "Wqkv": random.normal(3, config.heads, d, e, scale=config.gain * d**-0.5),
        "Wo": random.normal(config.heads, e, d, scale=config.gain * d**-0.5),
        "W1": random.normal(d, config.hidden, scale=config.gain * d**-0.5),
        "b1": random.normal(config.hidden, scale=0.1),
        "W2": random.normal(config.hidden, d, scale=config.gain * config.hidden**-0.5),
        "b2": random.normal(d, scale=0.1),
        "w": random.normal(d, scale=d**-0.5),
        "b": random.normal(1, scale=0.1) + config.bias,
    }


def _sinusoids(depth: int, positions: int, width: int) -> Array:
    """Return P, (depth, positions, width): of sines and cosines, those of position plus those of depth."""
    rates = 10_000.0 ** (-np.arange(0, width, 2) / width)

    def waves(n: int) -> Array:
        angles = np.arange(1, n + 1)[:, None] * rates
        return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(n, -1)[:, :width]

    return waves(depth)[:, None] + waves(positions)


def _layer(H: Any, p: Any) -> Any:
    """Return the layer's output at all positions, (..., m, d), of its input."""
    q, k, v = (H[..., None, :, :] @ p.Wqkv[i] for i in range(3))  # (..., heads, m, e)
    weights = softmax(q @ np.swapaxes(k, -1, -2) * p.Wqkv.shape[-1] ** -0.5)
    A = layer_norm(H + np.sum(weights @ v @ p.Wo, axis=-3))
    return layer_norm(A + relu(A @ p.W1 + p.b1) @ p.W2 + p.b2)


def _step(s: Any, u: Any, p: Any) -> Any:
    return {"H": _layer(s.H + u, p)}


def _adaptive(s: Any, u: Any, p: Any) -> Any:
    """Return the next H, c and y. A total of 1 says that a position has halted."""
    seen = s.H + u
    chance = sigmoid(seen @ p.w + p.b)
    goes_on = s.c + chance <= 1 - EPSILON
    weight = np.where(goes_on, chance, 1 - s.c)  # 0 once c is 1
    H = np.where((s.c < 1)[..., None], _layer(seen, p), s.H)
    return {"H": H, "c": np.where(goes_on, s.c + chance, 1.0), "y": s.y + weight[..., None] * H}


def _made(f: Any, arrays: Arrays, state: dict[str, Any], initial: dict[str, Array], structure: Any) -> rs.Recurrence:
    H, P = arrays["H"], arrays["P"]
    weights = {name: x for name, x in arrays.items() if name not in ("H", "P") and (f is _adaptive or name not in "wb")}
    return rs.Recurrence.from_function(
        f,
        inputs=np.broadcast_to(P[:, None], (len(P), *H.shape)),
        state={"H": ("m", "d"), **state},
        initial={"H": H, **initial},
        parameters=weights,
        structure=structure,
    )


def transformer(arrays: Arrays) -> rs.Recurrence:
    return _made(_step, arrays, {}, {}, "dense")


def act(arrays: Arrays) -> rs.Recurrence:
    H = arrays["H"]
    pairs = {
        ("H", "H"): "dense",
        ("c", "H"): ("m",),
        ("c", "c"): "diagonal",
        ("y", "H"): "dense",
        ("y", "c"): "diagonal",
        ("y", "y"): "diagonal",
    }
    initial = {"c": np.zeros_like(H[..., 0]), "y": np.zeros_like(H)}
    return _made(_adaptive, arrays, {"c": ("m",), "y": ("m", "d")}, initial, pairs)


_PAPER: dict[str, Any] = {
    "title": "Universal Transformer",
    "cite": "Dehghani et al., arXiv 1807.03819",
    "study": "depth",
}
SYSTEMS = (
    system_of(__name__, name="universal_transformer", make=transformer, structure="dense over positions", **_PAPER),
    system_of(
        __name__,
        name="universal_act",
        make=act,
        structure="dense over positions, triangular in H, c, y",
        **{**_PAPER, "study": "act"},
    ),
)
