"""How long a thread has waited for compilers, so that reported times leave it out, and which threads may not start one.

All code that compiles, or loads compiled code, does so inside :func:`compiling`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_REFUSED: ContextVar[bool] = ContextVar("recsolve_refuses_to_compile", default=False)
_UNLOADED: ContextVar[bool] = ContextVar("recsolve_refuses_to_load", default=False)


class _Clock(threading.local):
    depth, began, total = 0, 0.0, 0.0


_CLOCK = _Clock()
_COMPILED = [0]


class CompilationRefused(RuntimeError):
    """Something would have to be compiled inside :func:`refusing`."""


@contextmanager
def compiling() -> Iterator[None]:
    """Count the block as compilation; nested blocks count once."""
    enter()
    try:
        yield
    finally:
        leave()


def enter() -> None:
    """Begin what :func:`compiling` counts, where no ``with`` can stand."""
    if not _CLOCK.depth:
        _CLOCK.began = time.perf_counter()
    _CLOCK.depth += 1


def leave() -> None:
    """End it."""
    _CLOCK.depth -= 1
    if not _CLOCK.depth:
        _CLOCK.total += time.perf_counter() - _CLOCK.began


@contextmanager
def refusing(refused: bool = True, *, loading: bool = False) -> Iterator[None]:
    """Raise CompilationRefused where something would be compiled; compiled code on disk is loaded unless ``loading``.

    With ``loading`` that is refused too.
    """
    tokens = _REFUSED.set(refused), _UNLOADED.set(loading)
    try:
        yield
    finally:
        _REFUSED.reset(tokens[0])
        _UNLOADED.reset(tokens[1])


def check_allowed() -> None:
    """Raise CompilationRefused inside :func:`refusing`."""
    if _REFUSED.get():
        raise CompilationRefused("a loop is not compiled yet")


def may_load() -> bool:
    """Return whether compiled code on disk may be loaded here."""
    return not _UNLOADED.get()


def count_compilation() -> None:
    """Count a loop that has been compiled."""
    _COMPILED[0] += 1


def compilations() -> int:
    """Return how many loops this process has compiled; who waits for one need not look again before that changes."""
    return _COMPILED[0]


class Stopwatch:
    """Seconds of work and of compilation since it was made, both of the thread that reads it."""

    def __init__(self) -> None:
        self._compiled, self._began = _CLOCK.total, time.perf_counter()

    @property
    def compile_seconds(self) -> float:
        """How long the thread has waited for compilers."""
        return _CLOCK.total - self._compiled

    @property
    def seconds(self) -> float:
        """The wall time without :attr:`compile_seconds`."""
        return time.perf_counter() - self._began - self.compile_seconds
