"""auto: the method that is predicted to be the fastest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from recsolve.base.arrays import kind_of
from recsolve.recurrence.engine import Verdict
from recsolve.solvers.auto_pilot import choose
from recsolve.solvers.method import Method, Stage
from recsolve.solvers.problem import Problem
from recsolve.solvers.sequential import Sequential

# On a GPU as many sweeps as take the time of a compiled walk, where there is one: a sweep takes that of so many steps.
_SWEEPS, _STEPS = 16, 512
# At least so many sweeps take longer than the walk of fewer steps: a step with weights in registers takes less.
_FEW, _HELD = 512, 1 << 20


@dataclass(frozen=True, kw_only=True)
class Auto(Method):
    """Measure the first steps, predict the cost of each method, take the fastest (``recsolve.explain`` shows why).

    A method that takes more than 1.5 times the predicted iterations is ended, and the sequential loop completes the
    answer.
    Cells that are compiled for a GPU need no pilot: where all mixings are diagonal, the compiled solve chooses by the
    shape; else sweeps are tried for as long as a compiled walk takes, and then that is taken; of few steps, at once.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> rs.solve(rec, method="auto").message.split("; ")[-1]
    'auto took sequential'
    """

    name = "auto"
    group = "composite"
    place = 3
    matrix = "that of the method chosen"
    cite = "this project"
    finite_termination = True
    exact_on_affine = "varies"
    graphs = False

    def direct(self, problem: Problem) -> Verdict | None:
        if kind_of(problem.recurrence.initial) != "cupy":
            return None
        # Compiled whole, where all mixings are diagonal.
        found = problem.engine.solve("windows", problem.tolerance) if problem.pin else None
        if found is not None:
            return found
        engine, length = problem.engine, problem.recurrence.length
        if not engine.compiled:
            return engine.solve("sweeps", problem.tolerance)
        if length <= (_FEW if engine.weight > _HELD else 4 * _FEW):
            return None
        return engine.solve("sweeps", problem.tolerance, most=max(_SWEEPS, length // _STEPS))

    def stages(self, problem: Problem) -> tuple[Stage, ...]:
        chosen = choose(problem.recurrence, problem.tolerance, problem.engine).chosen
        why = f"auto took {chosen.label}"
        if isinstance(chosen.method, Sequential):
            return (Stage(chosen.method, why=why),)
        limited = [
            replace(stage, iterations=chosen.iterations * 3 // 2 + 5, why=why)
            for stage in chosen.method.stages(problem)
        ]
        return (*limited, Stage(Sequential(), why=f"{why}, but ended with the sequential loop"))
