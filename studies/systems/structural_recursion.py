"""Structural recursion: numbers by their bits, the lowest first, and trees by their children.

Tasks of Zhang et al., "Transformer-Based Models Are Not Yet Perfect At Learning to Emulate Structural Recursion"
(arXiv 2401.12947), with carries c, from 1 for a successor and 0 for a sum, and bits s of the result:

successor:  c' = b and c,  s = b xor c
adder:      c' = (a and b) or (c and (a xor b)),  s = a xor b xor c
in order:   trav(n) = trav(left) [v] trav(right)
pre-order:  trav(n) = [v] trav(left) trav(right)

States are bits, and lists of a fixed width: there is no Jacobian. The step of a carry kills, keeps or makes it, a map
of two states, so that a scan of such maps is the solution. A tree is a graph from its leaves to its root: sweep k is
exact up to height k. What k sweeps from no carry get right is in the study.
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
    length: int = 4096
    batch: int = 2
    seed: int = 0


@dataclass(frozen=True)
class TreeConfig:
    """A tree into which ``length`` values are sorted, in random order."""

    length: int = 128
    seed: int = 0


def draw(config: Config) -> Arrays:
    a, b = Draw(config.seed, "bool").integers(0, 2, 2, config.length, config.batch)
    return {"a": a, "b": b}


def draw_successor(config: Config) -> Arrays:
    return {"b": draw(config)["b"]}


def draw_tree(config: TreeConfig) -> Arrays:
    """Return the children of every node, left and right, -1 for none, and the values of nodes; node 0 is the root."""
    values = np.random.default_rng(config.seed).permutation(config.length)
    children = np.full((config.length, 2), -1)
    for new in range(1, config.length):
        node = 0
        while (child := children[node, side := int(values[new] > values[node])]) >= 0:
            node = child
        children[node, side] = new
    return {"children": children, "values": values}


def _successor(s: Any, u: Any) -> Any:
    return {"c": u["b"] & s.c, "s": u["b"] ^ s.c}


def _add(s: Any, u: Any) -> Any:
    differ = u["a"] ^ u["b"]
    return {"c": (u["a"] & u["b"]) | (s.c & differ), "s": differ ^ s.c}


def _bits(f: Any, arrays: Arrays, carry: bool) -> rs.Recurrence:
    b = arrays["b"]
    return rs.Recurrence.from_function(
        f,
        inputs=dict(arrays),
        state={"c": (), "s": ()},
        initial={"c": np.full(b.shape[1], carry, b.dtype), "s": np.zeros(b.shape[1], b.dtype)},
        structure="none",
    )


def successor(arrays: Arrays) -> rs.Recurrence:
    return _bits(_successor, arrays, True)


def adder(arrays: Arrays) -> rs.Recurrence:
    return _bits(_add, arrays, False)


def scan(recurrence: Any) -> Array:
    """Return the states by what each step makes of no carry and of a carry, and then one look at all bits."""
    no, yes = (recurrence.apply(np.broadcast_to(np.array([c, 0], bool), recurrence.shape)) for c in (0, 1))
    maps = np.stack([no[..., 0], yes[..., 0]], axis=-1).astype(np.uint8)
    carries = rs.scan("finite_map", (maps,), initial=recurrence.initial[..., 0].astype(np.uint8)).astype(bool)
    before = np.concatenate([recurrence.initial[None, :, 0], carries[:-1]])
    bits: Array = np.where(before, yes[..., 1], no[..., 1])
    return np.stack([carries, bits], axis=-1)


def _inorder(h: Any, v: Any) -> Any:
    """Return the number of values and the values, then -1, as the children do theirs."""
    left, right = h
    n, place = left.n[..., None], np.arange(left.listed.shape[-1])
    rest = np.where(place == n, v, _moved(right.listed, place - n - 1))
    return left.n + right.n + 1, np.where(place < n, left.listed, rest)


def _preorder(h: Any, v: Any) -> Any:
    left, right = h
    n, place = left.n[..., None], np.arange(left.listed.shape[-1])
    root_and_left = np.concatenate([np.broadcast_to(v, n.shape), left.listed[..., :-1]], axis=-1)
    values = np.where(place <= n, root_and_left, _moved(right.listed, place - n - 1))
    return left.n + right.n + 1, values


def _moved(x: Any, place: Any) -> Any:
    """Return x[place] along the last axis; where places are no places, anything."""
    return np.take_along_axis(x, np.broadcast_to(place, x.shape).clip(0), axis=-1)


def _tree(f: Any, arrays: Arrays) -> rs.Recurrence:
    values = arrays["values"]
    return rs.Recurrence.from_graph(
        f,
        arrays["children"],
        inputs=values[:, None],
        state={"n": (), "listed": ("place",)},
        initial={"n": np.zeros((), values.dtype), "listed": np.full(len(values), -1, values.dtype)},
        structure="none",
    )


def tree_inorder(arrays: Arrays) -> rs.Recurrence:
    return _tree(_inorder, arrays)


def tree_preorder(arrays: Arrays) -> rs.Recurrence:
    return _tree(_preorder, arrays)


_PAPER = {"title": "Structural recursion", "cite": "Zhang et al., arXiv 2401.12947", "study": "carry"}
_BITS = {**_PAPER, "structure": "none: bits", "scan": scan}
_TREES = {**_PAPER, "structure": "none: lists", "config": TreeConfig(), "draw": draw_tree}
SYSTEMS = (
    system_of(__name__, name="successor", make=successor, **{**_BITS, "draw": draw_successor}),
    system_of(__name__, name="adder", make=adder, **_BITS),
    system_of(__name__, name="tree_inorder", make=tree_inorder, **_TREES),
    system_of(__name__, name="tree_preorder", make=tree_preorder, **_TREES),
)
