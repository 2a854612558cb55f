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
from recsolve.distributed.exchange import Sent
from recsolve.distributed.messages import Soon
from recsolve.jacobians import Block, Diagonal, Identity, Jacobian, LaneDense, PermutationDiagonal, Scalar, Zero
from recsolve.jacobians.jacobian import Entries
from recsolve.kernels.backends import scan, summarise
from recsolve.kernels.monoids import MONOIDS
from recsolve.kernels.monoids.affine import Affine
from recsolve.kernels.monoids.float16 import HALF, state_dtype, widen
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.kernels.reference.scan_numpy import cuts_apart
from recsolve.kernels.summary import Summary

Found = TypeVar("Found")

_LAST = 256  # steps that are to show that a rank forgets
_MANY = 4  # times as many it must hold, or composing them costs no more
_WIDTH = 64  # units of a lane up to which matrices are composed
_SMALL = 16  # units of a lane up to which matrices that are known by their factors are composed
_SENT = (Scalar, Diagonal, Block, LaneDense)  # structures whose products have one array of entries
_ROUNDING = 16  # units in the last place by which what was said may miss what came out: what steps round that forget so


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
        return first if self.reset is None else self.reset | first  # type: ignore[no-any-return]

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
        return xp.where(xp.cumsum(self.reset, axis=0) > 0, after, before)  # type: ignore[no-any-return]

    def last_state(self, y: Array, carry: Array) -> Array:
        """Return the state after the own rows ``y``; those of float16 have been rounded, and are computed again."""
        if y.dtype == HALF:
            wide = tuple(map(widen, self.elements))
            y = Elements(self.monoid, wide, self.initial, self.reset, self.timeline).run(carry)
        return y[-1]  # type: ignore[no-any-return]


def scan_over_ranks(given: Elements) -> Array:
    """Return the own rows of a scan over the steps of all ranks, (own steps, ...); no message of the call follows."""
    return over_ranks(given, given.run, given.last_state, last=True)


def over_ranks(
    given: Elements, run: Callable[[Array], Found], end: Callable[[Found, Array], Array], *, last: bool = False
) -> Found:
    """Return what the own steps give, on the state that comes into them from the ranks before.

    One message tells what the steps of every rank do. Where that is not known (a rank does not compose, or what it
    composes overflows), or only guessed, the states that have come out follow in further ones. What comes into a rank
    depends on the ranks before it alone, to the last bit.

    Parameters
    ----------
    given : Elements
        What steps do to a state.
    run, end : callable
        ``run(state)`` returns what the own steps give for a state that comes in, and ``end(found, state)`` the state
        that comes out of them, where there are any.
    last : bool
        Whether no message of the same call follows.
    """
    axis, row = given.timeline, given.row
    final = max((place for place, length in enumerate(axis.ordered) if length), default=0)
    own, guess = min(axis.place, final), _forgotten(given) if axis.stop < axis.total else None
    sent = _begun(given, guess)
    told = _told(given, sent.arrays)
    into = [row if given.initial is None else given.initial.astype(row.dtype, copy=False)]  # by rank, as far as known
    found: list[Found] = []
    carry, sure = row, 0
    ahead = axis.ranks.on_device and all(map(_arrays, given.few))
    states = _folded(given, told[:final], into) if ahead else []
    seen = Soon(namespace(row).stack(states)) if states else None
    if states:  # a device goes on before the host knows whether that counts
        carry, found = states[own], _ahead(run, states[own])
    told = [one.said(*numbers) for one, numbers in zip(told, axis.in_order(list(sent.numbers())), strict=True)]
    while True:
        if seen is None:
            states = _folded(given, told[:final], into)
            seen = Soon(namespace(row).stack(states))
        into = states[: _right(seen.read(), told, len(into))]
        at, seen = len(into) - 1, None
        guesses = [place for place in range(sure, at) if told[place].guess]
        if last and at == final and not guesses:
            axis.ranks.closed()
        if own <= at and not (found and (into[own] is carry or _same(into[own], carry))):
            carry = into[own]
            found = [run(carry)]
        if at == final and not guesses:
            return found[0]
        out, right = row, True
        if axis.place in (*guesses, at):
            out = end(found[0], carry).astype(row.dtype, copy=False)
            right = guess is None or _as_said(out, told[axis.place].after, guess.size, given)
        ends = axis.in_order(axis.ranks.exchange([right], [out]))
        wrong = next((place for place in guesses if not ends[place].numbers[0]), at)
        if wrong == final:
            return found[0]
        for place in guesses:
            if place > wrong:  # what has come out is a better guess
                told[place] = told[place]._replace(after=ends[place].arrays[0])
        into, sure = [*into[: wrong + 1], ends[wrong].arrays[0]], wrong + 1


