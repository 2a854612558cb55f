"""A solve of a cell, its first and its second derivative as operations of torch. torch is imported with this module.

Their arguments are tensors, the names of these, and the key of a :class:`recsolve.interop.autograd.CellSpec`, so that
``torch.compile`` keeps them as they are, and fake tensors stand for what they return.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from recsolve import mixings
from recsolve.base.arrays import Array, from_native, to_native
from recsolve.gradients.adjoint import gradients
from recsolve.gradients.second import Cotangents, second_adjoint
from recsolve.gradients.solved import check_differentiable
from recsolve.gradients.transposes import sum_to
from recsolve.interop.autograd import SPECS, CellSpec, leaf_of
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.projection import Projection
from recsolve.solve import solve

_DEFAULT: dict[int, Callable[[Any], mixings.Mixing]] = {1: mixings.Diagonal, 2: mixings.Dense, 3: mixings.Heads}


def spec_of(key: str) -> CellSpec:
    """Return a specification that is alive."""
    spec = SPECS.get(key)
    if spec is None:
        raise RuntimeError(f"the CellSpec {key} is gone; keep it as long as gradients may go back")
    return spec


def run(spec: CellSpec, tensors: Mapping[str, Any]) -> Any:
    """Return the states of a cell, from which gradients go back."""
    states, _ = _solve(list(tensors.values()), ",".join(tensors), spec.key)
    return states


# Shapes, which are known before there are numbers ----------------------------------------------------------------


def event_of(spec: CellSpec, names: Sequence[str], tensors: Sequence[Any]) -> tuple[int, ...]:
    """Return (*lanes, n), the axes of a component."""
    if spec.event is not None:
        return tuple(spec.event)
    for kind, last in (("weight.", -1), ("bias.", None), ("parameter.", None)):
        for name, x in zip(names, tensors, strict=True):
            if name.startswith(kind):
                return tuple(x.shape[:last])
    for name, x in zip(names, tensors, strict=True):
        if name.startswith("mixing.") and name[7:] not in (spec.mixings or {}):
            return tuple(x.shape[:-1]) if x.ndim != 2 else tuple(x.shape[:1])
    drives = {n: tuple(x.shape) for n, x in zip(names, tensors, strict=True) if n.startswith("drive.")}
    raise ValueError(f"drives have shapes {drives}, which do not show their lanes; give CellSpec(event=(*lanes, n))")


def shape_of(spec: CellSpec, names: Sequence[str], tensors: Sequence[Any]) -> tuple[int, ...]:
    """Return (T, *batch, *event)."""
    event, components = event_of(spec, names, tensors), len(spec.definition.state)
    leads = [
        tuple(x.shape[:-1] if name == "x" else x.shape[: x.ndim - len(event)])
        for name, x in zip(names, tensors, strict=True)
        if name == "x" or name.startswith("drive.")
    ]
    if not leads:
        raise ValueError(f"tensors has {tuple(names)}; wanted x or drive.NAME among them")
    lead = tuple(torch.broadcast_shapes(*leads))
    return (*lead, *((components,) if components > 1 else ()), *event)


def _empty(shape: tuple[int, ...], like: Any, leading: int) -> Any:
    """Return memory whose leading axes lie in the order of those of ``like``."""
    first = sorted(range(leading), key=lambda axis: -like.stride(axis))
    order = [*first, *range(leading, len(shape))]
    buffer = like.new_empty([shape[axis] for axis in order])
    return buffer.permute([order.index(axis) for axis in range(len(shape))])


def _like_states(names: str, tensors: Sequence[Any], key: str) -> Any:
    spec, listed = spec_of(key), names.split(",")
    shape = shape_of(spec, listed, tensors)
    widest = max((x for n, x in zip(listed, tensors, strict=True) if n == "x" or n.startswith("drive.")), key=_numel)
    leading = len(shape) - len(event_of(spec, listed, tensors)) - (len(spec.definition.state) > 1)
    return _empty(shape, widest, leading)


def _numel(x: Any) -> int:
    return prod(x.shape)


# The recurrence ---------------------------------------------------------------------------------------------------


def recurrence_of(spec: CellSpec, names: Sequence[str], tensors: Sequence[Any]) -> CellRecurrence:
    """Return the recurrence of tensors by their names."""
    cell, groups = spec.definition, dict[str, dict[str, Any]]()
    for name, x in zip(names, tensors, strict=True):
        kind, dot, of = name.partition(".")
        groups.setdefault(kind if dot else "", {})[of if dot else name] = x.detach()
    plain, drive = groups.pop("", {}), groups.pop("drive", None)
    weights, biases, projection = groups.pop("weight", {}), groups.pop("bias", {}), None
    if weights or biases:
        if set(weights) != set(biases):
            raise ValueError(f"tensors has weights of {tuple(weights)} and biases of {tuple(biases)}; wanted the same")
        projection = Projection(
            {n: weights[n] for n in sorted(weights, key=_places(cell.drives))},
            {n: biases[n] for n in sorted(weights, key=_places(cell.drives))},
        )
    made = cell.with_weights(
        mixings={n: _mixing(spec, n, w) for n, w in groups.pop("mixing", {}).items()},
        parameters=groups.pop("parameter", {}),
        projection=projection,
        hidden_size=None if projection or cell.mixings else prod(event_of(spec, names, tensors)),
    )
    return made.recurrence(
        plain.get("x"), drive=drive, initial=plain.get("initial"), reset=plain.get("reset"), ties=spec.ties
    )


def _places(names: Sequence[str]) -> Callable[[str], int]:
    return lambda name: names.index(name) if name in names else len(names)


def _mixing(spec: CellSpec, name: str, weight: Any) -> mixings.Mixing:
    make = (spec.mixings or {}).get(name) or _DEFAULT.get(weight.ndim)
    if make is None:
        raise ValueError(f"mixing.{name} has shape {tuple(weight.shape)}; wanted (n,), (n, n) or (H, n, n)")
    made = make(weight)
    if tuple(made.weight.shape) != tuple(weight.shape):
        raise ValueError(
            f"mixing.{name} has shape {tuple(weight.shape)}, and the mixing that is made of it has a weight "
            f"{tuple(made.weight.shape)}; wanted the weight itself"
        )
    return made


def _array(x: Any) -> Array:
    return to_native(x.detach().resolve_neg(), "a tensor")


def _placed(x: Array, like: Any) -> Any:
    """Return a native array as a tensor with the strides that a fake one has."""
    found = from_native(x, "torch")
    return found if found.stride() == like.stride() else like.copy_(found)


# The operations ---------------------------------------------------------------------------------------------------


@torch.library.custom_op("recsolve::solve_cell", mutates_args=())
def _solve(tensors: list[Tensor], names: str, key: str) -> tuple[Tensor, Tensor]:
    """Return the states, and whether they are the solution."""
    spec = spec_of(key)
    recurrence = recurrence_of(spec, names.split(","), tensors)
    solution = solve(recurrence, **{"fallback": "sequential", **spec.settings})
    if spec.observe is not None:
        spec.observe(solution)
    states = _placed(solution._iterate.states, _like_states(names, tensors, key))
    return states, torch.tensor(solution.success)


@_solve.register_fake
def _(tensors: Any, names: str, key: str) -> Any:
    return _like_states(names, tensors, key), torch.empty((), dtype=torch.bool)


@torch.library.custom_op("recsolve::pull_cell", mutates_args=())
def _pull(
    cotangent: Tensor, states: Tensor, met: Tensor, tensors: list[Tensor], names: str, key: str, needed: list[bool]
) -> list[Tensor]:
    """Return the gradients with respect to the tensors that need one, for a cotangent of the states."""
    spec, listed = spec_of(key), names.split(",")
    recurrence = recurrence_of(spec, listed, tensors)
    check_differentiable(recurrence, spec.unconverged or bool(met), "not converged")
    found = gradients(recurrence, _array(states), _array(cotangent), None, None, clamp=spec.clamp)
    wanted = zip(listed, tensors, needed, strict=True)
    return [_gradient(found.of(leaf_of(name)), x) for name, x, wants in wanted if wants]


def _gradient(g: Array, x: Any) -> Any:
    """Return a gradient in memory of its own."""
    return x.new_empty(x.shape).copy_(from_native(sum_to(g, tuple(x.shape)), "torch"))


@_pull.register_fake
def _(cotangent: Any, states: Any, met: Any, tensors: Any, names: str, key: str, needed: Any) -> Any:
    return [x.new_empty(x.shape) for x, wants in zip(tensors, needed, strict=True) if wants]


@torch.library.custom_op("recsolve::pull_cell_again", mutates_args=())
def _pull_again(
    directions: list[Tensor],
    cotangent: Tensor,
    states: Tensor,
    met: Tensor,
    tensors: list[Tensor],
    names: str,
    key: str,
    moving: list[bool],
) -> list[Tensor]:
    """Return the gradients of what ``pull_cell`` returned: by the cotangent, and by every float tensor."""
    spec, listed = spec_of(key), names.split(",")
    if spec.clamp is not None:
        raise TypeError("clamp is given, and a limited adjoint has no second derivative here; take clamp=None")
    recurrence = recurrence_of(spec, listed, tensors)
    there = [name for name, moves in zip(listed, moving, strict=True) if moves]
    v = {leaf_of(name): _array(x) for name, x in zip(there, directions, strict=True)}
    found = second_adjoint(recurrence, _array(states), Cotangents(_array(cotangent)), v)
    by_tensor = [_gradient(found.leaves[leaf_of(n)], x) for n, x in zip(listed, tensors, strict=True) if n != "reset"]
    return [_gradient(found.states, cotangent), *by_tensor]


@_pull_again.register_fake
def _(directions: Any, cotangent: Any, states: Any, met: Any, tensors: Any, names: str, key: str, moving: Any) -> Any:
    listed = zip(names.split(","), tensors, strict=True)
    return [cotangent.new_empty(cotangent.shape), *(x.new_empty(x.shape) for n, x in listed if n != "reset")]


# Their derivatives ------------------------------------------------------------------------------------------------


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    tensors, ctx.names, ctx.key = inputs
    ctx.spec = spec_of(ctx.key)  # which lives as long as gradients may go back
    states, met = output
    ctx.save_for_backward(states, met, *tensors)


def _back(ctx: Any, cotangent: Any, _: Any) -> Any:
    states, met, *tensors = ctx.saved_tensors
    needed = list(ctx.needs_input_grad[0])
    if cotangent is None or not any(needed):
        return [None] * len(needed), None, None
    found = iter(_pull(cotangent, states, met, tensors, ctx.names, ctx.key, needed))
    return [next(found) if wants else None for wants in needed], None, None


_solve.register_autograd(_back, setup_context=_keep)


def _keep_pull(ctx: Any, inputs: Any, output: Any) -> None:
    cotangent, states, met, tensors, ctx.names, ctx.key, ctx.needed = inputs
    ctx.spec = spec_of(ctx.key)
    ctx.save_for_backward(cotangent, states, met, *tensors)


def _back_pull(ctx: Any, directions: Any) -> Any:
    cotangent, states, met, *tensors = ctx.saved_tensors
    given = iter(directions)
    by_tensor = [next(given) if wants else None for wants in ctx.needed]
    moving = [x is not None for x in by_tensor]
    there = [x for x in by_tensor if x is not None]
    if not there:
        return None, None, None, [None] * len(tensors), None, None, None
    by_cotangent, *found = _pull_again(there, cotangent, states, met, tensors, ctx.names, ctx.key, moving)
    rest = iter(found)
    back = [None if name == "reset" else next(rest) for name in ctx.names.split(",")]
    return by_cotangent, None, None, back, None, None, None


_pull.register_autograd(_back_pull, setup_context=_keep_pull)
