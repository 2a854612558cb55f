"""solve(): check the arguments, run the driver, fall back, and report what was reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import numpy as np

from recsolve import solvers
from recsolve.analysis.rounding_at import rounding_at
from recsolve.base.arguments import check_callable
from recsolve.base.arrays import Array, UserArray, freeze, is_discrete, kind_of, namespace, to_host
from recsolve.base.links import linked
from recsolve.base.shard import OVER_RANKS
from recsolve.base.status import MISMATCH, Status
from recsolve.base.tolerance import Tolerance, tolerance_for
from recsolve.guess import first_iterate
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.recurrence.base import Recurrence, check_recurrence
from recsolve.recurrence.binding import walking
from recsolve.recurrence.current import checked_once
from recsolve.recurrence.scale import ordinary
from recsolve.solution import ConvergenceError, Solution, exact_prefix
from recsolve.solve_trace import Trace
from recsolve.solvers.acceptance import Acceptance
from recsolve.solvers.active import Active, Guess
from recsolve.solvers.driver import Observe, Run
from recsolve.solvers.evaluation import Settled
from recsolve.solvers.iterate import Iterate, leading_times
from recsolve.solvers.problem import Problem
from recsolve.solvers.registry import check_applies
from recsolve.solvers.settings import whole_number
from recsolve.windows import Windows
from recsolve.windows_solution import WindowsSolution, solve_windows

Fallback = Literal["none", "sequential", "raise"]
_DRIVER_OPTIONS: dict[str, Any] = {
    "atol": None, "rtol": None, "pin": True, "patience": 20, "trace": False, "accept": None
}  # fmt: skip


@dataclass(frozen=True)
class IntermediateResult:
    """The argument of a callback.

    Attributes
    ----------
    states : array, shape (T, *batch, *event)
        Those of the iterate, read-only.
    nit : int
        Its number, 0 for the guess.
    residual : float
        max |r|, NaN if any entry is.
    converged_rows : array of bool, shape (T, *batch)
        Rows of which every entry meets the tolerance.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 0.5 * h + u, inputs=np.ones((3, 1)), initial=np.zeros(1), structure="diagonal")
    >>> sol = rs.solve(rec, callback=lambda now: print(now.nit, now.residual, int(now.converged_rows.sum())))
    0 0.5 1
    1 0.0 3
    """

    states: Any
    nit: int
    residual: float
    converged_rows: Array


@overload
def solve(
    recurrence: Recurrence[UserArray],
    *,
    method: str | solvers.Method = ...,
    tol: float | None = ...,
    maxiter: int | None = ...,
    guess: Any = ...,
    callback: Callable[[IntermediateResult], None] | None = ...,
    options: Mapping[str, Any] | None = ...,
    fallback: Fallback = ...,
    every: None = None,
) -> Solution[UserArray]:
    """Solve for all t together; ``help(recsolve.solve)`` describes the arguments."""


@overload
def solve(
    recurrence: Recurrence[UserArray],
    *,
    method: str | solvers.Method = ...,
    tol: float | None = ...,
    maxiter: int | None = ...,
    guess: Any = ...,
    callback: None = None,
    options: Mapping[str, Any] | None = ...,
    fallback: Fallback = ...,
    every: int,
) -> WindowsSolution[UserArray]:
    """Solve windows of ``every`` steps one after the other; ``help(recsolve.solve)`` describes the arguments."""


def solve(
    recurrence: Recurrence,
    *,
    method: str | solvers.Method = "newton",
    tol: float | None = None,
    maxiter: int | None = None,
    guess: Any = None,
    callback: Callable[[IntermediateResult], None] | None = None,
    options: Mapping[str, Any] | None = None,
    fallback: Fallback = "none",
    every: int | None = None,
) -> Solution | WindowsSolution:
    """Solve h[t] = f(h[t-1], u[t]) for all t.

    Parameters
    ----------
    recurrence : Recurrence
        From ``cell.recurrence(x)`` or ``Recurrence.from_function``.
    method : str or Solver
        A name (``recsolve solvers`` lists them) or a solver object.
    tol : float, optional
        atol = rtol = tol of the test of every entry, |r| <= atol m + rtol max(|h|, |f|) with r = f(h[t-1], u[t]) -
        h[t] and m = 1. Default 4 eps max(1, ``recurrence.rounding``), at most 64 eps: a few units in the last place;
        and where units couple (``recurrence.rounding`` > 0), m is then the largest of 1 and all |h|, |f| in the entry's
        lane at its step. Where states are tiny or huge, the default counts in ``recurrence.state_scale`` in
        place of 1. Discrete states are tested for equality. ``print(sol.tolerance)`` states what has been tested, with
        its numbers.
    maxiter : int, optional
        Default T + 2, within which the pin makes every method end.
    guess : {"step", "zeros", "coarse", "frozen_gates"}, array, mapping, callable or Solution, optional
        First iterate. Default "step": f(h[0], u[t]) at every t. "coarse": the sequential loop over every sqrt(T)-th
        step, then f from these states at every t. "frozen_gates": of a cell of which one linear loop is left where its
        mixings are held (LSTM, GRU, sLSTM, ...), that loop solved exactly, twice; a ValueError says why for other
        cells. An array has the shape of the states, or broadcasts to it (a constant); a mapping has arrays of named
        components, and what is missing is 0. A callable ``guess(recurrence)`` returns one of these: with ``windowed``
        it is called of every window, whose ``recurrence.initial`` is the state that is solved before it. A Solution
        starts from its states: a warm start.
    callback : callable, optional
        ``callback(intermediate_result)`` after every iterate, the guess included, with fields ``states`` (read-only),
        ``nit``, ``residual`` and ``converged_rows``; StopIteration ends the solve with status ``stopped``.
    options : mapping, optional
        Settings of the solver, and of the driver: ``atol``, ``rtol`` (each instead of tol; m = 1 only with an ``atol``
        or tol of yours), ``pin`` (default True: leading rows with residual 0 are left alone and the row after them
        takes f exactly), ``patience`` (iterations without progress, as :class:`recsolve.Status` counts it, before
        ``stalled`` or ``diverged``), ``trace`` (True: keep ``Solution.trace``; "states": in it the states of every
        iterate too), ``accept``: rows to leave as they are although they miss the tolerance, ``accept(problem,
        iterate)`` returning a mask of the rows of the iterate, or numbers (T, *batch), up to which every |r| of a row
        is accepted. A row freezes when all before it in its segment are exact or frozen; where it is not within the
        tolerance the status is ``accepted``: no success, and ``fallback="sequential"`` leaves it.
    fallback : {"none", "sequential", "raise"}
        When the method does not converge: return what there is with its status; complete it by the sequential loop from
        its exact prefix; or raise ConvergenceError, which carries the Solution.
    every : int, optional
        L: solve window after window of L steps, each from the last state of the one before it, and keep the output and
        the last state of each, so that the memory is that of the output, of the states of one window and of T / L
        states. Everything above is then of one window: T of ``maxiter`` is L, what callables see is a window, and
        ``fallback`` completes the windows that need it. A window that does not converge does not end the solve: the
        next one follows from its last state, as rows after it do without ``every``; "raise" stops at the first one.
        There is no ``callback`` and no ``trace``.

    Returns
    -------
    Solution or WindowsSolution
        The latter with ``every``.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong kind, dtype, shape or value; the message names them. Also for what is no function:
        called again with the same arguments, it returns something else; for a method that cannot solve recurrences of
        this kind; and for ``every`` with a graph or a history, whose steps see more than the state before them.
    ConvergenceError
        With ``fallback="raise"``.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, mixing="diagonal", rng=0)
    >>> sol = rs.solve(cell.recurrence(np.ones((100, 3))), method="newton")
    >>> sol.status.value, sol.output.shape
    ('converged', (100, 4))
    >>> kept = rs.solve(cell.recurrence(np.ones((100, 3))), every=25)
    >>> kept.output.shape, kept.ends.shape
    ((100, 4), (4, 4))
    """
    if isinstance(recurrence, Recurrence) and recurrence.timeline is not None:
        given = {"method": method, "tol": tol, "maxiter": maxiter, "guess": guess, "callback": callback, "every": every}
        return OVER_RANKS["solve"](recurrence, **given, options=options, fallback=fallback)  # type: ignore[no-any-return]
    if every is not None:
        driver, solver = split_options(method, options)
        settings = {"tol": tol, "maxiter": maxiter, "callback": callback, "fallback": fallback}
        return solve_windows(Windows(recurrence, every, solve, solver, guess, driver, settings))
    check_recurrence(recurrence)
    check_fallback(fallback)
    driver, solver = split_options(method, options)
    check_applies(solver, recurrence)
    tensors = linked(recurrence, recurrence.kind)
    tolerance = tolerance_of(tol, driver, recurrence, scaled=False)
    whole_number("maxiter", maxiter, 0, optional=True)
    whole_number("patience", driver["patience"], 1)
    limit, patience = recurrence.length + 2 if maxiter is None else int(maxiter), int(driver["patience"])
    first = first_iterate(guess, recurrence)
    acceptance = None if driver["accept"] is None else Acceptance(driver["accept"], recurrence)
    if acceptance is not None and not driver["pin"]:
        raise ValueError("accept is given and pin is False; wanted the pin, which freezes what is accepted")

    watch = Stopwatch()
    with np.errstate(all="ignore"), checked_once(), walking(_walks(solver)):
        problem = Problem(recurrence, tolerance, pin=bool(driver["pin"]), jacobian=False, rounding=rounding_at)
        problem.engine.check_repeats()
        kept = recurrence if driver["trace"] == "states" else None
        trace = Trace(problem.counts, kept) if driver["trace"] else None
        run = Run(problem, limit, patience, _observer(callback, recurrence, trace), acceptance=acceptance)
        if tol is None and driver["atol"] is None:
            iterate, status = _in_size(run, solver, first, lambda: tolerance_of(None, driver, recurrence))
        else:
            iterate, status = run.to_end(solver, first)
        tolerance = problem.tolerance
        residuals, start = run.history.residuals, None
        if trace is not None and isinstance(iterate, Iterate):  # it is, where iterates are looked at
            trace.finish(iterate)
        if status is Status.NONFINITE:
            iterate = _follow_nonfinite(problem, iterate)
        last = solver if run.stage is None else run.stage.solver
        status, remark, mixes = _second_look(problem, last, iterate, status)
        if fallback == "sequential" and status not in (Status.CONVERGED, Status.ACCEPTED, Status.STOPPED):
            start = exact_prefix(iterate) if status is not Status.STALLED else 0
            if mixes:  # what is compiled is another function, so the definition completes
                problem = problem.by_definition()
            problem.count_evaluation()
            iterate = problem.excused(problem.evaluate(problem.engine.walk(iterate.states, start)))
            residuals.append(iterate.worst)
            status, remark = _completed(iterate, solver.name, status, start)
            if mixes and status is Status.CONVERGED:
                status, remark, _ = _second_look(problem, last, iterate, status, remark)
    if status is Status.NONFINITE:
        remark = where_nonfinite(recurrence, iterate)
    if status is Status.ACCEPTED:
        missed = ~to_host(iterate.converged)
        remark = (
            f"{int(missed.sum())} of {missed.size} rows were accepted by the rule, with |r| up to {iterate.worst:.1e}"
        )
    if run.stage is not None and run.stage.why:
        said = remark or ("" if status is Status.CONVERGED else status.advice)
        remark = f"{said}; {run.stage.why}" if said else run.stage.why
    times = {"seconds": watch.seconds, "compile_seconds": watch.compile_seconds}
    stats = {**problem.counts, **times, "completed_from": start}
    solution = Solution(
        recurrence, solver, iterate, status, residuals, run.nit, stats, remark, tolerance, trace, tensors
    )
    if fallback == "raise" and not solution.success:
        raise ConvergenceError(solution)
    return solution


def check_fallback(fallback: Any) -> None:
    """Raise ValueError for what is none."""
    if fallback not in ("none", "sequential", "raise"):
        raise ValueError(f"fallback is {fallback!r}; wanted 'none', 'sequential' or 'raise'")


def _walks(solver: solvers.Method) -> bool:
    """Return whether a method may follow f along time."""
    return any(not part.graphs or isinstance(part, solvers.Sequential) for part in (solver, *solver.inside()))


def _in_size(
    run: Run, solver: solvers.Method, first: Guess, measured: Callable[[], Tolerance]
) -> tuple[Iterate | Settled, Status]:
    """Return the end of a run with the tolerance in the size of the states.

    Of answers that are found without iterations, and on a GPU, where the host waits for what it looks at, a few rows
    are looked at afterwards, for that is cheaper.
    """
    problem = run.problem
    if kind_of(problem.recurrence.initial) != "cupy" or run.observe is not None:
        run.measured = measured
    iterate, status = run.to_end(solver, first)
    known = iterate.largest if isinstance(iterate, Settled) else None
    looked = run.observe is not None or (run.measured is None and kind_of(iterate.states) != "cupy")
    if looked or iterate.worst == 0 or ordinary(iterate.states, known) or measured() == problem.tolerance:
        return iterate, status
    problem.tolerance = measured()
    run.restart()
    return run.to_end(solver, first)


def _second_look(
    problem: Problem, solver: solvers.Method, iterate: Iterate | Settled, status: Status, remark: str = ""
) -> tuple[Status, str, bool]:
    """Return the status and a remark, after a comparison of f at three single steps with f for all t at once.

    The solve is of f for all t at once; if that is another function, it is not the recurrence, and the third is True.
    """
    if status in (Status.CONVERGED, Status.ACCEPTED, Status.STALLED, Status.DIVERGED, Status.MAXITER):
        step = problem.engine.step_that_differs(iterate.states, lambda: iterate.values)
        if step is not None:
            return Status.STALLED, problem.engine.mixes.format(step=problem.recurrence.name_of(step)), True
    if isinstance(solver, solvers.Sequential) and status is Status.STALLED:
        return status, MISMATCH.format(worst=iterate.worst), False
    return status, remark, False


def _follow_nonfinite(problem: Problem, iterate: Iterate | Settled) -> Iterate:
    """Return the iterate with rows after those that are not finite replaced by the loop's, up to the next reset.

    The method did not iterate there, and its numbers must not look like an answer.
    """
    solved, _ = problem.front(iterate.converged)
    problem.count_evaluation()
    followed = problem.engine.walk(iterate.states, leading_times(solved))
    keep = problem.recurrence.over_event(solved)
    return problem.evaluate(namespace(followed).where(keep, iterate.states, followed), jacobian=False)


def split_options(
    method: str | solvers.Method, options: Mapping[str, Any] | None
) -> tuple[dict[str, Any], solvers.Method]:
    """Return the options of the driver, and the solver with its own."""
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(f"options is {type(options).__name__}; wanted a mapping of names to values")
    given = dict(options or {})
    driver = {name: given.pop(name, default) for name, default in _DRIVER_OPTIONS.items()}
    for name, other in (("pin", ""), ("trace", "states")):
        if not isinstance(driver[name], (bool, np.bool_)) and not (other and driver[name] == other):
            raise ValueError(f"{name} is {driver[name]!r}; wanted True or False{other and f', or {other!r}'}")
    try:
        return driver, solvers.get(method, given)
    except ValueError as error:
        if "options has unknown" in str(error):
            raise ValueError(f"{error}; every method takes {list(_DRIVER_OPTIONS)}") from None
        raise


def tolerance_of(
    tol: float | None, driver: Mapping[str, Any], recurrence: Recurrence, *, scaled: bool = True
) -> Tolerance:
    values = {
        name: x for name, x in (("tol", tol), ("atol", driver["atol"]), ("rtol", driver["rtol"])) if x is not None
    }
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < np.inf:
            raise ValueError(f"{name} is {value!r}; wanted a finite number >= 0")
    if is_discrete(recurrence.dtype):
        return tolerance_for(recurrence, max(values.values(), default=None))
    # Only the default absolute tolerance depends on lanes and sizes; the user's own is taken as it is.
    base = tolerance_for(recurrence, tol, scaled=scaled and "atol" not in values)
    if "atol" in values:
        base = Tolerance(float(values["atol"]), base.rtol)
    return replace(base, rtol=float(values["rtol"])) if "rtol" in values else base


def _observer(
    callback: Callable[[IntermediateResult], None] | None, recurrence: Recurrence, trace: Trace | None
) -> Observe | None:
    if callback is not None:
        check_callable("callback", callback, "callback(intermediate_result)")

    def observe(active: Active, iterate: Iterate, nit: int, report: Mapping[str, Array]) -> None:
        if trace is not None:
            trace.record(active, iterate, report)
        if callback is not None:
            native = recurrence.as_given(active.states(iterate))
            # Only NumPy arrays can be read-only; of others the callback gets a copy.
            states = recurrence.wrap(freeze(native) if recurrence.kind == "numpy" else native.copy())
            rows = to_host(recurrence.as_given(namespace(native).asarray(active.converged(iterate))))
            callback(IntermediateResult(states, nit, active.worst(iterate), rows))

    return None if callback is None and trace is None else observe


def _completed(iterate: Iterate | Settled, name: str, was: Status, start: int) -> tuple[Status, str]:
    """Return the status of a trajectory completed by the loop, and how it came about."""
    if bool(iterate.converged.all()):
        return Status.CONVERGED, f"{name} ended as {was}; completed by the sequential loop from row {start}"
    if iterate.blocked:
        return Status.NONFINITE, ""
    return Status.STALLED, MISMATCH.format(worst=iterate.worst)


def where_nonfinite(recurrence: Recurrence, iterate: Iterate | Settled) -> str:
    """Return in words the first step that is not finite, and how much is right all the same."""
    finite = namespace(iterate.values).isfinite(iterate.values)
    place = np.argwhere(~to_host(finite.all(axis=tuple(range(iterate.converged.ndim, finite.ndim)))))[0]
    t, sequence = int(place[0]), tuple(int(i) for i in place[1:])
    of = f" of sequence {sequence}" if sequence else ""
    right = to_host(iterate.tolerance.met(iterate.states, iterate.values, iterate.residual))
    whole = to_host(iterate.converged).all(axis=0)
    rest = f"{int(right.sum())} of {right.size} numbers are right, as converged_entries tells"
    if whole.size > 1:
        rest += f", and {int(whole.sum())} of {whole.size} sequences at all steps"
    step = f"step {recurrence.first_step + t}" if recurrence.graph is None else f"node {recurrence.name_of(t)}"
    if not recurrence.drive_is_finite(t):
        return f"the drive is inf or NaN at {step}{of}; the rows before it are right; {rest}"
    return f"f is inf or NaN at {step}{of} although its drive is finite; the rows before it are right; {rest}"
