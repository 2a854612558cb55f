"""Named states of different shapes: what they compute is what the same function on a packed state computes."""

import pickle
from functools import partial

import gallery
import numpy as np
import pytest
from test_gradients import check_slope, solved

import recsolve as rs
from recsolve.base.named_state import NamedState
from recsolve.jacobians.pattern import Pattern

T, K, V = 24, 3, 2
MIX = np.array([[0.1, 0.4], [-0.3, 0.2]])


def aaren(s, u):
    """Attention as a recurrence (arXiv 2405.13956): a scalar maximum beside a vector."""
    m = np.maximum(s.m, u["s"])
    kept, new = np.exp(s.m - m), np.exp(u["s"] - m)
    return {"m": m, "c": kept * s.c + new, "a": kept[..., None] * s.a + new[..., None] * u["v"]}


def titans(s, u):
    """A memory with momentum and decay (arXiv 2501.00663): rows of M couple, its columns do not."""
    error = np.einsum("...k,...kv->...v", u["k"], s.M) - u["v"]
    S = 0.5 * s.S - 0.2 * u["k"][..., :, None] * np.tanh(error)[..., None, :]
    return S, 0.9 * s.M + S


def gated(s, u):
    """A matrix with a state of its own for each row, and a vector that sees all of it."""
    n = np.tanh(s.n + u["k"])
    C = np.tanh(s.C * n[..., None] + s.C @ MIX.astype(s.C.dtype) + u["v"][..., None, :])
    return {"C": C, "n": n, "h": np.tanh(C.sum(axis=-2) + 0.5 * s.h[..., ::-1])}


def square(s, u):
    """Two axes of one name, and a circle of dependence."""
    W = 0.8 * s.W + 0.1 * np.sin(s.x)[..., None, :] * u["k"][..., :, None]
    return {"x": np.tanh(np.einsum("...ij,...j->...i", s.W, s.x)), "W": W}


STATES = {
    aaren: {"m": (), "c": (), "a": ("v",)},
    titans: {"S": ("k", "v"), "M": ("k", "v")},
    gated: {"C": ("k", "v"), "n": ("k",), "h": ("v",)},
    square: {"x": ("k",), "W": ("k", "k")},
}
PAIRS = {
    aaren: {
        ("m", "m"): "diagonal", ("c", "c"): "diagonal", ("c", "m"): "diagonal", ("a", "a"): "diagonal", ("a", "m"): (),
    },
    titans: {
        ("S", "S"): "diagonal", ("S", "M"): ("v",), ("M", "S"): "diagonal", ("M", "M"): ("v",),
    },
    gated: {
        ("C", "C"): ("k",), ("C", "n"): "diagonal", ("n", "n"): "diagonal", ("h", "h"): "dense", ("h", "C"): "dense",
        ("h", "n"): "dense",
    },
    square: {("x", "W"): "dense", ("x", "x"): "dense", ("W", "W"): "diagonal", ("W", "x"): "dense"},
}  # fmt: skip
DIRECTIONS = {aaren: 2, titans: 4, gated: 11, square: 12}
SIZES = {"k": K, "v": V, "d": 4}


