"""What ranks that iterate together tell each other of how far they are, and what follows of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.kernels.residual import hopeless
from recsolve.solvers.iterate import Iterate

if TYPE_CHECKING:
    from recsolve.distributed.shared_problem import SharedProblem

# What a rank says of every sequence, as bits. As if all before the own steps were exact, ...
LEADS = 1 << 0  # the last step leads,
FRONT = 1 << 1  # or is the one after those that lead;
PASSES = 1 << 2  # all steps lead, and there is no reset.
RESETS = 1 << 3  # There is one,
TAIL = 1 << 4  # and all steps after the last one lead.
BEGINS = 1 << 5  # The last step does not see the one before it.
OPEN, STUCK = 1 << 6, 1 << 7  # The first step that misses its test may still meet it; or never will.
OPEN_AFTER, STUCK_AFTER = 1 << 8, 1 << 9  # The same after resets.


class Progress(NamedTuple):
    """How far a rank is with its iterate, as numbers of a message."""

    done: float
    worst: float
    exact_rows: float
    converged: float  # leading times at which all sequences have converged, are exact
    exact: float
    mixes: float  # whether f alone is another function than f of all steps


def flags_of(problem: SharedProblem, raw: Iterate) -> Array:
    """Return the bits of every sequence, int32 (*batch,), of an iterate as if all before it were exact."""
    follows = problem.follows
    if not problem.recurrence.length:
        return passing_of(problem, raw.leading)
    last = _last(problem)
    stop = problem.front(raw.converged)[1]
    stuck = stop & hopeless(raw.states, raw.values, problem.event_axes)
    bits = {
        LEADS: raw.leading[-1],
        FRONT: raw.front[-1],
        BEGINS: problem.begins[-1],
        OPEN: (stop & ~stuck & follows).any(axis=0),
        STUCK: (stuck & follows).any(axis=0),
        OPEN_AFTER: (stop & ~stuck & ~follows).any(axis=0),
        STUCK_AFTER: (stuck & last & ~follows).any(axis=0),
    }
    return passing_of(problem, raw.leading) + _together(bits)


def passing_of(problem: SharedProblem, leading: Array) -> Array:
    """Return the bits that say whether leading rows (T, *batch) go on into the next rank, as int32 (*batch,)."""
    if not problem.recurrence.length:
        return namespace(leading).zeros(leading.shape[1:], np.int32)  # type: ignore[no-any-return]
    resets = ~problem.follows[-1]
    tail = resets & (leading | ~_last(problem)).all(axis=0)
    return _together({PASSES: ~resets & leading.all(axis=0), RESETS: resets, TAIL: tail})


def _last(problem: SharedProblem) -> Array:
    """Return the rows after which no other segment starts."""
    starts = problem.starts
    return namespace(starts).cumsum(starts[::-1], axis=0)[::-1] - starts == 0  # type: ignore[no-any-return]


def _together(bits: dict[int, Array]) -> Array:
    """Return which bits hold, as numbers."""
    return sum(bit * holds.astype(np.int32) for bit, holds in bits.items())  # type: ignore[return-value]


def leading_before(lengths: Sequence[int], flags: Array) -> list[Array]:
    """Return for every rank in which sequences all is exact that comes before it; ranks without steps change nothing.

    Parameters
    ----------
    lengths : sequence of int
    flags : array of int32, shape (ranks, *batch)
        In the order of steps.
    """
    found = [namespace(flags).ones_like(flags[0], dtype=bool)]
    for length, said in zip(lengths, flags, strict=True):
        passes = (said & TAIL > 0) | ((said & PASSES > 0) & found[-1])
        found.append(passes if length else found[-1])
    return found


def all_blocked(lengths: Sequence[int], flags: Array) -> bool:
    """Return whether all segments have converged, or have up to a row whose own F is not finite."""
    xp = namespace(flags)
    excused, open_ = (xp.zeros_like(flags[0], dtype=bool) for _ in range(2))
    for length, said in zip(lengths, flags, strict=True):
        if length:
            holds = {bit: said & bit > 0 for bit in (OPEN, OPEN_AFTER, STUCK, STUCK_AFTER, RESETS)}
            open_ = open_ | holds[OPEN_AFTER] | (holds[OPEN] & ~excused)
            excused = xp.where(holds[RESETS], holds[STUCK_AFTER], excused | holds[STUCK])
    return not bool(open_.any())
