"""The laws of the design, each a property over the registries: a new member is tested the moment it is registered."""

from functools import cache

import gallery
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recsolve as rs

SOLVERS = sorted(rs.solvers.REGISTRY)


def declaring(law, *values):
    """The solvers that declare one of these values for a law."""
    return [name for name in SOLVERS if getattr(rs.solvers.REGISTRY[name], law) in values]


@cache
def problem(cell, T, batch, seed, dtype, gain, resets, initial):
    """A recurrence, what the loop gives, and how far a solution may be from that: 30 (tol + u max|h|) kappa."""
    reset = np.random.default_rng(seed).random((T, *batch)) < 0.1 if resets else None
    given = {"T": T, "batch": batch, "seed": seed, "gain": gain, "reset": reset, "initial": initial}
    rec = gallery.recurrence(*cell, dtype=dtype, **given)
    truth, largest = gallery.loop(rec), float(np.abs(gallery.loop(rec)).max())
    kappa = gallery.condition_of(gallery.recurrence(*cell, dtype=np.float64, **given), truth.astype(np.float64))
    rounding = np.finfo(dtype).eps / 2 * largest
    return rec, truth, 30 * (gallery.stated_tolerance(rec) * max(1.0, largest) + rounding) * kappa


@pytest.mark.parametrize("method", SOLVERS)
@given(
    cell=gallery.cells,
    T=st.integers(1, 60),
    batch=st.sampled_from([(), (1,), (3,), (2, 2)]),
    seed=gallery.seeds,
    dtype=gallery.dtypes,
    gain=st.floats(0.2, 4.0),
    resets=st.booleans(),
    initial=st.sampled_from([None, 0.3]),
)
def test_law_1_every_solver_equals_the_loop(method, dtype, **given):
    rec, truth, bound = problem(dtype=dtype, **given)
    sol = rs.solve(rec, method=method)
    assert sol.success, sol
    assert sol.states.dtype == dtype
    assert gallery.residual_is_met(rec, sol.states, sol.tolerance)
    assert np.abs(sol.states - truth).max() <= bound


@pytest.mark.parametrize("method", declaring("finite_termination", True))
@given(cell=gallery.cells, seed=gallery.seeds, k=st.integers(1, 12))
def test_law_2_finite_termination_without_the_pin(method, cell, seed, k):
    rec = gallery.recurrence(*cell, T=40, seed=seed)
    truth = gallery.loop(rec)
    sol = rs.solve(rec, method=method, maxiter=k, tol=0.0, options={"pin": False, "patience": 1000})
    assert np.abs(sol.states[:k] - truth[:k]).max() <= gallery.bound(rs.solve(rec, method="sequential"))


@pytest.mark.parametrize("method", declaring("finite_termination", False))
def test_law_2_is_not_declared_without_need(method):
    """A method that does not claim it shows a problem where it fails."""
    problems = [gallery.recurrence(cell, "dense", T=150, gain=gain) for cell, gain in (("elman", 3.0), ("gru", 6.0))]

    def missed(rec, k):
        sol = rs.solve(rec, method=method, maxiter=k, tol=0.0, options={"pin": False, "patience": 1000})
        return np.abs(sol.states[:k] - gallery.loop(rec)[:k]).max()

    assert any(missed(rec, k) > 1e-9 for rec in problems for k in (5, 10, 20, 40, 60))


@pytest.mark.parametrize("method", SOLVERS)
@given(cell=gallery.cells, seed=gallery.seeds, gain=st.floats(1.0, 20.0))
def test_law_2_the_pin_ends_every_solver_within_T(method, cell, seed, gain):
    rec = gallery.recurrence(*cell, T=30, seed=seed, gain=gain)
    sol = rs.solve(rec, method=method)
    assert sol.success
    assert sol.nit <= rec.length


def affine(structure, seed, T=50, batch=(2,), n=4):
    """h = A h + u with ||A|| <= 1 in each structure, and the event shape that goes with it."""
    rng = np.random.default_rng(seed)
    if structure == "block":
        event, B = (2, n), rng.standard_normal((2, 2, n))
        B /= np.linalg.norm(B, 2, axis=(0, 1))

        def f(h, u):
            return np.stack([B[i, 0] * h[..., 0, :] + B[i, 1] * h[..., 1, :] for i in range(2)], axis=-2) + u

    elif structure in ("dense", "heads"):
        event = (n,) if structure == "dense" else (3, n)
        W = rng.standard_normal((*event[:-1], n, n))
        W /= np.linalg.norm(W, 2, axis=(-2, -1), keepdims=True)

        def f(h, u):
            return np.einsum("...ij,...j->...i", W, h) + u

    else:
        event = (n,)
        a = {"zero": 0.0, "identity": 1.0, "scalar": rng.uniform(-1, 1), "diagonal": rng.uniform(-1, 1, n)}[structure]

        def f(h, u):
            return a * h + u

    u = rng.standard_normal((T, *batch, *event))
    return rs.Recurrence.from_function(f, inputs=u, initial=rng.standard_normal((*batch, *event)), structure=structure)


