"""Messages by memory that all ranks of a host write to: of GPUs, or what is in their place where there is none.

With GPUs one is enough, which both processes have.
"""

from unittest.mock import patch

import boxes
import cuda_host
import numpy as np
import pytest
import test_distributed_failures as failures
from ranks import lost, over

import recsolve as rs
from recsolve.distributed.mailboxes import opened
from recsolve.distributed.messages import HEADER, Letter, layout_of, stacked
from recsolve.distributed.ranks import ranks_of

SIZE, FAULTY = failures.SIZE, failures.FAULTY
needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")


def _by_boxes(group, folder, calls, fails=None):
    """Call functions of the tests of failures while messages go by boxes, and return whether they did to the end."""
    with boxes.of_host(folder, fails if ranks_of(group).rank == FAULTY else None):
        found = [getattr(failures, name)(group, *arguments) for name, *arguments in calls]
        return found, ranks_of(group)._boxes is not None


@needs_compiler
def test_what_fails_and_what_differs_ends_on_all_ranks(tmp_path):
    calls = [("ahead",), ("in_turn", "DIFFER"), ("in_turn", "FAIL"), ("waited_for", 0), ("waited_for", 1), ("ahead",)]
    ends = [end.value for end in lost(SIZE, _by_boxes, str(tmp_path), calls, timeout=60)]
    for rank, ((ahead, differ, fail, *waited, again), by_boxes) in enumerate(ends):
        assert by_boxes
        assert ahead == again == (SIZE * SIZE, 6.0 * SIZE)
        failures.check_differ(rank, differ)
        failures.check_fail(rank, fail)
        assert all("no room" in text for text in waited)


@needs_compiler
def test_a_rank_that_fails_a_call_behind_is_told_so(tmp_path):
    failures.check_behind([end.value[0][0] for end in lost(SIZE, _by_boxes, str(tmp_path), [("behind",)])])


@needs_compiler
@pytest.mark.parametrize("fault", ["interrupt", "rest"])
def test_a_rank_that_fails_in_the_middle_is_named(tmp_path, fault):
    failures.check_amid(lost(SIZE, _by_boxes, str(tmp_path), [("amid", fault)]), fault)


@needs_compiler
def test_a_rank_that_comes_late_finds_nobody(tmp_path):
    failures.check_late([end.value[0][0] for end in lost(SIZE, _by_boxes, str(tmp_path), [("late",)])])


@needs_compiler
@pytest.mark.parametrize("fails", ["malloc", "ipcGetMemHandle", "ipcOpenMemHandle"])
def test_where_one_rank_has_no_box_messages_go_as_before(tmp_path, fails):
    for end in lost(SIZE, _by_boxes, str(tmp_path), [("ahead",)], fails):
        assert end.value == ([(SIZE * SIZE, 6.0 * SIZE)], False)


def _long_and_short(group, folder):
    with boxes.of_host(folder):
        x, known = rs.distributed.shard(np.arange(9.0), group), ranks_of(group)
        found = []
        for count in (3, 40_000, 3):  # numbers, of which those of the second one take more than a box has room for
            sent = np.full(count, float(known.rank))
            with x.timeline.together("a call"):
                found.append(known.exchange((), [sent]).arrays[0])
        posted = known._boxes._number
        assert (rs.distributed.gather(x) == np.arange(9.0)).all()
        return [a[:, [0, -1]].tolist() for a in found], known._boxes._number - posted


@needs_compiler
def test_what_has_no_room_in_a_box_goes_on_by_the_group_and_later_ones_by_boxes(tmp_path):
    wanted = [[float(rank)] * 2 for rank in range(SIZE)]
    for end in lost(SIZE, _long_and_short, str(tmp_path)):
        assert end.value == ([wanted] * 3, 1)


def _gather(group):
    import torch
    import torch.distributed as dist

    def gather(own):
        rows = [torch.empty(len(own), dtype=torch.uint8) for _ in range(dist.get_world_size(group))]
        dist.all_gather(rows, torch.from_numpy(own), group=group)
        return np.stack([row.numpy() for row in rows])

    return gather


def _arrays(rank, number, many):
    """Return what a rank sends: of many arrays a launch takes only some."""
    rng = np.random.default_rng(100 * rank + number)
    arrays = [rng.standard_normal((1, 5)).astype(np.float32), rng.integers(0, 2, 33).astype(bool)]
    return [*arrays, *(rng.standard_normal(3) for _ in range(40 * many))], rng.standard_normal(3)


def _exchanged(group):
    import cupy
    import torch.distributed as dist

    rank, size = dist.get_rank(group), dist.get_world_size(group)
    boxes = opened(rank, size, _gather(group))
    assert boxes is not None
    for number in range(40):
        many = number % 7 == 3
        arrays, numbers = _arrays(rank, number, many)
        letter = Letter((0, number, 1 << 60, -1), numbers, [cupy.asarray(x) for x in arrays], HEADER + 4096)
        count = layout_of(numbers, []).length
        rows, (there, told) = boxes.post(letter, HEADER + 4096, count, 60.0)
        found = [x.get() for x in stacked(rows, numbers, arrays)]
        while not there():
            pass
        said = told()
        for other in range(size):
            wanted, known = _arrays(other, number, many)
            head = np.array([0, number, 1 << 60, -1])
            assert said[other, : HEADER + known.nbytes].tobytes() == head.tobytes() + known.tobytes()
            assert all((x[other] == y).all() for x, y in zip(found, wanted, strict=True))
    return True


@pytest.mark.gpu
def test_messages_come_to_all_in_order():
    assert over(2, _exchanged, timeout=180.0) == [True, True]


def _refused(group):
    """Open boxes, of which one rank has none."""
    import cupy
    import torch.distributed as dist

    rank = dist.get_rank(group)
    if rank == 0:
        return opened(rank, 2, _gather(group)) is None
    with patch.object(cupy.cuda.runtime, "malloc", side_effect=MemoryError("no room for a box")):
        return opened(rank, 2, _gather(group)) is None


@pytest.mark.gpu
def test_where_one_rank_has_no_box_none_has():
    assert over(2, _refused, timeout=180.0) == [True, True]
