"""Second derivatives: against differences of first ones, over cells, mixings, functions, graphs and histories."""

import gallery
import numpy as np
import pytest
from test_mixings import made

import recsolve as rs
from recsolve.gradients.adjoint import gradients
from recsolve.gradients.second import Cotangents, second_adjoint

rng = np.random.default_rng(0)
EPS = 1e-5


def draw(*shape):
    return np.random.default_rng(sum(shape) + 7).standard_normal(shape)


def check(make, theta, *, output=True, final=True, method="newton"):
    """Compare second derivatives with differences of first ones along random directions of everything at once.

    ``make`` returns a recurrence of arrays by leaf, whose gradients are asked for.
    """

    def solved(moved):
        rec = make(moved)
        sol = rs.solve(rec, method=method, fallback="sequential", tol=1e-14)
        return rec, sol._iterate.states, sol

    generator = np.random.default_rng(1)
    normal = lambda x: generator.standard_normal(np.shape(x))  # noqa: E731
    v, w = ({leaf: normal(x) for leaf, x in theta.items()} for _ in range(2))
    rec, states, sol = solved(theta)
    c = Cotangents(
        normal(states), normal(rec.output(states)) if output else None, normal(states[-1]) if final else None
    )
    found = second_adjoint(rec, states, c, v)

    def first(sign):
        rec, states, _ = solved({leaf: x + sign * EPS * w[leaf] for leaf, x in theta.items()})
        g = gradients(rec, states, *c)
        return sum((g.of(leaf) * v[leaf]).sum() for leaf in theta if leaf != ("readout", None)), rec, states

    (ahead, _, _), (behind, _, _) = first(1), first(-1)
    slope = sum((found.leaves[leaf] * w[leaf]).sum() for leaf in theta)
    assert slope == pytest.approx((ahead - behind) / (2 * EPS), rel=1e-6, abs=1e-6)
    # By cotangents it is linear, so that they give back what first derivatives are.
    by_c = (found.states * c.states).sum()
    by_c += (found.output * c.output).sum() if output else 0
    by_c += (found.states[-1] * c.final).sum() if final else 0
    g = gradients(rec, states, *c)
    assert by_c == pytest.approx(sum((g.of(leaf) * v[leaf]).sum() for leaf in theta), rel=1e-9, abs=1e-9)
    assert found.leaves.keys() == rec.leaves().keys()
    return sol


def leaves_of(cell):
    return {**cell.leaves(), **(cell.projection.leaves() if cell.projection else {})}


def with_leaves(cell, theta):
    """Return a cell with other weights."""
    moved = {n: rs.base.overriding.changed(m, weight=theta["mixing", n]) for n, m in cell.mixings.items()}
    for m in moved.values():
        if isinstance(m, rs.mixings.Masked):
            m.within = rs.base.overriding.changed(m.within, weight=m.weight)
    P = cell.projection
    if P is not None:
        P = rs.Projection({n: theta["weight", n] for n in P.weights}, {n: theta["bias", n] for n in P.biases})
    parameters = {n: theta["parameter", n] for n in cell.parameters}
    return cell.cell.with_weights(mixings=moved, parameters=parameters, projection=P, hidden_size=cell.hidden_size)


@pytest.mark.parametrize("cell", gallery.CELLS, ids="-".join)
def test_second_derivatives_of_every_cell(cell):
    model = gallery.weighted(*cell, units=4, channels=2, seed=3, gain=1.5)
    reset = np.zeros((6, 2), bool)
    reset[3, 1] = reset[0, 0] = True
    theta = {("input", 0): draw(6, 2, 2), ("initial", None): 0.5 * draw(2, *model.layout.event), **leaves_of(model)}

    def make(theta):
        return with_leaves(model, theta).recurrence(theta["input", 0], initial=theta["initial", None], reset=reset)

    check(make, theta)


@pytest.mark.parametrize("name", made())
def test_second_derivatives_with_every_mixing(name):
    mixing, cell = made()[name], rs.cells.get("cho_gru")
    event = (*mixing.lanes, mixing.units)
    model = cell.with_weights(mixings=dict.fromkeys(cell.mixings, mixing))
    theta = {**leaves_of(model), **{("drive", n): draw(5, 2, *event) for n in cell.drives}}
    theta["drive", cell.drives[0]] = draw(5, 1, *event)  # broadcast over sequences
    theta["initial", None] = draw(2, *event)

    def make(theta):
        drive = {n: theta["drive", n] for n in cell.drives}
        return with_leaves(model, theta).recurrence(drive=drive, initial=theta["initial", None])

    check(make, theta)


def test_second_derivatives_of_sums_over_units():
    def delta(s, W, u, p):
        return rs.math.layer_norm(s.h - u.k * rs.math.dot(u.k, s.h) + p.a * W.h(s.h)) + u.v

    model = rs.Cell(delta, state=("h",), output="h").with_weights(
        mixings={"h": rs.mixings.Dense(0.3 * draw(4, 4))}, parameters={"a": draw(4)}
    )
    theta = {**leaves_of(model), ("drive", "k"): draw(5, 2, 4), ("drive", "v"): draw(5, 2, 4)}

    def make(theta):
        return with_leaves(model, theta).recurrence(drive={n: theta["drive", n] for n in "kv"})

    check(make, theta)


def test_second_derivatives_of_a_cell_with_a_readout():
    def readout(s, u, p):
        return np.tanh(s.h @ np.ones((4, 3)) * u.r[..., :3]) * p.b_n[:3]

    model = gallery.weighted("gru", "dense", units=4, channels=2)
    theta = {("input", 0): draw(6, 2, 2), **leaves_of(model)}
    check(lambda theta: with_leaves(model, theta).recurrence(theta["input", 0], readout=readout), theta)


