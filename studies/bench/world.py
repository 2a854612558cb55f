"""The ranks of a benchmark: joined to those that a launcher has started, or started here; their links, measured."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.threads import limited, threads
from recsolve.studies.bench.cost import Link

_LONGEST = timedelta(hours=1)  # that ranks wait while rank 0 computes alone
_SIZES = (1, 4, 16, 64)  # megabytes that a rank holds after an all-gather
# Turns that do not count, for what they compile, measure and remember, and until an interpreter has made its code fast:
# at least, at most, at most for each that counts, and seconds that more than the least of them take.
_WARM, _WARMEST, _WARM_BY, _WARMING = 2, 25, 5, 0.25
_IN_A_ROW, _MOST_IN_A_ROW = 0.1, 8  # seconds that calls of a turn take together at most, and how many there are
_ONCE = 20  # messages that are timed


@dataclass(frozen=True)
class World:
    """The ranks of a run, as one of them sees them.

    Attributes
    ----------
    rank, size : int
    device : str
        ``"cpu"`` or ``"cuda"``: this process has one GPU, the current one.
    groups : mapping of int to ProcessGroup
        Of the first p ranks, those in which this one is: one of all, and on rank 0 one of it alone.
    """

    rank: int
    size: int
    device: str
    groups: Mapping[int, Any]

    def wait(self, group: Any = None) -> None:
        """Wait for all ranks of a group; default: for all there are."""
        import torch.distributed as dist

        dist.barrier(self.groups[self.size] if group is None else group)

    def settle(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def told(self, group: Any, x: Any) -> list[Any]:
        """Return what every rank of a group says."""
        import torch.distributed as dist

        found: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(found, x, group=group)
        return found

    def in_turns(
        self, group: Any, alone: Sequence[Callable[[], Any] | None], together: Callable[[], Any], repeats: int
    ) -> Array:
        """Return times (1 + len(alone), repeats): of what rank 0 does alone, and last of what all do then.

        That of all is the time until the last of them ends. Each is of a few calls one after the other, where they are
        short: ranks do not begin at the same moment that have waited for each other.
        """

        def turn(calls: int) -> list[float]:
            first = [0.0 if run is None else self._seconds(run, calls) for run in alone]
            self.wait(group)
            return [*first, self._seconds(together, calls)]

        last = [turn(1) for _ in range(_WARM)][-1]
        counts = self.told(group, [int(seconds / max(sum(last), 1e-9)) for seconds in (_WARMING, _IN_A_ROW)])
        warm, calls = np.min(counts, axis=0).tolist()
        for _ in range(min(_WARMEST, _WARM_BY * repeats, warm) - _WARM):
            turn(1)
        times = np.array([turn(min(max(calls, 1), _MOST_IN_A_ROW)) for _ in range(repeats)]).T
        return np.max(self.told(group, times), axis=0)  # type: ignore[no-any-return]

    def _seconds(self, run: Callable[[], Any], calls: int) -> float:
        """Return the seconds of a call, of as many one after the other."""
        self.settle()
        began = perf_counter()
        for _ in range(calls):
            run()
            self.settle()
        return (perf_counter() - began) / calls


def launched() -> bool:
    """Return whether a launcher, as torchrun is, has started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def size_of(ranks: int | None, device: str) -> int:
    """Return how many ranks there are, or are to be started here, if the device is one for them.

    Raises
    ------
    ValueError
        For no ranks, and for a number of them where a launcher has started some.
    ImportError
        As :func:`device_for`.
    """
    if launched():
        started = int(os.environ["WORLD_SIZE"])
        if ranks is not None:
            raise ValueError(f"--ranks is {ranks}, and a launcher has started {started} ranks; leave --ranks out")
        return started
    size = 2 if ranks is None else ranks
    if size < 1:
        raise ValueError(f"--ranks is {size}; wanted 1 or more")
    device_for(device, size)
    return size


def device_for(device: str, ranks: int) -> str:
    """Return the device of local ranks, ``"auto"`` being a GPU where each has one.

    Raises
    ------
    ImportError
        Without torch, or on GPUs without CuPy.
    ValueError
        For unknown devices, and for ``"cuda"`` without a GPU for every rank.
    """
    if find_spec("torch") is None:
        raise ImportError("ranks are those of torch.distributed, which needs torch: pip install 'recsolve[torch]'")
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device is {device!r}; wanted auto, cpu or cuda")
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() and device != "cpu" else 0
    if device == "cuda" and there < ranks:
        raise ValueError(f"--device is cuda, and {ranks} ranks of this host need as many GPUs; there are {there}")
    if there < ranks:
        return "cpu"
    if find_spec("cupy") is None:
        if device == "cuda":
            raise ImportError("arrays on a GPU need CuPy: pip install 'recsolve[cuda13]' (or [cuda12])")
        return "cpu"
    return "cuda"


