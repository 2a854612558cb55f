"""Several solvers on one recurrence: the history and the time of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from recsolve.analysis.distance import distance
from recsolve.base.arrays import DISCRETE, FLOATS, Array, to_native
from recsolve.recurrence.base import Recurrence
from recsolve.solution import Solution
from recsolve.solve import IntermediateResult, solve
from recsolve.solvers import Method, get
from recsolve.solvers.registry import check_applies, which_apply
from recsolve.studies.groups import label
from recsolve.studies.timing import in_turns

INAPPLICABLE = "inapplicable"  # the status of a solver that cannot solve such recurrences
_REPEATS, _ENOUGH_SECONDS = 3, 2.0  # time each solver thrice, or once if that takes longer


@dataclass(frozen=True)
class Entry:
    """One solver's line of the table and its curves.

    Attributes
    ----------
    solver, group, status, message : str
        ``status`` is "error" when the solver raised; ``message`` then holds the exception. It is "inapplicable" for one
        that cannot solve recurrences of this kind; ``message`` says why.
    iterations : int
    residual : float
        max |f(h[t-1]) - h[t]| of the states returned. (The message of what converged states the test that it has met.)
    error : float
        max |h - h_loop|; of discrete states, the share that differs.
    seconds : float
        Median wall time, compilation left out.
    relative : float
        ``seconds`` over those of the sequential loop.
    trusted : bool or None
        Whether the error that its residual and rounding cause is estimated to be small, too; None where there is none.
    condition : float
        kappa at the solution.
    residuals, errors : list of float
        Of every iterate.
    """

    solver: str
    group: str
    status: str
    message: str
    iterations: int
    residual: float
    error: float
    seconds: float
    relative: float
    trusted: bool | None
    condition: float
    residuals: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Return the entry without its curves."""
        return {name: value for name, value in asdict(self).items() if name not in ("residuals", "errors")}


def race(
    recurrence: Recurrence,
    solvers: Sequence[str | Method],
    *,
    tol: float | None,
    maxiter: int | None,
    tick: Callable[[str, int], None] | None = None,
) -> Iterator[Entry]:
    """Yield one entry per solver, in order; an exception of one solver becomes its entry.

    Parameters
    ----------
    recurrence : Recurrence
    solvers : sequence of str or Method
    tol, maxiter
        As in :func:`recsolve.solve`.
    tick : callable, optional
        ``tick(solver, iteration)`` after every iterate, for progress displays.
    """
    reference = solve(recurrence, method="sequential", tol=tol)
    truth = _native(reference.states)
    base = _seconds(lambda: solve(recurrence, method="sequential", tol=tol))
    for solver in solvers:
        try:
            check_applies(get(solver), recurrence)
        except TypeError:
            yield _without_numbers(solver, INAPPLICABLE, f"not applicable (n/a); wanted {which_apply(recurrence)}")
            continue
        try:
            yield _entry(recurrence, solver, truth, base, tol, maxiter, tick)
        except Exception as error:  # of any type: a solver calls f, the user's own code
            yield _without_numbers(solver, "error", f"{type(error).__name__}: {error}")


def _without_numbers(solver: str | Method, status: str, message: str) -> Entry:
    nan = float("nan")
    return Entry(label(solver), get(solver).group, status, message, 0, nan, nan, nan, nan, None, nan)


def _entry(
    recurrence: Recurrence,
    solver: str | Method,
    truth: Array,
    base: float,
    tol: float | None,
    maxiter: int | None,
    tick: Callable[[str, int], None] | None,
) -> Entry:
    errors: list[float] = []
    name = label(solver)

    def watch(intermediate: IntermediateResult) -> None:
        errors.append(distance(_native(intermediate.states), truth))
        if tick is not None:
            tick(name, intermediate.nit)

    def run(callback: Any = None) -> Solution:
        return solve(recurrence, method=solver, tol=tol, maxiter=maxiter, callback=callback)

    solution = run(watch)
    seconds = base if name == "sequential" else _seconds(run)
    return Entry(
        solver=name,
        group=get(solver).group,
        status=str(solution.status),
        message=solution.message,
        iterations=solution.nit,
        residual=float(solution.residuals[-1]),
        error=errors[-1],
        seconds=seconds,
        relative=seconds / base if base else float("nan"),
        trusted=solution.trusted if solution.success else False,
        condition=solution.condition,
        residuals=[float(r) for r in solution.residuals],
        errors=errors,
    )


def _native(states: Array) -> Array:
    return to_native(states, "states", (*FLOATS, *DISCRETE))


def _seconds(run: Callable[[], Any]) -> float:
    return float(np.median(in_turns([run], _REPEATS, _ENOUGH_SECONDS)))
