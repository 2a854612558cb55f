"""check_structure finds wrong declarations and names the right one; true derivatives are never refused."""

import gallery
import numpy as np
import pytest
import scipy.special
from conftest import SLOW
from random_functions import problem
from test_laws import STRUCTURES, affine

import recsolve as rs
from recsolve.analysis.structure_truth import verify_jacobian

W = np.random.default_rng(0).standard_normal((4, 4))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_true_declarations_hold_and_the_smallest_is_found(structure):
    report = rs.check_structure(affine(structure, seed=1))
    assert report, report
    assert report.found == structure


FLAT = ("zero", "identity", "scalar", "diagonal", "dense")  # those whose events are (n,)


@pytest.mark.parametrize("declared", FLAT)
@pytest.mark.parametrize("true", FLAT)
def test_wrong_declarations_are_found(true, declared):
    rec = affine(true, seed=1)
    wrong = rs.Recurrence.from_function(rec.f, inputs=rec.inputs[0], initial=rec.initial, structure=declared)
    contained = true == declared or (FLAT.index(true) < FLAT.index(declared) and declared != "identity")
    report = rs.check_structure(wrong)
    assert report.ok == contained
    assert report.found == true
    if not contained:
        assert f"declare structure={true!r}" in str(report)


@pytest.mark.parametrize("axis", [0, 1])
def test_mixing_times_or_sequences_is_found(axis):
    rec = gallery.function(lambda h, u: 0.1 * h.mean(axis=axis, keepdims=True) + 0 * h + u, np.ones((9, 3, 4)), "dense")
    report = rs.check_structure(rec)
    assert not report
    assert "mixes times or sequences" in report.message


@pytest.mark.parametrize("cell", gallery.CELLS, ids="-".join)
def test_the_cells_own_structures_are_true(cell):
    report = rs.check_structure(gallery.recurrence(*cell, T=5))
    assert report, report
    assert report.found == report.declared or report.declared not in STRUCTURES


def test_edges():
    assert rs.check_structure(affine("dense", 0, T=0))
    assert rs.check_structure(affine("dense", 0, T=1))
    with pytest.raises(ValueError, match="samples is 0"):
        rs.check_structure(affine("dense", 0), samples=0)
    with pytest.raises(ValueError, match="states has shape"):
        rs.check_structure(affine("dense", 0), states=np.ones(3))
    rec = affine("dense", 0)
    assert rs.check_structure(rec, states=gallery.loop(rec))


RANDOM = 1000 if SLOW else 60


def verdicts(p, **declarations):
    return {name: verify_jacobian(rec, p.states).holds for name, rec in declarations.items()}


def test_true_derivatives_of_random_functions_are_never_refused():
    believed = []
    for seed in range(RANDOM):
        p = problem(seed, T=8)
        found = verdicts(
            p,
            automatic=p.declared(opaque=False),
            given=p.declared(jacobian=p.jacobian(), opaque=False),
            opaque=p.declared(jacobian=p.jacobian()),
        )
        assert False not in found.values(), (seed, found)
        believed += [holds is True for holds in found.values()]
    assert np.mean(believed) > 0.95


def test_derivatives_that_are_one_hundredth_off_are_refused():
    caught = {}
    for seed in range(RANDOM):
        p = problem(seed, T=8)
        J = p.entries()
        if J is None or (np.isfinite(J) & (abs(J) > 1e-6)).mean() < 0.5:
            continue  # f is flat
        off = p.jacobian(1 + 0.01 * np.random.default_rng(seed).choice([-1, 1], J.shape))
        declarations = {
            "given": p.declared(jacobian=off, opaque=False),
            "opaque": p.declared(jacobian=off),
            "zero": p.declared("zero"),
        }
        if p.structure == "dense" and (abs(J * (1 - np.eye(3))) > 1e-3 * abs(J).max()).mean() > 0.5:
            declarations["diagonal"] = p.declared("diagonal", opaque=False)
        for name, holds in verdicts(p, **declarations).items():
            caught.setdefault(name, []).append(holds is False)
    assert len(caught["given"]) > RANDOM / 3
    assert len(caught["diagonal"]) > RANDOM / 20
    for name, found in caught.items():
        assert np.mean(found) > 0.95, name
    assert all(caught["diagonal"])


