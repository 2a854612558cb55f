"""The answers of every training task are right, by literal loops over the streams."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from recsolve.studies.training import tasks
from recsolve.studies.training.tasks import NONE, TASKS, Stream


def drawn(name, *, length=96, batch=3, memory=5, held_out=False, seed=0):
    return TASKS[name].draw(Stream(length, batch, memory, held_out, np.random.default_rng(seed)))


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("held_out", [False, True])
def test_streams_have_the_shapes_and_classes_that_the_task_states(name, held_out):
    task = TASKS[name]
    inputs, answers = drawn(name, held_out=held_out)
    assert inputs.shape == ((96, 3) if task.tokens else (96, 3, task.inputs))
    assert answers.shape == (96, 3)
    asked = answers[answers != NONE]
    assert asked.size
    assert asked.min() >= 0
    assert asked.max() < task.classes
    if task.tokens:
        assert inputs.min() >= 0
        assert inputs.max() < task.inputs


@pytest.mark.parametrize("name", TASKS)
def test_streams_depend_on_the_seed_alone(name):
    first, again, other = drawn(name), drawn(name), drawn(name, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_parity_counts_the_last_bits():
    bits, answers = drawn("parity")
    for t, b in np.ndindex(bits.shape):
        wanted = sum(bits[t - 4 : t + 1, b]) % 2 if t >= 4 else NONE
        assert answers[t, b] == wanted


def test_match_compares_with_the_bit_that_is_asked_for():
    bits, answers = drawn("match")
    for t, b in np.ndindex(bits.shape):
        wanted = int(bits[t, b] == bits[t - 4, b]) if t >= 4 else NONE
        assert answers[t, b] == wanted


def test_s5_follows_five_things():
    tokens, answers = drawn("s5")
    members = sorted(permutations(range(5)))
    moves = [(1, 0, 2, 3, 4), (1, 2, 3, 4, 0)]
    for b in range(3):
        state = tuple(range(5))
        for t in range(96):
            state = tuple(moves[tokens[t, b]][i] for i in state)
            assert members[answers[t, b]] == state
    assert len(np.unique(drawn("s5", length=2000)[1])) == 120, "the two moves reach every arrangement"


def test_copy_asks_for_the_symbols_in_their_order():
    tokens, answers = drawn("copy")
    for b in range(3):
        shown = [x for x in tokens[:, b] if x < 8]
        assert list(answers[-8:, b]) == shown
    assert (answers[:-8] == NONE).all()


def test_text_asks_for_the_next_byte_and_holds_out_the_end():
    whole = tasks._text()
    cut = round(len(whole) * 0.9)
    text, kept = bytes(whole.astype(np.uint8)), bytes(whole[cut:].astype(np.uint8))
    for held_out, where in ((False, text[:cut]), (True, kept)):
        inputs, answers = drawn("text", held_out=held_out)
        assert np.array_equal(inputs[1:], answers[:-1])
        assert bytes(inputs[:, 0].astype(np.uint8)) in where


def test_digits_are_those_of_scikit_learn_and_none_is_in_both_parts():
    datasets = pytest.importorskip("sklearn.datasets")
    found = datasets.load_digits()
    cut = round(len(found.images) * 0.9)
    known = {False: found.images[:cut], True: found.images[cut:]}
    labels = {False: found.target[:cut], True: found.target[cut:]}
    for held_out in (False, True):
        inputs, answers = drawn("digits", length=150, held_out=held_out)
        for b in range(3):
            image = inputs[64:128, b, 0].reshape(8, 8) * 16
            same = (known[held_out] == image).all(axis=(1, 2))
            assert answers[127, b] in labels[held_out][same]
        assert (answers[:63] == NONE).all()
        assert inputs[64, 0, 1] == 1
        assert inputs[65, 0, 1] == 0


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("parity", {"memory": 1}, "memory is 1; wanted 2 or more"),
        ("match", {"memory": 97}, "memory is 97; wanted 2 or more, and at most the length 96"),
        ("copy", {"length": 15}, "length is 15; wanted 16 or more"),
        ("digits", {"length": 63}, "length is 63; wanted 64 or more"),
        ("text", {"length": 500_000}, "length is 500000; wanted less than"),
    ],
)
def test_what_cannot_be_drawn_is_named(name, given, says):
    with pytest.raises(ValueError, match=says):
        drawn(name, **given)


def test_an_unknown_task_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="task is 'juggling'; wanted one of text, parity"):
        tasks.get("juggling")
