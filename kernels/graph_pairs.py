"""Scans of named states over the nodes of a graph: components one after the other, as they depend on each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.jacobians import ByParent
from recsolve.jacobians.pairs import Pairs
from recsolve.jacobians.pattern import Pattern, taken
from recsolve.kernels.pairs_scan import scan_lanes

Pair: TypeAlias = tuple[str, str]


def pattern_of(A: ByParent) -> Pattern | None:
    """Return which components depend on which, if that is declared, and for all slots alike; else None."""
    patterns = [J.pattern if type(J) is Pairs else None for J in A.slots]
    return patterns[0] if all(x is patterns[0] for x in patterns) else None


def pairs_forward(scan: Callable[..., Array], A: Any, pattern: Pattern, b: Array, cut: Array | None) -> Array:
    """Return d[n] = b[n] + sum over p of A[n, p] d[parent p of n].

    Parameters
    ----------
    scan : callable
        The scan of the other structures: ``scan(A, b, cut)``.
    A : ByParent
        Of Pairs with this pattern.
    pattern : Pattern
    b : array, shape (N, *batch, n)
    cut : array of bool or None
        Nodes that do not see their parents, (N, *batch, 1), or n in place of 1.
    """

    def others(pairs: list[Pair], d: Array) -> Array:
        total = namespace(d).zeros_like(d)
        for J, parents in zip(A.slots, A.graph.parents.T, strict=True):
            term = _product(J, pairs, d[namespace(d).asarray(np.maximum(parents, 0))])
            term[namespace(d).asarray(np.flatnonzero(parents < 0))] = 0
            total += term
        return _without(total, cut)

    return _by_groups(scan, A, pattern, b, cut, others)


def pairs_backward(scan: Callable[..., Array], A: Any, pattern: Pattern, c: Array, cut: Array | None) -> Array:
    """Return g[n] = c[n] + sum over the nodes m and slots p whose parent is n of A[m, p]^T g[m]; arguments as above."""
    slots = [J.transpose() for J in A.slots]

    def others(pairs: list[Pair], g: Array) -> Array:
        total = namespace(g).zeros_like(g)
        for J, parents in zip(slots, A.graph.parents.T, strict=True):
            there = np.flatnonzero(parents >= 0)
            term = _without(_product(J, pairs, g), cut)
            add_at(total, parents[there], term[namespace(g).asarray(there)])
        return total  # type: ignore[no-any-return]

    return _by_groups(scan, A, pattern.transposed, c, cut, others)


def _by_groups(
    scan: Callable[..., Array],
    A: Any,
    pattern: Pattern,
    b: Array,
    cut: Array | None,
    others: Callable[[list[Pair], Array], Array],
) -> Array:
    """Solve for one group of components after the other: what they get from ``others`` is a part of what is added."""
    xp, y = namespace(b), namespace(b).empty_like(b)
    for group in pattern.groups:
        rows = xp.array(taken(b, group.places))
        pairs = [(to, of) for to, of in pattern.pairs if to in group.names and of not in group.names]
        if pairs:
            rows += taken(others(pairs, y), group.places)
        own = [J.within(group) for J in A.slots]
        if own[0] is not None:
            mask = cut if cut is None or cut.shape[-1] == 1 else taken(cut, group.places)
            rows = scan_lanes(lambda J, x, initial, reset: scan(J, x, reset), ByParent(own, A.graph), rows, None, mask)
        y[..., xp.asarray(group.places)] = rows
    return y  # type: ignore[no-any-return]


def _product(J: Pairs, pairs: list[Pair], v: Array) -> Array:
    """Return what some pairs of components contribute to J v."""
    result = namespace(v).zeros_like(v)
    for pair in pairs:
        result[..., namespace(v).asarray(J.pattern.places[pair].rows)] += J.product(pair, v)
    return result  # type: ignore[no-any-return]


def _without(term: Array, cut: Array | None) -> Array:
    return term if cut is None else namespace(term).where(cut, term.dtype.type(0), term)


def add_at(g: Array, places: Array, terms: Array) -> None:
    """Add rows at places, on the host, of which some may be the same."""
    xp = namespace(g)
    if len(np.unique(places)) == len(places):
        g[xp.asarray(places)] += terms
    else:
        xp.add.at(g, xp.asarray(places), terms)
