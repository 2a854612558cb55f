"""How a fused solve is launched: its kernels, the arrays as they see them, and which regime should be fastest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import ceil, prod
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from recsolve.base.arrays import Array, slowest_first
from recsolve.kernels.codegen.cuda_elementwise import OPTIONS
from recsolve.kernels.codegen.cuda_structures import constants, structure
from recsolve.kernels.gpu.device import SHARED, Launch
from recsolve.kernels.gpu.scan.variants import STORAGE, Storage, power_below
from recsolve.kernels.gpu.views import AXES, LANES, address, merge, strides_of

Way: TypeAlias = Literal["Forward", "Backward"]
Regime: TypeAlias = Literal["walk", "windows"]
REGIMES: tuple[Regime, ...] = ("walk", "windows")
Template: TypeAlias = Literal["solve_by_walk", "walk_again", "solve_by_windows", "solve_again"]

FIELDS = constants("solve/problem")["FIELDS"]  # of a report
_RESERVED = 1024  # bytes of shared memory that a block costs beside its own
_WALKERS = 8  # warps of a multiprocessor that walk side by side: more only wait for each other

# The model of times, in seconds and bytes per second.
_BANDWIDTH = 4.0e12
_LAUNCH = 4.0e-6
_STEP = 0.12e-6  # a step of a walk that never waits for memory or other warps,
_CROWD = 24  # warps of a multiprocessor that walk, at most: with more there is too little room for each
_CROWDED = 0.3  # and by how much it is slower where warps are as many as there may be
_OPERATIONS = 1.2e11  # of a multiprocessor, per second, in all lanes
_SWEEPS = 6.0  # of a window, with what is between them
_WINDOW = 2.0e-6  # barriers and scans of a window
_SLOTS = 3, 4  # pieces of drives of a warp that walks: at least, and at most
_BURN: dict[Regime, int] = {"walk": 64, "windows": 256}  # steps before a segment
_ROUNDS = 1  # in which segments are walked again
_USUAL = 60  # operations of a step with its partials, of which _STEP was measured


class Sizes(NamedTuple):
    """Numbers of a cell in one direction, and about how many operations a step takes."""

    parts: int
    drives: int
    constants: int
    written: int
    sums: int
    operations: int

    def backward(self) -> Sizes:
        """Return those of the way back."""
        drives, written = self.drives + 2 * self.parts, self.drives + self.parts
        return Sizes(self.parts, drives, self.constants, written, self.constants + self.parts, 2 * self.operations)


@dataclass(frozen=True)
class Kernel:
    """One instance of a kernel template.

    Attributes
    ----------
    template : {"solve_by_walk", "walk_again", "solve_by_windows", "solve_again"}
        ``walk_again`` and ``solve_again`` do what is left to do where there are several segments.
    way : {"Forward", "Backward"}
    dtype : str
        In which drives are stored and results written.
    cut : bool
        Whether there are resets.
    sizes : Sizes
    warps, steps, slots : int
        Warps of a block; steps of a piece of drives (walk) or of a chunk (windows); pieces that a warp has room for.
    room : int
        Bytes of shared memory that a block may have.
    """

    template: Template
    way: Way
    dtype: str
    cut: bool
    sizes: Sizes
    warps: int
    steps: int
    slots: int = 2
    room: int = SHARED

    @property
    def storage(self) -> Storage:
        """How numbers are stored."""
        return STORAGE[self.dtype]

    @property
    def walks(self) -> bool:
        """Whether a warp walks, rather than a block together."""
        return self.template in ("solve_by_walk", "walk_again")

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.warps * LANES

    @property
    def length(self) -> int:
        """Steps of a window."""
        return self.warps * self.steps

    @cached_property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        step = LANES * (self.sizes.drives * self.storage.bytes + 4 * self.cut)
        drives = self.warps * self.slots * self.steps * step
        if self.walks:
            return drives + 4 * self.warps
        told = self.sizes.parts * (2 + self.sizes.parts)
        return drives + self.warps * (2 * told * LANES * self.storage.number_bytes + 4) + 4 * FIELDS

    @property
    def blocks_wanted(self) -> int:
        """Blocks of a multiprocessor, for which registers are set aside: two where a step takes few of these."""
        return 1 if self.storage.number_bytes > 4 or self.sizes.parts > 2 or self.way == "Backward" else 2

    @property
    def blocks(self) -> int:
        """The same, as far as shared memory allows."""
        return 1 if self.shared > self.half else self.blocks_wanted

    @property
    def half(self) -> int:
        """Bytes of shared memory of one of two blocks of a multiprocessor."""
        return (self.room + _RESERVED) // 2 - _RESERVED

    @cached_property
    def expression(self) -> str:
        """The C++ name."""
        cell = f"recsolve::{self.way}<recsolve::Cell>"
        cut, last = "true" if self.cut else "false", self.slots if self.walks else self.blocks
        return f"recsolve::{self.template}<{cell}, {self.storage.stored}, {cut}, {self.warps}, {self.steps}, {last}>"

    def launch(self, code: str, blocks: int, problem: Array) -> Launch:
        """Return a launch of the kernel of a cell's module."""
        return Launch(code, self.expression, OPTIONS, blocks, self.threads, self.shared, problem)


