"""A solve of a cell, its first and its second derivative as operations of torch. torch is imported with this module.

Their arguments are tensors, the names of these, and the key of a :class:`recsolve.interop.autograd.CellSpec`, so that
``torch.compile`` keeps them as they are, and fake tensors stand for what they return.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recsolve import mixings
from recsolve.base.arrays import Array, from_native
from recsolve.base.links import Leaf
from recsolve.gradients.adjoint import gradients
from recsolve.gradients.second import Cotangents, second_adjoint
from recsolve.gradients.solved import check_differentiable
from recsolve.gradients.tangent import tangent_along
from recsolve.gradients.transposes import sum_to
from recsolve.interop.autograd_nodes import Dims, record
from recsolve.interop.autograd_problems import distinct, native
from recsolve.interop.cell_tensors import SPECS, is_of_sequences, leaf_of
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.projection import Projection
from recsolve.solve import solve

if TYPE_CHECKING:
    from recsolve.interop.autograd import CellSpec

_DEFAULT: dict[int, Callable[[Any], mixings.Mixing]] = {1: mixings.Diagonal, 2: mixings.Dense, 3: mixings.Heads}


def spec_of(key: str) -> CellSpec:
    """Return a specification that is alive."""
    spec: CellSpec | None = SPECS.get(key)
    if spec is None:
        raise RuntimeError(f"the CellSpec {key} is gone; keep it as long as gradients may go back")
    return spec


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
            return tuple(x.shape) if x.ndim == 1 else tuple(x.shape[:-1])
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


def like_states(spec: CellSpec, names: Sequence[str], tensors: Sequence[Any]) -> Any:
    """Return memory of the shape and strides of the states."""
    shape = shape_of(spec, names, tensors)
    widest = max((x for n, x in zip(names, tensors, strict=True) if n == "x" or n.startswith("drive.")), key=_numel)
    leading = len(shape) - len(event_of(spec, names, tensors)) - (len(spec.definition.state) > 1)
    return _empty(shape, widest, leading)


def _numel(x: Any) -> int:
    return prod(x.shape)


# The recurrence ---------------------------------------------------------------------------------------------------


def recurrence_of(
    spec: CellSpec, names: Sequence[str], tensors: Sequence[Any], *, linked: bool = False
) -> CellRecurrence:
    """Return the recurrence of tensors by their names; where it is linked, gradients of a solve go back to these."""
    cell, groups = spec.definition, dict[str, dict[str, Any]]()
    for name, x in zip(names, tensors, strict=True):
        kind, dot, of = name.partition(".")
        groups.setdefault(kind if dot else "", {})[of if dot else name] = x if linked else x.detach()
    plain, drive = groups.pop("", {}), groups.pop("drive", None)
    weights, biases, projection = groups.pop("weight", {}), groups.pop("bias", {}), None
    if weights or biases:
        if set(weights) != set(biases):
            raise ValueError(f"tensors has weights of {tuple(weights)} and biases of {tuple(biases)}; wanted the same")
        projection = Projection(
            {n: weights[n] for n in sorted(weights, key=_order(cell.drives))},
            {n: biases[n] for n in sorted(weights, key=_order(cell.drives))},
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


def _order(names: Sequence[str]) -> Callable[[str], int]:
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


def _placed(x: Array, like: Any) -> Any:
    """Return a native array as a tensor with the strides that a fake one has."""
    found = from_native(x, "torch")
    return found if found.stride() == like.stride() else like.copy_(found)


# Run, pull, and pull again ----------------------------------------------------------------------------------------


class CellProblem:
    """A solve of a cell, as a node of autograd: results are the states, and whether they are the solution.

    Parameters
    ----------
    spec : CellSpec
    names : sequence of str
        Of the tensors, as of :func:`recsolve.interop.autograd.solve_cell`.
    """

    def __init__(self, spec: CellSpec, names: Sequence[str]):
        self.spec, self.names = spec, tuple(names)
        self._last: tuple[list[Any], CellRecurrence, Sequence[Any]] | None = None

    def _recurrence(self, tensors: Sequence[Any]) -> CellRecurrence:
        """Return the recurrence, that of the run if it was of the same memory; it is not kept any longer."""
        last, self._last = self._last, None
        if last is not None and last[0] == _places(tensors):
            return last[1]
        return recurrence_of(self.spec, self.names, tensors)

    def run(self, tensors: Sequence[Any]) -> tuple[Any, Any]:
        recurrence = recurrence_of(self.spec, self.names, tensors)
        solution = solve(recurrence, **{"fallback": "sequential", **self.spec.settings})
        if self.spec.observe is not None:
            self.spec.observe(solution)
        if not self.spec.recompute and not _packed():
            # With the tensors, so that no other one comes to lie in their memory.
            self._last = _places(tensors), recurrence, tensors
        states = _placed(solution._iterate.states, like_states(self.spec, self.names, tensors))
        return states, torch.tensor(solution.success)

    def pull(
        self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], needed: Sequence[bool]
    ) -> list[Any]:
        recurrence = self._recurrence(tensors)
        check_differentiable(recurrence, self.spec.unconverged or bool(results[1]), "not converged")
        states, c = native(results[0]), native(cotangents[0])
        found = gradients(recurrence, states, c, None, None, clamp=self.spec.clamp)
        wanted = zip(self.names, tensors, needed, strict=True)
        return distinct([_gradient(name, x, found.of) if wants else None for name, x, wants in wanted])

    def pull_again(
        self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], directions: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        if self.spec.clamp is not None:
            raise TypeError("clamp is given, and a limited adjoint has no second derivative here; take clamp=None")
        recurrence = self._recurrence(tensors)
        v = {leaf_of(name): native(x) for name, x in zip(self.names, directions, strict=True) if x is not None}
        found = second_adjoint(recurrence, native(results[0]), Cotangents(native(cotangents[0])), v)
        by_tensor = [_gradient(n, x, found.leaves.__getitem__) for n, x in zip(self.names, tensors, strict=True)]
        return distinct(by_tensor), [from_native(found.states, "torch"), None]

    def push(self, tensors: Sequence[Any], results: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, None]:
        recurrence = self._recurrence(tensors)
        check_differentiable(recurrence, bool(results[1]), "not converged")
        v = {leaf_of(name): native(x) for name, x in zip(self.names, tangents, strict=True) if x is not None}
        return from_native(tangent_along(recurrence, native(results[0]), v), "torch"), None

    def batched(self, size: int, dims: Dims, tensors: Sequence[Any]) -> tuple[list[Any], Dims] | None:
        """Put the members of a batch beside the sequences, where they share weights."""
        if any(d is not None and not is_of_sequences(name) for name, d in zip(self.names, dims, strict=True)):
            return None
        return [_among(name, x, d, size) for name, x, d in zip(self.names, tensors, dims, strict=True)], (1, None)


def _places(tensors: Sequence[Any]) -> list[Any]:
    return [(x.data_ptr(), x.shape, x.stride()) for x in tensors]


def _packed() -> bool:
    """Return whether saved tensors are packed, as by ``torch.utils.checkpoint``: what is kept beside would stay.

    Releases of torch before 2.8 do not tell: there they may be.
    """
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return hooks is None or hooks(True) is not None


def _among(name: str, x: Any, d: int | None, size: int) -> Any:
    """Return a tensor with the members of a batch as the axis after time."""
    if not is_of_sequences(name):
        return x
    axis = 0 if name == "initial" else 1
    if d is not None:
        return x.movedim(d, axis)
    return x.unsqueeze(axis).expand(*x.shape[:axis], size, *x.shape[axis:])


def _gradient(name: str, x: Any, of: Callable[[Leaf], Array]) -> Array | None:
    """Return the gradient with respect to a tensor; resets and indices have none."""
    return sum_to(of(leaf_of(name)), tuple(x.shape)) if x.is_floating_point() else None


def run(spec: CellSpec, tensors: Mapping[str, Any]) -> Any:
    """Return the states of a cell, from which gradients go back."""
    if torch.compiler.is_compiling():
        return _solve(list(tensors.values()), ",".join(tensors), spec.key)[0]
    return record(CellProblem(spec, tuple(tensors)), tuple(tensors.values()))[0]


# The operations: the same for torch.compile -----------------------------------------------------------------------


def _problem(names: str, key: str) -> CellProblem:
    return CellProblem(spec_of(key), names.split(","))


@torch.library.custom_op("recsolve::solve_cell", mutates_args=())  # type: ignore[untyped-decorator]
def _solve(tensors: list[Tensor], names: str, key: str) -> tuple[Tensor, Tensor]:
    """Return the states, and whether they are the solution."""
    return _problem(names, key).run(tensors)


@_solve.register_fake  # type: ignore[untyped-decorator]
def _(tensors: Any, names: str, key: str) -> Any:
    return like_states(spec_of(key), names.split(","), tensors), torch.empty((), dtype=torch.bool)


@torch.library.custom_op("recsolve::pull_cell", mutates_args=())  # type: ignore[untyped-decorator]
def _pull(
    cotangent: Tensor, states: Tensor, met: Tensor, tensors: list[Tensor], names: str, key: str, needed: list[bool]
) -> list[Tensor]:
    """Return the gradients with respect to the tensors that need one, for a cotangent of the states."""
    found = _problem(names, key).pull(tensors, (states, met), (cotangent, None), needed)
    return [g.contiguous() for g in found if g is not None]


@_pull.register_fake  # type: ignore[untyped-decorator]
def _(cotangent: Any, states: Any, met: Any, tensors: Any, names: str, key: str, needed: Any) -> Any:
    return [x.new_empty(x.shape) for x, wanted in zip(tensors, needed, strict=True) if wanted]


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    tensors, ctx.names, ctx.key = inputs
    ctx.save_for_backward(*output, *tensors)


def _back(ctx: Any, cotangent: Any, _: Any) -> Any:
    states, met, *tensors = ctx.saved_tensors
    needed = list(ctx.needs_input_grad[0])
    found = iter(_pull(cotangent, states, met, tensors, ctx.names, ctx.key, needed))
    return [next(found) if wanted else None for wanted in needed], None, None


_solve.register_autograd(_back, setup_context=_keep)
