"""Fast paths take what states its form: a subclass that overrides a method gets the reference's answer everywhere."""

import pickle
from functools import cached_property

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.mixings import MIXINGS, Mixing
from recsolve.recurrence.engine import Engine
from recsolve.recurrence.staged_engine import StagedEngine

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
        assert type(own.bind()) is Engine
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


@pytest.mark.parametrize(("made", "factor"), [(rs.mixings.Masked, 1.0), (halved(rs.mixings.Masked), 0.5)])
@pytest.mark.parametrize("kind", MIXINGS)
def test_masked_mixings_are_compiled_as_what_they_mask_and_subclasses_are_not(kind, made, factor):
    weight, cell = weight_of(kind), rs.cells.Elman
    mask = np.random.default_rng(3).random(weight.shape) < 0.5
    plain = MIXINGS[kind](factor * np.where(mask, weight, 0))
    masked = made(MIXINGS[kind](np.where(mask, weight, np.nan)), mask)  # what does not count is not seen
    own, wanted = (cell.with_weights(mixings={"h": m}).recurrence(drive=drives(cell, kind)) for m in (masked, plain))
    with rs.backend("numba"):
        assert (type(own.bind()) is Engine) is (made is not rs.mixings.Masked)
        for method in ("sequential", "newton"):
            sol = rs.solve(own, method=method)
            np.testing.assert_allclose(sol.states, gallery.loop(wanted), rtol=1e-9, atol=1e-10)
        assert np.isfinite(sol.error_bound) == (made is rs.mixings.Masked)


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
            assert type(rec.bind()) is (StagedEngine if compiled else Engine)
        assert not calls
    with pytest.raises(TypeError, match="overrides __call__; wanted matvec"):
        type("Called", (rs.mixings.Dense,), {"__call__": lambda self, x: x})
    with pytest.raises(TypeError, match="form of Wrong is 'full'"):
        type("Wrong", (rs.mixings.Dense,), {"form": "full"})


@pytest.mark.parametrize("mixing", ["diagonal", "dense", "heads"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_mask_hides_is_not_trained_and_a_weight_may_change_in_place(mixing, backend):
    rec = gallery.recurrence("gru", mixing, T=60, units=4)
    weights = {name: np.array(m.weight) for name, m in rec.cell.mixings.items()}
    masks = {name: np.random.default_rng(0).random(w.shape) < 0.5 for name, w in weights.items()}
    kinds = {name: type(m) for name, m in rec.cell.mixings.items()}
    mixings = {name: rs.mixings.Masked(kind(weights[name].copy()), masks[name]) for name, kind in kinds.items()}
    cell = rs.cells.GRU.with_weights(mixings=mixings, parameters=rec.cell.parameters)

    def gradients():
        with rs.backend(backend):
            return rs.adjoint(rs.solve(cell.recurrence(drive=rec.drive)), states=np.ones(rec.shape)).mixings

    for change in (1.0, 0.5):
        for name in weights:
            mixings[name].weight[...] = change * weights[name]
        plain = {name: kind(masks[name] * change * weights[name]) for name, kind in kinds.items()}
        other = rs.cells.GRU.with_weights(mixings=plain, parameters=rec.cell.parameters).recurrence(drive=rec.drive)
        expected = rs.adjoint(rs.solve(other), states=np.ones(rec.shape)).mixings
        for name, g in gradients().items():
            np.testing.assert_allclose(g, np.where(masks[name], expected[name], 0), rtol=1e-9, atol=1e-12)
