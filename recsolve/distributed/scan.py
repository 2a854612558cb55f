"""Scans whose steps are shared by ranks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, from_native, namespace, to_native
from recsolve.base.links import RECORDERS, requires_grad
from recsolve.base.shard import OVER_RANKS, Shard, Timeline, check_shared, local_of
from recsolve.base.ties import check_ties, ties_in_force
from recsolve.distributed.carries import row_before
from recsolve.distributed.elements import Elements
from recsolve.distributed.leading import over_leading_ranks, scan_over_ranks
from recsolve.gradients.scan_adjoint import ScanGradients, Surroundings, pulled
from recsolve.jacobians import Jacobian
from recsolve.kernels.monoids import MONOIDS
from recsolve.kernels.monoids.float16 import state_dtype
from recsolve.scan import read


def scan_shards(
    monoid: Any, elements: tuple[Any, ...], *, initial: Any, reset: Any, reverse: bool, axis: int
) -> Shard[Any]:
    """Return what :func:`recsolve.scan` does, of elements of which some are shards."""
    shared = _axis_of(elements)
    call = partial(_call, "scan", monoid, elements, initial, reverse)
    with np.errstate(all="ignore"), shared.together(call):
        check_shared({"elements": elements, "reset": reset})
        _check_axis(axis)
        own = local_of(elements)
        if any(map(requires_grad, (*own, initial))):
            return RECORDERS["scan"](  # type: ignore[no-any-return]
                monoid, elements, initial=initial, reset=reset, reverse=reverse, axis=axis
            )
        given = read(monoid, own, initial=initial, reset=local_of(reset), reverse=reverse, axis=0)
        if given.like.dtype == object:
            raise TypeError("elements have dtype object; wanted numbers, which ranks can send to each other")
        if shared.total and given.monoid.restarts and given.initial is None:
            given.monoid.constant(given.elements, None)  # which says that it needs one
        timeline = shared.reversed() if reverse else shared
        y = scan_over_ranks(Elements(given.monoid, given.elements, given.initial, given.reset, timeline), last=True)
        shared.ranks.closed()
    return Shard(given.returned(y), shared)


@dataclass(frozen=True)
class _OtherRanks(Surroundings):
    """What the own steps have before and after them: those of other ranks."""

    timeline: Timeline | None = None  # in the order in which the scan runs

    def complete(self, J: Jacobian, cuts: Array | None, cotangent: Array) -> Array:
        assert self.timeline is not None
        axis, xp = self.timeline.reversed(), namespace(cotangent)
        b, backwards, cut = J.rmatvec(cotangent), slice(None, None, -1), None
        if cuts is not None:
            cut = xp.broadcast_to(cuts, (len(cotangent), *cuts.shape[1:]))[backwards]
            b = xp.where(cut[backwards], cotangent.dtype.type(0), b)
        row = xp.zeros(cotangent.shape[1:], cotangent.dtype)
        given = Elements(MONOIDS["affine"], (J.transpose()[backwards], b[backwards]), row, cut, axis)

        def run(comes: Array) -> Array:
            completed = cotangent.copy()
            completed[-1:] += comes
            return completed

        return over_leading_ranks(given, run, lambda _, comes: given.run(comes)[-1], lambda _, count, comes: run(comes))


def scan_adjoint_shards(
    monoid: Any, elements: tuple[Any, ...], y: Any, cotangent: Any, *,
    initial: Any, reset: Any, reverse: bool, axis: int, ties: Any,
) -> ScanGradients:  # fmt: skip
    """Return what :func:`recsolve.scan_adjoint` does, of shards; the gradient of ``initial`` is the same on all."""
    elements = tuple(elements)
    shared = _axis_of(elements)
    call = partial(_call, "scan_adjoint", monoid, elements, initial, reverse)
    with np.errstate(all="ignore"), shared.together(call), ties_in_force(check_ties(ties)):
        check_shared({"elements": elements, "reset": reset, "y": y, "cotangent": cotangent})
        _check_axis(axis)
        for name, x in (("y", y), ("cotangent", cotangent)):
            if not isinstance(x, Shard):
                raise TypeError(f"{name} is {type(x).__name__}; wanted a Shard, as the elements are")
        own = local_of(elements)
        given = read(monoid, own, initial=initial, reset=local_of(reset), reverse=reverse, axis=0)
        timeline = shared.reversed() if reverse else shared
        rows = given.native(y.local, "y", given.like.shape).astype(state_dtype(given.like), copy=False)
        around = _OtherRanks(row_before(timeline, rows), timeline)
        found = pulled(given, own, y.local, cotangent.local, initial, around)
        start = found.initial
        if start is not None:
            total = timeline.ranks.total([to_native(start, "initial", given.monoid.dtypes)])[0]
            start = from_native(total, given.kind)
        shared.ranks.closed()
    over_time = [Shard(g, shared) if isinstance(e, Shard) else g for g, e in zip(found.elements, elements, strict=True)]
    return ScanGradients(tuple(over_time), start)


def _axis_of(elements: tuple[Any, ...]) -> Timeline:
    """Return the time axis of elements of which one at least is a shard."""
    return next(e.timeline for e in elements if isinstance(e, Shard))


def _check_axis(axis: int) -> None:
    if axis != 0:
        raise ValueError(f"axis is {axis}; wanted 0 with shards, whose time comes first")


def _call(name: str, monoid: Any, elements: tuple[Any, ...], initial: Any, reverse: bool) -> str:
    """Return in words what is done, the same on ranks that do the same."""
    title = monoid if isinstance(monoid, str) else getattr(monoid, "__name__", type(monoid).__name__)
    rows = tuple([(e.dtype, tuple(e.local.shape[1:])) for e in elements if isinstance(e, Shard)])
    return _in_words(name, title, rows, initial is not None, bool(reverse))


@lru_cache(maxsize=512)
def _in_words(
    name: str, title: str, shards: tuple[tuple[Any, tuple[int, ...]], ...], begins: bool, reverse: bool
) -> str:
    rows = ", ".join(f"{dtype} {shape}" for dtype, shape in shards)
    return f"recsolve.{name}({title!r}{', initial=...' * begins}, reverse={reverse}) of {rows}"


OVER_RANKS.update(scan=scan_shards, scan_adjoint=scan_adjoint_shards)
