"""Histories with parameters, named states and readouts, against a literal loop over rows."""

import pickle

import cuda_host
import numpy as np
import pytest
from cuda_host import simulated
from test_gradients import check_slope
from test_graph_forms import Entries

import recsolve as rs

S = rs.solvers
D, K = 3, 2


def before(x):
    """Return the sums of the rows before every row, by operations that can be transposed."""
    return np.einsum("ts,s...->t...", np.tri(len(x), len(x), -1, dtype=x.dtype), x)


def attention(y, x, p):
    """A layer that attends to its own outputs."""
    scores = np.einsum("tbd,sbd->bts", x @ p.Q, y @ p.K)
    weight = np.exp(0.3 * scores) * np.tri(len(y), len(y), -1, dtype=y.dtype)
    mixed = np.einsum("bts,sbd->tbd", weight / (weight.sum(axis=-1, keepdims=True) + 1), y)
    return np.tanh(x + 0.5 * mixed * p.gain)


class Memory:
    """A vector and a matrix, each of which sees sums of both; with a cache."""

    def __call__(self, y, u, p):
        return self.window(None, y, u, p)

    def window(self, cache, y, u, p):
        m, C = before(y.m), before(y.C)
        if cache is not None:
            m, C = cache[0] + m, cache[1] + C
        read = np.einsum("...kd,...d->...k", C, u["x"])
        write = u["x"][..., None, :] * np.tanh(0.2 * m + p.b)[..., :, None]
        return {"m": np.tanh(0.3 * read + p.b * m), "C": 0.4 * write + 0.1 * np.sin(C) * p.gain}

    def extend(self, cache, y, u, p):
        own = y.m.sum(axis=0), y.C.sum(axis=0)
        return own if cache is None else tuple(a + b for a, b in zip(cache, own, strict=True))


def uncached(y, u, p):
    return tuple(Memory()(y, u, p)[n] for n in ("m", "C"))


def mixing(y, u, p):
    """A readout of which every row sees all rows up to its own."""
    m = y.m if hasattr(y, "m") else y[..., :K]
    return (before(m) + m)[..., :1] * p.gain + m


HISTORIES = {"attention": attention, "memory": Memory(), "no cache": uncached}
STATE = {"m": ("k",), "C": ("k", "d")}


def arrays(name, T=9, batch=(2,), dtype=np.float64, **moved):
    rng = np.random.default_rng(0)

    def draw(name, *shape, scale=1.0):
        return (scale * rng.standard_normal(shape) + moved.get(name, 0.0)).astype(dtype)

    x = draw("x", T, *batch, D)
    if name == "attention":
        return x, None, {"Q": draw("Q", D, D), "K": draw("K", D, D), "gain": draw("gain")}
    initial = {"m": np.zeros((*batch, K), dtype), "C": np.zeros((*batch, K, D), dtype)}
    return {"x": x}, initial, {"b": draw("b", K, scale=0.3), "gain": draw("gain")}


def made(name, F=None, kind=lambda x: x, given=None, **options):
    x, initial, parameters = arrays(name, **options)
    x, initial, parameters = (
        {n: kind(a) for n, a in group.items()} if isinstance(group, dict) else group if group is None else kind(group)
        for group in (x, initial, parameters)
    )
    state = {} if initial is None else {"state": STATE, "initial": initial}
    return rs.Recurrence.from_history(
        HISTORIES[name] if F is None else F, inputs=x, parameters=parameters, readout=mixing, **state, **given or {}
    )


def literal(name, **options):
    """Return the rows by name, each from F of those before it, and what is read out of all of them."""
    x, initial, parameters = arrays(name, **options)
    F, p = HISTORIES[name], Entries(parameters)
    leaf = x if initial is None else x["x"]
    like = {"y": leaf[:0]} if initial is None else {n: a[None][:0] for n, a in initial.items()}
    rows = {n: np.zeros((len(leaf), *a.shape[1:]), a.dtype) for n, a in like.items()}

    def seen(stop):
        part = {n: a[:stop] for n, a in rows.items()}
        return part["y"] if initial is None else Entries(part)

    for t in range(len(leaf)):
        out = F(seen(t + 1), leaf[: t + 1] if initial is None else {"x": leaf[: t + 1]}, p)
        parts = [out] if initial is None else out.values() if isinstance(out, dict) else out
        for a, found in zip(rows.values(), parts, strict=True):
            a[t] = found[t]
    return rows, mixing(seen(len(leaf)), x, p)


