"""Public calls on a GPU that the host simulates: engines, driver, kernels and verdicts from end to end."""

import cuda_host
import gallery
import numpy as np
import pytest
import test_discrete
import test_history
import test_mixings
import test_units
from cuda_host import simulated

import recsolve as rs
from recsolve.base.arrays import from_native
from recsolve.base.overriding import changed
from recsolve.jacobians import Banded, LowRank, PermutationDiagonal
from recsolve.kernels.gpu.cell.fused_solve import FusedCuda
from recsolve.mixings import form_of, plain_of
from recsolve.recurrence.engine import Engine

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


@pytest.mark.parametrize("method", ["jacobi", "gauss_seidel", "parareal", "windowed", "auto"])
def test_discrete_states(to_gpu, method):
    _, f, u, initial = test_discrete.made("rule_110", 30, (3,))
    there = rs.Recurrence.from_function(f, inputs=to_gpu(u), initial=to_gpu(initial), structure="none")
    sol = rs.solve(there, method=method)
    assert sol.trusted
    assert np.array_equal(sol.states.get(), test_discrete.literal(f, u, initial, 30))


@pytest.mark.parametrize("method", ["jacobi", "windowed", "anderson", "newton_krylov", "sequential"])
def test_a_history(to_gpu, method):
    rec, x = test_history.made("memory", 30, (2,))
    with rs.backend("cuda"):
        sol = rs.solve(rs.Recurrence.from_history(test_history.Memory(), inputs=to_gpu(x)), method=method)
    assert sol.success
    assert np.abs(sol.states.get() - test_history.literal(rec, x)).max() < 1e-13


@pytest.mark.parametrize("power", [-66, 66])
@pytest.mark.parametrize("mixing", ["diagonal", "dense"])
@pytest.mark.parametrize("method", ["auto", "newton", "jacobi", "quasi_newton"])
def test_tiny_and_huge_states(to_gpu, method, mixing, power):
    """Their size is looked at once they are there, and the tolerance is that of other backends."""
    rec = gallery.recurrence("elman_relu", mixing, T=70, units=8, dtype=np.float32)
    rec = rec.cell.recurrence(drive={"h": rec.drive.h * np.float32(2.0**power)})
    reference = rs.solve(rec, method="newton")
    with rs.backend("cuda"):
        sol = rs.solve(moved(rec, to_gpu), method=method)
        assert sol.trusted
        assert sol.tolerance == reference.tolerance or sol.residuals[-1] == 0  # which meets any
        assert np.abs(sol.states.get() - reference.states).max() <= 2 * gallery.bound(reference)
        np.testing.assert_array_equal(sol.converged_rows, gallery.rows_met(rec, sol.states.get(), sol.tolerance))


@pytest.mark.parametrize("method", ["newton", "quasi_newton", "chord"])
def test_iterates_that_leave_the_domain_come_back(to_gpu, method):
    cell = rs.Cell(lambda s, W, u, p: 0.3 * s.h**1.5 + 0.1 * u.x, state=("h",), output="h").with_weights(hidden_size=4)
    u = np.abs(np.random.default_rng(0).standard_normal((300, 4)))
    rec = cell.recurrence(drive={"x": u}, initial=np.ones(4))
    reference = rs.solve(rec, method="sequential")
    with rs.backend("cuda"):
        sol = rs.solve(moved(rec, to_gpu), method=method, callback=lambda now: None)  # which keeps it from fused solves
    assert sol.nit <= 50
    assert np.abs(sol.states.get() - reference.states).max() <= 2 * gallery.bound(reference)


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


def test_a_stack_on_sequences_of_several_lengths(to_gpu):
    cells = [[rs.cells.LSTM.random(input_size=n, hidden_size=8, rng=rng) for rng in (n, n + 1)] for n in (3, 16)]
    rng, lengths, here = np.random.default_rng(0), [60, 0, 17], rs.Layers(cells)
    x, hx = rng.standard_normal((60, 3, 3)), tuple(rng.standard_normal((2, 4, 3, 8)))
    wanted = here.solve(x, hx, lengths=lengths)
    with rs.backend("cuda"):
        sol = here.map(to_gpu).solve(to_gpu(x), tuple(map(to_gpu, hx)), lengths=lengths)
        assert sol.trusted, sol
        g, g_wanted = (s.adjoint(output=s.output, final=s.final) for s in (sol, wanted))
    assert sol.condition == pytest.approx(wanted.condition)
    for a, b in zip(
        [sol.output, *sol.final, g.inputs, *g.initial, *g.weights.values()],
        [wanted.output, *wanted.final, g_wanted.inputs, *g_wanted.initial, *g_wanted.weights.values()],
        strict=True,
    ):
        assert type(a).__name__ == "DeviceArray"
        np.testing.assert_allclose(a.get(), b, rtol=1e-10, atol=1e-10)


