"""The benchmarks, on sizes at which only their numbers mean something; those of the GPU on NumPy in place of CuPy."""

import json
import math
from contextlib import nullcontext
from itertools import islice
from time import perf_counter
from types import SimpleNamespace

import cuda_host
import numpy as np
import pytest
import torch
from cuda_host.solves import kernels_of

import recsolve as rs
from recsolve.kernels.gpu.device import SHARED
from recsolve.kernels.gpu.scan import scan_cuda
from recsolve.studies import bench
from recsolve.studies.bench import by_hand, calls_gpu, graphs, histories, layers_gpu, scans, solves_gpu
from recsolve.studies.bench.board import BOARD, MULTIPLIERS, Config
from recsolve.studies.bench.harness import Gpu, relative_error
from recsolve.studies.command import bench_cli

CONFIG = Config(repeats=1, numbers=1 << 14)


class Event:
    """A CUDA event on a stream that has always done what it was given."""

    def record(self, stream):
        self.at, self.seen = perf_counter(), False

    def synchronize(self):
        self.seen = True


class Stream:
    """A stream that may be captured, once the device has been waited for."""

    def __init__(self, non_blocking=False):
        self.captured, self.ready, self.launches = None, False, 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        assert self.captured is None

    def synchronize(self):
        self.ready = True

    def begin_capture(self):
        assert self.ready
        self.captured = SimpleNamespace(launch=self.launch)

    def end_capture(self):
        captured, self.captured = self.captured, None
        return captured

    def launch(self, stream):
        assert stream is self
        assert self.captured is None
        self.launches += 1


class CuPy:
    """NumPy, with what a clock on a GPU needs."""

    def __init__(self):
        self.released = 0
        self.cuda = SimpleNamespace(
            Event=Event,
            Stream=Stream,
            get_current_stream=Stream,
            get_elapsed_time=self.elapsed,
            runtime=SimpleNamespace(deviceSynchronize=lambda: None),
        )

    def __getattr__(self, name):
        return getattr(np, name)

    def get_default_memory_pool(self):
        return SimpleNamespace(free_all_blocks=self.release)

    def release(self):
        self.released += 1

    @staticmethod
    def elapsed(began, ended):
        assert ended.seen
        return 1e3 * (ended.at - began.at)


@pytest.fixture
def gpu(monkeypatch):
    """A device of NumPy's, a board of small shapes, and the CUDA kernels of one cell on the host."""
    for n, name in enumerate(BOARD):
        monkeypatch.setitem(BOARD, name, (1 + n % 2, 40 + n, 6))
    machine = SimpleNamespace(processors=4, shared=SHARED)
    monkeypatch.setattr(scan_cuda, "on", lambda like, given: nullcontext(machine))
    for module in (scans, solves_gpu):
        monkeypatch.setattr(module, "_LAUNCHES", 3)
    one = Gpu(repeats=2, xp=CuPy(), torch="cpu")
    one.copied, one.caches = 1 << 10, 1 << 13
    return one


def complete(rows, table, errors=("error",)):
    """Assert that rows are JSON, that the table shows them, and that times are times and errors small."""
    for row in json.loads(json.dumps(rows, allow_nan=False)):
        assert table.label(row)
        assert all(column.show(row) is not None for column in table.columns)
        if "kernel" in row:
            assert row["kernel_over_floor"] == row["kernel"] / row["floor"] > 0
        assert row["call"] > 0
        assert all(row[name] is None or row[name] < (2e-3 if "float16" in str(row) else 1e-5) for name in errors)
    table.show(rows)


def test_scans_on_a_gpu_have_times_a_regime_and_errors(gpu):
    config = Config(repeats=1, shapes=("S3", "S5"))
    rows, cases = list(scans.gpu_rows(config, gpu)), list(scans.gpu_cases(config))
    assert gpu.xp.released == len(cases)
    complete(rows, bench.get("gpu", "scan").table)
    assert [row["scan"] for row in rows[: len(cases)]] == [case.name for case in cases]
    assert all(row["error"] is not None and row["regime"] for row in rows[: len(cases)])
    assert [row["scan"] for row in rows[len(cases) :]] == ["cupy.cumsum (CUB), 1-D", "torch.cumsum over T"]
    quick = Config(repeats=1, shapes=("S3",), quick=True)
    assert [case.name for case in scans.gpu_cases(quick)] == ["diagonal", "diagonal, reverse"]


