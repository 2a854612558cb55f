"""The way back through own steps that a device is asked for before anything is looked at, as solves are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsolve.base.arrays import Array
from recsolve.base.shard import Shard
from recsolve.distributed.own_steps import same_engine
from recsolve.distributed.shot import FEWEST
from recsolve.distributed.solution import ShardedSolution
from recsolve.recurrence.engine import Backward, Engine
from recsolve.recurrence.fused_engine import FusedEngine
from recsolve.solvers.evaluation import Settled


class Begun:
    """The way back as if nothing came from later ranks, through states of which an engine on a device is known.

    Inside a ``with`` block it has been asked for, and counts where that is what is wanted: of the same function, the
    same states and the same cotangent.

    Parameters
    ----------
    solution : object
        What may be a solution.
    given : mapping
        What may be cotangents of it.
    """

    def __init__(self, solution: Any, given: Mapping[str, Any]):
        self._solution, self._given = solution, given
        self._found: Backward | None = None

    def __enter__(self) -> Begun:
        self._ask()
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def _ask(self) -> None:
        solution, cotangents = self._solution, [x for x in self._given.values() if x is not None]
        if type(solution) is not ShardedSolution or len(cotangents) != 1 or not isinstance(cotangents[0], Shard):
            return
        rec, iterate, cotangent = solution.recurrence, solution.local._iterate, cotangents[0].local
        engine = iterate._engine if isinstance(iterate, Settled) else None
        if not (isinstance(engine, FusedEngine) and engine.backend == "cuda" and solution.success):
            return
        trajectory = iterate.states
        if type(cotangent) is not type(trajectory) or cotangent.shape != trajectory.shape:
            return
        if cotangent.dtype != trajectory.dtype or rec.reset is not None or min(solution._axis.ordered) < 2 * FEWEST:
            return
        try:
            self._found = engine.adjoint(trajectory, cotangent)
        except Exception:  # what is wrong is raised where it is asked for
            return
        self._of = engine, trajectory, cotangent

    def taken(self, engine: Engine, trajectory: Array, cotangent: Array) -> Backward | None:
        """Return what has been found if it is of these, and keep nothing of it."""
        found, self._found = self._found, None
        if found is None:
            return None
        of, *arrays = self._of
        same = same_engine(of, engine) and arrays[0] is trajectory and arrays[1] is cotangent
        return found if same else None

    def drop(self) -> None:
        """Keep nothing."""
        self._found = None
