"""HTM sequence memory: words with a common middle, novelties, permanences."""

import numpy as np
import pytest

import recsolve as rs
from recsolve.studies.systems import htm
from recsolve.studies.systems.system import get

A, B, C, D, E, X, Y = range(7)
COLUMNS = np.arange(42).reshape(7, 6)  # a letter drives six columns of its own
CONFIG = htm.Config(columns=42)


def predicted(*letters):
    """The letters that are predicted when ABCDE and XBCDY have been learned and some letters read."""
    segments = htm.learned(COLUMNS[[[A, B, C, D, E], [X, B, C, D, Y]]], CONFIG)
    read = np.zeros((len(letters), 1, 42), bool)
    for t, letter in enumerate(letters):
        read[t, 0, COLUMNS[letter]] = True
    arrays = {"columns": read, "theta": np.array(CONFIG.theta), **segments}
    sol = rs.solve(htm.memory(arrays), method="jacobi")
    assert sol.success
    columns = htm.Memory(theta=arrays["theta"], **segments).predicted(sol.states[-1:])[0, 0].any(axis=-1)
    return {letter for letter in range(7) if columns[COLUMNS[letter]].all()}


def test_the_beginning_of_a_word_tells_its_end():
    assert predicted(A, B, C, D) == {E}
    assert predicted(X, B, C, D) == {Y}
    assert predicted(B, C, D) == {E, Y}  # the first letter bursts: both are possible until there is evidence
    assert predicted(A, B) == predicted(X, B) == {C}
    assert predicted(E) == set()


def test_sweeps_are_steps_between_novelties():
    counts = {}
    for novel in (0.0, 0.3, 1.0):
        rec = get("htm_memory").build(length=300, novel=novel, word=40, words=2)
        counts[novel] = rs.solve(rec, method="jacobi").nit
    assert counts[0.0] > 3 * counts[0.3] > 3 * counts[1.0]


@pytest.mark.parametrize("method", ["newton", "picard", "jacobi", "sequential"])
def test_permanences_do_not_round(method):
    made = get("htm_permanence")
    rec = made.build(length=200, dtype="float32")
    states = rs.solve(rec, method=method).states
    np.testing.assert_array_equal(states, made.scan(rec))
    np.testing.assert_array_equal(states * 128, np.round(states * 128))
    assert {0.0, 1.0} <= set(np.unique(states))
