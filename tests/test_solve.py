"""solve(): statuses, fallbacks, callbacks, options, the Solution, and input that is wrong."""

import gallery
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recsolve as rs

SOLVERS = sorted(rs.solvers.REGISTRY)


def test_the_solution_says_all():
    rec = gallery.recurrence("lstm", "dense")
    sol = rs.solve(rec)
    text = repr(sol)
    for word in (
        "converged",
        "newton",
        "LSTM".lower(),
        "residual",
        "rows within tolerance",
        "evaluations",
        "sol.trusted",
    ):
        assert word in text
    assert sol.residuals.shape == (sol.nit + 1,)
    assert sol.residuals[-1] == np.abs(rec.evaluate(sol.states) - sol.states).max()
    assert sol.stats["nfev"] == sol.nit + 2  # the guess and every iterate
    assert sol.stats["njev"] == sol.nit + 1
    assert sol.stats["nscan"] == sol.nit
    assert sol.stats["completed_from"] is None
    assert sol.converged_prefix == rec.length
    assert 0 < sol.exact_prefix <= rec.length
    assert sol.converged_rows.shape == (60, 2)
    assert sol.trusted
    assert "kappa" in repr(sol)
    np.testing.assert_array_equal(sol.output, sol.states[:, :, 0])
    assert sol.recurrence is rec


def test_maxiter_returns_the_iterate_it_speaks_of():
    rec = gallery.recurrence("gru", "dense")
    sol = rs.solve(rec, method="jacobi", maxiter=5)
    assert sol.status == "maxiter"
    assert not sol.success
    assert not sol.trusted
    assert "maxiter" in sol.message
    assert sol.nit == 5
    assert sol.converged_prefix >= 5
    assert sol.exact_prefix >= 5
    assert rs.solve(rec, maxiter=0).nit == 0


def test_fallbacks():
    rec = gallery.recurrence("gru", "dense")
    truth = gallery.loop(rec)
    sol = rs.solve(rec, method="jacobi", maxiter=5, fallback="sequential")
    np.testing.assert_allclose(sol.states, truth, rtol=0, atol=1e-15)
    assert sol.status == "converged"
    assert sol.stats["completed_from"] >= 5
    assert len(sol.residuals) == sol.nit + 2
    with pytest.raises(rs.ConvergenceError, match="maxiter") as caught:
        rs.solve(rec, method="jacobi", maxiter=5, fallback="raise")
    assert caught.value.solution.states.shape == rec.shape
    assert rs.solve(rec, fallback="raise").success


def test_the_fallback_leaves_what_is_not_finite():
    clean = gallery.recurrence("gru", "dense", T=40)
    x = np.random.default_rng(1).standard_normal((40, 2, 3))
    x[20, 0] = np.nan
    rec = clean.cell.recurrence(x)
    sol = rs.solve(rec, method="jacobi", fallback="sequential")
    assert sol.status == "nonfinite"
    np.testing.assert_allclose(sol.states, gallery.loop(rec), rtol=0, atol=1e-14)
    assert np.isnan(sol.states[20:, 0]).all()


def test_callback_sees_every_iterate_read_only_and_may_stop():
    rec = gallery.recurrence("gru", "dense")
    seen = []

    def watch(result):
        seen.append((result.nit, result.residual, result.converged_rows.sum()))
        assert result.states.shape == rec.shape
        with pytest.raises(ValueError, match="read-only"):
            result.states[0] = 0
        if result.nit == 2:
            raise StopIteration

    sol = rs.solve(rec, method="jacobi", callback=watch)
    assert [n for n, _, _ in seen] == [0, 1, 2]
    assert sol.status == "stopped"
    assert sol.nit == 2
    np.testing.assert_array_equal([r for _, r, _ in seen], sol.residuals)


@pytest.mark.parametrize("method", SOLVERS)
def test_a_guess_is_used_not_written_and_may_be_the_answer(method):
    rec = gallery.recurrence("gru", "dense")
    truth = gallery.loop(rec)
    truth.flags.writeable = False
    sol = rs.solve(rec, method=method, guess=truth)
    assert sol.nit == 0
    assert sol.success
    junk = np.full(rec.shape, np.nan)
    sol = rs.solve(rec, method=method, guess=junk)
    assert sol.success
    assert np.abs(sol.states - truth).max() <= gallery.bound(sol)
    assert np.isnan(junk).all()


