"""The damped, filtered and smoothed steps: against their definitions, written out."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.solvers import elk
from recsolve.solvers.elk import gains, variance_gains
from recsolve.solvers.problem import Problem

S = rs.solvers


def problem_at(rec, *, pin=False):
    """A problem and a first iterate; without the pin, so that the filter is the textbook's."""
    problem = Problem(rec, rs.solve(rec).tolerance, pin=pin, jacobian=True)
    return problem, problem.evaluate(rec.guess())


def damping_of(rec, value):
    return np.full((1, *rec.batch, *(1,) * len(rec.layout.event)), value)


def kalman(J, r, sigma2):
    """Filter and smoother of d[t] = J d[t-1] + r + N(0, I), seen as 0 with variance sigma2: the textbook recursions."""
    T, n = r.shape
    eye = np.eye(n)
    m, P, ms, Ps, predicted = np.zeros(n), np.zeros((n, n)), [], [], []
    for t in range(T):
        A = J[t] if t else np.zeros((n, n))
        mp, Pp = A @ m + r[t], A @ P @ A.T + eye
        K = Pp @ np.linalg.inv(Pp + sigma2 * eye)
        m, P = mp - K @ mp, Pp - K @ Pp
        ms.append(m), Ps.append(P), predicted.append((mp, Pp, K))
    smooth = [ms[-1]]
    for t in range(T - 2, -1, -1):
        mp, Pp, _ = predicted[t + 1]
        G = Ps[t] @ J[t + 1].T @ np.linalg.inv(Pp)
        smooth.append(ms[t] + G @ (smooth[-1] - mp))
    return np.array(ms), np.array(smooth[::-1]), np.array([K for _, _, K in predicted])


CELLS = [("gru", "dense"), ("gru", "diagonal"), ("lstm", "diagonal"), ("elman", "heads")]


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
@pytest.mark.parametrize("lam", [1e-6, 0.3, 20.0])
@pytest.mark.parametrize("T", [1, 7, 90])
def test_filter_smoother_and_gain_are_the_textbooks(cell, lam, T):
    rec = gallery.recurrence(*cell, T=T, batch=(), gain=2.0)
    problem, iterate = problem_at(rec)
    J = iterate.jacobian.todense()
    filtered, smoothed, K = kalman(J, iterate.residual.reshape(T, -1), 1 / lam)
    damping = damping_of(rec, lam)
    for solver, expected in ((S.Elk(), filtered), (S.LevenbergMarquardt(), smoothed)):
        d = solver.correction(problem, iterate, solver.begin(problem, iterate), damping)
        np.testing.assert_allclose(d.reshape(T, -1), expected, rtol=1e-8, atol=1e-10)
    if cell == ("gru", "dense"):
        np.testing.assert_allclose(
            gains(problem, iterate.jacobian.lane_dense(), damping, problem.starts), K, atol=1e-10
        )


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_the_smoother_minimises_the_model_and_the_filter_does_not(cell):
    rec = gallery.recurrence(*cell, T=20, batch=(), gain=2.0)
    problem, iterate = problem_at(rec)
    T, N, lam = 20, rec.layout.size, 0.3
    J, r = iterate.jacobian.todense(), iterate.residual.reshape(-1)
    system = np.eye(T * N)
    for t in range(1, T):
        system[t * N : (t + 1) * N, (t - 1) * N : t * N] = -J[t]
    best = np.linalg.lstsq(np.vstack([system, np.sqrt(lam) * np.eye(T * N)]), np.concatenate([r, np.zeros(T * N)]))[0]

    def cost(d):
        return np.sum((system @ d.ravel() - r) ** 2) + lam * np.sum(d**2)

    steps = {s.name: s.correction(problem, iterate, s.begin(problem, iterate), damping_of(rec, lam))
             for s in (S.Elk(), S.LevenbergMarquardt())}  # fmt: skip
    np.testing.assert_allclose(steps["levenberg_marquardt"].ravel(), best, atol=1e-9)
    assert cost(steps["elk"]) > 1.001 * cost(steps["levenberg_marquardt"])


@pytest.mark.parametrize("dtype", gallery.DTYPES)
@pytest.mark.parametrize("expanding", [0.5, 3.0])
def test_the_covariance_scan_is_the_loop_and_stays_bounded(dtype, expanding):
    rng = np.random.default_rng(0)
    T, lam = 3000, dtype(1e-3)
    a = (expanding * rng.standard_normal((T, 1, 1, 1))).astype(dtype)
    A, C, B = a / (1 + lam), np.full_like(a, lam / (1 + lam)), a * a / (1 + lam)
    K = rs.kernels.get("scan")(rs.kernels.monoids.MONOIDS["riccati"], (A, C, B))[:, 0, 0, 0]
    k, expected = dtype(0), []
    for t in range(T):
        m = (a[t, 0, 0, 0] ** 2 * k if t else 0) + lam
        k = m / (1 + m)
        expected.append(k)
    np.testing.assert_allclose(K, expected, rtol=30 * np.finfo(dtype).eps)
    assert ((K >= 0) & (K < 1)).all()