def flat(rows):
    """Return named rows as states are stored."""
    if "y" in rows:
        return rows["y"]
    return np.concatenate([rows["m"], rows["C"].reshape(*rows["m"].shape[:-1], K * D)], axis=-1)


def solved(rec, method="jacobi"):
    sol = rs.solve(rec, method=method, tol=1e-14 if rec.dtype == np.float64 else None)
    assert sol.success, sol
    return sol


@pytest.mark.parametrize("name", HISTORIES)
def test_every_method_that_applies_equals_the_literal_loop(name):
    for T, batch, dtype in ((9, (2,), np.float64), (9, (2,), np.float32), (0, (2,), np.float64), (1, (1,), np.float64)):
        rec, (rows, shown) = made(name, T=T, batch=batch, dtype=dtype), literal(name, T=T, batch=batch, dtype=dtype)
        wanted = flat(rows)
        windows = [S.Windowed(solver=inner, window=4) for inner in ("jacobi", "newton_krylov")]
        for method in [*sorted(rec.applies - {"chain"}), *windows]:
            sol = rs.solve(rec, method=method)
            assert sol.success, sol
            assert sol.output.dtype == dtype
            np.testing.assert_allclose(sol.states, wanted, rtol=0, atol=100 * np.finfo(dtype).eps)
            np.testing.assert_allclose(sol.output, shown, rtol=0, atol=2e3 * np.finfo(dtype).eps)
            if name != "attention":
                np.testing.assert_allclose(sol.named.C, rows["C"], rtol=0, atol=100 * np.finfo(dtype).eps)
                assert sol.named_final.m.shape == (*batch, K)


def test_states_without_a_batch():
    rec, (rows, shown) = made("memory", batch=()), literal("memory", batch=())
    np.testing.assert_allclose(solved(rec).states, flat(rows), atol=1e-14)
    np.testing.assert_allclose(solved(rec).output, shown, atol=1e-13)


@pytest.mark.parametrize("name", HISTORIES)
def test_gradients_are_those_of_differences_and_transposes_of_tangents(name):
    rng = np.random.default_rng(1)
    rec = made(name)
    sol = solved(rec)
    c, at = rng.standard_normal(sol.output.shape), rng.standard_normal(rec.shape)
    g = rs.adjoint(sol, output=c, states=at)

    def loss(**moved):
        rows, shown = literal(name, **moved)
        return float((shown * c).sum() + (flat(rows) * at).sum())

    inputs = {"x": g.inputs if name == "attention" else g.inputs["x"]}
    for n, gradient in (*inputs.items(), *g.parameters.items()):
        check_slope(gradient, lambda d, n=n: loss(**{n: d}), rng)
    dx = rng.standard_normal(inputs["x"].shape)
    v = {"parameters": {n: rng.standard_normal(x.shape) for n, x in g.parameters.items()}}
    v |= {"inputs": dx if name == "attention" else {"x": dx}, "states": rng.standard_normal(rec.shape)}
    back = rs.adjoint(sol, states=at)
    wanted = sum(float((back.parameters[n] * x).sum()) for n, x in v["parameters"].items())
    wanted += float((dx * (back.inputs if name == "attention" else back.inputs["x"])).sum())
    wanted += float((back.states * v["states"]).sum())
    assert float((rs.tangent(sol, **v) * at).sum()) == pytest.approx(wanted, rel=1e-10)
    if name != "attention":
        by_name = rs.adjoint(sol, final={"m": at[-1, :, :K]})
        given = np.zeros_like(at)
        given[-1, :, :K] = at[-1, :, :K]
        np.testing.assert_allclose(by_name.inputs["x"], rs.adjoint(sol, states=given).inputs["x"], atol=1e-13)
        assert {n: x.shape for n, x in by_name.initial.items()} == {"m": (2, K), "C": (2, K, D)}
        moved = {"m": rng.standard_normal((9, 2, K))}
        along = rs.tangent(sol, states=moved)
        np.testing.assert_allclose((along * at).sum(), (back.named.m * moved["m"]).sum(), rtol=1e-10)


