"""What a solution shows of itself: what plots draw, what ``print`` says, and what a summary adds."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.analysis.distance import distance
from recsolve.analysis.exponents import exponents_along
from recsolve.base.arrays import DISCRETE, FLOATS, Array, is_discrete, namespace, to_host, to_native
from recsolve.plot.axes import counted
from recsolve.plot.curves import Curve, floor_of, height_of
from recsolve.plot.exponents import Spectrum
from recsolve.plot.maps import History
from recsolve.plot.states import Trajectory
from recsolve.recurrence.base import Recurrence
from recsolve.solvers.registry import label

if TYPE_CHECKING:
    from recsolve.solution import Solution


def title(solution: Any) -> str:
    """Return by which method it was solved, and how that ended."""
    return f"{solution.solver.name}: {solution.status}, {counted(solution.nit)}"


def host(solution: Solution) -> Array:
    """Return the states as the user has them laid out, on the host."""
    return to_host(solution.recurrence.as_given(solution._iterate.states))


def parts_of(recurrence: Recurrence, states: Array) -> dict[str, Array]:
    """Return states on the host by component; those without names are "h"."""
    try:
        return dict(recurrence._split(states))
    except AttributeError:
        return {"h": states}


def curves(solution: Solution, reference: Any) -> list[Curve]:
    """Return its residuals, and its errors where there is a reference."""
    rec, residuals = solution.recurrence, solution.residuals
    completed = solution.stats["completed_from"] is not None
    errors = [] if reference is None else _errors(solution, reference)
    return [
        Curve(
            label(solution.solver), solution.solver.name, str(solution.status), solution.nit,
            solution.nit + completed, residuals, np.array(errors), height_of(solution.tolerance), floor_of(rec.dtype),
        )
    ]  # fmt: skip


def _errors(solution: Solution, reference: Any) -> list[float]:
    """Return the distance of every iterate that was kept, and of the states returned, to a trajectory."""
    states = host(solution)
    if hasattr(reference, "_iterate"):  # a solution, whose states may be of tensors that require grad
        truth = host(reference)
    else:
        truth = to_host(to_native(reference, "reference", (*FLOATS, *DISCRETE)))
    if truth.shape != states.shape:
        raise ValueError(f"reference has shape {truth.shape}; wanted {states.shape}, that of the states")
    iterates = [] if solution.trace is None else [*solution.trace.iterates]
    return [distance(h, truth) for h in (*iterates[: len(solution.residuals) - 1], states)]


def history(solution: Solution) -> History:
    """Return the residual of every row of every iterate.

    Raises
    ------
    ValueError
        Where it was not kept.
    """
    trace, rec = solution.trace, solution.recurrence
    if trace is None:
        raise ValueError(
            "sol has no trace, which residual_map draws; solve with options={'trace': True}, which keeps the residual "
            "of every row of every iterate"
        )
    steps = "step" if rec.graph is None else "level"
    return History(trace.residual, trace.leading, len(rec.batch), floor_of(rec.dtype), title(solution), steps)


def trajectory(solution: Solution) -> Trajectory:
    """Return its states by component, and which rows are within tolerance; nodes of a graph one after the other."""
    rec, states = solution.recurrence, host(solution)
    flat = (rec.length, *rec.batch)
    parts = {
        name: x.reshape(*flat, *x.shape[nodes(rec) + len(rec.batch) :]) for name, x in parts_of(rec, states).items()
    }
    steps = "step" if rec.graph is None else "node"
    return Trajectory(parts, solution.converged_rows.reshape(flat), rec.batch, title(solution), steps)


def nodes(rec: Recurrence) -> int:
    """Return how many axes steps have as the user lays them out."""
    return 1 if rec.graph is None else len(rec.graph.shape)


def spectrum(solution: Solution, exponents: int | None, pilot: int | None) -> Spectrum:
    """Return the Lyapunov exponents along its first states.

    Raises
    ------
    ValueError
        Where there are none: on a graph, of discrete states, or where J is not known to be the derivative.
    """
    rec = solution.recurrence
    if rec.graph is not None or is_discrete(rec.dtype):
        why = "discrete states have no derivative" if rec.graph is None else "a graph has no single direction of time"
        raise ValueError(f"sol is of {rec!r}, and has no exponents: {why}")
    if solution._derivative.holds is not True:
        raise ValueError(f"sol has no exponents: {solution._derivative.reason}")
    count, steps = 4 if exponents is None else exponents, 256 if pilot is None else pilot
    found = exponents_along(rec, solution._iterate.states, count, steps)
    return Spectrum(found, f"{title(solution)}; along {min(steps, rec.length)} steps")


def facts(solution: Solution) -> dict[str, str]:
    """Return what ``print`` shows, which computes nothing."""
    rec, stats = solution.recurrence, solution.stats
    rows = "rows" if rec.graph is None else "levels"
    asked = "trusted" in vars(solution)
    known = f"{solution.trusted} (error about {solution.error_estimate:.1e})" if asked else "ask sol.trusted"
    waited = stats["compile_seconds"]
    compiled = f", after {waited:.3g} s of compiling" if waited >= 0.1 else ""
    lines = {
        "message": solution.message,
        "method": f"{solution.solver.name}, {solution.nit} iterations in {stats['seconds']:.3g} s" + compiled,
        "recurrence": repr(rec),
        "residual": _falling(solution.residuals) + " (max |f - h| per iterate)",
        "prefix": f"first {solution.converged_prefix} of {rec.depth} {rows} within tolerance, "
        f"first {solution.exact_prefix} exact",
        "evaluations": f"f {stats['nfev']}, J {stats['njev']}, scans {stats['nscan']}",
        "trusted": known,
    }
    if not solution.success:  # otherwise the message says it
        lines["tolerance"] = str(solution.tolerance)
    return lines


def _falling(residuals: Array) -> str:
    """Return the residuals of the iterates, the long middle left out."""
    texts = [f"{r:.1e}" for r in residuals]
    return " -> ".join(texts if len(texts) <= 6 else [*texts[:3], "...", *texts[-2:]])


def details(solution: Solution) -> dict[str, str]:
    """Return what a summary says beside what ``print`` does; it computes the error and the conditioning."""
    rec, stats, states = solution.recurrence, solution.stats, solution._iterate.states
    rows = to_host(solution._iterate.converged)
    whole, several = rows.all(axis=0), rows.ndim > 1
    sequences = f"; {int(whole.sum())} of {whole.size} sequences at all steps" if several else ""
    found = {
        "states": f"{rec.dtype} {rec.kind} {tuple(solution.states.shape)}, {_range(states)}",
        "solved": f"{int(rows.sum())} of {rows.size} rows in all{sequences}",
        "error": f"about {solution.error_estimate:.1e}, kappa {solution.condition:.1e}",
        "work": f"products with J {stats['njvp']}, rows of f {stats['rows']}",
    }
    if stats["completed_from"] is not None:
        found["completed"] = f"by the sequential loop, from row {stats['completed_from']}"
    return found


def _range(states: Array) -> str:
    """Return in words between what the numbers lie, and how many are none."""
    finite = namespace(states).isfinite(states)
    kept = states[finite]
    lost = int(states.size - kept.size)
    said = f"from {float(kept.min()):.3g} to {float(kept.max()):.3g}" if kept.size else "no finite numbers"
    return f"{said}; {lost} of {prod(states.shape)} are inf or NaN" if lost else said