@pytest.mark.parametrize("solver", [S.Elk, S.LevenbergMarquardt])
def test_without_damping_they_are_newton(solver):
    for cell in CELLS:
        rec = gallery.recurrence(*cell, T=40)
        problem, iterate = problem_at(rec, pin=True)
        newton = problem.correct(iterate, iterate.jacobian)
        d = solver().correction(problem, iterate, solver().begin(problem, iterate), damping_of(rec, 0.0))
        np.testing.assert_allclose(iterate.states + d, newton, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["elk", "levenberg_marquardt", "damped_newton"])
def test_the_adapted_setting_is_traced_and_convergence_stays_quadratic(method):
    rec = gallery.recurrence("gru", "dense", T=100, batch=(3,), gain=1.0)
    sol = rs.solve(rec, method=method, options={"trace": True})
    assert sol.nit <= rs.solve(rec).nit + 1
    (name, history), = sol.trace.settings.items()  # fmt: skip
    assert name == ("weight" if method == "damped_newton" else "damping")
    assert history.shape == (sol.nit + 1, 3)
    if method != "damped_newton":
        assert (np.diff(history, axis=0) < 0).all()


@pytest.mark.parametrize("method", ["elk", "levenberg_marquardt"])
def test_a_fixed_damping_gives_up_quadratic_convergence_not_the_answer(method):
    rec = gallery.recurrence("gru", "dense", T=60, gain=1.0)
    fixed = rs.solve(rec, method=method, options={"damping": 0.3})
    assert fixed.success
    assert fixed.nit > 2 * rs.solve(rec, method=method).nit
    assert np.abs(fixed.states - gallery.loop(rec)).max() <= gallery.bound(fixed)


@pytest.mark.parametrize("rule", ["backtracking", "gain_ratio"])
def test_weights_change_where_full_steps_fail_and_each_sequence_has_its_own(rule):
    rng = np.random.default_rng(3)
    W = rng.standard_normal((8, 8)) * 2.2 / np.sqrt(8)
    cell = rs.cells.Elman.with_weights(mixings={"h": rs.mixings.Dense(W)})
    rec = cell.recurrence(drive={"h": rng.standard_normal((150, 3, 8))})
    sol = rs.solve(rec, method="damped_newton", options={"rule": rule, "trace": True})
    assert sol.success
    weights = sol.trace.settings["weight"]
    if rule == "gain_ratio":
        assert np.nanmin(weights) < 1
        assert any(len(set(row[np.isfinite(row)])) > 1 for row in weights)
    else:
        assert np.nanmin(weights) == 1  # every iteration begins with the full step


def test_the_gain_rule_of_the_weight():
    solver, w = S.DampedNewton(rule="gain_ratio", shrink=0.5), 0.25
    for ratio, expected in {0.24: 0.125, 0.26: w, 0.74: w, 0.76: 0.5, 0.9: 0.5, np.nan: w}.items():
        assert solver.after_step(np.array([w]), np.array([ratio])) == [expected]
    assert solver.after_step(np.array([0.8]), np.array([0.9])) == [1.0]


@pytest.mark.parametrize("solver", [S.Elk(), S.LevenbergMarquardt()], ids=lambda solver: solver.name)
def test_the_gain_rule_of_the_damping_is_nielsens(solver):
    """max(1/3, 1 - (2 rho - 1)^3), Nielsen (1999), here at most 2."""
    expected = {-9.0: 2.0, 0.0: 2.0, 0.25: 1.125, 0.5: 1.0, 0.75: 0.875, 0.9: 0.488, 1.0: 1 / 3, 2.0: 1 / 3}
    for ratio, factor in expected.items():
        np.testing.assert_allclose(solver.after_step(np.array([3.0]), np.array([ratio])), 3 * factor, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-4, 0.5, 7.0])
def test_the_damping_is_in_proportion_to_small_residuals_and_bounded_at_large_ones(size, monkeypatch):
    rec = gallery.recurrence("gru", "dense", T=20)
    problem, _ = problem_at(rec)
    F, seen = rec.evaluate(rec.guess()), []
    residual = np.full_like(F, size)
    iterate = problem.judge(F - residual, F, rec.linearise(F - residual)[1])
    monkeypatch.setattr(S.Elk, "correction", lambda self, p, it, A, damping: seen.append(damping) or 0 * it.states)
    elk = S.Elk()
    elk.propose(problem, iterate, elk.begin(problem, iterate), damping_of(rec, 0.3))
    np.testing.assert_allclose(seen[0], 0.3 * min(size, 1.0), rtol=1e-6)


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
@pytest.mark.parametrize("lam", [1e-6, 0.3, 20.0])
@pytest.mark.parametrize("pin", [False, True])
def test_gains_of_variances_are_the_loop_written_out(cell, lam, pin, monkeypatch):
    """In pieces too, and with resets, at which what is known is not in doubt."""
    reset = np.random.default_rng(0).random((50, 2)) < 0.1
    rec = gallery.recurrence(*cell, T=50, gain=2.0, reset=reset)
    problem, iterate = problem_at(rec, pin=pin)
    monkeypatch.setattr(elk, "_TOGETHER", 1000)
    cut = problem.cut(iterate)
    found = variance_gains(problem, iterate.jacobian, damping_of(rec, lam), cut).data.reshape(50, 2, -1)
    J, k = iterate.jacobian.todense(), np.zeros((2, rec.layout.size))
    for t in range(50):
        m = np.where(cut[t][:, None], 0.0, np.einsum("bij,bj->bi", J[t] ** 2, k)) + lam
        k = np.where(cut[t][:, None] & pin, 0.0, m / (1 + m))
        np.testing.assert_allclose(found[t], k, rtol=1e-12)


