"""The reference on CuPy arrays and CUDA tensors: the same numbers, the same kind back."""

import gallery
import monoid_gallery
import numpy as np
import pytest
import test_mixings
import test_units

import recsolve as rs
from recsolve.base.overriding import changed
from recsolve.base.tolerance import Tolerance
from recsolve.jacobians import Banded, LowRank, PermutationDiagonal
from recsolve.kernels.gpu import block_walk
from recsolve.kernels.gpu.cell.fused_solve import fused
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.starts import Starts
from recsolve.recurrence.current import traced_now
from recsolve.testing import check_mixing

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("method", sorted(rs.solvers.REGISTRY))
@pytest.mark.parametrize("cell", gallery.CELLS, ids="-".join)
def test_every_cell_and_solver(cell, method):
    import cupy

    for dtype in gallery.DTYPES:
        reset = np.random.default_rng(0).random((40, 2)) < 0.1
        host = gallery.recurrence(*cell, T=40, dtype=dtype, reset=reset)
        x = np.random.default_rng(1).standard_normal((40, 2, 3)).astype(dtype)
        rec = host.cell.to("cupy").recurrence(cupy.asarray(x), reset=cupy.asarray(reset))
        sol, reference = rs.solve(rec, method=method), rs.solve(host, method="sequential")
        assert sol.success
        assert isinstance(sol.states, cupy.ndarray)
        assert isinstance(sol.output, cupy.ndarray)
        assert np.abs(sol.states.get() - reference.states).max() <= 2 * gallery.bound(reference)
        assert sol.condition == pytest.approx(reference.condition, rel=1e-2)
        assert sol.trusted


@pytest.mark.parametrize("name", test_mixings.made())
def test_every_mixing(name):
    import cupy

    for dtype in gallery.DTYPES:
        mixing = test_mixings.made(dtype)[name]
        check_mixing(mixing.map(cupy.asarray))
        host = test_mixings.recurrence_of(mixing)
        moved(host, "newton", {"r": host.drive.r})


@pytest.mark.parametrize(("name", "lanes"), test_units.CASES)
def test_sums_over_units(name, lanes):
    for method in ("newton", "quasi_newton"):
        moved(test_units.recurrence(name, lanes, dtype=np.float32), method, {})


def moved(host, method, tangent):
    """Compare the states and gradients of a recurrence of given drives with those on the device."""
    import cupy

    drive = {n: cupy.asarray(u) for n, u in host.drive.items()}
    rec = host.cell.to("cupy").recurrence(drive=drive, initial=cupy.asarray(host.initial))
    sol, reference = rs.solve(rec, method=method), rs.solve(host, method="sequential")
    assert sol.trusted
    assert np.abs(sol.states.get() - reference.states).max() <= 2 * gallery.bound(reference)
    c, near = np.ones(host.shape, host.dtype), 1e-3 if host.dtype == np.float32 else 1e-8
    found, wanted = rs.adjoint(sol, states=cupy.asarray(c)), rs.adjoint(reference, states=c)
    for ours, theirs in ((found.mixings, wanted.mixings), (found.drive, wanted.drive)):
        for n, g in theirs.items():
            np.testing.assert_allclose(ours[n].get(), g, rtol=near, atol=near)
    if tangent:
        along = rs.tangent(sol, drive={n: cupy.asarray(u) for n, u in tangent.items()}).get()
        np.testing.assert_allclose(along, rs.tangent(reference, drive=tangent), rtol=near, atol=near)


def test_chaos_and_nan():
    import cupy

    u = cupy.asarray(np.random.default_rng(0).standard_normal((300, 1)).astype(np.float32))
    rec = rs.Recurrence.from_function(
        lambda h, u: np.float32(20) * np.sin(h) + u,
        inputs=u,
        initial=cupy.zeros(1, np.float32),
        structure="diagonal",
    )
    sol = rs.solve(rec)
    assert sol.success
    assert not sol.trusted
    bad = u.copy()
    bad[100] = cupy.nan
    rec = rs.Recurrence.from_function(
        lambda h, u: np.float32(0.5) * np.sin(h) + u, inputs=bad, initial=cupy.zeros(1, np.float32), structure="dense"
    )
    sol = rs.solve(rec)
    assert sol.status == "nonfinite"
    assert sol.converged_prefix == 100


