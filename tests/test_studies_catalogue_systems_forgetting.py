"""What the studies of systems that forget, halt, freeze and prune claim, on their tiny grids, and their own parts."""

import numpy as np
import pytest

import recsolve as rs
from recsolve.studies.catalogue import (
    act_halting,
    attention_steps,
    heads,
    lattice_pruning,
    learned_freezing,
    pgn_windows,
    slstm_coordinates,
    state_tracking,
    tfla_chunks,
    truncated_gradients,
)
from recsolve.studies.systems import mlstm, pgn
from recsolve.studies.systems.system import get


def test_newton_finds_the_records_of_attention_and_jacobi_waits_where_nothing_is_forgotten(ran):
    facts, _ = ran("attention_rnn")
    T = facts["T"][1]
    assert facts[f"{attention_steps.FLAT}.newton"] == facts[f"{attention_steps.RISING}.newton"] == [1, 1]
    few, many = facts[f"{attention_steps.RANDOM}.newton"]
    assert 1 < few < many < T / 8
    assert facts[f"{attention_steps.FLAT}.jacobi"][1] == facts[f"{attention_steps.RANDOM}.jacobi"][1] == T - 1
    assert facts[f"{attention_steps.RISING}.jacobi"][1] < 0.6 * T


def test_attention_overflows_without_a_maximum_and_not_with_one(ran):
    facts, data = ran("attention_rnn")
    assert facts[f"{attention_steps.NAIVE}.ends"] == facts["scale"] == data["scale"].max() == 100
    for form in (attention_steps.SCAN, attention_steps.LOOP):
        assert facts[f"{form}.ends"] is None
        assert facts[f"{form}.error"] < 1e-5


def test_sums_of_exponentials_are_attention_where_scores_are_small():
    rec = get("attention_rnn").build(length=40)
    expected = rs.solve(rec, method="sequential").output
    np.testing.assert_allclose(attention_steps._sums(rec), expected, rtol=1e-12)


def test_a_window_ends_and_an_open_gate_does_not(ran):
    facts, data = ran("pgn")
    for window in (4, 16):
        name = f"PGN, window {window}"
        assert facts[f"{name}.reach"] == window
        assert facts[f"{name}.left"] == 0
        assert facts[f"{name}.newton"] == facts[f"{name}.jacobi"] == [0, 0]
    closed, opened = "gated network, bias -2", "gated network, bias 4"
    assert facts[f"{closed}.reach"] < 16 < facts[f"{opened}.reach"] == facts["lag"]
    assert facts[f"{opened}.left"] > 0.1 > 1e-6 > facts[f"{closed}.left"]
    assert facts[f"{opened}.newton"][1] < 8 < facts[f"{closed}.jacobi"][1] < facts[f"{opened}.jacobi"][1]
    assert data["products"].sel(past=pgn_windows.WINDOW).max() > 3 * data["products"].sel(past="state before").max()


@pytest.mark.parametrize("past", [pgn_windows.WINDOW, pgn_windows.STATE])
def test_derivatives_by_lag_are_those_of_two_loops(past):
    arrays = dict(pgn.draw(pgn.Config(length=30, batch=1, window=5)))
    build = pgn.make if past == pgn_windows.WINDOW else (lambda given: pgn_windows.recurrent(given, 1.0))
    found = pgn_windows._slopes(build(arrays), past, 5, 12, seed=3)
    towards = np.random.default_rng(3).standard_normal(arrays["x"].shape[1:])
    moved, step = [], 1e-6
    for sign in (1, -1):
        x = arrays["x"].copy()
        x[17] += sign * step * towards / np.linalg.norm(towards)
        moved.append(rs.solve(build({**arrays, "x": x}), method="sequential").states[17:])
    expected = np.linalg.norm((moved[0] - moved[1])[:, 0], axis=-1) / (2 * step)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_a_threshold_saves_what_an_oracle_does_and_a_filter_no_more(ran):
    facts, data = ran("learn2pd")
    for gain in facts["gains"]:
        fixed, oracle = (facts[f"{gain:g}.{rule}"] for rule in (learned_freezing.FIXED, learned_freezing.ORACLE))
        learned = facts[f"{gain:g}.{learned_freezing.LEARNED}"]
        assert oracle <= fixed < 1.5 * oracle
        assert learned is None or learned >= oracle
    assert facts[f"0.7.{learned_freezing.ORACLE}"] < 0.3 < facts[f"1.6.{learned_freezing.ORACLE}"]
    assert set(np.unique(data["status"])) == {"", "accepted"}
    first, *_, last = data["wrong"].sel(rule=learned_freezing.LEARNED).dropna("level", how="all").mean("seed").values.T
    assert (first >= last).all()  # the surer it has to be, the fewer are wrong


