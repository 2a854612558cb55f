"""Think-at-Hard: tokens whose first answer is in doubt are iterated further, over a grid of positions and depths.

A token's hidden state h_i^(d) at position i and depth d sees positions up to its own at depths up to its own, which is
duo-causal attention (Fu et al., arXiv 2511.08577); here within a window of positions. From the input x_i^(1) = e_i,

    h_i^(d) = x_i^(d) + tanh(attention of x_i^(d) over x_j^(k), i - window < j <= i, k <= d),
    x_i^(d+1) = h_i^(d) + softmax(U h_i^(d)) E,

with matrices W for what is at depth 1 and W + B A, B A of low rank, for the rest. A token goes on while
sigmoid(w . h + b) > tau = 1/2; one that has stopped keeps its h and adds nothing to what others see at greater depths.

All positions of a depth are parallel: D levels, whatever T is. The state is h and whether the token goes on, whose
derivative is 0; the Jacobian is dense for each parent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.math import sigmoid, softmax
from recsolve.studies.systems.system import Arrays, Draw, system_of

THRESHOLD = 0.5  # of the decider


@dataclass(frozen=True)
class Config:
    """``length`` is the number of positions, ``depth`` the most iterations of one, ``bias`` how many go on."""

    length: int = 512
    batch: int = 1
    depth: int = 4
    window: int = 3
    width: int = 4
    tokens: int = 5
    rank: int = 1
    gain: float = 1.0
    bias: float = 0.5
    seed: int = 0
    dtype: str = "float64"


def draw(config: Config) -> Arrays:
    """Draw embeddings of the input and weights; ``sees`` says by its shape alone how many depths and positions."""
    n, random = config.width, Draw(config.seed, config.dtype)
    scale = config.gain * n**-0.5
    return {
        "e": random.normal(config.length, config.batch, n),
        "W": random.normal(3, n, n, scale=scale),
        "B": random.normal(3, n, config.rank, scale=scale),
        "A": random.normal(3, config.rank, n, scale=scale),
        "U": random.normal(config.tokens, n, scale=n**-0.5),
        "E": random.normal(config.tokens, n),
        "w": random.normal(n),
        "b": random.normal(1, scale=0.1) + config.bias,
        "sees": np.zeros((config.depth, config.window), config.dtype),
    }


def make(arrays: Arrays) -> rs.Recurrence:
    """Return the recurrence on nodes (position, depth) of states (h, 1 where the token goes on)."""
    D, window = arrays["sees"].shape
    T, batch, n = arrays["e"].shape
    offsets = [(-j, -k) for k in range(1, D) for j in range(window)] or [(0, -1)]
    graph = rs.graphs.grid((T, D), offsets=offsets)
    # What there is at the first depth, for every node: inputs of the positions of its window, and whether these exist.
    place = np.arange(T)[:, None] - np.arange(window)
    inputs = {
        "e": np.broadcast_to(arrays["e"][np.maximum(place, 0)][:, None], (T, D, window, batch, n)),
        "near": np.broadcast_to((place >= 0)[:, None], (T, D, window)),
        "first": np.broadcast_to(np.arange(D) == 0, (T, D)),
    }
    dtype = arrays["e"].dtype
    return rs.Recurrence.from_graph(
        _step,
        graph,
        inputs=inputs,
        state={"h": ("n",), "on": ()},
        initial={"h": np.zeros((batch, n), dtype), "on": np.zeros(batch, dtype)},  # of no position: it does not go on
        parameters={name: x for name, x in arrays.items() if name not in ("e", "sees")},
    )


def _step(slots: Any, u: Any, p: Any) -> Any:
    """Return h and whether nodes go on; slots are what is at smaller depths, slot 0 at their own position."""
    deeper = p.W + p.B @ p.A
    h = np.stack([slot.h for slot in slots], axis=-2)  # (nodes, batch, slots, n)
    ran = np.stack([slot.on for slot in slots], axis=-1) == 1
    again = h + softmax(h @ p.U.T) @ p.E  # x at depths 2, 3, ...
    near = np.moveaxis(u["e"], 1, -2)  # x at depth 1, (nodes, batch, window, n)
    first = u["first"][:, None]
    x = np.where(first[..., None], near[..., 0, :], again[..., 0, :])
    q = np.where(first[..., None], x @ p.W[0], x @ deeper[0])
    keys, values = (np.concatenate([near @ p.W[i], again @ deeper[i]], axis=-2) for i in (1, 2))
    there = np.concatenate([np.broadcast_to(u["near"][:, None], near.shape[:-1]), ran], axis=-1)
    scores = np.where(there, np.sum(keys * q[..., None, :], axis=-1) * q.shape[-1] ** -0.5, -np.inf)
    seen = np.sum(softmax(scores)[..., None] * values, axis=-2)
    runs = first | ran[..., 0]
    new = np.where(runs[..., None], x + np.tanh(seen), h[..., 0, :])
    goes_on = runs & (sigmoid(new @ p.w + p.b) > THRESHOLD)
    return {"h": new, "on": np.where(goes_on, np.ones_like(slots[0].on), 0)}


SYSTEMS = (
    system_of(
        __name__,
        name="think_at_hard",
        make=make,
        structure="dense for each parent",
        title="Think-at-Hard",
        cite="Fu et al., arXiv 2511.08577",
        study="thinking",
    ),
)
