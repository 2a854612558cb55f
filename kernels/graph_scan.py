"""Scans over the nodes of a graph, level by level: every node after its parents, or every parent after its nodes.

The NumPy forms are the definition, on any namespace: one step a level. NumPy arrays whose slots are elementwise go
through compiled loops, node by node.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from recsolve.base.arrays import FLOATS, Array, freeze, kind_of, namespace
from recsolve.base.graph import Graph
from recsolve.jacobians import ByParent, Diagonal, Identity, Scalar, Zero
from recsolve.kernels import backends
from recsolve.kernels.cpu.jit import ready
from recsolve.kernels.graph_pairs import add_at, pairs_backward, pairs_forward, pattern_of

_ELEMENTWISE = (Zero, Identity, Scalar, Diagonal)


def graph_scan(A: ByParent, b: Array, cut: Array | None) -> Array:
    """Return d[n] = b[n] + sum over p of A[n, p] d[parent p of n].

    Parameters
    ----------
    A : ByParent
    b : array, shape (N, *batch, *event)
    cut : array of bool or None
        Nodes that do not see their parents, broadcasting against ``b``.
    """
    if (pattern := pattern_of(A)) is not None and b.size:
        return pairs_forward(graph_scan, A, pattern, b, cut)
    d = namespace(b).array(b, copy=True, order="C")
    if (loop := _compiled("forward", A, b)) is not None:
        loop(*_flat(A, d, cut))
        return d  # type: ignore[no-any-return]
    for level in A.graph.levels[1:]:
        for J, rows, parents in _slots(A, level, d):
            term = J[rows].matvec(d[namespace(d).asarray(parents)])
            d[rows] += term if cut is None else namespace(b).where(cut[rows], term.dtype.type(0), term)
    return d  # type: ignore[no-any-return]


def graph_carry(A: ByParent, d: Array) -> Array:
    """Return the sum over p of A[n, p] d[parent p of n], 0 where there is none."""
    if (loop := _compiled("carry", A, d)) is None:
        return A.carry(d)
    out = np.empty(d.shape, d.dtype)
    entries, states, parents = _operands(A, np.ascontiguousarray(d))
    loop(entries, states, parents, out.reshape(states.shape))
    return out


def reverse_graph_scan(A: ByParent, cut: Array | None, c: Array) -> Array:
    """Return g[n] = c[n] + sum over the nodes m and slots p whose parent is n of A[m, p]^T g[m]; cut as above."""
    if (pattern := pattern_of(A)) is not None and c.size:
        return pairs_backward(lambda J, x, mask: reverse_graph_scan(J, mask, x), A, pattern, c, cut)
    g = namespace(c).array(c, copy=True, order="C")
    if (loop := _compiled("backward", A, c)) is not None:
        loop(*_flat(A, g, cut))
        return g  # type: ignore[no-any-return]
    for level in A.graph.levels[:0:-1]:
        for J, rows, parents in _slots(A, level, g):
            term = J[rows].rmatvec(g[rows])
            term = term if cut is None else namespace(c).where(cut[rows], term.dtype.type(0), term)
            add_at(g, parents, term)
    return g  # type: ignore[no-any-return]


def graph_front(good: Array, graph: Graph) -> tuple[Array, Array]:
    """Return the good nodes all of whose ancestors are good, and the others whose parents all are of these.

    Parameters
    ----------
    good : array of bool, shape (N, *batch)
        A NumPy array.
    graph : Graph
    """
    leading = np.array(good, order="C")
    if leading.all():
        return leading, np.zeros_like(leading)
    clean = np.ones_like(leading)
    key = "graph", "front", leading.ndim
    if good.size and backends.compiles(len(good), good.size, key):
        _run(key, graph.parents.ravel(), graph.slots, leading.ravel(), clean.ravel())
    else:
        for level in graph.levels[1:]:
            for p in range(graph.slots):
                parents = graph.parents[level, p]
                missing = (parents < 0).reshape(-1, *(1,) * (good.ndim - 1))
                clean[level] &= leading[np.maximum(parents, 0)] | missing
            leading[level] &= clean[level]
    return leading, clean & ~good


def _slots(A: ByParent, level: slice, like: Array) -> Any:
    """Yield, slot by slot, the Jacobian, the nodes of a level that have a parent there, and these, on the host."""
    for p, J in enumerate(A.slots):
        parents = A.graph.parents[level, p]
        there = parents >= 0
        if type(J) is Zero or not there.any():
            continue
        rows: Any = level
        if not there.all():
            rows, parents = level.start + np.flatnonzero(there), parents[there]
        yield J, rows if isinstance(rows, slice) else namespace(like).asarray(rows), parents


def _compiled(work: str, A: ByParent, b: Array) -> Callable[..., None] | None:
    """Return a compiled loop where that does the work, else None."""
    if kind_of(b) != "numpy" or b.dtype not in FLOATS or not b.size:
        return None
    key = "graph", work, b.dtype
    if not backends.compiles(len(b), b.size, key) or any(type(J) not in _ELEMENTWISE for J in A.slots):
        return None
    return partial(_run, key)


def _run(key: tuple[Any, ...], *operands: Any) -> None:
    """Run the loop that the second entry of a key names, and remember that it is compiled."""
    from recsolve.kernels.cpu.scan import graph_loops

    getattr(graph_loops, key[1])(*operands)
    ready.note(key)


def _flat(A: ByParent, y: Array, cut: Array | None) -> tuple[Any, ...]:
    """Return the operands of the loops, as :func:`_operands` does, with the cuts (N, w)."""
    marks = np.zeros(y.shape, np.bool_) if cut is None else np.ascontiguousarray(np.broadcast_to(cut, y.shape))
    return *_operands(A, y), marks.reshape(len(y), -1)


def _operands(A: ByParent, y: Array) -> tuple[Array, Array, Array]:
    """Return entries (P, N, w), states (N, w) and parents; a Zero has none."""
    parents = A.graph.parents
    if any(type(J) is Zero for J in A.slots):
        parents = np.where([type(J) is Zero for J in A.slots], -1, parents)
    entries: Any = _stacked([J.data for J in A.slots]) if all(type(J) is Diagonal for J in A.slots) else None  # type: ignore[attr-defined]
    if entries is None or entries.shape[1:] != y.shape or entries.dtype != y.dtype:
        entries = np.empty((len(A.slots), *y.shape), y.dtype)
        for p, J in enumerate(A.slots):
            entries[p] = 1 if type(J) is Identity else J.diagonal().data
    return freeze(entries.reshape(len(A.slots), len(y), -1)), y.reshape(len(y), -1), parents


def _stacked(slots: list[Array]) -> Array | None:
    """Return arrays that lie one after the other in memory, as derivatives do, as one; else None."""
    first = slots[0]
    if not all(x.flags.c_contiguous and x.shape == first.shape and x.dtype == first.dtype for x in slots):
        return None
    places = [x.__array_interface__["data"][0] for x in slots]
    if any(place != places[0] + p * first.nbytes for p, place in enumerate(places)):
        return None
    return np.lib.stride_tricks.as_strided(
        first, (len(slots), *first.shape), (first.nbytes, *first.strides), writeable=False
    )
