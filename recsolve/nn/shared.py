"""Layers over a time axis that ranks share: each rank holds some steps of all sequences."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from recsolve.base.shard import Shard, Timeline, timeline_of
from recsolve.distributed.turned import turned_resets
from recsolve.interop.autograd_over_ranks import run_over_ranks
from recsolve.nn.direction import Direction, wide
from recsolve.nn.sequences import Sequences

if TYPE_CHECKING:
    from recsolve.interop.autograd import CellSpec
    from recsolve.nn.stack import Stack


class SharedSteps(Sequences):
    """The order in which a direction reads the own steps, of which ``x`` is made.

    Parameters
    ----------
    x : tensor, shape (own steps, B, D)
    reset : tensor of bool, shape (own steps, B) or (own steps,), or None
    timeline : Timeline
        Whose steps the others are.
    """

    def __init__(self, x: Any, reset: Any, timeline: Timeline):
        super().__init__(x, reset=reset)
        self._axes = timeline, timeline.reversed()

    def axis(self, reverse: bool) -> Timeline:
        return self._axes[reverse]

    def breaks(self, reverse: bool) -> Any:
        if self._reset is None or not reverse:
            return self._reset
        return turned_resets(Shard(self._reset, self._axes[0])).local


def run_shared(layer: Stack, x: Shard[Any], hx: Any, *, reset: Any, **ways: Any) -> tuple[Shard[Any], Any]:
    """Return the output and the final states of a layer, as its ``forward`` does, of what ranks share."""
    axis = timeline_of({"input": x, "reset": reset})
    assert axis is not None
    name = type(layer).__name__
    with axis.together(f"{name}({layer.extra_repr()}) on steps {tuple(x.shape[1:])} of {x.dtype}"):
        _check(layer, x, ways)
        mask = None if reset is None else reset.local
        y, final = layer._ordered(x.local, hx, lambda own: SharedSteps(own, mask, axis))
        axis.ranks.closed()
    return Shard(y, axis), final


def solve_shared(
    layer: Stack, way: Direction, spec: CellSpec, x: Any, starts: list[Any], resets: Any, axis: Timeline
) -> tuple[list[Any], list[Any]]:
    """Return the components (own steps, B, n) of the states, and those (B, n) of the last state of all."""
    rows = way.project(x).to(wide(x))
    with torch.autocast(x.device.type, enabled=False):
        tensors = way.tensors(rows, starts, resets, begins=axis.start == 0)
        states, last = layer._states(spec, tensors, partial(run_over_ranks, axis=axis))
        if axis.total or starts[0] is None:
            starts = [part[0] for part in way.parts(last[None])]
        return way.parts(states), starts


def _check(layer: Stack, x: Shard[Any], ways: dict[str, Any]) -> None:
    """Raise TypeError or ValueError for what a layer does not do over ranks."""
    if not isinstance(x.local, torch.Tensor):
        raise TypeError(f"input is a Shard of {type(x.local).__name__}; wanted one of a tensor")
    if layer.batch_first:
        raise ValueError("batch_first is True and input is a Shard, which has time first; wanted batch_first=False")
    solving = layer.solving
    given = {
        **ways, "every": solving.every, "cotangent_clamp": solving.cotangent_clamp, "kappa": solving.kappa or None,
        "recsolve.nn.watched": layer.seen,
    }  # fmt: skip
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} is given and input is a Shard: ranks do not share it; wanted none")
