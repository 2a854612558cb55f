"""Loops that are walked in blocks of time, side by side."""

import numpy as np
from test_fused import CELLS, recurrence

import recsolve as rs


def test_blocks_side_by_side_give_the_bits_of_the_loop(monkeypatch):
    from recsolve.kernels.cpu.cell import time_blocks

    monkeypatch.setattr(time_blocks, "_SHORTEST", 16)
    monkeypatch.setattr(time_blocks, "_BURN_IN", 5)
    walked = []
    for name, batch, T in (("gru", (2,), 700), ("lstm", (), 611), ("minmax", (1,), 600), ("elman_relu", (2,), 900)):
        for resets in (False, True):
            rec = recurrence(CELLS[name], T, batch, 2, np.float64, resets=resets)
            with rs.backend("numba"):
                loops, states = rec.bind(), rec.bind().walk()
                assert time_blocks.pays(loops.loops.component(states, loops.batch).shape)
                expected = np.empty(rec.shape)
                loops.loops.walk_in_order(loops.inputs, expected, loops.batch, loops.starts)
            np.testing.assert_array_equal(states, expected)
            walked.append(states)
    assert len(walked) == 8


def test_blocks_side_by_side_give_the_bits_of_a_chaotic_loop(monkeypatch):
    from recsolve.kernels.cpu.cell import time_blocks

    monkeypatch.setattr(time_blocks, "_SHORTEST", 16)
    logistic = rs.Cell(lambda s, W, u, p: 3.9 * s.h * (1 - s.h) + u.x, state=("h",), output="h", name="logistic")
    rec = logistic.with_weights(hidden_size=1).recurrence(drive={"x": np.zeros((1000, 1))}, initial=np.full(1, 0.3))
    with rs.backend("numba"):
        loops, states = rec.bind(), rec.bind().walk()
        expected = np.empty(rec.shape)
        loops.loops.walk_in_order(loops.inputs, expected, loops.batch, loops.starts)
    np.testing.assert_array_equal(states, expected)