def relu(h, u):
    return 0.5 * h + 0.01 * np.maximum(h, 0) + u


def untraceable(f):
    """Return f, of which automatic differentiation knows nothing."""
    return lambda h, u: np.asarray(f(np.asarray(h), u))


@pytest.mark.parametrize("f", [relu, untraceable(relu)])
def test_at_a_kink_every_slope_between_both_sides_is_true(f):
    for slope, ok in ((0.5, True), (0.503, True), (0.51, True), (0.49, False), (0.53, False)):
        rec = gallery.function(f, np.zeros((9, 2)), jacobian=lambda h, u, slope=slope: np.full_like(h, slope))
        assert rs.check_structure(rec, states=np.zeros((9, 2))).ok == ok, slope


@pytest.mark.parametrize("structure", ["zero", "identity", "diagonal", "dense"])
def test_functions_that_cannot_be_differentiated_are_searched_by_differences(structure):
    rec = affine(structure, seed=1)
    found = {}
    for declared in ("zero", "identity", "dense"):
        wrong = rs.Recurrence.from_function(
            untraceable(rec.f), inputs=rec.inputs[0], initial=rec.initial, structure=declared
        )
        found[declared] = report = rs.check_structure(wrong)
        assert report.found == structure
        assert report.ok == (declared == structure and declared != "dense")
    assert "cannot be differentiated" in found["dense"].message


def logistic(structure, f=lambda h, u: 3.9 * h * (1 - h), **given):
    rec = rs.Recurrence.from_function(f, length=200, initial=np.array([0.3, 0.4]), structure=structure, **given)
    return rs.solve(rec, method="sequential")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"structure": "zero"}, "not the derivative"),
        ({"structure": "diagonal", "jacobian": lambda h, u: 0 * h}, "not the derivative"),
        ({"structure": "diagonal", "f": lambda h, u: 0.9 * h[..., ::-1] + 0 * h}, "not the derivative"),
        ({"structure": "dense", "f": lambda h, u: np.interp(0.5 * h, [-9, 9], [-9, 9])}, "cannot be differentiated"),
        ({"structure": "zero", "f": lambda h, u: np.interp(0.5 * h, [-9, 9], [-9, 9])}, "not the derivative"),
    ],
)
def test_nothing_is_trusted_whose_derivative_is_not_known(given, why):
    sol = logistic(**given)
    assert sol.success
    assert not sol.trusted
    assert np.isnan(sol.condition)
    assert np.isnan(sol.error_estimate)
    assert why in sol.message
    assert "trusted: False" in repr(sol)


def stepwise(h):
    out = np.empty(h.shape, h.dtype)
    for i in range(h.shape[-1]):
        out[..., i] = np.sin(h[..., i])
    return out


def guarded(error):
    def f(h):
        if type(h) is not np.ndarray:
            raise error
        return np.sin(h)

    return f


WITHOUT_DERIVATIVE = {
    "conversion": lambda h: np.sin(np.asarray(h)),
    "writing": stepwise,
    "a function without a rule": lambda h: np.fmax(h, -1),
    "decompositions": lambda h: h / (1 + np.linalg.svd(h[..., None], compute_uv=False)),
    "SciPy": lambda h: np.sin(scipy.special.j0(h)),
    "one number at a time": lambda h: np.vectorize(lambda x: min(x, 1.0))(h),
    "TypeError": guarded(TypeError("only arrays")),
    "ValueError": guarded(ValueError("only arrays")),
    "an error of its own": guarded(RuntimeError("only arrays")),
}


@pytest.mark.parametrize("declared", ["dense", "zero"])
@pytest.mark.parametrize("name", WITHOUT_DERIVATIVE)
def test_functions_without_a_derivative_have_unknown_errors_and_say_why(name, declared):
    f, u = WITHOUT_DERIVATIVE[name], np.random.default_rng(0).standard_normal((30, 3))
    rec = gallery.function(lambda h, u: 0.5 * f(h) + u, u, declared)
    sol = rs.solve(rec, method="jacobi")
    assert sol.success
    assert not sol.trusted
    assert np.isnan([sol.condition, sol.error_estimate]).all()
    why = "cannot be differentiated" if declared == "dense" else "not the derivative of f"
    assert why in sol.message
    assert why in repr(sol)
    assert not rs.check_structure(rec)
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        rs.adjoint(sol, states=u).initial  # noqa: B018
    assert declared == "zero" or sol.error_bound == np.inf


