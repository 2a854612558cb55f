"""Nodes of torch's autograd around solves and scans. torch is imported with this module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from recsolve.base.arrays import Array, from_native, namespace, to_native
from recsolve.base.links import Leaf
from recsolve.gradients.adjoint import gradients
from recsolve.gradients.scan_adjoint import scan_adjoint
from recsolve.gradients.second import Cotangents, second_adjoint
from recsolve.gradients.solved import check_differentiable
from recsolve.scan import scan
from recsolve.solution import Solution

READOUT: Leaf = ("readout", None)


class Problem(Protocol):
    """What a node stands for: how its results follow from tensors, and how cotangents go back."""

    def run(self, tensors: Sequence[Any]) -> Any:
        """Return the results, a tensor or a tuple of tensors."""

    def pull(self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
        """Return the gradients with respect to ``tensors``, None for what has none; cotangents may be None."""

    def pull_again(
        self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], directions: Sequence[Any]
    ) -> list[Any]:
        """Return the gradients of what ``pull`` returned, for cotangents of it, by tensors and by cotangents."""


def recording() -> bool:
    """Return whether torch records what is computed."""
    return bool(torch.is_grad_enabled())


def record(problem: Problem, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """Return the results of a problem, from which gradients go back to its tensors."""
    with torch.enable_grad():  # a solution may be read later than it was solved
        results = _Node.apply(problem, *tensors)
    return results if isinstance(results, tuple) else (results,)


class _Node(Function):  # type: ignore[misc]
    """A solve or a scan."""

    @staticmethod
    def forward(problem: Problem, *tensors: Any) -> Any:
        return problem.run([x.detach() if isinstance(x, torch.Tensor) else x for x in tensors])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.problem, *tensors = inputs
        results = output if isinstance(output, tuple) else (output,)
        ctx.places = [i for i, x in enumerate(tensors) if isinstance(x, torch.Tensor)]
        ctx.others = [None if isinstance(x, torch.Tensor) else x for x in tensors]
        # Saved, so that torch tells where one was changed in place; memory is shared with what the solve holds.
        ctx.save_for_backward(*(tensors[i] for i in ctx.places), *results)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        saved = ctx.saved_tensors
        if all(c is None for c in cotangents):
            return (None,) * (1 + len(ctx.others))
        tensors, results = list(ctx.others), saved[len(ctx.places) :]
        for place, x in zip(ctx.places, saved, strict=False):
            tensors[place] = x
        return (None, *_Pull.apply(ctx.problem, ctx.needs_input_grad[1:], results, *tensors, *cotangents))


class _Pull(Function):  # type: ignore[misc]
    """The gradients of a solve or a scan."""

    @staticmethod
    def forward(problem: Problem, needed: Sequence[bool], results: Sequence[Any], *given: Any) -> Any:
        plain = [x.detach() if isinstance(x, torch.Tensor) else x for x in given]
        tensors, cotangents = plain[: len(needed)], plain[len(needed) :]
        found = problem.pull(tensors, [x.detach() for x in results], cotangents)
        return tuple(g if wanted else None for g, wanted in zip(found, needed, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.problem, ctx.needed, results, *given = inputs
        ctx.count, ctx.places = len(results), [i for i, x in enumerate(given) if isinstance(x, torch.Tensor)]
        ctx.others = [None if isinstance(x, torch.Tensor) else x for x in given]
        ctx.save_for_backward(*results, *(given[i] for i in ctx.places))
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *directions: Any) -> Any:
        given, saved = list(ctx.others), ctx.saved_tensors
        if all(v is None for v in directions):
            return (None,) * (3 + len(given))
        for place, x in zip(ctx.places, saved[ctx.count :], strict=True):
            given[place] = x
        tensors, cotangents = given[: len(ctx.needed)], given[len(ctx.needed) :]
        found = ctx.problem.pull_again(tensors, saved[: ctx.count], cotangents, directions)
        return (None, None, None, *(g if n else None for g, n in zip(found, ctx.needs_input_grad[3:], strict=True)))


class Solved:
    """A solution: it has been computed, and is shown.

    Parameters
    ----------
    solution : Solution
    leaves : tuple
        Which of ``recurrence.leaves()`` the tensors are.
    """

    def __init__(self, solution: Solution, leaves: tuple[Leaf, ...]):
        self.recurrence, self.states, self.leaves = solution.recurrence, solution._iterate.states, leaves
        self.success, self.status = solution.success, solution.status
        self.shown = self.recurrence.output(self.states)
        self.names = ["states"]
        if self.shown is not self.states:
            self.names.append("output")
        if self.recurrence.graph is None and len(self.states):
            self.names.append("final")

    def run(self, tensors: Sequence[Any]) -> Any:
        rec = self.recurrence
        found = {"states": rec.as_given(self.states), "output": rec.as_given(self.shown), "final": self.states[-1:]}
        self.shown = self.states  # whoever is shown the output holds it
        return tuple(rec.wrap(found[name][0] if name == "final" else found[name]) for name in self.names)

    def pull(self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
        check_differentiable(self.recurrence, self.success, self.status)
        c = self._cotangents(cotangents)
        found = gradients(self.recurrence, self.states, *c)
        return _distinct([self._shown(c.output) if leaf == READOUT else found.of(leaf) for leaf in self.leaves])

    def pull_again(
        self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], directions: Sequence[Any]
    ) -> list[Any]:
        v = {leaf: _native(x) for leaf, x in zip(self.leaves, directions, strict=True) if x is not None}
        found = second_adjoint(self.recurrence, self.states, self._cotangents(cotangents), v)
        rec = self.recurrence
        moved = {"states": rec.as_given(found.states), "output": rec.as_given(found.output), "final": found.states[-1:]}
        by_cotangent = [moved[name][0] if name == "final" else moved[name] for name in self.names]
        return _distinct([*(found.leaves[leaf] for leaf in self.leaves), *by_cotangent])

    def _cotangents(self, given: Sequence[Any]) -> Cotangents:
        c = {name: None if x is None else _native(x) for name, x in zip(self.names, given, strict=True)}
        states, output = (
            None if (x := c.get(n)) is None else self.recurrence.in_order(x, n) for n in ("states", "output")
        )
        return Cotangents(states, output, c.get("final"))

    def _shown(self, output: Array | None) -> Array:
        """Return the gradient with respect to the linear readout of a cell."""
        cell = self.recurrence.cell  # type: ignore[attr-defined]
        if output is None:
            return namespace(self.states).zeros_like(cell.readout)  # type: ignore[no-any-return]
        return cell.pull_readout(output, self.states)  # type: ignore[no-any-return]


class Scanned:
    """A scan of elements, the last of its tensors being the initial state or None.

    Parameters
    ----------
    monoid : str, Monoid or type
    count : int
        Of elements.
    given : mapping
        The other arguments of :func:`recsolve.scan`.
    """

    def __init__(self, monoid: Any, count: int, given: Mapping[str, Any]):
        self.monoid, self.count, self.given = monoid, count, dict(given)

    def run(self, tensors: Sequence[Any]) -> Any:
        *elements, initial = (x.detach() if isinstance(x, torch.Tensor) else x for x in tensors)
        return scan(self.monoid, tuple(elements), initial=initial, **self.given)

    def pull(self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
        *elements, initial = tensors
        c = cotangents[0].resolve_conj().contiguous()
        found = scan_adjoint(self.monoid, tuple(elements), results[0], c, initial=initial, **self.given)
        return [g if isinstance(g, torch.Tensor) else None for g in (*found.elements, found.initial)]

    def pull_again(
        self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], directions: Sequence[Any]
    ) -> list[Any]:
        raise NotImplementedError(f"second derivatives of the scan {self.monoid!r} are not known")


def _native(x: Any) -> Array:
    return to_native(x.detach().resolve_neg(), "a cotangent")


def _distinct(arrays: list[Array]) -> list[Any]:
    """Return gradients as tensors of which none shares memory with another one: torch may add to them in place."""
    found: list[Array] = []
    for x in arrays:
        shared = 0 in x.strides or not getattr(x.flags, "writeable", True)
        xp = namespace(x)
        found.append(x.copy() if shared or any(xp.may_share_memory(x, other) for other in found) else x)
    return [from_native(x, "torch") for x in found]
