"""What studies claim, on their tiny grids: cells, precision, guesses, physical recurrences, and the papers."""

import numpy as np
import pytest
from matplotlib import pyplot

import recsolve as rs
from recsolve.studies.catalogue import (
    langevin_lorenz,
    minmax_slopes,
    mixing_ladder,
    paper_deer,
    paper_elk,
    paper_pararnn,
    precision,
)
from recsolve.studies.compare import storage
from recsolve.studies.compare.measure import loop
from recsolve.studies.problems import flows

# trained


def test_training_makes_conditioning_and_adaptive_shooting_does_not_mind(ran):
    facts, data = ran("trained")
    assert facts["before.condition"][2] < facts["after.condition"][0]
    assert facts["before.exponent"] < facts["after.exponent"] < 0
    assert facts["best"] == "adaptive_shooting"
    assert facts["after.adaptive_shooting.failed"] == 0
    assert facts["after.adaptive_shooting"][2] <= 8 < facts["after.newton"][0]
    assert facts["after.newton.failed"] == (data["status"].sel(solver="newton", stage="after") != "converged").sum()
    assert facts["newton.rank"] > 0.8


# minmax


def test_the_clamp_scan_is_the_loop_bit_for_bit(ran):
    _, data = ran("minmax")
    scans = data.sel(solver=minmax_slopes.SCAN)
    ran = scans["status"].values != ""
    assert ran.sum() == 16  # two seeds: three lengths of two problems, and two of the worst case
    assert (scans["error"].values[ran] == 0).all()
    assert (scans["status"].values[ran] == "converged").all()


def test_slopes_of_minmax_cells_are_exactly_0_or_1_and_no_others_are(ran):
    facts, data = ran("minmax")
    cells = [str(cell) for cell in data["cell"].values if cell != minmax_slopes.COUNTED]
    assert {cell for cell in cells if facts[f"slope.{cell}.binary"]} == set(minmax_slopes.WIDEST)
    norms = data["slope"].sel(problem=minmax_slopes.SLOPES, cell=list(minmax_slopes.WIDEST), solver="loop").values
    assert set(np.unique(norms[np.isfinite(norms)])) == {0.0, 1.0}
    assert facts["slope.minmax, wide gates"] == [1.0, 1.0]
    assert facts["slope.gru"][1] < 1e-4
    assert facts["slope.elman"][1] < 1e-4
    assert facts["slope.tanh network, gain 3"][0] > 10


def test_counts_on_clamps_by_the_rule_for_ties(ran):
    facts, data = ran("minmax")
    T = int(data["T"].max())
    assert facts[f"continuum.{minmax_slopes.STATE}"] == facts[f"continuum.{minmax_slopes.BOUND}"] <= 2 * np.log2(T)
    assert facts[f"continuum.{minmax_slopes.STATE}.growth"] < facts["continuum.jacobi.growth"]
    assert facts[f"bits.{minmax_slopes.STATE}"] > 2 * facts[f"bits.{minmax_slopes.BOUND}"]
    assert (
        facts[f"parity.{minmax_slopes.BOUND}"]
        >= facts[f"parity.{minmax_slopes.BOUND}.T"] - 3
        > 3 * facts[f"parity.{minmax_slopes.STATE}"]
    )
    for solver in (minmax_slopes.STATE, minmax_slopes.BOUND, minmax_slopes.JACOBI):
        assert facts[f"ceiling.{solver}"] == facts[f"ceiling.{solver}.T"] - 1


def test_the_parity_cell_computes_parity():
    rec, parity = minmax_slopes.parity(97, seed=5)
    assert np.array_equal(loop(rec), np.stack([1 - parity, parity], axis=-1))


def test_what_did_not_converge_is_neither_counted_nor_drawn(ran):
    _, data = ran("minmax")
    data = data.load().copy(deep=True)
    at = {"problem": "continuum", "cell": minmax_slopes.COUNTED, "T": data["T"].max(), "solver": "jacobi"}
    data["status"].loc[{**at, "seed": 0}] = "maxiter"
    assert np.isnan(minmax_slopes.facts(data)["continuum.jacobi"])
    figure = minmax_slopes.draw_counts(pyplot, data)
    jacobi = next(line for line in figure.axes[0].get_lines() if line.get_label() == "jacobi")
    y = jacobi.get_ydata()
    pyplot.close(figure)
    assert np.isnan(y[-1])
    assert np.isfinite(y[:-1]).all()


# mixing_ladder


