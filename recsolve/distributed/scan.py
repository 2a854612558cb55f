"""Scans whose steps are shared by ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.links import requires_grad
from recsolve.base.shard import OVER_RANKS, Shard, local_of, timeline_of
from recsolve.distributed.carries import Elements, scan_over_ranks
from recsolve.scan import read


def scan_shards(
    monoid: Any, elements: tuple[Any, ...], *, initial: Any, reset: Any, reverse: bool, axis: int
) -> Shard[Any]:
    """Return what :func:`recsolve.scan` does, of elements of which some are shards."""
    shared = timeline_of({"elements": elements, "reset": reset})
    assert shared is not None
    name = monoid if isinstance(monoid, str) else getattr(monoid, "__name__", type(monoid).__name__)
    with np.errstate(all="ignore"), shared.together(f"recsolve.scan({name!r}, reverse={reverse})"):
        if axis != 0:
            raise ValueError(f"axis is {axis}; wanted 0 with shards, whose time comes first")
        own = local_of(elements)
        if any(map(requires_grad, (*own, initial))):
            raise TypeError("elements require grad; gradients of scans over ranks go back by recsolve.scan_adjoint")
        given = read(monoid, own, initial=initial, reset=local_of(reset), reverse=reverse, axis=0)
        timeline = shared.reversed() if reverse else shared
        y = scan_over_ranks(Elements(given.monoid, given.elements, given.initial, given.reset, timeline), last=True)
        shared.ranks.closed()
    return Shard(given.returned(y), shared)


OVER_RANKS["scan"] = scan_shards
