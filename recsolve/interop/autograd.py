"""Gradients through torch: what ``solve`` and ``scan`` record of tensors that require grad.

A solve of tensors that require grad records one node of autograd, whose backward is the reverse scan of
:func:`recsolve.adjoint`. torch is imported when the first node is recorded.

For layers there is :func:`solve_cell`, one call from tensors to tensors, which ``torch.compile`` and ``torch.func`` can
follow where they cannot look into a recurrence: what is not a tensor is in a :class:`CellSpec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from recsolve import cells, mixings
from recsolve.base.links import RECORDERS, Leaf
from recsolve.recurrence.cell import Cell
from recsolve.recurrence.projection import Projection
from recsolve.solution import Solution
from recsolve.solve import solve


def _record_solution(solution: Solution, linked: Mapping[Leaf, Any]) -> dict[str, Any]:
    """Return states, output and final state as tensors that gradients go back from to the linked ones."""
    from recsolve.interop.autograd_nodes import Solved, record

    problem = Solved(solution, tuple(linked))
    found = dict(zip(problem.names, record(problem, tuple(linked.values())), strict=True))
    found.setdefault("output", found["states"])
    if ("initial", None) in linked and not solution.recurrence.length:
        found["final"] = linked["initial", None]
    return found


def _record_scan(monoid: Any, elements: Any, *, initial: Any, **given: Any) -> Any:
    """Return the result of a scan, from which gradients go back to the elements and the initial state."""
    from recsolve.interop.autograd_nodes import Scanned, record, recording

    problem = Scanned(monoid, len(elements), given)
    if not recording():
        return problem.run([*elements, initial])
    return record(problem, (*elements, initial))[0]


RECORDERS.update(solution=_record_solution, scan=_record_scan)


@dataclass(frozen=True)
class CellSpec:
    """What a solve of a cell depends on besides tensors: the definition, the kinds of mixings, the settings.

    Parameters
    ----------
    cell : Cell or str
        A definition, or the name of a built-in one.
    mixings : mapping, optional
        By the name of every mixing, a function that makes it of its weight; default ``Dense``, ``Heads`` or
        ``Diagonal``, by the axes of the weight and of the states.
    settings : mapping
        Keyword arguments of :func:`recsolve.solve`. ``fallback`` is ``"sequential"`` unless it is given.
    ties : float or mapping, optional
        As of ``recurrence(ties=...)``.
    clamp : float, optional
        Every entry of the adjoint variables' cotangents that come in is limited to this size.
    observe : callable, optional
        ``observe(solution)`` is called after every solve (to count what the loop had to complete, say), outside of what
        autograd and ``torch.compile`` see.
    """

    cell: Cell | str
    mixings: Mapping[str, Callable[[Any], mixings.Mixing]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    ties: Any = None
    clamp: float | None = None
    observe: Callable[[Solution], None] | None = None

    @property
    def definition(self) -> Cell:
        """The definition of the cell."""
        return cells.get(self.cell) if isinstance(self.cell, str) else self.cell


class CellResult(NamedTuple):
    """What :func:`solve_cell` returns.

    Attributes
    ----------
    output : tensor, shape (T, *batch, *lanes, n)
    final : tensor, shape (*batch, *event)
        Of a cell with several components they are its first axis after the batch, in the order of ``Cell.state``.
    """

    output: Any
    final: Any


def solve_cell(spec: CellSpec, tensors: Mapping[str, Any]) -> CellResult:
    """Solve a cell on tensors: from tensors to tensors, with gradients to all that require grad.

    Parameters
    ----------
    spec : CellSpec
        Keep one for the life of a layer; equal names with another meaning need another spec.
    tensors : mapping of tensors
        ``"x"`` (T, *batch, input) with ``"weight.NAME"`` (*lanes, n, input) and ``"bias.NAME"`` (*lanes, n) for every
        drive of the cell, or ``"drive.NAME"`` (T, *batch, *lanes, n) for every drive; ``"mixing.NAME"`` for every
        mixing, its weight; ``"parameter.NAME"`` (*lanes, n) for every elementwise parameter; and optionally
        ``"initial"`` (*batch, *event) and ``"reset"``, bool, (T, *batch). All on one device, of float32 or float64.

    Returns
    -------
    CellResult

    Raises
    ------
    TypeError, ValueError
        As :meth:`recsolve.WeightedCell.recurrence` and :func:`recsolve.solve`, and for unknown or missing names.

    Examples
    --------
    >>> import torch, recsolve as rs  # doctest: +SKIP
    >>> from recsolve.interop.autograd import CellSpec, solve_cell  # doctest: +SKIP
    >>> u, a = torch.ones(9, 2, 4), torch.full((4,), 0.5, requires_grad=True)  # doctest: +SKIP
    >>> y, h = solve_cell(CellSpec("elman"), {"drive.h": u, "mixing.h": a})  # doctest: +SKIP
    >>> y.sum().backward()  # doctest: +SKIP
    """
    solution = solve_native(spec, tensors)
    return CellResult(solution.output, solution.final)


def solve_native(spec: CellSpec, tensors: Mapping[str, Any]) -> Solution:
    """Return the solution that :func:`solve_cell` shows."""
    cell, groups = spec.definition, _grouped(tensors)
    weights = groups.pop("mixing", {})
    makers = {name: (spec.mixings or {}).get(name, _default_mixing) for name in weights}
    projection = None
    if "weight" in groups or "bias" in groups:
        given, biases = groups.pop("weight", {}), groups.pop("bias", {})
        ordered = [name for name in cell.drives if name in given]
        projection = Projection({n: given[n] for n in (ordered or given)}, {n: biases[n] for n in (ordered or biases)})
    made = cell.with_weights(
        mixings={name: makers[name](w) for name, w in weights.items()},
        parameters=groups.pop("parameter", {}),
        projection=projection,
        hidden_size=_hidden_size(cell, groups) if projection is None and not weights else None,
    )
    plain = groups.pop("", {})
    recurrence = made.recurrence(
        plain.get("x"), drive=groups.pop("drive", None), initial=plain.get("initial"), reset=plain.get("reset"),
        ties=spec.ties,
    )  # fmt: skip
    solution = solve(recurrence, **{"fallback": "sequential", **spec.settings})
    if spec.observe is not None:
        spec.observe(solution)
    return solution


_PLAIN = ("x", "initial", "reset")
_KINDS = ("weight", "bias", "drive", "mixing", "parameter")


def _grouped(tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return tensors by kind and name; those without a kind under ``""``."""
    groups: dict[str, dict[str, Any]] = {}
    for key, x in tensors.items():
        kind, dot, name = key.partition(".")
        if not (key in _PLAIN or (dot and kind in _KINDS)):
            wanted = ", ".join((*_PLAIN, *(f"{kind}.NAME" for kind in _KINDS)))
            raise ValueError(f"tensors has {key!r}; wanted some of {wanted}")
        if x is not None:
            groups.setdefault(kind if dot else "", {})[name if dot else key] = x
    return groups


def _default_mixing(weight: Any) -> mixings.Mixing:
    kinds: dict[int, Callable[[Any], mixings.Mixing]] = {1: mixings.Diagonal, 2: mixings.Dense, 3: mixings.Heads}
    if (kind := kinds.get(weight.ndim)) is None:
        raise ValueError(f"a mixing weight has shape {tuple(weight.shape)}; wanted (n,), (n, n) or (H, n, n)")
    return kind(weight)


def _hidden_size(cell: Cell, groups: Mapping[str, Mapping[str, Any]]) -> int | None:
    drives = groups.get("drive", {})
    return int(next(iter(drives.values())).shape[-1]) if drives else None


__all__ = ["CellResult", "CellSpec", "solve_cell"]
