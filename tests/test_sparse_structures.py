"""Permutations times diagonals, low rank and bands: scans, solves and gradients of what is declared to be such."""

import pickle

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.jacobians import Banded, Diagonal, LaneDense, LowRank, PermutationDiagonal

KINDS = (PermutationDiagonal, LowRank, Banded)
LAYOUTS = (rs.Layout(units=4), rs.Layout(components=2, lanes=(3,), units=2), rs.Layout(units=None))


def loop(A, b, initial=None, reset=None, reverse=False):
    """y[t] = A[t] y[t-1] + b[t] by dense products, or in reverse."""
    y, before, dense = np.empty_like(b), initial, A.lane_dense()
    for t in range(len(b))[:: -1 if reverse else 1]:
        after = b[t] if before is None else dense[t].matvec(before) + b[t]
        if reset is not None:
            after = np.where(reset[t].reshape(reset[t].shape + (1,) * (b.ndim - reset.ndim)), b[t], after)
        y[t] = before = after
    return y


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_scans_of_both_backends_are_the_loop(kind, layout, dtype):
    rng = np.random.default_rng(0)
    near = 1e-12 if dtype is np.float64 else 1e-5
    # Loops take seconds to compile, and all of them read float32 as they read float64.
    backends = ("numpy", "numba") if dtype is np.float64 or kind is Banded else ("numpy",)
    for T, batch in ((0, (2,)), (1, ()), (2, (0,)), (90, ()), (97, (3,))):
        A = gallery.structure(kind, layout, (T, *batch), rng, dtype, gain=0.3)
        b = rng.standard_normal((T, *batch, *layout.event)).astype(dtype)
        b.flags.writeable = False
        initial, reset = rng.standard_normal(b.shape[1:]).astype(dtype), rng.random((T, *batch)) < 0.1
        for given in ({}, {"initial": initial}, {"reset": reset}, {"initial": initial, "reset": reset}):
            for matrix, reverse in ((A, False), (A.transpose(), True), (pickle.loads(pickle.dumps(A)), True)):
                wanted = loop(matrix, b, reverse=reverse, **given)
                for backend in backends:
                    with rs.backend(backend):
                        found = rs.scan("affine", (matrix, b), reverse=reverse, **given)
                    assert found.dtype == dtype
                    np.testing.assert_allclose(found, wanted, rtol=near, atol=near)


def test_what_lanes_and_times_share_is_kept_once_and_any_strides_are_read():
    rng, T, layout = np.random.default_rng(0), 60, rs.Layout(lanes=(3,), units=4)
    b = np.asfortranarray(rng.standard_normal((T, 2, 3, 4)))
    d, thin, bands = rng.uniform(-0.5, 0.5, (T, 2, 3, 4)), rng.uniform(-0.5, 0.5, (2, T, 2, 1, 4, 1)), np.ones((2, 4))
    turns = np.array([rng.permutation(4) for _ in range(T)])[:, None, None, :]
    for A in (
        PermutationDiagonal([1, 2, 3, 0], d, layout),
        PermutationDiagonal(turns, d[..., ::-1], layout),
        LowRank(d, *thin, layout),
        LowRank(d[..., :1], *np.broadcast_to(thin[:, :1], thin.shape), layout),
        Banded(np.broadcast_to(0.4 * bands, (T, 2, 1, 2, 4)), (0, 1), layout),
        Banded(np.asfortranarray(rng.uniform(-0.5, 0.5, (T, 2, 3, 2, 4))), (-2, 3), layout),
    ):
        for backend in ("numpy", "numba"):
            with rs.backend(backend):
                np.testing.assert_allclose(rs.scan("affine", (A, b)), loop(A, b), rtol=1e-12, atol=1e-12)


def test_maps_that_are_not_one_to_one_add_up_and_compose():
    """Columns with one entry stay such under products; with their transposes they are dense, but for permutations."""
    layout, rng = rs.Layout(units=4), np.random.default_rng(0)
    d = rng.standard_normal((2, 5, 4))
    merge, turn = (PermutationDiagonal(p, e, layout) for p, e in zip(([1, 1, 3, 0], [2, 0, 3, 1]), d, strict=True))
    np.testing.assert_array_equal(merge.matvec(np.ones((5, 4)))[:, 1], d[0][:, 0] + d[0][:, 1])
    for A, B, kind in (
        (merge, merge, PermutationDiagonal),
        (merge, turn.transpose(), PermutationDiagonal),
        (turn.transpose(), merge, PermutationDiagonal),
        (merge.transpose(), turn, PermutationDiagonal),
        (merge, merge.transpose(), LaneDense),
        (merge, Diagonal(d[1], layout), PermutationDiagonal),
    ):
        found = A.compose(B)
        assert type(found) is kind
        np.testing.assert_allclose(found.todense(), A.todense() @ B.todense(), atol=1e-13)


