"""Methods made of others: on a sliding window, or one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from recsolve.recurrence.engine import Verdict
from recsolve.solvers.jacobi import Jacobi
from recsolve.solvers.method import Method, Stage
from recsolve.solvers.newton import Newton
from recsolve.solvers.problem import Problem
from recsolve.solvers.registry import get
from recsolve.solvers.settings import whole_number


def _method(method: str | Method, setting: str = "method") -> Method:
    try:
        return get(method)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{setting}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Windowed(Method):
    """Run a solver on a window of time that moves with the rows that have converged.

    Beside the trajectory itself it needs the memory of one window. Steps that the window has not reached hold h[0].

    On cells whose mixings are all diagonal, Newton's method runs in compiled loops if there is no callback or trace.
    Lanes then move on in tiles, each when all of its own steps in the window have converged, and the iterations counted
    are those of the tile that takes the most. On a GPU the loops choose between windows and segments of time that are
    walked side by side; ``stats`` says how many segments there were, how often one was solved again because it did not
    follow from the one before it, and how many windows were walked in the end.

    Parameters
    ----------
    solver : str, Method or None
        What runs inside; a solver object for settings other than its defaults. None: newton, or jacobi for recurrences
        to which newton does not apply.
    window : int
        Number of steps, at least 1.

    Raises
    ------
    ValueError, TypeError
        For another window, an unknown name, or what is neither a name nor a solver object.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> sol = rs.solve(rec, method=rs.solvers.Windowed(solver="jacobi", window=20))
    >>> sol.success, sol.stats["rows"] < (sol.nit + 1) * 60
    (True, True)
    """

    name = "windowed"
    group = "composite"
    place = 1
    matrix = "that of the solver inside"
    cite = "Shih, Belkhale, Ermon, Sadigh, Anari, NeurIPS 2023 (arXiv 2305.16317)"
    finite_termination = True
    exact_on_affine = "none"

    solver: str | Method | None = None
    window: int = 256

    def __post_init__(self) -> None:
        whole_number("window", self.window, 1)
        if self.solver is not None:
            _method(self.solver, "solver")

    def inside(self) -> tuple[Method, ...]:
        return () if self.solver is None else (_method(self.solver),)

    def _chosen(self, problem: Problem) -> Method:
        if self.solver is not None:
            return _method(self.solver)
        return Newton() if problem.recurrence.takes(Newton.name) else Jacobi()

    def direct(self, problem: Problem) -> Verdict | None:
        if not problem.pin or type(self._chosen(problem)) is not Newton:
            return None
        return problem.engine.solve("windows", problem.tolerance, self.window)

    def stages(self, problem: Problem) -> tuple[Stage, ...]:
        return tuple(replace(stage, window=self.window) for stage in self._chosen(problem).stages(problem))


@dataclass(frozen=True, kw_only=True)
class Chain(Method):
    """Run methods one after the other, each from where the one before it has ended, until one converges.

    Parameters
    ----------
    methods : sequence of str or Method
        The last one gets all the iterations that are left.
    iterations : int
        How many each of the others may take, at least 1; fewer when it stalls.

    Raises
    ------
    ValueError, TypeError
        For no methods, an unknown name, what is neither a name nor a solver object, or another number.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
    >>> rec = cell.recurrence(np.random.default_rng(0).standard_normal((60, 3)))
    >>> sol = rs.solve(rec, method=rs.solvers.Chain(methods=("jacobi", "newton"), iterations=3))
    >>> sol.success, sol.nit > 3
    (True, True)
    """

    name = "chain"
    group = "composite"
    place = 2
    matrix = "one method after the other"
    cite = "this project"
    finite_termination = False
    exact_on_affine = "all"
    causal = False

    methods: Sequence[str | Method] = ("newton", "levenberg_marquardt", "windowed", "sequential")
    iterations: int = 25

    def __post_init__(self) -> None:
        if not isinstance(self.methods, (tuple, list)) or not self.methods:
            raise ValueError(f"methods is {self.methods!r}; wanted a sequence of names or solver objects")
        whole_number("iterations", self.iterations, 1)
        for method in self.methods:
            _method(method, "methods")

    def inside(self) -> tuple[Method, ...]:
        return tuple(map(_method, self.methods))

    def stages(self, problem: Problem) -> tuple[Stage, ...]:
        *first, last = self.methods
        limited = [
            replace(stage, iterations=min(self.iterations, stage.iterations or self.iterations))
            for method in first
            for stage in _method(method).stages(problem)
        ]
        return (*limited, *_method(last).stages(problem))