def test_newton_grows_more_slowly_than_jacobi_on_every_rung(ran):
    facts, _ = ran("mixing_ladder")
    coupled = [rung for rung in mixing_ladder.RUNGS if rung != "zero"]
    for rung in coupled:
        newton, quasi, jacobi = (facts[f"{rung}.{solver}"] for solver in mixing_ladder.SOLVERS)
        assert newton[1] / newton[0] < 0.8 * jacobi[1] / jacobi[0]
        assert newton[-1] < jacobi[-1] / 2
        assert (quasi == newton) == (rung in ("scalar", "diagonal", "2x2"))
    assert facts["zero.newton"] == facts["zero.jacobi"] == [0, 0, 0]


@pytest.mark.parametrize("rung", mixing_ladder.RUNGS)
def test_every_rung_scales_all_vectors_alike(rung):
    rec = mixing_ladder.recurrence(rung, 0.7, units=8, T=5, seed=3)
    F, J = rec.linearise(loop(rec))
    slopes = 1 - np.reshape(F, (5, 8, 1)) ** 2
    singular = np.linalg.svd(J.todense() / slopes, compute_uv=False)
    assert singular == pytest.approx(np.full((5, 8), 0.0 if rung == "zero" else 0.7))


# initial_guess


def test_a_warm_start_saves_iterations_at_small_perturbations(ran):
    facts, data = ran("initial_guess")
    for solver in ("newton", "quasi_newton", "jacobi"):
        small, training = facts[f"{solver}.saved"]
        assert small > 0.3
        assert small > training
    assert facts["newton.saved"][1] > 0.25
    error, status = data["error"].values, data["status"].values
    assert set(np.unique(status)) <= {"", "converged"}
    assert error[np.isfinite(error)].max() < 1e-12  # from wherever it starts


# work_precision


def test_quadratic_convergence_makes_digits_cheap(ran):
    facts, _ = ran("work_precision")
    for problem in ("dense gru", "diagonal lstm"):
        newton, jacobi = facts[f"{problem}.newton.sweeps"], facts[f"{problem}.jacobi.sweeps"]
        assert newton[1] <= 2 * newton[0]
        assert jacobi[1] > 2.5 * jacobi[0]
        assert facts[f"{problem}.fewest"] == "newton"
    assert facts["unconverged"] == 0


def test_errors_are_what_the_tolerance_and_the_conditioning_allow(ran):
    facts, data = ran("work_precision")
    assert facts["error_over_asked"] < 30
    loose, tight = (float(data["error"].sel(tol=tol, solver="jacobi").max()) for tol in (1e-3, 1e-11))
    assert tight < 1e-6 * loose  # and they follow it


# precision


def test_floors_are_a_few_rounding_units(ran):
    facts, data = ran("precision")
    for kind in precision.STORED:
        assert facts[f"{kind}.settled"] == data["gain"].size * data["seed"].size
        assert facts[f"{kind}.units"][0] > 0.3
        assert facts[f"{kind}.units_of_condition"] < 3
    assert facts["float32.units"][0] < 4
    assert facts["A.floor"] < 2  # A in bfloat16 leaves the floor of float32 where it is
    assert facts["float32, states in bfloat16.units"][1] < 1.1  # that of one rounding, whatever the conditioning


def test_low_precision_first_leaves_newton_a_sweep_or_two(ran):
    facts, data = ran("precision")
    assert facts["newton.high"][1] <= 2
    assert facts["newton.bytes"][1] < 1
    assert facts["jacobi.high"][0] > 5  # of a linear method half of the way is left
    assert data["error"].sel(storage=precision.MIXED).max() < 1e-14


def test_float32_does_not_claim_what_it_cannot_resolve(ran):
    facts, data = ran("precision")
    part = data.sel(storage=precision.MIXED)
    claimed = part["asked_too_much"].values == "converged"
    assert not (claimed & ~(part["asked_residual"].values <= 2 * precision.TOO_MUCH)).any()
    assert sum(count for status, count in facts["asked_too_much"].items() if status != "converged") >= 4


def test_bfloat16_is_torch_s():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal(1000), [0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, np.inf, -np.inf, 1e-40]])
    x = x.astype(np.float32)
    assert np.array_equal(storage.bfloat16(x), torch.from_numpy(x).bfloat16().float().numpy())
    assert np.isnan(storage.bfloat16(np.float32([np.nan]))).all()


# langevin_lorenz


def test_observers_take_few_iterations_and_systems_many(ran):
    facts, data = ran("langevin_lorenz")
    assert facts["newton.observer"][1] <= 6
    assert facts["newton.system"][1] >= 3 * facts["newton.observer"][1]
    assert facts["multiple_shooting.system"][1] < facts["newton.system"][1]
    lorenz = data["exponent"].sel(problem="lorenz63", solver="newton").dropna("T", how="all").dropna("seed", how="all")
    assert (lorenz.sel(nudge=0.2) < -0.1).all()
    assert (lorenz.sel(nudge=0.0) > lorenz.sel(nudge=0.2) + 0.1).all()
    assert facts["wells.clipped_newton"][2] <= 4 * np.log2(facts["wells.T"][1])
    published = langevin_lorenz.tables(data)[1]
    assert [row[1] for row in published.rows] == list(langevin_lorenz.PUBLISHED.values())


