"""The own steps of a rank as a recurrence of their own, and parts of it, which are kept from call to call."""

from __future__ import annotations

from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from recsolve.base.arrays import Array
from recsolve.base.overriding import patched
from recsolve.base.tolerance import Tolerance
from recsolve.kernels.gpu.iterate import Iterations
from recsolve.kernels.held import identical
from recsolve.kernels.residual import iterations
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.binding import parts_as
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.engine import CompiledEngine, Engine
from recsolve.recurrence.fused_engine import FusedEngine
from recsolve.solvers.problem import Problem

_KEPT = 16  # parts of a recurrence


class OwnSteps:
    """The own steps of a recurrence.

    They keep what kernels know of their arrays; parts of them start from no state in particular.

    Parameters
    ----------
    rec : Recurrence
        Of which other ranks hold the rest.

    Attributes
    ----------
    whole : Recurrence
        The own steps, from the first state of all.
    """

    _KNOWN: ClassVar[WeakKeyDictionary[Recurrence, OwnSteps]] = WeakKeyDictionary()

    def __init__(self, rec: Recurrence):
        self.whole = rec.window(0, rec.length)
        self._taken = _taken(rec)
        self._parts: dict[tuple[int, int], CellRecurrence] = {}
        self._tests: dict[tuple[int, int], Problem] = {}
        self._iterations: Iterations | None = None

    @classmethod
    def of(cls, rec: Recurrence) -> OwnSteps:
        """Return those of a recurrence, as it is now."""
        found = cls._KNOWN.get(rec)
        if found is None or not found._fit(rec):
            found = cls._KNOWN[rec] = cls(rec)
        return found

    def _fit(self, rec: Recurrence) -> bool:
        """Return whether nothing has been put in the place of what they have taken over."""
        same = identical(_taken(rec), self._taken)
        return same and rec.ties == self.whole.ties and not patched(rec)

    def holds(self, rec: Recurrence) -> bool:
        """Return whether these are the steps of a recurrence that was made of them."""
        whole = self.whole
        assert isinstance(whole, CellRecurrence)
        assert isinstance(rec, CellRecurrence)
        same = whole.cell is rec.cell and whole.reset is rec.reset and whole.drive.keys() == rec.drive.keys()
        return same and identical([*whole.drive.values()], [*rec.drive.values()])

    def part(self, start: int, stop: int, before: Array | None = None) -> CellRecurrence:
        """Return some of the steps, given the native state before them, or from no state in particular.

        Resets inside go back to where those of the whole go.
        """
        key = start, stop
        if key not in self._parts:
            if len(self._parts) >= _KEPT:
                self._parts.clear()
                self._tests.clear()
            found = self.whole if key == (0, self.whole.length) else self.whole.window(*key)
            assert isinstance(found, CellRecurrence)
            self._parts[key] = found
        part = self._parts[key]
        return part if before is None or before is part.initial else part.starting(before)

    def iterations(self) -> Iterations | None:
        """Return what tests all own steps on a device, kept where there are no resets, which may be written to."""
        whole = self.whole
        if self._iterations is None or whole.reset is not None:
            self._iterations = iterations(whole.starts, whole.layout, whole.dtype)
        return self._iterations

    def engine(self, like: Engine, start: int, stop: int, before: Array | None = None) -> Engine:
        """Return the engine of some of the steps, as that of all is; ``before`` as of :meth:`part`."""
        part = self.part(start, stop, before)
        if isinstance(like, CompiledEngine) and not like.small:
            return type(like)(part, like.traced, like.backend)
        with parts_as(like):
            return part.bind()

    def tested(self, like: Engine, states: Array, start: int, stop: int, tolerance: Tolerance) -> tuple[Array, Array]:
        """Return which of the steps after ``start`` meet the tolerance, and max |r| of each, of states of all steps."""
        problem, engine = self._tests.get((start, stop)), self.engine(like, start, stop)
        if problem is None or not _is_of(problem, engine, tolerance):
            problem = Problem(engine.recurrence, tolerance, pin=True, jacobian=False, engine=engine)
            self._tests[start, stop] = problem
        _, met, near = problem.tested(states[start:stop])
        return met[1:], near.reshape(met.shape)[1:]


def _taken(rec: Recurrence) -> list[Any]:
    """Return what own steps take over from a recurrence, but for its ties, which they copy."""
    assert isinstance(rec, CellRecurrence)
    return [rec.cell, rec.x, rec.readout, rec.initial, rec.restart, rec.reset, *rec.drive.values()]


def same_engine(kept: Engine, engine: Engine) -> bool:
    """Return whether two engines compute the same function of the very same arrays by the same kernels."""
    if not (isinstance(kept, FusedEngine) and isinstance(engine, FusedEngine)):
        return False
    same = kept.traced is engine.traced and kept.backend == engine.backend and kept.inputs is engine.inputs
    return same and kept.starts is engine.starts


def _is_of(problem: Problem, engine: Engine, tolerance: Tolerance) -> bool:
    """Return whether a problem is what one of this engine would be."""
    return same_engine(problem.engine, engine) and problem.tolerance == tolerance and problem.in_place
