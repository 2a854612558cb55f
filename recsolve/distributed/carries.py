"""What comes into the steps of each rank from the ranks before it: one message, then a fold that all ranks compute.

Every rank sends what its steps do to the state before them: one composed element; or, where a few of its last steps
show that it forgets what comes in, the value that comes out of these. What comes out in truth is compared with that
value once the rank has scanned all of its steps, for a few steps prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.overriding import changed
from recsolve.base.shard import Timeline
from recsolve.jacobians import Block, Diagonal, Identity, Jacobian, LaneDense, PermutationDiagonal, Scalar, Zero
from recsolve.kernels.backends import scan, summarise
from recsolve.kernels.monoids.affine import Affine
from recsolve.kernels.monoids.float16 import state_dtype
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.kernels.reference.scan_numpy import cuts_apart
from recsolve.kernels.summary import Summary

Found = TypeVar("Found")

_LAST = 256  # steps that are to show that a rank forgets
_MANY = 4  # times as many it must hold, or composing them costs no more
_WIDTH = 64  # units of a lane up to which matrices are composed
_SENT = (Scalar, Diagonal, Block, LaneDense)  # structures whose products have one array of entries
_ROUNDING = 4  # units in the last place by which what was said may miss what came out


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

    @property
    def row(self) -> Array:
        """An array like a state."""
        like = self.like
        return namespace(like).zeros(like.shape[1:], state_dtype(like))  # type: ignore[no-any-return]

    @property
    def first(self) -> bool:
        """Whether the first step of all is here."""
        return self.timeline.start == 0 and self.timeline.length > 0

    @property
    def cuts(self) -> Array | None:
        """The mask of cut steps, the first of all among them where no state comes before it."""
        if self.initial is not None or not self.first:
            return self.reset
        like = self.like
        steps = namespace(like).arange(self.timeline.length)
        first = (steps == 0).reshape(-1, *(1,) * (like.ndim - 1))
        return first if self.reset is None else self.reset | first

    @property
    def composable(self) -> bool:
        """Whether these elements compose in fixed size, at a cost that pays, and are cut together where they mix."""
        monoid, elements = self.monoid, self.few
        A = elements[0] if isinstance(elements[0], Jacobian) else None
        small = type(A) is LaneDense and A.layout.lane_width <= _WIDTH
        if not (monoid.composable(elements) or small) or (A is not None and _arrays(A) is None):
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
        seen = xp.maximum.accumulate(self.reset, axis=0) if len(self.reset) else self.reset
        return xp.where(seen, after, before)  # type: ignore[no-any-return]


def scan_over_ranks(given: Elements) -> Array:
    """Return the own rows of a scan over the steps of all ranks, (own steps, ...)."""

    def run(carry: Array) -> tuple[Array, Array]:
        y = given.run(carry)
        return y, y[-1] if len(y) else carry

    return over_ranks(given, run)


def over_ranks(given: Elements, run: Callable[[Array], tuple[Found, Array]]) -> Found:
    """Return what the own steps give, on the state that comes into them from the ranks before.

    Parameters
    ----------
    given : Elements
        What steps do to a state.
    run : callable
        ``run(state)`` returns what the own steps give for a state that comes in, and the state that comes out.
    """
    axis = given.timeline
    for probing in (True, False):
        said = _forgotten(given) if probing else None
        folded = _fold(given, said)
        if folded is None:
            break
        found, end = run(folded.carry)
        if not folded.guessed or _all(axis, said is None or _as_said(end, said, given)):
            return found
    return _relayed(given, run)


class _Folded(NamedTuple):
    """The state that comes in, and whether a rank has said what it only guesses."""

    carry: Array
    guessed: bool


def _fold(given: Elements, said: Array | None) -> _Folded | None:
    """Exchange what all ranks do to a state; None where one cannot say it, or composed elements have overflowed."""
    axis, monoid, row = given.timeline, given.monoid, given.row
    summary, able = None, True
    if axis.length and said is None:
        able = given.composable
        if able:
            summary = summarise(monoid, given.elements, initial=given.initial, reset=given.cuts)
    xp = namespace(row)
    after, cut = (row, xp.zeros(row.shape, bool)) if said is None else (said, xp.ones(row.shape, bool))
    if summary is not None and summary.after is not None and summary.cut is not None:
        after, cut = summary.after[0].astype(row.dtype, copy=False), xp.broadcast_to(summary.cut[0], row.shape)
    sent = [*arrays_of(given, summary), after, cut.copy()]
    messages = axis.in_order(axis.ranks.exchange([axis.length, able, said is not None], sent))
    if not all(message.numbers[1] for message in messages):
        return None
    state = carry = row if given.initial is None else given.initial.astype(row.dtype, copy=False)
    for place, (numbers, arrays) in enumerate(messages):
        if place == axis.place:
            carry = state
        *parts, after, cut = arrays
        if numbers[2]:
            state = after
        elif numbers[0]:
            following = xp.where(cut, after, monoid.act(element_of(given.few, parts), state[None])[0])
            if _lost(state, following):
                return None
            state = following
    return _Folded(carry, any(message.numbers[2] for message in messages))


def _all(axis: Timeline, flag: bool) -> bool:
    """Return whether something holds on all ranks."""
    return all(message.numbers[0] for message in axis.ranks.exchange([flag]))


def _lost(before: Array, after: Array) -> bool:
    """Return whether a composed element gives what its steps may not, because it has overflowed."""
    if after.dtype.kind not in "fc":
        return False
    xp = namespace(after)
    return bool(((xp.isfinite(before) & ~xp.isfinite(after)) | (~xp.isnan(before) & xp.isnan(after))).any())


def _forgotten(given: Elements) -> Array | None:
    """Return what comes out of the last steps, if these forget what comes in; else None.

    Of affine maps, whose homogeneous part tells it: there other ones compose at a fraction of the cost.
    """
    monoid, axis = given.monoid, given.timeline
    if type(monoid) is not Affine or axis.length < _MANY * _LAST:
        return None
    (A, b), reset = given.last(_LAST)
    if b.dtype.kind not in "fc" or isinstance(A, Identity):
        return None
    xp = namespace(b)
    ones, zeros = xp.ones(given.row.shape, given.row.dtype), xp.zeros_like(b)
    passed = abs(scan(monoid, (A, zeros), initial=ones, reset=reset)[-1])
    if not bool((passed <= np.finfo(given.row.dtype).eps / 16).all()):
        return None
    return scan(monoid, (A, b), initial=xp.zeros_like(ones), reset=reset)[-1].astype(given.row.dtype, copy=False)  # type: ignore[no-any-return]


def _as_said(end: Array, said: Array, given: Elements) -> bool:
    """Return whether what has come out is what was said, to a few units in the last place of its row."""
    xp, eps = namespace(end), float(np.finfo(end.dtype).eps)
    mixed = tuple(given.monoid.mixed(given.few))
    size = xp.maximum(abs(end), abs(said))
    size = size.max(axis=mixed, keepdims=True) if mixed and size.size else size
    same = (end == said) | (xp.isnan(end) & xp.isnan(said))
    return bool((same | (abs(end - said) <= _ROUNDING * eps * size)).all())


def _relayed(given: Elements, run: Callable[[Array], tuple[Found, Array]]) -> Found:
    """Return the same where each rank waits for what comes out of the one before it."""
    axis, row = given.timeline, given.row
    state = row if given.initial is None else given.initial.astype(row.dtype, copy=False)
    found: list[Found] = []
    for place in range(axis.size):
        out = state
        if place == axis.place:
            own, out = run(state)
            found.append(own)
        messages = axis.in_order(axis.ranks.exchange((), [out.astype(row.dtype, copy=False)]))
        state = messages[place].arrays[0]
    return found[0]


# An element as arrays of one time, for a message ------------------------------------------------------------------


def arrays_of(given: Elements, summary: Summary | None) -> list[Array]:
    """Return the arrays of a summary's element, without its axis of time; zeros in their shapes without one."""
    elements = given.few if summary is None else summary.element
    arrays = [x for e in elements for x in _arrays(e) or ()]
    if summary is not None:
        return [x[0] for x in arrays]
    return [namespace(x).zeros(x.shape[1:], state_dtype(x)) for x in arrays]


def element_of(elements: Any, arrays: Sequence[Array]) -> Any:
    """Return an element of one time like those of a monoid, made of such arrays."""
    left, found = list(arrays), []
    for e in elements:
        count = len(_arrays(e) or ())
        own, left = [x[None] for x in left[:count]], left[count:]
        found.append(_with(e, own))
    return tuple(found)


def _arrays(e: Any) -> list[Array] | None:
    """Return the arrays with time first that an element holds; None for a structure that is not sent."""
    if not isinstance(e, Jacobian):
        return [e]
    if isinstance(e, (Zero, Identity)):
        return []
    if type(e) is PermutationDiagonal and not e.rows:
        full = (*e.leading, *e.layout.lanes, e.layout.lane_width)
        return [e.data, namespace(e.data).broadcast_to(e.index, full)]
    return [e.data] if type(e) in _SENT else None


def _with(e: Any, arrays: list[Array]) -> Any:
    if not isinstance(e, Jacobian):
        return arrays[0]
    return changed(e, **dict(zip(("data", "index"), arrays, strict=False))) if arrays else e[:1]