def test_an_observer_finds_what_it_observes():
    watched, observer = flows.system("rossler", 300, seed=0), flows.observer("rossler", 300, seed=0, nudge=0.2)
    away = np.abs(loop(watched) - loop(observer)).max(axis=1)
    assert away[0] > 0.3
    # It sees the state before the step, so that it follows as closely as one step goes.
    one_step = np.abs(np.diff(loop(watched), axis=0)).max()
    assert away[100:].max() < 0.5 * one_step / 0.2


def test_runge_kutta_is_of_order_four():
    errors = [abs(flows.runge_kutta(lambda h: -h, 1.0, dt) - np.exp(-dt)) for dt in (0.2, 0.1)]
    assert errors[0] / errors[1] == pytest.approx(32, rel=0.1)


# The papers


def test_three_iterations_fail_where_a_converged_solve_is_right(ran):
    facts, data = ran("paper/pararnn")
    for cell in ("pararnn_gru", "pararnn_lstm"):
        assert facts[f"{cell}.enough"] < facts[f"{cell}.wrong"] <= facts[f"{cell}.solved_to"]
        assert facts[f"{cell}.fixed_error"] > 0.1
        assert facts[f"{cell}.solved_error"] < 1e-5
        few, many = facts[f"{cell}.iterations"]
        assert few <= paper_pararnn.FIXED + 1 < many
    rows = {row[0]: row for row in paper_pararnn.tables(data)[0].rows}
    assert rows["B8 T512 D1024"][1:3] == ["6.1e-03", "2.4e-02"]


def test_weights_of_twice_the_size_take_two_fifths_of_the_steps():
    counts = {}
    for scale in (1.0, 2.0):
        rec = paper_pararnn.recurrence("pararnn_gru", scale, T=512, batch=1, units=64, seed=1, dtype="float32")
        counts[scale] = rs.solve(rec, method="newton", maxiter=514).nit
        three = rs.solve(rec, method="newton", maxiter=paper_pararnn.FIXED).states
        assert np.abs(three - loop(rec)).max() > 1e-2
    assert counts[1.0] < 12 < 0.4 * 512 < counts[2.0]


def test_errors_after_k_iterations_are_those_of_newton():
    arguments = {"cell": "pararnn_gru", "scale": 0.5, "T": 40, "batch": 1, "units": 8, "seed": 1, "dtype": "float32"}
    (row,) = paper_pararnn.run(kind=paper_pararnn.SWEEP, maxiter=42, **arguments)
    rec = paper_pararnn.recurrence(**arguments)
    truth = loop(rec)
    for k in paper_pararnn.COUNTS:
        after = rs.solve(rec, method="newton", maxiter=k).states
        assert row["errors"][k] == pytest.approx(float(np.abs(after - truth).max()))


def test_an_update_test_claims_success_on_what_is_no_solution(ran):
    facts, data = ran("paper/deer")
    assert 20.0 in facts[f"{paper_deer.MOVED}.false"]
    assert facts[f"{paper_deer.MOVED}.worst_claimed"] > 1e3
    assert facts[f"{paper_deer.OURS}.false"] == []
    assert facts[f"{paper_deer.OURS}.worst_claimed"] < 1e-5
    assert facts["trusted_up_to"] == 0.5  # in chaos a solution says of itself that it is not to be trusted
    contractive = data["error"].sel(problem=paper_deer.SINE, p=0.5)
    assert contractive.max() < 1e-5  # where both are right
    assert facts["newton.iterations"][1] <= 4
    assert any("1e+08" in cell for row in paper_deer.tables(data)[0].rows for cell in row[1:3])


def test_elk_solves_where_newton_overflows(ran):
    facts, data = ran("paper/elk")
    assert np.isfinite(facts["lorenz.elk.right_after"])
    assert np.isnan(facts["lorenz.newton.right_after"])
    assert facts["lorenz.newton.status"] == ["maxiter"]
    assert facts["lorenz.elk.lost"] < 0.2 < facts["lorenz.newton.lost"]
    small, large = (float(paper_elk._gru(data, paper_elk.ELK).sel(damping=d).max()) for d in (1e-4, 1e-1))
    assert large > 2 * small  # too much damping gives quadratic convergence up


def test_without_damping_elk_is_newton():
    rec = paper_elk.autoregressive_gru(units=3, T=50, gain=1.0, seed=0)
    counts = [
        rs.solve(rec, method=paper_elk.solver(name, 0.0), tol=1e-8).nit for name in (paper_elk.NEWTON, paper_elk.ELK)
    ]
    assert counts[0] == counts[1] > 1
