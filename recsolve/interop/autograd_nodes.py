"""Nodes of torch's autograd, around solves and scans. torch is imported with this module.

A node has a :class:`Problem`, which says how results follow from tensors, and how cotangents go back once and twice.
Three functions of autograd are each the derivative of the one before; ``torch.func`` maps all of them over batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch.autograd import Function

Dims = Sequence[int | None]


class Problem(Protocol):
    """What a node stands for. Tensors come without graphs; what is no tensor, None say, comes as it was given."""

    def run(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """Return the results."""

    def pull(
        self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], needed: Sequence[bool]
    ) -> Sequence[Any]:
        """Return the gradients with respect to ``tensors``, those that are needed; some cotangents may be None."""

    def pull_again(
        self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], directions: Sequence[Any]
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return the gradients of what ``pull`` returned, by tensors and by cotangents, for its cotangents or None."""

    def batched(self, size: int, dims: Dims, tensors: Sequence[Any]) -> tuple[Sequence[Any], Dims] | None:
        """Return tensors of which one run gives all members of a batch, and where results have its axis; or None."""


def recording() -> bool:
    """Return whether torch records what is computed."""
    return bool(torch.is_grad_enabled())


def record(problem: Problem, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """Return the results of a problem, from which gradients go back to its tensors."""
    found: Any = _Run.apply(problem, *tensors)
    return found  # type: ignore[no-any-return]


def _plain(x: Any) -> Any:
    return x.detach() if isinstance(x, torch.Tensor) else x


class _Run(Function):  # type: ignore[misc]
    """The results of a problem."""

    @staticmethod
    def forward(problem: Problem, *tensors: Any) -> Any:
        return problem.run([_plain(x) for x in tensors])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.problem, *tensors = inputs
        ctx.parts = len(tensors), len(output)
        _keep(ctx, (*tensors, *output))  # of the results too torch then tells when one was changed in place

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        kept = _kept(ctx)
        if all(c is None for c in cotangents):
            return (None,) * (1 + ctx.parts[0])
        needed = tuple(ctx.needs_input_grad[1:])
        found = _Pull.apply(ctx.problem, needed, ctx.parts, *kept, *cotangents)
        return None, *_spread(found, needed)

    @staticmethod
    def vmap(info: Any, in_dims: Any, problem: Problem, *tensors: Any) -> Any:
        together = problem.batched(info.batch_size, in_dims[1:], tensors)
        if together is not None:
            return record(problem, together[0]), tuple(together[1])
        return _one_by_one(_Run, info, in_dims, (problem, *tensors))


class _Pull(Function):  # type: ignore[misc]
    """The gradients of a problem that are needed: ``given`` are tensors, results and cotangents."""

    @staticmethod
    def forward(problem: Problem, needed: Sequence[bool], parts: tuple[int, int], *given: Any) -> Any:
        tensors, results, cotangents = _split([_plain(x) for x in given], parts)
        found = problem.pull(tensors, results, cotangents, needed)
        return tuple(g for g, wanted in zip(found, needed, strict=True) if wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.problem, ctx.needed, ctx.parts, *given = inputs
        _keep(ctx, given)

    @staticmethod
    def backward(ctx: Any, *directions: Any) -> Any:
        given = _kept(ctx)
        if all(v is None for v in directions):
            return (None,) * (3 + len(given))
        fixed = [_Fixed.apply(x) if isinstance(x, torch.Tensor) else x for x in given]
        found = _Again.apply(ctx.problem, ctx.needed, ctx.parts, *fixed, *directions)
        _, results, cotangents = _split(given, ctx.parts)
        by_tensor = _spread(found[: sum(ctx.needed)], ctx.needed)
        by_cotangent = _spread(found[sum(ctx.needed) :], [c is not None for c in cotangents])
        return None, None, None, *by_tensor, *(None for _ in results), *by_cotangent

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _one_by_one(_Pull, info, in_dims, args)


class _Again(Function):  # type: ignore[misc]
    """The gradients of what a pull returns, by the tensors that need one, and by its cotangents."""

    @staticmethod
    def forward(problem: Problem, needed: Sequence[bool], parts: tuple[int, int], *given: Any) -> Any:
        plain, count = [_plain(x) for x in given], sum(needed)
        tensors, results, cotangents = _split(plain[: len(plain) - count], parts)
        directions = _spread(plain[len(plain) - count :], needed)
        by_tensor, by_cotangent = problem.pull_again(tensors, results, cotangents, directions)
        first = [g for g, wanted in zip(by_tensor, needed, strict=True) if wanted]
        return (*first, *(g for g, c in zip(by_cotangent, cotangents, strict=True) if c is not None))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.problem, ctx.needed, ctx.parts, *given = inputs
        _keep(ctx, given)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """It is linear in the directions, by a matrix of second derivatives, which is symmetric."""
        given, count = _kept(ctx), sum(ctx.needed)
        given, directions = given[: len(given) - count], given[len(given) - count :]
        tensors, results, c = _split(given, ctx.parts)
        turned = cotangents[:count]
        back = [None if v is None else torch.zeros_like(v) for v in directions]
        if any(w is not None for w in turned):
            more = _Again.apply(ctx.problem, ctx.needed, ctx.parts, *given, *turned)
            back = [None if b is None else b + m for b, m in zip(back, more[:count], strict=True)]
        by_cotangent = _spread(cotangents[count:], [x is not None for x in c])
        if any(w is not None for w in by_cotangent):
            more = _Pull.apply(ctx.problem, ctx.needed, ctx.parts, *tensors, *results, *by_cotangent)
            back = [None if b is None else b + m for b, m in zip(back, more, strict=True)]
        return None, None, None, *(None for _ in given), *back

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _one_by_one(_Again, info, in_dims, args)


class _Fixed(Function):  # type: ignore[misc]
    """The same tensor, by which what follows has no derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Any) -> Any:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise TypeError("third derivatives of a solve are not known; wanted at most second ones")


def _keep(ctx: Any, given: Sequence[Any]) -> None:
    ctx.there = [isinstance(x, torch.Tensor) for x in given]
    ctx.others = [None if there else x for x, there in zip(given, ctx.there, strict=True)]
    ctx.save_for_backward(*(x for x in given if isinstance(x, torch.Tensor)))
    ctx.set_materialize_grads(False)


def _kept(ctx: Any) -> list[Any]:
    saved = iter(ctx.saved_tensors)
    return [next(saved) if there else x for x, there in zip(ctx.others, ctx.there, strict=True)]


def _split(given: Sequence[Any], parts: tuple[int, int]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """Cut into tensors, results and cotangents."""
    first, second = parts
    return given[:first], given[first : first + second], given[first + second :]


def _spread(found: Sequence[Any], wanted: Sequence[bool]) -> list[Any]:
    """Return what was found in the places that were wanted, None in others."""
    rest = iter(found)
    return [next(rest) if wants else None for wants in wanted]


def _one_by_one(function: Any, info: Any, in_dims: Any, args: Sequence[Any]) -> Any:
    """Return the results for every member of a batch, put together."""
    pairs = list(zip(args, in_dims, strict=True))

    def member(i: int) -> Any:
        return function.apply(*(x.select(d, i) if isinstance(d, int) else x for x, d in pairs))

    if not info.batch_size:
        raise ValueError("torch.func.vmap maps over 0 members; wanted at least one")
    members = [member(i) for i in range(info.batch_size)]
    return tuple(torch.stack(parts) for parts in zip(*members, strict=True)), (0,) * len(members[0])
