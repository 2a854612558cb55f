"""Readouts y[t] = g(h[t], u[t], p): what they show, and gradients through them against differences."""

import pickle

import numpy as np
import pytest
from test_gradients import check_slope, solved

import recsolve as rs
from recsolve.gradients import function_gradients
from recsolve.recurrence import readout as readouts

T, K, V = 20, 3, 2


def attend(s, u, p):
    """Gated linear attention: a matrix of keys and values."""
    return {"S": np.tanh(p.a[:, None] * s.S) + u["k"][..., :, None] * u["v"][..., None, :], "m": 0.5 * s.m + p.b}


def query(s, u, p):
    return np.einsum("...kv,...k->...v", s.S, u["k"]) * p.a[0] + s.m[..., None] * u["v"]


def accumulated(s, u, p):
    """numpy.cumsum is differentiated by directions."""
    return np.cumsum(query(s, u, p), axis=-1)


def problem(readout=query, batch=(2,), T=T, dtype=np.float64, kind=lambda x: x, **moved):
    rng = np.random.default_rng(0)

    def draw(name, shape):
        return kind((rng.standard_normal(shape) + moved.get(name, 0.0)).astype(dtype))

    inputs = {"k": draw("k", (T, *batch, K)), "v": draw("v", (T, *batch, V))}
    initial = {"S": draw("S", (*batch, K, V)), "m": draw("m", batch)}
    return rs.Recurrence.from_function(
        attend, inputs=inputs, initial=initial, state={"S": ("k", "v"), "m": ()}, readout=readout,
        parameters={"a": draw("a", K), "b": draw("b", ())}, reset=np.arange(T) == 9,
        structure={("S", "S"): "diagonal", ("m", "m"): "diagonal"},
    )  # fmt: skip


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("readout", [query, accumulated])
def test_gradients_go_through_them(readout, batch, monkeypatch):
    monkeypatch.setattr(function_gradients, "_RECORDED", 60)
    monkeypatch.setattr(readouts, "NUMBERS", 60)  # several windows
    rng = np.random.default_rng(1)
    sol = solved(problem(readout, batch))
    whole = readout(sol.named, sol.recurrence.contain(sol.recurrence.inputs), sol.recurrence.parameters)
    np.testing.assert_array_equal(sol.output, whole)
    c, last = rng.standard_normal(sol.output.shape), rng.standard_normal((*batch, K, V))
    g = rs.adjoint(sol, output=c, final={"S": last})

    def loss(**moved):
        rec = problem(readout, batch, **moved)
        states = rec.bind().walk()
        return float((rec.output(states) * c).sum() + (rec.named(states[-1]).S * last).sum())

    for group in (g.inputs, g.initial, g.parameters):
        for name, gradient in group.items():
            check_slope(gradient, lambda d, name=name: loss(**{name: d}), rng)


@pytest.mark.parametrize("mixing", ["diagonal", "dense"])
def test_cells_have_them_too(mixing):
    """Here the output of all units together, a gate by the drive, and a parameter of the cell."""
    rng = np.random.default_rng(2)
    cell = rs.cells.GRU.random(input_size=3, hidden_size=4, mixing=mixing, rng=0)
    x = rng.standard_normal((12, 2, 3))

    def readout(s, u, p):
        return np.tanh(s.h @ np.arange(8.0).reshape(4, 2)) * u.r.sum(axis=-1, keepdims=True) + p.b_n[:2]

    sol = solved(cell.recurrence(x, readout=readout))
    assert sol.output.shape == (12, 2, 2)
    c = rng.standard_normal(sol.output.shape)
    g = rs.adjoint(sol, output=c)

    def loss(cell=cell, x=x):
        return float((solved(cell.recurrence(x, readout=readout)).output * c).sum())

    check_slope(g.inputs, lambda d: loss(x=x + d), rng)

    def moved(d):
        mixings, parameters = cell.mixings, {"b_n": cell.parameters["b_n"] + d}
        return cell.cell.with_weights(mixings=mixings, parameters=parameters, projection=cell.projection, hidden_size=4)

    if "b_n" in cell.parameters:
        check_slope(g.parameters.b_n, lambda d: loss(cell=moved(d)), rng)
    drive = cell.drive(x)
    given = cell.recurrence(drive=drive, readout=readout)
    check_slope(
        rs.adjoint(solved(given), output=c).drive.r,
        lambda d: float((solved(cell.recurrence(drive={**drive, "r": drive.r + d}, readout=readout)).output * c).sum()),
        rng,
    )
    np.testing.assert_array_equal(given.window(3, 7).output(sol.states[3:7]), sol.output[3:7])


