"""Growing history: y = F(y, u) for a strictly causal F of whole trajectories."""

import pickle
from io import StringIO

import numpy as np
import pytest

import recsolve as rs

S = rs.solvers
RNG = np.random.default_rng(7)
D, V = 4, 16
QUERY, KEY, VALUE = RNG.standard_normal((3, D, D)) / D**0.5
EMBED, READ = RNG.standard_normal((2, V, D))


def before(x):
    """Return the sums of the rows before every row."""
    return np.concatenate([np.zeros_like(x[:1]), np.cumsum(x, axis=0)[:-1]]) if len(x) else x


def attention(y, x):
    """A recurrent transformer: queries from the input, keys and values from the outputs before."""
    q, k, v = (np.moveaxis(a @ W, 0, -2) for a, W in ((x, QUERY), (y, KEY), (y, VALUE)))
    weight = np.exp(q @ np.swapaxes(k, -1, -2) / D**0.5) * np.tri(len(y), len(y), -1, dtype=x.dtype)
    mixed = (weight @ v) / (weight.sum(axis=-1)[..., None] + 1)
    return x + (0.5 * np.moveaxis(mixed, -2, 0)).astype(x.dtype)


class Memory:
    """The sum of all rows before is what a row sees, and what is cached."""

    def __call__(self, y, u):
        return self.window(None, y, u)

    def window(self, cache, y, u):
        return u + np.tanh(0.3 * (before(y) if cache is None else cache + before(y)))

    def extend(self, cache, y, u):
        return y.sum(axis=0) + (0 if cache is None else cache)


def decode(y, x):
    """Greedy decoding of a random model: the next token after all tokens before, and a real input."""
    seen = before(EMBED[y[..., 0]]) * (0.8 ** np.arange(len(y))).reshape(-1, *(1,) * (x.ndim - 1))
    return np.argmax(np.tanh(seen + x) @ READ.T, axis=-1)[..., None]


HISTORIES = {"attention": attention, "memory": Memory(), "no cache": Memory().__call__, "decode": decode}


def made(name, T, batch=(), dtype=np.float64, seed=0):
    x = np.random.default_rng(seed).standard_normal((T, *batch, D)).astype(dtype)
    x.flags.writeable = False
    kind = {"initial": np.zeros((*batch, 1), np.int64), "structure": "none"} if name == "decode" else {}
    return rs.Recurrence.from_history(HISTORIES[name], inputs=x, **kind), x


def literal(rec, x):
    """Return y of a loop: row t of F of the first t + 1 rows."""
    y = np.zeros(rec.shape, rec.dtype)
    for t in range(len(y)):
        y[t] = rec.F(y[: t + 1], x[: t + 1])[t]
    return y


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_method_that_applies_equals_the_literal_loop(name, dtype):
    for seed, (T, batch) in enumerate([(0, ()), (1, ()), (2, ()), (33, ()), (20, (3,)), (13, (2, 2)), (5, (0,))]):
        rec, x = made(name, T, batch, dtype, seed)
        truth = literal(rec, x)
        bound = 0 if name == "decode" else 100 * np.spacing(np.abs(truth).max(initial=1))
        windows = [S.Windowed(solver=inner, window=7) for inner in sorted(rec.applies - {"auto", "chain"})[:3]]
        for method in [*sorted(rec.applies - {"chain"}), *windows, S.Chain(methods=("jacobi", "sequential"))]:
            sol = rs.solve(rec, method=method, callback=lambda now: None)
            assert sol.success, sol
            assert sol.states.dtype == truth.dtype
            assert np.abs(sol.states - truth).max(initial=0) <= bound
            assert sol.nit <= T or sol.solver.name == "windowed"
        rest = rs.solve(rec, method="jacobi", maxiter=1, fallback="sequential")
        assert rest.success


