"""What work costs on this machine: measured a few times, kept in the folder of compiled code, and corrected.

One measurement may be wrong by any factor, for other programs run too, but no work takes less time than it needs. So
what is kept is the least of the last few measurements, and it stays until these contradict it clearly: the same record
gives the same choice. RECSOLVE_CALIBRATION=off neither reads nor writes one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from recsolve._version import __version__
from recsolve.kernels.cpu.jit import disk
from recsolve.kernels.cpu.jit.ready import calibrated
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.engine import Engine

_LOG = logging.getLogger("recsolve")
_FORMAT = 1
_MOST = 2000  # costs in a record, those that were met last
_LAST = 8  # measurements that are kept
_ENOUGH = 3  # after so many what would have to be measured for its own sake is not measured again,
_AGAIN = 50  # except every so many times
_BELOW, _ABOVE = 1 / 1.25, 1.5  # times what is kept: the least of the last measurements contradicts it
_DEEP = 3  # functions inside functions that are told apart


class Cost:
    """What one piece of work costs.

    Parameters
    ----------
    last : iterable of float
        Seconds that were measured, the oldest first.
    seconds : float, optional
        What is kept.

    Examples
    --------
    >>> cost = Cost()
    >>> [cost.add(seconds) for seconds in (3.0, 1.0, 50.0, 1.1)]  # whether that has changed what is kept
    [True, True, False, False]
    >>> cost.seconds
    1.0
    """

    def __init__(self, last: Iterable[float] = (), seconds: float | None = None):
        self.last, self.seconds, self.asked = list(last)[-_LAST:], seconds, 0

    def add(self, seconds: float) -> bool:
        """Add a measurement, and return whether what is kept has changed."""
        self.last = [*self.last, float(seconds)][-_LAST:]
        low, before = min(self.last), self.seconds
        if before is None or low < _BELOW * before or (len(self.last) == _LAST and low > _ABOVE * before):
            self.seconds = low
        return self.seconds != before


class Costs:
    """What the pieces of one kind of problem cost.

    Parameters
    ----------
    kind : str
        From :func:`kind_of_problem`.
    """

    def __init__(self, kind: str):
        self._kind, self._changed = kind, False
        self._said: dict[str, float] = {}  # one choice is made of one set of numbers

    def noted(self, work: str, seconds: float) -> float:
        """Add a measurement of work that was done anyway, and return what is kept."""
        if not calibrated():
            return seconds
        with _LOCK:
            record = _record()
            cost = record.setdefault(f"{self._kind} {work}", Cost())
            self._changed |= cost.add(seconds)
            return seconds if cost.seconds is None else cost.seconds

    def of(self, work: str, measure: Callable[[], float]) -> float:
        """Return what is kept, measured first where there is not enough."""
        if work not in self._said:
            self._said[work] = self._asked(work) or self.noted(work, measure())
        return self._said[work]

    def _asked(self, work: str) -> float | None:
        """Return what is kept if it need not be measured."""
        if not calibrated():
            return None
        with _LOCK:
            cost = _record().get(f"{self._kind} {work}", Cost())
            cost.asked += 1
            return cost.seconds if len(cost.last) >= _ENOUGH and cost.asked % _AGAIN else None

    def keep(self) -> None:
        """Write what has changed to disk."""
        if self._changed:
            with _LOCK:
                _save(_record())
            self._changed = False


def kind_of_problem(recurrence: Recurrence, engine: Engine) -> str:
    """Return what the costs of a recurrence depend on, but for its length: f, sizes, structure and engine."""
    rec: Any = recurrence
    f = rec.cell.cell.function if hasattr(rec, "cell") else getattr(rec, "f", None)
    mixings = [(k, type(m).__name__) for k, m in rec.cell.mixings.items()] if hasattr(rec, "cell") else []
    parts = type(rec).__name__, _seen(f), mixings, rec.batch, rec.layout, rec.dtype.name, rec.kind, rec.reset is None
    digest = hashlib.sha256(repr((*parts, getattr(rec, "structure", None))).encode()).hexdigest()[:16]
    return f"{rec.description} {digest} {type(engine).__name__}".replace("\n", " ")


def _seen(x: Any, depth: int = 0) -> Any:
    """Return what is seen of a function, or of what it closes over: code, sizes of arrays, types of all else."""
    code = getattr(x, "__code__", None)
    if code is not None and depth < _DEEP:
        inside = [cell.cell_contents for cell in x.__closure__ or () if _filled(cell)]
        return code.co_code.hex(), code.co_names, [_seen(part, depth + 1) for part in inside]
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return tuple(x.shape), str(x.dtype)
    return type(x).__qualname__


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - it raises where there is nothing
    except ValueError:
        return False
    return True


# The record ----------------------------------------------------------------------------------------------------------

_LOCK = RLock()
_READ: dict[tuple[str, str], dict[str, Cost]] = {}  # by folder and name of the file


@cache
def machine() -> dict[str, Any]:
    """Return what a record is good for; another processor, or another release, has another record."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(), "cores": cores, "recsolve": __version__, "numpy": np.__version__,
        "python": sys.version.split()[0], "format": _FORMAT,
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return f"{platform.processor()} {platform.machine()}"


def file_name() -> str:
    """Return the name of the record of this machine and release."""
    digest = hashlib.sha256(json.dumps(machine(), sort_keys=True).encode()).hexdigest()[:16]
    return f"costs-{digest}.json"


def _record() -> dict[str, Cost]:
    """Return the record, read from disk once."""
    try:
        place = str(disk.cache_directory()), file_name()
    except FileNotFoundError:  # there is no home
        place = "", file_name()
    if place not in _READ:
        _READ[place] = _load()
    return _READ[place]


def _load() -> dict[str, Cost]:
    content = disk.read(file_name())
    try:
        found = json.loads(content)["costs"] if content else {}
        return {key: Cost(map(float, last), float(kept)) for key, (kept, last) in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        _LOG.info("the record of costs cannot be read (%r); it is made again", error)
        return {}


def _save(record: dict[str, Cost]) -> None:
    """Write the record with what other processes have added meanwhile; writing replaces the file as a whole."""
    others = {key: cost for key, cost in _load().items() if key not in record}
    both = list({**others, **record}.items())[-_MOST:]
    kept = {key: [cost.seconds, cost.last] for key, cost in both}
    disk.write(file_name(), json.dumps({"machine": machine(), "costs": kept}, indent=1).encode())
