"""How a fused solve is launched: its kernels, the arrays as they see them, and how many segments of time it has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import ceil
from typing import Literal, NamedTuple, TypeAlias

from recsolve.base.arrays import Array
from recsolve.kernels.codegen.cuda_elementwise import OPTIONS
from recsolve.kernels.codegen.cuda_structures import constants
from recsolve.kernels.gpu.device import SHARED, Launch
from recsolve.kernels.gpu.scan.variants import STORAGE, Storage, power_below
from recsolve.kernels.gpu.views import LANES

Way: TypeAlias = Literal["Forward", "Backward"]

FIELDS = constants("solve/problem")["FIELDS"]  # of what is told of a solve
MOST = 12  # sweeps before segments are walked in order
_BURN = 64  # steps before a segment that guess its first state
_ALONE = 2  # warps of a block without segments
_RESERVED = 1024  # bytes of shared memory that a block costs beside its own
_SLOTS = 3, 4  # pieces of drives of a warp: at least, and at most
_CHECKERS = 8  # warps of a block that reads the states again

# The model of times, in seconds and bytes per second.
_BANDWIDTH = 4.0e12
_START = 4.0e-6  # of a launch
_AGREE = 2.0e-6, 0.3e-6  # of segments that agree, and more for every block that shares them
_STEP = 0.09e-6, 0.0094e-6  # of a step of a walk, and more for every warp of the multiprocessor
_CROWD = 32  # warps of a multiprocessor that walk, at most
_USUAL, _MOVED = 60, 4  # operations of a step with its partials, and numbers that it moves, of which _STEP was measured


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
    """One instance of the template ``solve_segments``, or of ``solve_lanes`` for what has no segments.

    Attributes
    ----------
    way : {"Forward", "Backward"}
    dtype : str
        In which drives are stored and results written.
    cut : bool
        Whether there are resets.
    sizes : Sizes
    warps, steps, slots : int
        Warps of a block; steps of a piece of drives; pieces that a warp has room for.
    blocks : int
        Of a multiprocessor, for which registers are set aside; 0 without segments.
    """

    way: Way
    dtype: str
    cut: bool
    sizes: Sizes
    warps: int
    steps: int
    slots: int
    blocks: int

    @property
    def storage(self) -> Storage:
        """How numbers are stored."""
        return STORAGE[self.dtype]

    @property
    def link(self) -> int:
        """Bytes of what a segment of 32 lanes amounts to."""
        return self.sizes.parts * (self.sizes.parts + 5) * LANES * self.storage.number_bytes

    @cached_property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        return self.warps * self.slots * self.steps * _row(self.sizes, self.storage, self.cut) + self.fixed

    @property
    def fixed(self) -> int:
        """Those that are not for drives: links and words of the segments."""
        return (2 * self.warps * self.link + 4 * (1 + self.warps + self.threads + FIELDS)) if self.blocks else 0

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.warps * LANES

    @cached_property
    def expression(self) -> str:
        """The C++ name."""
        name, last = ("segments", f", {self.blocks}") if self.blocks else ("lanes", "")
        cut, numbers = "true" if self.cut else "false", f"{self.warps}, {self.steps}, {self.slots}{last}"
        return f"recsolve::solve_{name}<{_cell(self.way)}, {self.storage.stored}, {cut}, {numbers}>"

    @cached_property
    def check(self) -> str:
        """The C++ name of the kernel that reads the states again."""
        return f"recsolve::check_states<{_cell(self.way)}, {self.storage.stored}, {_CHECKERS}>"


def _cell(way: Way) -> str:
    return f"recsolve::{way}<recsolve::Cell>"


def _row(sizes: Sizes, storage: Storage, cut: bool) -> int:
    """Return the bytes of a step of 32 lanes."""
    return LANES * (sizes.drives * storage.bytes + 4 * cut)


@lru_cache(maxsize=256)
def kernel(way: Way, dtype: str, cut: bool, sizes: Sizes, crowd: int, room: int = SHARED) -> Kernel:
    """Return a kernel for walks of all lanes of which ``crowd`` warps share a multiprocessor, or with 0 for segments.

    Those hold many numbers: so many warps of a multiprocessor as have registers for them.
    """
    storage = STORAGE[dtype]
    weight = sizes.parts * (1 if way == "Forward" else 2) * storage.number_bytes // 4
    warps, blocks = (_ALONE, 0) if crowd else {1: (8, 2), 2: (12, 1)}.get(weight, (8, 1))
    least = Kernel(way, dtype, cut, sizes, warps, 1, _SLOTS[0], blocks)
    share = (room + _RESERVED) // (crowd // warps or blocks) - _RESERVED - least.fixed
    own = max(share // (warps * _row(sizes, storage, cut)), 1)  # steps
    steps = power_below(max(own // _SLOTS[0], 1), 16)
    return replace(least, steps=steps, slots=min(max(own // steps, _SLOTS[0]), _SLOTS[1]))


@dataclass(frozen=True)
class Plan:
    """A kernel, the segments of time with the steps of each and before it, and how blocks share these.

    Attributes
    ----------
    kernel : Kernel
    segments, span, burn : int
    parts, sets : int
        Blocks that share the segments of some lanes, and sets of lanes that are shared so.
    most : int
        Sweeps before segments are walked in order.
    """

    kernel: Kernel
    segments: int
    span: int
    burn: int
    parts: int
    sets: int
    most: int

    @property
    def blocks(self) -> int:
        """Blocks of the launch."""
        return self.parts * self.sets

    def launch(self, code: str, filled: Array) -> Launch:
        """Return the launch that solves."""
        k = self.kernel
        return Launch(code, k.expression, OPTIONS, self.blocks, k.threads, k.shared, filled)

    def check(self, code: str, groups: int, filled: Array) -> Launch:
        """Return the launch that reads the states again."""
        threads = _CHECKERS * LANES
        return Launch(
            code, self.kernel.check, OPTIONS, self.segments * groups, threads, 4 * threads + 8 * _CHECKERS, filled
        )


@lru_cache(maxsize=1024)
def plan(
    way: Way,
    dtype: str,
    cut: bool,
    sizes: Sizes,
    steps: int,
    lanes: int,
    processors: int,
    segments: int | None = None,
    burn: int | None = None,
    most: int | None = None,
    room: int = SHARED,
) -> Plan:
    """Return how a solve is launched on a device of so many multiprocessors, with ``room`` for a block's shared memory.

    Raises
    ------
    ValueError
        For a number of segments below 1, of steps before them or of sweeps below 0.
    """
    for name, value, least in (("segments", segments, 1), ("burn", burn, 0), ("sweeps", most, 0)):
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; wanted {least} or more")
    groups = max(ceil(lanes / LANES), 1)
    together = kernel(way, dtype, cut, sizes, 0, room)
    alone = kernel(way, dtype, cut, sizes, min(max(ceil(groups / processors), 8), _CROWD), room)
    if together.shared > room:  # a step of so many numbers leaves no room for what segments tell each other
        segments = 1

    def planned(wanted: int) -> Plan:
        k = together if wanted > 1 else alone
        span = ceil(ceil(steps / k.steps) / min(wanted, k.warps * k.threads)) * k.steps
        count = ceil(steps / span)
        lead = min(ceil((_BURN if burn is None else burn) / k.steps) * k.steps, span)
        parts, sets = ceil(count / k.warps), ceil(groups / max(k.warps // count, 1))
        return Plan(k, count, span, lead, parts, sets, min(count, MOST) if most is None else most)

    if segments is not None:
        return planned(segments)
    slots = processors * together.blocks  # for blocks, at a time
    parts = slots // groups  # for the segments of a group
    counts = [together.warps * n for n in (parts, parts // 2) if n] or [together.warps // ceil(groups / slots)]
    most_of_use = max(2 * steps // _BURN, 1)  # more would be led there longer than is solved
    found = [planned(max(min(n, most_of_use), 1)) for n in [*counts, 1]]
    return min(found, key=lambda one: cost(one, steps, lanes, processors))


def cost(one: Plan, steps: int, lanes: int, processors: int) -> float:
    """Return about how long a solve takes where states are soon forgotten, in seconds."""
    k, groups, lead = one.kernel, ceil(lanes / LANES), one.burn * (one.segments > 1)
    bytes_moved = steps * (k.sizes.drives * (1 + lead / one.span) + k.sizes.written) * lanes * k.storage.bytes
    operations = k.sizes.operations / _USUAL * (1 if k.storage.number_bytes == 4 else 8)
    work = max(1.0, operations, (k.sizes.drives + k.sizes.written) / _MOVED)
    crowd = groups * one.segments / processors
    step = work * max(crowd / _CROWD, 1.0) * (_STEP[0] + _STEP[1] * min(crowd, _CROWD))
    agree = _AGREE[0] + _AGREE[1] * one.parts if one.segments > 1 else 0.0
    return _START + agree + max(bytes_moved / _BANDWIDTH, (one.span + lead) * step)
