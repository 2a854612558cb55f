"""Parameters of a user's function: gradients against differences, by one pass back and by directions."""

import pickle

import numpy as np
import pytest
from random_functions import compose
from test_gradients import check_slope, solved

import recsolve as rs
from recsolve.base.ties import ties_in_force
from recsolve.gradients import function_gradients, reverse
from recsolve.gradients.function_gradients import pull_function
from recsolve.gradients.reverse import Recorded, pull
from recsolve.math import logsumexp, softmax
from recsolve.recurrence.function import FunctionRecurrence


def network(h, u, p):
    return np.tanh(h @ p.W.T * p["gain"] + u @ p.V + p.b)


def products(h, u, p):
    """A function of many operations that have transposes."""
    mixed = np.einsum("ij,...j->...i", p.W, h) + np.einsum("...i,ik", u, p.V)
    rolled = np.roll(np.stack([h[..., 0], *(h[..., i] for i in range(1, 4))], axis=-1), 1, axis=-1)
    norm = np.sqrt(1 + (h * h).sum(axis=-1, keepdims=True)) + np.mean(p.W) + np.sum(p.b, axis=0)
    gate = np.where(h > p.b, np.maximum(rolled, p.b), np.abs(p.b) * h) / norm
    both = np.concatenate([gate[..., 2:], gate[..., [1, 1]]], axis=-1)
    return np.tanh(0.3 * mixed + 0.2 * both * np.swapaxes(p.W, 0, 1)[0] + np.ravel(p.gain) * np.dot(h, p.W) / 9)


def cumulative(h, u, p):
    """numpy.cumsum has no transpose here."""
    return np.cumsum(np.tanh(0.4 * h @ p.W.T + p.b), axis=-1) / 4 * p["gain"] + u @ p.V


FUNCTIONS = [network, products, cumulative]


def problem(f=network, T=9, batch=(2,), dtype=np.float64, kind=lambda x: x, **moved):
    rng = np.random.default_rng(0)
    arrays = {
        "u": rng.standard_normal((T, *batch, 3)),
        "initial": rng.standard_normal((*batch, 4)),
        "W": 0.5 * rng.standard_normal((4, 4)),
        "V": rng.standard_normal((3, 4)),
        "b": rng.standard_normal(4),
        "gain": np.array(0.8),
    }
    arrays = {n: kind((x + moved.get(n, 0.0)).astype(dtype)) for n, x in arrays.items()}
    u, initial = arrays.pop("u"), arrays.pop("initial")
    reset = np.arange(T) == T // 2
    return rs.Recurrence.from_function(f, inputs=u, initial=initial, parameters=arrays, reset=reset)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("f", FUNCTIONS)
def test_gradients_are_those_of_differences(f, batch, monkeypatch):
    monkeypatch.setattr(function_gradients, "_RECORDED", 40)  # several windows
    rng = np.random.default_rng(1)
    rec = problem(f, batch=batch)
    c = rng.standard_normal(rec.shape)
    g = rs.adjoint(solved(rec), states=c)

    def loss(**moved):
        return float((c * problem(f, batch=batch, **moved).bind().walk()).sum())

    for name, gradient in g.parameters.items():
        check_slope(gradient, lambda d, name=name: loss(**{name: d}), rng)
    check_slope(g.inputs, lambda d: loss(u=d), rng)
    check_slope(g.initial, lambda d: loss(initial=d), rng)


