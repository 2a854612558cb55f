"""A solution as a Dataset of xarray: dimensions with names, and how it ended as attributes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve._version import __version__
from recsolve.base.arrays import Array, to_host
from recsolve.base.named_state import NamedState
from recsolve.recurrence.base import Recurrence
from recsolve.shown import host, nodes, parts_of
from recsolve.solvers.registry import label

if TYPE_CHECKING:
    from xarray import Dataset

    from recsolve.distributed.solution import ShardedSolution
    from recsolve.solution import Solution
    from recsolve.windows_solution import WindowsSolution

# Names of dimensions and variables here, and of dimensions that a component has where the user gave it no axes.
_OURS = re.compile(
    r"(time|node|batch|iteration|window|row|shown)(_\d+)?|residuals|iterations|converged|row_residual|output"
)
_INNER = re.compile(r"(lane|unit)(_\d+)?")


def dataset(solution: Solution) -> Dataset:
    """Return the Dataset of :meth:`recsolve.Solution.to_xarray`."""
    from xarray import Dataset

    rec, states = solution.recurrence, host(solution)
    lead = (*_axes("time" if rec.graph is None else "node", nodes(rec)), *_axes("batch", len(rec.batch)))
    variables: dict[str, tuple[tuple[str, ...], Array]] = {}
    parts = parts_of(rec, states)
    names = _variables(parts)
    for name, part in parts.items():
        variables[names[name]] = ((*lead, *_own_axes(rec, name, part.ndim - len(lead))), part)
    if rec.readout is not None:
        shown = to_host(rec.as_given(rec.output(solution._iterate.states)))
        variables["output"] = ((*lead, *_axes("shown", shown.ndim - len(lead))), shown)
    variables["converged"] = lead, solution.converged_rows
    variables["residuals"] = ("iteration",), solution.residuals
    if solution.trace is not None:
        kept = solution.trace.residual
        rows = np.full((len(solution.residuals), *kept.shape[1:]), np.nan)  # a completion has no rows of its own
        rows[: len(kept)] = kept
        variables["row_residual"] = ("iteration", "time" if rec.graph is None else "row", *lead[nodes(rec) :]), rows
    return Dataset(variables, _times(rec), _attributes(solution) | _test(solution.tolerance))


def dataset_of_windows(solution: WindowsSolution) -> Dataset:
    """Return the Dataset of :meth:`recsolve.WindowsSolution.to_xarray`."""
    from xarray import Dataset

    rec, output = solution.recurrence, to_host(solution._output)
    batch = _axes("batch", len(rec.batch))
    count = output.ndim - 1 - len(batch)
    flat = rec.readout is not None or isinstance(getattr(rec, "state", None), NamedState)  # no component of its own
    shown = _axes("shown", count) if flat else _own_axes(rec, None, count)
    variables: dict[str, tuple[tuple[str, ...], Array]] = {"output": (("time", *batch, *shown), output)}
    ends = solution._ends if rec.length else rec.initial[None]  # a window without steps ends as it began
    for name, part in parts_of(rec, to_host(ends)).items():
        own = _own_axes(rec, name, part.ndim - 1 - len(batch))
        variables[f"ends_{name}"] = (("window", *batch, *own), part)
    variables["residuals"] = ("window",), solution.residuals
    variables["iterations"] = ("window",), np.array([window.nit for window in solution.windows], dtype=np.int64)
    return Dataset(variables, _times(rec), {**_attributes(solution), "every": solution.every})


def dataset_of_part(local: Solution, start: int, whole: ShardedSolution, more: Mapping[str, Any]) -> Dataset:
    """Return the Dataset of a solution as that of some steps of a whole, from ``start`` on, with attributes of it."""
    found = dataset(local)
    times = np.arange(start, start + local.recurrence.length)
    return found.assign_coords(time=times).assign_attrs(_attributes(whole) | _test(whole.tolerance) | dict(more))


def _times(rec: Recurrence) -> dict[str, Array]:
    return {"time": np.arange(rec.length)} if rec.graph is None else {}


def _own_axes(rec: Recurrence, name: str | None, count: int) -> tuple[str, ...]:
    """Return the names of the axes of a component: those that the user gave, else lanes and units."""
    state = getattr(rec, "state", None)
    if isinstance(state, NamedState) and name in state.axes:
        taken = {*state.axes, *_variables(state.axes).values()}
        return tuple(_distinct(_free(axis, taken) for axis in state.axes[name]))
    units = 0 if rec.layout.units is None else min(count, 1)
    return (*_axes("lane", count - units), *("unit",) * units)


def _axes(name: str, count: int) -> tuple[str, ...]:
    """Return names of axes of one kind: the name itself for one, numbered for several."""
    return (name,) * count if count <= 1 else tuple(f"{name}_{i}" for i in range(count))


def _free(name: str, taken: Collection[str]) -> str:
    """Return a name of the user's, with underscores where it is one of a dimension or of another variable."""
    while _OURS.fullmatch(name) or name in taken:
        name += "_"
    return name


def _variables(names: Iterable[str]) -> dict[str, str]:
    """Return the variables of components: a variable that is called as a dimension would be its coordinate."""
    found: dict[str, str] = {}
    for name in names:
        others = {*names, *found.values()} - {name}
        found[name] = _free(f"{name}_" if _INNER.fullmatch(name) else name, others)
    return found


def _distinct(names: Iterable[str]) -> Iterator[str]:
    """Yield names of axes; one that comes twice, as those of a square matrix do, gets a number."""
    seen: list[str] = []
    for name in names:
        seen.append(name)
        yield name if seen.count(name) == 1 else f"{name}_{seen.count(name)}"


def _attributes(solution: Solution | WindowsSolution | ShardedSolution) -> dict[str, Any]:
    """Return how a solution ended, as numbers and texts that a file can hold."""
    counts: Mapping[str, Any] = {n: value for n, value in solution.stats.items() if value is not None}
    return {
        "method": label(solution.solver), "status": str(solution.status), "message": solution.message,
        "success": int(solution.success), "nit": solution.nit, "converged_prefix": solution.converged_prefix,
        **counts, "recurrence": repr(solution.recurrence), "recsolve": __version__,
    }  # fmt: skip


def _test(tolerance: Any) -> dict[str, Any]:
    return {"tolerance": str(tolerance), "atol": tolerance.atol, "rtol": tolerance.rtol}
