"""Ranks of a gloo process group for tests: a pool that is kept, and fresh ones for injected faults.

A new interpreter takes seconds to import torch: ranks are forked from a server that has imported it, with one thread.
"""

import atexit
import contextlib
import faulthandler
import importlib.util
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from multiprocessing import connection, util
from pathlib import Path

_POLL = threading.Lock()  # a process is polled by one thread at once, as start() does all: another would find no code
SIZES = (1, 2, 3, 4)  # of the pool's groups, each of ranks 0, 1, ...
GRACE = 5.0  # seconds that the others have once a rank of the pool has failed
START = 60.0  # seconds in which ranks must have started
PRELOADED = ["pytest", "numba", "scipy.linalg", "torch", "torch.distributed", "recsolve.nn", "recsolve.distributed"]


@dataclass(frozen=True)
class End:
    """How a call ended on one rank: with a value, an exception (its type's name and text) or the end of its process.

    All are None on a rank that had to be killed; `trace` is then where it stood.
    """

    value: object = None
    error: str | None = None
    text: str | None = None
    code: int | None = None
    trace: str | None = None
    seconds: float = 0.0
    done: bool = True

    @property
    def returned(self):
        return self.done and self.error is None and self.code is None


def over(size, function, *arguments, timeout=60.0):
    """Return what `function(group, *arguments)` returns on each of ranks 0, ..., size - 1 of the kept pool.

    `function` is found by its name in its module's file; arguments and values are pickled. Where any rank fails or runs
    out of time, RuntimeError shows the traceback of each, and the next call starts new ranks, for groups to be in step.
    """
    ranks = _pool()
    try:
        ends = ranks.call(size, function, arguments, timeout, grace=GRACE)
    except BaseException:
        _drop()
        raise
    if not all(end.returned for end in ends):
        _drop()
        raise RuntimeError("\n".join(f"rank {rank} of {size} {_told(end)}" for rank, end in enumerate(ends)))
    return [end.value for end in ends]


def lost(size, function, *arguments, timeout=20.0, patience=60.0):
    """Return the `End` of `function(group, *arguments)` on each of `size` fresh ranks, which may fail, leave or hang.

    A rank that has returned or raised stays alive until all have ended; with SystemExit its process ends at once. The
    group's own timeout is `patience`. What is left after `timeout` seconds is killed.
    """
    ranks = _Ranks(size, (size,), patience)
    try:
        return ranks.call(size, function, arguments, timeout)
    finally:
        ranks.close()


@cache
def _pool():
    return _Ranks(max(SIZES), SIZES, patience=60.0)


@atexit.register
def _drop():
    """End the kept ranks, if any."""
    if _pool.cache_info().currsize:
        _pool().close()
        _pool.cache_clear()


def _told(end):
    if end.returned:
        return "returned"
    if end.code is not None:
        return f"died with exit code {end.code}"
    return f"raised {end.error}:\n{end.trace}" if end.error else f"did not end; it stood at\n{end.trace}"