@pytest.mark.parametrize("name", HISTORIES)
def test_gradients_of_a_window_are_those_of_its_rows(name):
    """The rows before it are given; its inputs are its own."""
    rng, cut = np.random.default_rng(2), 5
    states = solved(made(name)).states

    def part(**moved):
        rec = made(name, **moved)
        settled = states[:cut]
        return rec.window(cut, 9, initial=settled if name == "attention" else dict(rec.named(settled)))

    sol = solved(part())
    np.testing.assert_allclose(sol.states, states[cut:], atol=1e-13)
    np.testing.assert_allclose(sol.output, literal(name)[1][cut:], atol=1e-12)
    c = rng.standard_normal(sol.output.shape)
    g = rs.adjoint(sol, output=c)

    def loss(d):
        x = np.concatenate([np.zeros((cut, 2, D)), d])
        return float((solved(part(x=x)).output * c).sum())

    check_slope(g.inputs if name == "attention" else g.inputs["x"], loss, rng)


# A pullback of the user's ---------------------------------------------------------------------------------------------


class Pulled(Memory):
    """With the transposed derivative of F by hand."""

    wrong, kept = {}, 3

    def pull(self, y, u, g, p):
        x, m, C = u["x"], before(y.m), before(y.C)
        read, gate = np.einsum("...kd,...d->...k", C, x), np.tanh(0.2 * m + p.b)
        inner = g.m * (1 - np.tanh(0.3 * read + p.b * m) ** 2)
        slope = 0.4 * np.einsum("...kd,...d->...k", g.C, x) * (1 - gate**2)
        to_m = p.b * inner + 0.2 * slope
        to_C = 0.3 * inner[..., None] * x[..., None, :] + 0.1 * p.gain * np.cos(C) * g.C
        to_x = 0.3 * np.einsum("...k,...kd->...d", inner, C) + 0.4 * np.einsum("...kd,...k->...d", g.C, gate)
        to_b = (inner * m + slope).sum(axis=tuple(range(m.ndim - 1)))
        given = {"y": {"m": self.after(to_m), "C": self.after(to_C)}, "u": {"x": to_x}}
        given["p"] = {"b": to_b, "gain": (0.1 * np.sin(C) * g.C).sum()}
        return tuple((given | self.wrong).values())[: self.kept]

    @staticmethod
    def after(x):
        return before(x[::-1])[::-1]


def opaque(self, cache, y, u, p):
    """A window that automatic differentiation cannot follow."""
    plain = Entries({n: np.array(np.asarray(x).tolist()).reshape(x.shape) for n, x in y.items()})
    return Memory.window(self, cache, plain, u, p)


def pulled(kept=3, window=Memory.window, **wrong):
    return type("Pulled", (Pulled,), {"wrong": wrong, "kept": kept, "window": window})()


@pytest.mark.parametrize("window", [Memory.window, opaque])
def test_a_pullback_gives_what_the_pass_back_gives(window):
    sol, other = solved(made("memory", pulled(window=window))), solved(made("memory"))
    c = np.random.default_rng(3).standard_normal(sol.output.shape)
    found, wanted = rs.adjoint(sol, output=c), rs.adjoint(other, output=c)
    np.testing.assert_allclose(found.states, wanted.states, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.inputs["x"], wanted.inputs["x"], rtol=1e-10, atol=1e-12)
    for n, x in wanted.parameters.items():
        np.testing.assert_allclose(found.parameters[n], x, rtol=1e-10)


def test_a_pullback_beside_a_mask_of_infinities():
    class Masked:
        def __call__(self, y, u):
            scores = np.where(np.tri(len(y), len(y), -1, dtype=bool), u["mask"][None], -np.inf)
            return u["x"] + 0.3 * np.exp(scores) @ y

        def pull(self, y, u, g):
            weight = 0.3 * np.exp(np.where(np.tri(len(y), len(y), -1, dtype=bool), u["mask"][None], -np.inf))
            return weight.T @ g, {"x": g, "mask": ((weight.T @ g) * y).sum(axis=1)}

    rng = np.random.default_rng(5)
    mask = np.where(rng.random(9) < 0.3, -np.inf, rng.standard_normal(9))
    sol = solved(rs.Recurrence.from_history(Masked(), inputs={"x": rng.standard_normal((9, D)), "mask": mask}))
    assert np.isfinite(rs.adjoint(sol, states=np.ones((9, D))).inputs["mask"]).all()


