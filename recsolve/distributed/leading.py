"""Affine maps of single numbers over ranks: one that forgets runs all its steps before it knows what comes in.

Such a rank runs from zero, and tells its last row. What is missed so is P x after some first steps, with P the product
of their A and x the state that comes in, and then goes on as A has it; S, the size of what is summed up from zero,
falls no faster, S[t] = |A[t]| S[t-1] + |b[t]|. So where |P x| is next to nothing beside S after the first
steps, it is so at all later ones, and less than these round by: their rows stand, and what was told is right. A rank
tells a bound of |P| and S, by which all others see that, in one message. The first steps it takes anew, from x.

Ranks that remember tell a composed element, as in carries.py. Where the proof fails, or that element overflows, states
hold up to the one that comes into this rank; what comes out of it follows in a further message.

A device does not wait until the host knows whether its first steps forget: a rank takes for true what it has found in
the last call of its kind, and looks at what it finds while the device goes on. Where that is something else, what was
done so is dropped, and all goes on as if nothing had been taken for true. So data that forget in one call and remember
in the next cost a scan, or a composition, in vain in every call; results and messages are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.distributed.carries import MANY, ahead, is_plain, launched, lost, over_ranks
from recsolve.distributed.elements import Elements, composed, element_of, replaced
from recsolve.distributed.messages import Soon
from recsolve.jacobians import Diagonal, Jacobian, Scalar
from recsolve.kernels.backends import scan
from recsolve.kernels.gpu.ranks import mended, probed, taken
from recsolve.kernels.monoids import MONOIDS
from recsolve.kernels.monoids.affine import Affine

Found = TypeVar("Found")

_FIRST = 256  # steps that are to show that a rank forgets, and are taken anew
_KINDS = 64  # kinds of calls of which it is known what was found
_COMPOSED, _PROVEN, _TRUE = range(3)  # what a rank tells: a map; what comes out if the proof holds; what comes out


def scan_over_ranks(given: Elements, *, last: bool = False) -> Array:
    """Return the own rows of a scan over the steps of all ranks, (own steps, ...).

    Parameters
    ----------
    given : Elements
    last : bool
        Whether no message of the same call follows.
    """
    return over_leading_ranks(given, given.run, given.last_state, partial(_mended, given), last=last)


def over_leading_ranks(
    given: Elements,
    run: Callable[[Array], Found],
    end: Callable[[Found, Array], Array],
    mend: Callable[[Array, int, Array], Found],
    *,
    last: bool = False,
) -> Found:
    """Return what the own steps give, on the state that comes into them from the ranks before.

    Parameters
    ----------
    given, run, end, last
        As of :func:`recsolve.distributed.carries.over_ranks`, which takes what nothing is proved of.
    mend : callable
        ``mend(rows, count, state)`` returns what ``run(state)`` does, given the rows of a scan of which the first
        ``count`` do not stand.
    """
    if not _provable(given):
        return over_ranks(given, run, end, last=last)
    axis, lead = given.timeline, _lead(given)
    final, own = axis.final, min(axis.place, axis.final)
    sent = axis.ranks.begin([lead.kind], lead.told)
    begin = run if lead.rows is None else partial(mend, lead.rows, _FIRST * (lead.kind == _PROVEN))
    known, comes = 0, given.start  # a rank, and what comes into it
    found: list[Found] = []
    kinds: list[float] = []
    while True:
        states, holds = _folded(given, sent.arrays, comes, range(known, final + 1))
        seen = Soon(holds)
        if axis.ranks.on_device and not kinds:  # it goes on before the host knows whether that counts
            found = ahead(begin, states[own])
        kinds = kinds or axis.in_order(sent.numbers()[:, 0].tolist())
        holding: Any = seen.read().all(axis=-1).tolist()  # by rank, whether what composed elements say, and proofs
        at = known
        while at < final and (not axis.ordered[at] or kinds[at] == _TRUE or holding[int(kinds[at])][at - known]):
            at += 1
        if last and at == final:
            axis.ranks.closed()
        if known <= own <= at:
            if lead.kind == _PROVEN and not holding[_PROVEN][own - known]:
                found = [run(states[own - known])]
            elif known or not found:
                found = [begin(states[own - known])]
        if at == final:
            return found[0]
        out = end(found[0], states[at - known]) if axis.place == at else given.row
        ends = axis.ranks.exchange((), [out.astype(given.row.dtype, copy=False)]).arrays[0]
        known, comes = at + 1, axis.in_order(ends)[at]


class _Lead(NamedTuple):
    """What a rank has done before anything came in.

    Attributes
    ----------
    kind : int
    told : list of array
        Its message.
    rows : array, shape (own steps, ...), or None
        The scan from zero of a rank that forgets; of the first rank of all from the state before it.
    """

    kind: int
    told: list[Array]
    rows: Array | None = None


def _provable(given: Elements) -> bool:
    """Return whether there is a proof for such elements, and a rank that might take it; all ranks say the same."""
    lengths = given.timeline.ordered
    if type(given.monoid) is not Affine or max(lengths) < MANY * _FIRST or sum(map(bool, lengths)) < 2:
        return False
    A, b = given.few
    return b.dtype.char in "fdFD" and (type(A) is Diagonal or (type(A) is Scalar and given.reset is None))


def _lead(given: Elements) -> _Lead:
    """Return what a rank does first: of one whose first steps seem to forget what comes in, its rows."""
    if given.timeline.length < MANY * _FIRST or 0 in given.like.shape:
        return _leading(given, None)
    shown = _shown(given)
    found, kind = _found_last(given)
    expected = found.get(kind) if shown.waits else None
    early = [] if expected is None else ahead(partial(_leading, given), shown if expected else None)
    found[kind] = forgets = shown.forgets()
    if early and forgets == expected:
        return early[0]
    early.clear()  # which has no room beside what follows
    return _leading(given, shown if forgets else None)


_FOUND: WeakKeyDictionary[Any, dict[tuple[Any, ...], bool]] = WeakKeyDictionary()  # by ranks, and the kind of call


def _found_last(given: Elements) -> tuple[dict[tuple[Any, ...], bool], tuple[Any, ...]]:
    """Return whether calls of the same ranks forgot when they were made last, by kind, and the kind of this one."""
    (A, b), axis = given.few, given.timeline
    found = _FOUND.get(axis.ranks)
    if found is None or len(found) >= _KINDS:
        found = _FOUND[axis.ranks] = {}
    return found, (type(A), A.data.dtype, b.dtype, b.shape[1:], given.reset is None, axis.backwards)


def _leading(given: Elements, shown: _Shown | None) -> _Lead:
    """Return what a rank does whose first steps show that it forgets; without that, as one that remembers."""
    if shown is None:
        axis = given.timeline
        return _Lead(_COMPOSED, composed(given, asked=axis.length > 0 and axis.place < axis.final))
    rows = given.run(given.row)
    if given.first:
        return _Lead(_TRUE, replaced(given, rows[-1]), rows)
    return _Lead(_PROVEN, replaced(given, rows[-1], [*shown.told]), rows)


class _Shown(NamedTuple):
    """What the first steps show.

    Attributes
    ----------
    told : sequence of array
        What they leave of ones at most, and the size of what they sum up.
    forgets : callable
        Returns whether of what comes in, if it is as large as that size, or as any vector, next to nothing is left
        beside it.
    waits : bool
        Whether a device has to be waited for to know.
    """

    told: Sequence[Array] | Array
    forgets: Callable[[], bool]
    waits: bool


def _shown(given: Elements) -> _Shown:
    """Look at the first steps."""
    A, b = given.few
    if _read(given, A, b):
        return _Shown(*probed(A.data, b, _FIRST, _least(b.dtype)), waits=True)
    A, b, reset = _first_steps(given)
    xp, affine = namespace(b), MONOIDS["affine"]
    data, sizes = abs(A.data), abs(b)
    size = scan(affine, (A._mapped(abs), sizes), initial=given.row.real, reset=reset)[-1]
    # What underflow takes away is less than what is added.
    left = affine.prepare((data, xp.full_like(data, np.finfo(data.dtype).tiny)))
    left = scan(affine, left, initial=xp.ones_like(data[0]), reset=reset)[-1]
    bound = element_of((A, b), [left, size])[0]
    flag = Soon(((size > 0) & _negligible(bound, xp.maximum(size, sizes.max(axis=0)), size)).all())
    return _Shown([left.astype(A.data.dtype), size.astype(b.dtype)], lambda: bool(flag.read()), flag.waits)


def _mended(given: Elements, rows: Array, count: int, state: Array) -> Array:
    """Return rows of which the first ``count`` are taken anew, from the state that comes in."""
    if not count:
        return rows
    A, b = given.few
    if _read(given, A, b) and taken(rows, state.dtype, state.shape) and state.flags.c_contiguous:
        mended(rows, A.data, b, count, state)
    else:
        A, b, reset = _first_steps(given)
        rows[:count] = scan(given.monoid, (A, b), initial=state, reset=reset)
    return rows


def _read(given: Elements, A: Any, b: Array) -> bool:
    """Return whether kernels of ranks read the first steps."""
    row = b.dtype, b.shape[1:]
    return given.reset is None and is_plain(given.monoid, A, b) and taken(A.data, *row, repeats=True) and taken(b, *row)


def _first_steps(given: Elements) -> tuple[Any, Array, Array | None]:
    """Return A, b and resets of the first steps."""
    A, b = given.monoid.take(given.elements, slice(0, _FIRST))
    return A, b, None if given.reset is None else given.reset[:_FIRST]


def _folded(given: Elements, arrays: Sequence[Array], first: Array, places: range) -> tuple[Any, Array]:
    """Return the states that come into ranks, as if all that is told held, and whether it does, (2, ranks, n).

    A composed element holds where it has not overflowed; then, a proof.
    """
    found = launched(given, arrays, first, places, _least(first.dtype))
    if found is not None:
        return found
    xp, states = namespace(first), [first]
    *parts, after, cut = (given.timeline.in_order(x) for x in arrays)
    kept, proven = [], []
    for place in places:
        x, (A, b) = states[-1], element_of(given.few, [part[place] for part in parts])
        y = xp.where(cut[place], after[place], given.monoid.act((A, b), x[None])[0])
        states.append(y if given.timeline.ordered[place] else x)
        kept.append(xp.asarray(~lost(x, y)))
        proven.append(xp.asarray(_negligible(A, x, b[0]).all()))
    return states, xp.stack([xp.stack(kept), xp.stack(proven)])[..., None]


def _negligible(bound: Jacobian, x: Array, size: Array) -> Array:
    """Return where what is left of ``x`` is next to nothing beside a size; one that is not finite excuses nothing."""
    left, size = abs(bound.matvec(abs(x)[None])[0]), size.real
    return (left <= _least(size.dtype) * size) & namespace(size).isfinite(size)  # type: ignore[no-any-return]


@cache
def _least(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).eps) / 16