def test_positions_halt_sooner_with_a_larger_bias_and_jacobi_copies_to_the_end(ran):
    facts, _ = ran("act")
    for tokens in act_halting.TOKENS:
        deep, flat = facts[f"{tokens}.mean"]
        assert deep > 3 * flat
        assert facts[f"{tokens}.jacobi"] == [facts["depth"] - 1] * 2
        assert facts[f"{tokens}.newton"][1] < facts[f"{tokens}.last"][1]
        assert all(0.4 < share < 1 for share in facts[f"{tokens}.work"])
    assert facts["alike"] > 0.5


def test_halting_at_a_constant_chance_is_a_division():
    assert act_halting.constant(0.0) == 2  # one half, and the rest
    c = np.array([[0.5, 0.2, 0.9], [1.0, 0.4, 0.95], [1.0, 0.6, 1.0]])
    np.testing.assert_array_equal(act_halting._halts(c), [2, np.nan, 3])


def test_gradients_go_back_as_far_as_states_remember(ran):
    facts, data = ran("truncation")
    for cell in truncated_gradients.CELLS:
        for name in ("steps", "newton", "jacobi"):
            short, long = facts[f"{cell}.{name}"]
            assert short < long
        assert facts[f"{cell}.half"] < 1e-6
    least, middle, most = facts["off"]
    assert 0.4 < least < 0.8 < middle < 1.4 < most < 2.5
    assert (data["lost"].isel(kept=0) == 1).all()
    assert (data["lost"].isel(kept=-1) == 0).all()


@pytest.mark.parametrize("cell", truncated_gradients.CELLS)
def test_what_is_lost_is_the_whole_gradient_without_that_of_the_last_steps(cell):
    system = get(cell)
    arrays = system.draw(system.configured(length=20, batch=1, units=4))
    rec = system.build(arrays)
    sol = rs.solve(rec, method="sequential")
    whole = _gradient(rec, arrays["x"], seed=5)
    found = truncated_gradients.lost(sol, arrays["x"], seed=5)
    kept = _gradient(rec.window(13, 20, sol.states[12]), arrays["x"][13:], seed=5)
    assert found[7] == pytest.approx(np.linalg.norm(whole - kept) / np.linalg.norm(whole), rel=1e-9)


def _gradient(rec, x, seed):
    sol = rs.solve(rec, method="sequential")
    towards = np.zeros_like(sol.states)
    towards[-1] = np.random.default_rng(seed).standard_normal(towards[-1].shape)
    drives = rs.adjoint(sol, states=towards).drive
    return np.concatenate([np.einsum("tbn,tbi->ni", drives[name], x) for name in drives])


def test_a_lattice_keeps_less_memory_than_as_many_others(ran):
    facts, data = ran("lattice")
    (_, median, _), *_, last = facts["kept"]
    assert median > 0.8
    assert last == [0, 0, 0]  # where all reach all there is one element, and nothing above it
    lattice = facts[f"0.9.{lattice_pruning.LATTICE}"]
    assert lattice < 0.8 * min(facts[f"0.9.{rule}"] for rule in (lattice_pruning.LARGEST, lattice_pruning.RANDOM))
    kept = data["kept"].sel(solver="newton")
    for rule in (lattice_pruning.LARGEST, lattice_pruning.RANDOM):
        assert (kept.sel(rule=rule) == kept.sel(rule=lattice_pruning.LATTICE)).all()


def test_a_delay_line_remembers_as_many_inputs_as_it_has_taps():
    x = np.random.default_rng(0).standard_normal(400)
    taps = np.stack([np.roll(x, lag) for lag in range(5)], axis=1)
    assert lattice_pruning.memory(taps, x) == pytest.approx(5, abs=0.05)
    assert lattice_pruning.memory(taps[:, :0], x) == 0


def test_narrow_heads_save_products_and_no_iterations(ran):
    facts, data = ran("heads")
    assert facts["saved"] == 64
    for cell in heads.CELLS:
        for gain in facts["gains"]:
            one, many = facts[f"{cell}.{gain:g}.newton"]
            assert many >= one
            diagonal = data.sel(cell=cell, gain=gain, heads=8)["iterations"]
            np.testing.assert_array_equal(diagonal.sel(solver="newton"), diagonal.sel(solver="quasi_newton"))
            assert facts[f"{cell}.{gain:g}.quasi_newton"][0] > 2 * one