@lru_cache(maxsize=256)
def kernel(
    regime: Regime, way: Way, dtype: str, cut: bool, sizes: Sizes, crowd: int = _WALKERS, room: int = SHARED
) -> Kernel:
    """Return the kernel that serves a cell best, ``crowd`` warps of a multiprocessor walking side by side."""
    row = LANES * (sizes.drives * STORAGE[dtype].bytes + 4 * cut)
    if regime == "walk":
        own = room // crowd - _RESERVED
        steps = power_below(own // (_SLOTS[0] * row), 16)
        slots = min(max(own // (steps * row), _SLOTS[0]), _SLOTS[1])
        return Kernel("solve_by_walk", way, dtype, cut, sizes, warps=2, steps=steps, slots=slots, room=room)
    wide = STORAGE[dtype].number_bytes > 4 and way == "Backward"
    warps = 8 if wide else {1: 16, 2: 12}.get(sizes.parts, 8)
    found = Kernel("solve_by_windows", way, dtype, cut, sizes, warps=warps, steps=16, room=room)
    while found.shared > (found.half if found.blocks_wanted == 2 else room) and found.steps > 2:
        found = replace(found, steps=found.steps - 2)
    while found.shared > room and found.warps > 1:
        found = replace(found, warps=found.warps // 2)
    return found


class Given(NamedTuple):
    """An array (T, ...) that has the axes of lanes, and perhaps one for components."""

    array: Array
    component: int | None = None


def problem(
    sizes: Sizes, drives: list[Given], constants: list[Given], written: list[Given], others: dict[str, Given]
) -> Array:
    """Return an array of one ``Recurrence`` with all arrays filled in; lanes are those of what is written last."""
    like = written[-1]
    given = [like, *drives, *constants, *written, *others.values()]
    strides = [strides_of(g.array, () if g.component is None else (g.component,)) for g in given]
    shape = [n for axis, n in enumerate(like.array.shape) if axis and axis != like.component]
    merged, runs = merge(shape, [s.lanes for s in strides])
    if len(merged) > AXES:
        raise ValueError(f"arrays have {len(merged)} axes that cannot be merged; wanted at most {AXES}")
    counts = {"DRIVES": sizes.drives, "CONSTANTS": sizes.constants, "WRITTEN": sizes.written}
    filled = np.zeros(1, structure("solve/problem", "Recurrence", **counts))
    p = filled[0]
    p["steps"], p["lanes"], p["sizes"] = len(like.array), prod(shape), 1
    p["sizes"][: len(merged)] = merged
    p["groups"] = ceil(prod(shape) / LANES)
    counted = {"drives": drives, "constants": constants, "written": written}
    names: list[tuple[str, int | None]] = [(name, i) for name, views in counted.items() for i in range(len(views))]
    names += [(name, None) for name in others]
    for (name, i), g, s, run in zip(names, given[1:], strides[1:], runs[1:], strict=True):
        view = p[name] if i is None else p[name][i]
        view["at"], view["time"], view["row"] = address(g.array), s.time, s.row
        view["lane"][: len(run)] = run
        if name == "drives" and _by_rows(view, p["sizes"], len(merged), g.array.itemsize):
            p["rows"] |= 1 << int(i or 0)
    return filled


def in_shape(x: Array, like: Array) -> Array:
    """Return (numbers, lanes) as (numbers, *axes of lanes), for lanes in the order of ``like`` (T, *axes)."""
    order = [1 + axis for axis in slowest_first(like.shape[1:], like.strides[1:])]
    spread = x.reshape(len(x), *(like.shape[axis] for axis in order))
    return spread.transpose(0, *(1 + order.index(axis) for axis in range(1, like.ndim)))


def _by_rows(view: Any, sizes: Any, axes: int, size: int) -> bool:
    """Return whether 32 lanes are contiguous wherever they begin, and aligned to pieces of 16 bytes."""
    piece = 16 // size
    rest = [view["time"], *view["lane"][1:axes]]
    inner = view["lane"][0] == 1 and (axes == 1 or sizes[0] % LANES == 0)
    return bool(inner and view["at"] % 16 == 0 and not any(stride % piece for stride in rest))


@dataclass(frozen=True)
class Plan:
    """A regime, its kernel, and the segments of time with the steps of each and before it.

    ``again`` does what is left to do in ``rounds`` launches, and ``repair`` what that leaves.
    """

    regime: Regime
    kernel: Kernel
    again: Kernel
    repair: Kernel
    segments: int
    span: int
    burn: int
    rounds: int

    def blocks(self, kernel: Kernel, groups: int, last: bool = False) -> int:
        """Return how many blocks a launch has, for so many groups of 32 lanes."""
        return groups if last else ceil(groups * self.segments / (kernel.warps if kernel.walks else 1))


@lru_cache(maxsize=1024)
def plan(
    way: Way,
    dtype: str,
    cut: bool,
    sizes: Sizes,
    steps: int,
    lanes: int,
    processors: int,
    regime: Regime | None = None,
    segments: int | None = None,
    burn: int | None = None,
    room: int = SHARED,
) -> Plan:
    """Return how a solve is launched on a device of so many multiprocessors, with ``room`` for a block's shared memory.

    Raises
    ------
    ValueError
        For another regime, a number of segments below 1, or of steps before them below 0.
    """
    if regime not in (None, *REGIMES):
        raise ValueError(f"regime is {regime!r}; wanted one of {', '.join(REGIMES)}")
    if segments is not None and segments < 1:
        raise ValueError(f"segments is {segments}; wanted 1 or more")
    if burn is not None and burn < 0:
        raise ValueError(f"burn is {burn}; wanted 0 or more")
    windows = kernel("windows", way, dtype, cut, sizes, room=room)
    groups, repair = max(ceil(lanes / LANES), 1), replace(windows, template="solve_again")
    if windows.shared > room:  # of a step of so many numbers a block holds too few: one walk needs no windows
        if regime == "windows":
            raise ValueError(f"regime is 'windows'; wanted 'walk', for a step has {sizes.drives} drives")
        regime, segments = "walk", 1

    def planned(regime: Regime, count: int) -> Plan:
        crowd = min(max(ceil(groups * count / processors), _WALKERS), _CROWD)
        k = kernel(regime, way, dtype, cut, sizes, crowd, room)
        grain = k.steps if regime == "walk" else k.length
        span = ceil(ceil(steps / grain) / count) * grain
        lead = ceil((_BURN[regime] if burn is None else burn) / grain) * grain
        again, rounds = (replace(k, template="walk_again"), _ROUNDS) if regime == "walk" else (repair, 1)
        return Plan(regime, k, again, repair, ceil(steps / span), span, lead, rounds)

    def several(regime: Regime) -> int:
        k = kernel(regime, way, dtype, cut, sizes, room=room)
        resident = _WALKERS if regime == "walk" else k.blocks
        return max(min(processors * resident // groups, 2 * steps // _BURN[regime]), 1)  # no more led there than solved

    counts = {one: {1, several(one)} if segments is None else {segments} for one in REGIMES}
    found = [planned(one, n) for one in ((regime,) if regime else REGIMES) for n in sorted(counts[one])]
    return min(found, key=lambda one: cost(one, steps, lanes, processors))


def cost(one: Plan, steps: int, lanes: int, processors: int) -> float:
    """Return about how long a solve takes, in seconds."""
    k = one.kernel
    groups, several = ceil(lanes / LANES), one.segments > 1
    length = one.span + one.burn * several
    bytes_moved = steps * (k.sizes.drives * length / one.span + k.sizes.written) * lanes * k.storage.bytes
    operations = k.sizes.operations * (1 if k.storage.number_bytes == 4 else 8)
    launches = _LAUNCH * (2 + one.rounds if several else 1)
    if one.regime == "walk":
        crowd = min(1.0, groups * one.segments / (_WALKERS * processors))
        step = _STEP * max(1.0, operations / _USUAL) * (1 + _CROWDED * crowd)
        busy = min(1.0, groups * one.segments / (4 * processors))
        arithmetic = groups * one.segments * length * LANES * operations / (processors * busy * _OPERATIONS)
        return launches + max(bytes_moved / _BANDWIDTH, length * step, arithmetic)
    waves = ceil(groups * one.segments / (processors * k.blocks))
    each = _SWEEPS * length * LANES * operations * k.blocks / _OPERATIONS + _WINDOW * ceil(length / k.length)
    return launches + max(bytes_moved / _BANDWIDTH, waves * each)