def test_products_stay_as_small_as_they_are():
    layout, rng = rs.Layout(units=9), np.random.default_rng(0)
    thin = LowRank(rng.standard_normal((3, 9)), *rng.standard_normal((2, 3, 9, 2)), layout)
    band = Banded(rng.standard_normal((3, 2, 9)), (0, 1), layout)
    diagonal = Diagonal(rng.standard_normal((3, 9)), layout)
    assert thin.compose(thin).left.shape[-1] == 4
    assert thin.compose(diagonal).left.shape[-1] == diagonal.compose(thin).left.shape[-1] == 2
    assert band.compose(band).offsets == (0, 1, 2)
    assert diagonal.compose(band).offsets == (0, 1)
    assert type(thin.compose(band)) is type(band.compose(diagonal.lane_dense())) is LaneDense
    wide = band
    for _ in range(4):
        wide = wide.compose(wide)
    assert type(wide) is LaneDense
    np.testing.assert_allclose(wide.todense(), np.linalg.matrix_power(band.todense(), 16), rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda d, x: PermutationDiagonal([0.0, 1.0, 2.0], d, x), TypeError, "dtype float64; wanted integers"),
        (lambda d, x: PermutationDiagonal([0, 1], d, x), ValueError, r"shape \(2,\); wanted \(3,\) or \(5, 3\)"),
        (lambda d, x: PermutationDiagonal([0, 1, 3], d, x), ValueError, "outside 0 to 2"),
        (lambda d, x: PermutationDiagonal([0, 1, -1], d, x), ValueError, "outside 0 to 2"),
        (lambda d, x: LowRank(d, d[..., None], d, x), ValueError, "right of LowRank has shape"),
        (lambda d, x: LowRank(d, d[1:, :, None], d[..., None], x), ValueError, "left of LowRank has shape .* as data"),
        (lambda d, x: LowRank(d, d[..., None], d[..., None].astype("f"), x), TypeError, "wanted one dtype"),
        (lambda d, x: LowRank(d, None, d, x), TypeError, "left of LowRank is NoneType"),
        (lambda d, x: Banded(d[:, None], (0, 1), x), ValueError, "data of Banded has shape"),
        (lambda d, x: Banded(d[:, None], (3,), x), ValueError, r"offsets of Banded is \(3,\); wanted"),
        (lambda d, x: Banded(np.stack([d, d], 1), (1, 1), x), ValueError, "wanted different integers"),
        (lambda d, x: Banded(d[:, None], (0.5,), x), TypeError, "offsets of Banded .* wanted integers"),
    ],
)
def test_what_fits_no_layout_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(np.ones((5, 3)), rs.Layout(units=3))


def mixed(n, seed=0):
    """Functions of h and a drive with a known derivative of each form, and what declares it."""
    rng = np.random.default_rng(seed)
    w, p, merge = rng.uniform(-0.9, 0.9, (3, n)), rng.permutation(n), rng.integers(0, n, n)
    U, V, place = rng.uniform(-0.5, 0.5, (n, 2)), rng.uniform(-0.5, 0.5, (n, 2)), np.arange(n)

    def turned(h, u):
        return np.take(np.tanh(w[0] * h + u), np.argsort(p), axis=-1)

    def merged(h, u):  # column j has its entry in row merge[j]
        return np.tanh(w[0] * h + u) @ np.eye(n)[merge]

    def thin(h, u):
        return w[0] * np.tanh(h) + np.tanh(h @ V) @ U.T + u

    def thin_factors(h, u):
        a, inner = w[0] / np.cosh(h) ** 2, 1 / np.cosh(h @ V) ** 2
        return a, U * inner[..., None, :], np.broadcast_to(V, (*h.shape, 2))

    def chain(h, u):  # a stencil that does not wrap around
        right = np.concatenate([h[..., 1:], 0 * h[..., :1]], axis=-1)
        left = np.concatenate([0 * h[..., :2], h[..., :-2]], axis=-1)
        return np.tanh(w[0] * h + 0.3 * right + w[1] * left * 0.5 + u)

    def slope(h, u):
        return w[0] / np.cosh(w[0] * h + u) ** 2

    places = np.broadcast_to(p, (1, n))
    yield turned, ("permutation_diagonal", p), None
    yield turned, ("permutation_diagonal", p.tolist()), slope
    yield turned, "permutation_diagonal", lambda h, u: (np.broadcast_to(places, h.shape), slope(h, u))
    yield merged, ("permutation_diagonal", merge), None
    yield thin, "low_rank", thin_factors
    yield chain, ("banded", (0, 1, -2)), None
    yield chain, ("banded", place[:4] - 2), None  # wider than need be


CASES = range(len(list(mixed(5))))


def case(number, n=5, T=60, **given):
    f, structure, jacobian = list(mixed(n))[number]
    u = np.random.default_rng(1).standard_normal((T, 3, n))
    return gallery.function(f, u, structure, jacobian=jacobian, **given)


