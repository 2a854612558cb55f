"""How a scan is launched: the regime that should be fastest, its tiles, blocks and memory.

A plan depends on shapes and strides only, and is kept: a call with the same ones merely fills in addresses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.gpu.device import SHARED, Launch
from recsolve.kernels.gpu.scan.maps import cuda_map
from recsolve.kernels.gpu.scan.variants import (
    REGIMES,
    STREAMS,
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
_TINY = 4.0e-6  # a tile after the other: brought in, composed, walked and written, with nothing overlapping
_AT_ONCE = 16  # bytes that are copied at once, at best
_TINY_BLOCKS = 4  # of a multiprocessor
_RESIDENT_BLOCKS = 1  # of a multiprocessor, when each has four tiles
_CHAINED, _CHAIN = 6.0e-6, 30e-9  # cleared flags and the first look-back; every tile of time
_FETCH = 1.0e-6  # a batch of maps in look-back
_TILED_TRAFFIC, _CHAINED_TRAFFIC = 1.15, 2.6  # of bytes that must move
_BURN = 64  # steps before a segment
_EACH = 2  # blocks of a multiprocessor that stream
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

    @property
    def forgets(self) -> bool:
        """Whether a state may come to depend on the last steps alone: not where all maps are the same one."""
        first = dict(self.arrays)["in0"]
        return cuda_map(self.monoid).forgets and (self.monoid != "affine" or any((first.time, *first.lanes)))


@dataclass(frozen=True)
class Plan:
    """A launch without addresses, its problem as integers; ``flags`` and ``told`` count what blocks tell.

    Where there are segments, ``again`` looks at them once more if there are several, and ``otherwise`` is for the case
    that they do not fit together.
    """

    variant: Variant
    launch: Launch
    flags: int = 0
    told: int = 0
    again: Launch | None = None
    otherwise: Plan | None = None

    @property
    def problem(self) -> Any:
        """The structure."""
        return self.launch.problem.view(PROBLEM)[0]

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block, at most."""
        return max(self.launch.shared, self.otherwise.shared if self.otherwise else 0)

    @property
    def tiles(self) -> int:
        """Tiles of lanes."""
        return int(self.problem["tiles_of_lanes"])


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
    regimes = (regime,) if regime else tuple(one for one in REGIMES if one != "segments" or scan.forgets)
    candidates = [_planned(scan, one, width, processors, room) for one in regimes]
    candidates = [one for one in candidates if one.shared <= room]
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
    order: Order = "along" if regime in STREAMS and all(times) else "across"
    come = contiguous_times if order == "along" else contiguous
    fits = [n for n in vectors(scan.dtype) if n == 1 or (scan.aligned and come(p, names, n))]
    v = variant(regime, scan.monoid, scan.parts, scan.dtype, scan.cut, fits[0], order)
    if regime == "segments":
        return _segmented(scan, v, numbers, processors, room)
    if regime in WALKS:
        return Plan(v, v.launch(ceil(lanes / v.lanes), v.shared(), numbers))
    width = width or _width(v, scan.steps, lanes, all(times))
    pitch = pitch_of(width, any(times))
    v = fitted(v, width, pitch, scan.cut, room)
    across, along = ceil(lanes / width), ceil(scan.steps / v.span(width))
    p["width_log2"], p["pitch"] = width.bit_length() - 1, pitch
    p["tiles_of_lanes"], p["tiles_of_time"] = across, along
    shared = v.shared(width, pitch, scan.cut)
    if regime == "tiny":
        return Plan(v, v.launch(across, shared, numbers))
    p["aggregates"], p["states"] = 0, across * along * v.maps.size * width * v.storage.number_bytes
    told = across * along * (v.maps.size + v.parts) * width
    launch = v.launch(min(across * along, _RESIDENT_BLOCKS * processors), shared, numbers)
    return Plan(v, launch, across * along, told)


def _segmented(scan: Scan, v: Variant, numbers: Array, processors: int, room: int) -> Plan:
    """Return segments of time enough to keep the device busy, and what is done where they do not fit together."""
    p = numbers.view(PROBLEM)[0]
    tiles = ceil(int(p["lanes"]) / v.lanes)
    span = ceil(ceil(scan.steps / max(_EACH * processors // tiles, 1)) / v.run) * v.run
    p["tiles_of_lanes"], p["span"], p["segments"] = tiles, span, ceil(scan.steps / span)
    p["burn"] = ceil(_BURN / v.run) * v.run
    count = int(p["segments"])
    states = count * v.parts * int(p["lanes"])
    p["starts"], p["ends"] = 0, states * v.storage.number_bytes
    again = replace(v, after="again").launch(tiles * (count - 1), v.shared(), numbers) if count > 1 else None
    otherwise = _planned(scan, "chained", None, processors, room)
    return Plan(v, v.launch(tiles * count, v.shared(), numbers), 0, 2 * states, again, otherwise)


def _width(v: Variant, steps: int, lanes: int, along_time: bool) -> int:
    """Return the lanes of a tile: as few as fill it where times are contiguous, else as many as look-back allows.

    The fewer lanes there are, the sooner the memory is through a tile of time, and the more tiles of time are between a
    block and the nearest state. A block fetches ``threads * batch / width`` of them at a time: three times as fast as
    memory brings them when width is the root below.
    """
    most = min(1 << (lanes - 1).bit_length(), LANES)
    if along_time:
        longest = 1 << (steps - 1).bit_length()
        return min(1 << max((v.span(1) // longest).bit_length() - 1, 0), most)
    row = lanes * (v.numbers + v.parts) * v.storage.bytes / _BANDWIDTH  # seconds that all lanes take for a step
    root = int(sqrt(row * v.run * max(v.batch, 1) * v.threads**2 / (3 * _FETCH)))
    return min(max(1 << max(root.bit_length() - 1, 0), _SECTOR // v.storage.bytes), most)


def cost(one: Plan, processors: int) -> float:
    """Return about how long a launch takes, in seconds."""
    v, p = one.variant, one.problem
    steps, lanes = int(p["steps"]), int(p["lanes"])
    moved = steps * lanes * (v.numbers + v.parts) * v.storage.bytes / _BANDWIDTH
    times_are_nearer = any(p[f"by_time_{name}"] for name in (*INPUTS, "y"))
    if v.regime == "segments":
        length = int(p["span"]) + (int(p["burn"]) if p["segments"] > 1 else 0)
        lanes *= int(p["segments"])
        moved *= 1 + (length / int(p["span"]) - 1) * v.numbers / (v.numbers + v.parts)
        steps = length
    if v.regime in WALKS:
        rate = min(lanes, processors * _RESIDENT) * v.under_way / _LATENCY
        slower = max(_BANDWIDTH / rate, 1)
        if v.regime == "registers" and v.storage.bytes < 4:
            slower *= _HALF_LINES
        launches = 3 if v.regime == "segments" else 1
        if v.regime == "registers" and lanes > 1 and times_are_nearer:
            slower *= _SECTOR / v.storage.bytes  # a sector is moved for every number
        return _LAUNCH * launches + _LATENCY + max(moved * slower, steps * v.numbers * _STEP[v.storage.bytes])
    along = int(p["tiles_of_time"])
    if v.regime == "tiny":
        slower = _AT_ONCE / (v.vector * v.storage.bytes) if times_are_nearer else 1
        one_by_one = ceil(one.launch.blocks / (_TINY_BLOCKS * processors)) * along * _TINY * slower
        return _LAUNCH + max(one_by_one, _TILED_TRAFFIC * moved)
    return _LAUNCH + _CHAINED + max(along * _CHAIN, _CHAINED_TRAFFIC * moved)