@pytest.mark.parametrize("name", HISTORIES)
def test_the_first_k_rows_are_exact_after_k_sweeps(name):
    rec, x = made(name, 24, (2,))
    truth = literal(rec, x)
    for k in range(8):
        sol = rs.solve(rec, method="jacobi", maxiter=k, guess=np.full(rec.shape, 3, rec.dtype))
        assert np.abs(sol.states[:k] - truth[:k]).max(initial=0) <= 1e-14
        assert sol.exact_prefix >= k
        found = rec.evaluate(sol.states)
        left = found != sol.states if name == "decode" else abs(found - sol.states)
        assert sol.residuals[-1] == left.max()


def test_a_draft_is_a_guess():
    """Of a draft the longest prefix that F accepts is kept, and one row more: speculative decoding."""
    rec, x = made("decode", 40)
    truth = literal(rec, x)
    assert rs.solve(rec, method="jacobi", guess=truth).nit == 0
    draft = truth.copy()
    draft[25] = (draft[25] + 1) % V
    verified = rs.solve(rec, method="jacobi", guess=draft, maxiter=0)
    assert verified.exact_prefix == 25
    sol = rs.solve(rec, method=S.Windowed(solver="jacobi", window=8), guess=draft)
    assert sol.success
    assert np.array_equal(sol.states, truth)
    assert sol.trusted
    assert sol.stats["rows"] < 3 * rs.solve(rec, method=S.Windowed(solver="jacobi", window=8)).stats["rows"]


@pytest.mark.parametrize(
    ("F", "said"),
    [
        (lambda y, u: u + 0.1 * y, "row 0 changed when y was changed from row 0 on"),
        (lambda y, u: u + 0.1 * np.cumsum(y, axis=0), "is not strictly causal"),
        (lambda y, u: u + 0.1 * y.mean(axis=0), "is not strictly causal"),
        (lambda y, u: u + 0.1 * np.roll(y, 1, axis=0), "is not strictly causal"),
        (lambda y, u: u + 0.1 * np.concatenate([y[:0], np.roll(y, 5, axis=0)]), "is not strictly causal"),
        (lambda y, u: u - u.mean(axis=0), "looks ahead in its inputs"),
        (lambda y, u: u + len(y), "depends on how many rows there are"),
    ],
)
@pytest.mark.parametrize("size", [1.0, 1e-20])
def test_leaks_are_named(F, said, size):
    x = size * np.random.default_rng(0).standard_normal((30, 3))
    with pytest.raises(ValueError, match=said):
        rs.Recurrence.from_history(F, inputs=x)


def test_other_faults_are_named():
    x = np.random.default_rng(0).standard_normal((30, 3))
    draw = np.random.default_rng(0)
    with pytest.raises(ValueError, match="is not a function"):
        rs.Recurrence.from_history(lambda y, u: u + draw.standard_normal(3), inputs=x)
    with pytest.raises(ValueError, match="f returned shape"):
        rs.Recurrence.from_history(lambda y, u: u[:-1], inputs=x)
    with pytest.raises(TypeError, match="there are no inputs"):
        rs.Recurrence.from_history(attention, length=3)
    with pytest.raises(ValueError, match="structure is 'diagonal'; wanted dense or none"):
        rs.Recurrence.from_history(attention, inputs=x, structure="diagonal")
    with pytest.raises(ValueError, match="broadcast") as failed:
        rs.Recurrence.from_history(lambda y, u: u + np.zeros((30, 1)) * y, inputs=x)
    assert any("it must take any number" in note for note in failed.value.__notes__)

    class Half(Memory):
        extend = None

    class Wrong(Memory):
        def extend(self, cache, y, u):
            return y.sum(axis=0)[..., ::-1]

    with pytest.raises(TypeError, match="F has one of window"):
        rs.Recurrence.from_history(Half(), inputs=x)
    with pytest.raises(ValueError, match=r"Wrong.window gives another row 15 after 15 cached rows"):
        rs.Recurrence.from_history(Wrong(), inputs=x)


