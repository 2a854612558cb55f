"""What nodes of autograd stand for: a solution of any recurrence, and a scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, NoReturn

import torch

from recsolve.base.arrays import Array, from_native, namespace, to_native
from recsolve.base.links import Leaf
from recsolve.gradients.adjoint import adjoint, gradients
from recsolve.gradients.of_windows import WindowsGradients
from recsolve.gradients.scan_adjoint import scan_adjoint
from recsolve.gradients.second import Cotangents, second_adjoint, tangents_of
from recsolve.gradients.second_scan import second_scan_adjoint
from recsolve.gradients.solved import check_differentiable
from recsolve.scan import scan
from recsolve.solution import Solution
from recsolve.windows_solution import WindowsSolution

READOUT: Leaf = ("readout", None)


def native(x: Any) -> Array:
    """Return a tensor without a graph as a native array; one that repeats, as the gradient of a sum does, whole."""
    x = x.detach().resolve_neg()
    return to_native(x.contiguous() if 0 in x.stride() else x, "a tensor")


def _by_leaf(leaves: Sequence[Leaf | None], given: Sequence[Any]) -> dict[Leaf, Array]:
    pairs = zip(leaves, given, strict=True)
    return {leaf: native(x) for leaf, x in pairs if leaf is not None and x is not None}


class Solved:
    """A solution: it has been computed, and is shown.

    Parameters
    ----------
    solution : Solution
    leaves : tuple
        Which of ``recurrence.leaves()`` the tensors are; None for what is kept so that torch tells when it changes.
    """

    def __init__(self, solution: Solution, leaves: tuple[Leaf | None, ...]):
        self.recurrence, self.states, self.leaves = solution.recurrence, solution._iterate.states, leaves
        self.success, self.status = solution.success, solution.status
        self.shown = self.recurrence.output(self.states)
        self.names = ["states"]
        if self.shown is not self.states:
            self.names.append("output")
        if self.recurrence.graph is None and len(self.states):
            self.names.append("final")

    def run(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        shown, self.shown = self.shown, self.states  # whoever is shown the output holds it
        return self._by_name(self.states, shown)

    def _by_name(self, states: Array, output: Array) -> tuple[Any, ...]:
        rec = self.recurrence
        found = {"states": rec.as_given(states), "output": rec.as_given(output), "final": states[-1:]}
        return tuple(rec.wrap(found[name][0] if name == "final" else found[name]) for name in self.names)

    def pull(self, tensors: Any, results: Any, cotangents: Sequence[Any], needed: Any) -> list[Any]:
        check_differentiable(self.recurrence, self.success, self.status)
        c = self._cotangents(cotangents)
        of = self._gradients(c)
        found = [None if x is None else self._by_readout(c.output) if x == READOUT else of(x) for x in self.leaves]
        return distinct(found)

    def _gradients(self, c: Cotangents) -> Callable[[Leaf], Array]:
        """Return what gives the gradient with respect to a leaf."""
        return gradients(self.recurrence, self.states, *c).of

    def pull_again(
        self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], directions: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        v = _by_leaf(self.leaves, directions)
        found = second_adjoint(self.recurrence, self.states, self._cotangents(cotangents), v)
        by_leaf = [None if leaf is None else found.leaves[leaf] for leaf in self.leaves]
        return distinct(by_leaf), [x.clone() for x in self._by_name(found.states, found.output)]

    def push(self, tensors: Sequence[Any], results: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, ...]:
        check_differentiable(self.recurrence, self.success, self.status)
        v = _by_leaf(self.leaves, tangents)
        return tuple(x.clone() for x in self._by_name(*tangents_of(self.recurrence, self.states, v)))

    def batched(self, size: int, dims: Any, tensors: Sequence[Any]) -> None:
        raise TypeError("torch.func.vmap cannot look into a recurrence; take recsolve.interop.autograd.solve_cell")

    def _cotangents(self, given: Sequence[Any]) -> Cotangents:
        c = {name: None if x is None else native(x) for name, x in zip(self.names, given, strict=True)}
        ordered = {n: None if (x := c.get(n)) is None else self.recurrence.in_order(x, n) for n in ("states", "output")}
        return Cotangents(**ordered, final=c.get("final"))

    def _by_readout(self, output: Array | None) -> Array:
        """Return the gradient with respect to the linear readout of a cell."""
        cell = self.recurrence.cell  # type: ignore[attr-defined]
        if output is None:
            return namespace(self.states).zeros_like(cell.readout)  # type: ignore[no-any-return]
        return cell.pull_readout(output, self.states)  # type: ignore[no-any-return]


class SolvedInWindows:
    """A solution in windows: going back solves each again.

    Parameters
    ----------
    solution : WindowsSolution
    leaves : tuple
        Which of ``recurrence.leaves()`` the tensors are; None for what is kept so that torch tells when it changes.

    Raises
    ------
    TypeError
        For a linear readout of a cell, whose gradient needs the states of all windows.
    """

    def __init__(self, solution: WindowsSolution, leaves: tuple[Leaf | None, ...]):
        if READOUT in leaves:
            raise TypeError(
                "every is given, and the projection of the states (weight_hr of an LSTM) requires grad, of which the "
                "gradient in windows is not known; solve without every, or under torch.no_grad()"
            )
        self.solution, self.leaves = copy(solution), leaves  # a copy: the solution itself holds its node
        self.names = ("output", "ends", "final") if solution.recurrence.length else ("output", "ends")

    def run(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        wrap, ends = self.solution.recurrence.wrap, self.solution._ends
        found = {"output": self.solution._output, "ends": ends, "final": ends[-1:].copy()}
        return tuple(wrap(found[name][0] if name == "final" else found[name]) for name in self.names)

    def pull(self, tensors: Any, results: Any, cotangents: Sequence[Any], needed: Any) -> list[Any]:
        rec = self.solution.recurrence
        check_differentiable(rec, self.solution.success, self.solution.status)
        given = {n: None if x is None else rec.wrap(native(x)) for n, x in zip(self.names, cotangents, strict=True)}
        found = WindowsGradients(self.solution, {"final": None, **given}, adjoint)
        return distinct([None if leaf is None else found.of(leaf) for leaf in self.leaves])

    def pull_again(self, *given: Any) -> NoReturn:
        raise TypeError("second derivatives of a solve with every= are not known; solve without every")

    def push(self, *given: Any) -> NoReturn:
        raise TypeError("forward derivatives of a solve with every= are not known; solve without every")

    def batched(self, size: int, dims: Any, tensors: Sequence[Any]) -> None:
        raise TypeError("torch.func.vmap cannot look into a recurrence; take recsolve.interop.autograd.solve_cell")


class Scanned:
    """A scan of elements, the last of its tensors being the initial state or None.

    Parameters
    ----------
    monoid : str, Monoid or type
    given : mapping
        The other arguments of :func:`recsolve.scan`.
    """

    def __init__(self, monoid: Any, given: Mapping[str, Any]):
        self.monoid, self.given = monoid, dict(given)

    def run(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        *elements, initial = (x.detach() if isinstance(x, torch.Tensor) else x for x in tensors)
        return (scan(self.monoid, tuple(elements), initial=initial, **self.given),)

    def pull(
        self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], needed: Sequence[bool]
    ) -> list[Any]:
        *elements, initial = tensors
        c = cotangents[0].resolve_conj().resolve_neg()
        found = scan_adjoint(self.monoid, tuple(elements), results[0], c, initial=initial, **self.given)
        return [g if isinstance(g, torch.Tensor) else None for g in (*found.elements, found.initial)]

    def pull_again(
        self, tensors: Sequence[Any], results: Sequence[Any], cotangents: Sequence[Any], directions: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        *elements, initial = tensors
        c = cotangents[0].resolve_conj().resolve_neg()
        into, start, moved = second_scan_adjoint(
            self.monoid, elements, results[0], c, directions, initial=initial, **self.given
        )
        return [*into, start], [moved]

    def push(self, tensors: Sequence[Any], results: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any]:
        *_, moved = self.pull_again(tensors, results, [torch.zeros_like(results[0])], tangents)
        return (moved[0],)

    def batched(self, size: int, dims: Any, tensors: Sequence[Any]) -> None:
        return None


def distinct(arrays: Sequence[Array | None]) -> list[Any]:
    """Return gradients as tensors of which none shares memory with another one: torch may add to them in place."""
    found: list[Array] = []

    def own(x: Array) -> Array:
        shared = 0 in x.strides or not getattr(x.flags, "writeable", True)
        found.append(x.copy() if shared or any(namespace(x).may_share_memory(x, y) for y in found) else x)
        return found[-1]

    return [None if x is None else from_native(own(x), "torch") for x in arrays]
