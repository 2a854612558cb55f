"""Time in blocks of m steps: paths that follow f inside blocks, and the equation that the ends of blocks obey."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Generic, TypeAlias

import numpy as np

from recsolve.base.arrays import Array, freeze, is_discrete, namespace
from recsolve.jacobians import Jacobian
from recsolve.recurrence.base import Recurrence
from recsolve.solvers.guarded import I
from recsolve.solvers.method import Solver
from recsolve.solvers.problem import Problem
from recsolve.solvers.settings import whole_number
from recsolve.solvers.state import PerRow, State

Map: TypeAlias = Callable[[Recurrence, Array], Array]


def steps_per_block(block: int | None, length: int, levels: int = 2) -> int:
    """Return m, the steps of a block: the given number, or about T^(1/levels); at most T."""
    return max(min(block or round(length ** (1 / levels)), length), 1)


def block_ends(length: int, m: int) -> slice:
    """Return the last row of every block, counted from the end, so that rows set aside at the start shift none."""
    return slice((length - 1) % m, length, m)


def sweep(problem: Problem, states: Array, m: int, keep: int) -> Array:
    """Return the trajectory with rows keep, keep + m, ... of ``states`` and f followed from them, a block each."""
    if m == 1:
        return states
    problem.counts["nfev"] += 1  # at every t once, although in m - 1 calls
    return Level(problem, problem.recurrence, one_step).follow(states, m, keep)


def one_step(recurrence: Recurrence, previous: Array) -> Array:
    """Return f(previous, u): on a coarse level one step, with the last drive of a block, replaces the block."""
    return recurrence.bind().apply(previous)


@dataclass(frozen=True)
class Level:
    """x[n] = phi(x[n-1]).

    Parameters
    ----------
    problem : Problem
        Whose book counts the rows.
    recurrence : Recurrence
        The steps of this level.
    phi : callable
        ``phi(recurrence, previous)`` at some of the steps.
    """

    problem: Problem
    recurrence: Recurrence
    phi: Map

    def follow(self, states: Array, m: int, keep: int) -> Array:
        """Return the path with rows keep, keep + m, ... of ``states``, all others following from the row before.

        Blocks go side by side, one row of each at a time.
        """
        path, length = self._from_initial(states), self.recurrence.length
        for row in range(keep + 1, keep + m):
            rows = slice(row % m, length, m)
            if rows.start < length:
                path[1:][rows] = self._after(path[:-1], rows)
        return path[1:]

    def at(self, states: Array, rows: slice) -> Array:
        """Return the right-hand side at some rows."""
        return self._after(self._from_initial(states)[:-1], rows)

    def coarsen(self, phi: Map, m: int, states: Array, goal: Array) -> CoarseLevel:
        """Return the equation of the ends of blocks, given the states on this level and where it takes the ends."""
        rec, rows = self.recurrence, block_ends(self.recurrence.length, m)
        coarse = _steps(rec, rows)
        if rec.reset is not None:  # anywhere in a block: its end no longer depends on the block before
            missing = namespace(rec.reset).zeros((m - 1 - rows.start, *rec.batch), bool)
            whole = namespace(rec.reset).concatenate([missing, rec.reset])
            coarse.reset = whole.reshape(coarse.length, m, *rec.batch).any(axis=1)
        return CoarseLevel(self.problem, coarse, phi, states[rows], goal)

    def _from_initial(self, states: Array) -> Array:
        """Return the states with the initial one before them."""
        xp, rec = namespace(states), self.recurrence
        return xp.concatenate([xp.broadcast_to(rec.initial, rec.shape[1:])[None], states])  # type: ignore[no-any-return]

    def _after(self, before: Array, rows: slice) -> Array:
        """Return the right-hand side at some rows, given the states before all rows."""
        rec, xp = self.recurrence, namespace(before)
        previous = before[rows]
        if rec.reset is not None:
            previous = xp.where(rec.over_event(rec.reset[rows]), rec.restart, previous)
        after = self._apply(_steps(rec, rows), xp.ascontiguousarray(previous))
        return self._corrected(previous, after, rows)

    def _corrected(self, previous: Array, after: Array, rows: slice) -> Array:
        """Return the right-hand side at some rows, given the states before them and phi of these."""
        return after

    def _apply(self, recurrence: Recurrence, previous: Array) -> Array:
        self.problem.counts["rows"] += prod(previous.shape[: 1 + len(recurrence.batch)])
        with np.errstate(all="ignore"):
            after = self.phi(recurrence, freeze(previous))
        seen, wanted = (f"shape {np.shape(x)}, {getattr(x, 'dtype', type(x))}" for x in (after, previous))
        if seen != wanted:
            raise ValueError(f"coarse returned {seen}; wanted {wanted} as it was given")
        return after


@dataclass(frozen=True)
class CoarseLevel(Level):
    """x[n] = goal[n] + phi(x[n-1]) - phi(known[n-1]).

    With goal[n] = F(known[n-1]) that is the FAS equation V[n] = phi(V[n-1]) + (F(U[n-1]) - phi(U[n-1])), in a form that
    gives the goal itself where x[n-1] is known[n-1]: bit for bit, and whatever phi is there. Discrete states have no
    differences: where phi takes x[n-1] and known[n-1] to one value the goal stands, elsewhere phi(x[n-1]) does.

    Parameters
    ----------
    known, goal : array, shape (blocks, *batch, *event)
        The path that comes from the finer level, and where that level takes it.
    """

    known: Array
    goal: Array

    @cached_property
    def _known_before(self) -> Array:
        return self.recurrence.previous(self.known)

    @cached_property
    def _known_after(self) -> Array:
        return self._apply(self.recurrence, self._known_before)

    def in_order(self) -> Array:
        """Return the solution, one row after the other."""
        length = self.recurrence.length
        return self.follow(self.known, length + 1, length)

    def _corrected(self, previous: Array, after: Array, rows: slice) -> Array:
        xp, goal = namespace(previous), self.goal[rows]
        moved = (previous != self._known_before[rows]).any(axis=self.problem.event_axes, keepdims=True)
        if is_discrete(goal.dtype):
            return xp.where(after == self._known_after[rows], goal, after)  # type: ignore[no-any-return]
        with np.errstate(all="ignore"):
            corrected = goal + (after - self._known_after[rows])
        return xp.where(moved & xp.isfinite(corrected), corrected, goal)  # type: ignore[no-any-return]


def _steps(recurrence: Recurrence, rows: slice) -> Recurrence:
    """Return the recurrence of some steps."""
    part = recurrence._cut(rows, recurrence.wrap(recurrence.initial))
    part.restart, part.ties = recurrence.restart, recurrence.ties
    return part


@dataclass(frozen=True)
class Blocks(State):
    """The steps of a block, and what is kept of the first path once it has been followed."""

    steps: int
    followed: bool = False
    coarse: PerRow[Jacobian | None] = None


@dataclass(frozen=True, kw_only=True)
class BlockSolver(Solver[I, Blocks], Generic[I]):
    """Corrects the ends of blocks, and lets the rows inside follow f from them: the residual is that of the ends.

    Parameters
    ----------
    block : int or None
        m, how many steps a block has; None: about sqrt(T).
    """

    group = "in blocks"
    finite_termination = True
    graphs = False

    block: int | None = None

    def __post_init__(self) -> None:
        whole_number("block", self.block, 1, optional=True)

    @abstractmethod
    def correct(self, problem: Problem, iterate: I, m: int, coarse: Jacobian | None) -> Array:
        """Return a trajectory whose rows at the ends of blocks are corrected; the others do not matter."""

    def remember(self, problem: Problem, iterate: I) -> Jacobian | None:
        """Return the affine coarse map that the first path gives, where there is one."""
        return None

    def relax(self, problem: Problem, iterate: I, m: int) -> I:
        """Return the iterate to correct, moved on by relaxation where a method wants that."""
        return iterate

    def init(self, problem: Problem, iterate: I) -> Blocks:
        return Blocks(steps_per_block(self.block, problem.recurrence.length))

    def step(self, problem: Problem, iterate: I, state: Blocks) -> tuple[I, Blocks]:
        m = state.steps
        keep = block_ends(problem.recurrence.length, m).start
        # 1. the first iterate may be any trajectory: follow f inside its blocks
        if not state.followed:
            if m > 1:
                iterate = problem.advance(iterate, sweep(problem, iterate.states, m, keep))
            state = Blocks(m, followed=True, coarse=self.remember(problem, iterate))
        iterate = self.relax(problem, iterate, m)
        # 2. correct the ends; one that is not finite is where f takes its block
        ends = self.correct(problem, iterate, m, state.coarse)
        xp = namespace(ends)
        ends = xp.where(xp.isfinite(ends), ends, iterate.values)
        # 3. follow f from them
        return problem.advance(iterate, sweep(problem, ends, m, keep)), state
