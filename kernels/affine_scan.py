"""Affine scans of native arrays, unchecked, in either direction of time."""

from __future__ import annotations

from recsolve.base.arrays import Array, namespace
from recsolve.jacobians import ByParent, Jacobian
from recsolve.jacobians.pairs import Pairs
from recsolve.kernels.backends import scan
from recsolve.kernels.graph_scan import graph_carry, graph_scan, reverse_graph_scan
from recsolve.kernels.monoids import MONOIDS
from recsolve.kernels.pairs_scan import pairs_scan


def affine_scan(
    A: Jacobian, b: Array, *, initial: Array | None = None, reset: Array | None = None, reverse: bool = False
) -> Array:
    """Return y[t] = A[t] y[t-1] + b[t] (or y[t+1] with ``reverse``) of native arrays that fit each other.

    With a :class:`ByParent`, y[n] sums over the parents of n, and neither ``initial`` nor ``reverse`` is taken.
    """
    if isinstance(A, ByParent):
        if initial is not None or reverse:
            raise TypeError("a scan over a graph starts from 0, and goes back by reverse_solve")
        return graph_scan(A, b, reset)
    monoid = MONOIDS["affine"]
    monoid.prepare((A, b))
    if not reverse:
        if type(A) is Pairs:
            return pairs_scan(affine_scan, A, b, initial=initial, reset=reset)
        return scan(monoid, (A, b), initial=initial, reset=reset)
    backwards = slice(None, None, -1)
    flipped = None if reset is None else reset[backwards]
    return affine_scan(A[backwards], b[backwards], initial=initial, reset=flipped)[backwards]


def carried(A: Jacobian, d: Array) -> Array:
    """Return A[t] d[t-1] for all t, where d is 0 before the first; over the parents of every node on a graph."""
    return graph_carry(A, d) if isinstance(A, ByParent) else A.carry(d)


def reverse_solve(J: Jacobian, starts: Array, c: Array) -> Array:
    """Return g[t] = c[t] + J[t+1]^T g[t+1], cut where step t+1 does not see step t.

    Parameters
    ----------
    J : Jacobian
    starts : array of bool
        Steps that start afresh, broadcasting against ``c``.
    c : array, shape (T, *batch, *event)

    Notes
    -----
    On a graph g[n] sums over the nodes that see n.
    """
    if isinstance(J, ByParent):
        return reverse_graph_scan(J, starts, c)
    g = namespace(c).empty_like(c)
    g[-1:] = c[-1:]
    if len(c) > 1:
        g[:-1] = affine_scan(J.transpose()[1:], c[:-1], initial=c[-1], reset=starts[1:], reverse=True)
    return g  # type: ignore[no-any-return]
