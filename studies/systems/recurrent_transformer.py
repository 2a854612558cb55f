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
from recsolve.studies.systems.kept import Kept
from recsolve.studies.systems.system import Arrays, Draw, system_of
from recsolve.symbolic.dual import value_of


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
        return Kept.of(kept(o, p)) if cache is None else cache.added(kept(o, p))

    def window(self, cache: Any, o: Array, u: Any, p: Any) -> Array:
        q, own = _by_head(u["q"]) / root(u["q"]), _by_head(u["v"])
        place = np.arange(len(o), dtype=q.dtype)
        parts = []  # of what is seen: scores, (batch, heads, rows, rows that are seen), and values
        if cache is not None:
            parts.append((_scores(q, cache.arrays[0], len(cache) + place, p), _by_head(cache.arrays[1])))
        if len(o) > 1:
            k, v = kept(o, p)
            scores = _scores(q, k, place, p) + np.where(place[:, None] > place, 0, -np.inf).astype(q.dtype)
            parts.append((scores, _by_head(v)))
        score = (q * _by_head(u["k"])).sum(axis=-1, keepdims=True)
        top = value_of(score)  # a constant, which cancels
        for scores, _ in parts:
            top = np.maximum(top, value_of(scores).max(axis=-1, keepdims=True))
        total = np.exp(score - top)
        found = total * own
        for scores, values in parts:
            weights = np.exp(scores - top)
            total, found = total + weights.sum(axis=-1, keepdims=True), found + weights @ values
        return finish(np.moveaxis(found / total, -2, 0), u["x"], p)


def _scores(q: Array, keys: Array, place: Array, p: Any) -> Array:
    """Return those of rows at these places, of which the first seen is at 0."""
    age = place[:, None] - np.arange(len(keys), dtype=q.dtype)
    scores: Array = q @ np.moveaxis(keys, 0, -1) - p.slopes[:, None, None] * age
    return scores


def _by_head(x: Array) -> Array:
    """Return (batch, heads, rows, d)."""
    return np.moveaxis(x, 0, -2)


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