class Rectified:
    """With kinks at inputs and parameters that are 0, where the pullback takes a slope of its own."""

    def __init__(self, slope):
        self.slope = slope

    def __call__(self, y, u, p):
        return np.maximum(u["x"] + p.b, 0) + 0.2 * np.tanh(before(y)) * p.b[:1]

    def pull(self, y, u, g, p):
        x = u["x"] + p.b
        back = g * np.where(x > 0, 1, np.where(x == 0, self.slope, 0))
        to_y = 0.2 * g * (1 - np.tanh(before(y)) ** 2) * p.b[:1]
        to_b = back.sum(axis=0) + np.eye(D)[0] * (0.2 * g * np.tanh(before(y))).sum()
        return before(to_y[::-1])[::-1], {"x": back}, {"b": to_b}


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0, 1.5])
def test_a_pullback_may_choose_between_the_slopes_of_a_kink(slope):
    x = np.round(np.random.default_rng(6).standard_normal((9, D)))
    given = {"inputs": {"x": x}, "parameters": {"b": np.zeros(D)}}
    sol = solved(rs.Recurrence.from_history(Rectified(slope), **given))
    if slope <= 1:
        assert rs.adjoint(sol, states=np.ones((9, D))).parameters.b.shape == (D,)
        return
    with pytest.raises(ValueError, match="not the transpose of the derivative of F with respect to u"):
        rs.adjoint(sol, states=np.ones((9, D)))


def test_a_pullback_may_leave_out_the_parameters():
    g = rs.adjoint(solved(made("memory", pulled(kept=2))), states=np.ones((9, 2, K + K * D)))
    np.testing.assert_allclose(
        g.inputs["x"], rs.adjoint(solved(made("memory")), states=np.ones((9, 2, K + K * D))).inputs["x"], atol=1e-12
    )
    with pytest.raises(TypeError, match="returned the cotangents of y and u alone; wanted those of p"):
        _ = g.parameters


ZERO = {"m": np.zeros((9, 2, K)), "C": np.zeros((9, 2, K, D))}
X = np.zeros((9, 2, D))
P = {"b": np.zeros(K), "gain": np.zeros(())}


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"y": ZERO}, ValueError, "pull is not the transpose of the derivative of F with respect to y"),
        ({"u": {"x": X}}, ValueError, "pull is not the transpose of the derivative of F with respect to u"),
        ({"p": P}, ValueError, "pull is not the transpose of the derivative of F with respect to p"),
        ({"y": ZERO["m"]}, TypeError, "pull returned ndarray; wanted a dict or tuple of components"),
        ({"y": {"m": ZERO["m"]}}, ValueError, r"pull returned components \('m',\)"),
        (
            {"y": ZERO | {"C": ZERO["m"]}},
            ValueError,
            r"cotangent of component 'C' of shape \(9, 2, 2\)",
        ),
        ({"y": ZERO | {"m": ZERO["m"].astype("f4")}}, TypeError, "a cotangent of component 'm' of dtype float32"),
        ({"u": X}, ValueError, r"what pull returned for the inputs has \('inputs',\); wanted"),
        ({"u": None}, ValueError, "pull returned None for the inputs"),
        ({"u": {"x": X[1:]}}, ValueError, r"pull returned a cotangent of inputs\['x'\] of shape \(8, 2, 3\)"),
        ({"u": {"x": X.astype("f4")}}, TypeError, r"pull returned a cotangent of inputs\['x'\] of dtype float32"),
        ({"p": [1]}, ValueError, "pull returned list for p; wanted a dict of the cotangents of"),
        ({"p": {"b": P["b"]}}, ValueError, r"pull returned \('b',\) for p; wanted a dict"),
        ({"p": P | {"b": np.zeros(3)}}, ValueError, r"pull returned a cotangent of parameters\['b'\] of shape \(3,\)"),
        ({"q": 0.0, "kept": 4}, TypeError, "pull returned 4; wanted a tuple of the cotangents of y and of u"),
        ({"kept": 1}, TypeError, "pull returned 1; wanted a tuple"),
    ],
)
@pytest.mark.parametrize("window", [Memory.window, opaque])
def test_bad_pullbacks(window, wrong, error, words):
    sol = solved(made("memory", pulled(window=window, **wrong)))
    with pytest.raises(error, match=words):
        rs.adjoint(sol, states=np.ones((9, 2, K + K * D)))


