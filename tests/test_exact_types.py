"""Fast paths take what states its form: a subclass that overrides a method gets the reference's answer everywhere."""

import pickle
from functools import cached_property

import gallery
import numpy as np
import pytest
from closures import closures

import recsolve as rs
from recsolve.jacobians import Block, Diagonal, Identity, LaneDense, Scalar, Zero
from recsolve.jacobians.factored import Call, Factored
from recsolve.kernels.affine_scan import affine_scan
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.registry import get
from recsolve.math import tanh
from recsolve.mixings import MIXINGS, Mixing
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.engine import fused, staged, traced_of, walker

METHODS = ("sequential", "newton", "quasi_newton", "jacobi", "windowed", "damped_newton", "newton_krylov")
BACKENDS = ("numpy", "numba")
T, UNITS = 70, 4


class Half:
    """Half of what the class that it is mixed into does."""

    def matvec(self, x):
        return 0.5 * super().matvec(x)


def halved(kind):
    return type(f"Half{kind.__name__}", (Half, kind), {"__module__": __name__})


HALVED = {name: halved(kind) for name, kind in MIXINGS.items()}
globals().update({kind.__name__: kind for kind in HALVED.values()})  # for pickle


class Kernel(Mixing):
    """A circular convolution: its weight is no matrix."""

    name = "kernel"

    def __init__(self, weight, units):
        super().__init__(weight)
        self._units = units

    @property
    def units(self):
        return self._units

    def matvec(self, x):
        return sum(w * np.roll(x, shift, axis=-1) for shift, w in enumerate(self.weight))


def shape_of(kind, n=UNITS):
    return {"diagonal": (n,), "dense": (n, n), "heads": (2, n, n)}[kind]


def weight_of(kind, seed=0, dtype=np.float64):
    return (np.random.default_rng(seed).uniform(-0.8, 0.8, shape_of(kind))).astype(dtype)


def custom(kind, seed=0, dtype=np.float64):
    """A mixing of one's own, and the plain mixing that is the same map."""
    weight = weight_of("dense" if kind == "kernel" else kind, seed, dtype)
    if kind == "kernel":
        mixing = Kernel(weight[0, :2].copy(), UNITS)
        return mixing, rs.mixings.Dense(mixing.dense())
    return HALVED[kind](weight), MIXINGS[kind](0.5 * weight)


def drives(cell, kind, steps=T, dtype=np.float64):
    lanes = (2,) if kind == "heads" else ()
    rng = np.random.default_rng(7)
    return {name: rng.standard_normal((steps, 2, *lanes, UNITS)).astype(dtype) for name in cell.drives}


def pair(name, kind):
    """A recurrence with mixings of one's own, and the same with plain ones."""
    cell = rs.cells.get(name)
    found = [custom(kind, seed) for seed in range(len(cell.mixings))]
    lanes = (2,) if kind == "heads" else ()
    parameters = {p: np.full((*lanes, UNITS), 0.1) for p in cell.parameters}
    size = UNITS * (2 if lanes else 1)
    made = []
    for which in (0, 1):
        mixings = {n: m[which] for n, m in zip(cell.mixings, found, strict=True)}
        weighted = cell.with_weights(mixings=mixings, parameters=parameters, hidden_size=size)
        made.append(weighted.recurrence(drive=drives(cell, kind)))
    return made


KINDS = (*MIXINGS, "kernel")
CASES = [(name, kind) for name, cell in rs.cells.REGISTRY.items() if cell.mixings for kind in KINDS]


