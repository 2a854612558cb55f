"""Directed acyclic graphs of nodes: which nodes a node sees, and an order in which all of these come before it.

Nodes are kept in the order of *levels*. The level of a node is the length of the longest path that leads to it, so the
nodes of a level do not see each other, and can be computed together once those before them are known.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from recsolve.base.arrays import Array


class Graph:
    """The parents of every node, checked to be free of cycles.

    Parameters
    ----------
    parents : array of int, shape (*nodes, P)
        The P parents of each node, as places in the flattened array of nodes; -1 where it has fewer. The same slot
        should mean the same relation everywhere (left and up, before and below), since f gets the parents slot by slot.

    Attributes
    ----------
    shape : tuple of int
        How the user lays the nodes out, ``nodes``.
    size, slots, depth : int
        The number of nodes, of parents of each, and of levels.
    order : array of int, shape (N,)
        The nodes in the order of levels, as places in the flattened array of nodes.
    parents : array of int, shape (N, P)
        The parents of the nodes in that order, as places in that order; negative where they are no nodes.
    starts : array of int, shape (depth + 1,)
        Where in that order each level starts, and N.

    Raises
    ------
    TypeError
        For parents that are no integers.
    ValueError
        For another shape, a place that is no node, or a cycle, which the message names.

    Notes
    -----
    Kahn, "Topological sorting of large networks", Communications of the ACM 5 (1962), a level at a time.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> graph = rs.graphs.Graph([[2], [-1], [1]])  # 1 -> 2 -> 0
    >>> graph.order.tolist(), graph.depth
    ([1, 2, 0], 3)
    >>> rs.graphs.Graph([[1], [0]])
    Traceback (most recent call last):
    ValueError: parents has a cycle, node 0 sees node 1 sees node 0; wanted a graph without one
    """

    def __init__(self, parents: Any):
        given = np.asarray(parents)
        if given.dtype.kind not in "iu" and given.size:
            raise TypeError(f"parents has dtype {given.dtype}; wanted integers, the places of nodes, and -1 for none")
        if given.ndim < 2 or not given.shape[-1]:
            raise ValueError(f"parents has shape {given.shape}; wanted (*nodes, P) with P >= 1")
        self.shape: tuple[int, ...] = given.shape[:-1]
        flat = given.reshape(-1, given.shape[-1]).astype(np.int64)
        size = len(flat)
        if size and (flat.min() < -1 or flat.max() >= size):
            seen = int(flat.min() if flat.min() < -1 else flat.max())
            raise ValueError(f"parents has {seen}; wanted places of nodes, 0 to {size - 1}, and -1 for none")
        levels = _levels(flat)
        self.order = np.argsort(levels, kind="stable")
        place = np.empty(size, np.int64)
        place[self.order] = np.arange(size)
        sorted_parents = flat[self.order]
        self.parents = np.where(sorted_parents >= 0, place[sorted_parents] if size else -1, -1)
        depth = int(levels.max(initial=-1)) + 1
        self.starts = np.searchsorted(levels[self.order], np.arange(depth + 1))

    @property
    def size(self) -> int:
        return len(self.parents)

    @property
    def slots(self) -> int:
        return int(self.parents.shape[1])

    @property
    def depth(self) -> int:
        return len(self.starts) - 1

    @property
    def ordered(self) -> bool:
        """Whether the user's order is that of levels already."""
        return bool((self.order == np.arange(self.size)).all())

    @cached_property
    def present(self) -> Array:
        """(N, P) of bool: the parents that are nodes."""
        return self.parents >= 0

    @cached_property
    def levels(self) -> list[slice]:
        """The nodes of each level, in the order of levels."""
        bounds = self.starts.tolist()
        return [slice(a, b) for a, b in pairwise(bounds)]

    def part(self, start: int, stop: int, known: bool) -> tuple[Graph, Array]:
        """Return the graph of the nodes start..stop-1 of the order of levels, and what they see from outside of it.

        Parameters
        ----------
        start, stop : int
        known : bool
            Whether nodes before ``start`` are seen as they are; else as the initial state.

        Returns
        -------
        graph : Graph
            A parent outside is negative there: -1 is the initial state, and -2 - k number k of ``outside``.
        outside : array of int
            The places of nodes before ``start``, or negative places of ``parents``.
        """
        parents = self.parents[start:stop]
        if not known:
            parents = np.where((parents >= 0) & (parents < start), -1, parents)
        out = parents < start
        outside = np.unique(parents[out & (parents != -1)])
        numbered = np.where(parents == -1, -1, -2 - np.searchsorted(outside, parents))
        part = object.__new__(Graph)
        part.parents = np.where(out, numbered, parents - start)
        part.starts = np.unique(np.clip(self.starts - start, 0, stop - start))
        part.shape, part.order = (stop - start,), np.arange(stop - start)
        return part, outside

    def name(self, place: int) -> int | tuple[int, ...]:
        """Return the node at a place of the order of levels as the user calls it."""
        index = np.unravel_index(int(self.order[place]), self.shape)
        return int(index[0]) if len(index) == 1 else tuple(int(i) for i in index)

    def __repr__(self) -> str:
        return f"Graph({self.shape} nodes, {self.slots} parents each, {self.depth} levels)"


def _levels(parents: Array) -> Array:
    """Return the length of the longest path that leads to each node."""
    size = len(parents)
    levels = np.zeros(size, np.int64)
    child, slot = np.nonzero(parents >= 0)
    of = parents[child, slot]
    if size and (of < child).all() and (child - of <= 1).all():  # chains, which would be walked node by node
        heads = np.ones(size, bool)
        heads[child] = False
        return np.arange(size) - np.maximum.accumulate(np.where(heads, np.arange(size), 0))
    left = np.bincount(child, minlength=size)
    children = child[np.argsort(of, kind="stable")]
    ends = np.cumsum(np.bincount(of, minlength=size))
    begins = ends - np.bincount(of, minlength=size)
    front, level = np.flatnonzero(left == 0), 0
    while front.size:
        levels[front] = level
        counts = ends[front] - begins[front]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        seen_by = children[np.repeat(begins[front], counts) + within]
        np.subtract.at(left, seen_by, 1)
        front, level = np.unique(seen_by[left[seen_by] == 0]), level + 1
    if left.any():
        raise ValueError(f"parents has a cycle, {_cycle(parents, left)}; wanted a graph without one")
    return levels


def _cycle(parents: Array, left: Array) -> str:
    """Return a cycle in words: every node that is left has a parent that is left."""
    path, node = [], int(np.flatnonzero(left)[0])
    while node not in path:
        path.append(node)
        node = next(int(p) for p in parents[node] if p >= 0 and left[p])
    return " sees ".join(f"node {n}" for n in [*path[path.index(node) :], node])