def test_stalled_and_diverged_without_the_pin():
    options = {"pin": False, "patience": 5}

    class Backwards(rs.solvers.Newton):
        """Takes steps away from the solution."""

        def step(self, problem, iterate, state):
            return problem.advance(iterate, iterate.states - 2 * iterate.residual), state

    class Idle(rs.solvers.Newton):
        def step(self, problem, iterate, state):
            return iterate, state

    rec = gallery.recurrence("elman", "dense", T=30)
    sol = rs.solve(rec, method=Idle(), options=options)
    assert sol.status == "stalled"
    assert sol.nit == 5
    leaky = rs.Recurrence.from_function(
        lambda h, u: 0.9 * h + u, inputs=np.ones((1000, 16)), initial=np.ones(16), structure="diagonal"
    )
    sol = rs.solve(leaky, method=Backwards(), options={**options, "patience": 8})
    assert sol.status == "diverged"
    assert sol.residuals[-1] > 1e3 * sol.residuals[0]


def test_the_pin_rescues_a_solver_that_does_nothing():
    class Idle(rs.solvers.Newton):
        def step(self, problem, iterate, state):
            return problem.advance(iterate, iterate.states), state

    rec = gallery.recurrence("elman", "dense", T=30)
    sol = rs.solve(rec, method=Idle())
    assert sol.success
    assert sol.nit <= 30


@pytest.mark.parametrize("dtype", gallery.DTYPES)
def test_a_tolerance_below_rounding_ends_with_exact_rows(dtype):
    rec = gallery.recurrence("gru", "dense", T=40, dtype=dtype)
    sol = rs.solve(rec, tol=0.0)
    assert sol.success
    assert sol.exact_prefix == 40
    assert sol.residuals[-1] == 0


def dense_condition(rec, states):
    """The infinity norm of the inverse of the bidiagonal matrix, formed."""
    J = rec.linearise(states)[1].todense()
    T, N = rec.length, rec.layout.size
    worst = 0.0
    starts = rec.starts
    for b in range(rec.batch[0]):
        L = np.eye(T * N)
        for t in range(1, T):
            if not starts[t, b]:
                L[t * N : (t + 1) * N, (t - 1) * N : t * N] = -J[t, b]
        worst = max(worst, np.abs(np.linalg.inv(L)).sum(axis=1).max())
    return worst


@given(cell=gallery.cells, seed=gallery.seeds, gain=st.floats(0.3, 4.0), resets=st.booleans())
def test_the_condition_is_that_of_the_bidiagonal_system(cell, seed, gain, resets):
    reset = np.random.default_rng(seed).random((20, 2)) < 0.1 if resets else None
    rec = gallery.recurrence(*cell, T=20, units=4, gain=gain, seed=seed, reset=reset)
    sol = rs.solve(rec)
    exact = dense_condition(rec, sol.states)
    if cell[1] == "diagonal" and rec.layout.components == 1:
        assert sol.condition == pytest.approx(exact, rel=1e-10)
    else:
        assert exact / 3 <= sol.condition <= exact * (1 + 1e-10)


def test_trust_follows_the_condition():
    slow = rs.Recurrence.from_function(
        lambda h, u: np.float32(0.99999) * h + u,
        inputs=np.ones((100_000, 1), np.float32),
        initial=np.zeros(1, np.float32),
        structure="diagonal",
    )
    sol = rs.solve(slow)
    assert sol.success
    assert sol.condition == pytest.approx(63_000, rel=0.05)
    assert not sol.trusted
    assert "may be far from the true one" in sol.message
    assert rs.solve(gallery.recurrence("gru", "dense")).trusted


def test_from_function_forms():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 30, 4))
    by_tuple = rs.Recurrence.from_function(
        lambda h, u: np.tanh(h * u[0] + u[1]), inputs=(a, b), initial=np.zeros(4), structure="diagonal"
    )
    by_dict = rs.Recurrence.from_function(
        lambda h, u: np.tanh(h * u["a"] + u["b"]), inputs={"a": a, "b": b}, initial=np.zeros(4), structure="dense"
    )
    x, y = rs.solve(by_tuple), rs.solve(by_dict)
    np.testing.assert_allclose(x.states, y.states, atol=1e-14)


def test_states_that_are_one_number_per_step():
    u = np.linspace(0, 1, 40)
    rec = rs.Recurrence.from_function(
        lambda h, u: 0.5 * np.sin(h) + u, inputs=u, initial=np.array(0.0), structure="diagonal"
    )
    for method in SOLVERS:
        sol = rs.solve(rec, method=method)
        assert sol.states.shape == (40,)
        assert sol.trusted
        np.testing.assert_allclose(sol.states, gallery.loop(rec), atol=1e-14)