def test_a_leak_that_the_making_missed_is_seen_after_the_solve():
    def late(y, u):  # only of numbers as the solution has
        return u + before(y) + 0.1 * (y.max() > 1e4)

    sol = rs.solve(rs.Recurrence.from_history(late, inputs=np.ones((20, 1))), method="jacobi")
    assert sol.status == "stalled"
    assert "F of the first rows alone gives another row 0 than F of all rows" in sol.message


@pytest.mark.parametrize("method", sorted(S.REGISTRY))
def test_methods_that_need_steps_are_refused(method):
    rec, _ = made("attention", 9)
    if method in rec.applies - {"chain"}:
        assert rs.solve(rec, method=method).success
        return
    with pytest.raises(TypeError, match=rf"method is '{method}'.*jacobi, newton_krylov.*from all rows before"):
        rs.solve(rec, method=method)


def test_what_does_not_apply_is_refused_or_unknown_with_the_reason():
    rec, _ = made("attention", 9)
    sol = rs.solve(rec, method="newton_krylov")
    assert not sol.trusted
    assert np.isnan(sol.condition)
    assert "no Jacobian per step" in sol.message
    assert np.isnan(sol.error_estimate)
    assert sol.error_bound == np.inf
    with pytest.raises(ValueError, match="initial is given, and a history does not depend on it"):
        rs.tangent(sol, initial=np.ones(4))
    with pytest.raises(TypeError, match="no Jacobian per step"):
        rs.diagnose(rec)
    with pytest.raises(TypeError, match="has no steps"):
        rec.step(rec.initial, 0)
    with pytest.raises(TypeError, match="guess='coarse'"):
        rs.solve(rec, method="jacobi", guess="coarse")
    with pytest.raises(ValueError, match=r"y\[:3\], all states before"):
        rec.window(3, 5)
    assert rs.check_structure(rec)
    assert "jacobi" in str(rs.explain(rec, file=StringIO()))


def test_products_are_the_derivative_of_F():
    rec, x = made("attention", 15, (2,))
    y, d = np.random.default_rng(1).standard_normal((2, *rec.shape))
    shifted = np.concatenate([np.zeros_like(d[:1]), d[:-1]])
    product, _ = rec.operator(y)
    differences = (attention(y + 1e-6 * d, x) - attention(y - 1e-6 * d, x)) / 2e-6
    assert np.abs(product(shifted) - differences).max() < 1e-8
    part = rec.between(6, 15, y)
    late = np.where(np.arange(15)[:, None, None] < 6, 0, d)
    differences = (attention(y + 1e-6 * late, x) - attention(y - 1e-6 * late, x))[6:] / 2e-6
    assert np.abs(part.operator(y[6:])[0](shifted[6:] * (np.arange(9) > 0)[:, None, None]) - differences).max() < 1e-8


class Differentiable(Memory):
    """With the transposed derivative of F."""

    wrong = 1.0

    def pull(self, y, u, g):
        slope = g * (1 - np.tanh(0.3 * before(y)) ** 2) * 0.3
        return self.wrong * before(slope[::-1])[::-1], g


def test_gradients_are_those_of_differences_and_transposes_of_tangents():
    x = np.random.default_rng(0).standard_normal((17, 2, D))
    sol = rs.solve(rs.Recurrence.from_history(Differentiable(), inputs=x), method="jacobi")
    c, b = np.random.default_rng(1).standard_normal((2, *x.shape))
    gradients = rs.adjoint(sol, states=c)
    d = rs.tangent(sol, states=b)
    assert (c * d).sum() == pytest.approx((gradients.states * b).sum(), rel=1e-12)

    def moved(step):
        return literal(sol.recurrence, x + step * b)

    assert np.abs(d - (moved(1e-6) - moved(-1e-6)) / 2e-6).max() < 1e-8  # the input is added to F
    assert np.array_equal(gradients.inputs, gradients.states)
    assert not gradients.initial.any()
    final = rs.adjoint(sol, final=c[-1]).states
    assert np.array_equal(final[-1], c[-1])
    with pytest.raises(AttributeError, match="belongs to cells"):
        _ = gradients.mixings


