"""Corners where a plausible implementation goes wrong without a word."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.jacobians import Diagonal, LaneDense
from recsolve.mixings import Diagonal as DiagonalMixing

from_function = rs.Recurrence.from_function
SOLVERS = sorted(rs.solvers.REGISTRY)


def numeric(f, h, step=1e-6):
    """The Jacobian of one row by central differences."""
    columns = [(f(h + step * e) - f(h - step * e)) / (2 * step) for e in np.eye(h.size)]
    return np.stack(columns, axis=-1)


WIDE = np.array([0.3, -0.2, 0.5, 0.7])
FUNCTIONS = {
    "broadcast then sum": lambda h, u: np.sin(0.8 * np.sum(h[..., :1] + u, axis=-1, keepdims=True)) + 0 * u,
    "where then sum": lambda h, u: 0.1 * np.sum(np.where(h[..., :1] > -9, h[..., :1], u), axis=-1, keepdims=True) + u,
    "broadcast then matmul": lambda h, u: (h[..., :1] + u) @ (np.eye(4) + 0.1),
    "broadcast then index": lambda h, u: (h[..., 1:2] * np.ones(4) + u)[..., ::-1],
    "pad with a value": lambda h, u: np.pad(h[..., 1:], [(0, 0), (0, 1)], constant_values=5.0) * u,
    "sum from a value": lambda h, u: 0.1 * np.sum(h, axis=-1, keepdims=True, initial=7.0) + u,
    "diff with a value": lambda h, u: 0.3 * np.diff(h, prepend=3.0, axis=-1) + u,
    "where of integers": lambda h, u: 0.1 * np.where(np.array([1, 0, 1, 0]), 2 * h, 3 * h) + u,
    "clip by keywords": lambda h, u: np.clip(h, a_min=-0.25, a_max=None) + h.clip(-1, 0.4) + np.clip(h, None, 0.1) + u,
    "base": lambda h, u: 2**h * 0.1 + u,
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_derivatives_of_user_functions(name):
    f = FUNCTIONS[name]
    rec = from_function(f, inputs=WIDE[None], initial=np.zeros(4))
    h = np.array([[0.21, -0.43, 0.12, 0.35]])
    J = rec.differentiate(h)[1].todense()[0]
    np.testing.assert_allclose(J, numeric(lambda row: f(row[None], WIDE[None])[0], h[0]), atol=1e-8)
    assert rs.check_structure(rec)


def test_zeroth_powers_and_softplus_at_infinity():
    rec = gallery.function(lambda h, u: h**0 + h**u, np.zeros((3, 1)))
    np.testing.assert_array_equal(rec.differentiate(np.zeros((3, 1)))[1].data, 0)
    np.testing.assert_array_equal(rs.math.softplus(np.array([-np.inf, np.inf])), [0, np.inf])


def test_modes_of_pad_that_are_not_linear_are_named():
    rec = gallery.function(
        lambda h, u: np.pad(h, [(0, 0), (0, 1)], mode="maximum")[..., 1:] + u, np.ones((5, 3)), "dense"
    )
    with pytest.raises(TypeError, match=r"numpy.pad.*jacobian="):
        rs.solve(rec)


MIXING_TIMES = {
    "cumsum": lambda h, u: 0.1 * np.cumsum(h, axis=0) + u,
    "sum": lambda h, u: np.tanh(u + 0.01 * np.sum(h)),
    "mean of the drive": lambda h, u: 0.5 * h + u - u.mean(),
    "branch": lambda h, u: (0.5 * h if (h > 0.9).any() else -0.5 * h) + 0.3 * u,
    "first": lambda h, u: np.tanh(0.5 * h[0] + u),
}


@pytest.mark.parametrize("name", sorted(MIXING_TIMES))
def test_functions_that_mix_times_are_found(name):
    u = 3 * np.random.default_rng(0).standard_normal((40, 3))
    rec = from_function(MIXING_TIMES[name], inputs=u, initial=np.full(3, 0.5))
    for method in SOLVERS:
        sol = rs.solve(rec, method=method)
        assert not sol.success
        assert not sol.trusted
        assert "mixes times" in sol.message
        completed = rs.solve(rec, method=method, fallback="sequential")
        np.testing.assert_array_equal(completed.states, gallery.loop(rec))
    assert not rs.check_structure(rec, states=rs.solve(rec, method="sequential").states)


@pytest.mark.parametrize("given_jacobian", [None, lambda h, u: np.full_like(h, 0.5)])
@pytest.mark.parametrize("method", SOLVERS)
def test_functions_that_write_into_their_arguments_are_refused(method, given_jacobian):
    u, h0 = np.ones((20, 3)), np.ones(3)

    def writes_state(h, u):
        h *= 0.5
        h += u
        return h

    def writes_input(h, u):
        u *= 0.5
        return 0.5 * h + u

    for f in (writes_state, writes_input):
        with pytest.raises((TypeError, ValueError), match=r"writes into its arguments|read-only"):
            rs.solve(
                from_function(f, inputs=u, initial=h0, structure="diagonal", jacobian=given_jacobian), method=method
            )
        np.testing.assert_array_equal(u, 1)
        np.testing.assert_array_equal(h0, 1)


@pytest.mark.parametrize("method", SOLVERS)
def test_states_do_not_share_memory_with_the_drive(method):
    u = np.random.default_rng(0).standard_normal((20, 3))
    sol = rs.solve(from_function(lambda h, u: u, inputs=u, initial=np.zeros(3), structure="zero"), method=method)
    assert not np.shares_memory(sol.states, u)
    cell = rs.Cell(lambda s, W, u, p: u.x, state=("h",), output="h", name="copy").with_weights(hidden_size=3)
    sol = rs.solve(cell.recurrence(drive={"x": u}), method=method)
    assert not np.shares_memory(sol.states, u)
    np.testing.assert_array_equal(sol.states, u)


def test_drives_of_unequal_rank_are_refused():
    cell = rs.Cell(lambda s, W, u, p: np.tanh(W.a(s.h) + u.a + u.b), state=("h",), output="h", name="two")
    cell = cell.with_weights(mixings={"a": DiagonalMixing(np.full(2, 0.1))})
    with pytest.raises(ValueError, match="drives have shapes"):
        cell.recurrence(drive={"a": np.ones((5, 2)), "b": np.ones((5, 5, 2))})
    assert rs.solve(cell.recurrence(drive={"a": np.ones((5, 1, 2)), "b": np.ones((5, 5, 2))})).success


def test_scans_whose_composed_chunks_overflow_equal_the_loop():
    y = rs.scan("affine", (np.full(400, 1e30), np.zeros(400)), initial=0.0)
    np.testing.assert_array_equal(y, 0)
    y = rs.scan("affine", (np.full(10_000, 1.5, np.float32), np.zeros(10_000, np.float32)))
    np.testing.assert_array_equal(y, 0)


def test_scans_refuse_mixed_dtypes_and_take_masks_in_the_shape_of_the_elements():
    r, s = np.ones((5, 2), np.float32), np.zeros((5, 2))
    with pytest.raises(TypeError, match="dtypes are mixed"):
        rs.scan("clamp", (r, s), initial=np.zeros(2))
    assert rs.scan("affine", (np.float64(0.5), np.ones(3))).tolist() == [1, 1.5, 1.75]  # a number is the same always
    A, b = np.full((6, 6), 0.5), np.ones((6, 6))
    mask = np.zeros((6, 6), bool)
    mask[0, 3] = True
    y = rs.scan("affine", (A, b), axis=1, reset=mask)
    assert y[0, 3] == 1
    assert y[3, 0] == 1
    assert y[1, 3] == 1.875


def test_dense_scans_do_not_compose_matrices(monkeypatch):
    monkeypatch.setattr(LaneDense, "_product", lambda self, earlier: pytest.fail("composed"))
    u = np.random.default_rng(0).standard_normal((200, 4))
    rec = from_function(lambda h, u: np.tanh(h @ (0.3 * np.ones((4, 4))) + u), inputs=u, initial=np.zeros(4))
    assert rs.solve(rec).trusted


def test_factored_jacobians_compose_with_the_others():
    rec = gallery.recurrence("gru", "dense", T=4, units=3)
    J = rec.linearise(gallery.loop(rec))[1]
    D = Diagonal(np.random.default_rng(0).standard_normal(rec.shape), rec.layout)
    np.testing.assert_allclose(D.compose(J).todense(), D.todense() @ J.todense(), atol=1e-14)
    np.testing.assert_allclose(J.compose(D).todense(), J.todense() @ D.todense(), atol=1e-14)
    np.testing.assert_allclose(J.lane_dense().compose(J).todense(), J.todense() @ J.todense(), atol=1e-14)


@pytest.mark.parametrize("structure", ["zero", "identity", "scalar", "diagonal", "dense"])
def test_everything_of_an_empty_solution(structure):
    rec = from_function(lambda h, u: 0.0 * h + u, inputs=np.ones((0, 3)), initial=np.zeros(3), structure=structure)
    for method in SOLVERS:
        sol = rs.solve(rec, method=method)
        assert (sol.converged_prefix, sol.exact_prefix, sol.condition) == (0, 0, 1.0)
        assert "converged" in repr(sol)
        assert sol.trusted


def test_lists_are_one_array_and_tuples_several():
    u = np.random.default_rng(0).standard_normal((30, 3))
    by_array = rs.solve(from_function(lambda h, u: 0.5 * h + u, inputs=u, initial=np.zeros(3)))
    by_list = rs.solve(from_function(lambda h, u: 0.5 * h + u, inputs=u.tolist(), initial=[0.0] * 3))
    np.testing.assert_array_equal(by_array.states, by_list.states)
    one = from_function(lambda h, u: 0.5 * h + u, inputs=[0.5], initial=np.array(0.0), structure="diagonal")
    assert rs.solve(one).states.tolist() == [0.5]


def test_the_default_tolerance_stays_small_whatever_the_weights():
    for dtype in gallery.DTYPES:
        for gain in (1e4, 1e8, 1e200 if dtype is np.float64 else 1e30):
            rec = gallery.recurrence("elman", "dense", T=20, gain=gain, dtype=dtype)
            sol = rs.solve(rec)
            assert sol.tolerance.atol <= 64 * np.finfo(dtype).eps
            assert sol.success
            assert sol.residuals[-1] <= 1e-4


def test_the_sequential_residual_is_recomputed():
    rec = gallery.recurrence("gru", "dense", T=50, gain=2.0)
    sol = rs.solve(rec, method="sequential", tol=1e-17)
    again = np.abs(rec.evaluate(sol.states) - sol.states).max()
    assert sol.residuals[-1] == again
    assert sol.success == (again <= 1e-17)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_large_states_that_couple_do_not_need_T_iterations(scale):
    cell = gallery.weighted("elman_relu", units=64)
    x = scale * np.random.default_rng(0).standard_normal((300, 3))
    for method, most in (("newton", 10), ("jacobi", 80), ("sequential", 0)):
        sol = rs.solve(cell.recurrence(x), method=method)
        assert sol.success
        assert sol.nit <= most


def test_checks_that_cannot_see_say_so():
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    rec = gallery.function(lambda h, u: np.sqrt(-1 - np.abs(h @ swap)) + u, np.ones((5, 2)))
    report = rs.check_structure(rec)
    assert not report
    assert "cannot be checked" in report.message


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["elman_relu", "minmax"])
def test_checks_do_not_stumble_over_kinks(name, seed):
    for dtype in gallery.DTYPES:
        assert rs.check_structure(gallery.recurrence(name, "dense", T=20, seed=seed, dtype=dtype), rng=seed)


def test_a_jacobian_that_is_a_tenth_off_is_found_in_float32_too():
    for dtype in gallery.DTYPES:
        rec = gallery.function(
            lambda h, u: np.tanh(h) + u,
            np.ones((9, 4), dtype),
            jacobian=lambda h, u: h.dtype.type(1.1) * (1 - np.tanh(h) ** 2),
        )
        assert not rs.check_structure(rec)


def test_torch_callbacks_cannot_write_the_iterate():
    torch = pytest.importorskip("torch")
    cell = gallery.weighted("gru")
    x = torch.ones(20, 2, 3, dtype=torch.float64)

    def scribble(result):
        result.states[...] = 0

    sol = rs.solve(cell.recurrence(x), callback=scribble)
    plain = rs.solve(cell.recurrence(x))
    assert torch.equal(sol.states, plain.states)


def test_shape_errors_inside_f_come_with_the_shapes():
    rec = from_function(lambda h, u: h @ np.ones((5, 5)) + u, inputs=np.ones((3, 2)), initial=np.zeros(2))
    with pytest.raises(ValueError) as caught:
        rs.solve(rec)
    assert "h_prev has shape (3, 2), inputs have shapes [(3, 2)]" in caught.value.__notes__


def test_modules_that_are_not_what_they_seem():
    torch = pytest.importorskip("torch")
    from torch.nn.utils import rnn
    from torch.nn.utils.parametrizations import weight_norm

    class Doubled(torch.nn.GRU):
        def forward(self, *args):
            return super().forward(*args)[0] * 2

    x = torch.ones(5, 3)
    with pytest.raises(ValueError, match="overrides forward"):
        rs.run(Doubled(3, 4), x)
    with pytest.raises(ValueError, match="reparametrized"):
        rs.run(weight_norm(torch.nn.GRU(3, 4), "weight_hh_l0"), x)
    with pytest.raises(TypeError, match="an instance of"):
        rs.run(torch.nn.GRU, x)
    with pytest.raises(TypeError, match="x is a PackedSequence"):
        rs.Layers.from_torch(torch.nn.GRU(3, 4)).solve(rnn.pack_sequence([x]))
    with pytest.raises(TypeError, match=r"x has dtype torch.bfloat16"):
        rs.run(torch.nn.GRU(3, 4), x.bfloat16())
    with pytest.raises(ValueError, match="callback is given"):
        rs.run(torch.nn.GRU(3, 4), x, callback=print)


def test_masked_arrays_are_refused():
    masked = np.ma.masked_greater(np.ones((5, 2)), 0)
    with pytest.raises(TypeError, match="inputs is a masked array"):
        rs.Recurrence.from_function(lambda h, u: h + u, inputs=masked, initial=np.zeros(2))
