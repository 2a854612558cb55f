"""The elements of a scan that a rank holds, and the composed ones as arrays of one time, for a message."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.overriding import changed
from recsolve.base.shard import Timeline
from recsolve.distributed.messages import constant
from recsolve.jacobians import Block, Diagonal, Identity, Jacobian, LaneDense, PermutationDiagonal, Scalar, Zero
from recsolve.jacobians.jacobian import Entries
from recsolve.kernels.backends import scan, summarise
from recsolve.kernels.monoids.affine import Affine
from recsolve.kernels.monoids.float16 import HALF, state_dtype, widen
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.kernels.reference.scan_numpy import cuts_apart
from recsolve.kernels.summary import Summary

_WIDTH = 64  # units of a lane up to which matrices are composed
_SMALL = 16  # units of a lane up to which matrices that are known by their factors are composed
_SENT = (Scalar, Diagonal, Block, LaneDense)  # structures whose products have one array of entries


class Elements:
    """The elements of a scan that one rank holds, in the order in which it runs.

    Attributes
    ----------
    monoid : Monoid
    elements : tuple
        In the monoid's form, of the own steps.
    initial : array or None
        The state before the first step of all, the same on all ranks.
    reset : array of bool or None
    timeline : Timeline
        In the order in which the scan runs.
    """

    elements: Any

    def __init__(self, monoid: Monoid, elements: Any, initial: Array | None, reset: Array | None, timeline: Timeline):
        self.monoid, self.initial, self.reset, self.timeline = monoid, initial, reset, timeline
        if elements is not None:
            self.elements = elements

    @property
    def few(self) -> Any:
        """Some elements, for their structure alone."""
        return self.elements

    def last(self, count: int) -> tuple[Any, Array | None]:
        """Return the elements and resets of the last steps."""
        steps = slice(self.timeline.length - count, self.timeline.length)
        return self.monoid.take(self.elements, steps), None if self.reset is None else self.reset[steps]

    @property
    def like(self) -> Array:
        """An array like rows of the result."""
        return self.monoid.like(self.few)

    @cached_property
    def row(self) -> Array:
        """Zeros like a state, which nobody writes to."""
        like = self.like
        return constant(like, like.shape[1:], state_dtype(like), 0)

    @property
    def start(self) -> Array:
        """The state before the first step of all, as the others are that come into ranks."""
        return self.row if self.initial is None else self.initial.astype(self.row.dtype, copy=False)

    @property
    def first(self) -> bool:
        """Whether the first step of all is here."""
        return self.timeline.begins

    @property
    def cuts(self) -> Array | None:
        """The mask of cut steps; the first of all is cut where no state comes before it (affine maps act on zero)."""
        if self.initial is not None or not self.first or type(self.monoid) is Affine:
            return self.reset
        like = self.like
        steps = namespace(like).arange(self.timeline.length)
        first = (steps == 0).reshape(-1, *(1,) * (like.ndim - 1))
        return first if self.reset is None else self.reset | first  # type: ignore[no-any-return]

    @property
    def composable(self) -> bool:
        """Whether these elements compose in fixed size, at a cost that pays, and are cut together where they mix."""
        monoid, elements = self.monoid, self.few
        A = elements[0] if isinstance(elements[0], Jacobian) else None
        small = type(A) is LaneDense and A.layout.lane_width <= _WIDTH
        if not (monoid.composable(elements) or small) or (A is not None and sent_of(A) is None):
            return False
        return self.reset is None or not cuts_apart(monoid, elements, self.reset)

    def run(self, carry: Array | None) -> Array:
        """Return the own rows of the result, given the state that comes in."""
        if self.first or carry is None:
            return scan(self.monoid, self.elements, initial=self.initial, reset=self.reset)
        if self.reset is None or not self.monoid.restarts:
            return scan(self.monoid, self.elements, initial=carry, reset=self.reset)
        # Cut steps start from the first state of all, not from what comes in: up to the first cut nothing is cut.
        before = scan(self.monoid, self.elements, initial=carry)
        after = scan(self.monoid, self.elements, initial=self.initial, reset=self.reset)
        xp = namespace(after)
        return xp.where(xp.cumsum(self.reset, axis=0) > 0, after, before)  # type: ignore[no-any-return]

    def last_state(self, y: Array, carry: Array) -> Array:
        """Return the state after the own rows ``y``; those of float16 have been rounded, and are computed again."""
        if y.dtype == HALF:
            wide = tuple(map(widen, self.elements))
            y = Elements(self.monoid, wide, self.initial, self.reset, self.timeline).run(carry)
        return y[-1]  # type: ignore[no-any-return]


# An element as arrays of one time, for a message ------------------------------------------------------------------


def arrays_of(given: Elements, summary: Summary | None) -> list[Array]:
    """Return the arrays of a summary's element, without its axis of time; zeros in their shapes without one."""
    elements = given.few if summary is None else summary.element
    arrays = [x for e in elements for x in sent_of(e) or ()]
    if summary is not None:
        return [x[0] for x in arrays]
    return [constant(x, x.shape[1:], state_dtype(x), 0) for x in arrays]


def composed(given: Elements, asked: bool) -> list[Array]:
    """Return the arrays of a message: the composed element, then what comes out where it is cut, and where.

    They say nothing where nobody has asked for them.
    """
    after, cut = given.row, constant(given.row, given.row.shape, np.dtype(bool), 0)
    if not asked:
        return [*arrays_of(given, None), after, cut]
    summary = summarise(given.monoid, given.elements, initial=given.initial, reset=given.cuts)
    if summary.after is not None and summary.cut is not None:
        after = summary.after[0].astype(after.dtype, copy=False)
        cut = namespace(after).broadcast_to(summary.cut[0], after.shape)
    return [*arrays_of(given, summary), after, cut]


def replaced(given: Elements, after: Array, said: Sequence[Array] = ()) -> list[Array]:
    """Return the same where what comes out is known, or taken to be, and perhaps ``said`` in place of an element."""
    return [*(said or arrays_of(given, None)), after, constant(given.row, given.row.shape, np.dtype(bool), 1)]


def element_of(elements: Any, arrays: Sequence[Array]) -> Any:
    """Return an element of one time like those of a monoid, made of such arrays."""
    left, found = list(arrays), []
    for e in elements:
        count = len(sent_of(e) or ())
        own, left = [x[None] for x in left[:count]], left[count:]
        found.append(_with(e, own))
    return tuple(found)


def as_sent(A: Jacobian) -> Jacobian:
    """Return matrices in a structure whose products have one array of entries, where they are small."""
    return A.lane_dense() if sent_of(A) is None and A.layout.lane_width <= _SMALL else A


def sent_of(e: Any) -> list[Array] | None:
    """Return the arrays with time first that an element holds; None for a structure that is not sent."""
    if not isinstance(e, Jacobian):
        return [e]
    if isinstance(e, (Zero, Identity)):
        return []
    if type(e) is PermutationDiagonal and not e.rows:
        full = (*e.leading, *e.layout.lanes, e.layout.lane_width)
        return [e.data, namespace(e.data).broadcast_to(e.index, full)]
    return [e.data] if isinstance(e, Entries) and type(e) in _SENT else None


def _with(e: Any, arrays: list[Array]) -> Any:
    if not isinstance(e, Jacobian):
        return arrays[0]
    return changed(e, **dict(zip(("data", "index"), arrays, strict=False))) if arrays else e[:1]
