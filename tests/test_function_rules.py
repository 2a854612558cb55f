"""Derivative rules of NumPy's functions: every one of them against NumPy's values and differences of them."""

import functools
import math

import gallery
import numpy as np
import pytest
import scipy.special

import recsolve as rs
from recsolve.base.arrays import freeze, namespace
from recsolve.base.ties import check_ties, ties_in_force
from recsolve.math import logsumexp, softmax
from recsolve.recurrence import function_rules as rules
from recsolve.recurrence.function_tangent import StateTangent, Tangent
from recsolve.symbolic.dual import value_of

RNG = np.random.default_rng(7)
W = RNG.standard_normal((3, 3)).astype("f4").astype("f8")  # exact in float32
AXES = [{}, {"axis": -1}, {"axis": 0}, {"axis": (0, -1), "keepdims": True}, {"axis": -2, "keepdims": True}]
LENGTHWISE = [{"axis": -1}, {"axis": 0}]


def each(function, settings, *rest):
    """Return calls of a function with every one of some settings."""
    return [lambda h, kw=kw: function(h, *rest, **kw) for kw in settings]


def on(*calls):
    return list(calls)


def matrices(h):
    """Return well-conditioned matrices (4, 3, 3) of rows (4, 3)."""
    return h[..., :, None] * h[..., None, :] + 3 * namespace(value_of(h)).eye(3, dtype=h.dtype)


def other(h):
    return namespace(value_of(h)).asarray(W, h.dtype)


