"""Recurrent depth: a block iterated r times per token, and the token that it says is the next input.

At position t the state s starts from s^0 and is iterated r times on the embedding e of the token before (Geiping, Yang
and Su, "Efficient Parallel Samplers for Recurrent-Depth Models", arXiv 2510.14961), attending to the final state of the
position before, here through a matrix:

    s_t^{i+1} = tanh(W s_t^i + V s_{t-1}^r + e(y_{t-1}) + P_t),   y_t = argmax C s_t^r

Every r' iterations of a position are a node: one slot is the node before, the other the last node of the position
before. A token after the other takes T r / r' levels. Iterations of all positions at a time, on what is known of the
tokens, are sweeps of Jacobi's method on this graph; the paper's sampler lets positions begin one after the other and
freezes those that have settled.

The Jacobian is dense for each slot; the token has derivative 0, so nothing is known through it before it is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``length`` is the number of positions, ``iterations`` is r and ``inner`` r'; gains are those of W and V."""

    length: int = 64
    batch: int = 1
    iterations: int = 32
    inner: int = 8
    width: int = 8
    tokens: int = 6
    gain: float = 0.5
    memory: float = 0.5
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    """Draw s^0 and weights; ``nodes`` says by its shape alone how many nodes a position has, and iterations a node."""
    n, random = config.width, Draw(config.seed, config.dtype)
    return {
        "s0": random.normal(config.batch, n),
        "W": random.normal(n, n, scale=config.gain * n**-0.5),
        "V": random.normal(n, n, scale=config.memory * n**-0.5),
        "E": random.normal(config.tokens, n),
        "C": random.normal(config.tokens, n, scale=n**-0.5),
        "P": random.normal(config.length, n, scale=0.5),
        "nodes": np.full((config.iterations // config.inner, config.inner), 1, config.dtype),
    }


def iterate(s: Any, past: Any, P: Any, inner: int, arrays: Arrays) -> Any:
    """Return s after some iterations, given the final state of the position before, whose token is read off from it.

    All are (rows, n), and matrices multiply from the right.
    """
    W, V, E, C = (arrays[name] for name in "WVEC")
    e = np.dot(past, V) + E[np.dot(past, C).argmax(axis=-1)] + P
    for _ in range(inner):
        s = np.tanh(np.dot(s, W) + e)  # of a few rows in less time than s @ W
    return s


def _step(h: Any, u: Any, p: Any, inner: int) -> Any:
    rows = (-1, u.shape[-1])  # nodes and sequences alike
    return iterate(h[0].reshape(rows), h[1].reshape(rows), u.reshape(rows), inner, p).reshape(u.shape)


def weights_of(arrays: Arrays) -> Arrays:
    """Return the matrices so that they multiply from the right."""
    return {name: np.ascontiguousarray(arrays[name].T) for name in "WVC"} | {"E": arrays["E"]}


def make(arrays: Arrays) -> rs.Recurrence:
    """Return the recurrence on nodes (position, r / r'); the prompt is the token that s^0 says."""
    P, s0 = arrays["P"], arrays["s0"]
    T, (nodes, inner) = len(P), arrays["nodes"].shape
    place = np.arange(T * nodes).reshape(T, nodes)
    parents = np.full((T, nodes, 2), -1)
    parents[:, 1:, 0] = place[:, :-1]
    parents[1:, :, 1] = place[:-1, -1:]
    return rs.Recurrence.from_graph(
        partial(_step, inner=inner),
        parents,
        inputs=np.broadcast_to(P[:, None, None], (T, nodes, *s0.shape)),
        initial=s0,
        parameters=weights_of(arrays),
    )


def tokens(arrays: Arrays, states: Array) -> Array:
    """Return y, (T, batch)."""
    return np.argmax(states[:, -1] @ arrays["C"].T, axis=-1)  # type: ignore[no-any-return]


SYSTEMS = (
    system_of(
        __name__,
        name="recurrent_depth",
        make=make,
        structure="dense in the iteration before and in the position before",
        title="Recurrent depth",
        cite="Geiping, Yang and Su, arXiv 2510.14961",
        study="sampler",
    ),
)