def test_autonomous_recurrences_and_lists():
    logistic = rs.Recurrence.from_function(
        lambda h, u: 2.5 * h * (1 - h), initial=[0.3], structure="diagonal", length=50
    )
    sol = rs.solve(logistic)
    assert sol.success
    assert sol.final[0] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("structure", "jacobian"),
    [("diagonal", lambda h, u: 0.5 * np.cos(h)), ("dense", lambda h, u: 0.5 * np.cos(h)[..., None] * np.eye(3))],
)
def test_a_given_jacobian_is_used(structure, jacobian):
    u = np.random.default_rng(0).standard_normal((40, 3))
    rec = rs.Recurrence.from_function(
        lambda h, u: 0.5 * np.sin(h) + u, inputs=u, initial=np.zeros(3), structure=structure, jacobian=jacobian
    )
    assert rs.solve(rec).nit <= 5
    assert rs.check_structure(rec)


def bad_function(**overrides):
    settings = {"inputs": np.ones((5, 2)), "initial": np.zeros(2), "structure": "diagonal", **overrides}
    f = settings.pop("f", lambda h, u: 0.5 * h + u)
    return rs.solve(rs.Recurrence.from_function(f, **settings))


def gru(**arguments):
    return gallery.weighted("gru").recurrence(**arguments)


