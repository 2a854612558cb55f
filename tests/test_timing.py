"""Times are of work: compilation is told apart, whoever compiles, and is never part of a time that is shown."""

import logging
import time

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.base.tolerance import tolerance_for
from recsolve.kernels.compile_clock import CompilationRefused, Stopwatch, check_allowed, compiling, refusing
from recsolve.kernels.cpu.jit import disk, module_cache
from recsolve.kernels.cpu.threads import spread
from recsolve.solvers.auto_pilot import choose
from recsolve.studies.compare import compare as study
from recsolve.studies.compare.measure import timed
from recsolve.studies.draw import tables
from recsolve.studies.timing import in_turns

SLOW = 0.3  # seconds of a compiler that sleeps
LOOP = """from recsolve.kernels.cpu.jit.decorators import compiled


@compiled
def total(x):
    s = 0.0
    for i in range(x.size):
        s += x[i] ** 3
    return s
"""


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Return a loop that nobody has compiled yet."""
    monkeypatch.setenv(disk.VARIABLE, str(tmp_path))
    return module_cache.load(f"{LOOP}# {tmp_path}\n", "probe").total


def compile_once():
    """Return a function that compiles when it is first called."""
    made = []

    def run(*_):
        if not made:
            with compiling():
                check_allowed()
                time.sleep(SLOW)
            made.append(True)

    return run


def test_numba_is_timed_apart_and_logged(fresh, caplog):
    caplog.set_level(logging.INFO, logger="recsolve")
    began, watch = time.perf_counter(), Stopwatch()
    fresh(np.ones(3))
    whole, work = time.perf_counter() - began, watch.seconds
    assert watch.compile_seconds > 0.8 * whole
    assert 0 <= work < 0.2 * whole
    assert any(r.message.startswith(f"compiled {fresh.__module__}.total in") for r in caplog.records)
    watch = Stopwatch()
    fresh(np.ones(3))
    assert watch.compile_seconds == 0


def test_who_waits_for_the_compiler_of_another_thread_is_not_at_work(fresh):
    watch = Stopwatch()
    spread(lambda first, last: fresh(np.ones(3)), 2, 2)
    assert watch.seconds < 0.5 * watch.compile_seconds


def test_what_is_nested_counts_once():
    watch = Stopwatch()
    with compiling(), compiling():
        time.sleep(0.05)
    assert 0.05 <= watch.compile_seconds < 0.1 + watch.seconds + 0.05
    assert watch.seconds < 0.05


def test_where_compilation_is_refused_what_is_compiled_still_runs(fresh):
    with refusing():
        with pytest.raises(CompilationRefused):
            fresh(np.ones(3))
        with pytest.raises(CompilationRefused):  # in the threads of the caller too
            spread(lambda first, last: first and fresh(np.ones(3)), 2, 2)
    assert not fresh.signatures
    assert fresh(np.ones(3)) == 3.0
    with refusing():
        assert fresh(np.ones(4)) == 4.0


def test_runs_warm_up_and_take_turns():
    calls = []
    runs = [lambda: calls.append("a"), lambda: calls.append("b")]
    assert in_turns(runs, 2).shape == (2, 2)
    assert calls == ["a", "b"] * 3
    assert in_turns([lambda: time.sleep(0.02)], 3, 0.01).shape == (1, 1)  # long enough for one to do
    assert timed(compile_once())["seconds_high"] < SLOW / 3


def test_a_long_first_run_that_compiles_is_no_time():
    """Whatever goes before a compiler, as tracing and importing, would be counted."""
    first = compile_once()

    def run(before=[0.2, 0.0, 0.0]):  # noqa: B006 - seconds of tracing
        time.sleep(before.pop(0) if before else 0.0)
        first()

    assert in_turns([run], 3, 0.1).max() < 0.1


class Compiled(rs.solvers.Jacobi):
    """Jacobi, compiled when it is first used without a callback, as the solves are that are compiled whole."""

    name = "compiled"
    compile = staticmethod(compile_once())

    def direct(self, problem):
        self.compile()


def test_the_table_of_a_first_comparison_is_that_of_a_second(monkeypatch, capsys):
    monkeypatch.setattr(Compiled, "compile", staticmethod(compile_once()))
    monkeypatch.setattr("recsolve.studies.compare.race._ENOUGH_SECONDS", 0.1)  # less than the compiler takes
    config = study.CompareConfig(units=4, length=40, mixing="dense", solvers=("sequential", Compiled()))
    *_, result = study.compare(config)
    entries = result.panels[0].entries
    assert all(0 < entry.seconds < SLOW / 3 for entry in entries)
    assert result.compile_seconds >= SLOW
    assert result.record()["compile_seconds"] == result.compile_seconds
    tables.show_comparison(result)
    assert "compiling, or loading what was compiled, took 0.3" in capsys.readouterr().out


def test_a_solution_tells_work_from_compilation():
    run, rec = compile_once(), gallery.recurrence("gru", T=20)
    first, second = (rs.solve(rec, callback=run) for _ in range(2))
    assert first.stats["compile_seconds"] >= SLOW > 3 * first.stats["seconds"]
    assert second.stats["compile_seconds"] == 0
    assert "s of compiling" in repr(first)
    assert "compiling" not in repr(second)


@pytest.mark.parametrize(("step", "compiles"), [(1e-4, False), (0.1, True)])
def test_a_pilot_compiles_only_where_that_could_pay(monkeypatch, step, compiles):
    """300 steps of so many seconds each, and judging an iterate has to be compiled."""
    run, u = compile_once(), np.ones((300, 2))
    rec = gallery.function(lambda h, u: 0.5 * h + u, u)
    from recsolve.solvers import auto_pilot

    class Pilot(auto_pilot.Pilot):
        def __init__(self, *args):
            super().__init__(*args)
            self.step = step

        def measure(self):
            run()
            super().measure()

    monkeypatch.setattr(auto_pilot, "Pilot", Pilot)
    watch = Stopwatch()
    found = choose(rec, tolerance_for(rec, None))
    assert (watch.compile_seconds >= SLOW) is compiles
    assert ("jacobi" in found.candidates_by_name) is compiles
    assert ("would first have to be compiled" in str(found)) is not compiles