def test_what_has_no_transpose_says_so():
    def ranked(y, x, p):
        return x + 0.3 * np.sort(before(y), axis=-1) * p.gain

    given = {"inputs": np.ones((9, D)), "parameters": {"gain": np.ones(D)}}
    sol = solved(rs.Recurrence.from_history(ranked, **given))
    with pytest.raises(TypeError, match=r"ranked cannot be differentiated backwards .* and has no pull\(y, u, g\)"):
        rs.adjoint(sol, states=np.ones((9, D)))
    rec = rs.Recurrence.from_history(lambda y, x, p: x + 0.1 * before(y), readout=ranked, **given)
    with pytest.raises(TypeError, match="readout cannot be differentiated backwards"):
        rs.adjoint(solved(rec), output=np.ones((9, D)))


# Parts, copies and kinds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HISTORIES)
def test_they_follow_into_parts_pickles_dtypes_and_guesses(name):
    rec = made(name)
    sol = solved(rec)
    copied = pickle.loads(pickle.dumps(sol))
    np.testing.assert_array_equal(copied.output, sol.output)
    np.testing.assert_array_equal(
        rs.adjoint(copied, output=sol.output).states, rs.adjoint(sol, output=sol.output).states
    )
    one = solved(rec.sequences(np.array([1])))
    np.testing.assert_allclose(one.output[:, 0], sol.output[:, 1], atol=1e-13)
    single = solved(rec.astype(np.float32))
    assert single.output.dtype == single.recurrence.parameters.gain.dtype == np.float32
    np.testing.assert_allclose(single.output, sol.output, atol=1e-4)
    np.testing.assert_allclose(solved(rec.window(0, 4)).states, sol.states[:4], atol=1e-13)
    assert rs.check_structure(rec).ok
    if name != "attention":
        assert rs.solve(rec, method="jacobi", guess=dict(sol.named)).nit == 0
        with pytest.raises(ValueError, match=r"initial has components \('m',\); wanted \('m', 'C'\)"):
            rec.window(4, 9, initial={"m": sol.named.m[:4]})
        with pytest.raises(ValueError, match=r"initial\['C'\] has shape"):
            rec.window(4, 9, initial={"m": sol.named.m[:4], "C": sol.named.C[:3]})


def test_a_subclass_stays_what_it_is_in_another_dtype():
    rec = made("attention")
    rec.__class__ = type("Own", (type(rec),), {})
    assert type(rec.astype(np.float32)).__name__ == "Own"


def test_tokens_with_weights_and_a_place_by_name():
    """Greedy decoding, where the state holds a token and how often it has come."""
    rng = np.random.default_rng(0)
    weights = {"E": rng.standard_normal((8, D)), "R": rng.standard_normal((8, D))}

    def decode(y, x, p):
        token = np.argmax(np.tanh(before(p.E[y.token]) + x) @ p.R.T, axis=-1)
        again = y.token[None, :] == token[:, None]
        return {"token": token, "count": (again & np.tri(len(token), len(token), -1, dtype=bool)).sum(axis=1)}

    x = rng.standard_normal((30, D))
    rec = rs.Recurrence.from_history(
        decode, inputs=x, parameters=weights, structure="none", state={"token": (), "count": ()},
        initial={"token": np.array(0), "count": np.array(0)}, readout=lambda y, x, p: p.E[y.token],
    )  # fmt: skip
    tokens, counts = [], []
    for t in range(30):
        seen = sum((weights["E"][k] for k in tokens), np.zeros(D))
        token = int(np.argmax(np.tanh(seen + x[t]) @ weights["R"].T))
        counts.append(tokens.count(token))
        tokens.append(token)
    for method in sorted(rec.applies - {"chain"}):
        sol = rs.solve(rec, method=method)
        assert sol.trusted
        assert sol.named.token.tolist() == tokens
        assert sol.named.count.tolist() == counts
        np.testing.assert_array_equal(sol.output, weights["E"][tokens])


def test_tensors_give_tensors():
    torch = pytest.importorskip("torch")
    sol = solved(made("memory", kind=torch.as_tensor))
    g = rs.adjoint(sol, output=torch.ones_like(sol.output))
    for x in (sol.output, sol.named.C, g.initial.m, g.inputs["x"], g.parameters.b):
        assert isinstance(x, torch.Tensor)
    np.testing.assert_allclose(sol.output.numpy(), solved(made("memory")).output, atol=1e-13)


# Wrong arguments ------------------------------------------------------------------------------------------------------

GIVEN = {"inputs": {"x": X}, "parameters": P, "state": STATE, "initial": {n: x[0] for n, x in ZERO.items()}}


class Half(Memory):
    def window(self, cache, y, u):
        return super().window(cache, y, u, P)