@pytest.mark.parametrize("solver", [S.Elk, S.LevenbergMarquardt])
def test_wide_lanes_go_without_their_covariances(solver, monkeypatch):
    """Full ones are walked at n^3 a step: on 128 units of an LSTM an iteration took minutes."""

    def refuse(*args):
        raise AssertionError("full covariances of wide lanes")

    rec = gallery.recurrence("lstm", "dense", units=10, T=60, gain=1.5)
    full = rs.solve(rec, method=solver(covariance="full"))
    monkeypatch.setattr(elk, "gains", refuse)
    for covariance in (None, "diagonal"):
        sol = rs.solve(rec, method=solver(covariance=covariance))
        assert sol.success
        assert sol.nit <= full.nit + 1
        assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)
    with pytest.raises(AssertionError, match="full covariances"):
        rs.solve(rec, method=solver(covariance="full"))


@pytest.mark.parametrize(
    "method", [S.Elk(slow=None), S.LevenbergMarquardt(slow=None), S.DampedNewton(), S.AdaptiveShooting()],
    ids=lambda solver: solver.name,
)  # fmt: skip
def test_the_units_of_a_component_change_no_iterate(method):
    """A component counted in thousandths is the same component, to steps that must prove themselves."""
    u = np.random.default_rng(0).standard_normal((100, 2, 4))

    def solved(unit):
        def f(h, u):
            a, b = h[..., 0, :], h[..., 1, :] / unit
            return np.stack(
                [2 * np.sin(a + 0.5 * b) + u[..., 0, :], unit * (0.9 * b + np.tanh(a) + u[..., 1, :])], axis=-2
            )

        rec = gallery.function(f, u, structure="block")
        return rs.solve(rec, method=method, options={"atol": 0.0, "rtol": 1e-9})

    plain, other = solved(1.0), solved(1024.0)
    assert plain.success
    assert other.nit == plain.nit
    np.testing.assert_allclose(other.states[:, 1], 1024.0 * plain.states[:, 1], rtol=1e-6)


@pytest.mark.parametrize("method", ["elk", "levenberg_marquardt"])
@pytest.mark.parametrize("mixing", ["heads", "diagonal"])
def test_components_that_grow_to_other_sizes(mixing, method):
    """The normaliser of an sLSTM that hardly forgets: the smoother took most of the 400 iterations, as one damping did.

    Its residual is small far from the solution, where no step that lowers it leads out.
    """
    cell = gallery.weighted("slstm", mixing)
    drive = cell.drive(np.random.default_rng(1).standard_normal((400, 3)))
    rec = cell.recurrence(drive={**drive, "f": drive["f"] + 5.0})
    sol = rs.solve(rec, method=method)
    assert sol.success
    assert sol.nit <= 2 * rs.solve(rec).nit + 5
    assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)


@pytest.mark.parametrize("method", ["elk", "levenberg_marquardt"])
@pytest.mark.parametrize("name", ["recall-gru", "recall-lstm", "parity-gru", "parity-lstm"])
def test_trained_networks_take_at_most_about_twice_as_many_iterations_as_newton(name, method):
    from recsolve.studies.trained.networks import recurrence

    rec = recurrence(name, T=100)
    assert rs.solve(rec, method=method).nit <= 2 * rs.solve(rec).nit + 5


@pytest.mark.parametrize("solver", [S.Elk, S.LevenbergMarquardt])
def test_each_sequence_is_let_go_by_itself(solver):
    """One that forgets beside one that does not; what is let go takes Newton's steps."""
    rec = gallery.recurrence("slstm", "diagonal", T=300)
    hard = rec.cell.recurrence(drive={**rec.drive, "f": rec.drive["f"] + np.array([0.0, 5.0])[:, None]})
    sol = rs.solve(hard, method=solver(slow=2), options={"trace": True})
    assert sol.success
    damping = sol.trace.settings["damping"]
    assert (damping[:, 1] == 0).any()
    assert not (damping[:, 0] == 0).any()
    free, newton = rs.solve(hard, method=solver(slow=0)), rs.solve(hard)
    assert free.nit <= newton.nit + 2  # the first step is damped
