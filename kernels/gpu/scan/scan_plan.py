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
    TILES,
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
_TINY = 8.0e-6  # a tile after the other: brought in, composed, walked and written, with nothing overlapping
_AT_ONCE = 16  # bytes that are copied at once, at best
_CHAINED, _CHAIN = 9.0e-6, 0.14e-6  # words that are cleared and the first look-back; every tile of time, at least
_LOOK = 3.0e-6  # of a window of tiles to the next
_NARROW, _FEWER = 1.2, 1.06  # the time of tiles of one sector, and of fewer tiles than others
_TINY_TRAFFIC, _CHAINED_TRAFFIC, _HEAVY_TRAFFIC = 1.7, 1.4, 2.8  # of bytes that must move; of maps of many numbers
_SECTOR = 32  # bytes that memory moves at least
_LINE = 4  # sectors that a row of a tile has where blocks do not wait for each other
_WAVES = 4  # blocks for each that a multiprocessor holds at a time, so that the last ones end together
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
    if regime not in (None, "summary", *REGIMES):
        raise ValueError(f"regime is {regime!r}; wanted one of {', '.join(REGIMES)}")
    if width not in (None, *WIDTHS):
        raise ValueError(f"width is {width!r}; wanted one of {', '.join(map(str, WIDTHS))}")
    candidates = [_planned(scan, one, width, room, processors) for one in ((regime,) if regime else REGIMES)]
    candidates = [one for one in candidates if one.launch.shared <= room]
    if not candidates:
        raise ValueError(f"regime is {regime!r}; wanted one whose tiles of such elements fit into {room} bytes")
    return candidates[0] if regime else min(candidates, key=lambda one: cost(one, processors))


def _planned(scan: Scan, regime: Regime, width: int | None, room: int, processors: int) -> Plan:
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
    if width is None:
        width, v = _tile(v, scan.steps, lanes, all(times), room)
    else:
        v = fitted(v, width, room)
    across, along = ceil(lanes / width), ceil(scan.steps / v.span(width))
    pitch = pitch_of(width, any(times) and v.vector == 1)
    p["width_log2"], p["pitch"] = width.bit_length() - 1, pitch
    p["tiles_of_lanes"], p["tiles_of_time"] = across, along
    shared = v.shared(width, pitch)
    if regime == "tiny":
        return Plan(v, v.launch(across, shared, numbers))
    if regime == "summary":
        ranges = max(min(_WAVES * v.blocks * processors // across, along), 1)
        p["ranges"] = ranges
        return Plan(v, v.launch(across * ranges, shared, numbers))
    words = (v.maps.size - 1) * v.storage.number_bytes // 4
    return Plan(v, v.launch(across * along, shared, numbers), across * along * words * width)


def _tile(v: Variant, steps: int, lanes: int, along_time: bool, room: int) -> tuple[int, Variant]:
    """Return the lanes of a tile, and the variant for it.

    Where times are contiguous it has as few lanes as fill it. Else it has two sectors of memory, or one where the tiles
    that follow each other in time would otherwise take longer than the memory; longer tiles are fewer, too.
    """
    most = min(1 << (lanes - 1).bit_length(), LANES)
    if along_time:
        longest = 1 << (steps - 1).bit_length()
        width = min(1 << max((fitted(v, 1, room).span(1) // longest).bit_length() - 1, 0), most)
        return width, fitted(v, width, room)
    sector = _SECTOR // v.storage.bytes
    if v.regime in ("tiny", "summary"):
        width = min(sector if v.regime == "tiny" else _LINE * sector, most)
        return width, fitted(v, width, room)
    ways = [
        (min(width, most), fitted(v, min(width, most), room, tiles), tiles)
        for width in (2 * sector, sector)
        for tiles in (TILES, TILES - 1)
    ]

    def seconds(way: tuple[int, Variant, int]) -> float:
        width, one, tiles = way
        slower = (_NARROW if width < 2 * sector else 1) * (1 if tiles == TILES else _FEWER)
        moved = steps * lanes * (v.numbers + v.parts) * v.storage.bytes / _BANDWIDTH
        return max(_chain(one, width, steps), _traffic(one) * slower * moved)

    return min(ways, key=seconds)[:2]


def _chain(v: Variant, width: int, steps: int) -> float:
    """Return the seconds that tiles take at least which follow each other in time."""
    return ceil(steps / v.span(width)) * max(_CHAIN, _LOOK / (v.window // width))


def _traffic(v: Variant) -> float:
    """Return the time of tiles over that of the bytes that must move."""
    return _CHAINED_TRAFFIC if v.light else _HEAVY_TRAFFIC


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
        one_by_one = ceil(one.launch.blocks / (TILES * processors)) * along * _TINY * slower
        return _LAUNCH + max(one_by_one, _TINY_TRAFFIC * moved)
    return _LAUNCH + _CHAINED + max(_chain(v, 1 << int(p["width_log2"]), steps), _traffic(v) * moved)