def arrays(f, T=T, batch=(2,), dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    widths = {"s": (), "k": (K,), "v": (V,)}
    inputs = {n: rng.standard_normal((T, *batch, *w)).astype(dtype) for n, w in widths.items()}
    initial = {
        n: rng.standard_normal((*batch, *(SIZES[a] for a in axes))).astype(dtype) for n, axes in STATES[f].items()
    }
    return inputs, initial


def named(f, structure="pairs", kind=lambda x: x, reset=None, **given):
    inputs, initial = arrays(f, **given)
    structure = PAIRS[f] if structure == "pairs" else structure
    inputs, initial = ({n: kind(x) for n, x in group.items()} for group in (inputs, initial))
    return rs.Recurrence.from_function(
        f, inputs=inputs, state=STATES[f], initial=initial, structure=structure, reset=reset
    )


def by_hand(f, h, u):
    """The same function on a packed state, as one writes it without names."""

    class State:
        pass

    s, start = State(), 0
    for name, axes in STATES[f].items():
        shape = tuple(SIZES[a] for a in axes)
        size = int(np.prod(shape))
        setattr(s, name, h[..., start : start + size].reshape((*h.shape[:-1], *shape)))
        start += size
    out = f(s, u)
    parts = [out[n] for n in STATES[f]] if isinstance(out, dict) else out
    return np.concatenate([x.reshape((*h.shape[:-1], -1)) for x in parts], axis=-1)


def packed(f, reset=None, **given):
    inputs, initial = arrays(f, **given)
    lead = given.get("batch", (2,))
    start = np.concatenate([x.reshape((*lead, -1)) for x in initial.values()], axis=-1)
    return rs.Recurrence.from_function(partial(by_hand, f), inputs=inputs, initial=start, reset=reset)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("f", STATES)
def test_they_compute_what_a_packed_state_does(f, batch):
    rec, hand = named(f, batch=batch), packed(f, batch=batch)
    h = np.random.default_rng(1).standard_normal(rec.shape)
    F, J = rec.linearise(h)
    G, D = hand.linearise(h)
    np.testing.assert_array_equal(F, G)
    np.testing.assert_allclose(J.todense(), D.todense(), atol=1e-15)
    np.testing.assert_array_equal(rec.bind().walk(), hand.bind().walk())
    assert J.pattern.directions == DIRECTIONS[f] <= rec.layout.size
    assert rs.check_structure(rec).ok
    assert set(rec.form.pattern.groups[0].names) != set(STATES[f]) or f in (titans, square)


@pytest.mark.parametrize("f", STATES)
def test_their_jacobian_is_a_jacobian(f):
    """All that structures promise, against the dense form."""
    rec = named(f)
    rng = np.random.default_rng(2)
    J = rec.linearise(rng.standard_normal(rec.shape))[1]
    D = J.lane_dense()
    v, w = rng.standard_normal((2, *rec.shape))
    for found, wanted in [
        (J.matvec(v), D.matvec(v)),
        (J.rmatvec(v), D.rmatvec(v)),
        (J.scale(0.5).matvec(v), D.scale(0.5).matvec(v)),
        (J.between(v, w).matvec(v), D.between(v, w).matvec(v)),
        (J.compose(J).matvec(v), D.matvec(D.matvec(v))),
        (J.compose(J.diagonal()).matvec(v), D.matvec(J.diagonal().matvec(v))),
        (J.diagonal().data, D.diagonal().data),
        (J.block().data, D.block().data),
        (J[3:9].todense(), D[3:9].todense()),
        (J.transpose().transpose().todense(), D.todense()),
    ]:
        np.testing.assert_allclose(found, wanted, atol=1e-12)
    with pytest.raises(ValueError, match=r"block .* has shape"):
        type(J)({pair: block[..., :0] for pair, block in J.blocks.items()}, J.pattern, J.layout, J.like)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("f", STATES)
def test_scans_take_components_in_order(f, backend):
    from recsolve.kernels.affine_scan import affine_scan

    rec = named(f, T=40)
    rng = np.random.default_rng(3)
    J = rec.linearise(0.3 * rng.standard_normal(rec.shape))[1].scale(0.5)
    b, first = rng.standard_normal(rec.shape), rng.standard_normal(rec.shape[1:])
    cuts = rng.random((40, 2, 1)) < 0.2
    entries = np.broadcast_to(cuts, rec.shape)
    with rs.backend(backend):
        for reset in (None, cuts, entries):
            for initial in (None, first):
                for reverse in (False, True):
                    given = {"initial": initial, "reset": reset, "reverse": reverse}
                    wanted = affine_scan(J.lane_dense(), b, **given)
                    np.testing.assert_allclose(affine_scan(J, b, **given), wanted, atol=1e-12)


@pytest.mark.parametrize("method", sorted(rs.solvers.REGISTRY))
@pytest.mark.parametrize("f", [aaren, gated])
def test_solvers_agree_with_the_loop(f, method):
    reset = np.zeros((T, 2), bool)
    reset[7, 1] = reset[15] = True
    rec = named(f, reset=reset)
    sol = rs.solve(rec, method=method)
    assert sol.success
    loop = packed(f, reset=reset).bind().walk()
    np.testing.assert_allclose(sol.states, loop, atol=1e-12)
    assert sol.trusted
    for name, x in sol.named.items():
        assert np.shares_memory(x, sol.states)
        assert x.shape == (T, 2, *(SIZES[a] for a in STATES[f][name]))
    np.testing.assert_array_equal(sol.named_final.h if f is gated else sol.named_final.a, sol.states[-1, ..., -2:])
    again = f(rec.named(rec.previous(sol.states)), rec.contain(rec.inputs))
    for name, x in again.items():
        np.testing.assert_allclose(sol.named[name], x, atol=1e-12)


def test_a_state_may_start_at_minus_infinity():
    inputs, _initial = arrays(aaren)
    zero = {"m": np.full(2, -np.inf), "c": np.zeros(2), "a": np.zeros((2, V))}
    rec = rs.Recurrence.from_function(aaren, inputs=inputs, state=STATES[aaren], initial=zero, structure=PAIRS[aaren])
    s = rs.solve(rec).named
    scores = np.exp(inputs["s"])
    wanted = np.cumsum(scores[..., None] * inputs["v"], axis=0) / np.cumsum(scores, axis=0)[..., None]
    np.testing.assert_allclose(s.a / s.c[..., None], wanted, rtol=1e-12)


@pytest.mark.parametrize("structure", ["pairs", "dense"])
@pytest.mark.parametrize("f", STATES)
def test_gradients_by_name(f, structure):
    rng = np.random.default_rng(4)
    reset = np.arange(T) == 11
    rec = named(f, structure, reset=reset)
    name = list(STATES[f])[-1]
    last = rng.standard_normal(rec.named(rec.initial)[name].shape)
    at = rng.standard_normal(rec.named(np.zeros(rec.shape))[name].shape)
    sol = solved(rec)
    g = rs.adjoint(sol, final={name: last}, states={name: at})
    inputs, initial = arrays(f)

    def loss(u=inputs, h=initial):
        moved = rs.Recurrence.from_function(f, inputs=u, state=STATES[f], initial=h, reset=reset)
        s = moved.named(moved.bind().walk())[name]
        return float((s * at).sum() + (s[-1] * last).sum())

    for n in STATES[f]:
        check_slope(g.initial[n], lambda d, n=n: loss(h=initial | {n: initial[n] + d}), rng)
    for n in inputs:
        check_slope(g.inputs[n], lambda d, n=n: loss(u=inputs | {n: inputs[n] + d}), rng)
    v = {n: rng.standard_normal(x.shape) for n, x in initial.items()}
    moved = rec.named(rs.tangent(sol, initial=v))[name]
    forward = float((moved * at).sum() + (moved[-1] * last).sum())
    assert forward == pytest.approx(sum(float((g.initial[n] * x).sum()) for n, x in v.items()), rel=1e-10)
    assert set(g.named) == set(STATES[f])


def test_cells_have_names_too():
    rec = gallery.recurrence("lstm", "dense")
    sol = solved(rec)
    np.testing.assert_array_equal(sol.named.h, sol.output)
    np.testing.assert_array_equal(sol.named_final["c"], sol.final[:, 1])
    by_name = rs.adjoint(sol, states={"h": np.ones_like(sol.output)}, final={"c": np.ones_like(sol.named_final.c)})
    c = np.zeros_like(sol.states)
    c[:, :, 0] = 1
    c[-1, :, 1] += 1
    np.testing.assert_array_equal(by_name.initial, rs.adjoint(sol, states=c).initial)
    np.testing.assert_array_equal(
        rs.tangent(sol, initial={"c": c[-1, :, 1]}), rs.tangent(sol, initial=c[-1] * [[0], [1]])
    )
    with pytest.raises(AttributeError, match=r"have no names; from_function takes state="):
        _ = solved(packed(aaren)).named
    with pytest.raises(TypeError, match=r"final is given by components, and the states of .* have no names"):
        rs.adjoint(solved(packed(aaren)), final={"m": np.ones(2)})
    with pytest.raises(ValueError, match=r"states has shape \(2,\); wanted \(..., 2, 8\)"):
        rec.named(np.ones(2))
    with pytest.raises(ValueError, match=r"states has 'q'; wanted some of \('h', 'c'\)"):
        rs.adjoint(sol, states={"q": c})


def test_a_wrong_declaration_is_seen():
    pairs = {pair: how for pair, how in PAIRS[gated].items() if pair != ("h", "C")}
    rec = named(gated, pairs)
    report = rs.check_structure(rec)
    assert not report.ok
    assert report.message.endswith("or the pairs that depend otherwise too: ('h', 'C')")
    sol = solved(rec)
    np.testing.assert_allclose(sol.states, packed(gated).bind().walk(), atol=1e-12)
    assert not sol.trusted
    with pytest.raises(ValueError, match="not the derivative"):
        rs.adjoint(sol, final={"h": np.ones((2, V))})


@pytest.mark.parametrize("T", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("f", STATES)
def test_short_ones_keep_dtypes(f, dtype, T):
    rec = named(f, T=T, dtype=dtype)
    sol = solved(rec)
    assert {x.dtype for x in sol.named.values()} == {np.dtype(dtype)}
    assert sol.named_final.keys() == STATES[f].keys()
    g = rs.adjoint(sol, states=np.ones(rec.shape, dtype))
    assert {n: x.shape for n, x in g.initial.items()} == {n: x.shape for n, x in rec.named(rec.initial).items()}


def test_they_follow_into_windows_sequences_pickles_and_other_dtypes():
    rec = named(gated)
    whole = solved(rec).states
    np.testing.assert_allclose(solved(rec.sequences(np.array([1]))).states[:, 0], whole[:, 1], atol=1e-12)
    middle = rec.window(5, 9, initial=dict(rec.named(whole[4])))
    assert middle.form.pattern is rec.form.pattern
    np.testing.assert_allclose(solved(middle).named.C, rec.named(whole)["C"][5:9], atol=1e-12)
    with pytest.raises(ValueError, match=r"initial has shape \(2, 3\); wanted \(\*batch, 11\), or components"):
        rec.window(5, 9, initial=np.ones((2, 3)))
    copied = pickle.loads(pickle.dumps(solved(rec)))
    np.testing.assert_array_equal(copied.named.C, rec.named(whole).C)
    np.testing.assert_allclose(solved(rec.astype(np.float32)).states, whole, atol=1e-5)
    g = rs.adjoint(copied, final={"h": np.ones((2, V))})
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(g)).initial.C, g.initial.C)


