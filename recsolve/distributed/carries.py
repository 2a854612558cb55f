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
from recsolve.distributed.packing import Soon
from recsolve.distributed.ranks import Sent
from recsolve.jacobians import Block, Diagonal, Identity, Jacobian, LaneDense, PermutationDiagonal, Scalar, Zero
from recsolve.kernels.backends import scan, summarise
from recsolve.kernels.monoids import MONOIDS
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
        """The mask of cut steps; the first of all is cut where no state comes before it (affine maps act on zero)."""
        if self.initial is not None or not self.first or type(self.monoid) is Affine:
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

    Notes
    -----
    On a device the own steps are asked for before the host has seen the message, so that they do not wait for it.
    """
    axis, needed = given.timeline, given.timeline.stop < given.timeline.total  # the last rank has nobody to tell
    for probing in (True, False):
        said = _forgotten(given) if probing and needed else None
        folded = _fold(given, said, needed)
        if not axis.ranks.on_device and not folded.holds():
            break
        found, end = run(folded.carry)
        if axis.ranks.on_device and not folded.holds():
            break
        if not folded.guessed or _all_as_said(given, said, end):
            return found
    return _relayed(given, run)


class _Said(NamedTuple):
    """What a rank says comes out of it, and how large the states are before that."""

    end: Array
    size: Array


class _Folded:
    """The states that come in and out of all ranks, by what these have said while the message is under way.

    Attributes
    ----------
    carry : array
        The state that comes in.
    guessed : bool
        Whether a rank has said what it only guesses; known once :meth:`holds` has been asked.
    """

    guessed = False

    def __init__(self, sent: Sent, states: list[Array], place: int):
        self.carry, self._sent = states[place], sent
        self._states = Soon(namespace(self.carry).stack(states))

    def holds(self) -> bool:
        """Return whether all ranks can say what they do, and no composed element has overflowed."""
        able, said = self._sent.numbers().T.astype(bool)
        self.guessed = bool(said.any())
        states = self._states.read()
        return bool(able.all()) and not _lost(states[:-1], states[1:])


def _fold(given: Elements, said: _Said | None, needed: bool) -> _Folded:
    """Begin to exchange what all ranks do to a state, and fold it."""
    axis, monoid, row = given.timeline, given.monoid, given.row
    summary, able, xp = None, True, namespace(row)
    if needed and axis.length and said is None:
        able = given.composable
        if able:
            summary = summarise(monoid, given.elements, initial=given.initial, reset=given.cuts)
    after, cut = (row, xp.zeros(row.shape, bool)) if said is None else (said.end, xp.ones(row.shape, bool))
    if summary is not None and summary.after is not None and summary.cut is not None:
        after, cut = summary.after[0].astype(row.dtype, copy=False), xp.broadcast_to(summary.cut[0], row.shape)
    sent = axis.ranks.begin([able, said is not None], [*arrays_of(given, summary), after, cut])
    *parts, after, cut = (axis.in_order(x) for x in sent.arrays)
    states = [row if given.initial is None else given.initial.astype(row.dtype, copy=False)]
    for place, length in enumerate(axis.ordered[:-1]):
        state = states[-1]
        if length:
            element = element_of(given.few, [x[place] for x in parts])
            state = xp.where(cut[place], after[place], monoid.act(element, state[None])[0])
        states.append(state)
    return _Folded(sent, states, axis.place)


def _lost(before: Array, after: Array) -> bool:
    """Return whether a composed element gives what its steps may not, because it has overflowed."""
    if after.dtype.kind not in "fc":
        return False
    xp = namespace(after)
    return bool(((xp.isfinite(before) & ~xp.isfinite(after)) | (~xp.isnan(before) & xp.isnan(after))).any())


def _forgotten(given: Elements) -> _Said | None:
    """Return what comes out of the last steps, if these forget what comes in; else None.

    Of affine maps, whose homogeneous part tells it: there other ones compose at a fraction of the cost.
    """
    monoid, axis = given.monoid, given.timeline
    if type(monoid) is not Affine or axis.length < _MANY * _LAST:
        return None
    (A, b), reset = given.last(_LAST)
    if b.dtype.kind not in "fc" or isinstance(A, Identity):
        return None
    row = given.row
    if not bool((_passed(A, b, reset, row) <= np.finfo(row.dtype).eps / 16).all()):
        return None
    rows = scan(monoid, (A, b), initial=row, reset=reset).astype(row.dtype, copy=False)
    size, mixed = abs(rows).max(axis=0), tuple(monoid.mixed((A, b)))
    return _Said(rows[-1], size.max(axis=mixed, keepdims=True) if mixed and size.size else size)


def _passed(A: Jacobian, b: Array, reset: Array | None, row: Array) -> Array:
    """Return how much of a state that comes in is left after some steps."""
    xp = namespace(b)
    if type(A) in (Scalar, Diagonal):
        entries = abs(A.diagonal().data.astype(row.dtype, copy=False))
        return (entries if reset is None else xp.where(reset, 0, entries)).prod(axis=0)  # type: ignore[no-any-return]
    return abs(scan(MONOIDS["affine"], (A, xp.zeros_like(b)), initial=xp.ones_like(row), reset=reset)[-1])


def _all_as_said(given: Elements, said: _Said | None, end: Array) -> bool:
    """Return whether of all ranks has come out what they said, to a few units in the last place of their states."""
    xp = namespace(end)
    same = xp.ones((), bool)
    if said is not None:
        by = _ROUNDING * float(np.finfo(end.dtype).eps) * said.size
        same = xp.isclose(end, said.end, rtol=0, atol=by, equal_nan=True).all()
    sent = given.timeline.ranks.begin((), [same])
    found = Soon(sent.arrays[0])
    sent.check()
    return bool(found.read().all())


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
