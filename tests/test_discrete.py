"""Discrete states: equality is the test, every method that applies gives the literal loop's states bit for bit."""

import itertools
import pickle
from io import StringIO

import numpy as np
import pytest

import recsolve as rs
from recsolve.base.arrays import DISCRETE
from recsolve.base.tolerance import Tolerance
from recsolve.kernels.residual import residual_of

S = rs.solvers


def two_steps(ends, h):
    return ends.apply(ends.apply(h))


METHODS = [
    "sequential",
    "jacobi",
    "gauss_seidel",
    "parareal",
    "windowed",
    "auto",
    S.Parareal(block=3, coarse=two_steps),
    S.Windowed(solver="gauss_seidel", window=9),
    S.Chain(methods=("jacobi", "parareal", "sequential"), iterations=3),
]
PERMUTATIONS = np.array(list(itertools.permutations(range(5))))
EMBED, READ = np.random.default_rng(5).standard_normal((2, 20, 6))


def carry(c, u):
    """The carry of a binary adder."""
    return (u["a"] & u["b"]) | (c & (u["a"] ^ u["b"]))


def pointer(h, u):
    """h = j if h == i else h."""
    return np.where(h == u[0], u[1], h)


def word(h, u):
    """The word problem of permutations."""
    return np.take_along_axis(u, h, axis=-1)


def rule_110(h, u):
    """A cellular automaton with some cells flipped."""
    left, right = np.roll(h, 1, axis=-1), np.roll(h, -1, axis=-1)
    return ((h | right) & ~(left & h & right)) ^ u


def tokens(h, u):
    """The most probable of 20 tokens after a token and a real input."""
    return np.argmax((0.8 * EMBED[h] + u) @ READ.T, axis=-1)


def made(name, T, batch, seed=0, reset=None):
    """Return a recurrence, its function, inputs and h[0]."""
    rng, rows = np.random.default_rng(seed), (T, *batch)
    if name == "carry":
        f, u, h0 = carry, {n: rng.random((*rows, 1)) < 0.5 for n in "ab"}, np.zeros((*batch, 1), bool)
    elif name == "pointer":
        f, u, h0 = (
            pointer,
            tuple(rng.integers(250, 256, (2, *rows, 1)).astype(np.uint8)),
            np.full((*batch, 1), 255, "B"),
        )
    elif name == "word":
        f, u, h0 = word, PERMUTATIONS[rng.integers(0, 120, rows)], np.broadcast_to(np.arange(5), (*batch, 5))
    elif name == "rule_110":
        f, u, h0 = rule_110, rng.random((*rows, 12)) < 0.05, rng.random((*batch, 12)) < 0.5
    else:
        f, u, h0 = tokens, rng.standard_normal((*rows, 1, 6)), np.zeros((*batch, 1), np.int64)
    rec = rs.Recurrence.from_function(f, inputs=u, initial=h0, structure="none", reset=reset)
    return rec, f, u, h0


def literal(f, u, h0, T, reset=None):
    """Return the states of a loop that knows nothing of the library."""
    h, states = h0, np.empty((T, *h0.shape), h0.dtype)
    for t in range(T):
        if reset is not None:
            h = np.where(reset[t][..., None], h0, h)
        if isinstance(u, dict):
            at = {name: x[t] for name, x in u.items()}
        else:
            at = tuple(x[t] for x in u) if isinstance(u, tuple) else u[t]
        h = states[t] = f(h, at)
    return states


@pytest.mark.parametrize("name", ["carry", "pointer", "word", "rule_110", "tokens"])
@pytest.mark.parametrize("method", METHODS, ids=lambda x: x if isinstance(x, str) else x.name)
def test_every_method_that_applies_equals_the_literal_loop(name, method):
    for seed, (T, batch) in enumerate([(0, ()), (1, ()), (37, ()), (33, (3,)), (20, (2, 2)), (5, (0,))]):
        for reset in (None, np.random.default_rng(seed).random((T, *batch)) < 0.1):
            rec, f, u, h0 = made(name, T, batch, seed, reset)
            truth = literal(f, u, h0, T, reset)
            for guess in (None, "zeros"):
                sol = rs.solve(rec, method=method, guess=guess)
                assert sol.success, sol
                assert sol.states.dtype == truth.dtype
                assert np.array_equal(sol.states, truth)
                assert sol.nit <= T
                assert sol.exact_prefix == sol.converged_prefix == T
                assert sol.residuals[-1] == 0
                assert set(np.unique(sol.residuals)) <= {0, 1}