X = np.ones((5, 2, 3))


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: rs.solve(X), TypeError, "recurrence is ndarray; wanted a Recurrence"),
        (lambda: rs.solve(gru(x=X), method="newt"), ValueError, "method is 'newt'; wanted one of sequential"),
        (lambda: rs.solve(gru(x=X), method=3), TypeError, "method is int"),
        (lambda: rs.solve(gru(x=X), maxiter=-1), ValueError, "maxiter is -1; wanted an integer >= 0"),
        (lambda: rs.solve(gru(x=X), maxiter=2.5), ValueError, "maxiter is 2.5"),
        (lambda: rs.solve(gru(x=X), tol=-1.0), ValueError, "tol is -1.0; wanted a finite number >= 0"),
        (lambda: rs.solve(gru(x=X), tol=np.nan), ValueError, "tol is nan"),
        (lambda: rs.solve(gru(x=X), options={"atol": "x"}), ValueError, "atol is 'x'"),
        (lambda: rs.solve(gru(x=X), options={"speed": 9}), ValueError, r"unknown \['speed'\].*'pin'"),
        (lambda: rs.solve(gru(x=X), method="damped_newton", options={"shrink": 2}), ValueError, "shrink is 2"),
        (lambda: rs.solve(gru(x=X), method=rs.solvers.Newton(), options={"shrink": 1}), ValueError, "solver object"),
        (lambda: rs.solve(gru(x=X), options={"patience": 0}), ValueError, "patience is 0"),
        (lambda: rs.solve(gru(x=X), fallback="pray"), ValueError, "fallback is 'pray'"),
        (lambda: rs.solve(gru(x=X), callback=3), TypeError, "callback is int"),
        (lambda: rs.solve(gru(x=X), guess=np.ones(3)), ValueError, r"guess has shape \(3,\); wanted \(5, 2, 8\)"),
        (lambda: rs.solve(gru(x=X), guess=np.ones((5, 2, 8), "f4")), TypeError, "guess has dtype float32"),
        (lambda: gru(), ValueError, "neither x nor drive is given"),
        (lambda: gru(x=X[..., :2]), ValueError, r"x has shape \(5, 2, 2\); wanted \(T, \*batch, 3\)"),
        (lambda: gru(x=np.ones(3)), ValueError, "x has shape"),
        (lambda: gru(x=X.astype(int)), TypeError, "x has dtype int64; wanted float32 or float64"),
        (lambda: gru(x=X.astype(np.float16)), TypeError, "x has dtype float16"),
        (lambda: gru(x=X.astype(np.float32)), TypeError, r"dtypes are mixed: x is float32.*cell.astype"),
        (lambda: gru(x=[[1.0], [1.0, 2.0]]), ValueError, "x is not a rectangular array"),
        (lambda: gru(x=X, initial=np.ones(7)), ValueError, r"initial has shape \(7,\); wanted .* \(2, 8\)"),
        (lambda: gru(x=X, initial=np.ones(8, "f4")), TypeError, "initial has dtype float32"),
        (lambda: gru(x=X, initial={"c": np.ones(8)}), ValueError, r"initial has components \('c',\); wanted \('h',\)"),
        (lambda: gru(x=X, reset=np.ones(4, bool)), ValueError, r"reset has shape .*wanted .*\(5, 2\)"),
        (lambda: gru(x=X, reset=np.ones(5)), TypeError, "reset has dtype float64; wanted bool"),
        (lambda: gru(drive={"r": X}), ValueError, r"drive of gru has names \('r',\)"),
        (lambda: gru(drive=dict.fromkeys("rzn", X)), ValueError, r"drives have shapes .*wanted"),
        (lambda: rs.cells.get("gruu"), ValueError, "cell is 'gruu'; wanted one of elman"),
        (lambda: rs.cells.GRU.random(input_size=0, hidden_size=3), ValueError, "input_size is 0"),
        (lambda: rs.cells.GRU.random(input_size=1, hidden_size=3, mixing="x"), ValueError, "mixing is 'x'"),
        (lambda: rs.cells.GRU.random(input_size=1, hidden_size=6, mixing="heads"), ValueError, "heads is 4"),
        (lambda: rs.cells.GRU.random(input_size=1, hidden_size=6, heads=2), ValueError, "heads is 2 with mixing"),
        (lambda: rs.cells.MinMax.random(input_size=1, hidden_size=6, gain=2), ValueError, "gain is 2"),
        (lambda: rs.cells.GRU.random(input_size=1, hidden_size=6, gain=np.nan), ValueError, "gain is nan"),
        (lambda: rs.cells.GRU.with_weights(), ValueError, "mixings of gru has names"),
        (lambda: rs.mixings.Dense(np.ones((2, 3))), ValueError, r"weight of a dense mixing has shape \(2, 3\)"),
        (lambda: rs.Cell(lambda s, W, u, p: s.h, state=("h",), output="x"), ValueError, "output is 'x'"),
        (lambda: rs.Cell(lambda s, W, u, p: (s.h, s.h), state=("h",), output="h"), ValueError, "returns 2 components"),
        (lambda: rs.Cell(lambda s, W, u, p: s.q, state=("h",), output="h"), AttributeError, "no component 'q'"),
        (lambda: rs.packed_resets([3, 0]), ValueError, "lengths is"),
        (lambda: bad_function(structure="sparse"), ValueError, "structure is 'sparse'; wanted one of zero"),
        (lambda: bad_function(initial=np.array(0.0), structure="dense"), ValueError, "initial has shape"),
        (lambda: bad_function(initial=np.zeros((1, 2)), structure="block"), ValueError, "k >= 2"),
        (lambda: bad_function(initial=np.zeros(2, "f4")), TypeError, "dtypes are mixed"),
        (lambda: bad_function(inputs=(np.ones((5, 2)), np.ones((4, 2)))), ValueError, "lengths along time"),
        (lambda: bad_function(inputs=None), ValueError, "length is None"),
        (lambda: bad_function(f=lambda h, u: h[..., :1]), ValueError, r"f returned shape \(5, 1\)"),
        (lambda: bad_function(f=lambda h, u: h.astype("f4")), TypeError, "f returned dtype float32"),
        (lambda: bad_function(jacobian=lambda h, u: np.ones(7)), ValueError, r"jacobian returned shape \(7,\)"),
        (lambda: bad_function(f=lambda h, u: h if h > 0 else u), TypeError, "branches in Python"),
    ],
)
def test_bad_input_names_argument_seen_and_wanted(build, error, words):
    with pytest.raises(error, match=words):
        build()


def test_mixed_kinds():
    torch = pytest.importorskip("torch")
    cell = gallery.weighted("gru")
    x = torch.ones(5, 2, 3, dtype=torch.float64)
    with pytest.raises(TypeError, match="initial is numpy and the drive is torch"):
        cell.recurrence(x, initial=np.zeros(8))
    with pytest.raises(TypeError, match="kinds are mixed: initial is numpy, inputs is torch"):
        rs.Recurrence.from_function(lambda h, u: h, inputs=x, initial=np.zeros(3))
    with pytest.raises(TypeError, match="guess is numpy"):
        rs.solve(cell.recurrence(x), guess=np.zeros((5, 2, 8)))
    sol = rs.solve(cell.recurrence(x, initial=torch.zeros(8, dtype=torch.float64)))
    assert isinstance(sol.states, torch.Tensor)
    assert isinstance(sol.final, torch.Tensor)


def test_without_cupy_the_error_names_the_extra():
    pytest.importorskip("numpy")
    try:
        import cupy  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"recsolve\[cuda13\]"):
            gallery.weighted("gru").to("cupy")
