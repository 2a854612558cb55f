"""What nodes of autograd stand for over ranks: each holds its own steps, and all of them go back together.

Cotangents are those of the own steps, and what comes back is the part of the own steps in the gradient of the sum of
all ranks' losses, as of torch's own context parallelism: the sum over ranks is the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch.utils._pytree import register_pytree_node

from recsolve.base.arrays import Array, namespace
from recsolve.base.links import RECORDERS, Leaf, linked, unrecorded
from recsolve.base.shard import Shard, Timeline, local_of
from recsolve.distributed.adjoint import gradients_over_ranks, into_initial
from recsolve.distributed.solution import ShardedSolution
from recsolve.gradients.scan_adjoint import scan_adjoint
from recsolve.gradients.second import Cotangents
from recsolve.interop.autograd_ops import recurrence_of
from recsolve.interop.autograd_problems import Scanned, Solved
from recsolve.scan import scan
from recsolve.solve import solve

if TYPE_CHECKING:
    from recsolve.interop.autograd import CellSpec


# So that DistributedDataParallel finds the tensors of a shard that a model returns.
register_pytree_node(Shard, lambda x: ([x.local], x.timeline), lambda parts, axis: Shard(next(iter(parts)), axis))


def run_over_ranks(spec: CellSpec, tensors: Mapping[str, Any], axis: Timeline) -> tuple[Any, Any]:
    """Return the own states of a cell and the last one of all, from which gradients go back.

    Parameters
    ----------
    spec : CellSpec
    tensors : mapping of tensors
        Of the own steps, named as of :func:`recsolve.interop.autograd.solve_cell`.
    axis : Timeline
        Whose steps the others are.
    """
    recurrence = recurrence_of(spec, tuple(tensors), tuple(tensors.values()), linked=True)
    recurrence.timeline = axis
    leaves = linked(recurrence, recurrence.kind)
    with unrecorded(recurrence.kind):
        solution: Any = solve(recurrence, **{"fallback": "sequential", **spec.settings})
    if spec.observe is not None:
        spec.observe(solution)
    found = RECORDERS["over ranks"](solution, leaves, unconverged=spec.unconverged) if leaves else {}
    return found.get("states", solution.states.local), found.get("final", solution.final)


class _OfOneDevice:
    """What ranks do not do together."""

    def pull_again(self, *given: Any) -> NoReturn:
        raise TypeError("second derivatives over ranks are not known; wanted first ones, or one device")

    def push(self, *given: Any) -> NoReturn:
        raise TypeError("forward derivatives over ranks are not known; wanted backward ones, or one device")

    def batched(self, size: int, dims: Any, tensors: Sequence[Any]) -> NoReturn:
        raise TypeError("torch.func.vmap does not map over what ranks share; give the batch an axis of its own")


class SolvedOverRanks(_OfOneDevice, Solved):
    """A solution over ranks, of which the own steps and the last state of all are shown.

    Parameters
    ----------
    solution : ShardedSolution
    leaves : tuple
        As of :class:`recsolve.interop.autograd_problems.Solved`.
    unconverged : bool
        Whether states that are not met are differentiated as they are.
    """

    def __init__(self, solution: ShardedSolution, leaves: tuple[Leaf | None, ...], *, unconverged: bool = False):
        axis = solution.recurrence.timeline
        assert axis is not None
        super().__init__(solution.local, leaves)
        self.solution = copy(solution)  # a copy: the solution itself holds its node
        self.axis, self.recurrence, self.end = axis, solution.recurrence, solution._final
        self.success, self.status = solution.success or unconverged, solution.status
        shown = [name for name in self.names if name != "final"]
        self.names = [*shown, "final"] if axis.total else shown

    def _by_name(self, states: Array, output: Array) -> tuple[Any, ...]:
        rec = self.recurrence
        found = {"states": rec.as_given(states), "output": rec.as_given(output), "final": self.end}
        return tuple(rec.wrap(found[name]) for name in self.names)

    def _gradients(self, c: Cotangents) -> Callable[[Leaf], Array]:
        rec = self.recurrence
        with self.axis.together(f"the backward of a solve of {rec.description}"):
            final = c.final if c.final is not None else namespace(rec.initial).zeros_like(rec.initial)
            found = gradients_over_ranks(self.solution, c.states, c.output, final if self.axis.total else None)
            self.axis.ranks.closed()

        def of(leaf: Leaf) -> Array:
            return into_initial(self.solution, found) if leaf == ("initial", None) else found.of(leaf)

        return of


class ScannedOverRanks(_OfOneDevice, Scanned):
    """A scan over ranks, of which the own steps are shown.

    Parameters
    ----------
    monoid, given
        As of :class:`recsolve.interop.autograd_problems.Scanned`.
    axis : Timeline
    shared : tuple of bool
        Which elements are those of the own steps; the others are the same at all times.
    """

    def __init__(self, monoid: Any, given: Mapping[str, Any], axis: Timeline, shared: tuple[bool, ...]):
        super().__init__(monoid, given)
        self.axis, self.shared = axis, shared

    def _elements(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        pairs = zip(tensors[:-1], self.shared, strict=True)
        return tuple(Shard(x, self.axis) if shared else x for x, shared in pairs)

    def run(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        *elements, initial = (x.detach() if isinstance(x, torch.Tensor) else x for x in tensors)
        return (scan(self.monoid, self._elements((*elements, initial)), initial=initial, **self.given).local,)

    def pull(
        self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], needed: Sequence[bool]
    ) -> list[Any]:
        y, c = (Shard(x, self.axis) for x in (results[0], cotangents[0].resolve_conj().resolve_neg()))
        found = scan_adjoint(self.monoid, self._elements(tensors), y, c, initial=tensors[-1], **self.given)
        start = found.initial  # of all ranks together: that of the first steps has it
        if isinstance(start, torch.Tensor) and (self.axis.reversed() if self.given["reverse"] else self.axis).place:
            start = torch.zeros_like(start)
        return [g if isinstance(g, torch.Tensor) else None for g in (*local_of(found.elements), start)]