def test_what_a_solution_says_of_discrete_states():
    rec, *_ = made("tokens", 40, (2,))
    seen = []
    sol = rs.solve(rec, method="jacobi", callback=lambda now: seen.append(now.residual), options={"trace": True})
    assert seen == sol.residuals.tolist()
    assert sol.trace.residual.shape == (sol.nit + 1, 40, 2)
    assert sol.trusted
    assert sol.error_estimate == sol.error_bound == 0
    assert np.isnan(sol.condition)
    assert "states are discrete" in sol.message
    assert "trusted: True" in repr(sol)
    assert str(sol.tolerance) == "f(h[t-1], u[t]) = h[t] in every entry"
    assert np.array_equal(pickle.loads(pickle.dumps(sol)).states, sol.states)
    short = rs.solve(rec, method="jacobi", maxiter=2)
    assert short.status == "maxiter"
    assert not short.trusted
    assert short.error_bound == np.inf
    assert short.exact_prefix >= 2
    assert short.exact_prefix == short.converged_prefix
    completed = rs.solve(rec, method="jacobi", maxiter=2, fallback="sequential")
    assert completed.success
    assert np.array_equal(completed.states, sol.states)
    assert rs.check_structure(rec)


@pytest.mark.parametrize("method", sorted(S.REGISTRY))
def test_methods_that_do_arithmetic_with_states_are_refused(method):
    rec, *_ = made("pointer", 9, ())
    if method in rec.applies and method != "chain":  # by default of newton and others
        assert rs.solve(rec, method=method).success
        return
    with pytest.raises(TypeError, match=rf"method is '{method}'.*gauss_seidel, jacobi, parareal.*states are uint8"):
        rs.solve(rec, method=method)


def test_a_method_of_the_users_own_is_not_refused():
    class Masked(S.Jacobi):
        """Only the first rows that are not settled are let change, as in masked decoding."""

        name, cite = "masked", "the user"

        def step(self, problem, iterate, state):
            few = np.cumsum(~iterate.leading, axis=0) <= 3
            kept = np.where(problem.recurrence.over_event(few), iterate.values, iterate.states)
            return problem.advance(iterate, kept), state

    rec, f, u, h0 = made("tokens", 30, (2,))
    sol = rs.solve(rec, method=Masked())
    assert sol.trusted
    assert np.array_equal(sol.states, literal(f, u, h0, 30))


def test_what_does_not_apply_is_refused():
    rec, *_ = made("tokens", 9, ())
    sol = rs.solve(rec, method="jacobi")
    for call in (rs.adjoint, rs.tangent):
        with pytest.raises(TypeError, match="int64, which have no derivatives"):
            call(sol, states=np.ones(rec.shape))
    with pytest.raises(TypeError, match="has no derivative, as its structure is 'none'"):
        rec.linearise(sol.states)
    with pytest.raises(TypeError, match="no derivative"):
        rs.diagnose(rec)
    with pytest.raises(ValueError, match="tol is 1e-09; wanted None or 0"):
        rs.solve(rec, method="jacobi", tol=1e-9)
    for guess in (0.5, True, 2**70):
        with pytest.raises(TypeError, match=r"guess is .*; wanted a number of int64"):
            rs.solve(rec, method="jacobi", guess=guess)
    with pytest.raises(TypeError, match="guess has dtype float64; wanted int64"):
        rs.solve(rec, method="jacobi", guess=np.zeros(rec.shape))
    with pytest.raises(TypeError, match="initial has dtype int64; wanted float32 or float64"):
        rs.Recurrence.from_function(tokens, inputs=rec.inputs[0], initial=rec.initial)
    with pytest.raises(ValueError, match="jacobian is given, but structure 'none'"):
        rs.Recurrence.from_function(tokens, initial=rec.initial, length=3, structure="none", jacobian=tokens)
    bad = rs.Recurrence.from_function(lambda h, u: h / 2, initial=rec.initial, length=3, structure="none")
    with pytest.raises(TypeError, match="f returned dtype float64; wanted int64"):
        rs.solve(bad, method="jacobi")


def test_what_is_no_recurrence_is_caught():
    draws = itertools.count()
    rec = rs.Recurrence.from_function(
        lambda h, u: h + next(draws), initial=np.zeros(1, int), length=9, structure="none"
    )
    with pytest.raises(ValueError, match="is not a function"):
        rs.solve(rec, method="jacobi")
    mixes = rs.Recurrence.from_function(lambda h, u: h + len(h), initial=np.zeros(1, int), length=9, structure="none")
    sol = rs.solve(mixes, method="jacobi")
    assert sol.status == "stalled"
    assert "mixes times" in sol.message
    assert not rs.check_structure(mixes)


