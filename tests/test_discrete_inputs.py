"""Integers and bools among the inputs of real recurrences: tokens, indices, masks."""

import pickle

import numpy as np
import pytest

import recsolve as rs

T, B, N, V = 40, 2, 4, 7


def embedded(h, u, p):
    return np.where(u["keep"][..., None], np.tanh(h @ p.W.T + p.E[u["token"]] + u["x"]), 0.5 * h)


def recurrence(dtype=np.float64, **changes):
    rng = np.random.default_rng(0)
    arrays = {"E": rng.standard_normal((V, N)), "W": 0.5 * rng.standard_normal((N, N))} | changes
    return rs.Recurrence.from_function(
        embedded,
        inputs={
            "token": rng.integers(0, V, (T, B)),
            "keep": rng.random((T, B)) < 0.8,
            "x": rng.standard_normal((T, B, N)).astype(dtype),
        },
        parameters={name: x.astype(dtype) for name, x in arrays.items()},
        initial=np.zeros((B, N), dtype),
    )


def loop(rec):
    h, states = rec.initial, []
    token, keep, x = rec.inputs
    for t in range(len(token)):
        moved = np.tanh(h @ rec.parameters.W.T + rec.parameters.E[token[t]] + x[t])
        h = np.where(keep[t][:, None], moved, 0.5 * h)
        states.append(h)
    return np.stack(states)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("method", ["sequential", "newton", "quasi_newton", "jacobi", "elk", "windowed", "auto"])
def test_every_method_sees_them(method, dtype):
    rec = recurrence(dtype)
    sol = rs.solve(rec, method=method)
    assert sol.trusted
    assert sol.states.dtype == dtype
    np.testing.assert_allclose(sol.states, loop(rec), atol=50 * np.finfo(dtype).eps)
    assert sol.error_bound == np.inf  # intervals do not know what indices do


def test_weights_that_they_pick_have_gradients_and_they_have_none():
    rec, c = recurrence(), np.random.default_rng(1).standard_normal((T, B, N))
    sol = rs.solve(rec)
    g = rs.adjoint(sol, states=c)
    E, step = np.array(rec.parameters.E), 1e-6
    for place in ((0, 0), (3, 2), (6, 1)):
        apart = step * (np.indices(E.shape) == np.reshape(place, (2, 1, 1))).all(axis=0)
        up, down = (rs.solve(recurrence(E=E + sign * apart)).states for sign in (1, -1))
        np.testing.assert_allclose(g.parameters.E[place], (c * (up - down)).sum() / (2 * step), rtol=1e-6, atol=1e-8)
    assert [g.inputs[name].dtype for name in ("token", "keep")] == [np.float64] * 2
    assert not g.inputs["token"].any()
    dE, dx = np.ones_like(E), np.zeros((T, B, N))
    moved = rs.tangent(sol, parameters={"E": dE}, inputs={"token": None, "keep": None, "x": dx})
    np.testing.assert_allclose((moved * c).sum(), (g.parameters.E * dE).sum(), rtol=1e-10)
    with pytest.raises(ValueError, match="that input is int64; wanted None"):
        rs.tangent(sol, inputs={"token": np.ones((T, B)), "keep": None, "x": dx})


def test_they_follow_into_windows_sequences_pickles_and_other_dtypes():
    rec = recurrence()
    whole = rs.solve(rec).states
    part = rec.window(5, 20, initial=whole[4])
    assert [u.dtype.kind for u in part.inputs] == ["i", "b", "f"]
    np.testing.assert_allclose(rs.solve(part).states, whole[5:20], atol=1e-14)
    one = rs.solve(rec.sequences(np.array([1]))).states
    np.testing.assert_allclose(one[:, 0], whole[:, 1], atol=1e-14)
    np.testing.assert_array_equal(rs.solve(pickle.loads(pickle.dumps(rec))).states, whole)
    assert [u.dtype.name for u in rec.astype(np.float32).inputs] == ["int64", "bool", "float32"]
    assert rs.check_structure(rec).ok


def test_what_is_real_has_one_dtype():
    with pytest.raises(TypeError, match="dtypes are mixed"):
        rs.Recurrence.from_function(
            embedded,
            inputs={"token": np.zeros((3, B), int), "keep": np.ones((3, B), bool), "x": np.ones((3, B, N))},
            parameters={"E": np.ones((V, N)), "W": np.eye(N)},
            initial=np.zeros((B, N), np.float32),
        )


def test_nodes_of_a_graph_see_theirs():
    kind = np.arange(20).reshape(5, 4) % 3
    rec = rs.Recurrence.from_graph(
        lambda h, u: 0.5 * h[0] + 0.3 * h[1] + np.array([0.1, 0.2, 0.4])[u[..., None]],
        rs.graphs.grid((5, 4)),
        inputs=kind,
        initial=np.zeros(1),
    )
    states = np.zeros((6, 5, 1))
    for i in range(5):
        for j in range(4):
            states[i, j] = 0.5 * states[i - 1, j] + 0.3 * states[i, j - 1] + [0.1, 0.2, 0.4][kind[i, j]]
    np.testing.assert_allclose(rs.solve(rec).states, states[:5, :4], atol=1e-14)


def test_a_history_takes_them_in_any_order():
    tokens, x = np.arange(8) % V, np.linspace(-1, 1, 16).reshape(8, 2)
    E = np.linspace(0, 1, 2 * V).reshape(V, 2)

    def F(y, u):
        return E[u["token"]] + u["x"] + 0.1 * (np.cumsum(y, axis=0) - y)

    one, other = (
        rs.solve(rs.Recurrence.from_history(F, inputs=inputs), method="jacobi")
        for inputs in ({"token": tokens, "x": x}, {"x": x, "token": tokens})
    )
    np.testing.assert_array_equal(one.states, other.states)
    with pytest.raises(TypeError, match=r"initial is None and there are no inputs of real numbers; wanted"):
        rs.Recurrence.from_history(F, inputs={"token": tokens})


def test_an_unknown_name_says_which_there_are():
    rec = rs.Recurrence.from_function(
        lambda s, u: {"a": s["b"]}, inputs=np.ones(3), state={"a": ()}, initial={"a": np.array(0.0)}
    )
    with pytest.raises(KeyError, match=r"no component 'b'; there are \('a',\)"):
        rs.solve(rec)


def test_a_table_of_places_may_be_a_parameter():
    rng = np.random.default_rng(0)
    places, weight = rng.permutation(N), 0.8 * np.ones(N)
    rec = rs.Recurrence.from_function(
        lambda h, u, p: np.tanh(p.weight * h[..., p.places] + u),
        inputs=rng.standard_normal((T, N)),
        initial=np.zeros(N),
        parameters={"places": places, "weight": weight},
        structure=("permutation_diagonal", np.argsort(places)),
    )
    sol = rs.solve(rec)
    assert sol.trusted
    g = rs.adjoint(sol, states=np.ones((T, N)))
    assert g.parameters.places.dtype == np.float64
    assert not g.parameters.places.any()
    assert g.parameters.weight.all()
    assert rec.astype(np.float32).parameters.places.dtype == places.dtype
    with pytest.raises(ValueError, match=r"parameters\['places'\] is given, but that parameter is int64"):
        rs.tangent(sol, parameters={"places": places})