@pytest.mark.parametrize("case", [*scans.gpu_cases(Config(shapes=("S3", "S5")))], ids=lambda case: case.name)
def test_elements_of_scans_lie_as_they_are_said_to(case, gpu):
    case = scans.replace(case, shape=(6, 2, 2, 4) if case.components > 1 else (6, 2, 8))
    a, b = case.make(np, np.random.default_rng(0))
    assert b.shape == case.shape
    assert b.dtype == scans._entries((a, b)).dtype == case.dtype
    assert (b.strides[0] < 0) == case.reverse
    assert np.argsort([-abs(stride) for stride in b.strides]).tolist() == list(case.order or range(b.ndim))
    assert case.size == scans._entries((a, b)).nbytes + 2 * b.nbytes
    entries = scans._entries((a, b))
    assert (entries == 1).all() == (case.multipliers == "all 1")
    assert case.multipliers == "uniform" or ((entries >= 0.9 - 1e-6) & (entries <= 1)).all()
    y = case.run(rs.kernels.get("scan", "numpy"), (a, b))
    assert case.error(y, (a, b), scans._GPU_LOOP, np.float64) < 1e-2
    y[-1] += 1
    assert case.error(y, (a, b), scans._GPU_LOOP, np.float64) > 1e-2


@pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
def test_fused_solves_on_a_gpu_have_times_counts_and_errors(gpu, monkeypatch):
    monkeypatch.setattr(solves_gpu, "CELLS", {"GRU": rs.cells.GRU})
    monkeypatch.setattr(solves_gpu, "_KINDS", {"(B, T, D)": ("float32", True)})
    monkeypatch.setattr(solves_gpu, "_ODD", ((2, 40, 5),))
    monkeypatch.setattr(solves_gpu, "_BIASES", (0, 4))
    monkeypatch.setattr(solves_gpu, "lengths", lambda longest: [70])
    kernels = kernels_of(rs.cells.GRU)
    monkeypatch.setattr(solves_gpu, "fused", lambda traced, dtype: kernels)
    rows = list(solves_gpu.rows(Config(repeats=1, shapes=("S2", "S3")), gpu))
    complete(rows, bench.get("gpu", "solve").table, ("error", "loop_error"))
    board, memory = (
        ["GRU", "GRU adjoint", "GRU, torch loop", "GRU", "GRU adjoint"],
        ["GRU", "GRU adjoint", "GRU", "GRU"],
    )
    assert [row["solve"] for row in rows] == [*board, *memory, "GRU, (B, T, D)", "GRU", "GRU, one walk", "GRU, auto"]
    assert [(row["bias"], row["weights"]) for row in rows[5:9]] == [(4, 0.5), (4, 0.5), (0, 1.0), (4, 1.0)]
    for row in rows:
        told = [row[name] for name in ("error", "segments", "checked_over_floor")]
        assert {value is None for value in told} == {row["solve"] in ("GRU adjoint", "GRU, torch loop")}
        assert (row["sweeps"] > 0) == (row["error"] is not None)


def test_public_calls_on_a_gpu_have_times_and_errors(gpu, monkeypatch):
    monkeypatch.setattr(calls_gpu, "BIASES", (0, 4))
    rows = list(calls_gpu.rows(Config(repeats=1, shapes=("S1", "S3")), gpu))
    complete(rows, bench.get("gpu", "call").table)
    calls = {(row["shape"], row["call_of"]) for row in rows}
    assert ("S1", "solve newton") in calls
    assert ("S3", "solve newton") not in calls
    assert {row["memory"] for row in rows} == {*MULTIPLIERS, "bias 0", "bias 4"}
    for row in rows:
        assert (row["error"] is None) == (row["call_of"] == "adjoint")


def test_layers_of_torch_have_times_and_errors(gpu, monkeypatch):
    monkeypatch.setattr(layers_gpu, "_TRAINING", 2)
    monkeypatch.setattr(layers_gpu, "_SHOWN", 2)
    monkeypatch.setattr(layers_gpu, "CELLS", ("GRU",))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # where others compute too, threads of so little work wait for each other
    with rs.backend("numpy"):
        rows = list(layers_gpu.rows(Config(repeats=1, shapes=("S4",)), gpu))
    torch.set_num_threads(threads)
    assert [(row["cell"], row["weights"]) for row in rows] == [("GRU", name) for name in layers_gpu.GAINS]
    table = bench.get("gpu", "dense").table
    for row in json.loads(json.dumps(rows, allow_nan=False)):
        assert row["cudnn"] > 0
        assert row["error"] < 1e-5
        assert row["auto_error"] < 1e-5
        assert (row["cudnn_over_run"] is None) == (row["run"] is None)
        assert len([column.show(row) for column in table.columns]) == 14
    with pytest.raises(ValueError, match="shapes has S1; layers are timed on S4 and S2"):
        next(layers_gpu.rows(Config(shapes=("S1",)), gpu))