def test_named_states_with_parameters_and_a_readout():
    import cupy

    here, there = (rs.solve(gallery.memory(put), method="newton") for put in (np.asarray, cupy.asarray))
    gallery.compare_memories(here, there)


def test_scans_and_structures():
    import cupy

    rng = np.random.default_rng(0)
    A, b = rng.uniform(-1, 1, (500, 3)), rng.standard_normal((500, 3))
    for reverse in (False, True):
        y = rs.scan("affine", (cupy.asarray(A), cupy.asarray(b)), reverse=reverse)
        np.testing.assert_allclose(y.get(), rs.scan("affine", (A, b), reverse=reverse), atol=1e-13)
    clamp = rs.scan("clamp", (cupy.asarray(A), cupy.asarray(b)), initial=cupy.zeros(3))
    np.testing.assert_array_equal(clamp.get(), rs.scan("clamp", (A, b), initial=np.zeros(3)))
    host = gallery.recurrence("cho_gru", "dense", T=5)
    x = cupy.asarray(np.random.default_rng(1).standard_normal((5, 2, 3)))
    assert rs.check_structure(host.cell.to("cupy").recurrence(x))


@pytest.mark.parametrize("name", sorted(MONOIDS))
def test_scans_of_every_monoid(name):
    import cupy

    rng = np.random.default_rng(0)
    elements = monoid_gallery.elements(name, 500, (3,), rng, size=2)
    start, reset = monoid_gallery.state(name, elements, rng), rng.random(500) < 0.02
    for reverse in (False, True):
        expected = rs.scan(name, elements, initial=start, reset=reset, reverse=reverse)
        given = tuple(cupy.asarray(e) for e in elements)
        y = rs.scan(name, given, initial=cupy.asarray(start), reset=cupy.asarray(reset), reverse=reverse)
        np.testing.assert_allclose(y.get(), expected, rtol=1e-9, atol=1e-12)
        if name == "finite_map":
            continue
        wanted = rs.scan_adjoint(name, elements, expected, expected, initial=start, reset=reset, reverse=reverse)
        there = {"initial": cupy.asarray(start), "reset": cupy.asarray(reset), "reverse": reverse}
        found = rs.scan_adjoint(name, given, y, y, **there)
        for a, b in zip((*found.elements, found.initial), (*wanted.elements, wanted.initial), strict=True):
            np.testing.assert_allclose(a.get(), b, rtol=1e-8, atol=1e-8 * max(abs(b).max(), 1))


def test_gradients():
    import cupy

    rng = np.random.default_rng(0)
    for name, mixing in gallery.CELLS:
        host = gallery.recurrence(name, mixing, T=20)
        x, c = rng.standard_normal((20, 2, 3)), rng.standard_normal(host.shape)
        reference = rs.adjoint(rs.solve(host.cell.recurrence(x)), states=c)
        rec = host.cell.to("cupy").recurrence(cupy.asarray(x))
        ours = rs.adjoint(rs.solve(rec), states=cupy.asarray(c))
        np.testing.assert_allclose(ours.inputs.get(), reference.inputs, atol=1e-11)
        np.testing.assert_allclose(ours.initial.get(), reference.initial, atol=1e-11)
        for n, g in reference.mixings.items():
            np.testing.assert_allclose(ours.mixings[n].get(), g, atol=1e-10)
        v = rng.standard_normal(host.shape[1:])
        moved = rs.tangent(rs.solve(rec), initial=cupy.asarray(v)).get()
        np.testing.assert_allclose(moved, rs.tangent(rs.solve(host.cell.recurrence(x)), initial=v), atol=1e-11)