@pytest.mark.parametrize("f", FUNCTIONS)
def test_a_pass_back_is_taken_where_all_operations_have_transposes(f, monkeypatch):
    """And gives what directions give."""
    rec = problem(f)
    c = np.random.default_rng(1).standard_normal(rec.shape)
    sol = solved(rec)
    calls = []
    directions = function_gradients._by_directions

    def watched(*args):
        calls.extend(args[-1])
        directions(*args)

    monkeypatch.setattr(function_gradients, "_by_directions", watched)
    back = rs.adjoint(sol, states=c).parameters
    assert bool(calls) == (f is cumulative)

    def refuse(*args):
        raise TypeError

    monkeypatch.setattr(function_gradients, "_by_records", refuse)
    monkeypatch.setattr(function_gradients, "_DIRECTED", 500)  # several at a time
    for name, gradient in rs.adjoint(sol, states=c).parameters.items():
        np.testing.assert_allclose(gradient, back[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(0, 60, 2))
def test_random_functions_go_back_as_they_go_forward(seed):
    """At ties and where parts of them overflow too."""
    rng = np.random.default_rng(seed)
    f = compose(rng, rng.integers(1, 6), False, np.float64)
    h, u, c = rng.standard_normal((3, 4, 2, 3))
    h, u = (np.round(x, seed % 3 * 4) for x in (h, u))
    rec = rs.Recurrence.from_function(
        lambda h, u, p: f(h * p.w, u + p.w[0] * h), inputs=u, initial=np.zeros((2, 3)), structure="diagonal",
        parameters={"w": rng.standard_normal(3)},
    )  # fmt: skip
    found = pull_function(rec, rec.f, h, c, state=True)
    wanted = {function_gradients.STATE: h, ("input", 0): u, ("parameter", "w"): rec.parameters.w}
    with ties_in_force(rec.ties), np.errstate(all="ignore"):
        function_gradients._by_directions(rec, rec.f, h, c, wanted)
    for gradient, other in zip((found.states, *found.inputs, *found.parameters.values()), wanted.values(), strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-9, atol=1e-9)


def test_what_is_not_chosen_may_be_infinite():
    """0 times an infinite slope is NaN, but a selection takes no product with what it leaves."""

    def f(h, u, p):
        return np.minimum(np.exp(p.a * u), 0.5 * h + p.a) + np.where(u > 900, p.a, 1 / (u - 500) ** 3)

    def rec(a):
        return rs.Recurrence.from_function(
            f, inputs=np.full((5, 1), 1000.0), initial=np.zeros(1), parameters={"a": a}, structure="diagonal"
        )

    g = rs.adjoint(solved(rec(np.ones(1))), states=np.ones((5, 1)))
    check_slope(g.parameters.a, lambda d: float(rec(1 + d).bind().walk().sum()), np.random.default_rng(0))
    assert np.isfinite(g.inputs).all()


@pytest.mark.parametrize("f", FUNCTIONS)
def test_tangent_and_adjoint_are_transposes(f):
    rng = np.random.default_rng(2)
    rec = problem(f)
    sol = solved(rec)
    v = {"inputs": rng.standard_normal((9, 2, 3)), "initial": rng.standard_normal((2, 4))}
    v["parameters"] = {n: rng.standard_normal(p.shape) for n, p in rec.parameters.items()}
    c = rng.standard_normal(rec.shape)
    g = rs.adjoint(sol, states=c)
    backward = sum(float((g.parameters[n] * x).sum()) for n, x in v["parameters"].items())
    backward += float((g.inputs * v["inputs"]).sum() + (g.initial * v["initial"]).sum())
    assert float((c * rs.tangent(sol, **v)).sum()) == pytest.approx(backward, rel=1e-10)


X, Y, M = (np.random.default_rng(3).standard_normal(s) for s in ((3, 2, 4), (4,), (4, 4)))
OPERATIONS = {
    "matmul of one matrix for many": lambda x, y, m: m @ x[..., None],
    "matmul of vectors": lambda x, y, m: y @ y + y @ m + m @ y,
    "matmul of many": lambda x, y, m: x @ np.swapaxes(x, -1, -2),
    "matmul that broadcasts": lambda x, y, m: x[:1] @ np.expand_dims(m, 0) + x @ m,
    "einsum, implicit": lambda x, y, m: np.einsum("ij,jk", m, m) @ y,
    "einsum with a sum of its own": lambda x, y, m: np.einsum("abc,dc->ad", x, m),
    "einsum that broadcasts": lambda x, y, m: np.einsum("...c,...c->...", x, x[:1]),
    "dot": lambda x, y, m: np.dot(x, m) + np.dot(x, y)[..., None],
    "moved": lambda x, y, m: np.moveaxis(np.flip(x, 1), 0, -1)[..., ::-1] * np.transpose(x, (1, 2, 0)),
    "picked twice": lambda x, y, m: np.take(x, [0, 0, 3], axis=-1) + np.repeat(x, 3, axis=0)[::3, :, [1, 1, 2]],
    "tiled": lambda x, y, m: np.tile(y, 2) * np.hstack([y, m[0]]) + np.vstack([y, y]).reshape(8),
    "summed": lambda x, y, m: x.sum(axis=(0, -1)) + np.mean(x, axis=0).sum(-1) + x.mean(keepdims=True)[0, 0],
    "broadcast": lambda x, y, m: np.broadcast_to(y, (2, 4)) ** 2 + np.diagonal(m) * x.T.swapaxes(0, 2)[0],
    "softmax": lambda x, y, m: softmax(x) @ m + softmax(m, axis=0)[0] * logsumexp(100 * x, keepdims=True),
    "ties": lambda x, y, m: np.minimum(y, y[:1]) + np.maximum(m, 0.0) + np.clip(x[0, :1], -0.5, 0.5),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_go_back_as_differences_say(name):
    f, arrays = OPERATIONS[name], (X, Y, M)
    leaves = [Recorded(x, moves=True) for x in arrays]
    out = f(*leaves)
    np.testing.assert_array_equal(out.value, f(*arrays))
    rng = np.random.default_rng(0)
    c = rng.standard_normal(out.shape)
    for i, gradient in enumerate(pull([(out, c)], leaves)):
        moved = lambda d, i=i: [x + d if i == j else x for j, x in enumerate(arrays)]  # noqa: E731
        check_slope(gradient, lambda d, moved=moved: float((c * f(*moved(d))).sum()), rng)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.cumsum(x),
        lambda x: np.linalg.norm(x),
        lambda x: np.take(Y, x.astype(int)),
        lambda x: np.einsum("ii->i", x),
        lambda x: np.sum(x, where=x.value > 0),
        lambda x: np.multiply(x, 2, where=True),
        lambda x: np.asarray(x),
    ],
)
def test_what_has_no_transpose_says_so(f):
    with pytest.raises((TypeError, AttributeError)):
        f(Recorded(M, moves=True))


