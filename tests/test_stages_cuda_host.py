"""The CUDA stages and sweeps of cells on the host: the same kernels over NumPy arrays, with products by NumPy."""

import os
import re
import shutil
import subprocess
from unittest import mock

import cuda_host
import gallery
import numpy as np
import pytest
from gallery import weighted
from test_fused_mixing import COUPLED, drives, mixed, ties

import recsolve as rs
from recsolve.base.tolerance import Tolerance, tolerance_for
from recsolve.gradients.sensitivity import CellSensitivity, weight_cotangents
from recsolve.kernels.codegen.cuda_elementwise import OPTIONS, stages_text
from recsolve.kernels.codegen.cuda_stages import stage_structure, sweep_cell
from recsolve.kernels.codegen.numba_elementwise import inputs_of
from recsolve.kernels.codegen.numba_stages import jobs_of
from recsolve.kernels.gpu.cell import sweeps
from recsolve.kernels.gpu.cell.products import ProductsCuda
from recsolve.kernels.gpu.cell.stage_launches import ElementwiseCuda, PullCuda, StagesCuda
from recsolve.kernels.gpu.device import Launch
from recsolve.kernels.reference import scan_numpy
from recsolve.mixings import Dense
from recsolve.recurrence import staged_engine
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.compilation import kinds_of, ties_of
from recsolve.recurrence.current import traced_now
from recsolve.recurrence.engine import Engine
from recsolve.recurrence.staged_engine import StagedEngine
from recsolve.recurrence.sweep_engine import given, sweep
from recsolve.symbolic.tracing import trace_cell

needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")


def scan_by_numpy(monoid, elements, y, machine, *, reset=None):
    """A scan that can be run many times: those of the GPU are tried elsewhere, and take long to compile."""

    def run():
        y[...] = scan_numpy.scan(monoid, elements, reset=reset)

    return run


@pytest.fixture(scope="module")
def host():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps, "launches", scan_by_numpy)
        yield cuda_host.Host(workers=2, processors=1)


def kinds(rec):
    return {name: rec.cell.mixings[name].name for name in rec.cell.cell.mixings}


def order(rec, batch_first):
    """The same recurrence, with drives that are (T, B, D) or views of (B, T, D) buffers."""
    if not batch_first or len(rec.batch) != 1:
        return rec
    swapped = {n: np.ascontiguousarray(u.swapaxes(0, 1)).swapaxes(0, 1) for n, u in rec.drive.items()}
    return rec.cell.recurrence(drive=swapped, initial=rec.initial, reset=rec.reset, ties=rec.ties)


def same(found, wanted, dtype):
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    tol = 400 * np.finfo(dtype).eps
    np.testing.assert_allclose(found, wanted, rtol=tol, atol=tol)


def same_linearisation(host, rec):
    """Check f at all t and its Jacobian against NumPy's."""
    rng = np.random.default_rng(3)
    states, v = (rng.standard_normal(rec.shape).astype(rec.dtype) for _ in range(2))
    if rec.cell.cell.name == "slstm":
        states = abs(states) + rec.dtype.type(0.5)  # it divides by a state, which is positive
    with rs.backend("numpy"):
        F, J = rec.linearise(states)
    program = trace_cell(rec.cell.cell, kinds(rec), rec.ties)
    parts = [mock.Mock(), StagesCuda(program, host), ProductsCuda(program, host)]
    with mock.patch.object(staged_engine, "kernel_of", side_effect=parts):
        engine = StagedEngine(rec, traced_now(rec.cell.cell, kinds_of(rec.cell), ties_of(rec)), "cuda")
    found, ours = engine.linearise(states)
    pairs = [(found, F), (engine.evaluate(states), F), (ours.matvec(v), J.matvec(v)), (ours.rmatvec(v), J.rmatvec(v))]
    for x, y in pairs:
        same(x, y, rec.dtype)


@needs_compiler
@pytest.mark.parametrize("mixing", ["dense", "heads"])
@pytest.mark.parametrize(("place", "name"), list(enumerate(COUPLED)))
def test_every_linearisation(host, place, name, mixing):
    dtype = np.float64 if place % 2 else np.float32  # in turn: to compile one takes seconds
    cell = weighted(name, mixing, units=12, dtype=dtype, gain=0.9)
    for T, batch in [(33, (3,)), (31, ()), (0, (2,)), (5, (0,)), (1, (2, 2))]:
        x = np.random.default_rng(T).standard_normal((T, *batch, cell.input_size)).astype(dtype)
        for batch_first in (False, True):
            same_linearisation(host, order(cell.recurrence(x), batch_first))


