"""What the studies of systems on graphs and over depth claim, on their tiny grids."""

import numpy as np
import pytest

import recsolve as rs
from recsolve.studies.catalogue import depth_paths, depth_sampler, depth_settling, plstm_gains, seq2seq_stacks
from recsolve.studies.systems import cola, recurrent_depth, seq2seq

P, D, FREE = plstm_gains.P_MODE, plstm_gains.D_MODE, plstm_gains.FREE


def test_p_mode_keeps_the_sum_d_mode_every_gain_and_no_rule_neither(ran):
    facts, data = ran("plstm")
    assert (data["error"] <= 1e-12).all()
    for gates in plstm_gains.GATES:
        assert facts[f"{P}.{gates}.total"] == pytest.approx([1.0, 1.0], abs=1e-14)
        assert facts[f"{P}.{gates}.largest"] <= 1
        assert facts[f"{D}.{gates}.largest"] == 1
        assert facts[f"{FREE}.{gates}.growth"] > 1.3
    assert facts[f"{D}.largest.last"] == 1
    assert facts[f"{D}.largest.last_total"] == facts["distance"] + 2  # one edge more a step
    assert facts[f"{FREE}.largest.last"] == 35  # paths of 7 moves, 3 of them to one side
    assert facts[f"{FREE}.largest.growth"] == 2
    assert facts[f"{P}.iterations"] == facts[f"{D}.iterations"] == 1
    assert facts["levels"] == 15


def test_a_wavefront_and_layers_in_turn_agree_and_wait_for_other_numbers_of_steps(ran):
    facts, _ = ran("seq2seq")
    assert facts["error"] < 1e-13
    assert facts["layers"] == [1, 3]
    wavefront, in_turn = (facts[f"{way}.levels"] for way in seq2seq_stacks.WAYS[:2])
    assert wavefront == [32, 34]
    assert in_turn == [32, 96]
    assert 2 <= facts[f"{seq2seq_stacks.WAYS[2]}.iterations"][1] <= 10


def test_a_reversed_source_is_nearer_at_first_and_farther_at_last(ran):
    facts, _ = ran("seq2seq")
    assert facts["first"] > 1.5
    assert facts["last"] < 1 / 1.5
    assert 1 <= facts["crossing"] < facts["words"] == 8


def test_slopes_by_word_are_those_of_differences():
    arrays = seq2seq.draw(seq2seq.Config(length=6, batch=1, layers=2, units=3))
    order = np.arange(3)

    def last(source):  # read as it is, where the stack turns it around
        states = seq2seq_stacks.whole({**arrays, "source": source[::-1]}, "sequential")[0]
        return states[-1, 3:, 0, :3]

    found = seq2seq_stacks.slopes(arrays, order)
    for word in range(3):
        columns = []
        for channel in range(4):
            ends = []
            for sign in (1, -1):
                moved = arrays["source"].copy()
                moved[word, 0, channel] += sign * 1e-6
                ends.append(last(moved)[word])
            columns.append((ends[0] - ends[1]) / 2e-6)
        assert found[word] == pytest.approx(np.linalg.norm(columns), rel=1e-6)


def test_loops_settle_where_weights_are_small_and_solvers_see_it(ran):
    facts, data = ran("depth")
    block, transformer = depth_settling.BLOCK, depth_settling.TRANSFORMER
    assert facts[f"{block}.settled"][:2] == [1.0, 1.0]
    assert facts[f"{block}.steps"][0] < facts[f"{block}.steps"][1]
    assert facts[f"{transformer}.steps"][-1] is None or facts[f"{transformer}.steps"][-1] < 64
    assert facts[f"{block}.newton"][0] <= 4 < facts[f"{block}.jacobi"][0]
    assert facts[f"{block}.newton"][0] < facts[f"{block}.newton"][2]
    assert 1 < facts["sweeps"] < 3
    assert (data["error"].sel(solver=["newton", "jacobi"]) < 1e-10).all()


def test_settling_is_the_first_step_after_which_nothing_changes():
    states = np.array([1.0, 2.0, 3.0, 3.0, 3.0, 3.0])[:, None]
    assert depth_settling.settling(states) == 3
    assert np.isnan(depth_settling.settling(np.arange(5.0)[:, None]))
    assert depth_settling.settling(np.ones((5, 2))) == 1


def test_the_sampler_finds_the_tokens_of_the_loop_where_it_waits_for_them(ran):
    facts, _ = ran("sampler")
    assert facts["1.equal"]
    assert facts["4.equal"]
    assert facts["1.worst"] > 0
    assert facts["4.mismatch"] == 0
    assert 5 < facts["4.speed"] < 8 < facts["1.speed"] < 32
    assert facts["4.work"] < 1


def test_the_sampler_of_all_iterations_at_once_is_the_loop_itself():
    arrays = recurrent_depth.draw(recurrent_depth.Config(length=10, gain=0.5, memory=0.8))
    tokens, passes, rows = depth_sampler.sampled(arrays, 200, 1e-9)
    np.testing.assert_array_equal(tokens, depth_sampler.in_turn(arrays))
    assert len(np.unique(tokens)) > 1
    assert passes / 200 <= 13 <= rows / 200
    with pytest.raises(ValueError, match="a position still moves by"):
        depth_sampler.in_turn({**arrays, "W": -50 * np.eye(8)})


def test_a_search_over_paths_finds_answers_that_nobody_trained(ran):
    facts, data = ran("paths")
    assert facts["4.shorter"] > 0.9
    assert facts["64.shorter"] > 0.6
    few, many = (facts[f"{n}.fixed"] for n in (4, 64))
    assert np.diff(few).min() >= 0
    assert few[-1] > 0.6 > many[-1]
    lengths = data["kept"].sel(solver="search").values
    assert (lengths[..., 3:] == 1).all()  # the stack itself is among the paths of four blocks


def test_the_end_of_a_path_is_that_of_its_recurrence():
    arrays = cola.draw(cola.Config(length=3, batch=2, blocks=4))
    path = arrays["path"].astype(int).tolist()
    ends = [*depth_paths.by_length(arrays, 3)][-1][depth_paths.number(path, 4)]
    np.testing.assert_allclose(ends, rs.solve(cola.make(arrays)).named.H[-1], atol=1e-13)