@pytest.mark.parametrize("dtype", DISCRETE, ids=str)
def test_numbers_that_differ_never_cancel(dtype):
    """Differences of unsigned and narrow integers overflow, and bools have none."""
    low, high = (False, True) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    h, f = np.array([[low], [high], [high]], dtype), np.array([[high], [low], [high]], dtype)
    found = residual_of(h, f, Tolerance(0.0, 0.0), (1,))
    assert found.converged.tolist() == found.exact.tolist() == [False, False, True]
    assert found.worst.tolist() == [1, 1, 0]
    rec = rs.Recurrence.from_function(lambda x, u: u, inputs=f, initial=f[0], structure="none")
    assert rs.solve(rec, method="jacobi", guess=h).states.tolist() == f.tolist()


def test_auto_sees_which_maps_forget():
    rec, *_ = made("tokens", 3000, (40,))
    choice = rs.explain(rec, file=StringIO())
    assert set(choice.candidates_by_name) <= {"sequential", "jacobi", "gauss_seidel"}
    sol = rs.solve(rec, method="auto")
    assert sol.success
    assert np.array_equal(sol.states, rs.solve(rec, method="sequential").states)


def test_torch_integers_stay_torch():
    torch = pytest.importorskip("torch")
    u, h0 = torch.arange(9)[:, None], torch.zeros(1, dtype=torch.int64)
    rec = rs.Recurrence.from_function(lambda h, u: (3 * h + u) % 7, inputs=u, initial=h0, structure="none")
    sol = rs.solve(rec, method="windowed", options={"window": 4})
    assert sol.success
    assert sol.states.dtype == torch.int64
    assert sol.final.item() == sol.states[-1].item()


@pytest.mark.gpu
def test_integers_on_a_gpu():
    cupy = pytest.importorskip("cupy")
    _rec, f, u, h0 = made("rule_110", 40, (3,))
    there = rs.Recurrence.from_function(f, inputs=cupy.asarray(u), initial=cupy.asarray(h0), structure="none")
    for method in ("jacobi", "gauss_seidel", "parareal", "windowed"):
        sol = rs.solve(there, method=method)
        assert sol.success
        assert np.array_equal(sol.states.get(), literal(f, u, h0, 40))


def test_real_states_without_a_derivative():
    """A solve that needs none; what rests on one is unknown, with the reason."""
    u = np.random.default_rng(0).standard_normal((60, 4))
    rec = rs.Recurrence.from_function(
        lambda h, u: 0.5 * np.sort(h, axis=-1)[..., ::-1] + u, inputs=u, initial=np.zeros(4), structure="none"
    )
    truth = rs.solve(rec, method="sequential").states
    for method in sorted(rec.applies - {"chain"}):
        sol = rs.solve(rec, method=method)
        assert sol.success, sol
        assert np.abs(sol.states - truth).max() < 1e-13
        assert not sol.trusted
        assert np.isnan(sol.condition)
        assert "structure is 'none'" in sol.message
    with pytest.raises(TypeError, match="structure='none' has no derivative"):
        rs.solve(rec)
    with pytest.raises(TypeError, match="no derivative"):
        rs.adjoint(sol, final=np.ones(4))


def test_a_discrete_readout_has_a_dtype_of_its_own():
    edges = np.arange(40)[:, None], np.arange(1, 41)[:, None]
    rec = rs.Recurrence.from_function(
        pointer, inputs=edges, initial=np.zeros(1, int), structure="none", readout=lambda h, u: h == 7
    )
    output = rs.solve(rec, method="jacobi").output
    assert output.dtype == bool
    assert output.nonzero()[0].tolist() == [6]


@pytest.mark.parametrize("method", ["sequential", "jacobi", "windowed"])
def test_a_graph_may_have_discrete_states(method):
    parents = np.stack([np.arange(-1, 39), np.arange(-2, 38).clip(-1)], axis=1)  # the Fibonacci numbers, modulo 1000
    rec = rs.Recurrence.from_graph(
        lambda h, u: (h[0] + h[1] + u) % 1000,
        parents,
        inputs=np.eye(40, 1, dtype=int),
        initial=np.zeros(1, int),
        structure="none",
    )
    sol = rs.solve(rec, method=method)
    x, y = 0, 1
    for found in sol.states[:, 0].tolist():
        assert found == y
        x, y = y, (x + y) % 1000
    assert sol.success
    with pytest.raises(TypeError, match="wanted one of jacobi, sequential, windowed"):
        rs.solve(rec, method="newton")