@pytest.mark.parametrize("number", CASES)
def test_declared_forms_are_the_derivative(number):
    rec = case(number, reset=np.arange(60) % 20 == 7)
    _F, J = rec.linearise(rec.guess())
    dense = rs.Recurrence.from_function(rec.f, inputs=rec.inputs[0], initial=rec.initial, reset=rec.reset)
    np.testing.assert_allclose(J.todense(), dense.linearise(rec.guess())[1].todense(), atol=1e-12)
    report = rs.check_structure(rec)
    assert report, report.message
    assert type(J).__name__.lower() == rec.structure.replace("_", "")


@pytest.mark.parametrize("number", CASES)
def test_solves_and_gradients_of_declared_forms(number):
    rec = case(number)
    wanted = gallery.loop(rec)
    sol = rs.solve(rec)
    assert sol.trusted, sol.message
    assert sol.nit < 12
    np.testing.assert_allclose(sol.states, wanted, atol=1e-12)
    dense = rs.Recurrence.from_function(rec.f, inputs=rec.inputs[0], initial=rec.initial)
    c = np.random.default_rng(2).standard_normal(rec.shape)
    truth = rs.adjoint(rs.solve(dense), states=c)
    found = rs.adjoint(sol, states=c)
    np.testing.assert_allclose(found.inputs, truth.inputs, atol=1e-10)
    np.testing.assert_allclose(found.initial, truth.initial, atol=1e-10)
    again = pickle.loads(pickle.dumps(rec.linearise(wanted)[1]))
    np.testing.assert_array_equal(again.todense(), rec.linearise(wanted)[1].todense())


@pytest.mark.parametrize("method", rs.solvers.REGISTRY)
def test_every_solver_takes_them(method):
    for number in (2, 3, 4, 5):
        rec = case(number, T=40)
        sol = rs.solve(rec, method=method, fallback="sequential")
        assert sol.success, sol.message
        np.testing.assert_allclose(sol.states, gallery.loop(rec), atol=1e-10)


def test_a_band_is_differentiated_in_as_many_directions_as_it_has_diagonals():
    for offsets, colours in (((0,), 1), ((-1, 0, 1), 3), ((0, 3), 2), ((-8, -1, 0, 1, 8), 5)):
        u = np.ones((4, 40))
        rec = gallery.function(lambda h, u: h + u, u, ("banded", offsets))
        assert len(rec._seeds(u)) == colours
        assert rec._seeds(u).sum() == u.size


def test_false_declarations_are_found():
    u = np.random.default_rng(0).standard_normal((30, 4))
    roll = lambda h, u: 0.5 * np.roll(h, 1, axis=-1) + u  # noqa: E731
    for structure in (("banded", (0, -1)), ("permutation_diagonal", [0, 1, 2, 3])):
        report = rs.check_structure(gallery.function(roll, u, structure))
        assert not report
        assert report.found == "dense"
        assert not rs.solve(gallery.function(roll, u, structure)).trusted
    report = rs.check_structure(gallery.function(lambda h, u: 0.5 * h + u, u, ("banded", (0, 1))))
    assert report.message.endswith("'scalar' would do too")


@pytest.mark.parametrize(
    ("structure", "jacobian", "error", "words"),
    [
        ("banded", None, ValueError, "wanted \\('banded', offsets\\)"),
        (("banded", (0, 4)), None, ValueError, "offsets of Banded"),
        (("banded", 1.5), None, TypeError, "offsets of Banded"),
        (("permutation_diagonal", [0, 1]), None, ValueError, "permutation of PermutationDiagonal"),
        ("permutation_diagonal", None, ValueError, r"without jacobian; wanted one that returns \(p, d\)"),
        ("low_rank", None, ValueError, r"without jacobian; wanted one that returns \(a, U, V\)"),
        (("low_rank", 2), None, ValueError, "factors come from jacobian="),
        (("dense", 2), None, ValueError, "wanted a name, "),
        (("dense",), None, ValueError, "wanted a name, "),
    ],
)
def test_bad_declarations(structure, jacobian, error, words):
    with pytest.raises(error, match=words):
        gallery.function(lambda h, u: h + u, np.ones((5, 4)), structure, jacobian=jacobian)


def test_bad_entries_of_declared_forms():
    u = np.ones((5, 4))
    for structure, given, error, words in (
        ("low_rank", lambda h, u: h, ValueError, r"returned ndarray; wanted a tuple \(a, U, V\)"),
        ("low_rank", lambda h, u: (h, h, h), ValueError, r"returned shape \(5, 4\); wanted"),
        ("permutation_diagonal", lambda h, u: (h, h), TypeError, "wanted integers"),
        (("banded", (0, 1)), lambda h, u: h, ValueError, r"shape \(5, 4\); wanted \(5, 2, 4\)"),
        (("banded", (0,)), lambda h, u: h.astype("f")[:, None], TypeError, "dtype float32; wanted float64"),
    ):
        rec = gallery.function(lambda h, u: h + u, u, structure, jacobian=given)
        with pytest.raises(error, match=words):
            rec.linearise(u)