STRUCTURES = ("zero", "identity", "scalar", "diagonal", "block", "heads", "dense")


@pytest.mark.parametrize("method", declaring("exact_on_affine", "all", "per-unit"))
@given(structure=st.sampled_from(STRUCTURES), seed=gallery.seeds)
def test_law_3_affine_recurrences_take_one_update(method, structure, seed):
    if rs.solvers.REGISTRY[method].exact_on_affine == "per-unit" and structure in ("dense", "heads"):
        structure = "block"
    rec = affine(structure, seed)
    sol = rs.solve(rec, method=method, tol=1e-11)
    assert sol.success
    assert sol.nit <= 1
    assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)


@pytest.mark.parametrize("method", declaring("exact_on_affine", "none", "per-unit"))
def test_law_3_is_not_declared_without_need(method):
    """A method that does not claim it, or not for coupled units, takes more updates on this one."""
    assert rs.solve(affine("dense", 0, T=600), method=method, tol=1e-11).nit > 1


@given(seed=gallery.seeds, dtype=gallery.dtypes, T=st.integers(0, 300), cut=st.integers(0, 300))
def test_laws_3_and_7_min_max_scans_equal_the_loop_bit_for_bit(seed, dtype, T, cut):
    rec = gallery.recurrence("minmax", seed=seed, dtype=dtype, T=T)
    r, s = rec.drive["r"], rec.drive["s"]
    truth = gallery.loop(rec)
    np.testing.assert_array_equal(rs.scan("clamp", (r, s), initial=rec.initial), truth)
    first = rs.scan("clamp", (r[:cut], s[:cut]), initial=rec.initial)
    rest = rs.scan("clamp", (r[cut:], s[cut:]), initial=first[-1] if len(first) else rec.initial)
    np.testing.assert_array_equal(np.concatenate([first, rest]), truth)


@pytest.mark.parametrize("method", SOLVERS)
@given(cell=gallery.cells, seed=gallery.seeds, t0=st.integers(0, 39))
def test_law_6_a_nan_never_disturbs_earlier_times(method, cell, seed, t0):
    clean = gallery.recurrence(*cell, T=40, seed=seed)
    x = np.random.default_rng(seed + 1).standard_normal((40, 2, 3))
    x[t0, 1] = np.nan
    sol = rs.solve(clean.cell.recurrence(x), method=method)
    before = rs.solve(clean, method="sequential")
    assert sol.status == "nonfinite"
    assert sol.converged_prefix == t0
    assert f"step {t0}" in sol.message
    assert "drive" in sol.message
    assert np.isnan(sol.states[t0, 1]).any()
    assert np.isnan(sol.residuals[-1])
    assert np.abs(sol.states[:t0] - before.states[:t0]).max(initial=0.0) <= gallery.bound(before)
    # The other sequence does not notice.
    assert np.abs(sol.states[:, 0] - before.states[:, 0]).max() <= gallery.bound(before)


def iterates_before_a_nan(method, t0=200, maxiter=None, seed=1):
    """Pairs of iterates up to time t0, without and with a NaN there; newton takes more than a stage of a chain."""
    clean = gallery.recurrence("elman", "dense", T=240, batch=(), gain=4.0, seed=seed)
    x = np.random.default_rng(seed + 1).standard_normal((240, 3))
    x[t0] = np.nan
    seen = {True: [], False: []}
    for dirty, rec in ((False, clean), (True, clean.cell.recurrence(x))):
        notes = seen[dirty]
        rs.solve(rec, method=method, maxiter=maxiter, callback=lambda it, n=notes: n.append(it.states[:t0].copy()))
    assert seen[True]
    assert seen[False]
    return zip(seen[True], seen[False], strict=False)


@pytest.mark.parametrize("method", declaring("causal", True))
def test_law_6_iterates_before_a_nan_are_bit_for_bit_those_without_it(method):
    for with_nan, without in iterates_before_a_nan(method):
        np.testing.assert_array_equal(with_nan, without)


