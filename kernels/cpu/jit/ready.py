"""What is compiled already: it runs problems of every size, so that none takes longer than a larger one.

Compiling takes seconds, and only large problems begin it (:mod:`recsolve.kernels.backends`). What this process has
compiled costs nothing; what lies on disk is loaded once small problems have taken as many steps as a large one has.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

from recsolve.kernels.compile_clock import CompilationRefused, compilations, refusing
from recsolve.kernels.cpu.jit import disk

VARIABLE = "RECSOLVE_CALIBRATION"
STEPS = 256  # of NumPy, which take some milliseconds: loading takes a few tenths of a second, once

_NUMBA = "recsolve.kernels.cpu.jit.decorators"
_MOST = 1024  # kinds of calls that are kept, those that were first met last

Result = TypeVar("Result")


@dataclass
class _Known:
    """What is known of one kind of call in this process."""

    steps: int = 0  # that NumPy has taken instead
    here: bool = False  # whether this process has run its loops
    refused: tuple[int, bool] | None = None  # after how many compilations it was in vain, and whether it could load


_KNOWN: dict[Hashable, _Known] = {}
_LOCK = Lock()


def calibrated() -> bool:
    """Return whether what is found on this machine decides; RECSOLVE_CALIBRATION=off leaves all to the size.

    Raises
    ------
    ValueError
        When the variable is neither ``on`` nor ``off``.
    """
    said = os.environ.get(VARIABLE, "on")
    if said not in ("on", "off"):
        raise ValueError(f"{VARIABLE} is {said!r}; wanted 'on' or 'off'")
    return said == "on"


def _known(key: Hashable) -> _Known:
    known = _KNOWN.get(key)
    if known is None:
        with _LOCK:
            known = _KNOWN.setdefault(key, _Known())
            if len(_KNOWN) > _MOST:
                del _KNOWN[next(iter(_KNOWN))]
    return known


def note(key: Hashable) -> None:
    """Say that calls of a kind have been compiled, or are about to be."""
    _known(key).here = True


def here(key: Hashable) -> bool:
    """Return whether this process has run compiled calls of a kind."""
    return key in _KNOWN and _KNOWN[key].here


def attempt(key: Hashable, steps: int, call: Callable[[], Result], file: str) -> Result | None:
    """Return what a call of compiled loops gives, or None where one of them would have to be compiled.

    Parameters
    ----------
    key : hashable
        What kind of call it is.
    steps : int
        T: how many steps NumPy takes where nothing is compiled.
    call : callable
        It may be ended half way, and be called again.
    file : str
        How names of files on disk begin without which the call cannot run.

    Examples
    --------
    >>> from recsolve.kernels.cpu.jit.ready import attempt, note
    >>> note("an example")  # it has been compiled
    >>> attempt("an example", 10, lambda: "what it gives", file="example.")
    'what it gives'
    """
    known, loading = _known(key), True
    if not known.here:
        known.steps += steps
        loading = known.steps >= STEPS
        if known.refused == (compilations(), loading):
            return None
        if not (_NUMBA in sys.modules or (loading and disk.holds(file))):
            known.refused = compilations(), loading
            return None
    try:
        with refusing(loading=not loading):
            result = call()
    except CompilationRefused:
        known.here, known.refused = False, (compilations(), loading)
        return None
    known.here = True
    return result