def test_tensors_give_tensors():
    torch = pytest.importorskip("torch")
    rec = named(gated, kind=torch.as_tensor)
    sol = solved(rec)
    g = rs.adjoint(sol, final={"h": torch.ones((2, V), dtype=torch.float64)})
    for x in (sol.named.C, sol.named_final.h, g.initial.n, g.named.C):
        assert isinstance(x, torch.Tensor)
    assert sol.named.C.shape == (T, 2, K, V)


GIVEN = {"f": lambda s, u: s, "inputs": np.ones((5, 2)), "state": {"m": (), "C": ("k", "k")}}
START = {"m": np.zeros(()), "C": np.ones((3, 3))}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"state": {"m": "k"}}, TypeError, "state has 'm': 'k'; wanted a dict from names to tuples"),
        ({"state": ["m"]}, TypeError, "state is "),
        ({"state": {"keys": (), "C": ("k", "k")}}, ValueError, r"names \['keys'\]"),
        ({"state": None}, ValueError, "state is not given"),
        ({"initial": np.ones(10)}, TypeError, "initial is ndarray; wanted a dict of components"),
        ({"initial": {"m": START["m"]}}, ValueError, r"initial has components \('m',\); wanted \('m', 'C'\)"),
        ({"initial": START | {"C": np.ones((3, 4))}}, ValueError, r"axis 'k' has size 4 .* and 3"),
        (
            {"initial": START | {"C": np.ones(3)}},
            ValueError,
            r"initial\['C'\] has shape \(3,\); wanted \(\*batch, k, k\)",
        ),
        ({"initial": START | {"m": np.ones(2)}}, ValueError, "initial has the batch shapes"),
        ({"initial": START | {"m": np.ones((), "f4")}}, TypeError, r"initial\['m'\] is float32"),
        ({"structure": {("m", "q"): "dense"}}, ValueError, r"structure has the pair \('m', 'q'\)"),
        ({"structure": {("m", "m"): "block"}}, ValueError, r"structure\[\('m', 'm'\)\] is 'block'"),
        ({"structure": {("C", "m"): ("k",)}}, ValueError, r"structure\[\('C', 'm'\)\] has \['k'\]"),
        ({"structure": "heads"}, ValueError, "structure is 'heads'; wanted one by pairs"),
        ({"structure": {}, "jacobian": lambda s, u: u}, ValueError, "jacobian is given with a structure by pairs"),
    ],
)
def test_bad_descriptions(given, error, words):
    given = GIVEN | {"initial": START} | given
    with pytest.raises(error, match=words):
        rs.Recurrence.from_function(given.pop("f"), **given)


