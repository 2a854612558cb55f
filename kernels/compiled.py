"""Compiling with Numba: one typed decorator, lines in the log on what is compiled, and its time apart from work's.

Importing this module imports numba, so only modules of loops do it, and those are imported on first use.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba.core import event

from recsolve.kernels import compile_clock

Loop = TypeVar("Loop", bound=Callable[..., Any])

_LOG = logging.getLogger("recsolve")


def compiled(function: Loop) -> Loop:
    """Compile a function on first call, cached on disk; it lets other threads run.

    No fastmath: with contraction results would differ from the loop of the reference in the last bits, and the full set
    drops NaN. These loops wait for memory, so nothing is lost.
    """
    return numba.njit(cache=True, nogil=True, error_model="numpy")(function)  # type: ignore[no-any-return]


def inlined(function: Loop) -> Loop:
    """Compile a function into its callers: a call with a dozen arrays would cost as much as a short row."""
    return numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)  # type: ignore[no-any-return]


class _Notice(event.Listener):  # type: ignore[misc]
    """Say once per process that loops are being compiled, before a call that waits for it; then how long each took."""

    said = False

    def __init__(self) -> None:
        self._began: dict[Any, float] = {}

    def on_start(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        if not dispatcher.py_func.__module__.startswith("recsolve."):
            return
        compile_clock.check_allowed()
        self._began[dispatcher] = time.perf_counter()
        if not self.said:
            self.said = True
            _LOG.warning("compiling loops with Numba; this takes some seconds once, later runs find them on disk")

    def on_end(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        began = self._began.pop(dispatcher, None)
        if began is not None:
            function, seconds = dispatcher.py_func, time.perf_counter() - began
            _LOG.info("compiled %s.%s in %.2f s", function.__module__, function.__qualname__, seconds)


class _Clock(event.Listener):  # type: ignore[misc]
    """Numba compiles, and loads from its cache, under one lock: the time from asking for it to leaving it counts."""

    def on_start(self, event: Any) -> None:
        compile_clock.enter()

    def on_end(self, event: Any) -> None:
        compile_clock.leave()


event.register("numba:compile", _Notice())
event.register("numba:compiler_lock", _Clock())
