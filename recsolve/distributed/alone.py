"""The own steps of a rank as a recurrence of their own, and parts of it, which are kept from call to call."""

from __future__ import annotations

from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from recsolve.base.arrays import Array
from recsolve.base.tolerance import Tolerance
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.engine import CompiledEngine, Engine
from recsolve.solvers.problem import Problem

_KEPT = 16  # parts of a recurrence


class Alone:
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

    _KNOWN: ClassVar[WeakKeyDictionary[Recurrence, Alone]] = WeakKeyDictionary()

    def __init__(self, rec: Recurrence):
        self.whole, self._parts = rec.window(0, rec.length), dict[tuple[int, int], Recurrence]()
        self._launched: dict[tuple[int, int], Any] = {}

    @classmethod
    def of(cls, rec: Recurrence) -> Alone:
        """Return those of a recurrence."""
        return cls._KNOWN.get(rec) or cls._KNOWN.setdefault(rec, cls(rec))

    def engine(self, like: Engine, start: int, stop: int) -> CompiledEngine:
        """Return the engine of some of the steps, as that of all is, which is compiled."""
        assert isinstance(like, CompiledEngine)
        if (start, stop) not in self._parts:
            if len(self._parts) >= _KEPT:
                self._parts.clear()
                self._launched.clear()
            self._parts[start, stop] = self.whole.window(start, stop)
        return type(like)(self._parts[start, stop], like.traced, like.backend)

    def tested(self, like: Engine, states: Array, start: int, stop: int, tolerance: Tolerance) -> tuple[Array, Array]:
        """Return which of the steps after ``start`` meet the tolerance, and max |r| of each, of states of all steps."""
        engine = self.engine(like, start, stop)
        problem = Problem(engine.recurrence, tolerance, pin=True, jacobian=False, engine=engine)
        if (start, stop) in self._launched:
            vars(problem)["launched"] = self._launched[start, stop]
        self._launched[start, stop] = problem.launched
        _, met, near = problem.tested(states[start:stop])
        return met[1:], near.reshape(met.shape)[1:]
