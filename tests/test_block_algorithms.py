"""Solvers in blocks: the algorithms of the papers, written out."""

import gallery
import numpy as np
import pytest
from test_solvers import iterates

import recsolve as rs

S = rs.solvers


def run(rec, state, start, stop):
    """F: the states after each of the steps start..stop-1."""
    out = []
    for t in range(start, stop):
        state = rec.step(state, t)
        out.append(state)
    return out


def literal_parareal(rec, U, m):
    """Lions, Maday, Turinici: one iteration from U[0..N] with G = one step with the last drive."""
    N = len(U) - 1
    F = [run(rec, U[n], n * m, (n + 1) * m)[-1] for n in range(N)]
    new = [U[0]]
    for n in range(N):
        last = (n + 1) * m - 1
        new.append(rec.step(new[n], last) + F[n] - rec.step(U[n], last))
    return new


def literal_cycle(rec, x, g, m, levels, relaxation, stride=1):
    """Falgout et al.: one FAS cycle for x[i] = phi(x[i-1]) + g[i], phi one step with the drive of row i."""

    def phi(state, i):
        return rec.step(state, i * stride - 1)

    N, x = len(x) - 1, list(x)
    if levels == 1:
        for i in range(1, N + 1):
            x[i] = phi(x[i - 1], i) + g[i]
        return x

    def relax_fine():
        for i in range(1, N + 1):
            if i % m:
                x[i] = phi(x[i - 1], i) + g[i]

    relax_fine()
    if relaxation == "FCF":
        for i in range(m, N + 1, m):
            x[i] = phi(x[i - 1], i) + g[i]
        relax_fine()
    U = x[::m]
    rho = [None] + [phi(x[i - 1], i) + g[i] - x[i] for i in range(m, N + 1, m)]
    coarse = [None] + [U[n] - rec.step(U[n - 1], n * m * stride - 1) + rho[n] for n in range(1, len(U))]
    x[::m] = literal_cycle(rec, U, coarse, m, levels - 1, relaxation, stride * m)
    relax_fine()
    return x


def expanding(T):
    """tanh units that take long enough for a comparison."""
    return gallery.recurrence("elman", "dense", T=T, batch=(), gain=2.0)


def test_parareal_is_that_of_the_paper():
    rec, m = expanding(60), 6
    U = [rec.initial, *rec.guess()[m - 1 :: m]]
    seen = iterates(rec, S.Parareal(block=m, coarse="subsample"), options={"pin": False})
    assert len(seen) == 7
    for states in seen[1:]:
        U = literal_parareal(rec, U, m)
        np.testing.assert_allclose(states[m - 1 :: m], U[1:], rtol=0, atol=1e-12)
        path = [row for n in range(10) for row in run(rec, U[n], n * m, (n + 1) * m)[:-1]]
        np.testing.assert_allclose(np.delete(states, slice(m - 1, None, m), axis=0), path, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("relaxation", ["F", "FCF"])
def test_mgrit_is_that_of_the_paper(relaxation, levels):
    rec, m = expanding(54), 3
    x, zero = [rec.initial, *rec.guess()], [np.zeros_like(rec.initial)] * 55
    solver = S.MGRIT(block=m, coarse="subsample", levels=levels, relaxation=relaxation)
    seen = iterates(rec, solver, options={"pin": False})
    assert len(seen) == 7
    for states in seen[1:]:
        x = literal_cycle(rec, x, zero, m, levels, relaxation)
        np.testing.assert_allclose(states, x[1:], rtol=0, atol=1e-11)


def test_multiple_shooting_is_newton_on_the_ends_of_blocks():
    """U[n] = F(U[n-1]) + A[n] (dU[n-1]), with A[n] by central differences of the block."""
    rec, m = expanding(24), 4
    seen = iterates(rec, S.MultipleShooting(block=m), count=2, options={"pin": False})
    U = [rec.initial, *seen[1][m - 1 :: m]]
    new = [rec.initial]
    for n in range(6):
        F, step = (lambda state, n=n: run(rec, state, n * m, (n + 1) * m)[-1]), 1e-6
        A = np.stack([(F(U[n] + step * e) - F(U[n] - step * e)) / (2 * step) for e in np.eye(8)], axis=-1)
        new.append(F(U[n]) + A @ (new[n] - U[n]))
    np.testing.assert_allclose(seen[2][m - 1 :: m], new[1:], rtol=0, atol=1e-6)


def test_the_residual_is_that_of_the_ends_of_blocks():
    rec = gallery.recurrence("elman", "dense", T=60, batch=(), gain=1.5)
    for solver in (S.MultipleShooting(block=6), S.Parareal(block=6), S.MGRIT(block=6)):
        h = iterates(rec, solver, count=1)[1]
        r = np.abs(rec.evaluate(h) - h).max(axis=-1)
        assert r[5::6].max() > 1e-6
        assert np.delete(r, slice(5, None, 6)).max() < 1e-14
