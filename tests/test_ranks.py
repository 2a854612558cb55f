"""The ranks on which tests of many devices run: values, exceptions, ranks that hang, die or outlive the tests."""

import os
import signal
import subprocess
import sys
import time
from ast import literal_eval
from pathlib import Path

import numpy as np
import pytest
import ranks

pytest.importorskip("torch")


class Own:
    """A class of a test module, for it to cross processes."""


def _runs(pid):
    """Whether a process has not ended, whoever has yet to ask for its exit code."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def summed(group, array, own):
    import torch
    import torch.distributed as dist

    mine = torch.from_numpy(array) * (dist.get_rank(group) + 1)
    dist.all_reduce(mine, group=group)
    return dist.get_rank(group), dist.get_world_size(group), mine.numpy(), own


def place(group):
    return os.getpid(), os.environ.get("RECSOLVE_BACKEND")


def faulty(group, fault):
    """Meet the other ranks, but for rank 1, where something happens before."""
    import torch.distributed as dist

    if dist.get_rank(group) == 1:
        if fault == "raise":
            raise ValueError("the fault of rank 1")
        if fault == "interrupt":
            raise KeyboardInterrupt
        if fault == "leave":
            sys.exit(3)
        if fault == "unpicklable":
            return lambda: None
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    elif fault != "unpicklable":
        dist.barrier(group)
    return "met"


@pytest.mark.parametrize("size", ranks.SIZES)
def test_each_rank_returns_its_value(size):
    array = np.arange(3.0)
    for rank, (own, world, total, instance) in enumerate(ranks.over(size, summed, array, Own())):
        assert (own, world) == (rank, size)
        assert type(instance) is Own
        np.testing.assert_array_equal(total, array * size * (size + 1) / 2)


def test_ranks_are_kept_and_have_the_backend_of_the_tests(monkeypatch):
    before = ranks.over(4, place)
    monkeypatch.setenv("RECSOLVE_BACKEND", "numpy")
    after = ranks.over(2, place)
    assert [pid for pid, _ in after] == [pid for pid, _ in before[:2]]
    assert [backend for _, backend in after] == ["numpy"] * 2
    monkeypatch.delenv("RECSOLVE_BACKEND")
    assert ranks.over(1, place)[0][1] is None


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ("raise", "rank 1 of 2 raised ValueError.*in faulty.*the fault of rank 1"),
        ("hang", "rank 0 of 2 did not end.*rank 1 of 2 did not end.*in faulty"),
        ("kill", "rank 1 of 2 died with exit code -9"),
        ("unpicklable", "rank 0 of 2 returned\nrank 1 of 2 raised .*pickle"),
    ],
)
def test_a_rank_that_fails_is_named_and_the_next_call_has_new_ranks(fault, shown, monkeypatch):
    monkeypatch.setattr(ranks, "GRACE", 0.3)
    before, began = ranks.over(2, place), time.monotonic()
    with pytest.raises(RuntimeError, match=f"(?s){shown}"):
        ranks.over(2, faulty, fault, timeout=0.5 if fault == "hang" else 20)
    assert time.monotonic() - began < 5
    assert not any(_runs(pid) for pid, _ in before)
    assert len(ranks.over(2, place)) == 2


def test_how_each_rank_is_lost_is_told():
    began = time.monotonic()
    kept, (met, dead) = ranks.over(1, place), ranks.lost(2, faulty, "kill")
    assert dead.code == -signal.SIGKILL
    assert met.error == "RuntimeError"  # of gloo: the connection is closed
    _, left = ranks.lost(2, faulty, "leave")
    assert left.code == 3
    waited, raised = ranks.lost(2, faulty, "raise", patience=0.5)
    assert (raised.error, raised.text) == ("ValueError", "the fault of rank 1")
    assert waited.error == "RuntimeError"
    assert 0.4 < waited.seconds < 5
    waited, raised = ranks.lost(2, faulty, "interrupt", timeout=0.5)
    assert raised.error == "KeyboardInterrupt"
    assert not waited.done
    assert not waited.returned
    assert "in faulty" in waited.trace
    assert ranks.over(1, place) == kept
    assert time.monotonic() - began < 15


def test_ranks_die_with_the_tests_and_leave_no_files(tmp_path):
    """A process with ranks, one of which hangs, is killed."""
    program = """
import ranks, test_ranks
print(ranks.over(4, test_ranks.place), flush=True)
ranks.over(2, test_ranks.faulty, "hang")
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": paths, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        pids = [pid for pid, _ in literal_eval(process.stdout.readline())]
        assert len(pids) == 4
        assert list(tmp_path.iterdir())
        process.kill()
    until = time.monotonic() + 30
    while any(_runs(pid) for pid in pids) or list(tmp_path.iterdir()):
        assert time.monotonic() < until
        time.sleep(0.05)