@pytest.mark.parametrize("batch", [(), (2,)])
def test_gradients_without_a_pullback_come_from_one_pass_back(batch):
    rec, x = made("attention", 13, batch)
    sol = rs.solve(rec, method="jacobi")
    c, b = np.random.default_rng(1).standard_normal((2, *rec.shape))
    gradients = rs.adjoint(sol, states=c)
    np.testing.assert_allclose((c * rs.tangent(sol, states=b)).sum(), (gradients.states * b).sum(), rtol=1e-11)

    def moved(step):
        return (c * rs.solve(rs.Recurrence.from_history(attention, inputs=x + step * b), method="jacobi").states).sum()

    np.testing.assert_allclose((gradients.inputs * b).sum(), (moved(1e-6) - moved(-1e-6)) / 2e-6, rtol=1e-7)


def test_an_operation_without_a_transpose_wants_a_pullback():
    def ranked(y, x):
        return x + 0.3 * np.sort(before(y), axis=-1)

    sol = rs.solve(rs.Recurrence.from_history(ranked, inputs=np.ones((9, D))), method="jacobi")
    with pytest.raises(TypeError, match=r"ranked cannot be differentiated backwards .* and has no pull\(y, u, g\)"):
        rs.adjoint(sol, final=np.ones(D))


def test_a_wrong_pullback_is_refused():
    F = Differentiable()
    F.wrong = 1.01
    for call in (F, type("Opaque", (Differentiable,), {"wrong": 1.01, "window": _opaque})()):
        sol = rs.solve(rs.Recurrence.from_history(call, inputs=np.ones((9, D))), method="jacobi")
        with pytest.raises(ValueError, match="pull is not the transpose of the derivative of F"):
            rs.adjoint(sol, final=np.ones(D))


def _opaque(self, cache, y, u):
    return Memory.window(self, cache, np.array(np.asarray(y).tolist()).reshape(y.shape), u)


@pytest.mark.parametrize("method", ["jacobi", "windowed", "anderson", "newton_krylov", "sequential"])
def test_a_step_that_is_not_finite_leaves_those_before_it_alone(method):
    """Although this attention multiplies by its mask, and 0 * nan is nan."""
    rec, x = made("attention", 30)
    clean = literal(rec, x)
    spoilt = x.copy()
    spoilt[17, 1] = np.nan
    sol = rs.solve(rs.Recurrence.from_history(attention, inputs=spoilt), method=method)
    assert sol.status == "nonfinite"
    assert sol.converged_prefix == 17
    assert np.abs(sol.states[:17] - clean[:17]).max() < 1e-14


def test_a_window_does_not_look_at_the_past_again():
    class Counting(Memory):
        rows = extended = 0

        def window(self, cache, y, u):
            self.rows += len(y)
            return super().window(cache, y, u)

        def extend(self, cache, y, u):
            self.extended += len(y)
            return super().extend(cache, y, u)

    F, x = Counting(), np.random.default_rng(0).standard_normal((400, 2))
    rec = rs.Recurrence.from_history(F, inputs=x)
    F.rows = F.extended = 0
    sol = rs.solve(rec, method=S.Windowed(solver="jacobi", window=40))
    assert sol.success
    assert F.rows <= sol.stats["rows"] + 201
    assert F.extended <= 2 * 400
    F.rows = F.extended = 0
    assert rs.solve(rec, method="sequential").success
    assert F.extended <= 2 * 400  # once in the loop, and once in blocks, which test it


