"""Walks through time of cells whose mixings couple units, as launches: which blocks take what, and the arrays they see.

A block takes a few sequences from the first step to the last, with its weights in registers. Where they do not fit, a
cluster of blocks shares the units, and where they do not fit there, they are read from the cache in every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, broadcast, namespace
from recsolve.kernels.codegen.cuda_elementwise import OPTIONS, stages_text
from recsolve.kernels.codegen.cuda_structures import structure
from recsolve.kernels.codegen.cuda_walk import WalkCell
from recsolve.kernels.gpu.device import Launch, Machine
from recsolve.kernels.gpu.views import AXES, LANES, address, aligned, merge, strides_of

NUMBERS = {"float32": "float", "float64": "double"}
_PIECE = 16  # bytes that a thread reads at once
_THREADS = 1024, 512  # of a block at most, and with weights in registers
_WIDTHS = tuple(1 << i for i in range(LANES.bit_length()))
_REGISTERS, _OF_THREAD = 1 << 16, 255  # of a multiprocessor, and of a thread at most
_OTHERS = 48  # registers that a thread needs beside weights, sums and states, roughly
_SUMS = 16  # that a thread adds up at a time, at most
_SEQUENCES = 8  # of a block at most
_DEPTHS = (3, 8)  # steps of which drives are in shared memory, at least and at most
_UNITS = 4096  # at most: from here on a step is long enough for calls from Python
_SHUFFLE = 3  # what it costs to halve the number of sums, in multiplications


@dataclass(frozen=True)
class Plan:
    """Which units and sequences a block takes, and where weights are.

    Attributes
    ----------
    cell : WalkCell
    number : {"float", "double"}
    cut : bool
        Whether there are resets.
    units : int
        Of a sequence.
    blocks : int
        Of a cluster, which share the units.
    width : int
        Threads that multiply a row.
    sequences : int
        Of a block.
    resident : bool
        Whether weights stay in registers.
    depth : int
        Steps of which drives are in shared memory.
    """

    cell: WalkCell
    number: str
    cut: bool
    units: int
    blocks: int
    width: int
    sequences: int
    resident: bool
    depth: int = _DEPTHS[1]

    @property
    def bytes(self) -> int:
        """Bytes of a number."""
        return 4 if self.number == "float" else 8

    @property
    def vector(self) -> int:
        """Numbers of a piece."""
        return _PIECE // self.bytes

    @property
    def own(self) -> int:
        """Units of a block."""
        return ceil(self.units / self.blocks)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return ceil(self.own * self.width / LANES) * LANES

    @property
    def pieces(self) -> int:
        """Pieces of a row that a thread multiplies."""
        return ceil(self.units / (self.vector * self.width))

    @property
    def padded(self) -> int:
        """Numbers of a vector, with zeros after them."""
        return self.pieces * self.vector * self.width

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block, as in cuda/block/mixing_walk.cuh."""
        vectors = 2 * self.cell.slots * self.sequences * self.padded
        ring = self.depth * (self.cell.drives + self.cut) * self.own * self.sequences
        return self.bytes * (vectors + ring + self.threads)

    def within(self, room: int) -> Plan | None:
        """Return the plan with as many steps in shared memory as there is room for; None if it asks for too much."""
        depths = [d for d in range(self.depth, _DEPTHS[0] - 1, -1) if replace(self, depth=d).shared <= room]
        sums = self.cell.calls * self.sequences
        if not depths or self.threads > _THREADS[self.resident] or (self.sequences > 1 and sums > _SUMS):
            return None
        return replace(self, depth=depths[0]) if self._fits or not self.resident else None

    @property
    def _fits(self) -> bool:
        """Whether registers hold the weights beside all else."""
        each = ceil(self.sequences / self.width)
        weights = self.cell.calls * self.pieces * self.vector
        states = each * (2 * self.cell.components + self.cell.calls + self.cell.constants)
        copies = 4 * ceil((self.cell.drives + self.cut) * self.own * self.sequences / self.threads)
        wanted = (weights + states + self.cell.calls * self.sequences) * self.bytes // 4 + copies + _OTHERS
        return wanted <= min(_OF_THREAD, _REGISTERS // self.threads // 8 * 8)

    @property
    def cost(self) -> float:
        """About how long the products of a step take; those that wait for the cache want many threads."""
        if not self.resident:
            return 1.0 / self.threads
        each = self.pieces * self.vector + _SHUFFLE * (self.width.bit_length() - 1)
        return self.cell.calls * self.sequences * each * max(self.threads / (4 * LANES), 1.0)

    def launch(self, code: str, clusters: int, problem: Array) -> Launch:
        """Return the launch of so many clusters."""
        flags = "true" if self.cut else "false", "true" if self.resident else "false"
        counts = self.units, self.blocks, self.width, self.sequences, self.depth
        template = "walk_cluster" if self.blocks > 1 else "walk_block"
        numbers = ", ".join(map(str, counts))
        kernel = f"recsolve::{template}<recsolve::WalkCell, {self.number}, {flags[0]}, {numbers}, {flags[1]}>"
        return Launch(code, kernel, OPTIONS, clusters * self.blocks, self.threads, self.shared, problem)


@lru_cache(maxsize=1024)
def plan(
    cell: WalkCell, number: str, cut: bool, units: int, batch: int, lanes: int, processors: int, most: int, room: int
) -> Plan | None:
    """Return how ``batch`` sequences of each of ``lanes`` lanes are walked, or None where there is no way.

    Parameters
    ----------
    cell : WalkCell
    number : {"float", "double"}
    cut : bool
    units, batch, lanes : int
    processors : int
        Multiprocessors.
    most : int
        Blocks of a cluster at most.
    room : int
        Bytes of shared memory that a block may have.
    """
    clusters = [blocks for blocks in (1, 2, 4, 8) if blocks <= min(most, units)]
    ways = [(blocks, True) for blocks in clusters] + [(clusters[-1], False)] * (units <= _UNITS)
    for blocks, resident in ways:
        sequences = 1  # in a block: so many that all blocks run at once, if that can be
        while ceil(batch / sequences) * lanes * blocks > processors and sequences < _SEQUENCES:
            sequences *= 2
        while sequences:
            tried = [Plan(cell, number, cut, units, blocks, width, sequences, resident) for width in _WIDTHS]
            if found := [p for p in (one.within(room) for one in tried) if p is not None]:
                return min(found, key=lambda p: p.cost)
            sequences //= 2
    return None


def packed(matrices: Sequence[Array], p: Plan) -> Array:
    """Return matrices (n, n) or (*lanes, n, n) as blocks read them: (*lanes, numbers)."""
    xp, n = namespace(matrices[0]), p.units
    lanes = max((w.shape[:-2] for w in matrices), key=len)
    table = xp.zeros((*lanes, len(matrices), p.blocks * p.own, p.padded), matrices[0].dtype)
    for call, w in enumerate(matrices):
        table[..., call, :n, :n] = w
    axes = len(lanes)
    apart = table.reshape(*lanes, len(matrices), p.blocks, p.own, p.pieces, p.width, p.vector)
    order = (*range(axes), *(axes + axis for axis in (1, 0, 3, 2, 4, 5)))  # block, call, piece, unit, thread
    shape = (*lanes, p.blocks, len(matrices), p.pieces, p.own * p.width, p.vector)
    moved = apart.transpose(order).reshape(shape)
    padding = [(0, 0)] * (len(shape) - 2) + [(0, p.threads - p.own * p.width), (0, 0)]
    return xp.pad(moved, padding).reshape(*lanes, -1)  # type: ignore[no-any-return]


def text(cell: WalkCell) -> str:
    """Return the source of the kernels of a cell."""
    return stages_text([cell.source], "block/mixing_walk")


@dataclass(frozen=True)
class Given:
    """The arrays of a walk, with the axes (T, *batch, [k], *lanes, n).

    Attributes
    ----------
    drives : sequence of array
        (T, *batch, *lanes, n), or broadcasting to that.
    constants : sequence of array
        (1, *batch, *lanes, n), or broadcasting to that.
    states : array
        The result.
    matrices : sequence of array
        One (n, n) or (*lanes, n, n) for every call.
    batch : int
        The number of batch axes.
    others : mapping of array
        ``initial`` and ``restart``, states of one step (1, ...), and ``cut``, as a drive.
    """

    drives: Sequence[Array]
    constants: Sequence[Array]
    states: Array
    matrices: Sequence[Array]
    batch: int
    others: Mapping[str, Array]


def planned(cell: WalkCell, states: Array, batch: int, cut: bool, machine: Machine) -> Plan | None:
    """Return how states of this shape and dtype are walked, or None where no kernel does that."""
    shape = _part(cell, states, batch)[1]
    if states.dtype.name not in NUMBERS or len(states) >= 1 << 31 or len(shape) - 2 > AXES:
        return None
    sizes = shape[-1], prod(shape[1 : 1 + batch]), prod(shape[1 + batch : -1])
    return plan(cell, NUMBERS[states.dtype.name], cut, *sizes, machine.processors, machine.cluster, machine.shared)


def _part(cell: WalkCell, states: Array, batch: int) -> tuple[int | None, tuple[int, ...]]:
    """Return the axis of the components of states, if there is one, and the shape of a component."""
    axis = None if cell.components == 1 else 1 + batch
    return axis, tuple(size for i, size in enumerate(states.shape) if i != axis)


def walk(cell: WalkCell, code: str, given: Given, machine: Machine) -> bool:
    """Fill the states by one launch; return whether there is a kernel for it."""
    states, batch = given.states, given.batch
    p = planned(cell, states, batch, "cut" in given.others, machine)
    if p is None:
        return False
    axis, shape = _part(cell, states, batch)
    sequences, lanes = prod(shape[1 : 1 + batch]), prod(shape[1 + batch : -1])
    filled = np.zeros(1, structure("block/mixing_walk", "Walked", DRIVES=cell.drives, CONSTANTS=cell.constants))
    f = filled[0]
    f["steps"], f["batch"], f["groups"] = len(states), sequences, ceil(sequences / p.sequences)
    weights = packed(given.matrices, p)
    apart = weights.reshape(*(1,) * batch, *(weights.shape[:-1] or (1,) * (len(shape) - batch - 2)), -1)
    views = [_View(f["states"], states, axis), _View(f["weights"], broadcast(apart, (*shape[1:-1], apart.shape[-1]))[None])]
    views += [_View(f["drives"][i], aligned(broadcast(x, shape))) for i, x in enumerate(given.drives)]
    row = (1, *shape[1:])
    views += [_View(f["constants"][i], aligned(broadcast(x, row))) for i, x in enumerate(given.constants)]
    views += [
        _View(f[name], aligned(broadcast(x, shape)) if name == "cut" else aligned(x), None if name == "cut" else axis)
        for name, x in given.others.items()
    ]
    _fill(f, shape[1:-1], batch, views)
    machine.launch(p.launch(code, int(f["groups"]) * lanes, filled))
    return True


class _View(NamedTuple):
    """A view to be filled in, its array, and the axis of components if it has one."""

    view: Any
    array: Array
    component: int | None = None


def _fill(f: Any, sizes: tuple[int, ...], batch: int, views: Sequence[_View]) -> None:
    """Fill in views, and the sizes of axes."""
    components = [() if v.component is None else (v.component,) for v in views]
    found = [strides_of(v.array, (v.array.ndim - 1, *own)) for v, own in zip(views, components, strict=True)]
    parts = [merge(sizes[part], [s.lanes[part] for s in found]) for part in (slice(batch), slice(batch, None))]
    merged = [size for sizes, _ in parts for size in sizes]
    f["sizes"] = 1
    f["sizes"][: len(merged)] = merged
    for i, (v, s) in enumerate(zip(views, found, strict=True)):
        lanes = [stride for _, runs in parts for stride in runs[i]]
        v.view["at"], v.view["time"], v.view["row"], v.view["column"] = address(v.array), s.time, s.row, s.column
        v.view["lane"][: len(lanes)] = lanes
