"""Pointer chasing: the nonlinear side of Why Are Linear RNNs More Parallelizable?

With one edge (i_t, j_t) a step (Merrill et al., arXiv 2603.03612):

pointer:       h' = j if h = i, else h,  from node 0
connectivity:  the same over the edges of a graph with i < j, sorted by i, at most one from each node: is the target
               reached from node 0?  y = (h = target)

The target must have no edge, which is a promise: with the edges (1, 2) and (2, 3) node 2 is reached from 1, and left
again, so that the last state is 3. (A task that is complete for logarithmic space, and a recurrence of one number.)

States are whole numbers, so there is no Jacobian. The exact scan composes maps of all n nodes: n times the work of the
loop. An iteration that takes all steps at once learns in each sweep where one more edge of the path leads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.systems.system import Arrays, Draw, system_of


@dataclass(frozen=True)
class Config:
    """Edges are drawn from ``states`` nodes."""

    length: int = 4096
    batch: int = 2
    states: int = 8
    seed: int = 0


@dataclass(frozen=True)
class GraphConfig:
    """An edge leads from each of ``length`` nodes 1 to ``span`` nodes on, or nowhere with probability ``lost``."""

    length: int = 512
    batch: int = 2
    span: int = 3
    lost: float = 0.001
    seed: int = 0


def draw(config: Config) -> Arrays:
    i, j = Draw(config.seed, "int64").integers(0, config.states, 2, config.length, config.batch)
    return {"i": i, "j": j, "nodes": np.array(config.states)}


def draw_graph(config: GraphConfig) -> Arrays:
    """Return where the edge of node t leads, t itself if it has none, and targets that have none."""
    T, B, random = config.length, config.batch, Draw(config.seed, "int64")
    own = np.arange(T)[:, None]
    j = np.minimum(own + random.integers(1, config.span + 1, T, B), T)
    j = np.where(Draw(config.seed, "float64").uniform(0, 1, T, B) < config.lost, own, j)
    target = random.integers(T // 2, T, B) if T > 1 else np.full(B, T)
    return {"j": np.where(own == target, own, j), "target": target}


def _chase(h: Any, u: Any) -> Any:
    return np.where(h == u["i"], u["j"], h)


def _reached(h: Any, u: Any) -> Any:
    return h == u["target"]


def pointer(arrays: Arrays) -> rs.Recurrence:
    return _made({name: arrays[name][..., None] for name in "ij"}, None)


def connectivity(arrays: Arrays) -> rs.Recurrence:
    j, target = arrays["j"][..., None], arrays["target"][:, None]
    i = np.arange(len(j), dtype=j.dtype)[:, None, None]
    inputs = {"i": i, "j": j, "target": target[None]}
    return _made({name: np.broadcast_to(u, j.shape).copy() for name, u in inputs.items()}, _reached)


def _made(inputs: dict[str, Array], readout: Any) -> rs.Recurrence:
    start = np.zeros_like(inputs["j"][0])
    return rs.Recurrence.from_function(_chase, inputs=inputs, initial=start, structure="none", readout=readout)


def scan(recurrence: Any) -> Array:
    """Return the states from maps of all nodes: only one of them moves in a step."""
    i, j = recurrence.inputs[:2]
    nodes = np.arange(max(int(i.max(initial=0)), int(j.max(initial=0))) + 1)
    found: Array = rs.scan("finite_map", (np.where(nodes == i, j, nodes),), initial=recurrence.initial[..., 0])
    return found[..., None]


_PAPER = {
    "title": "Why Are Linear RNNs More Parallelizable?",
    "cite": "Merrill et al., arXiv 2603.03612",
    "structure": "none: whole numbers",
    "study": "state_maps",
    "scan": scan,
}
SYSTEMS = (
    system_of(__name__, name="pointer", make=pointer, **_PAPER),
    system_of(__name__, name="connectivity", config=GraphConfig(), draw=draw_graph, make=connectivity, **_PAPER),
)
