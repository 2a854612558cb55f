"""Messages of GPUs that write to each other's memory, between processes: one GPU, which both have, is enough."""

from unittest.mock import patch

import numpy as np
import pytest
from ranks import over

from recsolve.distributed.mailboxes import opened
from recsolve.distributed.messages import HEADER, Letter, layout_of, stacked


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
        rows, (there, told) = boxes.post(letter, HEADER + 4096, count)
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
