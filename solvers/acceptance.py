"""Rows that the user accepts as they are, and that are not worked on any more although they miss the tolerance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from recsolve.base.arguments import check_callable
from recsolve.base.arrays import Array, namespace
from recsolve.recurrence.base import Recurrence
from recsolve.solvers.guarded import I
from recsolve.solvers.iterate import Iterate
from recsolve.solvers.problem import Problem

Rule: TypeAlias = Callable[[Problem, Iterate], Array]


class Acceptance:
    """The rule by which rows are accepted, and the rows that have been.

    What is accepted freezes from the front: a row, once all rows before it in its segment are exact or accepted. Frozen
    rows are to the solver what exact ones are: they are left alone, the row after them takes f of them, and they are
    set aside. Their residual stays what it is.

    Parameters
    ----------
    accept : callable or array
        ``accept(problem, iterate)`` returns a mask of the rows of the iterate (T, *batch); or numbers that broadcast to
        (T, *batch) of all: rows are accepted with every |r| up to these.
    recurrence : Recurrence

    Raises
    ------
    TypeError, ValueError
        For anything else.
    """

    def __init__(self, accept: Any, recurrence: Recurrence):
        shape = (recurrence.length, *recurrence.batch)
        self.rule: Rule = accept
        if callable(accept):
            check_callable("accept", accept, "accept(problem, iterate)")
        else:
            self.rule = _up_to(limits_of(accept, recurrence))
        self.rows = namespace(recurrence.initial).zeros(shape, dtype=bool)

    def forget(self) -> None:
        """Accept from the beginning."""
        self.rows[...] = False

    def freeze(self, problem: Problem, iterate: I, *, anew: bool = True) -> I:
        """Return an iterate whose leading rows are the exact and the accepted ones; without ``anew``, those before."""
        good = iterate.leading | self.rows[problem.index]
        if anew:
            finite = namespace(good).isfinite(iterate.residual).all(axis=problem.event_axes)
            good = good | (_mask(self.rule(problem, iterate), good) & finite)
        leading, front = problem.front(good)
        if bool((leading == iterate.leading).all()):
            return iterate
        self.rows[problem.index] = leading
        return replace(iterate, leading=leading, front=front, judged=None)


def _mask(given: Any, like: Array) -> Array:
    mask = namespace(like).asarray(given)
    if mask.dtype != bool:
        raise TypeError(f"accept returned dtype {mask.dtype}; wanted bool, a mask of rows")
    if mask.shape != like.shape:
        raise ValueError(f"accept returned shape {tuple(mask.shape)}; wanted {tuple(like.shape)}, the rows left")
    return mask  # type: ignore[no-any-return]


def limits_of(accept: Any, recurrence: Recurrence) -> Array:
    """Return the numbers up to which |r| of rows is accepted, (T, *batch); TypeError and ValueError name ``accept``."""
    xp, shape = namespace(recurrence.initial), (recurrence.length, *recurrence.batch)
    limits = xp.asarray(accept)
    if limits.dtype.kind not in "fiu":
        raise TypeError(f"accept is {accept!r}; wanted a callable accept(problem, iterate), or numbers")
    if limits.shape == shape[:1]:
        limits = limits.reshape(shape[:1] + (1,) * (len(shape) - 1))
    try:
        return xp.broadcast_to(limits, shape)  # type: ignore[no-any-return]
    except ValueError:
        raise ValueError(f"accept has shape {tuple(limits.shape)}; wanted (T, *batch) = {shape}") from None


def _up_to(limits: Array) -> Rule:
    def within(problem: Problem, iterate: Iterate) -> Array:
        sizes = abs(iterate.residual).max(axis=problem.event_axes) if problem.event_axes else abs(iterate.residual)
        return sizes <= problem.part_of(limits)  # type: ignore[no-any-return]

    return within