class _Told(NamedTuple):
    """What a rank has told of its steps.

    Attributes
    ----------
    length : int
    known : bool
        Whether it can say what they do.
    guess : bool
        Whether ``after`` is what it takes to come out, whatever comes in.
    element : tuple
        The composed element, in the monoid's form, of one time.
    after, cut : array
        What comes out where they are cut, and where they are.
    """

    length: int
    known: bool
    guess: bool
    element: Any
    after: Array
    cut: Array

    def said(self, known: float, guess: float) -> _Told:
        """Return the same, with what its message says of it."""
        return self._replace(known=bool(known), guess=bool(guess))

    def after_it(self, given: Elements, before: Array) -> Array | None:
        """Return the state after its steps; None where it is not known."""
        if not self.length or not self.known:
            return None if self.length else before
        if self.guess:
            return self.after
        xp = namespace(before)
        return xp.where(self.cut, self.after, given.monoid.act(self.element, before[None])[0])  # type: ignore[no-any-return]


def _begun(given: Elements, guess: _Guess | None) -> Sent:
    """Begin to exchange what the steps of each rank do; nobody asks for those of the last rank with any."""
    axis, row, xp = given.timeline, given.row, namespace(given.row)
    asked, summary = axis.length > 0 and guess is None and axis.stop < axis.total, None
    known = not asked or given.composable
    if asked and known:
        summary = summarise(given.monoid, given.elements, initial=given.initial, reset=given.cuts)
    after, cut = row if guess is None else guess.end, xp.full(row.shape, guess is not None)
    if summary is not None and summary.after is not None and summary.cut is not None:
        after, cut = summary.after[0].astype(row.dtype, copy=False), xp.broadcast_to(summary.cut[0], row.shape)
    return axis.ranks.begin([known, guess is not None], [*arrays_of(given, summary), after, cut])


def _told(given: Elements, arrays: Sequence[Array]) -> list[_Told]:
    """Return what each rank has told in the order of steps, as if all knew, and none guessed."""
    *parts, after, cut = (given.timeline.in_order(x) for x in arrays)  # type: ignore[arg-type]
    return [
        _Told(length, True, False, element_of(given.few, [x[place] for x in parts]), after[place], cut[place])
        for place, length in enumerate(given.timeline.ordered)
    ]


def _folded(given: Elements, told: Sequence[_Told], into: Sequence[Array]) -> list[Array]:
    """Return the states that come into ranks, as far as these say what they do, after those that are known."""
    states = list(into)
    for one in told[len(into) - 1 :]:
        after = one.after_it(given, states[-1])
        if after is None:
            break
        states.append(after)
    return states


def _right(states: Array, told: Sequence[_Told], known: int) -> int:
    """Return how many states hold: until a rank cannot say, or composed elements overflow; ``known`` ones do."""
    for place in range(known - 1, len(states) - 1):
        one = told[place]
        if (one.length and not one.known) or (not one.guess and _lost(states[place], states[place + 1])):
            return place + 1
    return len(states)