class _Ranks:
    """Processes that serve calls, their pipes, and the folder where they meet."""

    def __init__(self, world, sizes, patience):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        # Within multiprocessing's own folder, which goes with this process, or with its ranks if this one is killed.
        self.folder = tempfile.mkdtemp(dir=util.get_temp_dir())
        self.pipes, self.processes = [], []
        for rank in range(world):
            pipe, far = context.Pipe()
            process = context.Process(target=_serve, args=(far, self.folder, rank, world, sizes, patience), daemon=True)
            with _POLL:
                process.start()
            far.close()
            self.pipes.append(pipe)
            self.processes.append(process)
        met = self._ends(range(world), START)
        if not all(end.returned for end in met):
            self.close()
            raise RuntimeError("\n".join(f"rank {rank} at its start {_told(end)}" for rank, end in enumerate(met)))

    def call(self, size, function, arguments, timeout, grace=None):
        code = function.__code__.co_filename, function.__module__, function.__qualname__
        settings = {name: value for name, value in os.environ.items() if name.startswith("RECSOLVE_")}
        task = pickle.dumps((size, settings, code, pickle.dumps(arguments)))
        for pipe in self.pipes[:size]:
            with contextlib.suppress(OSError):  # of one that has died: its exit code is read below
                pipe.send_bytes(task)
        return self._ends(range(size), timeout, grace)

    def _ends(self, ranks, timeout, grace=None):
        """Return how each rank ends that does so in time, with `grace` in that time of the first failure."""
        began = time.monotonic()
        until, ends = began + timeout, {}
        waiting = {self.pipes[rank]: rank for rank in ranks}
        while waiting and (left := until - time.monotonic()) > 0:
            for pipe in connection.wait(list(waiting), left):
                rank = waiting.pop(pipe)
                ends[rank] = replace(self._end(rank), seconds=time.monotonic() - began)
                if grace is not None and not ends[rank].returned:
                    until = min(until, time.monotonic() + grace)
        for rank in waiting.values():
            ends[rank] = End(done=False, trace=self._where(rank), seconds=time.monotonic() - began)
        return [ends[rank] for rank in ranks]

    def _end(self, rank):
        try:
            return pickle.loads(self.pipes[rank].recv_bytes())
        except (EOFError, OSError):
            with _POLL:
                self.processes[rank].join()
            return End(code=self.processes[rank].exitcode)

    def _where(self, rank):
        """Return where a rank stands that does not end."""
        stands = Path(self.folder, f"stands{rank}")
        if not stands.exists():
            return "its start"
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.processes[rank].pid, signal.SIGUSR1)
        time.sleep(0.1)
        return stands.read_text()

    def close(self):
        for process in self.processes:
            process.kill()
        for process, pipe in zip(self.processes, self.pipes, strict=True):
            with _POLL:
                process.join()
            pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _serve(pipe, folder, rank, world, sizes, patience):
    """Join the groups of a rank, then answer calls until the pipe closes."""
    # What is pickled may be of the tests, which bare pytest does not put on the path; and a shell that starts the tests
    # in the background has interrupts ignored.
    sys.path.append(str(Path(__file__).parents[1]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_follow, daemon=True).start()
    faulthandler.register(signal.SIGUSR1, file=open(Path(folder, f"stands{rank}"), "w"), all_threads=False)  # noqa: SIM115
    groups = {}
    _answer(pipe, lambda: groups.update(_groups(folder, rank, world, sizes, patience)))
    while True:
        try:
            size, settings, code, arguments = pickle.loads(pipe.recv_bytes())
        except (EOFError, KeyboardInterrupt):
            return
        for name in [name for name in os.environ if name.startswith("RECSOLVE_")]:
            del os.environ[name]
        os.environ.update(settings)
        _answer(pipe, lambda: _function(*code)(groups[size], *pickle.loads(arguments)))  # noqa: B023


def _answer(pipe, call):
    try:
        answer = pickle.dumps(End(call()))
    except SystemExit:
        raise
    except BaseException as error:
        answer = pickle.dumps(End(error=type(error).__name__, text=str(error), trace=traceback.format_exc()))
    pipe.send_bytes(answer)


def _follow():
    """End this process when that of the tests has, however it ended, and leave none of its files."""
    multiprocessing.parent_process().join()
    shutil.rmtree(util.get_temp_dir(), ignore_errors=True)
    os._exit(1)


def _groups(folder, rank, world, sizes, patience):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    timeout = timedelta(seconds=patience)
    store = dist.FileStore(str(Path(folder, "store")), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timeout)
    groups = {size: dist.new_group(range(size), timeout=timeout) for size in sizes if size != world}
    dist.barrier()
    return groups | {world: dist.group.WORLD}


def _function(file, module, name):
    """Return a function of a module that pytest has imported under a name of its own."""
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, file)
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])
    return getattr(sys.modules[module], name)
