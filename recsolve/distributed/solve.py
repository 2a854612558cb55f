"""Solves whose steps are shared by ranks: which way they are solved, decided alike on every rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any
from weakref import WeakKeyDictionary
from zlib import crc32

from recsolve import solvers
from recsolve.base.arrays import to_host
from recsolve.base.links import linked
from recsolve.base.shard import OVER_RANKS, local_of
from recsolve.base.status import Status
from recsolve.distributed.ahead import Ahead
from recsolve.distributed.rounds import before_each, solve_in_rounds
from recsolve.distributed.shooting import solve_by_shooting
from recsolve.distributed.solution import ShardedSolution
from recsolve.distributed.sweeps import can_sweep, solve_by_sweeps
from recsolve.distributed.task import Outcome, Task, first_missed
from recsolve.distributed.turns import solve_in_turn
from recsolve.recurrence.base import Recurrence, check_recurrence
from recsolve.solution import ConvergenceError
from recsolve.solve import check_fallback, split_options
from recsolve.solvers.registry import applicable, check_applies
from recsolve.solvers.settings import whole_number

_SEEN = 10  # a digest of weights looks at 2 to this many numbers of each, at least
_TIMED = "input", "drive"  # the leaves that differ between ranks
_READ: WeakKeyDictionary[Any, WeakKeyDictionary[Any, int]] = WeakKeyDictionary()  # of cells on devices, by ranks


def solve_shards(
    recurrence: Recurrence,
    *,
    method: Any,
    tol: float | None,
    maxiter: int | None,
    guess: Any,
    callback: Any,
    every: int | None,
    options: Mapping[str, Any] | None,
    fallback: str,
) -> ShardedSolution:
    """Return what :func:`recsolve.solve` does, of a recurrence whose time axis ranks share."""
    axis = recurrence.timeline
    assert axis is not None
    with (
        axis.together(lambda: _call(recurrence, method, tol, maxiter, options, fallback)),
        Ahead(recurrence, method, tol, guess, options) as ahead,
    ):
        check_recurrence(recurrence, graphs=False, shards=True)
        check_fallback(fallback)
        driver, solver = split_options(method, options)
        _check(recurrence, solver, driver, maxiter, callback, every)
        tensors = linked(recurrence, recurrence.kind)
        own = guess.local if isinstance(guess, ShardedSolution) else local_of(guess)
        task = Task(recurrence, solver, driver, {"tol": tol, "maxiter": maxiter}, own, ahead)
        way, why, (solution, facts, final) = _solved(task, fallback)
        message = ""
        if (missed := first_missed(facts)) is not None:
            exact = axis.in_order(axis.ranks.exchange([solution.exact_prefix]).numbers()[:, 0])
            facts = [fact._replace(exact_prefix=int(n)) for fact, n in zip(facts, exact, strict=True)]
            message = axis.in_order(axis.ranks.words(solution.message))[missed]
        axis.ranks.closed()
        found = ShardedSolution(recurrence, solution, tuple(facts), final, way, why, message, tensors)
    if fallback == "raise" and not found.success:
        raise ConvergenceError(found)  # type: ignore[arg-type]
    return found


def _check(
    rec: Recurrence, solver: solvers.Method, driver: Mapping[str, Any], maxiter: Any, callback: Any, every: Any
) -> None:
    """Raise TypeError or ValueError for what is not solved over ranks."""
    check_applies(solver, rec)
    whole_number("maxiter", maxiter, 0, optional=True)
    whole_number("patience", driver["patience"], 1)
    if not rec.stepwise:
        raise TypeError(f"recurrence is {rec!r}, whose steps see all before them; wanted one along time to share it")
    if every is not None:
        raise ValueError(f"every is {every} and ranks share the time axis; wanted one of them")
    for name, given in (("callback", callback), ("trace", driver["trace"]), ("accept", driver["accept"])):
        if given is not None and given is not False:
            raise ValueError(
                f"{name} is given and ranks share the time axis; wanted none: iterates of the steps of one rank can be "
                "watched by solving recurrence.window(0, recurrence.length, initial)"
            )


def _solved(task: Task, fallback: str) -> tuple[str, str, Outcome]:
    """Return the way that was taken, why it is no faster one, and the outcome."""
    solver, rec, axis = task.solver, task.recurrence, task.timeline
    shot = solve_by_shooting(task)
    task.ahead.drop()
    if shot is not None:
        return "rounds", "", shot
    one_by_one = isinstance(solver, solvers.Sequential)
    end = None if one_by_one else task.forgotten()
    scale = rec.state_scale if rec.length else 0.0
    sent = axis.ranks.exchange([end is not None, scale], [rec.initial if end is None else end])
    said, scales = axis.in_order(sent.numbers()).T.tolist()
    rec.take_scale(max(scales) or 1.0)
    held = [i for i, length in enumerate(axis.ordered) if length]
    found: Outcome | None = None
    way, why = "rounds", ""
    if not one_by_one and all(said[i] for i in held[:-1]):
        found = solve_in_rounds(task, before_each(task, axis.in_order(sent.arrays[0])))
    elif not one_by_one:
        found, why = _together(task)
        way = "sweeps"
    if found is not None:
        missed = first_missed(found.facts)
        if missed is None:
            return way, "", found
        status = found.facts[missed].status
        follows = way == "sweeps" and status is Status.NONFINITE
        if not (follows or fallback == "sequential" or isinstance(solver, solvers.Auto)):
            return way, "", found
        why = f"solved together they ended as {status}"
    rest, known = "sequential" if fallback == "sequential" else "none", None if found is None else found.solution
    why = f"ranks took turns, since {why}" if why and len(held) > 1 else ""
    turned, before = solve_in_turn(task, rest, known), 0 if found is None else max(fact.nit for fact in found.facts)
    return "turns", why, turned._replace(facts=[fact._replace(nit=before + fact.nit) for fact in turned.facts])


def _together(task: Task) -> tuple[Outcome | None, str]:
    """Return the solution by sweeps over all ranks, or None and the reason where the method has none."""
    solver: Any = task.solver
    if isinstance(solver, solvers.Auto):  # where many units couple, the products of whole Jacobians do not compose
        if solvers.Newton.name not in applicable(task.recurrence):  # without a derivative
            return None, "f has no derivative to sweep by"
        solver = solvers.Newton() if task.recurrence.rounding == 0 else solvers.QuasiNewton()
    if not can_sweep(solver):
        return None, f"a step of {solver.name} needs more of other ranks than one message tells"
    total, maxiter = task.timeline.total, task.settings["maxiter"]
    limit = total + task.timeline.size + 2 if maxiter is None else int(maxiter)
    found = solve_by_sweeps(task, solver, limit, int(task.driver["patience"]))
    return found, f"the matrices of {solver.name} do not compose in a size that can be sent" if found is None else ""


def _call(rec: Recurrence, method: Any, tol: Any, maxiter: Any, options: Any, fallback: Any) -> str:
    """Return in words what is solved how, the same on ranks that do the same."""
    given = {"method": method, "tol": tol, "maxiter": maxiter, "options": options, "fallback": fallback}
    said = ", ".join(f"{name}={_named(x)}" for name, x in given.items() if x is not None)
    states = f"states {tuple(rec.shape[1:])} of {rec.dtype}"
    return f"recsolve.solve of {rec.description} with {states}{_weights(rec)}, {said}"


def _weights(rec: Recurrence) -> str:
    """Return a digest of what has no time: ranks with other weights solve nothing in common.

    Reading them waits for a device. So there the weights of a cell are read at its first solve, and those of tensors,
    which training changes at every step, never: who trains them keeps them alike.
    """
    if rec.kind == "numpy":
        return f", weights and initial {_digest(rec, _TIMED):08x}"
    cell = getattr(rec, "cell", None)
    if cell is None or rec.kind == "torch" or rec.timeline is None:
        return ""
    known, ranks = _READ.setdefault(cell, WeakKeyDictionary()), rec.timeline.ranks
    if ranks not in known:
        known[ranks] = _digest(rec, (*_TIMED, "initial"))
    return f", weights {known[ranks]:08x}"


def _digest(rec: Recurrence, without: Sequence[str]) -> int:
    """Return a digest of the leaves of a recurrence, of which some are left out."""
    found = 0
    for (what, _), x in rec.leaves().items():
        if what not in without and x.dtype != object:
            found = crc32(to_host(x.reshape(-1)[:: max(x.size >> _SEEN, 1)]).tobytes(), found)
    return found


def _named(x: Any) -> str:
    """Return an argument in words, without the address that functions and objects have in a process."""
    if isinstance(x, solvers.Method):
        settings = ", ".join(f"{f.name}={_named(getattr(x, f.name))}" for f in fields(x))
        return f"{type(x).__name__}({settings})"
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{name}: {_named(value)}" for name, value in x.items()) + "}"
    if callable(x):
        return str(getattr(x, "__qualname__", type(x).__name__))
    return repr(x) if isinstance(x, (str, int, float, bool, type(None))) else type(x).__name__


OVER_RANKS["solve"] = solve_shards