def test_diagnosis():
    import cupy

    for name, mixing in (("gru", "dense"), ("lstm", "diagonal"), ("minmax", "diagonal")):
        host = gallery.recurrence(name, mixing, T=100, units=4)
        x = np.random.default_rng(1).standard_normal((100, 2, 3))
        reference = rs.diagnose(host.cell.recurrence(x), pilot=40, budget=600)
        ours = rs.diagnose(host.cell.to("cupy").recurrence(cupy.asarray(x)), pilot=40, budget=600)
        np.testing.assert_allclose(ours.lyapunov, reference.lyapunov, rtol=1e-8)
        assert ours.predicted.keys() == reference.predicted.keys()
        assert all(abs(n - reference.predicted[method]) <= 2 for method, n in ours.predicted.items())


def test_mixed_kinds_and_cells_on_the_wrong_side():
    import cupy

    cell = gallery.weighted("gru")
    with pytest.raises(TypeError, match=r"cell.to\('cupy'\)"):
        cell.recurrence(cupy.ones((5, 2, 3)))
    with pytest.raises(TypeError, match="initial is numpy and the drive is cupy"):
        cell.to("cupy").recurrence(cupy.ones((5, 2, 3)), initial=np.zeros(8))
    back = cell.to("cupy").to("numpy")
    np.testing.assert_array_equal(back.mixings["r"].weight, cell.mixings["r"].weight)


def test_cuda_tensors():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch without CUDA")
    for kind in (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM):
        module = kind(3, 8, 2, bidirectional=True).cuda().double()
        x = torch.randn(50, 4, 3, device="cuda", dtype=torch.float64)
        with torch.no_grad():
            y, _ = module(x)
        ours, _ = rs.run(module, x)
        assert ours.is_cuda
        assert float((ours - y).abs().max()) < 1e-12


@pytest.mark.parametrize("method", sorted(rs.solvers.REGISTRY))
def test_parts_of_a_problem(method):
    """Sequences and times that are solved are set aside, windows move, guesses and traces work there too."""
    import cupy

    cell = gallery.weighted("gru", "dense", gain=2.0)
    x = np.random.default_rng(0).standard_normal((200, 2, 3, 3))
    x[:, 0] *= 0.01  # converges much sooner
    reference = rs.solve(cell.recurrence(x), method="sequential")
    rec = cell.to("cupy").recurrence(cupy.asarray(x))
    sol = rs.solve(rec, method=method, guess="coarse", options={"trace": True})
    assert sol.success
    assert np.abs(sol.states.get() - reference.states).max() <= 2 * gallery.bound(reference)
    assert sol.trace.residual.shape == (sol.nit + 1, 200, 2, 3)
    assert sol.error_bound == np.inf
    windowed = rs.solve(rec, method=rs.solvers.Windowed(solver=method if method != "auto" else "newton", window=32))
    assert windowed.success
    assert np.abs(windowed.states.get() - reference.states).max() <= 2 * gallery.bound(reference)


def test_ties_and_explanations(capsys):
    import cupy

    cell = rs.cells.MinMax.with_weights(hidden_size=4)
    r, s = np.random.default_rng(0).integers(-2, 3, (2, 300, 4)).astype(float)
    for ties in (0.0, 0.5, {"minimum": 1.0, "maximum": 0.0}):
        J = cell.recurrence(drive={"r": r, "s": s}, ties=ties).linearise(np.zeros((300, 4)))[1]
        drive = {"r": cupy.asarray(r), "s": cupy.asarray(s)}
        ours = cell.to("cupy").recurrence(drive=drive, ties=ties).linearise(cupy.zeros((300, 4)))[1]
        np.testing.assert_array_equal(ours.data.get(), J.data)
    rs.explain(cell.to("cupy").recurrence(drive=drive))
    assert "as cupy arrays" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["quasi_newton", "jacobi", "newton_krylov"])