@pytest.mark.parametrize(("T", "batch"), [(128, ()), (129, (2,)), (301, ())])
def test_many_rows_are_evaluated_block_by_block(T, batch):
    """With the numbers of F of all rows, and with the shield of rows before one that is not finite."""
    F, sizes = Memory(), []

    class Watched(Memory):
        def window(self, cache, y, u):
            sizes.append(len(y))
            return F.window(cache, y, u)

    x = np.random.default_rng(0).standard_normal((T, *batch, 2))
    rec = rs.Recurrence.from_history(Watched(), inputs=x)
    y = np.random.default_rng(1).standard_normal(x.shape)
    for start in (0, 7):
        part = rec.between(start, T, y)
        sizes.clear()
        found = part.bind().evaluate(y[start:])
        assert max(sizes) == (16 if T - start > 128 else T - start)
        assert np.abs(found - F(y, x)[start:]).max() < 1e-12
    y[T // 2 :] = np.nan
    assert np.isfinite(rec.bind().evaluate(y)[: T // 2 + 1]).all()
    sol = rs.solve(rec, method="sequential")
    assert sol.success
    assert sol.states.tobytes() == rs.solve(rec, method="jacobi", guess=sol.states, maxiter=0).states.tobytes()


def test_a_block_that_looks_ahead_is_seen_after_the_solve():
    class Late(Memory):
        def window(self, cache, y, u):
            return super().window(cache, y, u) + 0.1 * (len(y) > 1) * (np.abs(u).max() > 50)

    x = np.ones((300, 1))
    rec = rs.Recurrence.from_history(Late(), inputs=x)
    rec._all = rec.inputs = [100 * x]  # after the making, which would have seen it
    sol = rs.solve(rec, method="sequential")
    assert sol.status == "stalled"


@pytest.mark.parametrize("out", [lambda y: y.astype("f4"), lambda y: y[..., :1], lambda y: y.tolist(), lambda y: 1 / 0])
def test_a_row_of_another_kind_is_said_as_F_of_all_rows_says_it(out):
    class Wrong(Memory):
        def window(self, cache, y, u):
            found = super().window(cache, y, u)
            return out(found) if (u == 7).any() else found

    x = np.random.default_rng(0).standard_normal((40, 2))
    rec = rs.Recurrence.from_history(Wrong(), inputs=x)
    moved = x.copy()
    moved[33] = 7
    rec._all = rec.inputs = [moved]
    with pytest.raises(Exception) as wanted:
        rec.whole(moved)
    with pytest.raises(wanted.type) as found:
        rec.bind().walk()
    assert str(found.value).replace("(1, 2)", "").replace("(1, 1)", "") == str(wanted.value).replace(
        "(40, 2)", ""
    ).replace("(40, 1)", "")


@pytest.mark.gpu
def test_histories_on_a_gpu():
    cupy = pytest.importorskip("cupy")
    rec, x = made("memory", 40, (2,))
    there = rs.Recurrence.from_history(Memory(), inputs=cupy.asarray(x))
    for method in ("jacobi", "windowed", "anderson", "sequential"):
        sol = rs.solve(there, method=method)
        assert sol.success
        assert np.abs(sol.states.get() - literal(rec, x)).max() < 1e-13


def test_copies_kinds_and_sizes():
    rec, x = made("memory", 20, (2,))
    sol = rs.solve(rec, method="windowed")
    for other in (pickle.loads(pickle.dumps(sol)).recurrence, rec.sequences(np.array([1])), rec.window(0, 9)):
        assert rs.solve(other, method="windowed").success
    one = rs.solve(rec.sequences(np.array([1])), method="jacobi").states[:, 0]
    assert np.abs(one - sol.states[:, 1]).max() < 1e-14
    assert rs.solve(rec.astype(np.float32), method="jacobi").states.dtype == np.float32
    tiny = rs.solve(rs.Recurrence.from_history(attention, inputs=1e-20 * x[:, 0]), method="jacobi")
    assert tiny.success
    assert tiny.residuals[-1] < 1e-34
    torch = pytest.importorskip("torch")
    assert rs.solve(rs.Recurrence.from_history(Memory(), inputs=torch.tensor(x)), method="windowed").states.shape == (
        rec.shape
    )
