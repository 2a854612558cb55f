"""Networks that remember: what training makes of the problem, and the globalisation that it takes."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.studies.trained.networks import FOLDER, NAMES, recurrence

T = 300


@pytest.mark.parametrize("name", NAMES)
def test_training_makes_memory_and_with_it_conditioning(name):
    """Otherwise the tests below would be about random networks."""
    before, after = (
        rs.solve(recurrence(name, stage, T=T), method="sequential").condition for stage in ("before", "after")
    )
    assert before < 30 < after < 1e5


def test_the_weights_are_small_files():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) < 2_000_000


@pytest.mark.parametrize("name", NAMES)
def test_adaptive_shooting_is_as_good_as_the_better_of_newton_and_damped_newton(name):
    rec = recurrence(name, T=T)
    sol = rs.solve(rec, method="adaptive_shooting")
    assert sol.success
    assert sol.nit <= 8
    for other in ("newton", "damped_newton"):
        assert not rs.solve(rec, method=other, maxiter=sol.nit - 1).success
    assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)


@pytest.mark.parametrize("dtype", gallery.DTYPES)
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_sequences_of_a_batch_do_not_wait_for_the_hardest_one_in_vain(kind, dtype):
    rec = recurrence(f"parity-{kind}", T=T, batch=3, dtype=dtype)
    sol = rs.solve(rec, method="adaptive_shooting")
    assert sol.success
    assert sol.nit <= 8
    assert np.abs(sol.states - gallery.loop(rec)).max() <= gallery.bound(sol)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [None, 1, 7])
def test_blocks_that_lengthen_end_in_the_loop_whatever_f_is(seed, block):
    """Chaos: Newton's method takes most of the 240 iterations that the pin allows."""
    rec = gallery.recurrence("elman", "dense", T=240, batch=(), gain=4.0, seed=seed)
    sol = rs.solve(rec, method="adaptive_shooting", options={"block": block})
    assert sol.success
    assert sol.nit <= np.ceil(np.log2(240 / (block or 15))) + 4


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("gru") and "parity" not in name])
def test_damped_newton_is_not_lost_on_gates_that_carry_junk(name):
    """The state of a GRU is within [-1, 1]; iterates far out are kept there by its own gates."""
    farthest = []
    rec = recurrence(name, T=T)
    sol = rs.solve(rec, method="damped_newton", callback=lambda now: farthest.append(np.abs(now.states).max()))
    assert sol.success
    assert sol.nit <= 40
    assert max(farthest) < 30
