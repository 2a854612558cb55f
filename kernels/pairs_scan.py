"""Affine scans of named states: components one after the other, in an order in which they depend on each other."""

from __future__ import annotations

from collections.abc import Callable

from recsolve.base.arrays import Array, namespace
from recsolve.jacobians import Jacobian
from recsolve.jacobians.pairs import Pairs
from recsolve.jacobians.pattern import Group, taken


def pairs_scan(
    scan: Callable[..., Array], A: Pairs, b: Array, *, initial: Array | None = None, reset: Array | None = None
) -> Array:
    """Return y[t] = A[t] y[t-1] + b[t], one group of components after the other.

    Components that do not depend on each other in a circle are scanned in their own structure; those on which they
    depend have been solved for, and are a part of what is added.

    Parameters
    ----------
    scan : callable
        The affine scan of the other structures.
    A : Pairs
    b : array, shape (T, *batch, N)
    initial : array, shape (*batch, N), optional
    reset : array of bool, optional
        (T, *batch, 1), or N in place of 1.
    """
    xp, y = namespace(b), namespace(b).empty_like(b)
    for group in A.pattern.groups:
        index = group.places
        rows = xp.array(taken(b, index))
        cut = reset if reset is None or reset.shape[-1] == 1 else taken(reset, index)
        if len(b):
            _add_others(A, y, rows, group, initial, reset)
        own = A.within(group)
        if own is not None:
            rows = scan_lanes(scan, own, rows, None if initial is None else taken(initial, index), cut)
        y[..., xp.asarray(index)] = rows
    return y  # type: ignore[no-any-return]


def _add_others(A: Pairs, y: Array, rows: Array, group: Group, initial: Array | None, reset: Array | None) -> None:
    """Add what the components of a group, (T, *batch, L, w), get from those that have been solved for."""
    xp = namespace(y)
    pairs = [(a, b) for a, b in A.blocks if a in group.names and b not in group.names]
    if not pairs:
        return
    before = xp.empty_like(y)
    before[1:] = y[:-1]
    if initial is None:
        before[0] = 0
    else:
        before[0] = initial
    total = xp.zeros_like(y)
    for pair in pairs:
        total[..., xp.asarray(A.pattern.places[pair].rows)] += A.product(pair, before)
    seen = taken(total, group.places)
    if reset is not None:
        cut = reset[..., None] if reset.shape[-1] == 1 else taken(reset, group.places)
        seen = xp.where(cut, xp.zeros((), seen.dtype), seen)
    if initial is None:
        rows[1:] += seen[1:]
    else:
        rows += seen


def scan_lanes(
    scan: Callable[..., Array], own: Jacobian, rows: Array, initial: Array | None, reset: Array | None
) -> Array:
    """Scan rows (T, *batch, L, w) with a Jacobian of lanes; of one number each where w = 1."""
    if own.layout.lanes:
        cut = reset if reset is None or reset.ndim == rows.ndim else reset[..., None]
        return scan(own, rows, initial=initial, reset=cut)
    cut = reset if reset is None or reset.ndim < rows.ndim else reset[..., 0]
    return scan(own, rows[..., 0], initial=None if initial is None else initial[..., 0], reset=cut)[..., None]
