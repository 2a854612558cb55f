"""Sums over the units inside cells: norms, the delta rule, and their Jacobians of rank one."""

import pickle

import gallery
import numpy as np
import pytest
from test_mixings import METHODS, differentiated

import recsolve as rs
from recsolve.jacobians.factored import Factored
from recsolve.math import dot, layer_norm, mean, rms_norm, sigmoid, tanh, total

UNITS = 6


def norm_gru(s, W, u, p):  # a norm before each gate, a mixing of a gated state behind a norm
    r = sigmoid(p.g_r * layer_norm(W.r(s.h)) + u.r)
    n = tanh(p.g_n * rms_norm(W.n(r * rms_norm(s.h)) + u.n))
    return r * n + (1 - r) * s.h


def normed_memory(s, W, u, p):
    c = sigmoid(W.f(s.h) + u.f) * s.c + layer_norm(s.h) / 4
    return tanh(p.gain * rms_norm(c)) * mean(s.h), c


def delta(s, W, u, p):
    return 0.9 * s.h - u.k * dot(u.k, s.h) / 8 + u.k * u.v


def softmax(s, W, u, p):
    e = np.exp(tanh(W.h(s.h)) + u.x)
    return e / total(e)


CELLS = {
    f.__name__: rs.Cell(f, state=state, output="h")
    for f, state in ((norm_gru, ("h",)), (normed_memory, ("h", "c")), (delta, ("h",)), (softmax, ("h",)))
}


def recurrence(name, lanes=(), T=40, dtype=np.float64, reset=None):
    rng, cell, event = np.random.default_rng(0), CELLS[name], (*lanes, UNITS)
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    kind = rs.mixings.Heads if lanes else rs.mixings.Dense
    weighted = cell.with_weights(
        mixings={n: kind(0.4 * draw(*event, UNITS)) for n in cell.mixings},
        parameters={n: 0.5 + 0.1 * draw(*event) for n in cell.parameters},
        hidden_size=None if cell.mixings else UNITS,
    )
    drive = {n: draw(T, 2, *event) for n in cell.drives}
    initial = 0.1 * draw(*((len(cell.state),) if len(cell.state) > 1 else ()), *event)
    return weighted.recurrence(drive=drive, initial=initial.astype(dtype), reset=reset)


CASES = [(name, lanes) for name in CELLS for lanes in ((), (2,)) if CELLS[name].mixings or not lanes]


@pytest.mark.parametrize(("name", "lanes"), CASES)
def test_solves_and_gradients(name, lanes):
    reset = np.zeros((40, 2), bool)
    reset[13, 1] = True
    rec = recurrence(name, lanes, reset=reset)
    wanted = gallery.loop(rec)
    for method in METHODS:
        sol = rs.solve(rec, method=method)
        assert sol.success, (method, sol.message)
        assert np.abs(sol.states - wanted).max() <= gallery.bound(sol), method
    assert sol.trusted
    assert sol.error_bound == np.inf
    differentiated(rec, sol, np.random.default_rng(1).standard_normal(rec.shape))
    again = pickle.loads(pickle.dumps(rec.linearise(wanted)[1]))
    np.testing.assert_array_equal(again.matvec(wanted), rec.linearise(wanted)[1].matvec(wanted))


@pytest.mark.parametrize(("name", "lanes"), CASES)
def test_the_factored_jacobian_has_exact_parts_without_a_dense_matrix(name, lanes, monkeypatch):
    rec = recurrence(name, lanes)
    at = np.random.default_rng(2).standard_normal(rec.shape)
    J, v = rec.linearise(at)[1], np.random.default_rng(3).standard_normal(rec.shape)
    assert type(J) is Factored
    dense = J.lane_dense()
    one, step = np.random.default_rng(4).standard_normal(rec.shape), 1e-6
    slope = (rec.apply(rec.previous(at) + step * one) - rec.apply(rec.previous(at) - step * one)) / (2 * step)
    np.testing.assert_allclose(J.matvec(one), slope, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(J.matvec(v), dense.matvec(v), atol=1e-11)
    np.testing.assert_allclose(J.rmatvec(v), dense.transpose().matvec(v), atol=1e-11)
    monkeypatch.setattr(Factored, "lane_dense", lambda self: pytest.fail("formed a dense Jacobian"))
    np.testing.assert_allclose(J.block().data, dense.block().data, atol=1e-11)
    np.testing.assert_allclose(J[3:9].diagonal().data, dense.diagonal().data[3:9], atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("T", [0, 1, 1500])
def test_forced_backends_agree(T, dtype):
    rec = recurrence("norm_gru", T=T, dtype=dtype)
    found = []
    for backend in ("numpy", "numba"):
        with rs.backend(backend):
            sol = rs.solve(rec, method="newton")
            g = rs.adjoint(sol, states=np.ones(rec.shape, dtype))
            found.append((sol.states, g.mixings.n, g.parameters.g_n))
    assert sol.success
    assert sol.states.dtype == dtype
    for x, y in zip(*found, strict=True):
        np.testing.assert_allclose(
            x, y, rtol=1e-3 if dtype == np.float32 else 1e-9, atol=1e-4 if dtype == np.float32 else 1e-12
        )


def test_what_a_drive_broadcasts_counts_for_every_unit():
    def summed(s, W, u, p):
        return 0.5 * s.h + total(u.x) + mean(u.x) + dot(u.x, s.h) / 100

    cell = rs.Cell(summed, state=("h",), output="h").with_weights(hidden_size=5)
    x = np.random.default_rng(0).standard_normal((20, 3, 1))
    few, full = (cell.recurrence(drive={"x": u}) for u in (x, np.repeat(x, 5, axis=-1)))
    sols = [rs.solve(rec, method="newton") for rec in (few, full)]
    np.testing.assert_allclose(sols[0].states, sols[1].states, rtol=1e-12)
    assert sols[0].trusted
    grads = [rs.adjoint(sol, states=np.ones(few.shape)).drive.x for sol in sols]
    np.testing.assert_allclose(grads[0], grads[1].sum(axis=-1, keepdims=True), rtol=1e-12)


def test_functions_of_ones_own_are_differentiated_through_sums():
    u = np.random.default_rng(0).standard_normal((30, 4))
    rec = gallery.function(lambda h, u: tanh(layer_norm(h + u) + dot(h, u)), u, "dense")
    sol = rs.solve(rec, method="newton")
    assert sol.trusted
    np.testing.assert_allclose(sol.states, gallery.loop(rec), rtol=1e-10)


def test_numpys_own_sums_say_what_to_write_instead():
    cell = rs.Cell(lambda s, W, u, p: s.h - np.mean(s.h, axis=-1, keepdims=True) + u.x, state=("h",), output="h")
    rec = cell.with_weights(hidden_size=4).recurrence(drive={"x": np.ones((9, 4))})
    with pytest.raises(TypeError, match=r"numpy.mean couples entries .* total, mean and dot of recsolve.math"):
        rs.solve(rec, method="newton")
