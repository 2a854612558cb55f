"""Public calls on a GPU that the host simulates: engines, driver, kernels and verdicts from end to end."""

import cuda_host
import gallery
import numpy as np
import pytest
from cuda_host import simulated

import recsolve as rs
from recsolve.kernels.gpu.cell.fused_solve import FusedCuda

pytestmark = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")


@pytest.fixture(scope="module")
def to_gpu():
    with simulated.gpu() as put:
        yield put


def moved(rec, put):
    """The same recurrence on the device."""
    cell = rec.cell.map(put)
    drive = {n: put(u) for n, u in rec.drive.items()}
    reset = None if rec.reset is None else put(rec.reset)
    return cell.recurrence(drive=drive, initial=put(rec.initial), reset=reset)


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize(
    "method", ["auto", "sequential", "newton", "windowed", "quasi_newton", "jacobi", "damped_newton"]
)
def test_a_cell_with_diagonal_mixings(to_gpu, method, resets):
    reset = np.random.default_rng(0).random((150, 3)) < 0.05 if resets else None
    rec = gallery.recurrence("gru", "diagonal", T=150, batch=(3,), units=8, dtype=np.float32, reset=reset)
    reference = rs.solve(rec, method="sequential")
    there = moved(rec, to_gpu)
    with rs.backend("cuda"):
        sol = rs.solve(there, method=method)
        assert sol.success, sol
        assert type(sol.states).__name__ == "DeviceArray"
        assert np.abs(sol.states.get() - reference.states).max() <= 2 * gallery.bound(reference)
        assert sol.trusted
        assert sol.converged_prefix == 150
        c = np.random.default_rng(1).standard_normal(rec.shape).astype(np.float32)
        found, wanted = rs.adjoint(sol, states=to_gpu(c)), rs.adjoint(reference, states=c)
        for n, g in wanted.drive.items():
            np.testing.assert_allclose(found.drive[n].get(), g, rtol=1e-4, atol=1e-4)
        for n, g in wanted.mixings.items():
            np.testing.assert_allclose(found.mixings[n].get(), g, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(found.initial.get(), wanted.initial, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["auto", "sequential", "newton", "quasi_newton", "jacobi", "anderson"])
def test_a_cell_with_dense_mixings(to_gpu, method):
    reset = np.random.default_rng(0).random((60, 2)) < 0.05
    rec = gallery.recurrence("gru", "dense", T=60, batch=(2,), units=8, dtype=np.float32, reset=reset)
    reference = rs.solve(rec, method="sequential")
    there = moved(rec, to_gpu)
    with rs.backend("cuda"):
        assert there.compiled
        sol = rs.solve(there, method=method)
        assert sol.trusted, sol
        assert np.abs(sol.states.get() - reference.states).max() <= 2 * gallery.bound(reference)
        c = np.random.default_rng(1).standard_normal(rec.shape).astype(np.float32)
        found, wanted = rs.adjoint(sol, states=to_gpu(c)), rs.adjoint(reference, states=c)
    for n, g in wanted.mixings.items():
        np.testing.assert_allclose(found.mixings[n].get(), g, rtol=1e-3, atol=1e-3)
    for n, g in wanted.drive.items():
        np.testing.assert_allclose(found.drive[n].get(), g, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["adaptive_shooting", "elk", "damped_newton"])
@pytest.mark.parametrize("cell", [("gru", "dense"), ("slstm", "diagonal")], ids="-".join)
def test_globalised_methods_from_frozen_gates(to_gpu, method, cell):
    reset = np.random.default_rng(0).random((60, 2)) < 0.05
    rec = gallery.recurrence(*cell, T=60, batch=(2,), units=20, dtype=np.float32, reset=reset)
    reference = rs.solve(rec, method=method, guess="frozen_gates")
    with rs.backend("cuda"):
        sol = rs.solve(moved(rec, to_gpu), method=method, guess="frozen_gates")
    assert reference.success
    assert sol.success, sol
    assert type(sol.states).__name__ == "DeviceArray"
    assert abs(sol.nit - reference.nit) <= 1
    assert np.abs(sol.states.get() - gallery.loop(rec)).max() <= 2 * gallery.bound(reference)


@pytest.mark.parametrize("method", ["newton", "sequential", "elk", "picard", "chord"])
def test_a_function(to_gpu, method):
    u = np.random.default_rng(0).standard_normal((60, 2, 4))

    def f(h, u):
        return np.tanh(0.9 * h + u)

    here, there = (
        rs.Recurrence.from_function(f, inputs=put(u), initial=put(np.zeros((2, 4))), structure="diagonal")
        for put in (np.array, to_gpu)
    )
    sol, wanted = rs.solve(there, method=method), rs.solve(here, method="sequential")
    assert sol.trusted
    assert np.abs(sol.states.get() - wanted.states).max() <= 2 * gallery.bound(wanted)


@pytest.mark.parametrize("method", ["auto", "sequential", "newton"])
def test_a_number_that_is_not_finite_ends_where_it_is(to_gpu, method):
    rec = gallery.recurrence("gru", "diagonal", T=150, batch=(3,), units=8, dtype=np.float32)
    rec.drive["n"][70, 1] = np.nan
    reference = rs.solve(rec, method="sequential")
    with rs.backend("cuda"):
        sol = rs.solve(moved(rec, to_gpu), method=method)
    assert (sol.status, sol.converged_prefix) == (reference.status, reference.converged_prefix) == ("nonfinite", 70)
    np.testing.assert_allclose(sol.states.get(), reference.states, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 2, 33])
