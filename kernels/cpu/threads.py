"""Threads for compiled loops: one shared pool of Python threads that run code without the interpreter lock.

Numba's own threading layers are not used: ``workqueue`` aborts the process when two Python threads enter it, and
``omp`` ends a child that was forked after its first use. A pool has neither trait, and however many Python threads call
in, it has no more workers than the limit. The limit is NUMBA_NUM_THREADS (joblib sets it in its loky workers, so that
workers times threads is the number of cores) and at most the cores that the process may use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import cache

_LIMIT: ContextVar[int | None] = ContextVar("recsolve_threads", default=None)


@cache
def _available() -> int:
    from recsolve.kernels.cpu.jit.decorators import config

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(int(config.NUMBA_NUM_THREADS), cores), 1)


@contextmanager
def limited(limit: int | None) -> Iterator[None]:
    """Use at most ``limit`` threads inside the block; ``None`` leaves it as it is."""
    token = _LIMIT.set(_LIMIT.get() if limit is None else limit)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def threads() -> int:
    """Return how many threads a compiled loop may use here."""
    limit = _LIMIT.get()
    return _available() if limit is None else min(limit, _available())


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_available() - 1, thread_name_prefix="recsolve")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def spread(loop: Callable[[int, int], None], tasks: int, workers: int) -> None:
    """Call ``loop(first, last)`` on equal shares of ``range(tasks)``, side by side; the caller takes the first."""
    shares = min(workers, tasks)
    if shares <= 1:
        if shares:
            loop(0, tasks)
        return
    bounds = [tasks * i // shares for i in range(shares + 1)]
    # The settings of a `with` block hold for the workers of the caller too.
    others = [_pool().submit(_within, copy_context(), loop, *bounds[i : i + 2]) for i in range(1, shares)]
    loop(*bounds[:2])
    for other in others:
        other.result()


def _within(context: Context, loop: Callable[[int, int], None], first: int, last: int) -> None:
    context.run(loop, first, last)