def test_a_cell_without_a_derivative_is_not_trusted():
    cell = rs.Cell(lambda s, W, u, p: 0.5 * np.sinc(s.h) + u.x, state=("h",), output="h").with_weights(hidden_size=2)
    sol = rs.solve(cell.recurrence(drive={"x": np.ones((20, 2))}), method="jacobi")
    assert sol.success
    assert np.isnan(sol.condition)
    assert np.isnan(sol.error_estimate)
    assert not sol.trusted
    assert "cannot be differentiated" in sol.message


def test_what_ignores_the_state_is_trusted_without_a_derivative():
    u = np.random.default_rng(0).standard_normal((50, 3))
    rec = gallery.function(untraceable(lambda h, u: np.sin(u)), u, "zero")
    assert rs.solve(rec).trusted


def test_exponents_of_a_false_jacobian_are_refused():
    with pytest.raises(ValueError, match="is not the derivative of f"):
        rs.diagnose(logistic("zero").recurrence)


def relu_network(seed, T=10):
    """Return a network that is a step, its inputs, many of which are 0, and its states, many of which are at kinks."""
    rng, dtype = np.random.default_rng(seed), (np.float64, np.float32)[seed % 2]
    n, biased = int(rng.integers(2, 6)), rng.random() < 0.5
    layers = [
        (rng.uniform(0.5, 1.5) * rng.standard_normal((2, n, n)) / n**0.5, biased * rng.standard_normal(n))
        for _ in range(int(rng.integers(1, 4)))
    ]

    def f(h, u):
        for (V, skip), b in layers:
            h = np.maximum(h @ V.T.astype(dtype) + b.astype(dtype), 0) + 0.3 * (h @ skip.T.astype(dtype))
        return 0.9 * np.tanh(h) + u

    u = (rng.standard_normal((T, n)) * (rng.random((T, n)) < 0.5) * (rng.random() < 0.7)).astype(dtype)
    automatic = gallery.function(f, u, "dense")
    return automatic, u, automatic.previous(rs.solve(automatic, method="sequential").states)


WRONG = {
    "sign": lambda J: -J,
    "scale": lambda J: 0.9 * J,
    "transposed": lambda J: J.swapaxes(-1, -2),
    "missing": lambda J: J * (np.arange(J.shape[-1]) > 0),
}


@pytest.mark.parametrize("seed", range(200 if SLOW else 12))
def test_networks_with_kinks_are_believed_and_wrong_jacobians_of_them_are_not(seed):
    automatic, u, previous = relu_network(seed)
    assert rs.check_structure(automatic)
    assert verify_jacobian(automatic, previous).holds

    def given(f, change):
        def jacobian(h, u):
            J = gallery.function(automatic.f, u, "dense").differentiate(h)[1].todense()
            return np.ascontiguousarray(change(J))

        return gallery.function(f, u, "dense", jacobian=jacobian)

    J = automatic.differentiate(previous)[1].todense()
    for f in (automatic.f, untraceable(automatic.f)):
        assert verify_jacobian(given(f, lambda J: J), previous).holds is not False
        sol = rs.solve(given(f, lambda J: J), method="sequential")
        assert np.isfinite(rs.adjoint(sol, final=sol.final).initial).all()
        for name, change in WRONG.items():
            if (abs(change(J) - J) > 0.01 * abs(J).max()).any(axis=(1, 2)).mean() < 0.3:
                continue  # hardly wrong
            assert verify_jacobian(given(f, change), previous).holds is False, name


def test_a_jacobian_that_is_wrong_where_f_is_smooth_is_refused_though_it_is_right_beside():
    rec = gallery.function(
        untraceable(lambda h, u: np.sin(h) + u), np.zeros((9, 2)), jacobian=lambda h, u: np.where(h == 0, 0, np.cos(h))
    )
    assert verify_jacobian(rec, np.zeros((9, 2))).holds is False