@pytest.mark.parametrize(
    ("F", "given", "error", "words"),
    [
        (lambda y, u: y, {}, TypeError, r"F takes \(y, u\); wanted a callable F\(y, u, p\)"),
        (Half(), {}, TypeError, r"F.window takes \(cache, y, u\); wanted a callable F.window\(cache, y, u, p\)"),
        (type("Pull", (Memory,), {"pull": lambda self, y, u, g: y})(), {}, TypeError, r"F.pull takes \(y, u, g\)"),
        (Memory(), {"parameters": [1]}, TypeError, "parameters is list; wanted a dict"),
        (Memory(), {"parameters": {"b": np.ones(2, "f4")}}, TypeError, r"parameters\['b'\] is float32"),
        (Memory(), {"state": ["m"]}, TypeError, "state is "),
        (Memory(), {"initial": None}, TypeError, "initial is None; wanted a dict of components, as state is"),
        (Memory(), {"initial": np.ones((2, 8))}, TypeError, "initial is ndarray; wanted a dict of components"),
        (Memory(), {"initial": {"m": np.ones((2, K))}}, ValueError, r"initial has components \('m',\)"),
        (Memory(), {"structure": {("m", "m"): "dense"}}, ValueError, "wanted dense or none"),
        (lambda y, u, p: y.m, {}, TypeError, "f returned ndarray; wanted a dict or tuple of components"),
        (lambda y, u, p: (y.m, y.m), {}, ValueError, r"f returned component 'C' of shape \(9, 2, 2\)"),
        (Memory(), {"readout": 3}, TypeError, "readout is int"),
        (Memory(), {"readout": lambda y, u: y.m}, TypeError, r"wanted a callable readout\(h, u_t, p\)"),
        (Memory(), {"readout": lambda y, u, p: y.m[1:]}, ValueError, r"readout returned shape \(8, 2, 2\)"),
        (Memory(), {"readout": lambda y, u, p: y.m.astype("f4")}, TypeError, "readout returned dtype float32"),
        (lambda y, u, p: {"m": y.m, "C": before(y.C)}, {}, ValueError, "is not strictly causal"),
    ],
)
def test_bad_arguments(F, given, error, words):
    with pytest.raises(error, match=words):
        _ = rs.solve(rs.Recurrence.from_history(F, **GIVEN | given), method="jacobi").output


def test_bad_tangents():
    sol = solved(made("memory"))
    for given, error, words in [
        ({"initial": {"m": np.ones((2, K))}}, ValueError, "a history does not depend on it"),
        ({"parameters": {"q": np.ones(2)}}, ValueError, "parameters has 'q'"),
        ({"parameters": {"b": np.ones(3)}}, ValueError, r"parameters\['b'\] has shape"),
        ({"inputs": X}, ValueError, "inputs has"),
        ({"states": {"q": X}}, ValueError, "states has 'q'"),
        ({"drive": {"x": X}}, ValueError, "drive belong to cells"),
    ]:
        with pytest.raises(error, match=words):
            rs.tangent(sol, **given)
    sol = solved(made("memory", pulled(window=opaque)))
    with pytest.raises(TypeError):
        rs.tangent(sol, parameters={"b": np.ones(K)})


# On a GPU -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
def test_arrays_on_a_gpu():
    with simulated.gpu() as put:
        on_a_device(put)


@pytest.mark.gpu
def test_arrays_on_a_device():
    import cupy

    on_a_device(cupy.asarray)


def on_a_device(put):
    """Solve and differentiate there, and compare with the host."""
    for name, F in (("memory", None), ("no cache", uncached), ("memory", pulled())):
        here = solved(made(name))
        c = np.random.default_rng(1).standard_normal(here.output.shape)
        wanted, there = rs.adjoint(here, output=c), made(name, F, kind=put)
        for method in ("jacobi", "windowed", "sequential"):
            sol = rs.solve(there, method=method)
            assert sol.success
            np.testing.assert_allclose(sol.output.get(), here.output, rtol=1e-12, atol=1e-12)
        found = rs.adjoint(sol, output=put(c))
        np.testing.assert_allclose(found.inputs["x"].get(), wanted.inputs["x"], rtol=1e-10, atol=1e-12)
        for n, x in found.parameters.items():
            np.testing.assert_allclose(x.get(), wanted.parameters[n], rtol=1e-10, atol=1e-12)