@pytest.mark.sample(every=2)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_cell_with_a_mixing_of_ones_own(name, kind, backend):
    own, plain = pair(name, kind)
    wanted = gallery.loop(plain)
    with rs.backend(backend):
        assert backend == "numba" or fused(own) is None
        assert fused(own) is staged(own) is walker(own) is None
        np.testing.assert_allclose(own.evaluate(wanted), plain.evaluate(wanted), rtol=1e-12, atol=1e-12)
        v = np.random.default_rng(0).standard_normal(own.shape)
        J, K = own.linearise(wanted)[1], plain.linearise(wanted)[1]
        for x, y in [(J.matvec(v), K.matvec(v)), (J.rmatvec(v), K.rmatvec(v)), (J.todense(), K.todense())]:
            np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12)
        for part in ("block", "diagonal"):
            ours, theirs = (getattr(x, part)().todense() for x in (J, K))
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)
        for method in METHODS if name in ("elman", "cho_gru", "lstm") else ("newton",):
            sol = rs.solve(own, method=method)
            assert sol.success, (method, sol.message)
            np.testing.assert_allclose(sol.states, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_condition_and_bounds_with_a_mixing_of_ones_own(kind, backend):
    own, plain = pair("cho_gru", kind)
    with rs.backend(backend):
        sols = [rs.solve(rec) for rec in (own, plain)]
        c = np.random.default_rng(1).standard_normal(own.shape)
        grads = [rs.adjoint(sol, states=c) for sol in sols]
        moved = [rs.tangent(sol, initial=own.initial + 1, drive={"r": own.drive["r"]}) for sol in sols]
    for of in (lambda g: g.initial, lambda g: g.states, lambda g: g.drive.r, lambda g: g.drive.n):
        np.testing.assert_allclose(of(grads[0]), of(grads[1]), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(*moved, rtol=1e-8, atol=1e-10)
    assert sols[0].condition == pytest.approx(sols[1].condition, rel=0.5)
    assert sols[0].error_bound == np.inf
    assert own.rounding == pytest.approx(plain.rounding, rel=1e-12) or kind == "diagonal"
    for ask in (lambda: grads[0].mixings, lambda: rs.tangent(sols[0], mixings={"r": own.cell.mixings["r"].weight})):
        with pytest.raises(TypeError, match=r"defines matvec and no weight_(co)?tangent\("):
            ask()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixing_of_ones_own_keeps_its_class_and_attributes(kind):
    mixing, plain = custom(kind)
    mixing.note = "kept"
    for other in (mixing.map(lambda w: w.astype(np.float32)), pickle.loads(pickle.dumps(mixing))):
        assert type(other) is type(mixing)
        assert other.note == "kept"
    assert mixing.map(lambda w: w.astype(np.float32)).weight.dtype == np.float32
    x = np.random.default_rng(0).standard_normal((3, 2, UNITS))
    np.testing.assert_allclose(mixing.dense(), plain.dense(), rtol=1e-14)
    for name in ("matvec", "rmatvec"):
        np.testing.assert_allclose(getattr(mixing, name)(x), getattr(plain, name)(x), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(mixing.transpose().dense(), plain.transpose().dense(), rtol=1e-14)


def test_a_mixing_that_is_not_linear_is_refused():
    class Biased(rs.mixings.Dense):
        def matvec(self, x):
            return super().matvec(x) + 0.5

    with pytest.raises(ValueError, match="mixing h is no linear map"):
        rs.cells.Elman.with_weights(mixings={"h": Biased(np.eye(3))})


def test_what_a_mixing_has_cached_does_not_outlive_its_weight():
    class Masked(rs.mixings.Dense):
        @cached_property
        def masked(self):
            return np.tri(3, dtype=self.weight.dtype) * self.weight

        def matvec(self, x):
            return x @ self.masked.T

    mixing = Masked(np.full((3, 3), 0.5))
    assert mixing(np.ones(3)).tolist() == [0.5, 1.0, 1.5]
    assert mixing.map(lambda w: 2 * w)(np.ones(3)).tolist() == [1.0, 2.0, 3.0]
    assert mixing.map(lambda w: w.astype(np.float32))(np.ones(3, np.float32)).dtype == np.float32


def test_a_stated_form_is_compiled_and_not_inherited():
    class Loud(rs.mixings.Dense):
        form = "dense"

        def matvec(self, x):
            calls.append(1)
            return super().matvec(x)

    class Louder(Loud):
        pass

    calls = []
    for kind, compiled in ((Loud, True), (Louder, False)):
        rec = rs.cells.Elman.with_weights(mixings={"h": kind(weight_of("dense"))}).recurrence(
            drive=drives(rs.cells.Elman, "dense")
        )
        calls.clear()  # a cell looks whether a mixing that states no form is linear
        with rs.backend("numba"):
            assert (walker(rec) is not None) is (staged(rec) is not None) is compiled
        assert not calls
    with pytest.raises(TypeError, match="overrides __call__; wanted matvec"):
        type("Called", (rs.mixings.Dense,), {"__call__": lambda self, x: x})
    with pytest.raises(TypeError, match="form of Wrong is 'full'"):
        type("Wrong", (rs.mixings.Dense,), {"form": "full"})


# Recurrences and cells --------------------------------------------------------------------------------------------


class Doubled(CellRecurrence):
    """Overrides one of the two that define f."""

    factor = 1.0

    def step(self, state, t):
        return self.factor * super().step(state, t)


class DoubledAtOnce(CellRecurrence):
    factor = 1.0

    def apply(self, previous):
        return self.factor * super().apply(previous)


class Differentiated(DoubledAtOnce):
    def differentiate(self, previous):
        values, J = CellRecurrence.differentiate(self, previous)
        return self.factor * values, J.scale(self.factor)


def recurrence_of(kind, mixing, factor=0.5):
    cell = gallery.weighted("gru", mixing, units=UNITS)
    rec = cell.recurrence(np.random.default_rng(0).standard_normal((T, 2, 3)))
    own = kind(rec.cell, rec.drive, None, None, "numpy", rec.x)
    own.factor = factor
    state, wanted = np.zeros(rec.shape[1:]), np.empty(rec.shape)
    for t in range(T):
        wanted[t] = state = factor * rec.step(state, t)
    return own, wanted


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mixing", ["diagonal", "dense"])
@pytest.mark.parametrize("kind", [Doubled, DoubledAtOnce, Differentiated])
def test_a_recurrence_that_overrides_f(kind, mixing, backend):
    own, wanted = recurrence_of(kind, mixing)
    methods = ("sequential", "jacobi", "gauss_seidel", "anderson")
    with rs.backend(backend):
        for method in (*methods, "newton", "windowed", "newton_krylov") if kind is Differentiated else methods:
            sol = rs.solve(own, method=method, options={"chunk": 7} if method == "gauss_seidel" else None)
            assert sol.success, (method, sol.message)
            np.testing.assert_allclose(sol.states, wanted, rtol=1e-9, atol=1e-10)
        if kind is Differentiated:
            g = rs.adjoint(sol, final=np.ones(own.shape[1:]))
            assert np.isfinite(g.initial).all()
            with pytest.raises(TypeError, match=r"Differentiated overrides .*how f depends on"):
                g.drive  # noqa: B018
        else:
            with pytest.raises(TypeError, match=f"{kind.__name__} overrides step or apply and no differentiate"):
                rs.solve(own, method="newton")
    assert type(own.window(3, 9)) is kind
    assert type(own.sequences(np.array([1]))) is kind


def test_a_function_recurrence_that_overrides_f():
    class Shifted(type(gallery.sine(1.0))):
        def apply(self, previous):
            return super().apply(previous) + 1

    u = np.random.default_rng(0).standard_normal((50, 2))
    rec = Shifted(lambda h, u: 0.5 * np.sin(h) + u, u, np.zeros(2), "diagonal", None, None, None)
    states = np.zeros(2)
    for t in range(50):
        states = 0.5 * np.sin(states) + u[t] + 1
    for method in ("sequential", "jacobi"):
        np.testing.assert_allclose(rs.solve(rec, method=method).final, states, rtol=1e-12)
    with pytest.raises(TypeError, match="no differentiate"):
        rs.solve(rec)


def test_a_recurrence_without_a_hash_is_solved():
    class Equal(CellRecurrence):
        def __eq__(self, other):
            return isinstance(other, Equal)

    rec = gallery.weighted("gru", "dense").recurrence(np.ones((T, 2, 3)))
    own = Equal(rec.cell, rec.drive, None, None, "numpy")
    for backend in BACKENDS:
        with rs.backend(backend):
            np.testing.assert_allclose(rs.solve(own).states, gallery.loop(rec), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["previous", "starts", "from_initial", "evaluate"])
def test_what_all_solvers_take_for_granted_is_not_overridden(name):
    with pytest.raises(TypeError, match=f"overrides {name}"):
        type("Odd", (CellRecurrence,), {name: None})


def test_cells_and_weighted_cells_of_ones_own_are_left_to_numpy():
    cell = gallery.weighted("gru", "diagonal")
    x = np.ones((T, 2, 3))

    class Own(type(cell)):
        def stack_components(self, parts, like):
            return super().stack_components([0.5 * part for part in parts], like)

    own = Own(cell.cell, cell.mixings, cell.parameters, cell.projection, cell.hidden_size)
    assert type(own.astype(np.float32)) is Own
    with rs.backend("numpy"):
        wanted = gallery.loop(own.recurrence(x))
    with rs.backend("numba"):
        np.testing.assert_array_equal(rs.solve(own.recurrence(x), method="sequential").states, wanted)
    sol = rs.solve(own.recurrence(x), method="jacobi")
    assert sol.success
    assert not sol.trusted  # its Jacobian is that of the class it changes
    with pytest.raises(ValueError, match="not the derivative"):
        rs.adjoint(sol, final=sol.final)

    class OwnCell(rs.Cell):
        pass

    with rs.backend("numba"):
        other = OwnCell(cell.cell.function, state=("h",), output="h").random(input_size=3, hidden_size=4)
        assert walker(other.recurrence(x)) is None


def test_a_projection_that_overrides_its_product_refuses_derivatives():
    cell = gallery.weighted("gru", "diagonal", units=UNITS)

    class Doubling(type(cell.projection)):
        def __call__(self, x):
            return super().__call__(2 * x)

    own = Doubling(cell.projection.weights, cell.projection.biases)
    cell = cell.cell.with_weights(mixings=cell.mixings, parameters=cell.parameters, projection=own)
    x = np.random.default_rng(0).standard_normal((T, 3))
    sol = rs.solve(cell.recurrence(x))
    np.testing.assert_array_equal(rs.solve(cell.astype(np.float64).recurrence(x)).states, sol.states)
    g = rs.adjoint(sol, final=np.ones(UNITS))
    for ask in (lambda: g.inputs, lambda: g.projection, lambda: rs.tangent(sol, inputs=x)):
        with pytest.raises(TypeError, match="Doubling overrides __call__"):
            ask()


# Structures and monoids -------------------------------------------------------------------------------------------

LAYOUTS = {Block: rs.Layout(components=2, units=3), LaneDense: rs.Layout(lanes=(2,), units=3)}


def structure(kind, layout=None, leading=(T, 2), dtype=np.float64):
    layout = layout or LAYOUTS.get(kind, rs.Layout(units=3))
    rng = np.random.default_rng(0)
    if kind is Factored:

        def partials(*leaves):
            return {leaf: rng.uniform(-0.5, 0.5, (*leading, 3)).astype(dtype) for leaf in leaves}

        dense = rs.mixings.Dense(rng.uniform(-0.5, 0.5, (3, 3)).astype(dtype))
        return kind([Call(dense, partials(0)), Call(dense, partials(0, 1))], [partials(0, 1, 2)], layout, leading)
    return gallery.structure(kind, layout, leading, rng, dtype, gain=0.25)


STRUCTURES = (Zero, Identity, Scalar, Diagonal, Block, LaneDense, Factored)


class Turned:
    """A product that no entry shows."""

    def matvec(self, v):
        return 0.5 * super().matvec(v) + 0.25 * np.roll(v, 1, axis=-1)


def turned(kind):
    made = object.__new__(type(f"Turned{kind.__name__}", (Turned, kind), {}))
    vars(made).update(vars(structure(kind)))
    return made


@pytest.mark.parametrize("kind", STRUCTURES)
def test_structures_that_override_their_product_are_derived_from_it(kind):
    J = turned(kind)
    v = np.random.default_rng(1).standard_normal((T, 2, *J.layout.event))
    dense, flat = J.todense(), v.reshape(T, 2, -1)
    products = [(J.matvec(v), dense), (J.rmatvec(v), dense.swapaxes(-1, -2))]
    products += [(J.transpose().matvec(v), dense.swapaxes(-1, -2)), (J.scale(2.0).matvec(v), 2 * dense)]
    products += [(J[3:5].matvec(v[3:5]), dense[3:5])]
    for found, matrix in products:
        x = flat[3:5] if len(found) == 2 else flat
        np.testing.assert_allclose(found.reshape(x.shape), (matrix @ x[..., None])[..., 0], atol=1e-12)
    diagonal = np.einsum("...ii->...i", dense)
    np.testing.assert_allclose(J.diagonal().matvec(v).reshape(flat.shape), diagonal * flat, atol=1e-12)
    for other in map(structure, STRUCTURES[:4]):
        if other.layout == J.layout:
            np.testing.assert_allclose(J.compose(other).todense(), dense @ other.todense(), atol=1e-12)
            np.testing.assert_allclose(other.compose(J).todense(), other.todense() @ dense, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", STRUCTURES)
def test_scans_of_structures_that_override_their_product(kind, backend):
    J = turned(kind)
    b = np.random.default_rng(1).standard_normal((T, 2, *J.layout.event))
    for A in (J, J.transpose()):
        wanted, y = np.empty_like(b), np.zeros(b.shape[1:])
        for t in range(T):
            wanted[t] = y = A[t].matvec(y) + b[t]
        with rs.backend(backend):
            np.testing.assert_allclose(affine_scan(A, b), wanted, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(rs.scan("affine", (A, b)), wanted, rtol=1e-12, atol=1e-12)


class Affine(rs.Recurrence):
    """h[t] = J[t] h[t-1] + b[t], whatever J is."""

    rounding = 0.0

    def __init__(self, J, b, initial):
        super().__init__(len(b), b.shape[1:2], J.layout, initial, None, "numpy")
        self.J, self.b = J, b

    def apply(self, previous):
        return self.J.matvec(previous) + self.b

    def differentiate(self, previous):
        return self.apply(previous), self.J

    def step(self, state, t):
        return self.J[t].matvec(state) + self.b[t]

    def drive_is_finite(self, t):
        return True

    def _cut(self, cut, initial):
        return Affine(self.J[cut], self.b[cut], initial)

    def _select(self, place, initial):
        return None


@pytest.mark.parametrize("kind", STRUCTURES)
def test_solves_with_structures_that_override_their_product(kind):
    """Newton is exact at once on what is affine, and whatever reads the Jacobian reads its product."""
    J = turned(kind)
    b = np.random.default_rng(1).standard_normal((T, 2, *J.layout.event))
    rec = Affine(J, b, np.zeros(b.shape[1:]))
    wanted = gallery.loop(rec)
    for backend in BACKENDS:
        with rs.backend(backend):
            for method in (
                "newton",
                "quasi_newton",
                "elk",
                "levenberg_marquardt",
                "clipped_newton",
                "picard",
                "jacobi",
            ):
                sol = rs.solve(rec, method=method)
                assert sol.success, (method, sol.message)
                np.testing.assert_allclose(sol.states, wanted, rtol=1e-9, atol=1e-10)
            assert rs.solve(rec, tol=1e-12).nit <= 2
            same = rs.solve(Affine(J.lane_dense(), b, rec.initial))
            assert sol.condition == pytest.approx(same.condition, rel=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", sorted(MONOIDS))
def test_monoids_that_override_what_an_element_does(name, backend):
    op, rng = MONOIDS[name], np.random.default_rng(0)

    class Own(type(op)):
        def act(self, elements, states):
            return super().act(elements, states) + (1 if name == "finite_map" else 0.125)

    own = object.__new__(Own)
    vars(own).update(vars(op))
    steps = 300
    if name == "finite_map":
        arrays, initial = (rng.integers(0, 4, (steps, 2, 5)),), np.zeros(2, int)
        arrays[0][arrays[0] == 3] = 0
    elif name == "riccati":
        arrays, initial = tuple(0.3 * np.abs(rng.standard_normal((steps, 1, 1))) for _ in range(3)), np.zeros((1, 1))
    else:
        arrays = tuple(rng.uniform(0.1, 0.5, (steps, 3)) for _ in range(2 if name == "affine" else len(op.letters)))
        initial = np.zeros((3, 2) if name == "logsumexp" else 3)
    elements = own.prepare(arrays)
    wanted, y = [], initial
    for t in range(steps):
        y = own.act(own.take(elements, t), y)
        wanted.append(y)
    found = get("scan", backend)(own, elements, initial=initial)
    np.testing.assert_array_equal(found, np.array(wanted))


@pytest.mark.parametrize("kind", STRUCTURES)
def test_entries_that_do_not_fit_their_layout_are_refused(kind):
    fits, layout = structure(kind), rs.Layout(lanes=(2,), units=5)
    if kind is Scalar:  # any shape is (T, *batch)
        return
    if kind is Factored:
        with pytest.raises(ValueError, match=r"calls\[0\] has Dense.* wanted 5 units"):
            kind(fits.calls, fits.outputs, rs.Layout(units=5), fits.leading)
        with pytest.raises(ValueError, match=r"outputs\[0\] has a partial of shape .* for leaf 0"):
            kind([], [{0: np.ones((T, 2, 4))}], rs.Layout(units=3), (T, 2))
        with pytest.raises(ValueError, match=r"leaf 1; wanted .* leaves below 1"):
            kind([], [{1: np.ones((T, 2, 3))}], rs.Layout(units=3), (T, 2))
        with pytest.raises(ValueError, match="outputs of Factored are 0"):
            kind([], [], rs.Layout(units=3), (T, 2))
        return
    layout = rs.Layout(components=2, units=5) if kind is Block else layout
    entries = fits.like if kind in (Zero, Identity) else fits.data
    with pytest.raises(ValueError, match=f"of {kind.__name__} has shape .*; wanted \\(T, \\*batch, .* for Layout"):
        kind(entries, layout)
    with pytest.raises(ValueError, match=f"of {kind.__name__} has shape"):
        kind(entries[0, 0, ..., 0] if entries.ndim > 3 else entries[0, 0, 0], layout)
    if kind is Block:
        with pytest.raises(ValueError, match="components >= 2"):
            kind(np.ones((T, 1, 1, 3)), rs.Layout(units=3))


@pytest.mark.parametrize("kind", STRUCTURES)
def test_scans_refuse_elements_that_do_not_fit_each_other(kind):
    J = structure(kind)
    b = np.zeros((T, 2, *J.layout.event))
    for wrong in (b[:-1], b[:, :1], b[..., :-1], b[0]):
        for call in (lambda x: affine_scan(J, x), lambda x: rs.scan("affine", (J, x))):
            with pytest.raises(ValueError, match=r"b has shape .*; wanted"):
                call(wrong)
    if kind is LaneDense:
        J.data = J.data[..., :1]
        with pytest.raises(ValueError, match="data of LaneDense has shape"):
            affine_scan(J, b)
    good = structure(kind)
    for name, x in (("initial", np.zeros((3, 7))), ("reset", np.zeros((T, 3), bool))):
        with pytest.raises(ValueError, match=f"{name} has shape"):
            rs.scan("affine", (good, b), **{name: x})


# Closures, and what is no function --------------------------------------------------------------------------------


def closed_over(place, kind):
    function, change = closures(0.5)[place]
    cell = rs.Cell(function, state=("x",), output="x")
    weighted = cell.with_weights(mixings={"h": MIXINGS[kind](weight_of(kind))})
    return weighted.recurrence(drive={"u0": drives(rs.cells.Elman, kind)["h"]}), change


@pytest.mark.parametrize("kind", MIXINGS)
@pytest.mark.parametrize("place", list(closures(0.5)))
def test_numbers_that_a_cell_closes_over_are_part_of_its_program(place, kind):
    rec, change = closed_over(place, kind)
    found = []
    for value in (0.5, 0.25, 0.5):
        change(value)
        with rs.backend("numba"):
            found.append(traced_of(rec))
            assert traced_of(rec) is found[-1]
    prints = [traced.program.fingerprint for traced in found]
    assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize(("place", "kind"), [("closure cell", "diagonal"), ("attribute", "dense")])
def test_numbers_that_a_cell_closes_over_are_part_of_what_is_compiled(place, kind):
    rec, change = closed_over(place, kind)
    states = np.random.default_rng(0).standard_normal(rec.shape)
    for value in (0.5, 0.25, 0.5):
        change(value)
        with rs.backend("numpy"):
            wanted, (F, J) = gallery.loop(rec), rec.linearise(states)
        with rs.backend("numba"):
            assert walker(rec) is not None
            np.testing.assert_allclose(rs.solve(rec, method="sequential").states, wanted, rtol=1e-12, atol=1e-12)
            G, K = rec.linearise(states)
            np.testing.assert_allclose(rec.evaluate(states), F, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(G, F, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(K.matvec(states), J.matvec(states), rtol=1e-12, atol=1e-12)


def draws():
    rng, count = np.random.default_rng(0), iter(range(10**9))

    def counter():
        return 1.0 + 1e-3 * (next(count) % 7)

    return {"random": lambda: 1 + 1e-3 * rng.standard_normal(), "counter": counter}


@pytest.mark.parametrize("kind", ["random", "counter"])
def test_a_cell_that_is_no_function_is_refused_where_it_is_defined(kind):
    draw = draws()[kind]
    with pytest.raises(ValueError, match="noisy is not a function: called again with the same arguments"):
        rs.Cell(lambda s, W, u, p: tanh(s.h + u.h) * draw(), state=("h",), output="h", name="noisy")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["random", "counter"])
def test_what_becomes_no_function_is_refused_where_it_is_solved(kind, backend):
    draw, on = draws()[kind], []
    cell = rs.Cell(lambda s, W, u, p: tanh(s.h + u.h) * (draw() if on else 0.9), state=("h",), output="h", name="noisy")
    weighted = cell.with_weights(hidden_size=2)
    recs = [weighted.recurrence(drive={"h": np.ones((T, 2))})]
    recs.append(
        rs.Recurrence.from_function(
            lambda h, u: np.tanh(h + u) * (draw() if on else 0.9),
            inputs=np.ones((T, 2)), initial=np.zeros(2), structure="diagonal",
        )
    )  # fmt: skip
    with rs.backend(backend):
        for rec in recs:
            on.clear()
            assert rs.solve(rec).success
            on.append(1)
            for method in ("sequential", "newton", "jacobi"):
                with pytest.raises(ValueError, match="is not a function: called again"):
                    rs.solve(rec, method=method)


def test_a_cell_that_asks_for_the_shape_of_what_it_gets_is_not_believed():
    """Traced on numbers without axes it is another function: the first solve compares it with arrays."""
    cell = rs.Cell(lambda s, W, u, p: 0.5 * s.h + u.h * (1 + np.ndim(s.h)), state=("h",), output="h")
    rec = cell.with_weights(hidden_size=2).recurrence(drive={"h": np.ones((T, 2))})
    with rs.backend("numba"):
        assert not rs.solve(rec, method="newton").success
        assert not rs.solve(rec, method="newton").success
