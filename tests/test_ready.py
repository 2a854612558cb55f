"""Loops that are compiled already run problems of every size, and a small problem never begins a compilation."""

import subprocess
import sys

import numpy as np
import pytest

import recsolve as rs
from recsolve.kernels import compile_clock, graph_scan
from recsolve.kernels.backends import scan
from recsolve.kernels.cpu.jit import disk, ready
from recsolve.kernels.monoids import MONOIDS
from recsolve.recurrence.binding import walking
from recsolve.recurrence.engine import CompiledEngine, Engine

METHODS = ("sequential", "newton", "quasi_newton", "jacobi", "gauss_seidel", "windowed", "multiple_shooting", "auto")
SMALL = (1, 2, 31, 255)


CELL = """
from functools import cache
import numpy as np, recsolve as rs
from recsolve.kernels import compile_clock
@cache
def kind(own):
    def leak(s, W, u, p):
        return W.h(s.h) + u.h / own
    return rs.Cell(leak, state=("h",), output="h")
@cache
def cell(own, mixing):
    return kind(own).random(input_size=2, hidden_size=4, mixing=mixing, rng=0)
def made(T, own=3.0, mixing="diagonal"):
    return cell(own, mixing).recurrence(np.random.default_rng(T).standard_normal((T, 2)))
"""
made = {}
exec(CELL, made)
made = made["made"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def empty(folder, monkeypatch):
    """Keep what is compiled in a folder that was empty before these tests."""
    monkeypatch.setenv(disk.VARIABLE, str(folder))


@pytest.fixture(autouse=True)
def on(monkeypatch):
    monkeypatch.setenv(ready.VARIABLE, "on")
    monkeypatch.setattr(ready, "_KNOWN", {})


@pytest.fixture
def compiled(empty):
    """Compile the walk, and the evaluation of f that a solve compares it with."""
    rs.solve(made(4096), method="sequential")


def test_what_a_large_problem_has_compiled_runs_small_ones_and_nothing_else_is_compiled(empty):
    assert not any(made(T).compiled for T in SMALL)
    rs.solve(made(4096), method="sequential")
    before = compile_clock.compilations()
    for T in SMALL:
        rec = made(T)
        assert rec.compiled
        with rs.backend("numpy"):
            truth = rs.solve(rec, method="sequential")
            gradient = rs.adjoint(truth, states=np.ones(rec.shape)).initial
        for method in METHODS:
            sol = rs.solve(rec, method=method)
            assert sol.success, (T, method)
            np.testing.assert_allclose(sol.states, truth.states, rtol=1e-13, atol=1e-14)
            assert sol.residuals[-1] <= 1e-13
            np.testing.assert_allclose(rs.adjoint(sol, states=np.ones(rec.shape)).initial, gradient, rtol=1e-12)
    assert compile_clock.compilations() == before


def test_methods_that_need_no_walk_take_what_they_have_compiled_and_the_loop_is_not_slowed_down(empty):
    rs.solve(made(4096, own=5.0), method="jacobi")
    before, rec = compile_clock.compilations(), made(100, own=5.0)
    with walking(False):
        assert rec.compiled
    assert rs.solve(rec, method="jacobi").success
    assert type(rec.bind()) is Engine  # the walk is not compiled
    assert rs.solve(rec, method="jacobi", fallback="sequential", maxiter=0).success
    assert compile_clock.compilations() == before


@pytest.mark.parametrize("mixing", ["diagonal", "dense"])
def test_the_next_larger_problem_does_not_take_a_fraction_of_the_time(mixing):
    """Before, 255 steps of NumPy took thirty times what 256 compiled ones do."""
    cell = rs.cells.Elman.random(input_size=2, hidden_size=32, mixing=mixing, rng=0)
    recs = [cell.recurrence(np.ones((T, 2))) for T in (255, 256)]
    for rec in reversed(recs):
        rs.solve(rec, method="sequential")
    below, above = (min(rs.solve(rec, method="sequential").stats["seconds"] for _ in range(20)) for rec in recs)
    assert below < 4 * above
    assert isinstance(recs[0].bind(), CompiledEngine)


def test_size_alone_decides_where_that_is_wanted(compiled, monkeypatch):
    made(4096).bind()
    assert made(100).compiled
    with rs.backend("numpy"):
        assert not made(100).compiled
    monkeypatch.setenv(ready.VARIABLE, "off")
    assert not made(100).compiled
    monkeypatch.setenv(ready.VARIABLE, "perhaps")
    with pytest.raises(ValueError, match="RECSOLVE_CALIBRATION is 'perhaps'; wanted 'on' or 'off'"):
        made(100).bind()


def test_mixings_of_other_kinds_are_other_programs(compiled):
    for _ in range(5):
        assert made(100).compiled
        assert not made(100, mixing="dense").compiled


def test_what_lies_on_disk_is_loaded_once_small_problems_have_taken_some_steps(compiled):
    code = """
for T in 100, 100, 100, 1:
    rs.solve(made(T), method="sequential")
    print(type(made(T).bind()).__name__)
print(compile_clock.compilations())
"""
    done = subprocess.run([sys.executable, "-c", CELL + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Engine", "FusedEngine", "FusedEngine", "FusedEngine", "0"]


def test_whether_arrays_may_be_written_compiles_nothing_anew(compiled):
    rec = made(4096)
    rs.solve(rec, method="sequential")
    initial, before = np.ones(4), compile_clock.compilations()
    for start in (initial, np.broadcast_to(np.ones(()), 4), rs.solve(rec, method="sequential").states[-1]):
        rs.solve(rec.window(0, 4096, start), method="sequential")
    rec.window(10, 4090, initial).bind().walk()
    assert compile_clock.compilations() == before


def test_whether_the_initial_state_of_a_scan_may_be_written_compiles_nothing_anew():
    A, b = rs.jacobians.Diagonal(np.full((20_000, 4), 0.5), rs.Layout(units=4)), np.ones((20_000, 4))
    scan(MONOIDS["affine"], (A, b), initial=np.ones(4))
    before = compile_clock.compilations()
    assert (scan(MONOIDS["affine"], (A, b), initial=np.broadcast_to(np.ones(()), 4))[0] == 1.5).all()
    assert compile_clock.compilations() == before


def test_loops_along_graphs_run_at_every_size_once_they_are_compiled(monkeypatch):
    def solved(nodes):
        u = np.random.default_rng(0).standard_normal((nodes, 2))
        parents = [(n - 1, max(n - 3, -1)) for n in range(nodes)]
        rec = rs.Recurrence.from_graph(
            lambda h, u: 0.4 * np.tanh(h[0]) + 0.4 * np.tanh(h[1]) + u,
            parents,
            inputs=u,
            initial=np.zeros(2),
            structure="diagonal",
        )
        return rs.solve(rec, method="newton")

    ran = []
    monkeypatch.setattr(graph_scan, "_run", lambda *args, run=graph_scan._run: (ran.append(args[0][1]), run(*args)))
    assert solved(100).success
    assert not ran
    assert solved(5000).success
    of_large = set(ran)
    assert "forward" in of_large
    ran.clear()
    assert solved(100).success
    assert "forward" in ran
    assert set(ran) <= of_large


def test_an_attempt_in_vain_is_made_again_when_something_has_been_compiled():
    calls = []

    def call():
        calls.append(1)
        compile_clock.check_allowed()

    for _ in range(3):
        assert ready.attempt("a key", 300, call, "") is None
    assert len(calls) == 1
    compile_clock.count_compilation()
    assert ready.attempt("a key", 300, lambda: "found", "") == "found"
    assert ready.here("a key")

    def other():  # another shape may want another loop
        with compile_clock.compiling():
            compile_clock.check_allowed()

    assert ready.attempt("a key", 1, other, "") is None
    assert not ready.here("a key")