def test_few_steps(to_gpu, steps):
    rec = gallery.recurrence("gru", "diagonal", T=steps, batch=(3,), units=8, dtype=np.float32)
    with rs.backend("cuda"):
        for method in ("auto", "sequential", "newton"):
            sol = rs.solve(moved(rec, to_gpu), method=method)
            assert sol.success
            np.testing.assert_allclose(sol.states.get(), rs.solve(rec).states, rtol=1e-5, atol=1e-5)


def test_scans(to_gpu):
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, (200, 3, 8)), rng.standard_normal((200, 3, 8))
    for shown in (lambda x: x, lambda x: np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)):
        y = rs.scan("affine", (to_gpu(shown(a)), to_gpu(shown(b))))
        np.testing.assert_allclose(y.get(), rs.scan("affine", (a, b)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fault", ["flipped", "nan", "lost"])
def test_a_wrong_result_of_a_kernel_is_noticed(to_gpu, fault, monkeypatch):
    """Between the solve and its verdict something happens to the states: the driver is not deceived."""
    solve = FusedCuda.solve

    def wrong(self, inputs, states, *args, **kwargs):
        outcome = solve(self, inputs, states, *args, **kwargs)
        if states.shape[:2] != (150, 3):
            pass
        elif fault == "lost":
            states[60:90, 1] = 0
        else:
            states[70, 1, 3] = -states[70, 1, 3] if fault == "flipped" else np.nan
        return outcome

    rec = gallery.recurrence("gru", "diagonal", T=150, batch=(3,), units=8, dtype=np.float32)
    reference = rs.solve(rec, method="sequential")
    there = moved(rec, to_gpu)
    with rs.backend("cuda"):
        tolerance = rs.solve(there).tolerance
        assert there.bind().solve("windows", tolerance).worst is not None
        monkeypatch.setattr(FusedCuda, "solve", wrong)
        assert there.bind().solve("windows", tolerance).worst is None
        for method in ("auto", "windowed", "sequential"):
            sol = rs.solve(there, method=method)
            honest = np.abs(sol.states.get() - reference.states).max() <= 2 * gallery.bound(reference)
            assert honest if sol.success else sol.converged_prefix < 150
