"""The kernels of iterations, built for the host, against the NumPy forms, which are the definition."""

import itertools
import os
import re
import shutil
import subprocess

import cuda_host
import numpy as np
import pytest
from gallery import weighted

import recsolve as rs
from recsolve.base.layout import Layout
from recsolve.base.tolerance import Tolerance
from recsolve.jacobians import Block, Diagonal
from recsolve.kernels import residual as forms
from recsolve.kernels.codegen.cuda_elementwise import OPTIONS, rows_text
from recsolve.kernels.gpu import repeated_scan
from recsolve.kernels.gpu.cell.bound_cell import takes_several
from recsolve.kernels.gpu.cell.stage_launches import ElementwiseCuda
from recsolve.kernels.gpu.iterate import OF_BLOCK, OF_DIAGONAL, OF_PRODUCT, OF_PROPOSAL, OF_VALUES, Iterations
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.reference import scan_numpy
from recsolve.recurrence.fused_engine import FusedEngine
from recsolve.solvers import evaluation
from recsolve.symbolic.tracing import trace_cell

pytestmark = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")

LAYOUTS = [
    Layout(units=5),
    Layout(units=72),
    Layout(units=1200),
    Layout(2, (), 132),
    Layout(2, (), 3),
    Layout(2, (3,), 40),
    Layout(1, (2, 3), 4),
    Layout(units=None),
]
SHAPES = [(1, ()), (7, (3,)), (40, ()), (33, (2, 2)), (70, (2,))]


@pytest.fixture(scope="module")
def host():
    return cuda_host.Host(workers=2, processors=1)


def ordered(x, order):
    """The same numbers in another memory order: of all axes, or with the batch first."""
    if order == "C" or x.ndim < 2:
        return x
    if order == "batch":
        return np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
    if order == "shifted":  # numbers that cannot be taken several at once
        wide = np.zeros(x.size + 1, x.dtype)
        wide[1:] = x.ravel()
        return wide[1:].reshape(x.shape)
    if order == "apart":
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    return np.asfortranarray(x)


def trajectory(rng, shape, dtype, starts):
    """States and F that agree at first, and then exactly, nearly or not; some rows are not finite."""
    values = rng.standard_normal(shape).astype(dtype) * rng.choice([1.0, 1e3, 0.0], shape).astype(dtype)
    states, rows = values.copy(), starts.shape
    event = (1,) * (len(shape) - len(rows))
    kind = rng.choice(5, rows, p=[0.6, 0.2, 0.1, 0.05, 0.05]).reshape(rows + event)
    near = values * (1 + rng.uniform(-2e-6, 2e-6, shape)).astype(dtype)
    states = np.where(kind == 1, near, np.where(kind == 2, states + 1, states))
    odd = (rng.random(shape) < 0.3) & (kind >= 3)
    values = np.where(odd, rng.choice(np.array([np.nan, np.inf, -np.inf], dtype), shape), values)
    states = np.where(odd & (kind == 3), values, states)
    states = np.where((kind == 4) & (rng.random(shape) < 0.1), np.array(np.nan, dtype), states)
    return states.astype(dtype), values.astype(dtype)