@pytest.mark.parametrize(
    ("out", "error", "words"),
    [
        (lambda s: s.m, TypeError, r"f returned ndarray; wanted a dict or tuple of components \('m', 'C'\)"),
        (lambda s: {"m": s.m}, ValueError, r"f returned components \('m',\)"),
        (lambda s: (s.m,), ValueError, "f returned 1 components; wanted 2"),
        (lambda s: (s.m, s.C[..., 0]), ValueError, r"f returned component 'C' of shape \(1, 3\); wanted \(1, 3, 3\)"),
        (lambda s: (s.m * np.float32(1), s.C.astype("f4")), TypeError, "f returned component 'C' of dtype float32"),
        (lambda s: (0.0, s.C), TypeError, "f returned float for component 'm'"),
        (lambda s: (s.q, s.C), AttributeError, "no component 'q'"),
        (lambda s: setattr(s, "m", 0.0), AttributeError, "component 'm' cannot be assigned"),
        (lambda s: delattr(s, "m"), AttributeError, "component 'm' cannot be deleted"),
        (lambda s: s.C.fill(0.0), TypeError, "writes into its arguments"),
    ],
)
def test_bad_results(out, error, words):
    rec = rs.Recurrence.from_function(**GIVEN | {"f": lambda s, u: out(s), "initial": START})
    with pytest.raises(error, match=words):
        rec.bind().walk()


