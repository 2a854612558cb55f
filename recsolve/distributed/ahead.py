"""Own steps that a device is asked for before anything is looked at, where the same has been asked for twice before.

A host looks at the arguments of a solve, and binds its engine, for about as long as a device takes for a part of it.
So what was asked for last is asked for again at once, all the rest is done meanwhile, and decides whether it counts.
"""

from __future__ import annotations

from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from recsolve.base.tolerance import Tolerance
from recsolve.distributed.own_steps import same_engine
from recsolve.kernels.held import identical
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.engine import Asked, Engine


class Ahead:
    """What has been asked for of the own steps of a recurrence, and inside a ``with`` block perhaps is already.

    Parameters
    ----------
    recurrence : Recurrence
    given : sequence
        The arguments of the solve, of which nothing is known yet.
    """

    _KNOWN: ClassVar[WeakKeyDictionary[Recurrence, _Last]] = WeakKeyDictionary()

    def __init__(self, recurrence: Recurrence, *given: Any):
        self._recurrence, self._given = recurrence, given
        self._asked: Asked | None = None

    def __enter__(self) -> Ahead:
        last = self._KNOWN.get(self._recurrence) if type(self._recurrence) is CellRecurrence else None
        if last is not None and last.repeated and identical(self._given, last.given):
            try:
                self._asked = last.engine.ask(last.tolerance)
            except Exception:
                last.repeated = False  # and what is wrong is raised where it is asked for
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def ask(self, engine: Engine, tolerance: Tolerance) -> Asked | None:
        """Return what the engine of the own steps returns when it is asked."""
        last = self._KNOWN.get(self._recurrence)
        if last is None or not (same_engine(last.engine, engine) and last.tolerance == tolerance):
            self.drop()
            self._KNOWN[self._recurrence] = _Last(engine, tolerance, self._given)
            return engine.ask(tolerance)
        last.repeated, last.given = True, self._given
        asked, self._asked = self._asked, None
        return engine.ask(tolerance) if asked is None else asked

    def drop(self) -> None:
        """Keep no states that nobody has asked for: their memory goes to what a device is asked for next."""
        if self._asked is not None:
            self._asked = None
            self._KNOWN.pop(self._recurrence, None)


class _Last:
    """What was asked for last, with which arguments, and whether it was for at least the second time."""

    def __init__(self, engine: Engine, tolerance: Tolerance, given: tuple[Any, ...]):
        self.engine, self.tolerance, self.given, self.repeated = engine, tolerance, given, False
