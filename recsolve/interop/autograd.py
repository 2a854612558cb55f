"""Gradients through torch: what ``solve`` and ``scan`` record of tensors that require grad.

A solve of tensors that require grad records one node of autograd, whose backward is the reverse scan of
:func:`recsolve.adjoint`. torch is imported when the first node is recorded.

For layers there is :func:`solve_cell`, one call from tensors to tensors, which ``torch.compile`` and ``torch.func`` can
follow where they cannot look into a recurrence: what is not a tensor is in a :class:`CellSpec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from recsolve import cells, mixings
from recsolve.base.arrays import one_device
from recsolve.base.links import RECORDERS, Leaf, beside, recording
from recsolve.base.shard import Shard, local_of, timeline_of
from recsolve.interop.cell_tensors import SPECS, check_name
from recsolve.recurrence.cell import Cell
from recsolve.solution import Solution
from recsolve.windows_solution import WindowsSolution

__all__ = ["CellResult", "CellSpec", "solve_cell"]


def _record_solution(solution: Solution, linked: Mapping[Leaf, Any]) -> dict[str, Any]:
    """Return states, output and final state as tensors that gradients go back from to the linked ones."""
    from recsolve.interop.autograd_problems import Solved

    found = _recorded(Solved, solution, linked)
    found.setdefault("output", found["states"])
    return found


def _record_windows(solution: WindowsSolution, linked: Mapping[Leaf, Any]) -> dict[str, Any]:
    """Return the same of a solution in windows: output, last states and final state."""
    from recsolve.interop.autograd_problems import SolvedInWindows

    return _recorded(SolvedInWindows, solution, linked)


def record_over_ranks(solution: Any, linked: Mapping[Leaf, Any], *, unconverged: bool = False) -> dict[str, Any]:
    """Return the same of a solution over ranks, of the own steps; all ranks go back together.

    Parameters
    ----------
    solution : ShardedSolution
    linked : mapping of tensors
        As :func:`recsolve.base.links.linked` returns them.
    unconverged : bool
        Whether states that are not met are differentiated as they are.
    """
    from recsolve.interop.autograd_over_ranks import SolvedOverRanks

    found = _recorded(partial(SolvedOverRanks, unconverged=unconverged), solution, linked)
    found.setdefault("output", found["states"])
    return found


def _recorded(problem_of: Callable[..., Any], solution: Any, linked: Mapping[Leaf, Any]) -> dict[str, Any]:
    """Return what a problem of a solution shows, by name; without steps the final state is the initial one."""
    from recsolve.interop.autograd_nodes import record

    others = beside(solution.recurrence, linked)
    problem = problem_of(solution, (*linked, *(None for _ in others)))
    found = dict(zip(problem.names, record(problem, (*linked.values(), *others)), strict=True))
    if ("initial", None) in linked and "final" not in found and solution.recurrence.graph is None:
        found["final"] = linked["initial", None]
    return found


def _record_scan(monoid: Any, elements: Any, *, initial: Any, **given: Any) -> Any:
    """Return the result of a scan, from which gradients go back to the elements and the initial state."""
    from recsolve.interop.autograd_nodes import record
    from recsolve.interop.autograd_problems import Scanned

    axis, tensors = timeline_of({"elements": tuple(elements)}), (*local_of(tuple(elements)), initial)
    problem = Scanned(monoid, given)
    if axis is not None:
        from recsolve.interop.autograd_over_ranks import ScannedOverRanks

        problem = ScannedOverRanks(monoid, given, axis, tuple(isinstance(e, Shard) for e in elements))
    y = (record(problem, tensors) if recording() else problem.run(tensors))[0]
    return y if axis is None else Shard(y, axis)


RECORDERS.update(solution=_record_solution, windows=_record_windows, scan=_record_scan)
RECORDERS["over ranks"] = record_over_ranks

_NUMBERS = count()


@dataclass(frozen=True, eq=False)
class CellSpec:
    """What a solve of a cell depends on besides tensors: the definition, the kinds of mixings, the settings.

    Parameters
    ----------
    cell : Cell or str
        A definition, or the name of a built-in one.
    mixings : mapping, optional
        By the name of every mixing, a function that makes it of its weight, ``lambda w: Masked(Dense(w), mask)`` say;
        default ``Dense``, ``Heads`` or ``Diagonal``, by the axes of the weight.
    settings : mapping
        Keyword arguments of :func:`recsolve.solve`. ``fallback`` is ``"sequential"`` unless it is given.
    ties : float or mapping, optional
        As of ``recurrence(ties=...)``.
    clamp : float, optional
        As of :func:`recsolve.adjoint`.
    observe : callable, optional
        ``observe(solution)`` is called after every solve (to count what the loop had to complete, say), outside of what
        autograd and ``torch.compile`` see.
    unconverged : bool
        Whether states that are not met are differentiated as they are; otherwise that is refused.
    recompute : bool
        Whether to project the input anew on the way back, rather than keep what drives all steps until then.
    event : tuple of int, optional
        (*lanes, n), the axes of a component. It is needed where only mixings of one's own could tell: without
        ``weight.NAME`` and ``parameter.NAME`` among the tensors, and mixings that are made by functions.

    Attributes
    ----------
    key : str
        What operations of torch know it by, as long as it lives.

    Examples
    --------
    >>> from recsolve.interop.autograd import CellSpec
    >>> spec = CellSpec("elman", settings={"method": "newton"})
    >>> spec.definition.mixings
    ('h',)
    """

    cell: Cell | str
    mixings: Mapping[str, Callable[[Any], mixings.Mixing]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    ties: Any = None
    clamp: float | None = None
    observe: Callable[[Solution], None] | None = None
    unconverged: bool = False
    recompute: bool = False
    event: tuple[int, ...] | None = None
    key: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        import recsolve.interop.autograd_ops  # noqa: F401  # torch.compile traces no import

        if self.definition.ragged:
            raise TypeError(
                f"cell is {self.definition.name}, whose components have axes of their own; make its recurrence of the "
                "tensors, and solve that by recsolve.solve"
            )
        object.__setattr__(self, "key", f"{self.definition.name}-{next(_NUMBERS)}")
        SPECS[self.key] = self

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.__post_init__()

    @property
    def definition(self) -> Cell:
        """The definition of the cell."""
        return cells.get(self.cell) if isinstance(self.cell, str) else self.cell


class CellResult(NamedTuple):
    """What :func:`recsolve.interop.autograd.solve_cell` returns.

    Attributes
    ----------
    output : tensor, shape (T, *batch, *lanes, n)
    final : tensor, shape (*batch, *event)
        Of a cell with several components they are its first axis after the batch, in the order of ``Cell.state``.

    Examples
    --------
    >>> import torch
    >>> from recsolve.interop.autograd import CellSpec, solve_cell
    >>> tensors = {"drive.h": torch.ones(5, 3), "mixing.h": torch.zeros(3)}
    >>> output, final = solve_cell(CellSpec("elman"), tensors)
    >>> output.shape, torch.equal(output[-1], final)
    (torch.Size([5, 3]), True)
    """

    output: Any
    final: Any


def solve_cell(spec: CellSpec, tensors: Mapping[str, Any]) -> CellResult:
    """Solve a cell on tensors: from tensors to tensors, with gradients to all that require grad.

    Parameters
    ----------
    spec : CellSpec
        Keep one for the life of a layer: it must be alive when gradients go back.
    tensors : mapping of tensors
        ``"x"`` (T, *batch, input) with ``"weight.NAME"`` (*lanes, n, input) and ``"bias.NAME"`` (*lanes, n) for every
        drive of the cell, or ``"drive.NAME"`` (T, *batch, *lanes, n) for every drive; ``"mixing.NAME"`` for every
        mixing, its weight; ``"parameter.NAME"`` (*lanes, n) for every elementwise parameter; and optionally
        ``"initial"``, which broadcasts to (*batch, *event), and ``"reset"``, bool, (T, *batch). Entries that are None
        are left out. All are on one device and of one dtype.

        Of float16 and bfloat16 the states are float32, and results are rounded to the dtype of the input. Under
        ``torch.autocast`` these may stand beside float32, and results have the dtype that a ``torch.nn.GRU`` returns:
        on the CPU that of the input, on CUDA that of autocast.

    Returns
    -------
    CellResult

    Raises
    ------
    TypeError
        For tensors of mixed dtypes or on several devices; the message names them.
    ValueError
        As :meth:`recsolve.WeightedCell.recurrence` and :func:`recsolve.solve`, and for unknown or missing names.

    Notes
    -----
    It is made of the operations ``recsolve::solve_cell``, ``recsolve::pull_cell`` and ``recsolve::pull_cell_again`` of
    ``torch.library``, the two latter being its first and second derivative.

    Examples
    --------
    >>> import torch, recsolve as rs  # doctest: +SKIP
    >>> from recsolve.interop.autograd import CellSpec, solve_cell  # doctest: +SKIP
    >>> u, a = torch.ones(9, 2, 4), torch.full((4,), 0.5, requires_grad=True)  # doctest: +SKIP
    >>> y, h = solve_cell(CellSpec("elman"), {"drive.h": u, "mixing.h": a})  # doctest: +SKIP
    >>> y.sum().backward()  # doctest: +SKIP
    """
    from recsolve.interop.autograd_ops import event_of, run, shape_of

    given = {name: x for name, x in tensors.items() if x is not None}
    for name in given:
        check_name(name)
    one_device({name: x.device for name, x in given.items()})
    shown, working = _dtypes(given)
    given = {n: x.to(working) if x.is_floating_point() else x for n, x in given.items()}
    names = tuple(given)
    shape, event, cell = (*(of(spec, names, list(given.values())) for of in (shape_of, event_of)), spec.definition)
    if "initial" in given:
        given["initial"] = given["initial"].expand(shape[1:])
    if "reset" in given and given["reset"].ndim == 1:
        lead = shape[: len(shape) - len(event) - (len(cell.state) > 1)]
        given["reset"] = given["reset"].reshape(-1, *(1,) * (len(lead) - 1)).expand(lead)
    states = run(spec, given)
    output = states
    if len(cell.state) > 1:
        output = states.select(-len(event) - 1, cell.state.index(cell.output))
    final = states[-1] if shape[0] else given.get("initial", states.new_zeros(shape[1:]))
    return CellResult(output.to(shown), final.to(shown))


def _dtypes(tensors: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the dtypes of results and of the solve."""
    import torch

    dtypes = {name: x.dtype for name, x in tensors.items() if x.is_floating_point()}
    if not dtypes:
        raise ValueError(f"tensors has {tuple(tensors)}; wanted x or drive.NAME, of floating point")
    first = next((n for n in dtypes if n == "x" or n.startswith("drive.")), next(iter(dtypes)))
    device, halves = tensors[first].device.type, (torch.float16, torch.bfloat16)
    autocast = torch.is_autocast_enabled(device)
    seen = set(dtypes.values())
    if len(seen) > 1 and not (autocast and seen <= {torch.float32, *halves}):
        listed = ", ".join(f"{name} is {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"dtypes are mixed: {listed}; convert the module or the input, or use torch.autocast")
    shown = dtypes[first]
    if autocast and device == "cuda" and shown is not torch.float64:
        shown = torch.get_autocast_dtype(device)
    return shown, torch.float64 if shown is torch.float64 else torch.float32
