"""Solves in which each rank waits for what comes out of the one before it, as the loop does.

Several sequences do not wait for each other: in chunks of them, a rank solves the next chunk while the rank after it
solves the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any

import numpy as np

from recsolve import solvers
from recsolve.analysis.rounding_at import rounding_at
from recsolve.base.arrays import Array, kind_of, namespace
from recsolve.base.status import MISMATCH, Status
from recsolve.distributed.rounds import end_of
from recsolve.distributed.task import Facts, Outcome, Task
from recsolve.guess import first_iterate
from recsolve.solution import Solution
from recsolve.solve import where_nonfinite
from recsolve.solvers.active import parted
from recsolve.solvers.evaluation import Settled
from recsolve.solvers.problem import Problem

_PER_RANK = 4  # chunks, at most, so that few ranks wait at the beginning and the end
_FILLS = {"numpy": 1 << 12, "cupy": 1 << 18}  # numbers of a state with fewer of which a step takes hardly less time
_ROWS = 16  # sequences which share the weights that a step reads, where units couple


@dataclass(frozen=True)
class _Chunk:
    """Some sequences of the own steps.

    Attributes
    ----------
    place : tuple of array of int
        An index of the batch.
    task : Task
        Of these sequences, with what is guessed of them.
    """

    place: tuple[Array, ...]
    task: Task

    @property
    def rows(self) -> Any:
        """An index of the axes (T, *batch)."""
        return (slice(None), *self.place)


def solve_in_turn(task: Task, fallback: str, known: Solution | None = None) -> Outcome:
    """Return the outcome where each rank solves its steps from what the one before it has found.

    Parameters
    ----------
    task : Task
    fallback : str
        Of :func:`recsolve.solve`.
    known : Solution, optional
        Of the own steps, from whose states to go on.
    """
    guess = task.own_guess() if known is None else task.recurrence.wrap(known._iterate.states)
    chunks = _chunks(replace(task, guess=guess))
    if chunks:
        return _solve_in_chunks(task, fallback, chunks)
    axis, solution, start = task.timeline, None, task.recurrence.initial
    facts: list[Facts] = []
    for place in range(axis.size):
        if place == axis.place:
            solution = task.solved(start, guess=guess, fallback=fallback)
        numbers = [0.0] * len(Facts._fields) if solution is None else Facts.of(solution).as_numbers()
        sent = axis.ranks.exchange(numbers, [end_of(task, solution)])
        facts = [Facts.from_numbers(row) for row in axis.in_order(sent.numbers())]
        start = axis.in_order(sent.arrays[0])[place]
    assert solution is not None
    return Outcome(solution, facts, start)


def _solve_in_chunks(task: Task, fallback: str, chunks: list[_Chunk]) -> Outcome:
    """Return the same where rank r solves chunk c of the sequences while the rank after it solves chunk c - 1."""
    axis, initial = task.timeline, task.recurrence.initial
    first, final = initial.copy(), initial.copy()  # the states before the own steps, and after all
    most = max(len(chunk.place[0]) for chunk in chunks)
    sent = namespace(initial).zeros((most, *task.recurrence.layout.event), initial.dtype)
    solved: list[Solution] = []
    for tick in range(axis.size + len(chunks) - 1):
        if 0 <= tick - axis.place < len(chunks):
            chunk = chunks[tick - axis.place]
            solved.append(chunk.task.solved(first[chunk.place], guess=chunk.task.guess, fallback=fallback))
            sent[: len(chunk.place[0])] = end_of(chunk.task, solved[-1])
        ends = axis.in_order(axis.ranks.exchange((), [sent]).arrays[0])
        for place, states in ((axis.place - 1, first), (axis.size - 1, final)):
            if place >= 0 and 0 <= tick - place < len(chunks):
                chunk = chunks[tick - place]
                states[chunk.place] = ends[place, : len(chunk.place[0])]
    solution = _together(task, first, chunks, solved)
    told = axis.in_order(axis.ranks.exchange(Facts.of(solution).as_numbers()).numbers())
    return Outcome(solution, [Facts.from_numbers(numbers) for numbers in told], final)


def _together(task: Task, first: Array, chunks: Sequence[_Chunk], solved: Sequence[Solution]) -> Solution:
    """Return the solution of all sequences, of those of the chunks."""
    problem = Problem(task.part(first), task.tolerance(), pin=True, jacobian=False, rounding=rounding_at)
    states = problem.recurrence.empty()
    for chunk, part in zip(chunks, solved, strict=True):
        states[chunk.rows] = part._iterate.states
    settled = [part._iterate for part in solved if isinstance(part._iterate, Settled)]
    iterate: Any
    if len(settled) == len(solved):
        sizes = [part.largest for part in settled if part.largest is not None]
        largest = max(sizes) if len(sizes) == len(settled) else None
        iterate = Settled(problem, states, max(part.worst for part in settled), largest)
    else:
        with np.errstate(all="ignore"):
            iterate = problem.excused(problem.evaluate(states))
    missed = next((part for part in solved if not part.success), solved[0])
    status, remark = missed.status, missed._remark
    if status is Status.NONFINITE:
        remark = where_nonfinite(problem.recurrence, iterate)
    elif missed.success and not bool(iterate.converged.all()):  # f rounds otherwise, by more than is excused
        status, remark = Status.STALLED, MISMATCH.format(worst=iterate.worst)
    rows = [part.stats["completed_from"] for part in solved if part.stats["completed_from"] is not None]
    stats: dict[str, Any] = {}
    for name in {name: None for part in solved for name in part.stats if name != "completed_from"}:
        every = [part.stats.get(name, 0) for part in solved]  # rows and seconds add up, others count all steps once
        stats[name] = sum(every) if name in ("rows", "seconds", "compile_seconds") else max(every)
    return Solution(
        problem.recurrence, missed.solver, iterate, status, [iterate.worst], max(part.nit for part in solved),
        {**stats, "completed_from": min(rows, default=None)}, remark, missed._asked,
    )  # fmt: skip


# Which sequences are solved together --------------------------------------------------------------------------------


def _chunks(task: Task) -> list[_Chunk]:
    """Return the sequences in chunks, the same on all ranks; none where they are better solved all together."""
    axis, rec = task.timeline, task.recurrence
    fills = _FILLS["cupy" if kind_of(rec.initial) == "cupy" else "numpy"]
    sequences = prod(rec.batch) // (_ROWS if rec.rounding > 0 else 1)
    count = min(sequences, _PER_RANK * axis.size, prod(rec.shape[1:]) // fills)
    if axis.size < 2 or count < 2:
        return []
    chosen = np.array_split(np.arange(prod(rec.batch)), count)
    found = None if any(map(callable, (task.guess, *_settings(task.solver)))) else _parts(task, chosen)
    able = axis.ranks.exchange([found is not None]).numbers().all()
    return found if able and found is not None else []


def _settings(method: solvers.Method) -> Iterator[Any]:
    """Yield the settings of a method and of those inside: what is called may want all sequences."""
    yield from (getattr(method, field.name) for field in fields(method))
    for inside in method.inside():
        yield from _settings(inside)


def _parts(task: Task, chosen: Sequence[Array]) -> list[_Chunk] | None:
    """Return the chunks, or None where the drive does not show what belongs to which sequence."""
    rec, guess, compared, found = task.recurrence, task.guess, None, []
    if not (guess is None or isinstance(guess, str) or np.isscalar(guess)):
        guess = first_iterate(guess, rec)
    for some in chosen:
        part, place = rec.sequences(some), np.unravel_index(some, rec.batch)
        if part is None:
            return None
        rows: Any = (slice(None), *place)
        if rec.opaque and rec.length:
            if compared is None:
                states = rec.bind().guess()
                compared = states, rec.bind().evaluate(states)
            if not parted(part, compared[0][rows], compared[1][rows], rec.state_scale):
                return None
        part.take_scale(rec.state_scale)
        part.timeline = rec.timeline
        own = part.wrap(guess[rows]) if hasattr(guess, "shape") and not np.isscalar(guess) else guess
        found.append(_Chunk(place, replace(task, recurrence=part, guess=own)))
    return found
