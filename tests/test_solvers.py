"""Settings of the solvers: what they reduce to, what they cost, and what is refused."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.jacobians import Diagonal
from recsolve.solvers.quasi_newton import hutchinson

S = rs.solvers


def iterates(rec, method, count=6, **options):
    seen = []
    rs.solve(rec, method=method, maxiter=count, callback=lambda it: seen.append(it.states.copy()), **options)
    return seen


def same(a, b, atol=1e-12):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


REDUCTIONS = {
    "scaled by 0 is newton": (S.ScaledNewton(k=0.0), "newton"),
    "scaled by 1 is jacobi": (S.ScaledNewton(k=1.0), "jacobi"),
    "relaxed by 1 is newton": (S.RelaxedNewton(omega=1.0), "newton"),
    "chord refreshed always is newton": (S.Chord(refresh=1), "newton"),
    "the user's own J is newton": (S.QuasiNewton(approximation=lambda J: J), "newton"),
    "the user's own block is quasi_newton": (S.QuasiNewton(approximation=lambda J: J.block()), "quasi_newton"),
}


@pytest.mark.parametrize("cell", [("gru", "dense"), ("lstm", "heads"), ("lstm", "diagonal")], ids="-".join)
@pytest.mark.parametrize("name", sorted(REDUCTIONS))
def test_reductions(name, cell):
    solver, reduced = REDUCTIONS[name]
    rec = gallery.recurrence(*cell, T=40)
    same(iterates(rec, solver), iterates(rec, reduced))


def test_clipping_does_nothing_to_a_contractive_diagonal():
    rec = gallery.recurrence("gru", "diagonal", T=40)
    same(iterates(rec, "clipped_newton"), iterates(rec, "newton"))


def test_hutchinson_is_exact_on_diagonals_and_unbiased_elsewhere():
    diagonal = gallery.recurrence("gru", "diagonal", T=40)
    same(iterates(diagonal, S.QuasiNewton(approximation="hutchinson")), iterates(diagonal, "newton"))
    rec = gallery.recurrence("gru", "dense", T=3, units=4)
    J = rec.linearise(gallery.loop(rec))[1]
    problem = S.Problem(rec, rs.solve(rec).tolerance, pin=True, jacobian=True)
    estimate = hutchinson(problem, J.matvec, 4000, 0)
    np.testing.assert_allclose(estimate.data, J.diagonal().data, atol=0.05)
    again = hutchinson(problem, J.matvec, 4000, 0)
    np.testing.assert_array_equal(estimate.data, again.data)


@pytest.mark.parametrize("approximation", ["block", "diagonal", "hutchinson"])
def test_every_approximation_converges(approximation):
    rec = gallery.recurrence("lstm", "dense")
    sol = rs.solve(rec, method="quasi_newton", options={"approximation": approximation})
    assert sol.trusted
    assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)


@pytest.mark.parametrize(("name", "njev"), [("chord", 1), ("broyden", 0), ("diagonal_broyden", 0), ("jacobi", 0)])
def test_what_is_not_needed_is_not_evaluated(name, njev):
    sol = rs.solve(gallery.recurrence("gru", "dense"), method=name)
    assert sol.success
    assert sol.stats["njev"] == njev


def test_broyden_learns_the_jacobian_of_an_affine_recurrence():
    """In one dimension the secant is exact after two steps."""
    u = np.random.default_rng(0).standard_normal((50, 1))
    rec = rs.Recurrence.from_function(lambda h, u: 0.9 * h + u, inputs=u, initial=np.zeros(1), structure="diagonal")
    for method in ("broyden", "diagonal_broyden"):
        assert rs.solve(rec, method=method, tol=1e-11).nit <= 4


def test_scaled_jacobians():
    for cell in gallery.CELLS:
        rec = gallery.recurrence(*cell, T=4, units=4)
        J = rec.linearise(gallery.loop(rec))[1]
        np.testing.assert_allclose(J.scale(0.5).todense(), 0.5 * J.todense(), atol=1e-15)
        np.testing.assert_allclose(J.transpose().scale(0.5).todense(), 0.5 * J.transpose().todense(), atol=1e-15)
    a = Diagonal(np.array([[-3.0, 0.5, np.nan]]), rs.Layout(units=3)).clip(-1, 1).data
    np.testing.assert_array_equal(a, [[-1.0, 0.5, np.nan]])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: S.Chord(refresh=0), "refresh is 0"),
        (lambda: S.ScaledNewton(k=1.5), "k is 1.5"),
        (lambda: S.RelaxedNewton(omega=2.0), "omega is 2.0"),
        (lambda: S.QuasiNewton(approximation="half"), "approximation is 'half'"),
        (lambda: S.QuasiNewton(probes=0), "probes is 0"),
        (lambda: S.TriangularAnderson(memory=0), "memory is 0"),
        (lambda: S.TriangularAnderson(ridge=0.0), "ridge is 0.0"),
        (lambda: S.DampedNewton(trials=0), "trials is 0"),
        (lambda: S.DampedNewton(decrease=1.0), "decrease is 1.0"),
    ],
)
def test_settings_out_of_range(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_guesses():
    rec = gallery.recurrence("gru", "dense")
    step = iterates(rec, "newton", guess="step")
    same(step, iterates(rec, "newton"))
    np.testing.assert_array_equal(iterates(rec, "newton", guess="zeros")[0], 0)
    np.testing.assert_array_equal(iterates(rec, "newton", guess=0.25)[0], 0.25)
    np.testing.assert_array_equal(iterates(rec, "newton", guess=np.full(8, 0.5))[0], 0.5)
    cold = rs.solve(rec, method="jacobi")
    warm = rs.solve(rec, method="jacobi", guess=cold)
    assert cold.nit > 20
    assert warm.nit == 0
    with pytest.raises(ValueError, match="guess is 'zeroes'"):
        rs.solve(rec, guess="zeroes")


@pytest.mark.parametrize("cell", [("gru", "dense"), ("lstm", "diagonal"), ("elman_relu", "dense")], ids="-".join)
def test_the_error_estimate_is_of_the_size_of_the_error(cell):
    rec = gallery.recurrence(*cell, gain=1.5)
    truth = gallery.loop(rec)
    for k in (20, 25, 30):
        sol = rs.solve(rec, method="jacobi", maxiter=k)
        error = np.abs(sol.states - truth).max()
        assert sol.error_estimate == pytest.approx(error, rel=0.5, abs=1e-14)
