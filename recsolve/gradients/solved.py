"""What the gradients of a solution start from: whether it may be differentiated, and the cotangent of its states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recsolve.analysis.structure_truth import verify_jacobian
from recsolve.base.arrays import Array, is_discrete, namespace, to_host
from recsolve.base.overriding import patched
from recsolve.gradients.function_gradients import Cotangents, OfCell, pull_function
from recsolve.gradients.of_history import pass_back
from recsolve.jacobians import Jacobian
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.history import HistoryRecurrence
from recsolve.recurrence.weighted_cell import WeightedCell
from recsolve.solution import Solution
from recsolve.windows_solution import WindowsSolution


def cotangent_of(
    rec: Recurrence, trajectory: Array, states: Array | None, output: Array | None
) -> tuple[Array, Cotangents | None]:
    """Return the cotangent of the states, and what a readout depends on besides, of all native cotangents together.

    It may be an array that was given: nothing may write to it.
    """
    c, direct = states, None
    if output is not None and rec.readout is not None:
        direct = pull_readout(rec, rec.readout, trajectory, output)
        c = direct.states if c is None else c + direct.states
    elif output is not None:
        c = _with_output(rec, trajectory, output, c)
    if c is None:
        c = namespace(trajectory).zeros_like(trajectory)
    return c, direct


def with_last(cotangent: Array, incoming: Array | None) -> Array:
    """Return a cotangent of the states with what the last one has beside it: a copy, where that is anything."""
    if incoming is None:
        return cotangent
    c: Array = namespace(cotangent).array(cotangent)
    c[-1] += incoming
    return c


def _with_output(rec: Recurrence, trajectory: Array, output: Array, states: Array | None) -> Array:
    """Return the cotangent of the states for one of the output, and one of the states beside it, in one pass."""
    xp, shown = namespace(trajectory), shown_part(rec)
    if shown is None:
        c = xp.zeros_like(trajectory) if states is None else xp.array(states)
        rec.pull_output(output, c)
        return c  # type: ignore[no-any-return]
    place, count = shown
    if count == 1:
        return output if states is None else states + output
    c = xp.empty_like(trajectory)
    for i in range(count):
        part = rec.layout.component(c, i)
        if states is None:
            part[...] = output if i == place else 0
        elif i == place:
            xp.add(rec.layout.component(states, i), output, out=part)
        else:
            part[...] = rec.layout.component(states, i)
    return c  # type: ignore[no-any-return]


def shown_part(rec: Recurrence) -> tuple[int, int] | None:
    """Return which part of the states the output is, and of how many; None where only ``pull_output`` knows."""
    kind = type(rec)
    if patched(rec):
        return None
    if isinstance(rec, CellRecurrence):
        cell = rec.cell
        known = kind.pull_output is CellRecurrence.pull_output and kind.output is CellRecurrence.output
        if not known or patched(cell) or type(cell).pull_output is not WeightedCell.pull_output:
            return None
        return cell.cell.state.index(cell.cell.output), rec.layout.components
    whole = any(kind.pull_output is k.pull_output and kind.output is k.output for k in (Recurrence, FunctionRecurrence))
    return (0, 1) if whole else None


def check_clamp(clamp: Any, rec: Recurrence) -> None:
    """Raise ValueError for what is no limit, and TypeError where adjoint variables do not follow step by step."""
    if clamp is None:
        return
    if isinstance(clamp, bool) or not isinstance(clamp, (int, float, np.number)) or not clamp > 0:
        raise ValueError(f"clamp is {clamp!r}; wanted a number above 0")
    if not rec.stepwise or rec.graph is not None:
        raise TypeError(f"clamp is given, and {rec.description} does not go from one step to the next")


def clamp_adjoint(g: Array, J: Jacobian, starts: Array, cotangent: Array, clamp: float) -> None:
    """Limit adjoint variables step by step, in place; those after the last step that meets the limit stay."""
    xp, size = namespace(g), g.dtype.type(clamp)
    met = to_host((abs(g) > size).any(axis=tuple(range(1, g.ndim))))
    for t in range(int(np.flatnonzero(met)[-1]) if met.any() else -1, -1, -1):
        if t + 1 < len(g):
            one = slice(t + 1, t + 2)
            back = xp.where(starts[one], g.dtype.type(0), J[one].rmatvec(g[one]))
            g[t] = cotangent[t] + back[0]
        g[t] = xp.clip(g[t], -size, size)


def pull_readout(rec: Recurrence, readout: Callable[..., Any], trajectory: Array, cotangent: Array) -> Cotangents:
    """Return the cotangents of states, inputs and parameters for one of what a readout gives."""
    for base in (FunctionRecurrence, CellRecurrence):
        if isinstance(rec, base) and type(rec).output is base.output:
            if isinstance(rec, HistoryRecurrence):
                return pass_back(rec, readout, trajectory, cotangent)
            known = rec if isinstance(rec, FunctionRecurrence) else OfCell(rec)
            return pull_function(known, readout, trajectory, cotangent, state=True)
    raise TypeError(f"{type(rec).__name__} overrides output, so how it depends on the states is not known")


def recurrence_of(solution: Any, unconverged: bool, *, windows: bool = False) -> Recurrence:
    """Return what a solution solves; raise for what is no solution, or one that is not to be differentiated.

    With ``windows`` that of windows is one too.
    """
    if not isinstance(solution, Solution) and not (windows and isinstance(solution, WindowsSolution)):
        own = "; it has an adjoint of its own, solution.adjoint()" if hasattr(solution, "adjoint") else ""
        if getattr(getattr(solution, "recurrence", None), "timeline", None) is not None:
            own = "; of derivatives over ranks there is recsolve.adjoint; solution.local is that of the own steps"
        elif isinstance(solution, WindowsSolution):
            own = "; one of every= has an adjoint alone, as tangents take all states: solve without it"
        raise TypeError(f"solution is {type(solution).__name__}; wanted a Solution, as recsolve.solve returns{own}")
    check_differentiable(solution.recurrence, solution.success or unconverged, solution.status)
    return solution.recurrence


def check_differentiable(rec: Recurrence, success: bool, status: Any) -> None:
    """Raise for discrete states, and for states that are no solution."""
    if is_discrete(rec.dtype):
        raise TypeError(f"solution has states of {rec.dtype}, which have no derivatives")
    if not success:
        raise ValueError(
            f"solution is {status}, and its derivative is that of the recurrence only where the residual is "
            "met; solve with fallback='sequential', or pass unconverged=True"
        )


def check_jacobian(rec: Recurrence, previous: Array, J: Jacobian) -> None:
    """Refuse a declared structure or Jacobian that is not the derivative: solvers tolerate it, gradients are wrong."""
    found = verify_jacobian(rec, previous, J)
    if found.holds is False:
        raise ValueError(
            f"{found.reason}, at the solution; a gradient needs the true one: recsolve.check_structure finds which "
            "structure holds"
        )
