"""Graphs for :meth:`recsolve.Recurrence.from_graph`: grids, layers over time, trees, and what is made of edges.

Each function returns a :class:`Graph`; an array of parents makes one of any other kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from recsolve.base.arguments import check_callable
from recsolve.base.arrays import Array, to_host
from recsolve.base.graph import Graph
from recsolve.symbolic.dual import value_of

__all__ = ["Graph", "by_kind", "from_edges", "grid", "layers", "matmul", "together", "tree"]


def __dir__() -> list[str]:
    return sorted(__all__)


def grid(shape: Sequence[int] | int, *, directions: Sequence[int] | None = None, offsets: Any = None) -> Graph:
    """Return a grid of any number of axes, in which every node sees its neighbours.

    Parameters
    ----------
    shape : sequence of int, or int
        The number of nodes along each axis.
    directions : sequence of int, optional
        For each axis 1 (from first to last, the default), -1 (from last to first) or 0 (nodes do not see each other
        along it). Every axis that is not 0 is a slot, in the order of axes.
    offsets : sequence of sequences of int, optional
        In place of directions: where the parent in each slot lies, seen from the node. (0, -1) is the one before it
        along the last axis; (-1, -1) the one across the corner.

    Returns
    -------
    Graph
        With nodes laid out in ``shape``. A parent beyond the border is none.

    Raises
    ------
    ValueError
        For sizes below 0, another direction, offsets of another length, no slot, or offsets that lead in a circle.

    Notes
    -----
    Grids in several directions: Graves, Fernandez and Schmidhuber, "Multi-dimensional recurrent neural networks"
    (2007).

    Examples
    --------
    >>> import recsolve as rs
    >>> rs.graphs.grid((64, 64), directions=(1, -1))
    Graph((64, 64) nodes, 2 parents each, 127 levels)
    >>> rs.graphs.grid(5, offsets=[(-1,), (-2,)]).parents.tolist()  # two steps of memory
    [[-1, -1], [0, -1], [1, 0], [2, 1], [3, 2]]
    """
    sizes = (int(shape),) if np.ndim(shape) == 0 else tuple(int(n) for n in shape)  # type: ignore[arg-type, union-attr]
    if min(sizes, default=-1) < 0:
        raise ValueError(f"shape is {shape!r}; wanted numbers of nodes, at least 0")
    if offsets is not None and directions is not None:
        raise ValueError("directions and offsets are given; wanted one of them")
    if offsets is None:
        steps = tuple(1 for _ in sizes) if directions is None else tuple(directions)
        if len(steps) != len(sizes) or not any(steps) or any(step not in (-1, 0, 1) for step in steps):
            raise ValueError(
                f"directions is {directions!r}; wanted 1, -1 or 0 for each of {len(sizes)} axes, not all 0"
            )
        offsets = [-step * np.eye(len(sizes), dtype=np.int64)[axis] for axis, step in enumerate(steps) if step]
    moves = np.asarray(offsets)
    if moves.ndim != 2 or moves.dtype.kind not in "iu" or not len(moves) or moves.shape[1] != len(sizes):
        raise ValueError(f"offsets is {offsets!r}; wanted vectors of {len(sizes)} integers, at least one")
    if not moves.any(axis=1).all():
        raise ValueError(f"offsets is {offsets!r}; wanted none that is 0, with which a node would see itself")
    node = np.indices(sizes)
    parents = np.full((*sizes, len(moves)), -1, np.int64)
    for slot, move in enumerate(moves):
        parent = node + move.reshape(-1, *(1,) * len(sizes))
        limits = np.reshape(sizes, (-1, *(1,) * len(sizes)))
        inside = ((parent >= 0) & (parent < limits)).all(axis=0)
        if inside.any():
            parents[..., slot][inside] = np.ravel_multi_index(tuple(parent[:, inside]), sizes)
    return Graph(parents)


def layers(depth: int, length: int) -> Graph:
    """Return layers over time: slot 0 is the same layer one step before, slot 1 the layer below at the same step.

    Parameters
    ----------
    depth : int
        The number of layers, or of times that one layer is applied (recurrent depth).
    length : int
        The number of steps.

    Returns
    -------
    Graph
        With nodes (depth, length).

    Raises
    ------
    ValueError
        For numbers below 0.

    Examples
    --------
    >>> import recsolve as rs
    >>> rs.graphs.layers(4, 1000)
    Graph((4, 1000) nodes, 2 parents each, 1003 levels)
    """
    return grid((depth, length), offsets=((0, -1), (-1, 0)))


def from_edges(nodes: int | Sequence[int], edges: Any) -> Graph:
    """Return the graph of some edges; the parents of a node take slots in the order of its edges.

    Parameters
    ----------
    nodes : int, or sequence of int
        How many there are, or how they are laid out.
    edges : array of int, shape (E, 2)
        Pairs (parent, child) of places in the flattened array of nodes.

    Returns
    -------
    Graph
        With as many slots as any node has parents, at least one.

    Raises
    ------
    TypeError, ValueError
        For another shape or dtype, places that are no nodes, or a cycle.

    Examples
    --------
    >>> import recsolve as rs
    >>> rs.graphs.from_edges(4, [(0, 1), (0, 2), (1, 3), (2, 3)])
    Graph((4,) nodes, 2 parents each, 3 levels)
    """
    shape = (int(nodes),) if np.ndim(nodes) == 0 else tuple(int(n) for n in nodes)  # type: ignore[arg-type, union-attr]
    pairs = np.asarray(edges)
    if not pairs.size:
        return Graph(np.full((*shape, 1), -1))
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"edges has shape {pairs.shape}; wanted pairs (parent, child), (E, 2)")
    if pairs.dtype.kind not in "iu":
        raise TypeError(f"edges has dtype {pairs.dtype}; wanted integers, the places of nodes")
    size = prod(shape)
    if pairs.min() < 0 or pairs.max() >= size:
        raise ValueError(f"edges has {int(pairs.min())} to {int(pairs.max())}; wanted places of nodes, 0 to {size - 1}")
    by_child = pairs[np.argsort(pairs[:, 1], kind="stable")]
    counts = np.bincount(by_child[:, 1], minlength=size)
    slot = np.arange(len(by_child)) - (np.cumsum(counts) - counts)[by_child[:, 1]]
    parents = np.full((size, counts.max()), -1)
    parents[by_child[:, 1], slot] = by_child[:, 0]
    return Graph(parents.reshape(*shape, -1))


def tree(above: Any) -> Graph:
    """Return a tree that is computed from the leaves to the root: a node sees its children, one in each slot.

    Parameters
    ----------
    above : array of int, shape (N,)
        The node above each node, -1 for a root; several roots make a forest. (From the root to the leaves it is the
        array of parents itself: ``Graph(above[:, None])``.)

    Returns
    -------
    Graph
        With as many slots as any node has children.

    Raises
    ------
    TypeError, ValueError
        For another shape or dtype, places that are no nodes, or a cycle.

    Notes
    -----
    Tai, Socher and Manning, "Improved semantic representations from tree-structured long short-term memory networks"
    (2015).

    Examples
    --------
    >>> import recsolve as rs
    >>> rs.graphs.tree([2, 2, -1])  # 0 and 1 below 2
    Graph((3,) nodes, 2 parents each, 2 levels)
    """
    up = np.asarray(above)
    if up.ndim != 1:
        raise ValueError(f"above has shape {up.shape}; wanted (N,), the node above each node and -1 for a root")
    if up.dtype.kind not in "iu" and up.size:
        raise TypeError(f"above has dtype {up.dtype}; wanted integers, the places of nodes, and -1 for a root")
    below = np.flatnonzero(up != -1)
    return from_edges(len(up), np.stack([below, up[below]], axis=1).astype(np.int64))


def together(*graphs: Graph) -> Graph:
    """Return several graphs side by side, which do not see each other: directions of one grid, say.

    Parameters
    ----------
    *graphs : Graph
        At least one. Those with fewer slots have no parents in the others.

    Returns
    -------
    Graph
        With nodes (len(graphs), *nodes) where all are laid out alike, else in one axis, one graph after the other.

    Raises
    ------
    TypeError, ValueError
        For what is no graph, or none at all.

    Examples
    --------
    >>> import recsolve as rs
    >>> rs.graphs.together(rs.graphs.grid(9), rs.graphs.grid(9, directions=(-1,)))  # forwards and backwards
    Graph((2, 9) nodes, 1 parents each, 9 levels)
    """
    if not graphs or not all(isinstance(g, Graph) for g in graphs):
        raise TypeError(f"graphs is {graphs!r}; wanted graphs, at least one")
    slots, offset, blocks = max(g.slots for g in graphs), 0, []
    for g in graphs:
        block = np.full((g.size, slots), -1)
        back = np.where(g.present, g.order[g.parents] if g.size else -1, -1 - offset)
        block[g.order, : g.slots] = np.where(g.present, back + offset, -1)
        blocks.append(block)
        offset += g.size
    shapes = {g.shape for g in graphs}
    shape = (len(graphs), *graphs[0].shape) if len(shapes) == 1 else (offset,)
    return Graph(np.concatenate(blocks).reshape(*shape, slots))


class by_kind:
    """Return one function for nodes of several kinds: layers with weights of their own, an encoder and a decoder.

    Parameters
    ----------
    functions : sequence of callable
        ``functions[k](h, u, ...)`` is that of nodes of kind k. It gets these nodes alone.
    name : str
        The input that holds the kind of every node: the inputs are a dict, in which it is
        ``np.broadcast_to(np.arange(depth)[:, None], (depth, length))`` where each layer is a kind.

    Raises
    ------
    TypeError, ValueError
        For no functions, what is no function, inputs that are no dict with this name, and kinds that are no places of
        functions.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> f = rs.graphs.by_kind([lambda h, u: np.tanh(h[0] + u["x"]), lambda h, u: np.tanh(h[0] + 2 * h[1])])
    >>> u = {"kind": np.array([[0] * 5, [1] * 5]), "x": np.ones((2, 5, 3))}
    >>> rec = rs.Recurrence.from_graph(f, rs.graphs.layers(2, 5), inputs=u, initial=np.zeros(3), structure="diagonal")
    >>> rs.solve(rec).states.shape
    (2, 5, 3)
    """

    __name__ = "by_kind"

    def __init__(self, functions: Sequence[Callable[..., Any]], name: str = "kind"):
        if not isinstance(functions, (list, tuple)) or not functions:
            raise TypeError(f"functions is {functions!r}; wanted a sequence of functions, at least one")
        for k, function in enumerate(functions):
            check_callable(f"functions[{k}]", function, "f(h, u)")
        self.functions, self.name = tuple(functions), name

    def __call__(self, h: Any, u: Any, *others: Any) -> Any:
        if not isinstance(u, Mapping) or self.name not in u:
            raise TypeError(f"inputs is {type(u).__name__}; wanted a dict with the kind of every node as {self.name!r}")
        kinds, there = _kinds(u[self.name], len(self.functions))
        if len(there) == 1:
            return self.functions[int(there[0])](h, u, *others)
        rows, back = _rows_of(kinds, there)
        parts = [
            self.functions[int(kind)](tuple([x[r] for x in h]), {n: x[r] for n, x in u.items()}, *others)
            for kind, r in zip(there, rows, strict=True)
        ]
        together = np.concatenate(parts)
        return together if back is None else together[back]


def matmul(x: Any, W: Any, kind: Any) -> Any:
    """Return x[n] @ W[kind of n] for many nodes n: layers with weights of their own in one product a level.

    Parameters
    ----------
    x : array, shape (nodes, *batch, n)
    W : array, shape (kinds, n, m)
    kind : array, shape (nodes,)
        Of each node, in any dtype: an input of the recurrence.

    Returns
    -------
    array, shape (nodes, *batch, m)

    Raises
    ------
    ValueError
        For kinds that are no places of matrices.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.graphs.matmul(np.ones((3, 2)), np.array([np.eye(2), 5 * np.eye(2)]), np.array([1, 0, 1])).tolist()
    [[5.0, 5.0], [1.0, 1.0], [5.0, 5.0]]
    """
    kinds, there = _kinds(kind, len(W))
    if len(kinds) <= len(W):  # the nodes of a level, say: one product of as many matrices
        matrices = W if kinds == list(range(len(W))) else W[np.asarray(kinds, np.int64)]
        rows = x[:, None] if x.ndim == 2 else x.reshape(len(kinds), prod(x.shape[1:-1]), x.shape[-1])
        return (rows @ matrices).reshape(*x.shape[:-1], W.shape[-1])

    def product(rows: Any, k: float) -> Any:  # of all rows and sequences as one
        return (rows.reshape(prod(rows.shape[:-1]), rows.shape[-1]) @ W[int(k)]).reshape(*rows.shape[:-1], W.shape[-1])

    if len(there) == 1:
        return product(x, there[0])
    places, back = _rows_of(kinds, there)
    together = np.concatenate([product(x[r], k) for k, r in zip(there, places, strict=True)])
    return together if back is None else together[back]


def _kinds(given: Any, count: int) -> tuple[list[float], list[float]]:
    """Return the kinds of nodes, and which there are."""
    kinds = to_host(value_of(given)).tolist()
    there = sorted(set(kinds)) or [0.0]
    if not set(there) <= set(range(count)):
        raise ValueError(f"kinds are {there}; wanted 0 to {count - 1}")
    return kinds, there


def _rows_of(kinds: list[float], there: list[float]) -> tuple[list[Any], Array | None]:
    """Return the rows of each kind, as slices where they lie so, and the way back from one kind after the other."""
    if all(a <= b for a, b in pairwise(kinds)):  # as the nodes of a level of layers do
        bounds = [*(kinds.index(kind) for kind in there), len(kinds)]
        return [slice(a, b) for a, b in pairwise(bounds)], None
    rows = [np.flatnonzero(np.asarray(kinds) == kind) for kind in there]
    return rows, np.argsort(np.concatenate(rows), kind="stable")
