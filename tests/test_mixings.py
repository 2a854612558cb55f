"""The laws of mixings, on all of the package, and that the public check sees each one broken."""

import gallery
import numpy as np
import pytest
import scipy.sparse

import recsolve as rs
from recsolve import mixings
from recsolve.base.overriding import changed
from recsolve.kernels.affine_scan import affine_scan
from recsolve.mixings import MIXINGS, Mixing
from recsolve.testing import check_mixing

DTYPES = (np.float64, np.float32)


def made(dtype=np.float64):
    """Return one of every mixing of the package, or several where a setting makes another map of it."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: (0.4 * rng.standard_normal(shape)).astype(dtype)  # noqa: E731
    pattern = scipy.sparse.coo_array(draw(6, 6) * (rng.random((6, 6)) < 0.4))
    found = {
        "diagonal": mixings.Diagonal(draw(6)),
        "lanes of diagonals": mixings.Diagonal(draw(2, 3)),
        "dense": mixings.Dense(draw(6, 6)),
        "heads": mixings.Heads(draw(2, 3, 3)),
        "masked dense": mixings.Masked(mixings.Dense(draw(6, 6)), rng.random((6, 6)) < 0.5),
        "masked heads": mixings.Masked(mixings.Heads(draw(2, 3, 3)), rng.random((2, 3, 3)) < 0.5),
        "masked diagonal": mixings.Masked(mixings.Diagonal(draw(6)), np.arange(6) < 4),
        "permutation": mixings.Permutation(rng.permutation(6), draw(6)),
        "gather": mixings.Gather(rng.integers(0, 6, 6), dtype),
        "lanes of gathers": mixings.Gather(rng.integers(0, 3, (2, 3)), dtype),
        "shared head": mixings.SharedHead(draw(3, 3), 2),
        "rows": mixings.SharedHead(draw(3, 3), (2, 2)),
        "low rank": mixings.LowRank(draw(6, 2), draw(6, 2)),
        "diagonal and low rank": mixings.LowRank(draw(6, 2), draw(6, 2), draw(6)),
        "sparse": mixings.Sparse(pattern),
        "sparse and empty": mixings.Sparse(scipy.sparse.csc_matrix((6, 6), dtype=dtype)),
        "conv": mixings.Conv(draw(3, 2, 2), (3,)),
        "conv of a plane": mixings.Conv(draw(3, 1, 1, 1), (3, 2)),
        "periodic conv": mixings.Conv(draw(3, 3, 1, 1), (3, 4), "periodic"),
    }
    assert {type(m) for m in found.values()} == {
        kind for name in mixings.__all__ if isinstance(kind := getattr(mixings, name), type) and kind is not Mixing
    }
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", made())
def test_laws(name, dtype):
    mixing = made(dtype)[name]
    check_mixing(mixing)
    check_mixing(mixing, rng=np.random.default_rng(7))
    assert mixing.rounding <= 1.5 * Mixing.rounding.fget(mixing) + 0.1
    assert set(MIXINGS) == {"diagonal", "dense", "heads"}


METHODS = ("sequential", "newton", "quasi_newton", "elk", "jacobi", "windowed", "newton_krylov")


def cell_of(mixing, name="cho_gru"):
    """A cell, with nested mixings by default, all of whose mixings are one."""
    cell, event = rs.cells.get(name), (*mixing.lanes, mixing.units)
    kinds, dtype = dict.fromkeys(cell.mixings, mixing), mixing.weight.dtype
    return cell.with_weights(mixings=kinds, parameters={p: np.full(event, 0.1, dtype) for p in cell.parameters})


def recurrence_of(mixing, name="cho_gru", T=40, batch=(2,), **given):
    cell = cell_of(mixing, name)
    rng, event = np.random.default_rng(3), (*mixing.lanes, mixing.units)
    drive = {n: rng.standard_normal((T, *batch, *event)).astype(mixing.weight.dtype) for n in cell.cell.drives}
    return cell.recurrence(drive=drive, **given)


@pytest.mark.parametrize("name", made())
def test_cells_solve_and_differentiate_with_every_mixing(name):
    mixing = made()[name]
    rec = recurrence_of(mixing)
    wanted = gallery.loop(rec)
    for method in METHODS:
        sol = rs.solve(rec, method=method)
        assert sol.success, (method, sol.message)
        assert np.abs(sol.states - wanted).max() <= gallery.bound(sol), method
    assert sol.trusted
    J = rec.linearise(wanted)[1]
    dense = J.lane_dense()
    np.testing.assert_allclose(J.block().data, dense.diagonal().data, atol=1e-12)
    v = np.random.default_rng(4).standard_normal(rec.shape)
    np.testing.assert_allclose(J.matvec(v), dense.matvec(v), atol=1e-12)
    np.testing.assert_allclose(J.rmatvec(v), dense.transpose().matvec(v), atol=1e-12)
    differentiated(rec, sol, v)


@pytest.mark.parametrize("name", made())
def test_compiled_products_take_small_matrices_and_wider_ones_as_they_are(name, monkeypatch):
    rec = recurrence_of(made()[name])
    J, b = rec.linearise(gallery.loop(rec))[1], np.random.default_rng(4).standard_normal(rec.shape)
    for e in (J, J.transpose()):
        found = []
        for backend, narrow in (("numpy", 128), ("numba", 128), ("numba", 2)):
            monkeypatch.setattr(mixings.mixing, "_NARROW", narrow)
            with rs.backend(backend):
                found.append(affine_scan(e, b))
        for other in found[1:]:
            np.testing.assert_allclose(other, found[0], rtol=1e-10, atol=1e-12)


def differentiated(rec, sol, c):
    """Compare the adjoint with the tangent, and the tangent along weights, drives and h[0] with differences."""
    rng, cell = np.random.default_rng(5), rec.cell
    g = rs.adjoint(sol, states=c)
    weights = {n: rng.standard_normal(m.weight.shape) for n, m in cell.mixings.items()}
    initial, drive = (
        rng.standard_normal(rec.initial.shape),
        {n: rng.standard_normal(u.shape) for n, u in rec.drive.items()},
    )
    parameters = {n: rng.standard_normal(p.shape) for n, p in cell.parameters.items()}
    moved = rs.tangent(sol, initial=initial, mixings=weights, drive=drive, parameters=parameters)
    pairs = [(g.initial, initial)]
    for ours, theirs in ((g.mixings, weights), (g.drive, drive), (g.parameters, parameters)):
        pairs += [(ours[n], theirs[n]) for n in theirs]
    np.testing.assert_allclose((moved * c).sum(), sum((x * y).sum() for x, y in pairs), rtol=1e-9)

    def states(step):
        mixings = {n: changed(m, weight=m.weight + step * weights[n]) for n, m in cell.mixings.items()}
        other = cell.cell.with_weights(
            mixings=mixings,
            parameters={n: p + step * parameters[n] for n, p in cell.parameters.items()},
            hidden_size=cell.hidden_size,
        )
        drives = {n: u + step * drive[n] for n, u in rec.drive.items()}
        return gallery.loop(other.recurrence(drive=drives, initial=rec.initial + step * initial, reset=rec.reset))

    np.testing.assert_allclose(moved, (states(1e-6) - states(-1e-6)) / 2e-6, rtol=1e-5, atol=1e-7)


def derived(base=mixings.Dense, **methods):
    return type("Wrong", (base,), {"__module__": __name__, **methods})


WEIGHT = np.random.default_rng(1).uniform(0.2, 0.8, (4, 4))


class Forgetful(mixings.Dense):
    def __reduce__(self):
        return mixings.Dense, (self.weight,)


class Renamed(mixings.Dense):
    def __deepcopy__(self, memo):
        return Renamed(self.weight)

    def __reduce__(self):
        return Renamed, (self.weight + 1,)


def counting(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    return x @ self.weight.T * (1 if self.calls % 2 else 1.5)


def writing(self, x):
    x = x if x.flags.writeable else x.view(np.ndarray)
    x.flags.writeable = True
    x *= 2
    return x @ self.weight.T / 2


def in_double(self, x):
    return x @ (self.weight * np.full(4, 2.0)).T


D = mixings.Dense
WRONG = [
    ("shape", derived(matvec=lambda self, x: np.atleast_2d(x) @ self.weight.T)),
    ("shape", derived(matvec=lambda self, x: (x @ self.weight.T)[:3])),
    ("shape", derived(matvec=writing)),
    ("repeats", derived(matvec=counting)),
    ("zero", derived(matvec=lambda self, x: x @ self.weight.T + 0.5)),
    ("linear", derived(matvec=lambda self, x: abs(x) @ self.weight.T)),
    ("rows", derived(matvec=lambda self, x: (x - x[:1] / 2 if x.ndim > 1 else x) @ self.weight.T)),
    ("dense", derived(dense=lambda self: self.weight.T)),
    ("transpose", derived(rmatvec=D.matvec)),
    ("transpose", derived(transpose=lambda self: self, rmatvec=lambda self, x: x @ self.weight)),
    ("diagonal", derived(diagonal=lambda self: self.weight[0])),
    ("hadamard_transpose", derived(hadamard_transpose=lambda self, other: D(self.weight * other.dense()))),
    ("rounding", derived(rounding=np.nan)),
    ("map", derived(map=lambda self, f: D(f(self.weight)))),
    ("map", derived(map=lambda self, f: type(self)(self.weight))),
    ("float32", derived(matvec=in_double)),
    ("copy", Forgetful),
    ("pickle", Renamed),
    ("weight_tangent", derived(weight_tangent=lambda self, tangent, x: x @ tangent)),
    ("weight_cotangent", derived(weight_cotangent=lambda self, g, x: D.weight_cotangent(self, g, x).T)),
    ("weight_cotangent", derived(weight_cotangent=lambda self, g, x: D.weight_cotangent(self, g, x)[0])),
]


@pytest.mark.parametrize(("law", "kind"), WRONG)
def test_the_check_names_the_law_that_is_broken(law, kind):
    with pytest.raises(AssertionError, match=f"^{law}: "):
        check_mixing(kind(WEIGHT))


def test_the_check_sees_coupled_lanes_and_what_is_no_mixing():
    class Swapped(mixings.Heads):
        def matvec(self, x):
            return super().matvec(x)[..., ::-1, :]

    with pytest.raises(AssertionError, match=r"^lanes: Swapped"):
        check_mixing(Swapped(np.ones((2, 3, 3))))
    with pytest.raises(TypeError, match="mixing is ndarray; wanted a Mixing"):
        check_mixing(np.eye(3))


@pytest.mark.parametrize(
    ("error", "message", "make"),
    [
        (TypeError, "mask has dtype float64; wanted bool", lambda: mixings.Masked(D(WEIGHT), np.ones((4, 4)))),
        (ValueError, r"mask has shape \(4,\)", lambda: mixings.Masked(D(WEIGHT), np.ones(4, bool))),
        (TypeError, "mixing is ndarray", lambda: mixings.Masked(WEIGHT, np.ones((4, 4), bool))),
        (ValueError, "wanted a permutation", lambda: mixings.Permutation([0, 0, 1])),
        (TypeError, "index has dtype float64; wanted int32 or int64", lambda: mixings.Permutation([0.0, 1.0])),
        (ValueError, "one number for each of 2", lambda: mixings.Permutation([1, 0], np.ones(3))),
        (ValueError, "heads is 0", lambda: mixings.SharedHead(WEIGHT, 0)),
        (ValueError, "factors have shapes", lambda: mixings.LowRank(np.ones((3, 2)), np.ones((3, 1)))),
        (ValueError, "factors have shapes", lambda: mixings.LowRank(np.ones((3, 1)), np.ones((3, 1)), np.ones(2))),
        (TypeError, "wanted one", lambda: mixings.LowRank(np.ones((3, 1)), np.ones((3, 1), np.float32))),
        (TypeError, "wanted a sparse array", lambda: mixings.Sparse(WEIGHT)),
        (TypeError, "has dtype int64", lambda: mixings.Sparse(scipy.sparse.csr_array(np.eye(3, dtype=int)))),
        (ValueError, r"matrix has shape \(2, 3\)", lambda: mixings.Sparse(scipy.sparse.csr_array(np.ones((2, 3))))),
        (ValueError, "boundary is 'reflect'", lambda: mixings.Conv(np.ones((3, 1, 1)), (5,), "reflect")),
        (ValueError, r"wanted \(window, window, channels", lambda: mixings.Conv(np.ones((3, 1, 1)), (5, 5))),
        (ValueError, "wanted odd sizes", lambda: mixings.Conv(np.ones((2, 1, 1)), (5,))),
        (ValueError, "wanted odd sizes", lambda: mixings.Conv(np.ones((5, 1, 1)), (4,), "periodic")),
        (
            ValueError,
            "sizes of elman",
            lambda: rs.cells.Elman.random(input_size=1, hidden_size=5, mixing=lambda d: D(WEIGHT)),
        ),
        (ValueError, "heads is 2 with", lambda: rs.cells.Elman.random(input_size=1, hidden_size=4, heads=2, mixing=D)),
    ],
)
def test_bad_mixings_are_refused(error, message, make):
    with pytest.raises(error, match=message):
        make()


def test_a_conv_lstm_on_float32_of_torch():
    torch = pytest.importorskip("torch")
    conv = lambda draw: mixings.Conv(draw((3, 3, 2, 2)), grid=(4, 3))  # noqa: E731
    cell = rs.cells.LSTM.random(input_size=5, hidden_size=24, mixing=conv, rng=0, dtype=np.float32)
    x = torch.randn(20, 2, 5, generator=torch.Generator().manual_seed(0))
    sol = rs.solve(cell.recurrence(x), method="newton")
    assert sol.trusted
    assert sol.output.shape == (20, 2, 24)
    kernel, image = torch.from_numpy(cell.mixings["i"].weight), sol.output.reshape(40, 4, 3, 2).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.conv2d(image, kernel.permute(2, 3, 0, 1), padding=1).permute(0, 2, 3, 1)
    ours = cell.mixings["i"](sol.output.reshape(40, 24).numpy())
    np.testing.assert_allclose(ours, wanted.reshape(40, 24).numpy(), atol=1e-6)
    assert rs.adjoint(sol, output=sol.output).mixings.i.shape == (3, 3, 2, 2)


@pytest.mark.parametrize("T", [0, 1])
@pytest.mark.parametrize("batch", [(), (0,)])
def test_empty_and_single_steps(T, batch):
    for mixing in made().values():
        rec = recurrence_of(mixing, T=T, batch=batch)
        sol = rs.solve(rec, method="newton")
        np.testing.assert_allclose(sol.states, gallery.loop(rec), atol=1e-12)
        assert rs.adjoint(sol, states=np.ones(rec.shape)).mixings.n.shape == mixing.weight.shape