def test_a_wrong_answer_is_shown_and_one_that_was_not_measured_is_left_out(capsys, monkeypatch):
    assert relative_error(np.ones(3), None) is relative_error(np.ones(3), np.ones(2)) is None
    wrong = relative_error(np.array([1, np.nan]), np.array([1.0, 2.0]))
    rows = [{"scan": name, "shape": "S1", "regime": "", "error": error} for name, error in (("a", wrong), ("b", None))]
    rows = [row | dict.fromkeys(("floor", "kernel", "call", "kernel_over_floor"), 1.0) for row in rows]
    table = bench.get("gpu", "scan").table
    monkeypatch.setattr(bench, "get", lambda machine, what: bench.Bench(lambda config: iter(rows), table))
    bench_cli.gpu(shapes="S1, odd 1")
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[4:6]] == ["nan", "1000000"]
    bench_cli.gpu(as_json=True)
    assert [row["error"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["nan", None]


def test_rows_have_times_errors_and_ratios():
    rows = list(islice(bench.get("cpu", "solve").rows(CONFIG), 5))
    assert [row["solve"] for row in rows][:2] == ["GRU in order", "user's GRU in order"]
    for row in json.loads(json.dumps(rows, allow_nan=False)):
        assert row["median"] > 0
        assert row["reference_over_solve"] == pytest.approx(row["reference_median"] / row["median"])
        assert row["error"] < 1e-5
        assert math.isfinite(row["reference_error"])


def test_histories_beside_calls_of_their_function(monkeypatch):
    monkeypatch.setattr(histories, "ATTENTION", (20, 4))
    rows = list(bench.get("cpu", "history").rows(Config(repeats=1)))
    assert [row["reference"] for row in rows] == ["F as often", "row after row"]
    for row in rows:
        assert row["error"] < 1e-14
        assert row["reference_over_solve"] > 0


def test_graphs_beside_loops_by_hand(monkeypatch):
    monkeypatch.setattr(graphs, "GRID", (5, 4, 3))
    monkeypatch.setattr(graphs, "STACK", (3, 6, 2, 4))
    rows = list(bench.get("cpu", "graph").rows(Config(repeats=1)))
    assert [row["reference"] for row in rows] == ["diagonals"] * 4 + ["layer by layer"]
    for row in rows:
        assert row["error"] < 1e-14
        assert row["reference_over_solve"] > 0


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_loops_by_hand_are_what_the_library_computes(name):
    cell, rng = getattr(rs.cells, name.upper()), np.random.default_rng(0)
    u = {n: rng.standard_normal((20, 2, 3)) for n in cell.drives}
    w = {n: rng.standard_normal(3) for n in (*cell.mixings, *cell.parameters)}
    mixings = {n: rs.mixings.Diagonal(w[n]) for n in cell.mixings}
    parameters = {n: w[n] for n in cell.parameters}
    rec = cell.with_weights(mixings=mixings, parameters=parameters, hidden_size=3).recurrence(drive=u)
    solution = rs.solve(rec, method="sequential")
    states = getattr(by_hand, name)(u, w)
    np.testing.assert_allclose(states, solution.states, rtol=1e-12, atol=1e-12)
    cotangent = rng.standard_normal(rec.shape)
    g = rs.adjoint(solution, states=cotangent)
    found, gradients = getattr(by_hand, f"{name}_adjoint")(u, w, states, cotangent)
    np.testing.assert_allclose(found, g.states, rtol=1e-10, atol=1e-10)
    for n in cell.drives:
        np.testing.assert_allclose(gradients[n], g.drive[n], rtol=1e-10, atol=1e-10)
    for n in cell.mixings:
        np.testing.assert_allclose(gradients[f"w_{n}"].sum(axis=0), g.mixings[n], rtol=1e-10, atol=1e-10)