@contextmanager
def joined(device: str, subsets: Sequence[int], rank: int = 0, size: int = 1, store: str = "") -> Iterator[World]:
    """Yield the world of this process, in a process group that is initialised for it and destroyed at the end.

    Parameters
    ----------
    device : str
    subsets : sequence of int
        How many ranks the groups have.
    rank, size : int
    store : str
        A file by which the ranks meet; default: as a launcher says in the environment, or this process is all there is.
    """
    import torch
    import torch.distributed as dist

    local, beside = rank, size
    meeting: dict[str, Any] = {}
    if launched() and not store:
        # Launchers that say nothing of hosts have one.
        local, beside = (int(os.environ.get(f"LOCAL_{x}", os.environ[x])) for x in ("RANK", "WORLD_SIZE"))
    else:
        meeting = {"rank": rank, "world_size": size}
        meeting["store"] = dist.FileStore(store, size) if store else dist.HashStore()
    cuda = device_for(device, beside) == "cuda"
    if cuda:
        import cupy

        torch.cuda.set_device(local)
        cupy.cuda.Device(local).use()
        meeting["device_id"] = torch.device("cuda", local)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=_LONGEST, **meeting)
    before, share = torch.get_num_threads(), max((os.cpu_count() or 1) // beside, 1)
    torch.set_num_threads(share)
    try:
        with limited(share):
            rank, size = dist.get_rank(), dist.get_world_size()
            groups = {p: dist.new_group(range(p)) for p in sorted({1, *subsets, size})}
            mine = {p: group for p, group in groups.items() if rank < p}
            yield World(rank, size, "cuda" if cuda else "cpu", mine)
    finally:
        torch.set_num_threads(before)
        dist.destroy_process_group()


def start(ranks: int, run: Callable[[int, int, str], int]) -> int:
    """Call ``run(rank, ranks, store)``, which returns an exit code, in as many new processes; return the worst of them.

    Where one fails the others are ended. ``run`` is pickled. ChildProcessError is raised where one was killed.
    """
    import torch.multiprocessing as processes

    share = str(max((os.cpu_count() or 1) // ranks, 1))
    limits = {name: share for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if name not in os.environ}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(limits)
        started = processes.start_processes(_run, (run, ranks, str(Path(folder, "store"))), ranks, join=False)
        try:
            while not started.join():
                pass
        except processes.ProcessExitedException as error:
            if error.signal_name:
                raise ChildProcessError(f"rank {error.error_index} was killed by {error.signal_name}") from None
            return int(error.exit_code)
        finally:
            for process in started.processes:
                process.terminate()  # those that still wait for others, after an interrupt
            for name in limits:
                del os.environ[name]
    return 0


def _run(rank: int, run: Callable[[int, int, str], int], ranks: int, store: str) -> None:
    sys.exit(run(rank, ranks, store))


def described(world: World) -> dict[str, Any]:
    """Return what the ranks are: devices, drivers, hosts, torch and what carries messages, the same on all."""
    import torch
    import torch.distributed as dist

    found: dict[str, Any] = {"backend": dist.get_backend(), "torch": torch.__version__, "device": _device(world)}
    if world.device == "cuda":
        found |= {"nccl": ".".join(map(str, torch.cuda.nccl.version())), "driver": _driver()}
        found["peers"] = world.size > 1 and torch.cuda.device_count() > 1 and torch.cuda.can_device_access_peer(0, 1)
    hosts = world.told(world.groups[world.size], platform.node())
    return {**found, "hosts": len(set(hosts)), "threads": threads()}


def _device(world: World) -> str:
    import torch

    return str(torch.cuda.get_device_name()) if world.device == "cuda" else "CPU"


def _driver() -> str | None:
    """Return the version of NVIDIA's driver, where its tool is there."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def links(world: World, subsets: Sequence[int]) -> list[Link]:
    """Measure the links of groups of two ranks and more; on ranks that are in none of them, of none."""
    found = []
    alone = _message(world, 1) if world.rank == 0 else 0.0
    for p in subsets:
        world.wait()
        if p > 1 and p in world.groups:
            found.append(_link(world, p, alone))
    return found


def _link(world: World, p: int, alone: float) -> Link:
    latency = _all_gather(world, p, 8)
    sizes = [megabytes * 1_000_000 // p for megabytes in _SIZES]
    bandwidth = max((p - 1) * size / _all_gather(world, p, size) for size in sizes)
    message = _message(world, p)
    first = world.told(world.groups[p], message - alone)[0]
    return Link(p, latency, max(first, latency), bandwidth)  # the host takes less time by boxes than one rank alone


def _all_gather(world: World, p: int, size: int) -> float:
    """Return the median seconds in which each of p ranks tells the others so many bytes."""
    import torch
    import torch.distributed as dist

    sent = torch.zeros(size, dtype=torch.uint8, device=world.device)
    out = torch.empty(p * size, dtype=torch.uint8, device=world.device)
    gather: Any = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # its name from torch 2.13 on
    return _median(world, p, lambda: gather(out, sent, group=world.groups[p]))


def _message(world: World, p: int) -> float:
    """Return the median seconds of a message of recsolve that carries one number."""
    from recsolve.distributed.ranks import ranks_of

    ranks = ranks_of(world.groups[p])
    with ranks.together("recsolve bench distributed"):
        return _median(world, p, lambda: ranks.exchange([0.0]))


def _median(world: World, p: int, run: Callable[[], Any]) -> float:
    return float(np.median(world.in_turns(world.groups[p], (), run, _ONCE)[0]))