def test_second_derivatives_of_a_linear_readout():
    from recsolve.recurrence.read_cell import ReadCell

    model = gallery.weighted("lstm", "dense", units=4, channels=2)
    theta = {("input", 0): draw(5, 2, 2), **leaves_of(model)}

    def make(theta):
        return ReadCell.of(with_leaves(model, theta), draw(3, 4)).recurrence(theta["input", 0])

    check(make, theta)


def test_second_derivatives_of_named_states_parameters_and_a_readout():
    rec = gallery.memory().window(0, 5)
    theta = {("input", 0): rec.inputs[0], ("parameter", "W"): rec.parameters.W, ("initial", None): 0.3 * draw(2, 10)}

    def make(theta):
        return rs.Recurrence.from_function(
            rec.f, inputs=theta["input", 0], state=rec.state, initial=theta["initial", None], structure="dense",
            parameters={"W": theta["parameter", "W"]}, readout=rec.readout, reset=np.arange(5) == 3,
        )  # fmt: skip

    check(make, theta)


def test_second_derivatives_of_a_function_with_what_does_not_move(monkeypatch):
    monkeypatch.setattr("recsolve.gradients.function_gradients._RECORDED", 20)  # several windows of time
    kind, table = np.arange(7) % 2, np.array([2, 0, 1])

    def f(h, u, p):
        moved = np.where(u["kind"][:, None, None] == 1, h[..., p.table] ** 2, np.exp(-h)) + 0.1 * np.arcsin(np.tanh(h))
        return (
            np.maximum(np.einsum("tbi,ij->tbj", np.tanh(moved), p.W), -0.3) * u["x"]
            + np.mean(u["x"], axis=-1)[..., None]
        )

    theta = {("input", 1): draw(7, 2, 3), ("parameter", "W"): draw(3, 3), ("initial", None): draw(2, 3)}

    def make(theta):
        return rs.Recurrence.from_function(
            f, inputs={"kind": kind, "x": theta["input", 1]}, initial=theta["initial", None],
            parameters={"W": theta["parameter", "W"], "table": table},
        )  # fmt: skip

    check(make, theta, output=False)


def test_second_derivatives_with_a_jacobian_of_the_users_own():
    theta = {("input", 0): draw(5, 3), ("initial", None): draw(3)}

    def make(theta):
        return rs.Recurrence.from_function(
            lambda h, u: np.sin(h) * u, inputs=theta["input", 0], initial=theta["initial", None], structure="diagonal",
            jacobian=lambda h, u: np.cos(h) * u,
        )  # fmt: skip

    check(make, theta)


@pytest.mark.parametrize("directions", [(1, 1), (-1, 1)])
def test_second_derivatives_of_a_graph(directions):
    grid = rs.graphs.grid((3, 4), directions=directions)
    theta = {("input", 0): draw(12, 2, 2), ("initial", None): draw(2, 2), ("parameter", "W"): draw(2, 2)}

    def make(theta):
        u = np.empty((12, 2, 2))
        u[grid.order] = theta["input", 0]
        return rs.Recurrence.from_graph(
            lambda h, u, p: np.tanh(h[0] @ p.W + h[1] ** 2 * 0.3 + u), grid, inputs=u.reshape(3, 4, 2, 2),
            initial=theta["initial", None], parameters={"W": theta["parameter", "W"]},
        )  # fmt: skip

    check(make, theta, output=False, final=False)


def test_second_derivatives_of_a_history():
    def F(y, u):
        before = np.concatenate([np.zeros_like(u[:1]), y[:-1]])
        return np.tanh(u + 0.5 * before * (np.tril(np.ones((len(u), len(u)))) @ before))

    theta = {("input", 0): draw(6, 2)}
    check(lambda theta: rs.Recurrence.from_history(F, inputs=theta["input", 0]), theta, method="jacobi")


class Positive(rs.mixings.Dense):
    """softplus of the weight: a map that is not linear in it."""

    def matvec(self, x):
        return x @ np.log1p(np.exp(self.weight)).T

    def weight_cotangent(self, g, x):
        return super().weight_cotangent(g, x) / (1 + np.exp(-self.weight))

    def weight_tangent(self, tangent, x):
        return super().weight_tangent(tangent / (1 + np.exp(-self.weight)), x)


class Curved(Positive):
    def weight_curvature(self, tangent, g, x):
        s = 1 / (1 + np.exp(-self.weight))
        return rs.mixings.Dense.weight_cotangent(self, g, x) * s * (1 - s) * tangent


def with_mixing(mixing):
    model = rs.cells.get("elman").with_weights(mixings={"h": mixing})
    theta = {**leaves_of(model), ("drive", "h"): draw(4, 3)}
    return lambda theta: with_leaves(model, theta).recurrence(drive={"h": theta["drive", "h"]}), theta


def test_a_mixing_that_bends_in_its_weight_says_how():
    weight = draw(3, 3) - 2
    rs.testing.check_mixing(Curved(weight))
    check(*with_mixing(Curved(weight)))
    with pytest.raises(TypeError, match=r"Positive defines matvec and no weight_curvature\(tangent, g, x\)"):
        check(*with_mixing(Positive(weight)))


def test_what_has_no_rule_is_named():
    theta = {("input", 0): draw(4, 3)}

    def make(theta):
        return rs.Recurrence.from_function(
            lambda h, u: np.cumsum(np.tanh(h), axis=-1) * 0.3 + u, inputs=theta["input", 0], initial=np.zeros(3)
        )

    assert np.isfinite(rs.adjoint(rs.solve(make(theta)), final=np.ones(3)).inputs).all()
    with pytest.raises(TypeError, match=r"numpy.cumsum has no transpose here: second derivatives"):
        check(make, theta)