# Every function that has a rule, and calls of it on rows (4, 3) of distinct positive numbers.
CASES = {
    np.max: [*each(np.max, AXES), lambda h: np.max(h, axis=-1, initial=0.5), lambda h: h.max(-1)],
    np.amax: each(np.amax, AXES),
    np.min: [*each(np.min, AXES), lambda h: np.min(h, axis=-1, initial=0.5, where=h > 0.3)],
    np.amin: each(np.amin, AXES),
    np.prod: [*each(np.prod, AXES), lambda h: np.prod(h - h[:1], axis=-1), lambda h: h.prod()],
    np.sort: [*each(np.sort, [*LENGTHWISE, {"axis": None}]), lambda h: np.sort(h, 0)],
    np.partition: [*each(np.partition, LENGTHWISE, 1), lambda h: np.partition(h, 3, None)],
    np.linalg.solve: on(
        lambda h: np.linalg.solve(matrices(h), h[..., None]), lambda h: np.linalg.solve(matrices(h), other(h)),
        lambda h: np.linalg.solve(other(h), h[..., None]), lambda h: np.linalg.solve(matrices(h), h[0]),
    ),
    np.linalg.inv: on(lambda h: np.linalg.inv(matrices(h))),
    np.cumprod: [*each(np.cumprod, [*LENGTHWISE, {}]), lambda h: h.cumprod(-1)],
    np.var: [*each(np.var, [*AXES, {"axis": -1, "ddof": 1}]), lambda h: h.var(-1)],
    np.std: each(np.std, [*AXES, {"axis": 0, "ddof": 1.5}]),
    np.ptp: each(np.ptp, AXES),
    np.median: each(np.median, [*LENGTHWISE, {}, {"keepdims": True}, {"axis": 0, "keepdims": True}]),
    np.linalg.norm: on(
        *each(np.linalg.norm, [*AXES[:3], {"axis": (-2, -1)}, {"keepdims": True}, {"ord": "fro"}]),
        *(lambda h, p=p: np.linalg.norm(h - 0.5, p, -1) for p in (1, 1.5, 2, 3, np.inf, -np.inf)),
    ),
    np.linalg.vector_norm: each(np.linalg.vector_norm, [*AXES, {"axis": (0, 1), "ord": 3}]),
    np.average: on(
        lambda h: np.average(h, axis=-1), lambda h: np.average(h, -1, h * h), lambda h: np.average(other(h), 0, h[:3])
    ),
    np.select: on(lambda h: np.select([h > 0.6, h > 0.3], [h * h, 2 * h]), lambda h: np.select([h > 0.5], [h], -h)),
    np.nan_to_num: on(np.nan_to_num),
    np.angle: on(lambda h: np.angle(h + 2j * h * h)),
    # Linear ones.
    np.reshape: on(lambda h: np.reshape(h, (2, 6))), np.ravel: on(np.ravel, lambda h: h.flatten()),
    np.transpose: on(np.transpose, lambda h: h.T), np.moveaxis: on(lambda h: np.moveaxis(h, 0, 1)),
    np.swapaxes: on(lambda h: np.swapaxes(h, 0, 1)), np.expand_dims: on(lambda h: np.expand_dims(h, 1)),
    np.squeeze: on(lambda h: np.squeeze(h[:, None])), np.broadcast_to: on(lambda h: np.broadcast_to(h, (2, 4, 3))),
    np.roll: on(lambda h: np.roll(h, 1, -1)), np.flip: on(lambda h: np.flip(h, -1)), np.rot90: on(np.rot90),
    np.take: on(lambda h: np.take(h, [0, 2, 2], axis=-1)),
    np.take_along_axis: on(lambda h: np.take_along_axis(h, np.argsort(h, axis=-1), axis=-1)),
    np.repeat: on(lambda h: np.repeat(h, 2, axis=0)), np.tile: on(lambda h: np.tile(h, 2)),
    np.sum: [*each(np.sum, AXES), lambda h: np.sum(h, axis=-1, initial=2.0, where=h > 0.3)],
    np.mean: each(np.mean, AXES), np.cumsum: each(np.cumsum, [*LENGTHWISE, {}]),
    np.diff: on(lambda h: np.diff(h, prepend=1.0)), np.trace: on(np.trace), np.trapezoid: on(np.trapezoid),
    np.pad: on(lambda h: np.pad(h, 1, constant_values=2.0), lambda h: np.pad(h, 1, "wrap")), np.copy: on(np.copy),
    np.concatenate: on(lambda h: np.concatenate([h, other(h), h * h])), np.stack: on(lambda h: np.stack([h, 2 * h])),
    np.hstack: on(lambda h: np.hstack([h, h])), np.vstack: on(lambda h: np.vstack([h, other(h)])),
    np.dstack: on(lambda h: np.dstack([h, h * h])), np.column_stack: on(lambda h: np.column_stack([h, h[:, 0]])),
    np.fliplr: on(np.fliplr), np.flipud: on(np.flipud), np.matrix_transpose: on(np.matrix_transpose, lambda h: h.mT),
    np.atleast_2d: on(np.atleast_2d, lambda h: np.atleast_2d(h[0])),
    np.atleast_1d: on(np.atleast_1d), np.diagonal: on(np.diagonal), np.diag: on(lambda h: np.diag(h[0])),
    np.tril: on(np.tril), np.triu: on(np.triu), np.delete: on(lambda h: np.delete(h, 1, axis=-1)),
    np.real: on(lambda h: np.real(h * 1j * h + h), lambda h: (h + 1j).real),
    np.imag: on(lambda h: ((1j + h) ** 2).imag),
    np.conjugate: on(lambda h: np.conjugate((1 + 2j) * h).imag, lambda h: (1j * h).conj().imag),
    np.fft.fft: on(lambda h: abs(np.fft.fft(h))), np.fft.ifft: on(lambda h: np.fft.ifft(h).imag),
    np.fft.rfft: on(lambda h: np.fft.rfft(h).real), np.fft.irfft: on(lambda h: np.fft.irfft(h)),
    np.fft.fftshift: on(np.fft.fftshift), np.fft.ifftshift: on(np.fft.ifftshift),
    # Multilinear ones.
    np.matmul: on(lambda h: h @ other(h) @ h.T), np.dot: on(lambda h: np.dot(h, h.T), lambda h: h.dot(other(h))),
    np.einsum: on(lambda h: np.einsum("ti,ij,tj->t", h, other(h), h)),
    np.tensordot: on(lambda h: np.tensordot(h, h, axes=(-1, -1))), np.inner: on(lambda h: np.inner(h, h)),
    np.outer: on(lambda h: np.outer(h, h)), np.vdot: on(lambda h: np.vdot(h, h)),
    np.cross: on(lambda h: np.cross(h, h * h)),
    np.kron: on(lambda h: np.kron(h, h)), np.convolve: on(lambda h: np.convolve(h[0], h[1])),
    np.vecdot: on(lambda h: np.vecdot(h, h * h)), np.matvec: on(lambda h: np.matvec(other(h), h)),
    np.vecmat: on(lambda h: np.vecmat(h, other(h))),
    # Several results.
    np.split: on(lambda h: sum(k * x for k, x in enumerate(np.split(h, 3, axis=-1)))),
    np.array_split: on(lambda h: np.array_split(h, 2)[1]), np.hsplit: on(lambda h: np.hsplit(h, 3)[2]),
    np.vsplit: on(lambda h: np.vsplit(h, 2)[0]), np.unstack: on(lambda h: np.prod(np.stack(np.unstack(h)), axis=0)),
}  # fmt: skip
OTHERS = {
    "clip with bounds": lambda h: np.clip(other(h)[:, :1] / 2, -h[:3], h[:3]) + np.clip(h[:3], 0.3, None),
    "maximum.reduce": lambda h: np.maximum.reduce(h) + np.minimum.reduce(h, axis=-1, keepdims=True)[:3, 0],
    "add.reduce": lambda h: np.add.reduce(h) + np.add.accumulate(h)[1],
    "multiply": lambda h: np.multiply.reduce(h, axis=0) + np.multiply.accumulate(h, axis=1)[2],
    "outer": lambda h: np.hypot.outer(h, h[0] + 1),
    "accumulate": lambda h: np.maximum.accumulate(h - 0.5) + np.minimum.accumulate(h, axis=-1),
    "logaddexp": lambda h: np.logaddexp.reduce(h, axis=-1, keepdims=True) + np.logaddexp.accumulate(h, axis=-1),
    "softmax": lambda h: (
        softmax(3 * h) + softmax(h, axis=0) * logsumexp(1000 * h, keepdims=True) + logsumexp(h)[:, None]
    ),
    "one hot": lambda h: (np.arange(3) == np.argmax(h, axis=-1)[:, None]) * h,
    "gather": lambda h: h[np.argsort(h, axis=0), np.arange(3)] * h[h > 0.5].sum(),
    "hypot": lambda h: np.hypot(h, 1 - h) ** np.hypot(h, 2.0),
    "powers": lambda h: h**0.5 + h**h + 2**h + h**-1.5 + np.float_power(h, 2).astype(h.dtype),
    "complex": lambda h: abs(np.exp(1j * h) / (h + 2j) ** 2) + abs((h - 0.5j).sum(-1, keepdims=True)) ** 3,
    "complex product": lambda h: np.prod(h + 1j * h * h, axis=-1).imag,
    "complex solve": lambda h: np.linalg.solve(matrices(h) * (1 + 1j), h[..., None] * 1j).real + np.linalg.norm(h * 1j),
    "complex norm": lambda h: np.linalg.norm(h + 1j * h * h, axis=-1) + np.var(h * 1j + h * h) + np.mean(h * 1j).imag,
}
ARGUMENTS = {
    "arccosh": lambda h: (h + 1.5,),
    "remainder": lambda h: (5 * h, h + 0.2),
    "fmod": lambda h: (-5 * h, h + 0.2),
}
SLOPES = {
    name: lambda h, name=name: (getattr(np, name, None) or getattr(scipy.special, name))(
        *ARGUMENTS.get(name, lambda h: (h, 1 - h))(h)[: len(rules.SLOPES[name])]
    )
    for name in rules.SLOPES
}
ALL = [
    *(pytest.param(f, id=f"{k.__name__}-{i}") for k, calls in CASES.items() for i, f in enumerate(calls)),
    *(pytest.param(f, id=name) for name, f in {**OTHERS, **SLOPES}.items()),
]