@pytest.mark.parametrize("T", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_short_ones_keep_dtypes(T, dtype):
    sol = solved(problem(T=T, dtype=dtype))
    assert (sol.output.shape, sol.output.dtype) == ((T, 2, V), dtype)
    g = rs.adjoint(sol, output=np.ones_like(sol.output))
    assert {n: (x.shape, x.dtype) for n, x in g.parameters.items()} == {"a": ((K,), dtype), "b": ((), dtype)}


def test_they_follow_into_parts_pickles_other_dtypes_and_kinds():
    torch = pytest.importorskip("torch")
    rec = problem()
    sol = rs.solve(rec, method="windowed")
    copied = pickle.loads(pickle.dumps(sol))
    np.testing.assert_array_equal(copied.output, sol.output)
    np.testing.assert_allclose(solved(rec.sequences(np.array([1]))).output[:, 0], sol.output[:, 1], atol=1e-12)
    np.testing.assert_allclose(rec.astype(np.float32).output(sol.states.astype("f4")), sol.output, atol=1e-4)
    tensors = solved(problem(kind=torch.as_tensor))
    g = rs.adjoint(tensors, output=torch.ones_like(tensors.output))
    assert isinstance(g.parameters.a, torch.Tensor)
    assert isinstance(g.inputs["k"], torch.Tensor)


@pytest.mark.parametrize(
    ("readout", "error", "words"),
    [
        (lambda s, u: s.m, TypeError, r"wanted a callable readout\(h, u_t, p\)"),
        (3, TypeError, "readout is int"),
        (lambda s, u, p: s.S.sum(axis=0), ValueError, r"readout returned shape \(2, 3, 2\); wanted \(20, 2\)"),
        (lambda s, u, p: s.m.astype("f4"), TypeError, "readout returned dtype float32; wanted float64"),
        (lambda s, u, p: 0.0, TypeError, "readout returned float"),
    ],
)
def test_bad_readouts(readout, error, words):
    with pytest.raises(error, match=words):
        _ = solved(problem(readout)).output


def test_a_subclass_that_shows_something_else_has_no_such_gradients():
    sol = solved(problem())
    with pytest.raises(ValueError, match=r"output has shape \(2,\); wanted \(20, 2, 2\)"):
        rs.adjoint(sol, output=np.ones(2))
    shown = type("Shown", (type(sol.recurrence),), {"output": lambda self, states: states})
    sol.recurrence.__class__ = shown
    with pytest.raises(TypeError, match="Shown overrides output"):
        rs.adjoint(sol, output=np.ones_like(sol.output))


def test_tokens_are_read_out_as_real_numbers(monkeypatch):
    monkeypatch.setattr("recsolve.recurrence.readout.NUMBERS", 4)  # in several windows
    E = np.random.default_rng(0).standard_normal((5, 3))
    rec = rs.Recurrence.from_function(
        lambda h, u, p: (2 * h + u) % 5,
        inputs=np.arange(20)[:, None],
        initial=np.zeros(1, int),
        structure="none",
        parameters={"E": E},
        readout=lambda h, u, p: p.E[h[..., 0]],
    )
    sol = rs.solve(rec, method="jacobi")
    np.testing.assert_array_equal(sol.output, E[sol.states[:, 0]])
