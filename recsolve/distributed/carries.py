"""What comes into the steps of each rank from the ranks before it: one message, then a fold that all ranks compute.

Every rank sends what its steps do to the state before them: one composed element; or, where a few of its last steps
show that it forgets what comes in, the value that comes out of these. What comes out in truth is compared with that
value once the rank has scanned all of its steps, for a few steps prove nothing. Maps of single numbers have a proof of
it, and take one message less (leading.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from recsolve.base.arrays import Array, kind_of, namespace, same_bits
from recsolve.base.shard import Timeline
from recsolve.distributed.elements import Elements, composed, element_of, replaced, sent_of
from recsolve.distributed.exchange import Sent
from recsolve.distributed.messages import Soon, constant
from recsolve.jacobians import Diagonal, Identity
from recsolve.jacobians.jacobian import Entries
from recsolve.kernels.backends import scan
from recsolve.kernels.gpu.ranks import agreed, alike, folded
from recsolve.kernels.monoids.affine import Affine
from recsolve.kernels.monoids.float16 import HALF
from recsolve.kernels.monoids.monoid import Monoid

Found = TypeVar("Found")
Taken = TypeVar("Taken")

LAST = 256  # steps that are to show that a rank forgets
MANY = 4  # times as many it must hold, or composing them costs no more
_ROUNDING = 16  # units in the last place by which what was said may miss what came out: what steps round that forget so


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
    final = axis.final
    own, guess = min(axis.place, final), _forgotten(given) if axis.stop < axis.total else None
    sent = _begun(given, guess)
    into = [given.start]  # by rank, as far as known
    found: list[Found] = []
    carry, sure = row, 0
    states: list[Array] = []
    sees: Soon | None = None  # into whose memory the device writes, until a later message has come
    if axis.ranks.on_device and all(map(sent_of, given.few)):  # it goes on before the host knows whether that counts
        stacked = _folded_ahead(given, sent.arrays, into, final)
        states = list(stacked)
        sees = Soon(stacked) if guess is None else None
        carry, found = states[own], ahead(run, states[own])
    seen, told = sees, _told(given, sent.arrays)
    told = [one.said(*numbers) for one, numbers in zip(told, axis.in_order(list(sent.numbers())), strict=True)]
    while True:
        states = states or _folded(given, told[:final], into)
        into = states[: _right(states, seen, told, len(into))]
        at, states, seen = len(into) - 1, [], None
        guesses = [place for place in range(sure, at) if told[place].guess]
        if last and at == final and not guesses:
            axis.ranks.closed()
        if own <= at and not (found and (into[own] is carry or same_bits(into[own], carry))):
            carry = into[own]
            found = [run(carry)]
        if at == final and not guesses:
            return found[0]
        out, right = row, constant(row, (), np.dtype(bool), 1)
        if axis.place in (*guesses, at):
            out = end(found[0], carry).astype(row.dtype, copy=False)
            if guess is not None:
                right = _as_said(out, told[axis.place].after, guess.size, given)
        sent = axis.ranks.begin((), [right, out], brought=1)
        rights, ends = axis.in_order(sent.told()[1][0].tolist()), axis.in_order(list(sent.arrays[1]))
        wrong = next((place for place in guesses if not rights[place]), at)
        if wrong == final:
            return found[0]
        for place in guesses:
            if place > wrong:  # what has come out is a better guess
                told[place] = told[place]._replace(after=ends[place])
        into, sure = [*into[: wrong + 1], ends[wrong]], wrong + 1


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
    asked = given.timeline.length > 0 and guess is None and given.timeline.stop < given.timeline.total
    known = not asked or given.composable
    told = composed(given, asked and known) if guess is None else replaced(given, guess.end)
    return given.timeline.ranks.begin([known, guess is not None], told)


def _told(given: Elements, arrays: Sequence[Array]) -> list[_Told]:
    """Return what each rank has told in the order of steps, as if all knew, and none guessed."""
    *parts, after, cut = (given.timeline.in_order(x) for x in arrays)
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


def _folded_ahead(given: Elements, arrays: Sequence[Array], into: Sequence[Array], count: int) -> Array:
    """Return the same as one array, as if the first ranks all knew, in one launch where a device can."""
    (first,) = into
    found = launched(given, arrays, first, range(count), 0.0)
    if found is not None:
        return found[0]
    return namespace(first).stack(_folded(given, _told(given, arrays)[:count], into))  # type: ignore[no-any-return]


def launched(
    given: Elements, arrays: Sequence[Array], first: Array, places: range, least: float
) -> tuple[Array, Array] | None:
    """Return what :func:`recsolve.kernels.gpu.ranks.folded` does of ranks, from the state before them.

    None where no kernel takes them, as that of ranks without steps.
    """
    axis, begin, stop = given.timeline, places.start, places.stop
    if not (is_plain(given.monoid, given.few[0], first) and places and first.size and all(axis.ordered[begin:stop])):
        return None
    matrix, vector, after, cut = (axis.in_order(x)[begin:stop] for x in arrays)
    same = all(x.dtype == first.dtype and x.shape[1:] == first.shape for x in (matrix, vector, after))
    if not same or len({x.strides[0] for x in (matrix, vector, after, cut)}) != 1:  # as in messages of a device
        return None
    return folded(namespace(first).ascontiguousarray(first), matrix, vector, after, cut, len(places), least)


def is_plain(monoid: Monoid, A: Any, x: Array) -> bool:
    """Return whether a device has kernels for what affine maps of single numbers do to ``x``."""
    return kind_of(x) == "cupy" and type(monoid) is Affine and type(A) is Diagonal and x.dtype.char in "fd"


def _right(states: Sequence[Array], seen: Soon | None, told: Sequence[_Told], known: int) -> int:
    """Return how many states hold: until a rank cannot say, or composed elements overflow; ``known`` ones do.

    They are looked at where some were composed: ``seen`` are the same on their way to the host, if they have been sent.
    """
    host: Array | None = None
    for place in range(known - 1, len(states) - 1):
        one = told[place]
        if one.guess or not one.length:
            continue
        if one.known and host is None:
            host = (seen or Soon(namespace(states[0]).stack(states))).read()
        if not one.known or host is None or bool(lost(host[place], host[place + 1])):
            return place + 1
    return len(states)


def ahead(run: Callable[[Taken], Found], taken: Taken) -> list[Found]:
    """Return what the own steps give of what is taken for true, or nothing where they fail: that counts once it is."""
    try:
        return [run(taken)]
    except Exception:
        return []


def lost(before: Array, after: Array) -> Array:
    """Return whether a composed element gives what its steps may not, because it has overflowed, without axes."""
    xp = namespace(after)
    if after.dtype.kind not in "fc":
        return xp.zeros((), bool)  # type: ignore[no-any-return]
    return xp.asarray(((xp.isfinite(before) & ~xp.isfinite(after)) | (~xp.isnan(before) & xp.isnan(after))).any())  # type: ignore[no-any-return]


class _Guess(NamedTuple):
    """What is taken to come out of a rank, and the size of what is summed up to it."""

    end: Array
    size: Array


def _forgotten(given: Elements) -> _Guess | None:
    """Return what comes out of the last steps, if these forget what comes in; else None.

    Of affine maps, whose homogeneous part tells it: there other ones compose at a fraction of the cost.
    """
    monoid, axis = given.monoid, given.timeline
    if type(monoid) is not Affine or axis.length < MANY * LAST:
        return None
    (A, b), reset = given.last(LAST)
    if b.dtype == HALF or isinstance(A, Identity):  # rows that are rounded prove nothing
        return None

    xp, least = namespace(b), float(np.finfo(b.dtype).eps) / 16
    zero = xp.zeros_like(b[0])
    left = scan(monoid, (A, xp.zeros_like(b)), initial=xp.ones_like(zero), reset=reset)[-1]
    if not bool((abs(left) <= least).all()):
        return None
    end = scan(monoid, (A, b), initial=zero, reset=reset)[-1]
    if not isinstance(A, Entries):
        return _Guess(end, abs(end))
    return _Guess(end, scan(monoid, (A._mapped(abs), abs(b)), initial=zero.real, reset=reset)[-1])


def _as_said(end: Array, said: Array, size: Array, given: Elements) -> Array:
    """Return whether what has come out is what was said, up to what rounds on the way, without axes."""
    xp, eps = namespace(end), float(np.finfo(end.dtype).eps)
    if is_plain(given.monoid, given.few[0], end) and alike(end, said, size):
        return agreed(end, said, size, _ROUNDING * eps)
    mixed = tuple(given.monoid.mixed(given.few))
    size = xp.where(xp.isfinite(size), size, size.dtype.type(0))  # what is not finite excuses nothing
    size = size.max(axis=mixed, keepdims=True) if mixed and size.size else size
    same = (end == said) | (xp.isnan(end) & xp.isnan(said))
    return xp.asarray((same | (abs(end - said) <= _ROUNDING * eps * size)).all())  # type: ignore[no-any-return]


def row_before(axis: Timeline, rows: Array) -> Array | None:
    """Return the row of the ranks before that comes before the own ones, by one message; None where these come first.

    Parameters
    ----------
    axis : Timeline
    rows : array, shape (own steps, ...)
    """
    row = rows[-1] if len(rows) else namespace(rows).zeros(rows.shape[1:], rows.dtype)
    ends = axis.in_order(axis.ranks.exchange((), [row]).arrays[0])
    held = [place for place in range(axis.place) if axis.ordered[place]]
    return ends[held[-1]] if held else None