def same_pull(host, rec):
    """Check the way back of a step at all t against that of arrays; None where mixings see what is computed."""
    rng = np.random.default_rng(4)
    states, g = (rng.standard_normal(rec.shape).astype(rec.dtype) for _ in range(2))
    if rec.cell.cell.name == "slstm":
        states = abs(states) + rec.dtype.type(0.5)
    traced = traced_now(rec.cell.cell, kinds_of(rec.cell), ties_of(rec))
    parts = [mock.Mock(), StagesCuda(traced.program, host), ProductsCuda(traced.program, host)]
    parts += [PullCuda(traced.back, host)]
    with mock.patch.object(staged_engine, "kernel_of", side_effect=parts):
        found = StagedEngine(rec, traced, "cuda").pull(rec.previous(states), g)
    if found is None:
        return None
    wanted = CellSensitivity(rec, rec.previous(states)).pull(g, states=False)
    for kind in ("drive", "parameter"):
        for name, x in (rec.drive if kind == "drive" else rec.cell.parameters).items():
            zero = np.zeros_like(rec.layout.component(g, 0))
            same(found.leaves[kind, name], wanted.leaves.get((kind, name), zero), x.dtype)
    for name, x in weight_cotangents(rec.cell.mixings, wanted).items():
        same(weight_cotangents(rec.cell.mixings, found)[name], x, rec.dtype)
    return found


@needs_compiler
@pytest.mark.parametrize("mixing", ["dense", "heads"])
@pytest.mark.parametrize(("place", "name"), list(enumerate(COUPLED)))
def test_every_way_back_of_a_step(host, place, name, mixing):
    dtype = np.float32 if place % 2 else np.float64
    cell = weighted(name, mixing, units=12, dtype=dtype, gain=0.9)
    sees_states = sweep_cell(trace_cell(cell.cell, mixing)) is not None
    for T, batch in [(33, (3,)), (0, (2,)), (1, (2, 2))]:
        x = np.random.default_rng(T).standard_normal((T, *batch, cell.input_size)).astype(dtype)
        reset = np.arange(T) == 20
        for batch_first in (False, True):
            rec = order(cell.recurrence(x, reset=reset), batch_first)
            assert (same_pull(host, rec) is not None) == sees_states


@needs_compiler
@pytest.mark.parametrize("mixes_the_drive", [False, True])
def test_the_way_back_past_diagonal_mixings_and_leaves_that_nothing_reads(host, mixes_the_drive):
    def step(s, W, u, p):
        entered = W.x(u.x) if mixes_the_drive else u.x
        return np.tanh(W.h(s.h) + W.own(s.h) * p.b + entered) + 0 * u.unread

    cell = rs.Cell(step, state=("h",), output="h")
    rng = np.random.default_rng(0)
    weights = {name: Dense(rng.standard_normal((5, 5))) for name in ("h", *("x",) * mixes_the_drive)}
    weights["own"] = rs.mixings.Diagonal(rng.standard_normal(5))
    made = cell.with_weights(mixings=weights, parameters={"b": rng.standard_normal(5)})
    drive = {"x": rng.standard_normal((40, 2, 5)), "unread": rng.standard_normal((40, 2, 5))}
    assert (same_pull(host, made.recurrence(drive=drive)) is None) == mixes_the_drive


@needs_compiler
def test_nested_and_diagonal_mixings_and_components_that_need_no_kernel(host):
    cell = mixed(12, np.float64)
    same_linearisation(host, cell.recurrence(drive=drives(cell, 31, (3,), np.float64)))
    cell = rs.Cell(ties, state=("a", "b", "c", "d"), output="a")
    weight, drive = Dense(np.zeros((3, 3), np.float32)), {"h": np.zeros((33, 2, 3), np.float32)}
    for tie in (0.0, 1.0):
        same_linearisation(host, cell.with_weights(mixings={"h": weight}).recurrence(drive=drive, ties=tie))