def test_directions_of_wide_states_are_found_without_their_matrix():
    """W of 200 x 200, whose matrix would have 1.6e9 entries."""
    named_state = NamedState({"m": (), "W": ("i", "j"), "n": ("i",)}, {"i": 200, "j": 200})
    pattern = Pattern(
        named_state, {("m", "m"): "diagonal", ("W", "W"): "diagonal", ("W", "n"): "diagonal", ("W", "m"): ()}
    )
    assert pattern.directions == 3
    assert pattern.width == 3
    assert "matrix" not in vars(pattern)


@pytest.mark.parametrize("f", STATES)
def test_no_number_depends_on_two_of_one_direction(f):
    pattern = named(f).form.pattern
    for colour in range(pattern.directions):
        assert pattern.matrix[:, pattern.colours == colour].sum(axis=1).max() <= 1
    assert (pattern.matrix.any(axis=0) == (pattern.colours >= 0)).all()
    assert pattern.width == pattern.matrix.sum(axis=1).max()


def test_no_structure_at_all():
    rec = rs.Recurrence.from_function(
        lambda s, u: {"m": u[..., 0], "C": np.ones((*u.shape[:-1], 3, 3))}, initial=START, state=GIVEN["state"],
        inputs=GIVEN["inputs"], structure={},
    )  # fmt: skip
    assert solved(rec).trusted
    assert (rs.adjoint(solved(rec), final={"m": np.ones(())}).initial.C == 0).all()


def test_a_guess_by_name():
    rec = rs.Recurrence.from_function(
        lambda s, u: {"a": np.cos(s.a) + u, "b": np.sin(s.b) + s.a[..., None]},
        inputs=np.linspace(0, 1, 30),
        state={"a": (), "b": ("d",)},
        initial={"a": np.array(0.0), "b": np.zeros(2)},
    )
    sol = rs.solve(rec, method="sequential")
    known = dict(sol.named)
    assert rs.solve(rec, method="jacobi", guess=known).nit == 0 == rs.solve(rec, method="jacobi", guess=sol).nit
    assert rs.solve(rec, method="windowed", guess=lambda part: {"a": np.ones(part.length)}).success
    with pytest.raises(ValueError, match=r"guess has 'c'; wanted some of \('a', 'b'\)"):
        rs.solve(rec, guess={"c": np.zeros(30)})
    with pytest.raises(ValueError, match=r"guess\['b'\] has shape \(30,\); wanted \(30, 2\)"):
        rs.solve(rec, guess={"b": np.zeros(30)})