@pytest.mark.parametrize("T", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_short_ones_keep_dtypes(T, dtype):
    rec = problem(T=T, dtype=dtype)
    g = rs.adjoint(solved(rec), states=np.ones(rec.shape, dtype))
    assert {n: (x.shape, x.dtype) for n, x in g.parameters.items()} == {
        n: (x.shape, x.dtype) for n, x in rec.parameters.items()
    }
    if T == 0:
        assert all((x == 0).all() for x in g.parameters.values())


def test_parameters_follow_into_windows_sequences_pickles_and_other_dtypes():
    rec = problem(T=40)
    whole = solved(rec).states
    np.testing.assert_allclose(solved(rec, "windowed").states, whole, atol=1e-12)
    np.testing.assert_allclose(solved(rec.sequences(np.array([1]))).states[:, 0], whole[:, 1], atol=1e-12)
    np.testing.assert_allclose(solved(rec.window(0, 7)).states, whole[:7], atol=1e-12)
    copied = pickle.loads(pickle.dumps(rec))
    np.testing.assert_array_equal(solved(copied).states, whole)
    assert rec.astype(np.float32).parameters.W.dtype == np.float32
    sol = solved(rec)
    assert sol.trusted
    assert rs.check_structure(rec).ok
    assert np.isfinite(sol.error_bound)
    with pytest.raises(ValueError, match="read-only"):
        rec.parameters.W[...] = 0


def test_tensors_give_tensors():
    torch = pytest.importorskip("torch")
    rec = problem(kind=torch.as_tensor)
    g = rs.adjoint(solved(rec), states=torch.ones(rec.shape, dtype=torch.float64))
    assert isinstance(g.parameters.W, torch.Tensor)
    assert isinstance(solved(rec.window(1, 3)).states, torch.Tensor)


def test_a_declared_jacobian_gets_parameters():
    p, u = {"a": np.array([0.5, 0.25])}, np.ones((6, 2))
    rec = rs.Recurrence.from_function(
        lambda h, u, p: p.a * h + u, inputs=u, initial=np.zeros(2), parameters=p, structure="diagonal",
        jacobian=lambda h, u, p: p.a,
    )  # fmt: skip
    assert solved(rec).nit == 1
    check_slope(
        rs.adjoint(solved(rec), states=np.ones((6, 2))).parameters.a,
        lambda d: float(
            rs.Recurrence.from_function(
                lambda h, u, p: p.a * h + u, inputs=u, initial=np.zeros(2), parameters={"a": p["a"] + d}
            )
            .bind()
            .walk()
            .sum()
        ),
        np.random.default_rng(0),
    )


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"parameters": [1.0]}, TypeError, "parameters is list; wanted a dict"),
        ({"parameters": {"keys": np.ones(2)}}, ValueError, r"parameters has the names \['keys'\]"),
        ({"parameters": {"W": np.ones(2, "f4")}}, TypeError, r"parameters\['W'\] is float32"),
        ({"parameters": {"W": np.ones(2, complex)}}, TypeError, r"parameters\['W'\] has dtype complex128"),
        ({"parameters": {}, "f": lambda h, u: h}, TypeError, r"wanted a callable f\(h_prev, u_t, p\)"),
        ({"f": lambda h, u, p: h}, TypeError, r"wanted a callable f\(h_prev, u_t\)"),
    ],
)
def test_bad_parameters(given, error, words):
    given = {"f": lambda h, u, p: h, "inputs": np.ones((3, 2)), "initial": np.ones(2)} | given
    with pytest.raises(error, match=words):
        rs.Recurrence.from_function(given.pop("f"), **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"parameters": {"Q": np.ones(3)}}, "parameters has 'Q'"),
        ({"parameters": {"b": np.ones(3)}}, r"parameters\['b'\] has shape"),
        ({"inputs": (np.ones(3),)}, r"inputs has \('inputs\[0\]',\)"),
        ({"mixings": {"W": np.ones(3)}}, "mixings belong to cells"),
    ],
)
def test_bad_tangents(given, words):
    with pytest.raises(ValueError, match=words):
        rs.tangent(solved(problem()), **given)


def test_nothing_is_recorded_but_what_leads_to_leaves():
    x = reverse.RecordedState(np.ones((2, 3)))
    assert (np.tanh(x) * 2).sources == []


def test_a_subclass_is_itself_in_another_dtype():
    class Doubled(FunctionRecurrence):
        def apply(self, previous):
            return 2 * super().apply(previous)

        def step(self, state, t):
            return 2 * super().step(state, t)

    rec = rs.Recurrence.from_function(lambda h, u: 0.2 * h + u, inputs=np.ones((6, 1)), initial=np.zeros(1))
    rec.__class__ = Doubled
    single = rec.astype(np.float32)
    wanted = rs.solve(rec, method="sequential").states
    np.testing.assert_allclose(rs.solve(single, method="sequential").states, wanted, rtol=1e-6)