def points(dtype=np.float64):
    """Return rows (4, 3) of numbers in (0, 1) that are far from each other and from 0.5 by more than a step."""
    x = (np.random.default_rng(0).permutation(12).reshape(4, 3) + 0.7).astype(dtype) / dtype(12.5)
    x.flags.writeable = False
    return x


def lifted(x, m=3, kind=StateTangent):
    directions = np.random.default_rng(1).standard_normal((m, *x.shape)).astype(x.dtype)
    return kind.seeded(x, directions), directions


def test_every_rule_is_tried():
    assert {*rules.RULES, *rules.COMPOSITIONS, *rules.LINEAR, *rules.MULTILINEAR, *rules.PARTS} == set(CASES)


@pytest.mark.parametrize("f", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_are_those_of_numpy_and_derivatives_those_of_differences(f, dtype):
    x = points(dtype)
    tangent, directions = lifted(x)
    out, value = f(tangent), f(x)
    assert type(out) is StateTangent
    np.testing.assert_array_equal(out.value, value)
    assert np.asarray(out.value).dtype == np.asarray(value).dtype
    assert out.directions.dtype == out.value.dtype
    assert out.directions.shape == (3, *np.shape(value))
    x, step = x.astype("f8"), 1e-6
    differences = [(f(x + step * v) - f(x - step * v)) / (2 * step) for v in directions.astype("f8")]
    tolerance = 1e-7 if dtype is np.float64 else 2e-4
    np.testing.assert_allclose(
        out.directions, differences, rtol=tolerance, atol=tolerance * abs(np.array(differences)).max()
    )


@pytest.mark.parametrize("f", ALL)
@pytest.mark.filterwarnings("default::numpy.exceptions.ComplexWarning")  # an error would be caught
def test_gradients_are_those_of_the_directions(f):
    x = points()
    tangent, directions = lifted(x)
    out = f(tangent)
    c = np.random.default_rng(2).standard_normal(np.shape(out.value))
    for u in (x[None], None):  # as an input, and as a parameter
        rec = rs.Recurrence.from_function(
            lambda h, u, p: 0.5 * h,
            inputs=u,
            initial=np.zeros(1),
            length=1,
            parameters={"x": x} if u is None else {},
            structure="diagonal",
            readout=lambda h, u, p: (f(p.x) if u is None else f(u[0]))[None],
        )
        g = rs.adjoint(rs.solve(rec), output=c[None])
        got = g.parameters.x if u is None else g.inputs[0]
        wanted = [(c * moved).sum() for moved in out.directions]
        np.testing.assert_allclose([(v * got).sum() for v in directions], wanted, rtol=1e-10, atol=1e-10)


REDUCTIONS = [np.max, np.amin, np.prod, np.sort, np.sum, np.cumprod, np.linalg.norm, np.argmax, np.std, np.median]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("f", REDUCTIONS)
@pytest.mark.parametrize("shape", [(4, 0), (0, 3), (1, 1)])
def test_axes_without_entries(f, shape):
    x = np.ones(shape)
    for axis in (0, -1):
        try:
            with np.errstate(all="ignore"):
                wanted = f(x, axis=axis)
        except ValueError as error:
            with pytest.raises(ValueError, match=str(error)[:20]):
                f(lifted(x)[0], axis=axis)
            continue
        with np.errstate(all="ignore"):
            got = f(lifted(x)[0], axis=axis)
        np.testing.assert_array_equal(getattr(got, "value", got), wanted)
        if isinstance(got, Tangent) and got.partials:
            assert got.directions.shape == (3, *np.shape(wanted))


TIED = np.array([[1.0, 2, 2, 0], [2, 2, 2, 2], [0, 0, 1, 1], [3, -1, 2, 3]])


@pytest.mark.parametrize("ties", [None, 0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_a_maximum_over_an_axis_is_that_of_its_entries_one_after_the_other(name, ties):
    pair = getattr(np, name)
    over = {"maximum": np.max, "minimum": np.min}[name]
    directions = np.random.default_rng(0).standard_normal((5, 4, 4))
    h = StateTangent.seeded(TIED, directions)
    with ties_in_force(check_ties(ties)):
        one_by_one = functools.reduce(pair, [h[:, k] for k in range(4)])
        for got in (over(h, axis=-1), pair.reduce(h, axis=1), over(h.T, axis=0), over(h, axis=(1,))):
            np.testing.assert_allclose(got.directions, one_by_one.directions, rtol=1e-15)
        np.testing.assert_allclose(pair.accumulate(h, axis=1)[:, -1].directions, one_by_one.directions, rtol=1e-15)
        whole = functools.reduce(pair, [h[i, k] for i in range(4) for k in range(4)])
        for got in (over(h), h.T.T.max() if name == "maximum" else h.min(), over(h, axis=(0, 1))):
            np.testing.assert_allclose(got.directions, whole.directions, rtol=1e-15)
        bounded = over(h, axis=-1, initial=2.0)
        np.testing.assert_allclose(bounded.directions, pair(one_by_one, 2.0).directions, rtol=1e-15)
        ones = over(StateTangent.seeded(TIED, np.ones((1, 4, 4))), axis=-1)
    np.testing.assert_allclose(ones.directions, np.ones((1, 4)), rtol=1e-15)


def test_ties_are_selected_not_multiplied():
    with np.errstate(all="ignore"):
        h = np.log(StateTangent.seeded(np.array([0.0, 1.0, 1.0]), np.ones((1, 3))))
        np.testing.assert_array_equal(np.max(h).directions, [1])
        np.testing.assert_array_equal(np.sort(h).directions, [[np.inf, 1, 1]])
        np.testing.assert_array_equal(np.floor(h).partials.keys(), [])


def test_what_is_equal_keeps_its_order_when_sorted():
    h, directions = lifted(np.array([2.0, 1.0, 2.0, 1.0]))
    np.testing.assert_array_equal(np.sort(h).directions, directions[:, [1, 3, 0, 2]])
    np.testing.assert_allclose(np.partition(h, 2).directions.sum(1), directions.sum(1))


def test_derivatives_where_a_function_is_zero():
    zeros, _ = lifted(np.zeros((2, 3)))
    for f in (
        np.linalg.norm,
        np.std,
        np.var,
        np.ptp,
        lambda h: np.hypot(h, h),
        lambda h: np.linalg.norm(h, 3, axis=-1),
    ):
        assert (f(zeros).directions == 0).all(), f
    assert (np.linalg.norm(zeros * 1j, axis=0).directions == 0).all()
    exponent = StateTangent.seeded(np.array([1.0, 2.0]), np.ones((1, 2)))
    np.testing.assert_array_equal((0.0**exponent).directions, [[0, 0]])
    np.testing.assert_array_equal((exponent**exponent.value).directions, [[1, 4]])
    base = StateTangent.seeded(np.zeros(4), np.ones((1, 4)))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal((base ** np.array([0.0, 0.5, 1.0, 2.0])).directions, [[0, np.inf, 1, 0]])
    one = StateTangent.seeded(np.array([0.0, 2.0, 0.0, 3.0]), np.eye(4))
    np.testing.assert_array_equal(np.prod(one[:2]).directions, [2, 0, 0, 0])
    np.testing.assert_array_equal(np.prod(one).directions, np.zeros(4))


PLAIN = {
    np.argmax: (-1,), np.argmin: (), np.argsort: (), np.argpartition: (1,), np.count_nonzero: (), np.any: (),
    np.all: (),
    np.digitize: ([0.2, 0.6],), np.nonzero: (), np.flatnonzero: (), np.argwhere: (), np.isclose: (0.5,),
    np.allclose: (0.5,), np.array_equal: (0.5,), np.isreal: (), np.iscomplex: (), np.isrealobj: (), np.iscomplexobj: (),
    np.result_type: (np.float32,), np.logical_and: (True,), np.logical_or: (False,), np.logical_xor: (True,),
    np.logical_not: (), np.signbit: (), np.greater: (0.5,), np.isnan: (), np.equal: (0.5,),
}  # fmt: skip


@pytest.mark.parametrize("f", PLAIN)
def test_what_no_direction_moves_is_a_plain_array(f):
    x = points()
    got, wanted = f(lifted(x)[0], *PLAIN[f]), f(x, *PLAIN[f])
    assert type(got) is type(wanted)
    np.testing.assert_array_equal(got, wanted)
    assert {*PLAIN, np.searchsorted, np.empty_like} >= rules.PLAIN
    np.testing.assert_array_equal(np.searchsorted([0.2, 0.6], lifted(x)[0]), np.searchsorted([0.2, 0.6], x))


STEPS = {
    "round": lambda h: np.round(10 * h) + np.around(h, 1) + h.round(2) + h.round(),
    "sign": lambda h: np.sign(h - 0.5) + np.heaviside(h - 0.5, 0.0) + (3 * h) // 1 + np.copysign(1.0, h - 0.5),
    "floor": lambda h: np.floor(3 * h) + np.ceil(5 * h) + np.trunc(4 * h) + np.rint(9 * h) + np.fix(7 * h),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_are_flat(name):
    x, f = points(), STEPS[name]
    out = f(lifted(x)[0])
    np.testing.assert_array_equal(out.value, f(x))
    assert not np.any(out.partials.get("directions", 0))
    rec = gallery.function(lambda h, u: f(h) + u, x, "dense")
    sol = rs.solve(rec, method="newton")
    assert sol.trusted
    np.testing.assert_array_equal(sol.states, rs.solve(rec, method="sequential").states)


SYSTEMS = {
    "attention": lambda h, u: np.tanh(softmax(h[..., :, None] * h[..., None, :]) @ (h + u)[..., None])[..., 0],
    "layer norm": lambda h, u: 0.4 * (h - h.mean(-1, keepdims=True)) / (h.std(-1, keepdims=True) + 0.5) + u,
    "unit vector": lambda h, u: 0.8 * (h + u) / (1e-3 + np.linalg.norm(h + u, axis=-1, keepdims=True)),
    "greedy": lambda h, u: (
        0.9 * np.take_along_axis(np.tanh(h), np.argsort(u, axis=-1), -1) + W[np.argmax(h, axis=-1)] * u
    ),
    "sorted": lambda h, u: 0.9 * np.sort(np.sin(h + u), axis=-1)[..., ::-1],
    "tropical": lambda h, u: (
        np.max(np.minimum(other(h), h[..., None, :]), axis=-1) + u - np.max(h, axis=-1, keepdims=True)
    ),
    "implicit": lambda h, u: np.linalg.solve(matrices(np.tanh(h)), (h + u)[..., None])[..., 0],
    "oscillator": lambda h, u: np.stack(
        [g(0.9 * np.exp(0.3j) * np.tanh(h[..., 0] + 1j * h[..., 1] + u[..., 0])) for g in (np.real, np.imag, abs)], -1
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_are_solved_trusted_and_differentiated(name):
    """What trained systems and filters are made of: newton, trust, the check of the structure, and the adjoint."""
    u = np.random.default_rng(3).standard_normal((25, 2, 3))
    rec = gallery.function(SYSTEMS[name], u, "dense")
    sol = rs.solve(rec, method="newton")
    assert sol.trusted, sol
    np.testing.assert_allclose(sol.states, rs.solve(rec, method="sequential").states, atol=1e-10)
    assert rs.check_structure(rec, states=sol.states)
    c = np.random.default_rng(4).standard_normal(u.shape)
    g, v = rs.adjoint(sol, states=c), np.random.default_rng(5).standard_normal(u.shape)

    def loss(step):
        moved = gallery.function(SYSTEMS[name], u + step * v, "dense")
        return float((c * rs.solve(moved, method="sequential").states).sum())

    numeric = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert math.isclose(float((g.inputs * v).sum()), numeric, rel_tol=1e-5, abs_tol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted({*SYSTEMS} - {"greedy"}))
def test_systems_on_a_gpu(name):
    import cupy

    u = np.random.default_rng(3).standard_normal((25, 2, 3))
    sol = rs.solve(gallery.function(SYSTEMS[name], u, "dense"), method="newton")
    zeros = cupy.zeros(u.shape[1:])
    there = rs.Recurrence.from_function(SYSTEMS[name], inputs=cupy.asarray(u), initial=zeros, structure="dense")
    found = rs.solve(there, method="newton")
    assert found.success
    np.testing.assert_allclose(found.states.get(), sol.states, atol=1e-9)
    wanted, got = (rs.adjoint(s, final=s.final) for s in (sol, found))
    np.testing.assert_allclose(got.inputs.get(), wanted.inputs, atol=1e-9)


def test_complex_states_are_refused_with_the_way_to_write_them():
    with pytest.raises(TypeError, match=r"initial has dtype complex128.*real and imaginary parts"):
        gallery.function(lambda h, u: h * 1j + u, np.ones((5, 2), complex))


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8"])
def test_softmax_of_arrays_has_the_bits_of_its_definition(dtype):
    """Also where numbers are infinite or none, and for shapes without or with one axis; nothing is written to."""
    rng = np.random.default_rng(0)
    for shape in ((3, 5), (5,), (), (2, 1, 4), (0, 3)):
        for fault in (0, np.inf, -np.inf, np.nan):
            x = np.array(5 * rng.standard_normal(shape)).astype(dtype)
            if x.dtype.kind == "f" and x.ndim:
                x[..., -1:] += fault
                x[1:] = fault if fault == -np.inf and x.ndim > 1 else x[1:]
            with np.errstate(all="ignore"):
                top = np.max(x, axis=-1, keepdims=True)
                e = np.exp(x - np.where(np.isfinite(top), top, 0))
                wanted, found = e / np.sum(e, axis=-1, keepdims=True), softmax(freeze(x))
            assert found.dtype == wanted.dtype
            assert found.tobytes() == wanted.tobytes()
