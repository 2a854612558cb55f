"""The engine that a solve binds: every engine computes what the recurrence defines, and its verdicts are honest."""

import pickle

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.engine import CompiledEngine, Engine, Verdict
from recsolve.recurrence.fused_engine import FusedEngine
from recsolve.recurrence.staged_engine import StagedEngine
from recsolve.solvers.evaluation import Settled


def bound(cell, mixing, **options):
    rec = gallery.recurrence(cell, mixing, T=70, batch=(2,), units=8, **options)
    with rs.backend("numba"):
        return rec, rec.bind()


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("cell", gallery.CELLS, ids="-".join)
def test_an_engine_computes_what_the_recurrence_defines(cell):
    reset = np.random.default_rng(0).random((70, 2)) < 0.1
    rec, engine = bound(*cell, reset=reset)
    plain = Engine(rec)
    assert type(engine) is (FusedEngine if isinstance(rec.linearise(rec.guess())[1], PER_UNIT) else StagedEngine)
    states = plain.walk()
    np.testing.assert_allclose(engine.walk(), states, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(engine.walk(states, 30), states, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(engine.guess(), plain.guess(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(engine.evaluate(states), states, rtol=1e-10, atol=1e-12)
    (F, J), (G, K) = engine.linearise(states), plain.linearise(states)
    v = np.random.default_rng(1).standard_normal(rec.shape)
    np.testing.assert_allclose(F, G, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(J.matvec(v), K.matvec(v), rtol=1e-9, atol=1e-11)


PER_UNIT = rs.jacobians.Diagonal, rs.jacobians.Block, rs.jacobians.Zero


@pytest.mark.parametrize(
    ("mixing", "method"), [("diagonal", "sequential"), ("diagonal", "newton"), ("dense", "newton")]
)
def test_a_solve_binds_a_recurrence_once(mixing, method, monkeypatch):
    rec, _ = bound("gru", mixing)
    binds, bind = [], CellRecurrence.bind
    monkeypatch.setattr(CellRecurrence, "bind", lambda self: binds.append(self) or bind(self))
    with rs.backend("numba"):
        assert rs.solve(rec, method=method).success
    assert binds.count(rec) == 1


def test_what_the_walk_has_tested_is_not_evaluated_until_it_is_asked_for(monkeypatch):
    rec, _ = bound("gru", "diagonal")
    evaluated, evaluate = [], FusedEngine.apply
    with rs.backend("numba"):
        rs.solve(rec, method="sequential")  # compared with the function, once for each program
        monkeypatch.setattr(FusedEngine, "apply", lambda self, x: evaluated.append(1) or evaluate(self, x))
        sol = rs.solve(rec, method="sequential")
        assert (sol.status, sol.residuals.tolist(), sol.exact_prefix, sol.converged_prefix) == (
            "converged",
            [0],
            70,
            70,
        )
        assert (sol.stats["nfev"], sol.stats["rows"]) == (1, 140)
        assert sol.converged_rows.all()
        assert not evaluated
        iterate = sol._iterate
        assert isinstance(iterate, Settled)
        np.testing.assert_array_equal(iterate.values, sol.states)  # f rounds alike in all loops
        assert (iterate.residual == 0).all()
        assert sol.trusted
    again = pickle.loads(pickle.dumps(sol))
    np.testing.assert_array_equal(again.states, sol.states)


def test_a_walk_that_is_not_finite_gives_no_verdict():
    rec = gallery.recurrence("gru", "diagonal", T=70, batch=(2,), units=8)
    for u in rec.drive.values():
        u[40, 1] = np.nan
    with rs.backend("numba"), np.errstate(all="ignore"):
        found = rec.bind().solve("walk", rs.solve(rec).tolerance)
        assert found.worst is None
        sol = rs.solve(rec, method="sequential")
    assert (sol.status, sol.converged_prefix) == ("nonfinite", 40)
    assert np.isnan(sol.states[40, 1]).all()


@pytest.mark.parametrize("fault", ["flipped", "nan", "lost"])
@pytest.mark.parametrize("method", ["windowed", "newton"])
def test_states_that_compiled_loops_do_not_vouch_for_are_evaluated(fault, method, monkeypatch):
    """A verdict without a residual promises nothing: the driver tests the states, and solves anew."""

    def wrong(self, way, tolerance, window=256):
        states = Engine(self.recurrence).walk()
        if fault == "lost":
            states[20:30] = 7
        else:
            states[33, 0, 2] = -states[33, 0, 2] if fault == "flipped" else np.nan
        return Verdict(states, 3, counts={"nfev": 3})

    rec, _ = bound("gru", "diagonal")
    with rs.backend("numba"):
        truth = rs.solve(rec, method="sequential").states
        monkeypatch.setattr(FusedEngine, "solve", wrong)
        sol = rs.solve(rec, method=method)
    assert sol.success
    np.testing.assert_allclose(sol.states, truth, rtol=1e-10, atol=1e-12)


def test_a_compiled_engine_is_compared_with_the_function_once_for_each_program(monkeypatch):
    rec, engine = bound("mgu", "diagonal")
    assert isinstance(engine, CompiledEngine)
    engine.traced.verified.clear()
    with rs.backend("numba"):
        monkeypatch.setattr(FusedEngine, "apply", lambda self, previous: 2 * Engine(self.recurrence).apply(previous))
        sol = rs.solve(rec, method="sequential")
    assert sol.status == "stalled"
    assert "f gives another value" in sol.message
    engine.traced.verified.clear()


def test_a_subclass_that_steps_otherwise_is_not_answered_by_its_base_class():
    calls = []

    class Louder(rs.solvers.Sequential):
        name = "louder"

        def start(self, problem):
            calls.append(problem)
            return super().start(problem)

    class Renamed(rs.solvers.Sequential):
        name = "renamed"

    rec, _ = bound("gru", "diagonal")
    with rs.backend("numba"):
        assert rs.solve(rec, method=Louder()).success
        assert isinstance(rs.solve(rec, method=Renamed())._iterate, Settled)
    assert len(calls) == 1


@pytest.mark.parametrize(("iterations", "nit"), [(0, 4), (3, 4), (50, 50)])
def test_the_limit_of_a_stage_holds_for_compiled_loops(iterations, nit):
    rec = gallery.recurrence("gru", "diagonal", T=70, batch=(2,), units=8)
    truth = Engine(rec).walk()

    class Known(rs.solvers.Jacobi):
        name = "known"

        def direct(self, problem):
            return rs.solvers.Direct(truth, iterations=50)

    class Staged(rs.solvers.Method):
        name, matrix = "staged", "0, then J"

        def stages(self, problem):
            first = rs.solvers.Stage(Known(), iterations=iterations)
            return first, rs.solvers.Stage(rs.solvers.Newton())

    sol = rs.solve(rec, method=Staged())
    assert sol.success
    assert (sol.nit == 50) == (nit == 50)


@pytest.mark.parametrize("worst", [np.nan, np.inf, -1.0])
def test_a_verdict_without_a_residual_is_tested(worst, monkeypatch):
    rec, _ = bound("gru", "diagonal")

    def wrong(self, way, tolerance, window=256):
        states = Engine(self.recurrence).walk()
        states[-1] = 7
        return Verdict(states, 0, worst)

    monkeypatch.setattr(FusedEngine, "solve", wrong)
    with rs.backend("numba"):
        sol = rs.solve(rec, method="newton")
    assert sol.success
    assert np.abs(sol.states[-1]).max() < 1


@pytest.mark.parametrize("method", ["sequential", "newton", "windowed"])
def test_the_function_itself_completes_where_what_is_compiled_is_another_one(method):
    def two_faced(s, W, u, p):
        return np.tanh((0.5 if isinstance(s.h, np.ndarray) else 0.25) * s.h + u.x)

    cell = rs.Cell(two_faced, state=("h",), output="h").with_weights(hidden_size=3)
    rec = cell.recurrence(drive={"x": np.random.default_rng(0).standard_normal((50, 3))})
    truth = Engine(rec).walk()
    with rs.backend("numba"):
        assert rs.solve(rec, method=method).status == "stalled"
        sol = rs.solve(rec, method=method, fallback="sequential")
    assert sol.success
    np.testing.assert_array_equal(sol.states, truth)


def test_shapes_that_a_function_looks_at_are_compared_for_each_number_of_batch_axes():
    def shape_dependent(s, W, u, p):
        return np.tanh(0.5 * s.h + u.x * (1.0 if getattr(s.h, "ndim", 2) < 3 else 2.0))

    cell = rs.Cell(shape_dependent, state=("h",), output="h").with_weights(hidden_size=4)
    rng = np.random.default_rng(0)
    with rs.backend("numba"):
        found = [
            rs.solve(cell.recurrence(drive={"x": rng.standard_normal((50, *batch, 4))}), method="sequential").status
            for batch in ((), (3,), (2, 3))
        ]
    assert found == ["converged", "converged", "stalled"]  # the loop is the definition, and sees one axis less


def test_a_function_that_fails_without_arrays_goes_to_numpy():
    cell = rs.Cell(
        lambda s, W, u, p: np.tanh(0.5 * s.h + u.x / (np.abs(u.x) + np.finfo(s.h.dtype).eps)), state=("h",), output="h"
    ).with_weights(hidden_size=4)
    rec = cell.recurrence(drive={"x": np.random.default_rng(0).standard_normal((5000, 4))})
    assert rs.solve(rec, method="sequential").success
    with rs.backend("numba"), pytest.raises(TypeError, match="cannot be traced"):
        rec.bind()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_adjoint_of_no_steps(cell):
    rec = gallery.recurrence(cell, "diagonal", T=0, batch=(2,), units=4)
    with rs.backend("numba"):
        g = rs.adjoint(rs.solve(rec), output=np.zeros((0, 2, 4)))
        assert g.states.shape == rec.shape
        assert all((x == 0).all() and x.shape == (4,) for x in g.mixings.values())
        assert g.initial.shape == rec.initial.shape


def test_a_verdict_of_a_method_of_ones_own_is_tested():
    class Boastful(rs.solvers.Newton):
        name = "boastful"

        def direct(self, problem):
            return Verdict(np.zeros(problem.recurrence.shape), 0, 0.0)

    rec, _ = bound("gru", "diagonal")
    sol = rs.solve(rec, method=Boastful())
    assert sol.success
    np.testing.assert_allclose(sol.states, Engine(rec).walk(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("arguments", [(None, 10), (np.zeros((70, 2, 8)), -1), (np.zeros((70, 2, 8)), 71)])
def test_walks_that_cannot_begin_are_refused(arguments):
    for backend in ("numpy", "numba"):
        with rs.backend(backend), pytest.raises(ValueError, match="start is"):
            gallery.recurrence("gru", "diagonal", T=70, batch=(2,), units=8).bind().walk(*arguments)


@pytest.mark.parametrize(
    ("last", "error", "words"),
    [
        (lambda h: h.astype("f4"), TypeError, "f returned dtype float32; wanted float64"),
        (lambda h: h[..., :1], ValueError, r"f returned shape \(1, 1\); wanted that of h_prev, \(1, 2\)"),
        (lambda h: h[0, 0].item(), TypeError, "f returned float; wanted an array"),
        (lambda h: h.__imul__(2), TypeError, "writes into its arguments"),
    ],
)
def test_the_loop_of_a_function_refuses_at_any_step_what_the_reference_refuses(last, error, words):
    def f(h, u):
        return last(h) if u[0, 0] == 7 else h + u

    u = np.repeat(np.arange(12.0)[:, None], 2, axis=1)
    rec = rs.Recurrence.from_function(f, inputs=u, initial=np.zeros(2))
    with pytest.raises(error, match=words):
        rec.bind().walk()


def test_the_loop_of_a_function_goes_on_from_where_it_is_told():
    u = np.random.default_rng(0).standard_normal((30, 2, 3))
    for inputs, f in (
        (u, lambda h, u, p: 0.5 * h + u * p.a),
        ((u, u), lambda h, u, p: 0.5 * h + u[0] * p.a),
        ({"x": u}, lambda h, u, p: 0.5 * h + u["x"] * p.a),
    ):
        rec = rs.Recurrence.from_function(f, inputs=inputs, initial=u[0], parameters={"a": np.array(0.3)})
        whole = gallery.loop(rec)
        np.testing.assert_array_equal(rec.bind().walk(), whole)
        known = np.where(np.arange(30)[:, None, None] < 11, whole, np.nan)
        np.testing.assert_array_equal(rec.bind().walk(known, 11), whole)
    rec = rs.Recurrence.from_function(lambda h, u: 0.5 * h + 1, initial=np.array(1.0), length=9, structure="diagonal")
    np.testing.assert_array_equal(rec.bind().walk(), gallery.loop(rec))
