"""Process groups that share time: several at once, in other orders, destroyed ones; threads and copies within one."""

import copy
import pickle
from threading import Thread

import numpy as np
import pytest
import ranks

import recsolve as rs

pytest.importorskip("torch")

U = np.random.default_rng(0).standard_normal((9, 2))
pytestmark = pytest.mark.usefixtures("compile_nothing")


def shared(group=None, **how):
    return rs.distributed.shard(U, group, **how)


def summed(group=None):
    return rs.distributed.gather(rs.scan("affine", (shared(group), shared(group))))


def refused(call, *args):
    with pytest.raises((RuntimeError, ValueError)) as error:
        call(*args)
    return str(error.value)


def in_turn(group):
    """Use groups in turn that do not begin at rank 0 or name it last; then destroy them."""
    import torch.distributed as dist

    from recsolve.distributed.ranks import _KNOWN

    groups = [dist.new_group([1, 2]), dist.new_group([2, 0]), None]
    mine = [g for g in groups if g is None or dist.get_rank(g) >= 0]
    found = [summed(g) for _ in range(3) for g in mine]
    parts = [shared(g) for g in mine]
    for g in groups[:2]:
        dist.destroy_process_group(g)
    told = [refused(rs.distributed.gather, x) for x in parts[:-1]]
    shared(dist.new_group([0, 1, 2]))
    kept = len(_KNOWN)
    dist.destroy_process_group()
    return found, [*told, refused(rs.distributed.gather, parts[-1])], kept


def test_groups_are_used_in_turn_and_forgotten_with_their_process_group():
    for end in ranks.lost(3, in_turn):
        assert end.returned, end
        found, told, kept = end.value
        for y in found:
            np.testing.assert_allclose(y, rs.scan("affine", (U, U)), rtol=1e-12)
        assert all("the process group of these shards has been destroyed" in text for text in told)
        assert kept == 2  # that of all, and the new one


def test_a_group_of_one_after_the_other_leaves_nothing_behind():
    from recsolve.distributed.ranks import _KNOWN

    for _ in range(3):
        with rs.distributed.alone():
            summed()
            assert len(_KNOWN) == 1


def from_two_threads(group):
    said, x = [], shared(group)

    def f(h, u):
        if not said:
            thread = Thread(target=lambda: said.append(refused(rs.distributed.gather, x)))
            thread.start()
            thread.join()
        return np.tanh(0.5 * h + u)

    rec = rs.Recurrence.from_function(f, inputs=x, initial=np.zeros(2), structure="diagonal")
    return said or (rs.solve(rec).success and said)


def test_a_second_thread_does_not_mix_its_messages_with_those_of_the_first():
    for said in ranks.over(3, from_two_threads):
        assert "another thread of this process is amid recsolve.solve of f" in said[0]


def copied(group):
    sol = rs.solve(rs.cells.GRU.random(input_size=2, hidden_size=3, rng=0).recurrence(shared(group)))
    again = copy.deepcopy(sol)
    return again.trusted, again.recurrence.timeline == sol.recurrence.timeline


def test_a_deep_copy_of_a_solution_shares_its_steps_with_the_same_ranks():
    assert ranks.over(2, copied) == [(True, True)] * 2


def test_an_error_keeps_its_notes_across_processes():
    error = rs.distributed.RankError("rank 2 did not come", (2,))
    error.add_note("in the second epoch")
    again = pickle.loads(pickle.dumps(error))
    assert (again.ranks, again.__notes__) == ((2,), ["in the second epoch"])


def test_a_timeout_is_a_number_of_seconds_of_any_kind():
    with rs.distributed.alone():
        for seconds in (np.int64(5), np.float32(0.5), 3):
            assert shared(timeout=seconds).timeline.ranks.timeout == seconds
        for wrong in (0, -1.0, np.nan, "5"):
            with pytest.raises(ValueError, match="wanted seconds > 0"):
                shared(timeout=wrong)


def test_lengths_are_whole_numbers_of_any_kind():
    with rs.distributed.alone():
        assert shared(lengths=np.array([9])).timeline.lengths == (9,)
        for lengths in ([8], [9.5], [], [9, 0], np.array([10])):
            with pytest.raises(ValueError, match=r"wanted 1 integers >= 0, one per rank, of the sum T = 9"):
                shared(lengths=lengths)
