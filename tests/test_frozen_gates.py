"""The guess with frozen gates: exact where gates do not see the state, close where they do, refused elsewhere."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.math import maximum, minimum, sigmoid, tanh
from recsolve.recurrence.frozen_gates import frozen_gates

GATED = [(name, mixing) for name, mixing in gallery.CELLS if name not in ("elman", "elman_relu", "pararnn_lstm")]


@pytest.mark.parametrize("dtype", gallery.DTYPES)
@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("cell", GATED, ids="-".join)
def test_one_pass_is_the_answer_where_mixings_are_zero(cell, resets, dtype):
    reset = np.random.default_rng(0).random((60, 2)) < 0.1 if resets else None
    rec = gallery.recurrence(*cell, dtype=dtype, gain=0.0 if cell[0] != "minmax" else 1.0, reset=reset, initial=0.3)
    found = frozen_gates(rec, 1)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, gallery.loop(rec), rtol=0, atol=200 * np.finfo(dtype).eps)


@pytest.mark.parametrize("cell", GATED, ids="-".join)
def test_every_pass_comes_closer_and_newton_takes_no_more_iterations(cell):
    rec = gallery.recurrence(*cell, T=80)
    truth = gallery.loop(rec)
    errors = [np.abs(frozen_gates(rec, passes) - truth).max() for passes in (1, 2, 3)]
    assert errors[0] >= errors[1] >= errors[2]
    sol = rs.solve(rec, guess="frozen_gates")
    assert sol.success
    assert sol.nit <= rs.solve(rec).nit
    assert np.abs(sol.states - truth).max() <= gallery.bound(sol)


@pytest.mark.parametrize("mixing", ["heads", "diagonal"])
def test_an_slstm_that_never_forgets_takes_a_few_iterations(mixing):
    cell = gallery.weighted("slstm", mixing)
    drive = cell.drive(np.random.default_rng(1).standard_normal((400, 3)))
    rec = cell.recurrence(drive={**drive, "f": drive["f"] + 5.0})
    sol = rs.solve(rec, guess="frozen_gates")
    assert sol.success
    assert sol.nit <= 5
    assert rs.solve(rec, maxiter=12).status == "maxiter"
    assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)


@pytest.mark.parametrize("T", [0, 1, 2, 33])
@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
def test_every_length_and_batch(T, batch):
    rec = gallery.recurrence("lstm", "dense", T=T, batch=batch)
    assert frozen_gates(rec).shape == rec.shape
    assert rs.solve(rec, guess="frozen_gates").success


def test_bounds_in_any_order():
    def buffer(s, W, u, p):
        return maximum(minimum(s.x - u.leak + u.flow, 3.0), p.floor) + 0.5

    cell = rs.Cell(buffer, state=("x",), output="x").with_weights(
        parameters={"floor": np.arange(-3.0, 2.0)}, hidden_size=5
    )
    leak, flow = np.random.default_rng(0).integers(0, 8, (2, 90, 5)).astype(float)
    rec = cell.recurrence(drive={"leak": leak, "flow": flow})
    np.testing.assert_array_equal(frozen_gates(rec, 1), gallery.loop(rec))


def test_a_guess_that_is_not_finite_is_not_used():
    def grows(s, W, u, p):
        return 1e4 * sigmoid(W.a(s.h)) * s.h * 0 + 3e3 * s.h + tanh(u.a)

    cell = rs.Cell(grows, state=("h",), output="h").random(input_size=1, hidden_size=2, rng=0)
    rec = cell.recurrence(np.ones((200, 1)))
    seen = []
    rs.solve(rec, guess="frozen_gates", maxiter=0, callback=lambda now: seen.append(now.states))
    assert np.isfinite(seen[0]).all()


def swap(s, W, u, p):
    return s.b + u.a, W.a(s.a) * s.a


def jump(s, W, u, p):
    return np.where(s.h > 0, s.h + 1.0, s.h - 1.0) * 0.5 + u.a


def steps(s, W, u, p):
    return np.floor(3 * s.h) + 0.5 * s.h + u.a


def branch(s, W, u, p):
    return s.h + u.a if (W.a(s.h) > 0).all() else u.a


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (rs.cells.Elman, "the state of elman enters through its mixings alone"),
        (rs.cells.ParaRNNLSTM, "c of pararnn_lstm is neither affine in itself nor a sum between bounds"),
        (rs.Cell(swap, state=("a", "b"), output="a"), r"the components \['a', 'b'\] of swap depend on each other"),
        (rs.Cell(jump, state=("h",), output="h"), "h of jump is neither affine in itself nor a sum between bounds"),
        (rs.Cell(steps, state=("h",), output="h"), "h of steps is neither affine in itself nor a sum between bounds"),
        (rs.Cell(branch, state=("h",), output="h"), "branch cannot be traced at line"),
    ],
    ids=["elman", "pararnn_lstm", "swap", "jump", "steps", "branch"],
)
def test_other_cells_are_told_why_not(cell, why):
    rec = cell.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((9, 3)))
    with pytest.raises(ValueError, match=f"guess is 'frozen_gates': {why}"):
        rs.solve(rec, guess="frozen_gates")


def test_functions_have_no_gates():
    with pytest.raises(ValueError, match="this recurrence is of a function"):
        rs.solve(gallery.function(lambda h, u: 0.5 * h + u, np.ones((9, 1))), guess="frozen_gates")
    with pytest.raises(ValueError, match="guess is 'gates'; wanted 'step', 'zeros', 'coarse', 'frozen_gates'"):
        rs.solve(gallery.recurrence("gru"), guess="gates")
