"""The way back through steps that ranks share: what comes into the own ones from later ranks, then their adjoint."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from weakref import WeakSet

import numpy as np

from recsolve.base.arrays import Array, kind_of, namespace
from recsolve.base.shard import Timeline
from recsolve.distributed.carries import over_ranks
from recsolve.distributed.elements import Elements
from recsolve.distributed.exchange import sums_of
from recsolve.distributed.messages import constant
from recsolve.gradients.result import Gradients, initial_of
from recsolve.gradients.solved import cotangent_of, with_last
from recsolve.kernels.gpu.ranks import agreed, alike, largest, taken
from recsolve.kernels.monoids import MONOIDS
from recsolve.mixings import couples, plain_of
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.cell import Cell
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.fused_engine import FusedEngine

# Steps that say what all hand on: at least, which share of them, and at most until that has not sufficed for a cell.
_FEWEST, _SHARE, _MOST = 256, 64, 2048
_REMEMBERING: WeakSet[Cell] = WeakSet()
_UNITS = 128  # rounding units of the largest of them by which what was said may miss what came out


class _Elements(Elements):
    """The steps of a rank as they act on a cotangent that comes back, from the last one to the first."""

    def __init__(self, rec: Recurrence, states: Array, cotangent: Array, timeline: Timeline):
        cut = None if rec.reset is None else rec.over_event(rec.reset)[::-1]
        super().__init__(
            MONOIDS["affine"], None, namespace(rec.initial).zeros_like(rec.initial), cut, timeline.reversed()
        )
        self._rec, self._states, self._cotangent = rec, states, cotangent

    def _of(self, count: int) -> Any:
        """Return the elements of the first steps in time."""
        rec = self._rec.window(0, count)
        J, c = rec.linearise(self._states[:count])[1], self._cotangent[:count]
        b = J.rmatvec(c)
        if self._rec.reset is not None:  # what a reset does not see gets nothing
            b = namespace(b).where(self._rec.over_event(self._rec.reset[:count]), b.dtype.type(0), b)
        return J.transpose()[::-1], b[::-1]

    @cached_property
    def elements(self) -> Any:
        return self._of(self._rec.length)

    @cached_property
    def few(self) -> Any:
        return self._of(min(self._rec.length, 1))

    def last(self, count: int) -> tuple[Any, Array | None]:
        return self._of(count), None if self.reset is None else self.reset[self._rec.length - count :]


class WayBack:
    """The own steps, and the cotangents of their states.

    Parameters
    ----------
    rec : Recurrence
    trajectory : array, shape (own steps, *batch, *event)
    given : tuple
        Native cotangents of the own states, of the output, and what this rank adds to that of the last state of all;
        or None.
    axis : Timeline
    """

    def __init__(
        self,
        rec: Recurrence,
        trajectory: Array,
        given: tuple[Array | None, Array | None, Array | None],
        axis: Timeline,
    ):
        self.rec, self.trajectory, self.axis = rec, trajectory, axis
        self.engine = rec.bind()
        self.hurried = False  # whether gradients have been returned that rest on what the first steps of ranks say
        with np.errstate(all="ignore"):
            self.cotangent, self.direct = cotangent_of(rec, trajectory, *given[:2])
        self.final = [] if given[2] is None else [given[2]]  # which ranks have not summed yet
        self.last: Array | None = None  # their sum, where the last state is
        self.follows = axis.length > 0 and axis.stop < axis.total  # whether something comes in

    def gradients(self) -> Gradients:
        """Return the gradients of the own steps."""
        found = self.ahead()
        if found is not None:
            local, agrees = found
            if self.axis.ranks.total_if([agrees], ())[0]:
                return local
        return self.surely()

    def surely(self) -> Gradients:
        """Return the same where nothing is guessed that is not looked at."""
        if self.hurried:
            _REMEMBERING.add(_cell_of(self.rec))
        if self.final:
            self._take_final(self.axis.ranks.total(self.final))
        with np.errstate(all="ignore"):
            elements = _Elements(self.rec, self.trajectory, with_last(self.cotangent, self.last), self.axis)
            return over_ranks(elements, self._run, lambda found, _: found._initial)

    def _take_final(self, sums: list[Array]) -> None:
        """Take the sum over ranks of what they add to the cotangent of the last state, if they do."""
        self.final, self.last = [], sums[0] if sums and self.axis.ends else None

    def _run(self, carry: Array) -> Gradients:
        incoming = carry if self.follows else self.last
        return Gradients(self.rec, self.trajectory, self.cotangent, self.direct, incoming=incoming, engine=self.engine)

    def ahead(self) -> tuple[Gradients, Array] | None:
        """Return the same where compiled loops compute all of it and ranks forget, and whether that is right.

        The first steps of each rank, with nothing that comes back into them, say what it hands to the rank before it.
        What it hands on in truth is compared with that, and all ranks have to be told. None, on all ranks, where there
        are no such loops.
        """
        rec, axis = self.rec, self.axis
        if type(rec) is not CellRecurrence or rec.reset is not None or min(axis.ordered) < 2 * _FEWEST:
            return None
        if any(map(couples, map(plain_of, rec.cell.mixings.values()))):
            return None
        with np.errstate(all="ignore"):
            able, said, probed = self._said()
            sent = axis.ranks.begin([able], [said, *self.final])
            self._take_final(sums_of(sent.arrays[1:]) if axis.ends else [])
            after = axis.in_order(list(range(axis.size)))[axis.place + 1 :]
            carry = sent.arrays[0][after[0]] if after else said
            # On a device it is asked for before anybody has looked at the message.
            found = self._run(carry) if able else None
            if not sent.numbers().all():
                return None
            assert found is not None
            self.hurried = True
            return found, self._agrees(found._initial, said, probed)

    def _agrees(self, end: Array, said: Array, probed: Array) -> Array:
        """Return whether what is handed on is what was said, if any rank looks at it.

        It may miss by rounding of the largest adjoint variables of the very first steps, which are the smaller measure.
        """
        if not self.axis.place:
            return constant(said, (), np.dtype(bool), 1)
        by, first = _UNITS * float(np.finfo(said.dtype).eps), probed[:_FEWEST]
        if kind_of(said) == "cupy" and alike(end, said) and taken(first, said):
            return agreed(end, said, largest(first), by)
        size = abs(first).max(axis=0)
        size = namespace(said).where(size < np.inf, size, said.dtype.type(0))  # what is not finite excuses nothing
        near = (abs(end - said) <= said.dtype.type(by) * size) | (end == said) | ((end != end) & (said != said))
        return namespace(said).asarray(near.all())  # type: ignore[no-any-return]

    def _said(self) -> tuple[bool, Array, Array]:
        """Return whether loops compute all gradients, what the first steps hand on, and their adjoint variables."""
        rec, engine, few = self.rec, self.engine, self.rec.length // _SHARE
        if _cell_of(rec) not in _REMEMBERING:
            few = min(few, _MOST)
        steps = slice(0, max(few, _FEWEST) if self.axis.place else 1)
        zeros = constant(rec.initial, rec.initial.shape, rec.dtype, 0)
        if not isinstance(engine, FusedEngine):
            return False, zeros, zeros
        if not self.axis.place and engine.backend == "cuda":  # nobody is handed anything, and kernels can be had
            return True, zeros, zeros
        probed = engine.adjoint(self.trajectory[steps], self.cotangent[steps])
        if probed is None:
            return False, zeros, zeros
        return True, initial_of(rec, probed[-1], rec.dtype), probed[0]


def _cell_of(rec: Recurrence) -> Cell:
    assert isinstance(rec, CellRecurrence)
    return rec.cell.cell
