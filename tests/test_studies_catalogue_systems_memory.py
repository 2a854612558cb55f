"""What studies of memories claim, on their tiny grids: selection, overwriting, lists, patterns, grammars, passes."""

import numpy as np
import pytest

import recsolve as rs
from recsolve.studies.catalogue import (
    hopfield_retrieval,
    htm_words,
    overwriting,
    planted_fact,
    reber,
    selectivity,
    thinking,
)
from recsolve.studies.systems.system import get

# selectivity


def test_what_is_stepped_over_is_not_remembered_and_costs_jacobi_sweeps(ran):
    facts, _ = ran("selectivity")
    fixed, writes, steps = (facts[way] for way in selectivity.WAYS)
    assert fixed[0] == writes[0] == steps[0] < 0.05  # without noise there is nothing to select
    assert max(steps) < 1.2 * min(steps)
    assert min(fixed[1:]) > 0.8
    assert 0.6 < min(writes[1:]) < min(fixed[1:])
    assert facts["error"] < 1e-13
    for way in selectivity.WAYS:
        assert max(facts[f"{way}.newton"]) <= 2  # one iteration, and maybe one for rounding
    assert facts[f"{selectivity.STEPS}.jacobi"][-1] > 6 * facts[f"{selectivity.FIXED}.jacobi"][-1]


def test_values_are_where_they_are_told_and_in_order():
    x, told, values = selectivity.task(values=5, noise=3, batch=6, seed=1, dtype="float64")
    assert (told.sum(axis=0) == 5).all()
    for sequence in range(6):
        np.testing.assert_array_equal(x[told[:, sequence], sequence], values[:, sequence])


def test_skipped_noise_leaves_the_state_of_the_values_alone():
    x, told, values = selectivity.task(values=6, noise=4, batch=3, seed=2, dtype="float64")
    made = selectivity.mamba.make(selectivity.coefficients(selectivity.STEPS, x, told, 4, 0.3))
    alone = selectivity.mamba.make(
        selectivity.coefficients(selectivity.FIXED, values, np.ones(values.shape, bool), 4, 0.3)
    )
    last, expected = (rs.solve(rec, method="sequential").states[-1] for rec in (made, alone))
    np.testing.assert_allclose(last, expected, rtol=1e-13, atol=1e-15)


# overwriting


def test_memories_that_correct_do_not_mind_how_often_and_one_that_adds_does(ran):
    facts, _ = ran("overwriting")
    adds = facts[f"{overwriting.REWRITTEN}.{overwriting.ADDS}"]
    assert adds[1] > 3 * adds[0]
    for way in overwriting.WAYS[1:]:
        few, many = facts[f"{overwriting.REWRITTEN}.{way}"]
        assert few < adds[0]
        assert many < 1.4 * few < 1
        light, heavy = facts[f"{overwriting.LOADED}.{way}"]
        assert heavy > 1.5 * light  # what correction does not help
    assert facts["newton"] == [1, 1]
    assert facts["jacobi"][1] == facts["T"][1] - 1


def test_orthogonal_keys_are_read_back_exactly_by_every_rule_that_corrects():
    k = np.eye(4)[[0, 1, 2, 1, 0, 3]][:, None]
    v = np.random.default_rng(0).standard_normal(k.shape)
    for way in overwriting.WAYS[1:]:
        rec = overwriting.memory(way, k, v, 1.0, 0.0 if way == overwriting.TITANS else 1.0)
        M = overwriting.last_memory(way, rec, get(overwriting.SYSTEMS[way]).scan(rec))[0]
        np.testing.assert_allclose(M.T, v[[4, 3, 2, 5], 0], atol=1e-14)


# planted


def test_a_list_of_all_knows_what_short_memories_and_short_lists_have_lost(ran):
    facts, _ = ran("planted")
    last = {name: facts[f"{name}.last"] for name in planted_fact.MEMORIES}
    assert last["long, all"] > 0.9
    assert max(last["short, forgets (w = 0.9)"], last["short, holds (w = 1.5)"], last["long, the last 8"]) < 0.65
    assert last["long, the last 8"] < last["long, all, vague search"] < last["long, all"] - 0.1
    until = {name: facts[f"{name}.until"] for name in planted_fact.MEMORIES}
    assert until["short, forgets (w = 0.9)"] < until["short, holds (w = 1.5)"] < facts["T"] / 2
    assert 8 <= until["long, the last 8"] < facts["T"] / 2
    assert facts["newton"][1] <= 10 < facts["jacobi"][0] == facts["solved"] - 1


# durations


def test_a_closed_form_moves_in_no_time_and_is_harder_the_longer_it_lasts(ran):
    facts, _ = ran("durations")
    assert facts["durations"][0] == 0
    assert min(facts["moved"]) > 1
    assert min(facts["split"]) > 0.5
    assert facts["exponent"][0] < -0.3 < facts["exponent"][-1]
    assert facts["newton"][0] <= 8 < facts["newton"][-1]


