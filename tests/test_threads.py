"""Shares of a compiled loop: side by side, each once, with what a `with` block says, and none without being asked."""

import threading

import numpy as np
import pytest

import recsolve as rs
from recsolve.kernels.cpu.threads import limited, spread, threads


@pytest.mark.parametrize("workers", [2, 4])
def test_shares_run_side_by_side(crowd, workers):
    """Every share waits for all the others."""
    together = threading.Barrier(workers, timeout=20)
    spread(lambda first, last: together.wait(), 10, workers)
    assert len(crowd) == workers - 1
    assert all(name.startswith("recsolve") for name in crowd)  # the caller takes the first


@pytest.mark.parametrize(("tasks", "workers"), [(0, 4), (1, 4), (3, 4), (4, 4), (11, 4), (7, 1), (7, 3)])
def test_every_task_is_done_once_and_shares_are_equal(crowd, tasks, workers):
    done = []
    spread(lambda first, last: done.append((first, last)), tasks, workers)
    assert sorted(i for first, last in done for i in range(first, last)) == list(range(tasks))
    sizes = [last - first for first, last in done]
    assert len(sizes) == min(tasks, workers)
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_workers_hear_what_a_block_says_and_tell_what_went_wrong(crowd):
    seen = []
    with limited(3):
        spread(lambda first, last: seen.append(threads()), 4, 4)
    assert seen == [3] * 4
    assert threads() == 4

    def fail(first, last):
        if first:
            raise ArithmeticError(first)

    with pytest.raises(ArithmeticError):
        spread(fail, 2, 2)


def test_large_arrays_are_shared_out_and_a_block_may_forbid_it(crowd):
    x = np.full((400, 1000), 0.5)
    with rs.backend("numba", threads=1):
        alone = rs.scan("affine", (x, x))
    assert not crowd
    with rs.backend("numba"):
        np.testing.assert_array_equal(rs.scan("affine", (x, x)), alone)
    assert crowd
