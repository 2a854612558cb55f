"""pLSTM: linear recurrences on the edges of a directed graph without cycles, of which lines and grids are the cases.

Every edge e, which leaves a node n, holds a matrix C_e for each head (Poeppel et al., arXiv 2506.11997). With keys k,
queries q and values v of the nodes, and gates S (source), T (transition), M (mark) and D (direct) of theirs:

    C_e = sum over e' into n of T_{e e'} C_{e'} + S_e k_n v_n^T
    y_n = sum over e into n of M_e C_e^T q_n + D_n (q_n . k_n) v_n

On a line it is an affine scan. On a grid a node has an edge to the right, R, and one down, W; l = R of the node on the
left and u = W of the one above:

    R = T^rl l + T^ru u + S^r k v^T,   W = T^dl l + T^du u + S^d k v^T

P-mode keeps sum over e of |T_{e e'}| <= 1 for every edge e' that comes in: here T^rl = T^ru = a, T^dl = T^du = 1 - a,
S^r = a, S^d = 1 - a. D-mode deletes a turn, T^ru = 0, and keeps each |T| <= 1: then one path at most leads from one
edge to another, and no gain exceeds 1. The graph here is in P-mode: T_{e e'} = a_e g_{e'}, S_e = a_e, where the shares
a of the edges that leave a node sum to 1 and 0 < g < 1.

The Jacobian is a number for each pair of edges and head (on a grid 2 x 2), and does not depend on C: Newton's method
takes one iteration. Levels are nodes at the same distance; a grid of X x Y has X + Y - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.math import sigmoid
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """``length`` is the number of nodes; a grid has as many rows and columns as its square root says."""

    length: int = 4096
    batch: int = 2
    heads: int = 2
    keys: int = 4
    values: int = 4
    bias: float = 2.0
    seed: int = 0
    dtype: str = "float64"


def _nodes(config: Config, random: Draw, *nodes: int) -> dict[str, Array]:
    each, K = (*nodes, config.batch, config.heads), config.keys
    return {
        "q": random.normal(*each, K),
        "k": random.normal(*each, K, scale=K**-0.5),
        "v": random.normal(*each, config.values),
        "M": sigmoid(random.normal(*each, 2)),
        "D": sigmoid(random.normal(*each)),
    }


def draw_line(config: Config) -> Arrays:
    random, each = Draw(config.seed, config.dtype), (config.length, config.batch, config.heads)
    gates = {"T": sigmoid(random.normal(*each) + config.bias), "S": sigmoid(random.normal(*each))}
    return {**_nodes(config, random, config.length), **gates}


def draw_grid(config: Config) -> Arrays:
    """Draw a grid for both modes: ``gates`` are a, b, c of T = ((a, a), (1 - a, 1 - a)) or ((a, 0), (b, c))."""
    random, shape = Draw(config.seed, config.dtype), (isqrt(config.length),) * 2
    gates = sigmoid(random.normal(*shape, config.batch, config.heads, 3))
    return {**_nodes(config, random, *shape), "gates": gates}


def draw_graph(config: Config) -> Arrays:
    """Draw edges (from, to), two into every node but the first ones, from 4 to 11 places before it."""
    random, N = Draw(config.seed, config.dtype), config.length
    back = np.stack([random.uniform(4, 8, N), random.uniform(8, 12, N)], axis=1).astype(np.int64)
    edges = np.stack([np.arange(N)[:, None] - back, np.broadcast_to(np.arange(N)[:, None], (N, 2))], axis=-1)
    edges = edges[edges[..., 0] >= 0]
    each = (len(edges), config.batch, config.heads)
    a = sigmoid(random.normal(*each))
    leaving = np.zeros((N, *each[1:]), a.dtype)
    np.add.at(leaving, edges[:, 0], a)
    gates = {"a": a / leaving[edges[:, 0]], "g": sigmoid(random.normal(*each) + config.bias)}
    return {**_nodes(config, random, N), **gates, "edges": edges}


def _written(arrays: Arrays) -> Array:
    """Return k v^T at every node, flat: (*nodes, batch, heads, K V)."""
    outer = arrays["k"][..., :, None] * arrays["v"][..., None, :]
    return outer.reshape(*outer.shape[:-2], -1)


def _along(h: Any, u: Any) -> Any:
    return u["T"] * h + u["w"]


def line(arrays: Arrays) -> rs.Recurrence:
    w = arrays["S"][..., None] * _written(arrays)
    return rs.Recurrence.from_function(
        _along, inputs={"T": arrays["T"][..., None], "w": w}, initial=np.zeros(w.shape[1:], w.dtype), structure="scalar"
    )


def scan(recurrence: rs.Recurrence) -> Array:
    T, w = recurrence.inputs  # type: ignore[attr-defined]
    found: Array = rs.scan("affine", (T, w), initial=recurrence.initial)
    return found


def _across(h: Any, u: Any) -> Any:
    T, left, above = u["T"][..., None], h[0][..., 0, :], h[1][..., 1, :]
    return (
        T[..., 0, :] * left[..., None, :]
        + T[..., 1, :] * above[..., None, :]
        + u["S"][..., None] * u["w"][..., None, :]
    )


def grid(T: Array, S: Array, w: Array) -> rs.Recurrence:
    """Return the recurrence of (R, W), with T[..., to, from] and S[..., to], and k v^T as (X, Y, batch, heads, K V)."""
    initial = np.zeros((*w.shape[2:4], 2, w.shape[-1]), w.dtype)
    graph = rs.graphs.grid(w.shape[:2])
    return rs.Recurrence.from_graph(_across, graph, inputs={"T": T, "S": S, "w": w}, initial=initial, structure="block")


def grid_p(arrays: Arrays) -> rs.Recurrence:
    shares = np.stack([arrays["gates"][..., 0], 1 - arrays["gates"][..., 0]], axis=-1)
    return grid(np.stack([shares, shares], axis=-1), shares, _written(arrays))


def grid_d(arrays: Arrays) -> rs.Recurrence:
    a, b, c = np.moveaxis(arrays["gates"], -1, 0)
    T = np.stack([np.stack([a, np.zeros_like(a)], axis=-1), np.stack([b, c], axis=-1)], axis=-2)
    return grid(T, np.stack([a, 1 - a], axis=-1), _written(arrays))


def _into(edges: Array) -> Array:
    """Return for every edge the edges into the node that it leaves, -1 where there are fewer: (E, slots)."""
    into: dict[int, list[int]] = {}
    for e, (_, node) in enumerate(edges.tolist()):
        into.setdefault(node, []).append(e)
    before = [into.get(node, []) for node, _ in edges.tolist()]
    slots = max(map(len, before), default=0) or 1
    return np.array([row + [-1] * (slots - len(row)) for row in before], np.int64).reshape(-1, slots)


def _over(h: Any, u: Any) -> Any:
    return sum((u["T"][:, p, ..., None] * x for p, x in enumerate(h)), start=u["w"])


def graph(arrays: Arrays) -> rs.Recurrence:
    a, edges, parents = arrays["a"], arrays["edges"], _into(arrays["edges"])
    inputs = {"T": a[:, None] * arrays["g"][parents], "w": a[..., None] * _written(arrays)[edges[:, 0]]}
    initial = np.zeros(inputs["w"].shape[1:], a.dtype)
    return rs.Recurrence.from_graph(_over, parents, inputs=inputs, initial=initial, structure="scalar")


def read(arrays: Arrays, *entering: Array) -> Array:
    """Return y, (*nodes, batch, heads, V), from the matrices on the edges into each node, flat: of one edge or two."""
    q, k, v = (arrays[name] for name in "qkv")
    y: Array = (arrays["D"] * (q * k).sum(axis=-1))[..., None] * v
    for e, C in enumerate(entering):
        C = C.reshape(*C.shape[:-1], k.shape[-1], v.shape[-1])
        y = y + arrays["M"][..., e, None] * np.einsum("...kv,...k->...v", C, q)
    return y


_PAPER = {"title": "pLSTM", "cite": "Poeppel et al., arXiv 2506.11997", "study": "plstm"}
_GRID = {"draw": draw_grid, "structure": "2 x 2 per number and parent, independent of C"}
SYSTEMS = (
    system_of(
        __name__,
        name="plstm_line",
        make=line,
        scan=scan,
        draw=draw_line,
        structure="a number, independent of C",
        **_PAPER,
    ),
    system_of(__name__, name="plstm_grid_p", make=grid_p, **_GRID, **_PAPER),
    system_of(__name__, name="plstm_grid_d", make=grid_d, **_GRID, **_PAPER),
    system_of(
        __name__,
        name="plstm_graph",
        make=graph,
        draw=draw_graph,
        config=Config(length=1024),
        structure="a number for each parent, independent of C",
        **_PAPER,
    ),
)
