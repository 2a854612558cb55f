"""Gradients through a solution over ranks: what comes into the own steps from the later ranks, then their own adjoint.

The cotangent z[t] that step t hands to the state before it obeys z[t] = J[t]^T (z[t+1] + c[t]), an affine scan from the
last step to the first, of which each rank needs only what comes in. What all steps depend on is summed over ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace, to_native
from recsolve.base.names import Names
from recsolve.base.shard import OVER_RANKS, Shard, Timeline
from recsolve.distributed.backwards import WayBack
from recsolve.distributed.begun import Begun
from recsolve.distributed.messages import constant
from recsolve.distributed.own_steps import OwnSteps
from recsolve.distributed.solution import ShardedSolution
from recsolve.gradients.adjoint import check_given, native_cotangents
from recsolve.gradients.of_windows import tree
from recsolve.gradients.result import Gradients
from recsolve.gradients.solved import check_differentiable

_SUMMED = ("parameters", "mixings", "projection")


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
    return _back(solution, states, output, final, clamp).gradients()


def _back(
    solution: ShardedSolution, states: Array | None, output: Array | None, final: Array | None, clamp: float | None,
    begun: Begun | None = None,
) -> WayBack:  # fmt: skip
    axis, local = solution.recurrence.timeline, solution.local
    assert axis is not None
    if clamp is not None:
        raise ValueError(f"clamp is {clamp} and ranks share the time axis; wanted None")
    given = states, output, final

    def own() -> OwnSteps:  # those that were solved, though the recurrence may have got another drive since
        found = OwnSteps.of(solution.recurrence)
        return found if found.holds(local.recurrence) else OwnSteps.of(local.recurrence)

    return WayBack(local.recurrence, local._iterate.states, given, axis, own, begun)


def into_initial(solution: ShardedSolution, local: Gradients) -> Array:
    """Return what the own steps give to the gradient with respect to h[0], resets that go back to it included."""
    rec, axis = solution.recurrence, solution.recurrence.timeline
    assert axis is not None
    own: Array = local._initial if axis.begins else namespace(rec.initial).zeros_like(rec.initial)
    return own + local._restart if axis.length and rec.reset is not None and rec.restart is rec.initial else own


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

    def __init__(self, solution: ShardedSolution, back: WayBack):
        axis = solution.recurrence.timeline
        assert axis is not None
        self._axis, self._solution = axis, solution
        found = back.ahead()
        if found is None or not back.suffices(self._sums(*found)):
            del found  # which has no room beside what follows
            self._sums(back.surely(), None)

    def _sums(self, local: Gradients, right: Array | None) -> list[bool]:
        """Take the gradients of the own steps, and sum over ranks; return which ranks find them right."""
        self.local, solution = local, self._solution
        self._refused: dict[str, Exception] = {}
        initial, some = solution.recurrence.initial, self._axis.begins or solution.recurrence.reset is not None
        own = into_initial(solution, local) if some else constant(initial, initial.shape, initial.dtype, 0)
        parts: dict[str, Any] = {"initial": own}
        for name in _SUMMED:
            try:
                parts[name] = tree(lambda x: to_native(x, "a gradient"), getattr(local, name))
            except (AttributeError, TypeError) as error:  # raised where it is asked for
                self._refused[name] = error.with_traceback(None)
        if local._compiled is not None and local._direct is None:  # what is read next is made while the device is busy
            _ = local._drive
        flat: list[Array] = []
        tree(flat.append, parts)
        holds, found = self._axis.ranks.total_if([] if right is None else [right], flat)
        sums = iter(found)
        self._found: dict[str, Any] = tree(lambda _: next(sums), parts)
        return holds

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

    def call() -> str:
        names = [name for name, x in given.items() if x is not None]
        return f"recsolve.adjoint of {solution.recurrence.description}, with {', '.join(names)}"

    with axis.together(call), Begun(solution, given) as begun:
        if not isinstance(solution, ShardedSolution):
            raise TypeError(f"solution is {type(solution).__name__}; wanted what recsolve.solve returns for shards")
        check_given(given)
        check_differentiable(solution.recurrence, solution.success or unconverged, solution.status)
        own = {name: _own(x, name, axis) if name != "final" else x for name, x in given.items()}
        c = native_cotangents(solution.local, own)
        if c["final"] is not None:
            if not axis.total:
                raise ValueError("final is given, but T = 0: the final state is the initial one")
            if not axis.ends:  # it is the same on all ranks, and counts once
                c["final"] = constant(c["final"], c["final"].shape, c["final"].dtype, 0)
        with np.errstate(all="ignore"):
            found = ShardedGradients(solution, _back(solution, c["states"], c["output"], c["final"], clamp, begun))
        axis.ranks.closed()
    return found


def _own(x: Any, name: str, axis: Timeline) -> Any:
    """Return the own part of a cotangent over time."""
    if isinstance(x, Mapping):
        return {key: _own(part, f"{name} {key}", axis) for key, part in x.items()}
    if x is None:
        return None
    if not isinstance(x, Shard):
        raise TypeError(f"{name} is {type(x).__name__}; wanted a Shard of the time axis of the solution")
    if x.timeline != axis:
        raise ValueError(
            f"{name} is {x!r}, of {x.timeline}; wanted a Shard of the time axis of the solution, {axis}, of the same "
            "process group"
        )
    return x.local


OVER_RANKS["adjoint"] = adjoint_of_shards