@pytest.mark.parametrize("method", declaring("causal", False))
def test_law_6_acausality_is_not_declared_without_need(method):
    """Iterates may differ; what they end in may not (the other tests of law 6)."""
    pairs = (pair for seed in (1, 2) for pair in iterates_before_a_nan(method, maxiter=60, seed=seed))
    assert any(not np.array_equal(with_nan, without) for with_nan, without in pairs)


@pytest.mark.parametrize("method", SOLVERS)
def test_law_6_a_reset_ends_what_a_nan_began(method):
    reset = np.zeros((40, 2), bool)
    reset[25] = True
    clean = gallery.recurrence("lstm", "dense", T=40, reset=reset)
    x = np.random.default_rng(1).standard_normal((40, 2, 3))
    x[10] = np.nan
    sol = rs.solve(clean.cell.recurrence(x, reset=reset), method=method)
    assert sol.status == "nonfinite"
    np.testing.assert_allclose(sol.states[25:], gallery.loop(clean)[25:], rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", SOLVERS)
@given(cell=gallery.cells, seed=gallery.seeds, cut=st.integers(0, 50))
def test_law_7_carrying_the_state_across_calls(method, cell, seed, cut):
    rec = gallery.recurrence(*cell, T=50, seed=seed)
    x = np.random.default_rng(seed + 1).standard_normal((50, 2, 3))
    whole = rs.solve(rec, method=method)
    first = rs.solve(rec.cell.recurrence(x[:cut]), method=method)
    second = rs.solve(rec.cell.recurrence(x[cut:], initial=first.final), method=method)
    joined = np.concatenate([first.states, second.states])
    assert np.abs(joined - whole.states).max() <= 2 * gallery.bound(whole)


@pytest.mark.parametrize("method", SOLVERS)
@given(cell=gallery.cells, seed=gallery.seeds)
def test_law_7_batching_changes_nothing(method, cell, seed):
    rec = gallery.recurrence(*cell, T=40, batch=(3,), seed=seed)
    x = np.random.default_rng(seed + 1).standard_normal((40, 3, 3))
    whole = rs.solve(rec, method=method)
    for b in range(3):
        alone = rs.solve(rec.cell.recurrence(x[:, b]), method=method)
        assert np.abs(alone.states - whole.states[:, b]).max() <= 2 * gallery.bound(whole)


@pytest.mark.sample(every=5)
@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("T", gallery.LENGTHS)
@pytest.mark.parametrize("cell", gallery.CELLS, ids="-".join)
def test_law_8_every_length(method, T, cell):
    rec = gallery.recurrence(*cell, T=T, batch=(2,))
    sol = rs.solve(rec, method=method)
    assert sol.success
    assert sol.states.shape == rec.shape
    assert np.abs(sol.states - gallery.loop(rec)).max(initial=0.0) <= gallery.bound(sol)
    np.testing.assert_array_equal(sol.final, sol.states[-1] if T else np.broadcast_to(rec.initial, rec.shape[1:]))


@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("batch", [(0,), (), (1,), (2, 0), (2, 3)])
def test_law_8_every_batch_and_one_unit(method, batch):
    for name, mixing in (("gru", "dense"), ("lstm", "diagonal"), ("minmax", "diagonal")):
        rec = gallery.recurrence(name, mixing, T=20, batch=batch, units=1)
        sol = rs.solve(rec, method=method)
        assert sol.success
        assert sol.states.shape == rec.shape
        assert np.isfinite(sol.condition)


@pytest.mark.parametrize("method", SOLVERS)
@pytest.mark.parametrize("form", ["read-only", "strided", "fortran", "batch-first", "reversed"])
def test_law_8_every_memory_layout(method, form):
    cell = gallery.weighted("lstm")
    x = np.random.default_rng(0).standard_normal((33, 4, 3))
    expected = rs.solve(cell.recurrence(x), method=method).states
    given_x = {
        "read-only": x.copy(),
        "strided": np.repeat(x, 2, axis=0)[::2],
        "fortran": np.asfortranarray(x),
        "batch-first": np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1),
        "reversed": x[::-1].copy()[::-1],
    }[form]
    given_x.flags.writeable = False
    sol = rs.solve(cell.recurrence(given_x), method=method)
    np.testing.assert_allclose(sol.states, expected, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(given_x, x)
    if form == "batch-first":
        assert sol.states.swapaxes(0, 1).flags.c_contiguous
