"""Solvers in blocks: what they reduce to, the algorithms of the papers written out, and how soon they must end."""

import gallery
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_solvers import iterates, same

import recsolve as rs

S = rs.solvers


def two_steps(ends, previous):
    return ends.apply(ends.apply(previous))


COARSE = {"frozen": "frozen", "subsample": "subsample", "two steps": two_steps}
VARIANTS = {
    "gauss_seidel": S.GaussSeidel(chunk=7),
    "multiple_shooting": S.MultipleShooting(block=7),
    **{f"parareal, {name}": S.Parareal(block=7, coarse=coarse) for name, coarse in COARSE.items()},
    **{
        f"mgrit {relaxation}, {levels} levels, {c}": S.MGRIT(block=3, coarse=c, relaxation=relaxation, levels=levels)
        for relaxation in ("F", "FCF")
        for levels in (2, 3, 4)
        for c in ("frozen", "subsample")
    },
    "mgrit, two steps": S.MGRIT(coarse=two_steps),
}
variants = pytest.mark.parametrize("solver", VARIANTS.values(), ids=VARIANTS.keys())

# What they reduce to -----------------------------------------------------------------------------------------------

CELLS = [("gru", "dense"), ("lstm", "heads"), ("lstm", "diagonal")]
REDUCTIONS = {
    "chunks of one step are jacobi": (S.GaussSeidel(chunk=1), "jacobi"),
    "blocks of one step are newton": (S.MultipleShooting(block=1), "newton"),
    "blocks of one step with G = 0 are jacobi": (S.Parareal(block=1, coarse=lambda ends, h: 0 * h), "jacobi"),
    **{
        f"two levels with F are parareal, {name}": (
            S.MGRIT(relaxation="F", block=6, coarse=c),
            S.Parareal(block=6, coarse=c),
        )
        for name, c in COARSE.items()
    },
    "products compose": (S.MGRIT(block=3, levels=4), S.MGRIT(block=3)),
}


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
@pytest.mark.parametrize("name", sorted(REDUCTIONS))
def test_reductions(name, cell):
    solver, reduced = REDUCTIONS[name]
    rec = gallery.recurrence(*cell, T=40)
    same(iterates(rec, solver), iterates(rec, reduced))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_parareal_of_single_steps_is_the_chord_where_units_do_not_couple(cell):
    rec = gallery.recurrence(cell, "diagonal", T=40)
    same(iterates(rec, S.Parareal(block=1)), iterates(rec, "chord"))


@pytest.mark.parametrize("block", [60, 61, 1000])
@pytest.mark.parametrize("solver", [S.GaussSeidel, S.MultipleShooting, S.Parareal, S.MGRIT])
def test_one_block_is_the_loop(solver, block):
    rec = gallery.recurrence("gru", "dense", T=60, gain=3.0)
    name = "chunk" if solver is S.GaussSeidel else "block"
    sol = rs.solve(rec, method=solver(**{name: block}))
    assert sol.success
    assert sol.nit == 1
    assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)


# How soon they end -------------------------------------------------------------------------------------------------

