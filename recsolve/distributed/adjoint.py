"""Gradients through a solution over ranks: what comes into the own steps from the later ranks, then their own adjoint.

The cotangent z[t] that step t hands to the state before it obeys z[t] = J[t]^T (z[t+1] + c[t]), an affine scan from the
last step to the first, of which each rank needs only what comes in. What all steps depend on is summed over ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace, to_native
from recsolve.base.names import Names
from recsolve.base.shard import OVER_RANKS, Shard, Timeline
from recsolve.distributed.carries import Elements, over_ranks
from recsolve.distributed.solution import ShardedSolution
from recsolve.gradients.adjoint import check_given, native_cotangents
from recsolve.gradients.of_windows import tree
from recsolve.gradients.result import Gradients, initial_of
from recsolve.gradients.solved import check_differentiable, cotangent_of
from recsolve.kernels.monoids import MONOIDS
from recsolve.mixings import couples, plain_of
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.binding import parts_as
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.fused_engine import FusedEngine

_FEWEST, _SHARE = 256, 64  # steps that say what all hand on: at least, and which share of them
_UNITS = 128  # rounding units of the largest of them by which what was said may miss what came out
_SUMMED = ("parameters", "mixings", "projection")


class _Backwards(Elements):
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


def gradients_over_ranks(
    solution: ShardedSolution, states: Array | None, output: Array | None, final: Array | None,
    *, clamp: float | None = None
) -> Gradients:  # fmt: skip
    """Return the gradients of the own steps, with the cotangent that comes from later ranks; nothing is summed.

    Parameters
    ----------
    solution : ShardedSolution
    states, output : array or None
        Native cotangents of the own steps.
    final : array or None
        What this rank adds to the cotangent of the last state of all: those of all ranks add up.
    clamp : float, optional
        Refused: where it is met, cotangents are no longer linear in what comes in.
    """
    axis, local = solution.recurrence.timeline, solution.local
    assert axis is not None
    if clamp is not None:
        raise ValueError(f"clamp is {clamp} and ranks share the time axis; wanted None")
    rec, trajectory = local.recurrence, local._iterate.states
    with np.errstate(all="ignore"):
        if final is not None:
            (final,) = axis.ranks.total([final])
        ends_here = axis.length > 0 and axis.stop == axis.total
        cotangent, direct = cotangent_of(rec, trajectory, states, output, final if ends_here else None)
        if axis.length and not ends_here:
            cotangent = cotangent.copy() if cotangent is states else cotangent
            last = cotangent[-1].copy()

        def run(carry: Array) -> Gradients:
            if axis.length and not ends_here:
                cotangent[-1] = last + carry
            return Gradients(rec, trajectory, cotangent, direct)

        found = _from_loops(rec, trajectory, cotangent, axis, run)
        if found is not None:
            return found
        if axis.length and not ends_here:
            cotangent[-1] = last
        given = _Backwards(rec, trajectory, cotangent.copy(), axis)
        return over_ranks(given, run, lambda found, _: found._initial)


def _from_loops(
    rec: Recurrence, trajectory: Array, cotangent: Array, axis: Timeline, run: Callable[[Array], Gradients]
) -> Gradients | None:
    """Return the gradients where compiled loops compute all of them, and ranks forget; None, on all ranks, elsewhere.

    The first steps of each rank, with nothing that comes back into them, say what it hands to the rank before it. What
    it hands on in truth is compared with that.
    """
    if (
        type(rec) is not CellRecurrence
        or rec.reset is not None
        or any(map(couples, map(plain_of, rec.cell.mixings.values())))
    ):
        return None
    if min(axis.ordered) < 2 * _FEWEST:
        return None
    xp, engine = namespace(trajectory), rec.bind()
    said = size = xp.zeros_like(rec.initial)
    able = isinstance(engine, FusedEngine)
    if able and axis.place:
        steps = slice(0, max(_FEWEST, rec.length // _SHARE))
        with parts_as(engine):
            probed = rec.window(0, steps.stop).bind().adjoint(trajectory[steps], cotangent[steps])
        able = probed is not None
        if probed is not None:
            said, size = initial_of(rec, probed[-1], cotangent.dtype), abs(probed[0]).max(axis=0)
    sent = axis.ranks.begin([able], [said])
    ends = axis.in_order(list(sent.arrays[0]))
    carry = ends[axis.place + 1] if axis.place + 1 < axis.size else xp.zeros_like(rec.initial)
    found = run(carry) if able else None  # on a device it is asked for before anybody has looked at the message
    same = xp.zeros((), bool)
    if found is not None and found._compiled is not None:
        by = _UNITS * float(np.finfo(cotangent.dtype).eps) * size
        same = (
            xp.isclose(found._initial, said, rtol=0, atol=by, equal_nan=True).all() if axis.place else xp.ones((), bool)
        )
    if not sent.numbers().all():
        return None
    held = axis.ranks.begin((), [same])
    held.numbers()
    return found if bool(held.arrays[0].all()) else None


def into_initial(solution: ShardedSolution, local: Gradients) -> Array:
    """Return what the own steps give to the gradient with respect to h[0], resets that go back to it included."""
    rec, axis = solution.recurrence, solution.recurrence.timeline
    assert axis is not None
    first = axis.start == 0 and axis.length
    own: Array = local._initial if first else namespace(rec.initial).zeros_like(rec.initial)
    return own + local._restart if axis.length and rec.restart is rec.initial else own


class ShardedGradients:
    """The result of :func:`recsolve.adjoint` for a solution over ranks.

    What belongs to steps is a Shard, of the own ones; what all steps depend on is summed over ranks, the same on each.
    An attribute that the recurrence does not have raises AttributeError.

    Attributes
    ----------
    states : Shard
        The adjoint variables g[t].
    drive : Names of Shard
        Of a cell: with respect to each drive.
    inputs : Shard, or tuple or dict of Shard
        With respect to x, or to the inputs of a function.
    initial : array, shape (*batch, *event), or Names
        With respect to h[0], resets of all ranks included where they go back to it.
    parameters, mixings, projection : Names
        As those of :class:`recsolve.Gradients`.
    local : Gradients
        Of the own steps alone: what other ranks' steps add to weights is not in it.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> with rs.distributed.alone():
    ...     sol = rs.solve(cell.recurrence(rs.distributed.shard(np.ones((60, 3)))))
    ...     g = rs.adjoint(sol, output=sol.output)
    >>> g.inputs.shape, g.mixings.r.shape
    ((60, 3), (4, 4))
    """

    def __init__(self, solution: ShardedSolution, local: Gradients):
        axis = solution.recurrence.timeline
        assert axis is not None
        self.local, self._axis, self._solution = local, axis, solution
        self._refused: dict[str, Exception] = {}
        parts: dict[str, Any] = {"initial": into_initial(solution, local)}
        for name in _SUMMED:
            try:
                parts[name] = tree(lambda x: to_native(x, "a gradient"), getattr(local, name))
            except (AttributeError, TypeError) as error:  # raised where it is asked for
                self._refused[name] = error.with_traceback(None)
        flat: list[Array] = []
        tree(flat.append, parts)
        sums = iter(axis.ranks.total(flat))
        self._found: dict[str, Any] = tree(lambda _: next(sums), parts)

    def _summed(self, name: str) -> Names:
        if name in self._refused:
            raise self._refused[name]
        return tree(self._solution.recurrence.wrap, self._found[name])  # type: ignore[no-any-return]

    @property
    def states(self) -> Shard[Any]:
        return Shard(self.local.states, self._axis)

    @property
    def named(self) -> Names:
        """g[t] of the own steps by component."""
        return self.local.named

    @property
    def initial(self) -> Any:
        return self.local._by_component(self._found["initial"])

    @property
    def drive(self) -> Any:
        return tree(lambda x: Shard(x, self._axis), self.local.drive)

    @property
    def inputs(self) -> Any:
        return tree(lambda x: Shard(x, self._axis), self.local.inputs)

    @property
    def parameters(self) -> Names:
        return self._summed("parameters")

    @property
    def mixings(self) -> Names:
        return self._summed("mixings")

    @property
    def projection(self) -> Names:
        return self._summed("projection")


def adjoint_of_shards(
    solution: Any, given: Mapping[str, Any], *, unconverged: bool, clamp: float | None
) -> ShardedGradients:
    """Return what :func:`recsolve.adjoint` does, of a solution over ranks."""
    axis: Timeline = solution.recurrence.timeline
    names = [name for name, x in given.items() if x is not None]
    with axis.together(f"recsolve.adjoint of {solution.recurrence.description}, with {', '.join(names)}"):
        if not isinstance(solution, ShardedSolution):
            raise TypeError(f"solution is {type(solution).__name__}; wanted what recsolve.solve returns for shards")
        check_given(given)
        check_differentiable(solution.recurrence, solution.success or unconverged, solution.status)
        own = {name: _own(x, name, axis) if name != "final" else x for name, x in given.items()}
        c = native_cotangents(solution.local, own)
        if c["final"] is not None:
            if not axis.total:
                raise ValueError("final is given, but T = 0: the final state is the initial one")
            if not (axis.length and axis.stop == axis.total):  # it is the same on all ranks, and counts once
                c["final"] = namespace(c["final"]).zeros_like(c["final"])
        found = ShardedGradients(solution, gradients_over_ranks(solution, **c, clamp=clamp))
        axis.ranks.closed()
    return found


def _own(x: Any, name: str, axis: Timeline) -> Any:
    """Return the own part of a cotangent over time."""
    if isinstance(x, Mapping):
        return {key: _own(part, f"{name} {key}", axis) for key, part in x.items()}
    if x is None:
        return None
    if not isinstance(x, Shard) or x.timeline != axis:
        raise TypeError(f"{name} is {type(x).__name__}; wanted a Shard of the time axis of the solution")
    return x.local


OVER_RANKS["adjoint"] = adjoint_of_shards
