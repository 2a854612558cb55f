"""Which engine computes f of a cell: one of loops and kernels that are compiled, or NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np

from recsolve.base.arrays import kind_of
from recsolve.kernels import backends
from recsolve.kernels.compile_clock import CompilationRefused
from recsolve.kernels.cpu.jit import ready
from recsolve.kernels.cpu.jit.module_cache import label
from recsolve.recurrence.compilation import Backend, backend_of, ties_of, traced_of
from recsolve.recurrence.engine import CompiledEngine, Engine
from recsolve.recurrence.fused_engine import FusedEngine
from recsolve.recurrence.staged_engine import StagedEngine

if TYPE_CHECKING:
    from recsolve.recurrence.base import Recurrence
    from recsolve.recurrence.cell_recurrence import CellRecurrence

# Whether what is solved may be walked along time; not by methods that evaluate f at all t at once.
_WALKS: ContextVar[bool] = ContextVar("recsolve_walks", default=True)
# The engine of the problem that is being solved, for its parts.
_WHOLE: ContextVar[Engine | None] = ContextVar("recsolve_engine_of_the_whole", default=None)


def engine_of(recurrence: CellRecurrence) -> Engine:
    """Return the engine of a cell's recurrence for the backend that is chosen now.

    Large problems compile what they need. A small one takes the loops that are compiled already, if there are any.
    """
    if (backend := backend_of(recurrence)) is not None:
        engine = _compiled(recurrence, backend)
        if engine is not None and backend == "numba":
            for walks in (False, True):
                ready.note((*_key(recurrence), walks))
        return engine or Engine(recurrence)
    return _small(recurrence) or Engine(recurrence)


@contextmanager
def walking(walks: bool) -> Iterator[None]:
    """Say whether what is solved inside may be walked along time: then a small problem needs a compiled walk too."""
    token = _WALKS.set(walks)
    try:
        yield
    finally:
        _WALKS.reset(token)


@contextmanager
def parts_as(engine: Engine) -> Iterator[None]:
    """Compute parts of a problem as the whole is, however small they are.

    Loops of NumPy round otherwise, and what they walk would not be exact in the test of the whole.
    """
    if isinstance(engine, CompiledEngine) and not engine.small:
        with backends.backend(engine.backend):
            yield
        return
    token = _WHOLE.set(engine)
    try:
        yield
    finally:
        _WHOLE.reset(token)


def _compiled(recurrence: CellRecurrence, backend: Backend) -> CompiledEngine | None:
    traced = traced_of(recurrence)
    if traced is None:
        return None
    kind = FusedEngine if traced.uncoupled else StagedEngine
    return kind(recurrence, traced, backend)


def _small(recurrence: CellRecurrence) -> CompiledEngine | None:
    """Return the engine of loops that are compiled already, for NumPy arrays under ``auto``; else None."""
    rec = recurrence
    if 0 in rec.shape or kind_of(rec.initial) != "numpy" or not backends.may_be_ready():
        return None
    whole = _WHOLE.get()
    part = whole is not None and getattr(getattr(whole.recurrence, "cell", None), "cell", None) is rec.cell.cell
    if part and not isinstance(whole, CompiledEngine):
        return None

    def bound() -> CompiledEngine:
        engine = _compiled(rec, "numba")
        if engine is None:
            raise CompilationRefused("there is nothing to compile")
        engine.small = True
        needs = rec.dtype, _WALKS.get()
        if not part and needs not in engine.traced.ready:
            _run(rec.window(0, 1), engine)
            engine.traced.ready.add(needs)
        return engine

    key = *_key(rec), _WALKS.get()
    return bound() if part else ready.attempt(key, rec.length, bound, f"{label(rec.cell.cell.name)}_")


def _run(step: Recurrence, like: CompiledEngine) -> None:
    """Evaluate f at one step, and walk to it, which ends the attempt where that is not compiled."""
    engine = type(like)(step, like.traced, like.backend)
    with np.errstate(all="ignore"):
        engine.guess()
        if _WALKS.get():
            engine.walk()


def _key(recurrence: CellRecurrence) -> tuple[object, ...]:
    """Return what the program of a recurrence depends on, without tracing it."""
    cell = recurrence.cell
    return cell.cell, tuple([type(m) for m in cell.mixings.values()]), ties_of(recurrence), recurrence.dtype