@needs_compiler
@pytest.mark.parametrize(("place", "name"), list(enumerate(rs.cells.REGISTRY)))
def test_every_cell_without_coupling(host, place, name):
    dtype = np.float32 if place % 2 else np.float64
    cell = weighted(name, "diagonal", units=12, dtype=dtype)
    program = trace_cell(cell.cell)
    kernels = ElementwiseCuda(program, host)
    for T, batch in [(33, (3,)), (31, ()), (0, (2,)), (5, (0,)), (1, (2, 2))]:
        x = np.random.default_rng(T).standard_normal((T, *batch, cell.input_size)).astype(dtype)
        rec = order(cell.recurrence(x), True)
        states = np.random.default_rng(3).standard_normal(rec.shape).astype(dtype)
        with rs.backend("numpy"):
            F, J = rec.linearise(states)
        arrays = {"drive": rec.drive, "parameter": cell.parameters}
        arrays["weight"] = {n: m.weight for n, m in cell.mixings.items()}
        inputs = [arrays[leaf.kind][leaf.name] for leaf in inputs_of(program)]
        values, again, entries = rec.empty(), rec.empty(), np.empty(J.data.shape, dtype)
        kernels.evaluate(inputs, rec.previous(states), values, len(batch))
        kernels.linearise(inputs, rec.previous(states), again, entries, len(batch))
        same(values, F, dtype)
        np.testing.assert_array_equal(values, again)
        same(entries, np.ascontiguousarray(J.data), dtype)


def sweeps_on(host, rec):
    traced = traced_now(rec.cell.cell, kinds_of(rec.cell), ties_of(rec))
    return sweeps.sweeps(traced, rec.dtype, host)


def swept(host, rec, tol=None, scanned=True):
    found = sweeps_on(host, rec)
    tolerance = tolerance_for(rec, tol)
    host.products.clear()
    with np.errstate(all="ignore"):
        return found.solve(given(rec, found.cell), (tolerance.atol, tolerance.rtol), scanned=scanned)


@pytest.fixture
def on_the_host(host, monkeypatch):
    """Let recurrences of NumPy arrays be swept as those on a GPU are."""

    class Swept(Engine):
        def solve(self, way, tolerance, window=256):
            rec = self.recurrence
            return sweep(rec, sweeps_on(host, rec), tolerance, scanned=way == "sweeps")

    monkeypatch.setattr(CellRecurrence, "bind", lambda rec: Swept(rec))
    return host


SWEPT = [("elman", "dense"), ("gru", "dense"), ("gru", "heads"), ("lstm", "heads"), ("pararnn_lstm", "dense")]


@needs_compiler
@pytest.mark.parametrize(("name", "mixing"), SWEPT)
def test_sweeps_end_at_the_loop(on_the_host, name, mixing):
    for T, batch, dtype in [
        (97, (2,), np.float32),
        (33, (), np.float32),
        (1, (3,), np.float32),
        (60, (2, 2), np.float64),
    ]:
        rng = np.random.default_rng(T)
        cell = weighted(name, mixing, units=8, dtype=dtype)
        x = rng.standard_normal((T, *batch, 3)).astype(dtype)
        start = rng.standard_normal((*batch, *cell.layout.event)).astype(dtype)
        reset = rng.random((T, *batch)) < 0.1
        for rec in (cell.recurrence(x), order(cell.recurrence(x, initial=start, reset=reset), True)):
            reference = rs.solve(rec, method="sequential")
            on_the_host.products.clear()
            sol = rs.solve(rec, method="quasi_newton")
            assert on_the_host.products, "no sweeps"
            assert sol.success
            assert sol.nit < max(T, 2)
            assert np.abs(sol.states - reference.states).max() <= gallery.bound(reference)
            assert sol.states.strides == reference.states.strides


@needs_compiler
def test_early_products_are_rough_and_the_last_one_is_not(host):
    rec = gallery.recurrence("gru", "dense", T=200, units=32, dtype=np.float32)
    states, iterations, residual, largest = swept(host, rec)
    assert abs(largest - np.abs(states).max()) <= 1e-5
    np.testing.assert_allclose(
        residual, rec.apply(rec.previous(states)) - states, atol=1e-6
    )  # that of what is returned
    starts, sweeps = host.products[:2], host.products[2:]
    assert starts == ["full", "full"]  # with h[0] and what resets go back to
    assert sweeps[0] == "rough"
    assert sweeps[-1] == "full"
    assert 2 <= sweeps.count("full") <= 4
    assert iterations <= 30
    assert gallery.residual_is_met(rec, states, tolerance_for(rec))
    swept(host, gallery.recurrence("gru", "dense", T=200, units=32))
    assert set(host.products) == {"full"}  # float64 knows no rough ones


