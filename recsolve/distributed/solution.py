"""What a solve over ranks returns: the states of the own steps, and how the whole ended."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from recsolve.analysis.trust import not_trusted
from recsolve.base.arrays import Array, UserArray, is_discrete
from recsolve.base.links import RECORDERS, Leaf
from recsolve.base.names import Names
from recsolve.base.report import Reported
from recsolve.base.shard import Shard, Timeline
from recsolve.base.status import Status
from recsolve.base.tolerance import Tolerance
from recsolve.dataset import dataset_of_part
from recsolve.distributed.task import Facts, first_missed
from recsolve.distributed.trust import Trust, trust_of
from recsolve.recurrence.base import Recurrence
from recsolve.solution import Solution

if TYPE_CHECKING:
    from xarray import Dataset

_WAYS = {
    "rounds": "all ranks at once, each from what the one before was found to end with",
    "sweeps": "all steps of all ranks in every iteration",
    "turns": "one rank after the other",
}


class ShardedSolution(Reported, Generic[UserArray]):
    """A trajectory of which this rank holds its steps.

    :func:`recsolve.solve` returns it for a recurrence whose time axis ranks share. Status, message and counts are those
    of the whole, the same on every rank.

    Of tensors that require grad, ``states``, ``output`` and ``final`` are tensors that gradients go back from. Every
    rank must go back, and gets the part of its own steps in the gradient of the sum of all ranks' losses. So gradients
    of weights, and that of the initial state, are sums over ranks, which ``DistributedDataParallel`` or an all-reduce
    takes.

    Attributes
    ----------
    states, output : Shard
        As those of a :class:`recsolve.Solution`, of which this rank holds the own steps.
    local : Solution
        Of the own steps alone, from the state that truly comes before them.
    final : array, shape (*batch, *event)
        The last state of all, on every rank.
    success : bool
        Whether all steps of all ranks have converged.
    status : Status
        That of the first rank that failed, in the order of steps; else ``converged``.
    message : str
    nit : int
        Iterations; where each rank solves its own steps, the most that one took.
    residuals : array, shape (nit + 1,) or (1,)
        max |f(h[t-1]) - h[t]| over all ranks of every iterate, where these sweep together; else the last one alone.
    ranks : tuple of Facts
        Of the steps of every rank: ``length``, ``status``, ``nit``, ``worst`` (max |r|), ``converged_prefix``,
        ``exact_prefix`` (-1: not counted), and ``atol``, ``rtol`` and ``unit`` of the test.
    converged_prefix, exact_prefix : int
        How many leading steps of all meet the tolerance; have a residual of exactly 0, or None where these have not
        been counted, as all have converged.
    way : {"rounds", "sweeps", "turns"}
        Whether each rank solved its steps from what the one before was found to end with, all iterated together, or
        one followed the other (``why`` says the reason).
    why : str
    stats : dict
        Of the own steps.
    tolerance : Tolerance
        The widest that a rank's steps were tested with.
    solver : Method
    recurrence : Recurrence
        Of the own steps, with its ``timeline``.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> with rs.distributed.alone():
    ...     sol = rs.solve(cell.recurrence(rs.distributed.shard(np.ones((60, 3)))))
    >>> sol.success, sol.way, sol.final.shape
    (True, 'rounds', (4,))
    """

    def __init__(
        self,
        recurrence: Recurrence[UserArray],
        local: Solution[UserArray],
        facts: tuple[Facts, ...],
        final: Array,
        way: str,
        why: str,
        told: str,
        linked: dict[Leaf, Any] | None = None,
    ):
        self.recurrence, self.local, self.ranks, self.way, self.why = recurrence, local, facts, way, why
        self._final, self._told = final, told
        # What gradients go back from, by name.
        self._recorded: dict[str, Any] = RECORDERS["over ranks"](self, linked) if linked else {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs: there is no graph of tensors there."""
        return {**vars(self), "_recorded": {}}

    @property
    def final(self) -> UserArray:
        if "final" in self._recorded:
            return self._recorded["final"]  # type: ignore[no-any-return]
        return self.recurrence.wrap(self._final)  # type: ignore[no-any-return]

    @property
    def states(self) -> Shard[UserArray]:
        return self._shared(self._recorded.get("states", self.local.states))

    @property
    def output(self) -> Shard[UserArray]:
        return self._shared(self._recorded.get("output", self.local.output))

    @property
    def named(self) -> Names:
        """The states of the own steps by component, as views."""
        return self.recurrence.named(self.states.local)

    @property
    def named_final(self) -> Names:
        """The last state of all by component."""
        return self.recurrence.named(self.final)

    def _shared(self, own: Any) -> Shard[Any]:
        return Shard(own, self._axis)

    @property
    def solver(self) -> Any:
        return self.local.solver

    @property
    def stats(self) -> dict[str, Any]:
        return self.local.stats

    @property
    def success(self) -> bool:
        return self.status is Status.CONVERGED

    @cached_property
    def _worst(self) -> int | None:
        return first_missed(self.ranks)

    @property
    def status(self) -> Status:
        return Status.CONVERGED if self._worst is None else self.ranks[self._worst].status

    @property
    def message(self) -> str:
        """The status with its advice; once ``trusted`` has been asked for, also what it means for the trajectory."""
        count = f"{len(self.ranks)} rank{'s' * (len(self.ranks) > 1)}"
        why = f"; {self.why}" if self.why else ""
        if self._worst is not None:
            start = sum(fact.length for fact in self.ranks[: self._worst])
            stop = start + self.ranks[self._worst].length
            rank = self._axis.rank_at(self._worst)
            place = f"steps {start} to {stop - 1} (counted from 0), rank {rank} of {len(self.ranks)}"
            return f"{place}: {self._told}{why}"
        text = f"{Status.CONVERGED}: every entry of the residual of {count} meets {self.tolerance}{why}"
        if self._discrete or "_trust" not in vars(self) or self.trusted:
            return text
        return f"{text}; {not_trusted(self._trust.derivative, self._trust.estimate)}"

    @property
    def nit(self) -> int:
        return max(fact.nit for fact in self.ranks)

    @property
    def residuals(self) -> Any:
        if self.way == "sweeps":
            return self.local.residuals
        return np.array([np.max([fact.worst for fact in self.ranks])])

    @property
    def converged_prefix(self) -> int:
        return self._prefix("converged_prefix")

    @property
    def exact_prefix(self) -> int | None:
        return self._prefix("exact_prefix") if all(fact.exact_prefix >= 0 for fact in self.ranks) else None

    def _prefix(self, name: str) -> int:
        total = 0
        for fact in self.ranks:
            total += getattr(fact, name)
            if getattr(fact, name) < fact.length:
                break
        return total

    @property
    def tolerance(self) -> Tolerance:
        atol, rtol, unit = (max(getattr(fact, name) for fact in self.ranks) for name in ("atol", "rtol", "unit"))
        return Tolerance(atol, rtol, self.local.tolerance.lanes, unit)

    @property
    def _axis(self) -> Timeline:
        assert self.recurrence.timeline is not None
        return self.recurrence.timeline

    @property
    def _discrete(self) -> bool:
        return is_discrete(self.recurrence.dtype)

    @cached_property
    def _trust(self) -> Trust:
        return trust_of(self.local, self._axis)

    @property
    def condition(self) -> float:
        """kappa of the whole, where J is diagonal; else NaN, for its estimate needs all states at once.

        All ranks must ask for it, as for ``error_estimate`` and ``trusted``: they exchange messages the first time that
        one of the three is read. A rank that asks alone ends with RankError after the timeout.
        """
        return float("nan") if self._discrete else self._trust.condition

    @property
    def error_estimate(self) -> float:
        """An estimate of max |h - h of the exact recurrence| over all t, as that of a :class:`recsolve.Solution`.

        What a rank is off by at its end is carried into the next one. All ranks must ask for it: see ``condition``.
        """
        return 0.0 if self._discrete and self.success else self._trust.estimate.error

    @property
    def trusted(self) -> bool:
        """Whether all ranks converged, and the error of the whole is estimated to be small; the same on every rank.

        As ``trusted`` of a :class:`recsolve.Solution`, but where f has no finer arithmetic (float64 on a GPU, say) and
        units couple it is False: rounding is then judged by kappa, which is not known. All ranks must ask for it where
        all have converged: see ``condition``.
        """
        if self._discrete or not self.success:
            return self.success
        return self._trust.derivative.holds is True and self._trust.estimate.small

    def to_xarray(self) -> Dataset:
        """Return the own steps as a Dataset of xarray on the host, with their places in the whole as coordinates.

        Returns
        -------
        Dataset
            As that of ``local``, with ``time`` counted as in the whole, so that those of all ranks can be concatenated
            along it. Attributes are those of the whole, with ``way``, ``rank``, ``ranks`` and ``steps`` (T).
            No messages are exchanged.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
        >>> with rs.distributed.alone():
        ...     data = rs.solve(cell.recurrence(rs.distributed.shard(np.ones((60, 3))))).to_xarray()
        >>> data.sizes["time"], data.attrs["steps"], data.attrs["ranks"]
        (60, 60, 1)
        """
        axis = self._axis
        shared = {"way": self.way, "rank": axis.ranks.rank, "ranks": axis.size, "steps": axis.total}
        return dataset_of_part(self.local, axis.start, self, shared)

    def _facts(self) -> dict[str, str]:
        axis = self._axis
        known = "ask sol.trusted on all ranks"
        if "_trust" in vars(self) or self._discrete or not self.success:
            known = str(self.trusted)
        if "_trust" in vars(self) and self.success:
            known += f" (error about {self.error_estimate:.1e})"
        return {
            "message": self.message,
            "method": f"{self.solver.name}, {self.nit} iterations, {_WAYS[self.way]}",
            "recurrence": repr(self.recurrence),
            "steps": f"{axis.own} of {axis.total} are here",
            "prefix": f"first {self.converged_prefix} of {axis.total} steps within tolerance",
            "trusted": known,
        }

    def _details(self) -> dict[str, str]:
        """Return also what is known of every rank; nothing is asked of others, who may not be asked to tell."""
        more = {}
        for place, fact in enumerate(self.ranks):
            more[f"rank {self._axis.rank_at(place)}"] = (
                f"{fact.length} steps, {fact.status}, {fact.nit} iterations, |r| up to {fact.worst:.1e}"
            )
        return self._facts() | more