def cases(rng):
    for _, (T, batch), layout, dtype in itertools.product(range(2), SHAPES, LAYOUTS, ("float32", "float64")):
        starts = rng.random((T, *batch)) < 0.1
        starts[:1] = True
        states, values = trajectory(rng, (T, *batch, *layout.event), dtype, starts)
        if rng.random() < 0.5:  # what has not begun to go wrong, and what cannot go on
            states[: T // 2], values[: T // 2] = 1, 1
        orders = rng.choice(["C", "batch", "apart", "shifted", "F"], 2)
        yield ordered(states, orders[0]), ordered(values, orders[rng.integers(2)]), starts, layout


def axes_of(layout, starts):
    return tuple(range(starts.ndim, starts.ndim + len(layout.event)))


def same(found, wanted):
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == wanted.dtype


def test_an_iterate_is_judged_as_numpy_judges_it(host):
    rng = np.random.default_rng(0)
    blocked = solved = 0
    for states, values, starts, layout in cases(rng):
        lanes = layout if layout.units is not None and rng.random() < 0.4 else None
        tolerance, axes = Tolerance(1e-6, float(rng.choice([0.5e-6, 0.7])), lanes), axes_of(layout, starts)
        pinned = rng.random(starts.shape) < 0.3 if rng.random() < 0.5 else None
        launched = Iterations(starts, layout, states.dtype, host)
        found = launched.judge(states, values, tolerance, pinned)
        with rs.backend("numpy"), np.errstate(all="ignore"):
            told = forms.residual_of(states, values, tolerance, axes)
            exact = told.exact if pinned is None else told.exact | (pinned & np.isfinite(told.worst))
            leading, front = forms.front(exact, starts)
            known, stop = forms.front(told.converged, starts)
            lost = forms.hopeless(states, values, axes)
            sizes = forms.largest_finite(states, axes)
            largest = np.maximum(sizes, forms.largest_finite(values, axes))
        same(found.residual, told.residual)
        same(found.converged, told.converged)
        same(found.leading, leading)
        same(found.front, front)
        same(found.pins, leading | front)
        same(found.cut, leading | front | starts)
        np.testing.assert_equal(found.worst, float(told.worst.max()))
        ended = bool(stop.any()) and not bool((stop & ~lost).any())
        assert found.blocked == (not np.isfinite(found.worst) and ended)
        assert found.done == told.converged.all()
        assert found.progress == leading.sum()
        assert found.settled == told.converged.all(axis=0).sum()
        for times, rows in ((found.leading_times, leading), (found.converged_times, told.converged)):
            failed = np.flatnonzero(~rows.reshape(len(rows), -1).all(axis=1))
            assert times == (failed[0] if failed.size else len(rows))
        numbers = found.numbers[3 * starts.size :].reshape(2, *starts.shape[1:])
        same(numbers[0], np.where(known, sizes, sizes.dtype.type(0)).max(axis=0))
        same(numbers[1], largest.max(axis=0))
        for x, y in zip(launched.front(told.converged), (known, stop), strict=True):
            same(x, y)
        blocked, solved = blocked + found.blocked, solved + bool(numbers[0].any())
    assert blocked
    assert solved


def matrices(rng, layout, starts, dtype):
    k, found = layout.components, [Diagonal]
    shape = {Diagonal: layout.event}
    if k > 1:
        found.append(Block)
        shape[Block] = (k, *layout.event)
    return [kind(rng.standard_normal((*starts.shape, *shape[kind])).astype(dtype), layout) for kind in found]


def test_the_next_states_are_those_of_numpy(host):
    rng = np.random.default_rng(0)
    replaced = 0
    for states, values, starts, layout in cases(rng):
        dtype, axes = states.dtype, axes_of(layout, starts)
        launched, pin = Iterations(starts, layout, dtype, host), bool(rng.integers(2))
        judged = launched.judge(states, values, Tolerance(1e-6, 1e-6))
        A, (d, _) = matrices(rng, layout, starts, dtype), trajectory(rng, states.shape, dtype, starts)
        initial = 3 * rng.standard_normal(states.shape[1:]).astype(dtype)
        reach = float(rng.choice([0.5, 2.0]))
        known = None
        ones = (1,) * len(layout.event)
        if rng.integers(2):
            known = rng.random((1, *starts.shape[1:], *ones)).astype(dtype)
        with rs.backend("numpy"), np.errstate(all="ignore"):
            cut = (judged.cut if pin else starts).reshape(starts.shape + ones)
            before = np.concatenate([np.zeros_like(d[:1]), d[:-1]])
            steps = {
                OF_VALUES: values,
                OF_PROPOSAL: d,
                OF_PRODUCT: values + np.where(cut, dtype.type(0), d),
            }
            for how, J in zip((OF_DIAGONAL, OF_BLOCK), A, strict=False):
                steps[how] = values + np.where(cut, dtype.type(0), J.matvec(before))
            solved, first = judged.numbers[3 * starts.size :].reshape(2, *starts.shape[1:])
            most = np.maximum(first, forms.largest_finite(initial[None], axes)[0])
            most = np.maximum(solved, most if known is None else known.reshape(starts.shape[1:]))
            most = most.reshape(1, *starts.shape[1:], *ones)
            pins = (judged.leading, judged.front) if pin else None
            wanted = {made: forms.guard(x, states, values, reach * most, pins, axes) for made, x in steps.items()}
        for made, x in wanted.items():
            given = None if made == OF_VALUES else d
            made = made, given, A[made - OF_DIAGONAL].data if made >= OF_DIAGONAL else None
            found, reached = launched.guard(states, values, judged, made, reach, known, initial, pin)
            same(found, x)
            same(reached, most)
        replaced += int((wanted[OF_PROPOSAL] != d).sum())
    assert replaced


@pytest.fixture
def on_the_host(host, monkeypatch):
    """Let NumPy arrays be iterated as those on a GPU are."""
    calls = []

    def bound(engine, launched):
        calls.append(engine.recurrence)
        kernels = ElementwiseCuda(engine.traced.program)
        return launched.bind(kernels, engine.inputs, engine.starts, engine.recurrence.drive_like)

    monkeypatch.setattr(FusedEngine, "bound", bound)
    monkeypatch.setattr(
        evaluation,
        "iterations",
        lambda starts, layout, dtype: Iterations(starts, layout, dtype, host) if starts.size * layout.size else None,
    )
    return calls


def test_arrays_that_are_not_on_a_gpu_are_left_to_numpy():
    assert forms.iterations(np.ones((5, 2), bool), Layout(units=3), np.dtype(np.float32)) is None


CELLS = ["gru", "lstm", "elman_relu"]


def recurrence(name, rng, T, batch, dtype, batch_first):
    cell = weighted(name, "diagonal", units=12, dtype=dtype)
    x = rng.standard_normal((T, *batch, cell.input_size)).astype(dtype)
    start, reset = rng.standard_normal((*batch, *cell.layout.event)).astype(dtype), rng.random((T, *batch)) < 0.1
    rec = cell.recurrence(x, initial=start, reset=reset)
    if batch_first:
        swapped = {n: np.ascontiguousarray(u.swapaxes(0, 1)).swapaxes(0, 1) for n, u in rec.drive.items()}
        rec = cell.recurrence(drive=swapped, initial=start, reset=reset)
    return rec


@pytest.mark.parametrize("name", CELLS)
def test_f_and_its_jacobian_are_evaluated_where_the_states_are(host, on_the_host, name):
    rng = np.random.default_rng(0)
    for (T, batch), batch_first in [((33, (3,)), True), ((31, ()), False), ((1, (2, 2)), False), ((64, (2, 2)), True)]:
        rec = recurrence(name, rng, T, batch, np.float32, batch_first)
        states = rng.standard_normal(rec.shape).astype(np.float32)
        with rs.backend("numpy"):
            F, J = rec.linearise(states)
        with rs.backend("numba"):
            problem = rs.solvers.Problem(rec, Tolerance(1e-6, 1e-6), pin=True, jacobian=True)
            part = problem.part(rec.window(T // 2, T, states[T // 2 - 1])) if T > 1 else problem
            found, plain, late = (
                problem.evaluate(states),
                problem.evaluate(states, jacobian=False),
                part.evaluate(states[-part.recurrence.length :]),
            )
        assert on_the_host
        tol = 400 * np.finfo(np.float32).eps
        np.testing.assert_allclose(found.values, F, rtol=tol, atol=tol)
        np.testing.assert_allclose(found.jacobian.todense(), J.todense(), rtol=tol, atol=tol)
        same(plain.values, found.values)
        same(late.values, found.values[-len(late.values) :])
        same(found.residual, found.values - states)
        same(found.converged, forms.residual_of(states, found.values, problem.tolerance, problem.event_axes).converged)


METHODS = [
    "newton",
    "clipped_newton",
    "quasi_newton",
    "jacobi",
    "picard",
    "damped_newton",
    "elk",
    "anderson",
    "windowed",
    "broyden",
    "chord",
]


@pytest.mark.parametrize("method", METHODS)
def test_methods_take_the_same_steps(on_the_host, method):
    rng = np.random.default_rng(1)
    for name, batch_first in [("gru", True), ("lstm", False)]:
        rec = recurrence(name, rng, 40, (3,), np.float64, batch_first)
        with rs.backend("numba"):
            found = rs.solve(rec, method=method, guess=np.zeros(rec.shape), callback=lambda _: None)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(evaluation, "iterations", lambda *_: None)
                wanted = rs.solve(rec, method=method, guess=np.zeros(rec.shape), callback=lambda _: None)
        assert found.success
        assert found.nit == wanted.nit
        np.testing.assert_allclose(found.states, wanted.states, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.residuals[:3], wanted.residuals[:3], rtol=1e-6)


@pytest.mark.parametrize("layout", [Layout(units=8), Layout(2, (), 8)])
def test_a_scan_is_planned_once_and_launched_with_other_addresses(host, monkeypatch, layout):
    planned, launches = [], repeated_scan.launches
    monkeypatch.setattr(repeated_scan, "launches", lambda *a, **k: planned.append(a) or launches(*a, **k))
    rng, starts = np.random.default_rng(0), np.zeros((20, 3), bool)
    starts[0] = True
    launched = Iterations(starts, layout, np.dtype(float), host)
    for _ in range(3):
        A = matrices(rng, layout, starts, float)[-1]
        b, cut = rng.standard_normal((20, 3, *layout.event)), starts | (rng.random((20, 3)) < 0.2)
        over_event = cut.reshape(20, 3, *(1,) * len(layout.event))
        wanted = scan_numpy.scan(MONOIDS["affine"], (A, b), reset=over_event)
        np.testing.assert_allclose(launched.scan(A, b, cut), wanted, rtol=1e-12, atol=1e-12)
    assert len(planned) == 1


def test_a_scan_that_ran_ahead_is_taken_for_its_own_iterate_alone(on_the_host, monkeypatch):
    runs, run = [], repeated_scan.RepeatedScan.run
    monkeypatch.setattr(repeated_scan.RepeatedScan, "run", lambda *given: runs.append(given) or run(*given))
    rng = np.random.default_rng(0)
    rec = recurrence("gru", rng, 40, (3,), np.float64, False)
    with rs.backend("numba"):
        problem = rs.solvers.Problem(rec, Tolerance(1e-9, 1e-9), pin=True, jacobian=True)

        def scanned(of):
            d = problem.launched.scan(of.jacobian, of.residual, problem.cut(of)).copy()
            elements, reset = (of.jacobian, of.residual), problem.cut(of)[..., None]
            wanted = scan_numpy.scan(MONOIDS["affine"], elements, reset=reset)
            np.testing.assert_allclose(d, wanted, rtol=1e-12, atol=1e-12)

        first = problem.evaluate(rng.standard_normal(rec.shape))
        scanned(first)
        second = problem.evaluate(rng.standard_normal(rec.shape))
        assert len(runs) == 2  # one of which before it was asked for
        scanned(second)
        assert len(runs) == 2
        third = problem.evaluate(rng.standard_normal(rec.shape))
        for other in (first, third, second):
            scanned(other)
        assert not problem.launched.follows


@pytest.mark.skipif(not os.environ.get("RECSOLVE_SLOW"), reason="takes a minute: set RECSOLVE_SLOW=1")
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("name", ["", *rs.cells.REGISTRY])
def test_nothing_spills(name, tmp_path):
    codes = {rows_text("fronts"): ["fronts_of_rows<float>", "fronts_of_rows<double>"]}
    numbers = [(number, count) for number, most in (("float", 4), ("double", 2)) for count in (0, 1, most)]
    codes[rows_text("test")] = [f"test_rows<{number}, {count}>" for number, count in numbers]
    makes = itertools.product(range(OF_BLOCK + 1), (1, 2), numbers)
    codes[rows_text("guard")] = [f"guard_rows<{made}, {k}, {n}, {count}>" for made, k, (n, count) in makes]
    if name:
        cell = ElementwiseCuda(trace_cell(rs.cells.get(name)))
        jobs = list(itertools.product(("values", "partials"), numbers[:3]))
        jobs = [(job, n) for job, n in jobs if n[1] < 2 or takes_several(cell, job == "partials")]
        code = [f"evaluate_rows<recsolve::{job}, {cell.components}, {n}, {count}>" for job, (n, count) in jobs]
        codes = {cell.rows_code: code}
    for code, kernels in codes.items():
        taken = "\n".join(f"auto* kernel_{i} = &recsolve::{kernel};" for i, kernel in enumerate(kernels))
        (tmp_path / "kernels.cu").write_text(f"{code}\n{taken}\n")
        command = ["nvcc", *OPTIONS, "-arch=sm_90", "-cubin", "-Xptxas", "-v", str(tmp_path / "kernels.cu")]
        told = subprocess.run([*command, "-o", os.devnull], capture_output=True, text=True, check=True).stderr
        spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", told)
        assert len(spills) == len(kernels)
        assert set(spills) == {("0", "0", "0")}