@needs_compiler
def test_jacobi_is_the_sweep_without_a_scan(on_the_host):
    rec = gallery.recurrence("gru", "dense", T=97, dtype=np.float32, gain=0.5)
    reference, sol = (rs.solve(rec, method=method) for method in ("sequential", "jacobi"))
    assert on_the_host.products
    assert sol.success
    assert sol.nit > rs.solve(rec, method="quasi_newton").nit
    assert np.abs(sol.states - reference.states).max() <= gallery.bound(reference)


@needs_compiler
def test_what_is_not_finite_is_left_to_the_driver(on_the_host):
    cell = weighted("gru", "dense", dtype=np.float32)
    x = np.random.default_rng(0).standard_normal((60, 2, 3)).astype(np.float32)
    clean = rs.solve(cell.recurrence(x), method="quasi_newton")
    x[40, 1, 0] = np.nan
    with np.errstate(all="ignore"):
        assert swept(on_the_host, cell.recurrence(x)) is None
        sol = rs.solve(cell.recurrence(x), method="quasi_newton")
    assert sol.status == "nonfinite"
    assert sol.converged_prefix == 40
    np.testing.assert_allclose(sol.states[:40], clean.states[:40], atol=2e-6)


@needs_compiler
def test_what_does_not_converge_is_not_returned(host):
    rec = gallery.recurrence("elman", "dense", T=400, units=16, gain=8.0, dtype=np.float32)
    found = swept(host, rec)
    assert found is None or gallery.residual_is_met(rec, found[0], tolerance_for(rec))
    steep = gallery.recurrence("elman_relu", "dense", T=300, gain=20.0, dtype=np.float32)
    with np.errstate(all="ignore"):
        assert swept(host, steep) is None  # it overflows


def test_nested_mixings_have_no_sweeps():
    assert sweep_cell(trace_cell(rs.cells.ChoGRU, "dense")) is None
    assert sweep_cell(trace_cell(rs.cells.GRU, "diagonal")) is None
    assert sweep_cell(trace_cell(rs.cells.GRU, {"r": "dense", "z": "diagonal", "n": "dense"})) is not None
    rec = gallery.recurrence("cho_gru", "dense", T=40)
    assert rec.bind().solve("sweeps", Tolerance(1e-9, 1e-9)) is None
    assert rs.solve(rec, method="quasi_newton").success


@needs_compiler
@pytest.mark.parametrize("shape", [(0, (2,)), (5, (0,))])
def test_nothing_to_sweep(host, shape):
    T, batch = shape
    assert swept(host, gallery.recurrence("gru", "dense", T=T, batch=batch)) is None


@pytest.mark.skipif(not os.environ.get("RECSOLVE_SLOW"), reason="takes half a minute: set RECSOLVE_SLOW=1")
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("name", COUPLED)
@pytest.mark.parametrize("what", ["stage", "sweep"])
def test_nothing_spills(name, what, tmp_path):
    program = trace_cell(rs.cells.get(name), "dense")
    structures = [stage_structure(job) for partials in (False, True) for job in jobs_of(program, partials) if job.nodes]
    if what == "sweep":
        cell = sweep_cell(program)
        if cell is None:
            pytest.skip("has nested mixings")
        structures = [cell.source]
    text = stages_text(structures, what)
    template = "each<" if what == "stage" else "sweep_update<"
    asked = [Launch(text, f"recsolve::{template}, {number}>", (), 0, 0, 0, None) for number in ("float", "double")]
    kernels = [kernel for launch in asked for kernel in cuda_host.together(launch)]
    taken = "\n".join(f"auto* kernel_{i} = &{kernel};" for i, kernel in enumerate(kernels))
    code = tmp_path / "kernels.cu"
    code.write_text(f"{text}\n{taken}\n")
    command = ["nvcc", *OPTIONS, "-arch=sm_90", "-cubin", "-Xptxas", "-v", str(code), "-o", os.devnull]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert len(spills) == len(kernels)
    assert set(spills) == {("0", "0", "0")}