def test_long_chunks_have_few_states_and_many_products_and_tiles_hold_little(ran):
    facts, data = ran("paper/tfla_chunks")
    whole, tiled = tfla_chunks.WHOLE, tfla_chunks.TILED
    assert facts[f"{whole}.states"] == facts[f"{tiled}.states"] == [512 / 8 * 256, 256]
    assert facts[f"{whole}.products"] == [2 * 16 * 8 + 512, 2 * 16 * 512 + 512]
    assert facts[f"{tiled}.products"][1] < 0.6 * facts[f"{whole}.products"][1]
    assert facts[f"{whole}.scores"][1] == 256 * facts[f"{tiled}.scores"][1] == 512**2
    assert (data["seconds"] > 0).all()
    assert facts[f"{whole}.ends"][1] > 1  # all scores of a sequence are never the fastest


@pytest.mark.parametrize(("chunk", "tile"), [(1, 1), (40, 40), (16, 4), (24, 10), (60, 7)])
@pytest.mark.parametrize("exponential", [False, True])
def test_chunks_in_tiles_are_the_mlstm(exponential, chunk, tile):
    arrays = tfla_chunks._one_head(40, 4, 0, "float64")
    make = mlstm.mlstm if exponential else mlstm.mlstm_sig
    s = rs.solve(make({name: x[:, None, None] for name, x in arrays.items()}), method="sequential").named
    q = arrays["q"] / 2
    expected = np.einsum("tkv,tk->tv", s.C[:, 0, 0], q)
    if exponential:
        expected /= np.maximum(abs((s.n[:, 0, 0] * q).sum(axis=-1)), np.exp(-s.m[:, 0, 0]))[:, None]
    found = tfla_chunks.chunked(arrays, chunk, tile, exponential)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-11)


def test_tiles_move_fewer_rows_and_give_the_outputs_of_the_loop(ran):
    facts, _ = ran("recurrent_transformer")
    assert facts["T"] == [12, 24]
    assert facts["by_row"] == [12 * 11, 24 * 23]
    keys, queries = (1, 2, 1, 4, 1, 2, 1, 8, 1, 2, 1, 4), (1, 2, 1, 4, 1, 2, 1, 4, 1, 2, 1, 0)  # of the tiles, T = 12
    assert facts["tiled"][0] == 2 * sum(keys) + 3 * sum(queries)
    assert facts["tiled_errors"][0] < 1e-14
    assert max(facts["tiled_errors"]) < 1e-12


def test_what_tracks_a_word_is_iterated_as_long_as_nothing_is_forgotten(ran):
    facts, data = ran("state_tracking")
    assert facts["T"] == [32, 64]
    for reset in facts["reset"]:
        blunt, sharp = facts[f"{reset:g}.right"]
        assert blunt < 0.4 < sharp == 1
        assert facts[f"{reset:g}.exponent"][1] < facts[f"{reset:g}.exponent"][0] < 0
    for solver in state_tracking.SOLVERS:
        assert facts[f"0.{solver}.T"] == [31, 63]
        part = data.sel(reset=0.1, sharpness=8.0, solver=solver)
        rounding = 7  # steps in which what is left, e^-5 of it a step, is below it
        assert (part["iterations"] <= part["longest"] + rounding).all()
    assert facts["0.newton.sharpness"][0] < 16


def test_letters_compose_as_permutations_do():
    letters = np.random.default_rng(0).choice(2, 40)
    power = np.eye(3)
    for letter, state in zip(letters, state_tracking.words(letters), strict=True):
        power = np.eye(3)[list(state_tracking._GENERATORS[letter])] @ power
        np.testing.assert_array_equal(np.eye(3)[list(state_tracking.STATES[state])], power)
    assert state_tracking.words(np.array([0, 1, 2, 1]))[2] == 0


def test_an_slstm_is_solved_in_few_iterations_in_the_right_coordinates(ran):
    facts, _ = ran("slstm")
    assert facts["apart"] < 1e-15
    newton = {form: facts[f"{form}.4.newton"] for form in slstm_coordinates.FORMS}
    assert max(newton[slstm_coordinates.RATIO]) < 10
    assert newton[slstm_coordinates.PLAIN][1] > 4 * newton[slstm_coordinates.RATIO][1]
    assert newton[slstm_coordinates.STABILISED][1] > 1.5 * newton[slstm_coordinates.RATIO][1]