BOUNDED = [cell for cell in gallery.CELLS if cell[0] != "elman_relu"]  # states that grow for ever meet the guards


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("T", [31, 60, 61])
@pytest.mark.parametrize("m", [2, 7, 10])
@given(cell=st.sampled_from(BOUNDED), seed=gallery.seeds, gain=st.floats(1.0, 10.0))
def test_they_end_within_the_number_of_blocks(T, m, cell, seed, gain):
    rec = gallery.recurrence(*cell, T=T, seed=seed, gain=gain)
    blocks = -(-T // m)
    for solver, limit in (
        (S.GaussSeidel(chunk=m), blocks),
        (S.MultipleShooting(block=m), blocks),
        (S.Parareal(block=m), blocks),
        (S.Parareal(block=m, coarse="subsample"), blocks),
        (S.MGRIT(block=m), -(-blocks // 2)),
        (S.MGRIT(block=m, coarse="subsample"), -(-blocks // 2)),
    ):
        sol = rs.solve(rec, method=solver, tol=1e-9)
        assert sol.success
        assert sol.nit <= limit


@variants
@given(cell=gallery.cells, seed=gallery.seeds, k=st.integers(1, 8))
def test_every_iteration_makes_a_block_exact_without_the_pin(solver, cell, seed, k):
    rec = gallery.recurrence(*cell, T=42, seed=seed, gain=2.0)
    m = solver.chunk if isinstance(solver, S.GaussSeidel) else solver.block or 6
    exact = k * m * (2 if getattr(solver, "relaxation", "F") == "FCF" else 1)
    sol = rs.solve(rec, method=solver, maxiter=k, tol=0.0, options={"pin": False, "patience": 1000})
    error = np.abs(sol.states - gallery.loop(rec))[:exact]
    assert error.max() <= gallery.bound(rs.solve(rec, method="sequential"))


def test_blocks_are_laid_from_the_end():
    """So that they stay where they are when leading rows are set aside."""
    from recsolve.solvers.blocks import block_ends

    for length in range(1, 40):
        for m in range(1, 10):
            ends = np.arange(length)[block_ends(length, m)] - length
            assert ends[-1] == -1
            assert len(ends) == -(-length // m)
            np.testing.assert_array_equal(ends, (np.arange(40)[block_ends(40, m)] - 40)[-len(ends) :])


def test_an_exact_coarse_map_ends_in_one_iteration():
    rec = rs.Recurrence.from_function(
        lambda h, u: 3.7 * h * (1 - h), initial=np.array([0.3]), structure="diagonal", length=40
    )

    def four_steps(ends, h):
        for _ in range(4):
            h = ends.apply(h)
        return h

    for relaxation in ("F", "FCF"):
        sol = rs.solve(rec, method=S.MGRIT(block=4, coarse=four_steps, relaxation=relaxation))
        assert sol.success
        assert sol.nit == 1


def test_the_shooting_of_blocks_tames_newton_where_the_dynamics_expand():
    rec = gallery.recurrence("elman", "dense", T=400, gain=2.2)
    newton, shooting = (rs.solve(rec, method=m, tol=1e-10) for m in ("newton", "multiple_shooting"))
    assert shooting.success
    assert shooting.nit < newton.nit / 4


# Every variant, every corner ---------------------------------------------------------------------------------------


@variants
@pytest.mark.sample(every=2)
@pytest.mark.parametrize("T", gallery.LENGTHS)
@pytest.mark.parametrize("cell", [("lstm", "heads"), ("gru", "diagonal")], ids="-".join)
def test_every_length(solver, T, cell):
    rec = gallery.recurrence(*cell, T=T)
    sol = rs.solve(rec, method=solver)
    assert sol.success
    assert sol.nit <= T
    assert np.abs(sol.states - gallery.loop(rec)).max(initial=0.0) <= gallery.bound(sol)


@variants
@given(cell=gallery.cells, seed=gallery.seeds, dtype=gallery.dtypes, gain=st.floats(0.2, 4.0), data=st.data())
def test_every_variant_equals_the_loop(solver, cell, seed, dtype, gain, data):
    T = data.draw(st.integers(1, 60))
    batch = data.draw(st.sampled_from([(), (0,), (3,), (2, 2)]))
    reset = np.random.default_rng(seed).random((T, *batch)) < data.draw(st.sampled_from([0.05, 0.3]))
    rec = gallery.recurrence(*cell, T=T, batch=batch, seed=seed, dtype=dtype, gain=gain, reset=reset, initial=0.3)
    sol = rs.solve(rec, method=solver)
    assert sol.success
    assert np.abs(sol.states - gallery.loop(rec)).max(initial=0.0) <= gallery.bound(sol)


@variants
@pytest.mark.parametrize("junk", [np.nan, np.inf])
@pytest.mark.parametrize("reset_at", [None, 25])
def test_junk_in_the_drive_stays_where_it_is(solver, junk, reset_at):
    """In one sequence: rows before it, the other sequence, and rows after a reset are as without it."""
    reset = np.zeros((40, 2), bool)
    reset[slice(0) if reset_at is None else reset_at] = True
    u = np.random.default_rng(0).standard_normal((40, 2, 3))
    dirty = u.copy()
    dirty[20, 1] = junk
    make = {"initial": np.full((2, 3), 0.1), "structure": "diagonal", "reset": reset}
    f = lambda h, u: 1.5 * np.sin(h) + u  # noqa: E731
    clean, spoilt = (rs.Recurrence.from_function(f, inputs=x, **make) for x in (u, dirty))
    before, after = iterates(clean, solver, count=40), iterates(spoilt, solver, count=40)
    for a, b in zip(before, after, strict=False):
        np.testing.assert_array_equal(a[:20], b[:20])
    truth, sol = gallery.loop(clean), rs.solve(spoilt, method=solver)
    assert sol.status == "nonfinite"
    assert sol.converged_prefix == 20
    known = np.ones((40, 2), bool)
    known[20 : reset_at or 40, 1] = False
    np.testing.assert_allclose(sol.states[known], truth[known], rtol=0, atol=1e-13)


@variants
@pytest.mark.parametrize("p", [2.5, 20.0])
def test_success_means_that_the_residual_is_met(solver, p):
    rec = gallery.sine(p, T=200)
    for maxiter in (2, 9, None):
        sol = rs.solve(rec, method=solver, maxiter=maxiter)
        assert sol.success == gallery.residual_is_met(rec, sol.states, sol.tolerance)
    assert sol.success


@variants
def test_a_guess_far_off_and_one_that_is_the_answer(solver):
    rec = gallery.recurrence("gru", "dense")
    truth = gallery.loop(rec)
    truth.flags.writeable = False
    assert rs.solve(rec, method=solver, guess=truth).nit == 0
    for guess in (1e30, np.nan):
        sol = rs.solve(rec, method=solver, guess=np.full(rec.shape, guess))
        assert sol.success
        assert np.abs(sol.states - truth).max() <= gallery.bound(sol)


@variants
@pytest.mark.filterwarnings("error")
def test_torch_and_autonomous_recurrences(solver):
    torch = pytest.importorskip("torch")
    u = torch.from_numpy(np.random.default_rng(0).standard_normal((33, 2)))
    rec = rs.Recurrence.from_function(
        lambda h, u: np.sin(h) + u, inputs=u, initial=torch.zeros(2, dtype=torch.float64), structure="diagonal"
    )
    sol = rs.solve(rec, method=solver)
    assert isinstance(sol.states, torch.Tensor)
    np.testing.assert_allclose(sol.states.numpy(), gallery.loop(rec), atol=1e-13)
    logistic = rs.Recurrence.from_function(
        lambda h, u: 2.5 * h * (1 - h),
        initial=np.array([0.3]),
        jacobian=lambda h, u: 2.5 - 5 * h,
        structure="diagonal",
        length=50,
    )
    assert rs.solve(logistic, method=solver).final[0] == pytest.approx(0.6)


# Costs, and what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        (S.GaussSeidel(chunk=5), {"nfev": 4, "njev": 0, "nscan": 0, "rows": 2 * (40 + 40 + 32 + 40)}),
        (S.Parareal(block=5), {"nfev": 6, "njev": 1, "nscan": 1, "rows": 2 * (40 + 40 + 32 + 40 + 40 + 32 + 40)}),
        (
            S.Parareal(block=5, coarse="subsample"),
            {"nfev": 6, "njev": 0, "rows": 2 * (40 + 40 + 32 + 40 + 8 + 8 + 32 + 40)},
        ),
        (S.MGRIT(block=5), {"nfev": 8, "njev": 1, "nscan": 1}),
        (S.MultipleShooting(block=5), {"nfev": 6, "njev": 3, "nscan": 1}),
    ],
)
def test_what_an_iteration_costs(solver, expected):
    sol = rs.solve(gallery.recurrence("gru", "dense", T=40), method=solver, maxiter=1)
    assert {name: sol.stats[name] for name in expected} == expected


def test_a_coarse_map_must_return_what_it_was_given():
    rec = gallery.recurrence("gru", "dense")
    for coarse, words in ((lambda ends, h: h[:1], "coarse returned shape"), (lambda ends, h: 0.0, "float")):
        with pytest.raises(ValueError, match=words):
            rs.solve(rec, method=S.Parareal(coarse=coarse))

    def writes(ends, h):
        h *= 0.5
        return h

    with pytest.raises(ValueError, match="read-only"):
        rs.solve(rec, method=S.Parareal(coarse=writes))


@pytest.mark.parametrize("method", ["multiple_shooting", "adaptive_shooting", "gauss_seidel", "windowed", "parareal"])
def test_blocks_of_what_is_compiled_are_compiled_too(method):
    """However short: what loops of another rounding walk would not be exact, and exact rows are what solves chaos."""
    rec = gallery.recurrence("elman", "dense", T=256, units=16, batch=(), gain=5.0)
    assert rec.compiled
    assert not rec.window(0, 16).compiled
    found = rs.solve(rec, method=method)
    with rs.backend("numba"):
        compiled = rs.solve(rec, method=method)
    assert found.success
    assert found.nit == compiled.nit
    np.testing.assert_array_equal(found.states, compiled.states)
