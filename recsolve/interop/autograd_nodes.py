"""Nodes of torch's autograd, around solves and scans. torch is imported with this module.

A node has a :class:`Problem`, which says how results follow from tensors, and how cotangents go back once and twice.
Functions of autograd are the derivatives of each other; ``torch.func`` maps all of them over batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch.autograd import Function

Dims = Sequence[int | None]

_THIRD = "third derivatives of a solve are not known; wanted at most second ones"


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

    def push(self, tensors: Sequence[Any], results: Sequence[Any], tangents: Sequence[Any]) -> Sequence[Any]:
        """Return the tangents of the results for those of tensors, of which some are None."""

    def batched(self, size: int, dims: Dims, tensors: Sequence[Any]) -> tuple[Sequence[Any], Dims] | None:
        """Return tensors of which one run gives all members of a batch, and where results have its axis; or None."""


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
        _keep(ctx, (*tensors, *output))  # torch then tells when one of them, results too, was changed in place

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

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
        found = iter(_Push.apply(ctx.problem, ctx.parts, *_kept(ctx), *tangents))
        results = _kept(ctx)[ctx.parts[0] :]
        return tuple(next(found) if x.is_floating_point() or x.is_complex() else None for x in results)


class _Push(Function):  # type: ignore[misc]
    """The tangents of results that move: ``given`` are tensors, results and tangents of tensors."""

    @staticmethod
    def forward(problem: Problem, parts: tuple[int, int], *given: Any) -> Any:
        tensors, results, tangents = _split([_plain(x) for x in given], parts)
        return tuple(x for x in problem.push(tensors, results, tangents) if x is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.problem, ctx.parts, *given = inputs
        _keep(ctx, given)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        tensors, results, tangents = _split(_kept(ctx), ctx.parts)
        known, rest = (*tensors, *results), iter(cotangents)
        c = [next(rest) if x.is_floating_point() or x.is_complex() else None for x in results]
        moves, wanted = _there(tangents), tuple(ctx.needs_input_grad[2 : 2 + len(tensors)])
        back = _Pull.apply(ctx.problem, moves, ctx.parts, *known, *c)
        again = _again(ctx.problem, moves, wanted, ctx.parts, (*known, *c), [v for v in tangents if v is not None])
        by_tensor = _spread(again[: sum(wanted)], wanted)
        return None, None, *by_tensor, *(None for _ in results), *_spread(back, moves)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise TypeError("a forward derivative of a forward one is not known; wanted jacfwd(jacrev(f)), hessian(f) say")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _one_by_one(_Push, info, in_dims, args)


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
        tensors, results, cotangents = _split(given, ctx.parts)
        wanted = tuple(
            ctx.needs_input_grad[3 : 3 + len(tensors)]
        )  # others than are needed, where transforms are nested
        found = _again(ctx.problem, ctx.needed, wanted, ctx.parts, given, directions)
        by_tensor = _spread(found[: sum(wanted)], wanted)
        by_cotangent = _spread(found[sum(wanted) :], _there(cotangents))
        return None, None, None, *by_tensor, *(None for _ in results), *by_cotangent

    @staticmethod
    def jvp(ctx: Any, _problem: Any, _needed: Any, _parts: Any, *tangents: Any) -> Any:
        given, needed = _kept(ctx), ctx.needed
        by_tensor, _, by_cotangent = _split(tangents, ctx.parts)
        tensors, results, _ = _split(given, ctx.parts)
        found: list[Any] = [0] * sum(needed)
        if any(v is not None for v in by_tensor):
            v = [x for x in by_tensor if x is not None]
            found = list(_again(ctx.problem, _there(by_tensor), needed, ctx.parts, given, v)[: sum(needed)])
        if any(c is not None for c in by_cotangent):
            more = _Pull.apply(ctx.problem, needed, ctx.parts, *tensors, *results, *by_cotangent)
            found = [a + b for a, b in zip(found, more, strict=True)]
        return tuple(found)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        return _one_by_one(_Pull, info, in_dims, args)


class _Again(Function):  # type: ignore[misc]
    """The gradients of what a pull returns, for directions of the tensors that move.

    Those by the tensors that are wanted, and by the cotangents of the pull.
    """

    @staticmethod
    def forward(
        problem: Problem, moves: Sequence[bool], wanted: Sequence[bool], parts: tuple[int, int], *given: Any
    ) -> Any:
        plain, count = [_plain(x) for x in given], sum(moves)
        tensors, results, cotangents = _split(plain[: len(plain) - count], parts)
        directions = _spread(plain[len(plain) - count :], moves)
        by_tensor, by_cotangent = problem.pull_again(tensors, results, cotangents, directions)
        first = [g for g, wants in zip(by_tensor, wanted, strict=True) if wants]
        return (*first, *(g for g, c in zip(by_cotangent, cotangents, strict=True) if c is not None))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.problem, ctx.moves, ctx.wanted, ctx.parts, *given = inputs
        _keep(ctx, given)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """It is linear in the directions, by a matrix of second derivatives, which is symmetric."""
        given, count = _kept(ctx), sum(ctx.moves)
        given, directions = given[: len(given) - count], given[len(given) - count :]
        tensors, results, c = _split(given, ctx.parts)
        turned, rest = cotangents[: sum(ctx.wanted)], cotangents[sum(ctx.wanted) :]
        back = [None if v is None else torch.zeros_like(v) for v in directions]
        if any(w is not None for w in turned):
            more = _Again.apply(ctx.problem, ctx.wanted, ctx.moves, ctx.parts, *given, *turned)
            back = [None if b is None else b + m for b, m in zip(back, more[:count], strict=True)]
        by_cotangent = _spread(rest, _there(c))
        if any(w is not None for w in by_cotangent):
            more = _Pull.apply(ctx.problem, ctx.moves, ctx.parts, *tensors, *results, *by_cotangent)
            back = [None if b is None else b + m for b, m in zip(back, more, strict=True)]
        return None, None, None, None, *(None for _ in given), *back

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise TypeError(_THIRD)

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
        raise TypeError(_THIRD)


def _again(problem: Problem, moves: Any, wanted: Any, parts: Any, given: Sequence[Any], v: Sequence[Any]) -> Any:
    """Return what :class:`_Again` gives of tensors by which it has no derivative."""
    fixed = [_Fixed.apply(x) if isinstance(x, torch.Tensor) else x for x in given]
    return _Again.apply(problem, moves, wanted, parts, *fixed, *v)


def _there(given: Sequence[Any]) -> tuple[bool, ...]:
    return tuple(x is not None for x in given)


def _keep(ctx: Any, given: Sequence[Any]) -> None:
    ctx.there = [isinstance(x, torch.Tensor) for x in given]
    ctx.others = [None if there else x for x, there in zip(given, ctx.there, strict=True)]
    there = [x for x in given if isinstance(x, torch.Tensor)]
    ctx.save_for_backward(*there)
    ctx.save_for_forward(*there)
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
