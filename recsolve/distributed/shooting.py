"""Multiple shooting over ranks by what compiled loops solve whole: two messages, of which the host waits for one.

Each rank solves its steps as if the first state of all came in, and tells the others what comes out. Then it takes its
first steps anew from what truly comes in, until these meet what is there within the tolerance: what is forgotten within
a rank changes nothing that it has told. The second message says how well all of it is solved, and what comes out now;
where that has changed, the next rank takes its first steps anew once more.

On a device all of this is asked for while it solves.

Chartier and Philippe, "A parallel shooting technique for solving dissipative ODE's" (1993).
"""

from __future__ import annotations

import numpy as np

from recsolve import solvers
from recsolve.analysis.rounding_at import rounding_at
from recsolve.base.arrays import Array, kind_of
from recsolve.base.status import Status
from recsolve.distributed.asked_shot import AskedShot
from recsolve.distributed.found_shot import FoundShot
from recsolve.distributed.own_steps import OwnSteps
from recsolve.distributed.rounds import before_each
from recsolve.distributed.shot import FEWEST, Found, Shot
from recsolve.distributed.task import Facts, Outcome, Task
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.current import checked_once
from recsolve.recurrence.engine import Verdict
from recsolve.recurrence.scale import ordinary
from recsolve.solve import tolerance_of
from recsolve.solvers.problem import Problem


def solve_by_shooting(task: Task) -> Outcome | None:
    """Return the outcome; None, on all ranks, where the method has nothing compiled, or some steps are not solved."""
    axis, rec = task.timeline, task.recurrence
    if not _may_shoot(task):
        return None
    watch = Stopwatch()
    with np.errstate(all="ignore"), checked_once():
        own = _shot(task)
        found = _agreed(task, own)
    if found is None:
        return None
    told, final = found
    rec.take_scale(1.0)  # that of ordinary states
    maxiter = task.settings["maxiter"]
    if maxiter is not None and max(one.iterations for one in told) > maxiter:
        return None
    tested = own.tolerance.atol, own.tolerance.rtol, own.tolerance.unit
    facts = [
        Facts(length, Status.CONVERGED, int(one.iterations), one.worst, length, -1, *tested)
        for length, one in zip(axis.ordered, told, strict=True)
    ]
    return Outcome(own.solution(facts[axis.place], watch), facts, final)


def _shot(task: Task) -> Shot:
    """Solve the own steps as if the first state of all came in."""
    solver, rec = task.solver, OwnSteps.of(task.recurrence).whole
    tolerance = tolerance_of(task.settings["tol"], task.driver, rec, scaled=False)
    problem = Problem(rec, tolerance, pin=True, jacobian=False, rounding=rounding_at)
    engine = problem.engine
    if task.guess is None and type(solver).direct.__module__.startswith("recsolve."):
        asked = task.ahead.ask(engine, tolerance) if _whole(solver, problem) else None
        if asked is not None:
            return AskedShot(task, problem, asked)
        task.ahead.drop()
        found = solver.direct(problem)
        if isinstance(found, Verdict):
            return FoundShot(task, problem, found)
    if kind_of(rec.initial) == "cupy" and engine.compiled:
        solution = task.solved(rec.initial, guess=task.own_guess())
        if solution.success:
            iterate = solution._iterate
            problem.counts.update({name: solution.stats[name] for name in problem.counts})
            return FoundShot(task, problem, Verdict(iterate.states, solution.nit, values=iterate.values))
    return FoundShot(task, problem, None)


def _whole(solver: solvers.Method, problem: Problem) -> bool:
    """Return whether a method takes what solves in windows."""
    return type(solver) is solvers.Auto or (
        type(solver) is solvers.Windowed and type(solver._chosen(problem)) is solvers.Newton
    )


def _agreed(task: Task, own: Shot) -> tuple[list[Found], Array] | None:
    """Return what ranks have told once all follow from each other, and the last state."""
    axis = task.timeline
    first = axis.ranks.begin((), [own.end], more=True)  # nobody looks at it before all is asked for
    truth = before_each(task, axis.in_order(first.arrays[0]))
    new = own.taken_anew(truth[axis.place]) if own.able and axis.place else None
    own.judge()  # which occupies a whole device: what other ranks wait for goes before it
    if new is not None:
        own.join(new)
    own.prepare()
    while True:
        arrays = own.arrays()  # of which the last one, what comes out, stays on the device
        sent = axis.ranks.begin(own.numbers(), arrays, brought=len(arrays) - 1)
        own.conclude()
        truth = before_each(task, axis.in_order(sent.arrays[-1]))
        found = own.completed(*sent.told())
        good, _, _, largest, stayed, meets = zip(*found, strict=True)
        if not all(good) or not ordinary(own.states, max(largest)):
            return None
        if all(stayed[:-1]) and all(meets):
            return found, truth[-1]
        own.go_on(truth[axis.place])


def _may_shoot(task: Task) -> bool:
    """Return whether a method solves such recurrences by compiled loops; the same on all ranks."""
    rec, solver = task.recurrence, task.solver
    if type(rec) is not CellRecurrence or isinstance(solver, solvers.Sequential):
        return False
    if kind_of(rec.initial) != "cupy" and not isinstance(solver, solvers.Windowed):
        return False
    return bool(task.driver["pin"]) and min(task.timeline.ordered) >= 2 * FEWEST
