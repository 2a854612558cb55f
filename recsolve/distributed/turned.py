"""Steps that ranks share, counted from the last one: what a direction that runs backwards reads."""

from __future__ import annotations

from typing import Any

from recsolve.base.arguments import MASKS, as_mask
from recsolve.base.arrays import from_native, kind_of, namespace, to_native
from recsolve.base.shard import Shard


def turned_resets(reset: Shard[Any]) -> Shard[Any]:
    """Return where a direction that runs backwards starts again, in its own order: one message.

    A sequence starts there at its last step, the one before a reset, which may be the first step of a later rank.

    Parameters
    ----------
    reset : Shard of bool, shape (T, ...)
    """
    axis = reset.timeline
    own = as_mask(to_native(reset.local, "reset", MASKS), "reset")
    xp = namespace(own)
    nothing = xp.zeros((1, *own.shape[1:]), bool)
    sent = axis.ranks.exchange((), [own[:1] if len(own) else nothing])
    rows, places = axis.in_order(sent.arrays[0]), range(axis.place + 1, axis.size)
    later = next((rows[place] for place in places if axis.ordered[place]), nothing)
    after = xp.concatenate([own[1:], later])[: len(own)]
    return Shard(from_native(xp.ascontiguousarray(after[::-1]), kind_of(reset.local)), axis.reversed())
