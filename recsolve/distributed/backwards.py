"""The way back through steps that ranks share: what comes into the own ones from later ranks, then their adjoint."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from recsolve.base.arrays import Array, kind_of, namespace
from recsolve.base.shard import Timeline
from recsolve.distributed.begun import Begun
from recsolve.distributed.carries import over_ranks
from recsolve.distributed.elements import Elements
from recsolve.distributed.messages import constant, sums_of
from recsolve.distributed.own_steps import OwnSteps
from recsolve.gradients.result import Gradients, initial_of
from recsolve.gradients.solved import cotangent_of, with_last
from recsolve.kernels.gpu.ranks import agreed, alike
from recsolve.kernels.monoids import MONOIDS
from recsolve.mixings import couples, plain_of
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.cell import Cell
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.fused_engine import FusedEngine

# Steps that what comes in is carried through: at least, which shares of all, and at most at first; and after how many
# calls for which they sufficed fewer are tried.
_FEWEST, _SHARES, _MOST, _A_WHILE = 256, (64, 16, 4), 2048, 64
_KINDS = 64  # of cells, by what a rank holds of them


class Enough:
    """How many of the last steps what comes in is carried through: few, and more once they have not sufficed.

    Where no share of them suffices, carrying through more is no help, and it begins with the fewest again.

    Parameters
    ----------
    length : int
        All own steps.

    Attributes
    ----------
    steps : list of int
        What is tried, in turn.
    """

    _KNOWN: ClassVar[WeakKeyDictionary[Cell, dict[tuple[int, ...], Enough]]] = WeakKeyDictionary()

    def __init__(self, length: int):
        tried = min(length // _SHARES[0], _MOST), *(length // share for share in _SHARES)
        self.steps = sorted({max(count, _FEWEST) for count in tried})
        self._at = self._sufficed = 0

    @classmethod
    def of(cls, rec: CellRecurrence) -> Enough:
        """Return that of a cell, and of recurrences of such a shape."""
        kinds = cls._KNOWN.setdefault(rec.cell.cell, {})
        if rec.shape not in kinds:
            if len(kinds) >= _KINDS:
                kinds.clear()
            kinds[rec.shape] = cls(rec.length)
        return kinds[rec.shape]

    @property
    def count(self) -> int:
        """How many it is next."""
        return self.steps[self._at]

    def told(self, sufficed: bool) -> None:
        """Take note of whether they sufficed."""
        self._sufficed = self._sufficed + 1 if sufficed else 0
        if not sufficed:
            self._at = (self._at + 1) % len(self.steps)
        elif self._sufficed >= _A_WHILE and self._at:
            self._at, self._sufficed = self._at - 1, 0


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
    own : callable
        Returns the own steps of the recurrence of a cell whose time axis ranks share.
    begun : Begun, optional
        What a device has been asked for already.
    """

    def __init__(
        self,
        rec: Recurrence,
        trajectory: Array,
        given: tuple[Array | None, Array | None, Array | None],
        axis: Timeline,
        own: Callable[[], OwnSteps],
        begun: Begun | None = None,
    ):
        self.rec, self.trajectory, self.axis, self.own, self.begun = rec, trajectory, axis, own, begun
        self.engine = rec.bind()
        self._enough: Enough | None = None  # how many of the last steps something has been carried through
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
            if self.suffices(self.axis.ranks.total_if([agrees], ())[0]):
                return local
        return self.surely()

    def suffices(self, holds: list[bool]) -> bool:
        """Return whether it holds on all ranks that the last steps forget what came in, and take note of the own."""
        if self._enough is not None:
            self._enough.told(holds[self.axis.ranks.rank])
        return all(holds)

    def surely(self) -> Gradients:
        """Return the same where nothing is guessed that is not looked at."""
        if self.begun is not None:
            self.begun.drop()
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

        Each rank takes all of its steps as if nothing came back into them, and tells what it hands on. What comes back
        in truth is then carried through its last steps, and added, for gradients are linear in it. What is left of it
        has to be less than rounding of the adjoint variable of the step before these: then all steps before, which hand
        on both alike, miss no more than that. Variables of earlier steps would prove nothing of what grows until there.
        All ranks have to be told. None, on all ranks, where there are no such loops.
        """
        rec, axis = self.rec, self.axis
        if type(rec) is not CellRecurrence or rec.reset is not None or min(axis.ordered) < 2 * _FEWEST:
            return None
        if any(map(couples, map(plain_of, rec.cell.mixings.values()))):
            return None
        with np.errstate(all="ignore"):
            found, end = self._of_nothing()
            # Kernels can always be had: then nobody looks at this message before all is asked for.
            quick = found is not None and kind_of(rec.initial) == "cupy"
            sent = axis.ranks.begin([found is not None], [end, *self.final], more=quick)
            self._take_final(sums_of(sent.arrays[1:]) if axis.ends else [])
            if found is None or not (quick or sent.numbers().all()):
                return None
            after = axis.in_order(list(range(axis.size)))[axis.place + 1 :]
            incoming = sent.arrays[0][after[0]] if after else self.last
            return found, self._carried(rec, found, incoming)

    def _of_nothing(self) -> tuple[Gradients | None, Array]:
        """Return the gradients as if nothing came back, if loops compute all of them, and what is handed on."""
        rec, end = self.rec, constant(self.rec.initial, self.rec.initial.shape, self.rec.dtype, 0)
        found = None if self.begun is None else self.begun.taken(self.engine, self.trajectory, self.cotangent)
        if found is None and isinstance(self.engine, FusedEngine):
            found = self.engine.adjoint(self.trajectory, self.cotangent)
        if found is None:
            return None, end
        local = Gradients(rec, self.trajectory, self.cotangent, self.direct, engine=self.engine, found=found)
        return local, local._initial if self.axis.place else end

    def _carried(self, rec: CellRecurrence, found: Gradients, incoming: Array | None) -> Array:
        """Carry what comes back through the last steps, and return whether these forget it."""
        trajectory = self.trajectory
        if incoming is None:
            return constant(rec.initial, (), np.dtype(bool), 1)
        self._enough = Enough.of(rec)
        start = rec.length - self._enough.count
        engine = self.own().engine(self.engine, start, rec.length, trajectory[start - 1])
        nothing = namespace(incoming).broadcast_to(constant(incoming, (), rec.dtype, 0), engine.recurrence.shape)
        more = engine.adjoint(trajectory[start:], nothing, incoming)
        if more is None:
            return constant(rec.initial, (), np.dtype(bool), 0)
        found.add_to_last(more)
        return _is_little(initial_of(rec, more[-1], rec.dtype), found._g[start - 1])


def _is_little(left: Array, before: Array) -> Array:
    """Return whether what is left of a cotangent is less than rounding of the adjoint variable that it adds to."""
    eps, xp = float(np.finfo(left.dtype).eps), namespace(left)
    nothing = constant(left, left.shape, left.dtype, 0)
    if kind_of(left) == "cupy" and alike(left, nothing, before):
        return agreed(left, nothing, before, eps)
    size = xp.where(abs(before) < np.inf, abs(before), left.dtype.type(0))  # what is not finite excuses nothing
    return xp.asarray(((abs(left) <= left.dtype.type(eps) * size) | (left == 0)).all())  # type: ignore[no-any-return]
