"""Multiple shooting over ranks: each solves its steps from a state that it is told, until all follow from each other.

Where every rank forgets what comes in within its last steps, these say what comes out, and all ranks solve at once.
What comes out in truth is then compared: where it is the same, or the first step of the next rank meets its test with
it, the solution stands. A rank whose first step misses it solves again, from where it stands. So after k rounds the
first k ranks are right, as Newton's iterates are after k steps; two rounds are usual.

Chartier and Philippe, "A parallel shooting technique for solving dissipative ODE's" (1993).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from recsolve.base.arrays import Array, same_bits
from recsolve.distributed.task import Facts, Outcome, Task
from recsolve.solution import Solution


def before_each(task: Task, ends: Iterable[Array]) -> list[Array]:
    """Return the state before the steps of each rank, and that after all; ranks that hold no steps change none."""
    found = [task.recurrence.initial]
    for length, end in zip(task.timeline.ordered, ends, strict=True):
        found.append(end if length else found[-1])
    return found


def end_of(task: Task, solution: Solution | None) -> Array:
    """Return what comes out of the own steps: what comes in, where there are none."""
    if solution is None:
        return task.recurrence.initial
    states = solution._iterate.states
    return states[-1] if len(states) else solution.recurrence.initial


def solve_in_rounds(task: Task, starts: list[Array]) -> Outcome:
    """Return the outcome, given the state that each rank is told to start from."""
    axis = task.timeline
    solution = task.solved(starts[axis.place], guess=task.own_guess())
    while True:
        sent = axis.ranks.exchange(Facts.of(solution).as_numbers(), [end_of(task, solution)])
        facts = [Facts.from_numbers(numbers) for numbers in axis.in_order(sent.numbers())]
        truth = before_each(task, axis.in_order(sent.arrays[0]))
        if all(same_bits(x, y) for x, y in zip(starts[:-1], truth[:-1], strict=True)):
            return Outcome(solution, facts, truth[-1])
        with np.errstate(all="ignore"):
            joined = task.joined(solution, truth[axis.place])
        if joined is None:
            joined = task.solved(truth[axis.place], guess=task.recurrence.wrap(solution._iterate.states))
        solution, starts = joined, truth
