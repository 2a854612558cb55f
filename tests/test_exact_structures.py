"""Structures and monoids of one's own: scans and solves read the product that they override."""

import re

import gallery
import numpy as np
import pytest
from test_exact_types import BACKENDS, T

import recsolve as rs
from recsolve.jacobians import (
    Banded,
    Block,
    Diagonal,
    Identity,
    LaneDense,
    LowRank,
    Pairs,
    PermutationDiagonal,
    Scalar,
    Zero,
)
from recsolve.jacobians.factored import Call, Factored
from recsolve.kernels.affine_scan import affine_scan
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.kernels.registry import get

LAYOUTS = {Block: rs.Layout(components=2, units=3), LaneDense: rs.Layout(lanes=(2,), units=3)}


def structure(kind, layout=None, leading=(T, 2), dtype=np.float64):
    layout = layout or LAYOUTS.get(kind, rs.Layout(units=3))
    rng = np.random.default_rng(0)
    if kind is Factored:

        def partials(*leaves):
            return {leaf: rng.uniform(-0.5, 0.5, (*leading, 3)).astype(dtype) for leaf in leaves}

        dense = rs.mixings.Dense(rng.uniform(-0.5, 0.5, (3, 3)).astype(dtype))
        return kind([Call(dense, partials(0)), Call(dense, partials(0, 1))], [partials(0, 1, 2)], layout, leading)
    if kind is Pairs:
        return gallery.pairs(leading, rng, dtype, gain=0.25)
    return gallery.structure(kind, layout, leading, rng, dtype, gain=0.25)


STRUCTURES = (Zero, Identity, Scalar, Diagonal, Block, LaneDense, Factored, Pairs, PermutationDiagonal, LowRank, Banded)


def made(kind, entries, layout):
    """A structure of these entries; what else it holds fits the layout, and as far as that goes the entries."""
    w, leading = layout.lane_width, entries.shape[: max(entries.ndim - len(layout.event), 0)]
    if kind is PermutationDiagonal:
        return kind(np.arange(w)[::-1], entries, layout)
    if kind is LowRank:
        return kind(entries, *np.full((2, *leading, *layout.lanes, w, 2), 0.1), layout)
    return kind(entries, (0, 1 - w) if w > 1 else (0,), layout) if kind is Banded else kind(entries, layout)


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
        arrays = (*arrays[:2], arrays[2][..., None]) if name == "weighted_logsumexp" else arrays
        initial = np.zeros((3, 2) if "logsumexp" in name else 3)
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
    if kind is Pairs:
        given = fits.blocks, fits.pattern, rs.Layout(units=3), fits.like
        for place, wrong, words in [
            (0, {pair: x[..., :0] for pair, x in fits.blocks.items()}, r"block \('m', 'm'\) has shape"),
            (2, rs.Layout(units=5), "layout is .* wanted the flat state"),
            (3, fits.like[..., :2], "like of Pairs has shape"),
        ]:
            with pytest.raises(ValueError, match=words):
                kind(*given[:place], wrong, *given[place + 1 :])
        return
    layout = rs.Layout(components=2, units=5) if kind is Block else layout
    entries = fits.like if kind in (Zero, Identity) else fits.data
    with pytest.raises(ValueError, match=f"of {kind.__name__} has shape .*; wanted \\(T, \\*batch, .* for Layout"):
        made(kind, entries, layout)
    with pytest.raises(ValueError, match=f"of {kind.__name__} has shape"):
        made(kind, entries[0, 0, ..., 0] if entries.ndim > 3 else entries[0, 0, 0], layout)
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


FITTING = (rs.Layout(units=3), rs.Layout(units=None), rs.Layout(lanes=(4,), units=2), rs.Layout(lanes=(2, 3), units=2),
           rs.Layout(components=2, units=3), rs.Layout(components=2, lanes=(3,), units=2))  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in STRUCTURES if kind not in (Factored, Pairs)])
def test_entries_of_any_shape_are_refused_or_stand_for_what_the_compiled_scan_reads(kind):
    """No shape lets a compiled loop read beyond the entries: 1 stands for all where that has a meaning."""
    rng, taken, refused = np.random.default_rng(0), 0, 0
    for _ in range(150):
        layout = FITTING[rng.integers(len(FITTING))]
        if kind is Block and layout.components == 1:
            continue
        w, name = layout.lane_width, "like" if kind in (Zero, Identity) else "data"
        right = structure(kind, layout, leading=(5, 2))
        if kind is Banded:
            right = made(kind, np.ones((5, 2, *layout.lanes, 2 if w > 1 else 1, w)), layout)
        entries = getattr(right, name)
        shape = [int(rng.choice([n, n, 1, n + 1, max(n - 1, 0)])) for n in entries.shape]
        shape = shape[int(rng.integers(0, 3) == 0) :]
        wrong = rng.uniform(-0.5, 0.5, shape)
        try:
            A = made(kind, wrong, layout)
        except ValueError:
            with pytest.raises(ValueError, match=re.escape(f"of {kind.__name__} has shape {tuple(shape)}; wanted")):
                made(kind, wrong, layout)
            refused += 1
            continue
        seen = getattr(A, name)
        assert seen.shape[len(A.leading) :] == entries.shape[2:]
        assert np.shares_memory(seen, wrong) or not wrong.size or kind is PermutationDiagonal
        b = rng.standard_normal((*A.leading, *layout.event))
        if not A.leading:  # no axis of time
            with pytest.raises(ValueError, match="b has shape"):
                rs.scan("affine", (A, rng.standard_normal((5, *layout.event))))
            continue
        loop, y = np.empty_like(b), np.zeros(b.shape[1:])
        for t in range(len(b)):
            loop[t] = y = A[t].matvec(y) + b[t]
        with rs.backend("numba"):
            np.testing.assert_allclose(rs.scan("affine", (A, b)), loop, rtol=1e-12, atol=1e-12)
        taken += 1
    assert taken > 5
    assert refused > 20 or kind is Scalar
    data = [1.0, 2.0, 3.0]
    arguments = {PermutationDiagonal: ([0, 1, 2], data), LowRank: [data] * 3, Banded: (data, (0,))}.get(kind, [data])
    with pytest.raises(TypeError, match=f"of {kind.__name__} is list; wanted an array"):
        kind(*arguments, rs.Layout(units=3))