def test_torch_is_given_no_negative_strides(to_gpu, monkeypatch):
    """It aborts the process on those of a GPU: what a reversed direction reads is copied."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "from_dlpack", lambda x: x)
    x = to_gpu(np.arange(6.0).reshape(3, 2))
    assert from_native(x, "torch") is x
    for view in (x[::-1], x[:, ::-1], x.T[::-1]):
        given = from_native(view, "torch")
        assert min(given.strides) >= 0
        np.testing.assert_array_equal(given.get(), view.get())


def test_auto_walks_where_sweeps_do_not_converge(to_gpu):
    rec = gallery.recurrence("gru", "dense", T=300, batch=(2,), units=8, gain=8.0, dtype=np.float32)
    with rs.backend("cuda"):
        there = moved(rec, to_gpu)
        sol, walked = rs.solve(there, method="auto"), rs.solve(there, method="sequential")
        assert rs.explain(there).chosen.label == "sequential"
    assert sol.success
    assert "auto took sequential" in sol.message
    np.testing.assert_array_equal(sol.states.get(), walked.states.get())


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


def test_named_states_with_parameters_and_a_readout(to_gpu):
    here, there = (rs.solve(gallery.memory(put), method="newton") for put in (np.array, to_gpu))
    gallery.compare_memories(here, there)


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


def test_scans_and_gradients_of_other_monoids(to_gpu):
    rng = np.random.default_rng(0)
    m, v, c = rng.standard_normal((70, 3)), rng.standard_normal((70, 3, 2)), rng.standard_normal((70, 3, 3))
    problems = (
        ("weighted_logsumexp", (-0.1, m, v), c, None),
        ("logsumexp", (m, 1.0), c[..., :2], None),
        ("clamp", (2.0, m), c[..., 0], v[0, :, 0]),
        ("max_plus", (rng.standard_normal((70, 3, 3)), m), c[..., 0], v[0, :, 0]),
        ("riccati", tuple(0.1 * rng.random((70, 3, 1, 1)) for _ in range(3)), c[..., :1, None], None),
    )
    cuts = np.arange(70) % 9 == 4
    for name, elements, cotangent, initial in problems:
        y = rs.scan(name, elements, initial=initial, reset=cuts)
        wanted = rs.scan_adjoint(name, elements, y, cotangent, initial=initial, reset=cuts)
        there = tuple(to_gpu(e) if np.ndim(e) else e for e in elements)
        way = {"initial": None if initial is None else to_gpu(initial), "reset": to_gpu(cuts)}
        found = rs.scan(name, there, **way)
        np.testing.assert_allclose(found.get(), y, rtol=1e-12, atol=1e-12)
        g = rs.scan_adjoint(name, there, found, to_gpu(cotangent), **way)
        for a, b in zip(g.elements, wanted.elements, strict=True):
            np.testing.assert_allclose(a.get(), b, rtol=1e-10, atol=1e-10)


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


@pytest.mark.parametrize("name", [n for n in test_mixings.made() if "sparse" not in n])
def test_cells_with_every_mixing(to_gpu, name):
    rec = test_mixings.recurrence_of(test_mixings.made(np.float32)[name])
    known = form_of(plain_of(rec.cell.mixings["n"])) is not None  # to kernels, with a mask or without one
    for backend in ("numpy", "cuda") if "masked" in name else ("numpy" if known else "cuda",):
        solved_alike(rec, moved(rec, to_gpu), backend, to_gpu, compiled=known and backend == "cuda")


@pytest.mark.parametrize("backend", ["numpy", "cuda"])
def test_a_cell_with_norms_over_its_units(to_gpu, backend):
    rec = test_units.recurrence("norm_gru", dtype=np.float32)
    solved_alike(rec, moved(rec, to_gpu), backend, to_gpu)


def solved_alike(rec, there, backend, put, *, compiled=False):
    """Compare states and gradients of a recurrence with those of the same one on the device."""
    reference, c = rs.solve(rec, method="sequential"), np.ones(rec.shape, np.float32)
    wanted = rs.adjoint(reference, states=c)
    with rs.backend(backend):
        assert (type(there.bind()) is Engine) is not compiled
        for method in ("newton", "quasi_newton"):
            sol = rs.solve(there, method=method)
            assert np.abs(sol.states.get() - reference.states).max() <= 2 * gallery.bound(reference)
        found = rs.adjoint(sol, states=put(c))
        for ours, theirs in ((found.mixings, wanted.mixings), (found.drive, wanted.drive)):
            for n, g in theirs.items():
                np.testing.assert_allclose(ours[n].get(), g, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [PermutationDiagonal, LowRank, Banded])
def test_scans_of_matrices_with_few_entries(to_gpu, kind):
    rng = np.random.default_rng(0)
    here = gallery.structure(kind, rs.Layout(units=4), (70, 2), rng, gain=0.3)
    b, reset = rng.standard_normal((70, 2, 4)), rng.random((70, 2)) < 0.1
    there = changed(here, **{n: to_gpu(x) for n, x in vars(here).items() if isinstance(x, np.ndarray)})
    for A, matrix, reverse in ((there, here, False), (there.transpose(), here.transpose(), True)):
        with rs.backend("cuda"):
            found = rs.scan("affine", (A, to_gpu(b)), reset=to_gpu(reset), reverse=reverse)
        wanted = rs.scan("affine", (matrix, b), reset=reset, reverse=reverse)
        np.testing.assert_allclose(found.get(), wanted, rtol=1e-12, atol=1e-12)


def test_what_the_user_puts_in_the_place_of_J_and_accepts(to_gpu):
    rec = gallery.recurrence("gru", "diagonal", T=150, batch=(3,), units=8, dtype=np.float32)
    there, reference = moved(rec, to_gpu), rs.solve(rec, method="sequential")
    halved = rs.solvers.Newton(A=lambda problem, iterate: problem.linearise(iterate).scale(0.5))
    with rs.backend("cuda"):
        sol = rs.solve(there, method=halved)
        assert sol.trusted
        assert np.abs(sol.states.get() - reference.states).max() <= 2 * gallery.bound(reference)
        sol = rs.solve(there, method="jacobi", options={"accept": 1e-2})
        assert sol.status == "accepted", sol.message
        same = rs.solve(rec, method="jacobi", options={"accept": 1e-2})
        assert same.nit == sol.nit
        np.testing.assert_allclose(sol.states.get(), same.states, atol=1e-5)
