"""How a scan is launched: the regime that should be fastest, its tiles, blocks and memory.

A plan depends on shapes and strides only, and is kept: a call with the same ones merely fills in addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from recsolve.kernels.gpu.device import SHARED, Launch
from recsolve.kernels.gpu.scan.variants import (
    REGIMES,
    WALKS,
    WIDTHS,
    Order,
    Regime,
    Variant,
    fitted,
    pitch_of,
    variant,
    vectors,
)
from recsolve.kernels.gpu.views import INPUTS, LANES, PROBLEM, Strides, by_time, contiguous, contiguous_times, problem

# The model of times, in seconds and bytes per second. The regime with the least time is taken.
_BANDWIDTH = 4.0e12
_LATENCY = 0.8e-6  # of memory that is busy
_LAUNCH = 2.0e-6
_STEP = {1: 6e-9, 2: 6e-9, 4: 8e-9, 8: 12e-9}  # of a thread that never waits for memory, a number of so many bytes
_RESIDENT = 2048  # threads of a multiprocessor
_TINY = 5.0e-6  # a tile after the other: brought in, composed, walked and written, with nothing overlapping
_AT_ONCE = 16  # bytes that are copied at once, at best
_CHAINED, _CHAIN = 7.0e-6, 0.1e-6  # words that are cleared and the first look-back; every tile of time
_HIDDEN = 0.6  # share of the time of memory in which tiles of time follow each other unnoticed
_TILES = 3  # of a multiprocessor, at a time
_TINY_TRAFFIC, _CHAINED_TRAFFIC = 1.3, 1.1  # of bytes that must move
_SECTOR = 32  # bytes that memory moves at least
_HALF_LINES = 1.1  # the time of threads that load less than a line of 128 bytes together


class Scan(NamedTuple):
    """What a plan depends on.

    Attributes
    ----------
    parts : int
        Numbers of a lane's state.
    arrays : tuple
        Names and strides, y first.
    aligned : bool
        Whether all numbers begin at multiples of 16 bytes, as far as strides allow.
    """

    monoid: str
    parts: int
    dtype: str
    steps: int
    sizes: tuple[int, ...]
    arrays: tuple[tuple[str, Strides], ...]
    aligned: bool = False

    @property
    def cut(self) -> bool:
        """Whether there are resets."""
        return any(name == "cut" for name, _ in self.arrays)


@dataclass(frozen=True)
class Plan:
    """A launch without addresses, its problem as integers; ``told`` counts the words that blocks tell each other."""

    variant: Variant
    launch: Launch
    told: int = 0

    @property
    def problem(self) -> Any:
        """The structure."""
        return self.launch.problem.view(PROBLEM)[0]


@lru_cache(maxsize=1024)
def plan(
    scan: Scan, processors: int, regime: Regime | None = None, width: int | None = None, room: int = SHARED
) -> Plan:
    """Return how a scan is launched on a device of so many multiprocessors, with ``room`` for a block's shared memory.

    Raises
    ------
    ValueError
        For another regime or width, or a regime whose tiles do not fit into shared memory.
    """
    if regime not in (None, *REGIMES):
        raise ValueError(f"regime is {regime!r}; wanted one of {', '.join(REGIMES)}")
    if width not in (None, *WIDTHS):
        raise ValueError(f"width is {width!r}; wanted one of {', '.join(map(str, WIDTHS))}")
    candidates = [_planned(scan, one, width, processors, room) for one in ((regime,) if regime else REGIMES)]
    candidates = [one for one in candidates if one.launch.shared <= room]
    if not candidates:
        raise ValueError(f"regime is {regime!r}; wanted one whose tiles of such elements fit into {room} bytes")
    return min(candidates, key=lambda one: cost(one, processors))


def _planned(scan: Scan, regime: Regime, width: int | None, processors: int, room: int) -> Plan:
    filled = problem(scan.steps, scan.sizes, dict(scan.arrays))
    p, numbers = filled[0], filled.view(np.int64)
    lanes = int(p["lanes"])
    names = [name for name, _ in scan.arrays if name in (*INPUTS, "y")]
    times = [by_time(p, name) for name in names]
    for name, is_by_time in zip(names, times, strict=True):
        p[f"by_time_{name}"] = is_by_time
    order: Order = "along" if regime != "registers" and all(times) else "across"
    come = contiguous_times if order == "along" else contiguous
    fits = [n for n in vectors(scan.dtype) if n == 1 or (scan.aligned and come(p, names, n))]
    v = variant(regime, scan.monoid, scan.parts, scan.dtype, scan.cut, fits[0], order)
    if regime in WALKS:
        return Plan(v, v.launch(ceil(lanes / v.lanes), v.shared(), numbers))
    width = width or _width(v, scan.steps, lanes, all(times), room)
    v = fitted(v, width, room)
    across, along = ceil(lanes / width), ceil(scan.steps / v.span(width))
    pitch = pitch_of(width, any(times) and v.vector == 1)
    p["width_log2"], p["pitch"] = width.bit_length() - 1, pitch
    p["tiles_of_lanes"], p["tiles_of_time"] = across, along
    shared = v.shared(width, pitch)
    p["ahead"] = v.span(width) * (1 if regime == "tiny" else ceil(_TILES * processors / across))
    if regime == "tiny":
        return Plan(v, v.launch(across, shared, numbers))
    words = (v.maps.size - 1) * v.storage.number_bytes // 4
    return Plan(v, v.launch(across * along, shared, numbers), across * along * words * width)


def _width(v: Variant, steps: int, lanes: int, along_time: bool, room: int) -> int:
    """Return the lanes of a tile: as few as fill it where times are contiguous, else as many as look-back allows.

    The more lanes there are side by side, the better memory works; but the more tiles follow each other in time, and
    what these tell goes from one to the next.
    """
    most = min(1 << (lanes - 1).bit_length(), LANES)
    if along_time:
        longest = 1 << (steps - 1).bit_length()
        return min(1 << max((fitted(v, 1, room).span(1) // longest).bit_length() - 1, 0), most)
    least = min(_SECTOR // v.storage.bytes, most)
    moved = steps * lanes * (v.numbers + v.parts) * v.storage.bytes / _BANDWIDTH
    widths = [width for width in reversed(WIDTHS) if least <= width <= most and v.regime == "chained"]
    chains = (ceil(steps / fitted(v, width, room).span(width)) * _CHAIN for width in widths)
    return next((width for width, chain in zip(widths, chains, strict=True) if chain < _HIDDEN * moved), least)


def cost(one: Plan, processors: int) -> float:
    """Return about how long a launch takes, in seconds."""
    v, p = one.variant, one.problem
    steps, lanes = int(p["steps"]), int(p["lanes"])
    moved = steps * lanes * (v.numbers + v.parts) * v.storage.bytes / _BANDWIDTH
    times_are_nearer = any(p[f"by_time_{name}"] for name in (*INPUTS, "y"))
    if v.regime in WALKS:
        rate = min(lanes, processors * _RESIDENT) * v.under_way / _LATENCY
        slower = max(_BANDWIDTH / rate, 1)
        if v.regime == "registers" and v.storage.bytes < 4:
            slower *= _HALF_LINES
        if v.regime == "registers" and lanes > 1 and times_are_nearer:
            slower *= _SECTOR / v.storage.bytes  # a sector is moved for every number
        return _LAUNCH + _LATENCY + max(moved * slower, steps * v.numbers * _STEP[v.storage.bytes])
    along = int(p["tiles_of_time"])
    if v.regime == "tiny":
        slower = _AT_ONCE / (v.vector * v.storage.bytes) if times_are_nearer else 1
        one_by_one = ceil(one.launch.blocks / (_TILES * processors)) * along * _TINY * slower
        return _LAUNCH + max(one_by_one, _TINY_TRAFFIC * moved)
    return _LAUNCH + _CHAINED + max(along * _CHAIN, _CHAINED_TRAFFIC * moved)
