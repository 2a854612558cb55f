"""Graphs whose nodes have several functions: layers with weights of their own, an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace, to_host
from recsolve.base.graph import Graph
from recsolve.recurrence.function_tangent import Tangent
from recsolve.symbolic.dual import value_of


def check_kinds(kinds: Any, functions: int | None, graph: Graph) -> Array | None:
    """Return the kind of every node in the order of levels; None where there is one function.

    Raises
    ------
    TypeError, ValueError
        For kinds without several functions or these without kinds, and kinds that are no places of functions.
    """
    if functions is None:
        if kinds is not None:
            raise TypeError("kinds is given, but f is one function; wanted a sequence of them")
        return None
    if kinds is None or not functions:
        raise TypeError(f"f has {functions} functions and kinds is {kinds!r}; wanted which of them is that of each node")
    given = to_host(np.asarray(kinds) if isinstance(kinds, (list, tuple, int)) else kinds)
    if given.dtype.kind not in "iu":
        raise TypeError(f"kinds has dtype {given.dtype}; wanted integers, the places of functions in f")
    try:
        spread = np.broadcast_to(given, graph.shape).reshape(-1)
    except ValueError:
        raise ValueError(f"kinds has shape {given.shape}; wanted that of the nodes, {graph.shape}") from None
    if spread.size and not (0 <= spread.min() and spread.max() < functions):
        raise ValueError(f"kinds has {int(spread.min())} to {int(spread.max())}; wanted 0 to {functions - 1}")
    return spread[graph.order].astype(np.int64)  # type: ignore[no-any-return]


def by_kind(functions: Sequence[Callable[..., Any]], kinds: Array, slots: tuple[Any, ...], drive: Any) -> Any:
    """Return f at some nodes, each by the function of its kind."""
    there = np.unique(kinds)
    if len(there) == 1:
        return functions[int(there[0])](slots, drive)
    xp = namespace(value_of(slots[0]))
    rows = [xp.asarray(np.flatnonzero(kinds == kind)) for kind in there]
    parts = [
        functions[int(kind)](tuple(s[r] for s in slots), _at(drive, r)) for kind, r in zip(there, rows, strict=True)
    ]
    back = np.empty(len(kinds), np.int64)
    back[np.concatenate([np.flatnonzero(kinds == kind) for kind in there])] = np.arange(len(kinds))
    together = np.concatenate(parts) if any(isinstance(part, Tangent) for part in parts) else xp.concatenate(parts)
    return together[xp.asarray(back)]


def _at(drive: Any, rows: Any) -> Any:
    if isinstance(drive, dict):
        return {name: u[rows] for name, u in drive.items()}
    if isinstance(drive, tuple):
        return tuple(u[rows] for u in drive)
    return None if drive is None else drive[rows]
