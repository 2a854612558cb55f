"""The programs of a typed user: ``.ci/typed.py`` checks this file by mypy --strict, and here it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import pytest

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.jacobians import Jacobian
from recsolve.solvers import CorrectionSolver, Iterate, Linearised, PerRow, Problem, Solver, State

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fading(CorrectionSolver[Linearised]):
    """The Jacobian's diagonal, times a factor below one."""

    name = "fading"
    matrix = "c diag(J)"
    c: float = 0.9

    def preconditioner(self, problem: Problem, iterate: Linearised) -> Jacobian:
        return iterate.jacobian.diagonal().scale(self.c)


@dataclass(frozen=True)
class Last(State):
    states: PerRow[Array]


@dataclass(frozen=True, kw_only=True)
class HeavyBall(Solver[Iterate, Last]):
    """Jacobi's iteration, with a part of the last step added again."""

    name = "heavy_ball"
    momentum: float = 0.5

    def init(self, problem: Problem, iterate: Iterate) -> Last:
        return Last(iterate.states)

    def step(self, problem: Problem, iterate: Iterate, state: Last) -> tuple[Iterate, Last]:
        proposal = iterate.values + self.momentum * (iterate.states - state.states)
        return problem.advance(iterate, proposal), Last(iterate.states)


class Positive(rs.mixings.Dense):
    """A mixing of the user's own: e to the power of the weight."""

    def matvec(self, x: Array) -> Array:
        return rs.mixings.Dense(np.exp(self.weight)).matvec(x)


class LogAddExp(rs.Monoid):
    letters = ("b",)

    def act(self, elements: tuple[Array, ...], states: Array) -> Array:
        found: Array = np.logaddexp(states, elements[0])
        return found

    def compose(self, later: tuple[Array, ...], earlier: tuple[Array, ...]) -> tuple[Array, ...]:
        return (np.logaddexp(earlier[0], later[0]),)

    def identity(self, elements: tuple[Array, ...]) -> tuple[Array, ...]:
        return (np.full_like(elements[0], -np.inf),)


def gated(s: Any, W: Any, u: Any, p: Any) -> Any:
    f = rs.math.sigmoid(W.f(s.h) + u.f)
    return (1 - f) * s.h + f * rs.math.tanh(u.h)


def step(h: Floats, u: Floats) -> Floats:
    return 0.9 * np.sin(h) + u


def recurrence() -> rs.Recurrence[Array]:
    x: Floats = np.random.default_rng(0).standard_normal((50, 2, 3))
    return rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(x)


def test_states_of_numpy_arrays_are_numpy_arrays() -> None:
    sol = rs.solve(recurrence(), method="quasi_newton", fallback="raise")
    assert_type(sol, rs.Solution[Array])
    assert_type(sol.states, Array)
    assert_type(sol.output, Array)
    assert_type(sol.final, Array)
    assert_type(sol.success, bool)
    g = rs.adjoint(sol, output=2 * sol.output)
    assert_type(g, rs.Gradients)
    assert sol.states.shape == (50, 2, 4)
    assert g.mixings.r.shape == (4, 4)


def test_windows_are_told_from_the_whole() -> None:
    kept = rs.solve(recurrence(), every=16)
    assert_type(kept, rs.WindowsSolution[Array])
    assert_type(kept.output, Array)
    assert_type(kept.again(1), rs.Solution[Array])
    assert_type(rs.adjoint(kept, output=kept.output), rs.WindowsGradients)
    assert kept.ends.shape == (4, 2, 4)


def test_functions_cells_and_solvers_of_the_users_own() -> None:
    u: Floats = np.random.default_rng(1).standard_normal((40, 3))
    rec = rs.Recurrence.from_function(step, inputs=u, initial=np.zeros(3), structure="diagonal")
    own = rs.Cell(gated, state=("h",), output="h").random(input_size=3, hidden_size=4, mixing=positive, rng=0)
    for method in (Fading(c=0.8), HeavyBall(momentum=0.1)):
        sol = rs.solve(rec, method=method, callback=look(method.name), options={"trace": True})
        assert_type(sol.states, Array)
        assert sol.success, sol.message
        assert sol.trace.residual.shape[0] == sol.nit + 1
    assert_type(rs.solve(own.recurrence(u)).output, Array)
    assert rs.solve(rec, method=Fading(), options={"patience": 3}).solver == Fading()
    y = rs.scan(LogAddExp, (u,), initial=np.full(3, -np.inf))
    np.testing.assert_allclose(y, np.logaddexp.accumulate(u))


def positive(draw: Callable[[tuple[int, ...]], Array]) -> rs.mixings.Mixing:
    return Positive(draw((4, 4)) - 4)


def look(name: str) -> Callable[[rs.IntermediateResult], None]:
    def seen(now: rs.IntermediateResult) -> None:
        assert now.nit < 45, name

    return seen


def test_saved_cells_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "cell.safetensors"
    rs.save(rs.cells.LSTM.random(input_size=3, hidden_size=4, rng=0), path)
    cell: rs.WeightedCell = rs.load(path)
    with pytest.raises(rs.ConvergenceError) as caught:
        rs.solve(cell.recurrence(np.ones((9, 3))), method="jacobi", maxiter=1, fallback="raise")
    assert_type(caught.value.solution.status, rs.Status)
    assert caught.value.solution.states.shape == (9, 2, 4)
