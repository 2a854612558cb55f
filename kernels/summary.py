"""What all steps of a range do to the state before them: one element, composed, that a message can carry.

With cuts, what comes out does not depend on what comes in wherever a cut lies between: there it is a value. The tree of
compositions is the reference, on any namespace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recsolve.base.arrays import Array, namespace
from recsolve.kernels.monoids.float16 import HALF, Widened, state_dtype
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.kernels.registry import register


@dataclass(frozen=True)
class Summary:
    """The map of a range of steps: act(element, state), and ``after`` where the range is cut.

    Attributes
    ----------
    element : tuple
        In the monoid's form, of one time: leading axis 1.
    after : array or None
        What comes out where a cut lies in the range, shape (1, ...); None without cuts.
    cut : array of bool or None
        Where one lies in it, broadcasting against ``after``.
    """

    element: Any
    after: Array | None = None
    cut: Array | None = None


@register("summary", "numpy")
def summarise(monoid: Monoid, elements: Any, *, initial: Array | None = None, reset: Array | None = None) -> Summary:
    """Return what :func:`recsolve.kernels.backends.summarise` does, by T - 1 compositions in log2(T) calls."""
    if monoid.like(elements).dtype == HALF:
        like = monoid.like(elements)
        monoid, initial = Widened(monoid), None if initial is None else initial.astype(state_dtype(like))
    steps = monoid.take(elements, slice(None))
    if reset is None:
        return folded(monoid, Summary(steps))
    return folded(monoid, Summary(steps, monoid.constant(elements, initial), reset))


def folded(monoid: Monoid, found: Summary) -> Summary:
    """Return the summary of what follows each other in time, along the leading axis, each of which has its own."""
    length = len(monoid.like(found.element))
    last: Summary | None = None  # of steps at the end that found no other to go with
    while length > 1:
        if length % 2:
            tail = _taken(monoid, found, slice(length - 1, length))
            last = tail if last is None else joined(monoid, last, tail)
        length //= 2
        pairs = 2 * length
        found = joined(monoid, _taken(monoid, found, slice(1, pairs, 2)), _taken(monoid, found, slice(0, pairs, 2)))
    return found if last is None else joined(monoid, last, found)


def _taken(monoid: Monoid, summary: Summary, index: slice) -> Summary:
    element = monoid.take(summary.element, index)
    if summary.after is None or summary.cut is None:
        return Summary(element)
    return Summary(element, summary.after[index], summary.cut[index])


def joined(monoid: Monoid, later: Summary, earlier: Summary) -> Summary:
    """Return the summaries of later ranges after earlier ones."""
    element = monoid.compose(later.element, earlier.element)
    if later.after is None or later.cut is None or earlier.after is None or earlier.cut is None:
        return Summary(element)
    xp, passed = namespace(later.after), monoid.act(later.element, earlier.after)
    return Summary(element, xp.where(later.cut, later.after, passed), later.cut | earlier.cut)
