"""Recurrent Transformer: a layer whose keys and values are those of its own outputs.

With one norm, and the same W_k and W_v for what enters a layer and for what leaves it, for each head (Oncescu et al.,
arXiv 2604.21215):

    q_t = W_q LN(x_t),  (k0_t, v0_t) = (W_k, W_v) LN(x_t)                         known beforehand
    a_t = softmax([k_1, ..., k_{t-1}, k0_t] q_t / sqrt(d) - slope (t - s)) [v_1, ..., v_{t-1}, v0_t]
    y_t = x_t + W_o a_t,  o_t = y_t + W_2 relu(W_1 LN(y_t)),  (k_t, v_t) = (W_k, W_v) LN(o_t)

A row depends on all rows before it, so there is no Jacobian per step; Jacobi's sweep is one parallel layer. From o = x
the first sweep is the ordinary Transformer layer, and after k sweeps k rows are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.base.names import Names
from recsolve.math import softmax
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``gain`` scales all weights."""

    length: int = 128
    batch: int = 1
    heads: int = 2
    width: int = 8
    gain: float = 1.0
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    d, random = config.width, Draw(config.seed, config.dtype)
    scale = config.gain * d**-0.5
    return {
        "x": random.normal(config.length, config.batch, d),
        "W": random.normal(4, d, d, scale=scale),  # of q, k, v and o
        "W1": random.normal(2 * d, d, scale=scale),
        "W2": random.normal(d, 2 * d, scale=scale * 2**-0.5),
        "slopes": (2.0 ** -np.arange(1, config.heads + 1)).astype(config.dtype),
    }


def normed(x: Array) -> Array:
    gap = x - x.mean(axis=-1, keepdims=True)
    out: Array = gap / np.sqrt((gap * gap).mean(axis=-1, keepdims=True) + 1e-5)
    return out


class Layer:
    """All rows of the layer, given its outputs; a cache holds the keys and values of rows before."""

    def __call__(self, o: Array, u: Any, p: Any) -> Array:
        return self.window(None, o, u, p)

    def extend(self, cache: Any, o: Array, u: Any, p: Any) -> Any:
        return _joined(cache, kept(o, p))

    def window(self, cache: Any, o: Array, u: Any, p: Any) -> Array:
        keys, values = self.extend(cache, o, u, p)
        q, own = u["q"], (u["q"] * u["k"]).sum(axis=-1)
        age = len(keys) - len(o) + np.arange(len(o))[:, None] - np.arange(len(keys))
        known = np.where(age > 0, -age * p.slopes[:, None, None], -np.inf)  # (heads, rows, all rows)
        scores = np.einsum("tbhd,sbhd->bhts", q, keys) / root(q) + known.astype(q.dtype)
        scores = np.concatenate([scores, np.moveaxis(own, 0, -1)[..., None] / root(q)], axis=-1)
        weights = softmax(scores)
        found = np.einsum("bhts,sbhd->tbhd", weights[..., :-1], values)
        found = found + np.moveaxis(weights[..., -1], -1, 0)[..., None] * u["v"]
        return finish(found, u["x"], p)


def finish(found: Array, x: Array, p: Any) -> Array:
    """Return outputs of inputs and of what attention has found for them."""
    y = x + found.reshape(x.shape) @ p.W[3].T
    out: Array = y + np.maximum(normed(y) @ p.W1.T, 0) @ p.W2.T
    return out


def heads(x: Array, slopes: Array) -> Array:
    return x.reshape(*x.shape[:-1], len(slopes), -1)


def kept(x: Array, p: Any) -> tuple[Array, Array]:
    """Return keys and values, (rows, batch, heads, d)."""
    inner = normed(x)
    return heads(inner @ p.W[1].T, p.slopes), heads(inner @ p.W[2].T, p.slopes)


def _joined(cache: Any, kept: tuple[Array, Array]) -> tuple[Array, ...]:
    return kept if cache is None else tuple(np.concatenate(pair) for pair in zip(cache, kept, strict=True))


def root(q: Array) -> Any:
    return q.dtype.type(q.shape[-1] ** 0.5)


def make(arrays: Arrays) -> rs.Recurrence:
    x, weights = arrays["x"], Names({name: arrays[name] for name in ("W", "W1", "W2", "slopes")}, "parameter")
    k, v = kept(x, weights)
    q = heads(normed(x) @ weights.W[0].T, weights.slopes)
    return rs.Recurrence.from_history(Layer(), inputs={"x": x, "q": q, "k": k, "v": v}, parameters=weights)


SYSTEMS = (
    system_of(
        __name__,
        name="recurrent_transformer",
        make=make,
        structure="of all rows before",
        title="Recurrent Transformer",
        cite="Oncescu et al., arXiv 2604.21215",
        study="recurrent_transformer",
    ),
)