@pytest.mark.parametrize("cell", [("gru", "dense"), ("lstm", "heads"), ("cho_gru", "dense")], ids="-".join)
def test_compiled_stages_and_sweeps(cell, method):
    """At sizes for which nothing would be compiled unless it were asked for."""
    import cupy

    for dtype in gallery.DTYPES:
        reset = np.random.default_rng(0).random((97, 2)) < 0.1
        host = gallery.recurrence(*cell, T=97, dtype=dtype, reset=reset)
        x = np.random.default_rng(1).standard_normal((97, 2, 3)).astype(dtype)
        rec = host.cell.to("cupy").recurrence(cupy.asarray(x), reset=cupy.asarray(reset))
        with rs.backend("cuda"):
            sol = rs.solve(rec, method=method)
            assert (rec.bind().solve("sweeps", Tolerance(1e-5, 1e-5)) is None) == (cell[0] == "cho_gru")
        assert sol.success
        reference = rs.solve(host, method="sequential")
        assert np.abs(sol.states.get() - reference.states).max() <= 2 * gallery.bound(reference)


# How blocks share the work: blocks of a cluster, threads of a row, sequences of a block, weights in registers.
BLOCKS = [
    ("gru", "dense", np.float32, None),
    ("gru", "dense", np.float32, (4, 4, 2, True)),
    ("lstm", "heads", np.float64, None),
    ("lstm", "heads", np.float64, (1, 2, 4, True)),
    ("cho_gru", "dense", np.float64, (8, 2, 1, True)),
    ("cho_gru", "dense", np.float32, (8, 1, 2, False)),
]


@pytest.mark.parametrize(("name", "mixing", "dtype", "way"), BLOCKS)
def test_walks_and_scans_by_blocks(name, mixing, dtype, way, monkeypatch):
    """Loops, Newton's method and adjoints of cells whose units couple."""
    import cupy

    if way is not None:
        monkeypatch.setattr(block_walk, "plan", forced(way))
    rng = np.random.default_rng(0)
    reset, x = rng.random((97, 3)) < 0.1, rng.standard_normal((97, 3, 3)).astype(dtype)
    cell = gallery.weighted(name, mixing, units=40, dtype=dtype)
    reference = rs.solve(cell.recurrence(x, reset=reset), method="sequential")
    c = rng.standard_normal(reference.states.shape).astype(dtype)
    wanted = rs.adjoint(reference, states=c)
    rec = cell.to("cupy").recurrence(cupy.asarray(x), reset=cupy.asarray(reset))
    with rs.backend("cuda"):
        assert rec.compiled
        assert not rec.bind().whole
        for method in ("sequential", "newton"):
            sol = rs.solve(rec, method=method)
            assert sol.trusted
            assert np.abs(sol.states.get() - reference.states).max() <= 2 * gallery.bound(reference)
        found = rs.adjoint(sol, states=cupy.asarray(c))
    tol = 1e4 * np.finfo(dtype).eps
    np.testing.assert_allclose(found.inputs.get(), wanted.inputs, rtol=tol, atol=tol)
    np.testing.assert_allclose(found.initial.get(), wanted.initial, rtol=tol, atol=tol)
    for n, g in wanted.mixings.items():
        np.testing.assert_allclose(found.mixings[n].get(), g, rtol=tol, atol=100 * tol)


def forced(way):
    """Return a plan of walks that lets blocks share the work in this way."""
    blocks, width, sequences, resident = way

    def plan(cell, number, cut, units, *device):
        return block_walk.Plan(cell, number, cut, units, blocks, width, sequences, resident, 3)

    return plan


