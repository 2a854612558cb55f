"""Stacked and bidirectional layers over a time axis that ranks share: each direction is a solve over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recsolve.base.arrays import Kind, namespace
from recsolve.base.links import follow, from_linked, requires_grad, to_linked
from recsolve.base.shard import Shard, timeline_of
from recsolve.distributed.turned import turned_resets
from recsolve.recurrence.read_cell import ReadCell
from recsolve.recurrence.weighted_cell import WeightedCell
from recsolve.solve import solve

if TYPE_CHECKING:
    from recsolve.interop.layers import Layers


def run_over_ranks(
    layers: Layers, x: Shard[Any], hx: Any, *, reset: Any = None, lengths: Any = None, **settings: Any
) -> tuple[Shard[Any], Any]:
    """Return the output of the own steps and the final states of all, as ``Layers.run`` does.

    Parameters
    ----------
    layers : Layers
        Where their weights are linked to tensors, gradients go back to these.
    x : Shard, shape (T, [B], D)
    hx : array or tuple of arrays, optional
        The same on every rank.
    reset : Shard of bool, shape (T, B) or (T,), optional
    **settings
        Of :func:`recsolve.solve`.
    """
    axis = timeline_of({"x": x, "reset": reset})
    assert axis is not None
    with axis.together(f"{layers} on steps {tuple(x.shape[1:])} of {x.dtype}"):
        if lengths is not None or layers.batch_first:
            name = "batch_first is True" if layers.batch_first else "lengths is given"
            raise ValueError(f"{name} and x is a Shard; wanted all sequences with time first, and resets between them")
        like, kind = layers._sequence(_plain(x.local))
        parts = None
        if hx is not None:
            parts = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
            layers.parts_of(tuple(map(_plain, parts)), "hx", like, kind)
        ops, masks = _operations(kind, like), [reset]
        if len(layers.directions[0]) > 1:
            masks.append(None if reset is None else turned_resets(reset))
        sequence, finals = x.local, list[Sequence[Any]]()
        for layer in layers.directions:
            shown = []
            for reverse, cell in enumerate(layer):
                read = ops.flip(sequence, (0,)) if reverse else sequence
                own = Shard(read, axis.reversed() if reverse else axis)
                start = None if parts is None else _initial(cell, [part[len(finals)] for part in parts], kind)
                solution: Any = solve(cell.recurrence(own, initial=start, reset=masks[reverse]), **settings)
                y = solution.output.local
                shown.append(ops.flip(y, (0,)) if reverse else y)
                finals.append(_final(cell, solution, kind))
            sequence = shown[0] if len(shown) == 1 else ops.concatenate(shown, -1)
        axis.ranks.closed()
    ends = tuple(ops.stack(part) for part in zip(*finals, strict=True))
    return Shard(sequence, axis), ends[0] if len(ends) == 1 else ends


def _plain(x: Any) -> Any:
    return x.detach() if requires_grad(x) else x


def _operations(kind: Kind, like: Any) -> Any:
    """Return what computes with the user's arrays, of which gradients may go back."""
    if kind != "torch":
        return namespace(like)
    import torch

    return torch


def _initial(cell: WeightedCell, parts: list[Any], kind: Kind) -> dict[str, Any]:
    """Return an initial state by component, from one in torch's shape."""
    found = dict(zip(cell.cell.state, parts, strict=True))
    if isinstance(cell, ReadCell):  # of whose shown component another one is known
        y = to_linked(found[cell.cell.output], "hx")
        made = follow(cell.shown_by(y), [y, cell.readout], _pinned)
        found[cell.cell.output] = from_linked(made, kind)
    return found


def _pinned(tensors: list[Any]) -> Any:
    """Return what :meth:`ReadCell.shown_by` does, of tensors."""
    y, readout = tensors
    return y @ readout.pinverse().mT


def _final(cell: WeightedCell, solution: Any, kind: Kind) -> list[Any]:
    """Return the last state of all in torch's shape, component by component."""
    found = dict(solution.named_final)
    if isinstance(cell, ReadCell):
        readout = from_linked(cell.readout, kind)
        found[cell.cell.output] = found[cell.cell.output] @ readout.T
    return list(found.values())
