"""Compiling with Numba: one typed decorator, and one line in the log when something is compiled.

Importing this module imports numba, so only modules of loops do it, and those are imported on first use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba.core import event

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
    """Say once per process that loops are being compiled, which happens before the call that waits for it."""

    said = False

    def on_start(self, event: Any) -> None:
        function = event.data["dispatcher"].py_func
        if not self.said and function.__module__.startswith("recsolve."):
            self.said = True
            _LOG.warning("compiling loops with Numba; this takes some seconds once, later runs find them on disk")

    def on_end(self, event: Any) -> None:
        """Nothing more to say."""


event.register("numba:compile", _Notice())