@pytest.mark.parametrize(("T", "units", "bias"), [(20_000, 96, 0), (20_000, 96, 3), (20_000, 96, 8), (300, 9000, 5)])
def test_fused_solves_whatever_is_remembered(T, units, bias):
    """Segments of time in several blocks and in one: they equal one walk, and the verdict is that of the states."""
    import cupy

    cell = rs.cells.GRU
    kernels = fused(traced_now(cell, tuple((name, "diagonal") for name in cell.mixings), ()), np.float32)
    rng = np.random.default_rng(0)
    drives = [rng.standard_normal((T, 1, units), dtype=np.float32) + bias * (name == "z") for name in cell.drives]
    weights = [(0.5 * rng.standard_normal(units)).astype(np.float32) for _ in [*cell.mixings, *cell.parameters]]
    inputs = [cupy.asarray(x, np.float32) for x in (*drives, *weights)]
    initial, found = cupy.zeros((1, units), np.float32), []
    for segments in (1, None):
        states = cupy.empty((T, 1, units), np.float32)
        outcome = kernels.solve(inputs, states, 1, Starts(initial, initial), (1e-6, 1e-6), segments=segments)
        told = outcome.verdict()
        assert (told.complete, told.finite, told.met, told.walked) == (True, True, True, 0)
        assert told.worst <= 2.1e-6
        assert (told.segments > 1) == (segments is None)
        found.append(states.get())
        adjoint, *_ = kernels.adjoint(inputs, states, states, 1, Starts(initial, initial), segments=segments)
        found.append(adjoint.get())
    assert np.abs(found[0] - found[2]).max() <= 2e-4
    assert np.abs(found[1] - found[3]).max() <= 2e-4 * np.abs(found[1]).max()
    for wrong in (np.nan, 0.123):
        outcome = kernels.solve(inputs, states, 1, Starts(initial, initial), (1e-6, 1e-6))
        states[T // 2, 0, 5] = wrong
        told = outcome.verdict()
        assert not told.complete
        assert told.finite == np.isfinite(wrong)


@pytest.mark.parametrize("kind", [PermutationDiagonal, LowRank, Banded])
def test_matrices_with_few_entries(kind):
    import cupy

    rng = np.random.default_rng(0)
    for leading in ((90, 2), (90, 3, 1)):
        here = gallery.structure(kind, rs.Layout(components=2, units=3), leading, rng, gain=0.3)
        b = rng.standard_normal((*leading, 2, 3))
        there = changed(here, **{n: cupy.asarray(x) for n, x in vars(here).items() if isinstance(x, np.ndarray)})
        for A, matrix in (
            (there, here),
            (there.transpose(), here.transpose()),
            (there.compose(there), here.compose(here)),
        ):
            found = rs.scan("affine", (A, cupy.asarray(b)), reverse=True)
            np.testing.assert_allclose(found.get(), rs.scan("affine", (matrix, b), reverse=True), rtol=1e-9, atol=1e-9)


def test_cotangents_go_to_the_way_back_as_they_are():
    """One of the output and one of the final state, without a batch and with one."""
    import cupy

    for batch in ((), (2,)):
        host = gallery.recurrence("gru", "diagonal", T=5000, batch=batch, units=64, dtype=np.float32)
        drive = {n: cupy.asarray(u) for n, u in host.drive.items()}
        sol = rs.solve(host.cell.to("cupy").recurrence(drive=drive, initial=cupy.asarray(host.initial)))
        rng = np.random.default_rng(0)
        c, final = (rng.standard_normal(shape).astype(np.float32) for shape in (host.shape, host.initial.shape))
        given = {"output": cupy.asarray(c), "final": cupy.asarray(final)}
        found = rs.adjoint(sol, **given)
        wanted = rs.adjoint(rs.solve(host, method="sequential"), output=c, final=final)
        pairs = [(found.states, wanted.states), (found.initial, wanted.initial)]
        pairs += [(found.mixings[n], g) for n, g in wanted.mixings.items()]
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours.get(), theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())
        np.testing.assert_array_equal(given["output"].get(), c)