def _ahead(run: Callable[[Array], Found], state: Array) -> list[Found]:
    """Return what the own steps give, or nothing where they fail: that they do counts once the state does."""
    try:
        return [run(state)]
    except Exception:
        return []


def _same(a: Array, b: Array) -> bool:
    xp = namespace(a)
    return bool(((a == b) | (xp.isnan(a) & xp.isnan(b))).all())


def _lost(before: Array, after: Array) -> bool:
    """Return whether a composed element gives what its steps may not, because it has overflowed."""
    if after.dtype.kind not in "fc":
        return False
    xp = namespace(after)
    return bool(((xp.isfinite(before) & ~xp.isfinite(after)) | (~xp.isnan(before) & xp.isnan(after))).any())


class _Guess(NamedTuple):
    """What is taken to come out of a rank, and the size of what is summed up to it."""

    end: Array
    size: Array


def _forgotten(given: Elements) -> _Guess | None:
    """Return what comes out of the last steps, if these forget what comes in; else None.

    Of affine maps, whose homogeneous part tells it: there other ones compose at a fraction of the cost.
    """
    monoid, axis = given.monoid, given.timeline
    if type(monoid) is not Affine or axis.length < _MANY * _LAST:
        return None
    (A, b), reset = given.last(_LAST)
    if b.dtype == HALF or isinstance(A, Identity):  # rows that are rounded prove nothing
        return None

    xp = namespace(b)
    if not bool((abs(_passed(A, b, reset)) <= np.finfo(b.dtype).eps / 16).all()):
        return None
    if type(A) not in _SENT:
        zero = xp.zeros_like(b[0])
        end = scan(monoid, (A, b), initial=zero, reset=reset)[-1]
        sizes = (A._mapped(abs), abs(b)) if isinstance(A, Entries) else None
        return _Guess(end, abs(end) if sizes is None else scan(monoid, sizes, initial=zero, reset=reset)[-1])
    # Both side by side, on an axis of their own: what comes out, and the size of what is summed up to it.
    sides = A._mapped(lambda x: xp.stack([x, abs(x)], axis=1)), xp.stack([b, abs(b)], axis=1)
    cut = None if reset is None else reset[:, None]
    end, size = scan(monoid, sides, initial=xp.zeros_like(sides[1][0]), reset=cut)[-1]
    return _Guess(end, size)


def _passed(A: Jacobian, b: Array, reset: Array | None) -> Array:
    """Return what is left of ones after some steps."""
    xp = namespace(b)
    if type(A) in (Scalar, Diagonal):
        entries = A.diagonal().data
        return (entries if reset is None else xp.where(reset, b.dtype.type(0), entries)).prod(axis=0)  # type: ignore[no-any-return]
    start = xp.ones(b.shape[1:], b.dtype)
    return scan(MONOIDS["affine"], (A, xp.zeros_like(b)), initial=start, reset=reset)[-1]  # type: ignore[no-any-return]


def _as_said(end: Array, said: Array, size: Array, given: Elements) -> bool:
    """Return whether what has come out is what was said, up to what rounds on the way."""
    xp, eps = namespace(end), float(np.finfo(end.dtype).eps)
    mixed = tuple(given.monoid.mixed(given.few))
    size = xp.where(xp.isfinite(size), size, size.dtype.type(0))  # what is not finite excuses nothing
    size = size.max(axis=mixed, keepdims=True) if mixed and size.size else size
    same = (end == said) | (xp.isnan(end) & xp.isnan(said))
    return bool((same | (abs(end - said) <= _ROUNDING * eps * size)).all())


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


def as_sent(A: Jacobian) -> Jacobian:
    """Return matrices in a structure whose products have one array of entries, where they are small."""
    return A.lane_dense() if _arrays(A) is None and A.layout.lane_width <= _SMALL else A


def _arrays(e: Any) -> list[Array] | None:
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