# hopfield


def test_what_one_step_finds_grows_exponentially_and_solvers_wait_in_between(ran):
    facts, _ = ran("hopfield")
    assert facts["widths"] == [8, 16]
    narrow, wide = facts["capacity"]
    assert 4 <= narrow < 64 < 1024 <= wide
    assert facts["16"][0] == 1 > facts["16"][-1]
    for solver in (hopfield_retrieval.SETTLES, *hopfield_retrieval.SOLVERS):
        averaged, between, found = facts[solver]
        assert averaged < between > found
    assert facts["newton"][1] <= 8 < facts["jacobi"][1]


# htm_words


def test_columns_of_many_cells_tell_ends_by_beginnings_and_bear_a_loss(ran):
    facts, _ = ran("htm_words")
    whole, cut = htm_words.WHOLE, htm_words.CUT
    assert facts[f"{whole}.1.right"] == [0.0, 0.0, 0.0]
    assert facts[f"{whole}.1.told"][0] == facts["words"] == 4
    assert facts[f"{whole}.8.right"][0] == 1.0
    assert facts[f"{whole}.8.right"][1] > 0.7
    assert facts[f"{whole}.8.right"][2] == 0.0
    assert facts[f"{cut}.8.told"][0] == 4  # all are possible
    assert facts[f"{cut}.8.right"][0] == 0.0


# reber


def test_most_weights_can_be_pruned_before_the_grammar_is_lost(ran):
    facts, data = ran("reber")
    assert data["pruned"].values.tolist() == [0.0, 0.6, 1.0]
    assert 0.6 < facts[f"{reber.SIMPLE}.letter"] < 0.75
    for cell in ("tanh", "gru"):
        for where in (reber.INPUT, reber.RECURRENT, reber.BOTH):
            whole, pruned, none = facts[f"{reber.SIMPLE}.{cell}.{where}"]
            assert whole > 0.9
            assert pruned > whole - 0.05
            if where != reber.RECURRENT:
                assert none == 0
    assert facts[f"{reber.SIMPLE}.tanh.{reber.RECURRENT}"][-1] == pytest.approx(
        facts[f"{reber.SIMPLE}.letter"], abs=0.02
    )
    assert facts[f"{reber.SIMPLE}.gru.{reber.RECURRENT}"][-1] > 0.95  # units with gates remember without
    assert facts[f"{reber.EMBEDDED}.gru.{reber.BOTH}"][0] < facts[f"{reber.SIMPLE}.gru.{reber.BOTH}"][0] - 0.1


def test_letters_follow_the_grammar_and_branches_end_as_they_begin():
    for text in (reber.SIMPLE, reber.EMBEDDED):
        letters, allowed, asked = reber.written(text, 400, seed=0)
        assert allowed[:-1][np.arange(399), letters[1:]].all()
        assert asked.all() == (text == reber.SIMPLE)
        words = "".join(reber.LETTERS[i] for i in letters).split("E")
        if text == reber.EMBEDDED:
            assert {word[0] for word in words[:-1]} == {"T", "P"}
            assert all(word[1] in "TP" and word[2] == "B" for word in words[1:-1])
            assert [word[0] for word in words[1:-1]] == [words[0][0], *(word[1] for word in words[1:-2])]


# thinking


def test_thinking_twice_spoils_more_than_it_corrects_unless_it_is_known_where(ran):
    facts, _ = ran("thinking")
    for context in facts["contexts"]:
        sure, chance, oracle = (
            facts[f"{context:g}.{name}"] for name in (thinking.MARGIN, thinking.RANDOM, thinking.ORACLE)
        )
        assert sure[-1] < sure[0] - 0.15  # everyone, beside nobody
        assert (
            facts[f"{context:g}.{thinking.MARGIN}.spoiled"][-1] > facts[f"{context:g}.{thinking.MARGIN}.corrected"][-1]
        )
        assert facts[f"{context:g}.{thinking.ORACLE}.spoiled"] == [0.0]
        assert oracle[0] > max(sure) + 0.05
        assert sure[0] == chance[0]
        assert (np.array(sure[1:-1]) > chance[1:-1]).all()


def test_tokens_that_do_not_go_on_keep_their_first_answer():
    model = thinking.Model(context=0.3, seed=0, tokens=60, width=4, labels=3, dtype="float64")
    on = np.arange(120) % 2 == 0
    answers = model.answers(on, model.readout(np.ones(120, bool)))
    np.testing.assert_array_equal(answers[~on], model.first[~on])
    assert all(model.arrays[name].any() for name in "WBAUE")
    nobody = model._states(~on & on)
    np.testing.assert_array_equal(model._states(on)[:, 0], nobody[:, 0])  # nothing sees who goes on
    states = model._states(on)
    np.testing.assert_array_equal(states[~on, 1], states[~on, 0])
    assert (abs(states[on, 1] - states[on, 0]).max(axis=-1) > 0.01).all()
