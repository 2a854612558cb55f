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
_BUSY = 96  # of a block at least, if it can be, for a multiprocessor to be busy
_MANY = 128  # of a block of a cluster: with more, two blocks are faster
_WIDTHS = tuple(1 << i for i in range(LANES.bit_length()))
_REGISTERS, _OF_THREAD = 1 << 16, 255  # of a multiprocessor, and of a thread at most
_OTHERS = 36  # registers that a thread needs beside weights, sums, states and vectors, roughly
_OF_VECTOR = 8
_SUMS = 16  # that a thread adds up at a time, at most
_SEQUENCES = 8  # of a block at most
_DEPTHS = (3, 8)  # steps of which drives are in shared memory, at least and at most
_UNITS = 4096  # at most: from here on a step is long enough for calls from Python


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
        if self.width > max(self.units // self.vector, 1):
            return None  # threads would have nothing to multiply
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
        words = (weights + states + self.cell.calls * self.sequences) * self.bytes // 4
        wanted = words + copies + _OF_VECTOR * self.cell.slots + _OTHERS
        return wanted <= min(_OF_THREAD, _REGISTERS // self.threads // 8 * 8)

    @property
    def rank(self) -> tuple[bool, int]:
        """What is least for the fastest width: few threads meet sooner, but those that wait for the cache are many."""
        return self.threads < _BUSY, self.width if self.resident else -self.width

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

    def groups(sequences: int) -> int:
        return max(ceil(batch / sequences), 1)

    clusters = [blocks for blocks in (1, 2, 4, 8) if blocks <= min(most, units)]
    ways = [(blocks, True) for blocks in clusters] + [(clusters[-1], False)] * (units <= _UNITS)
    for blocks, resident in ways:
        sequences = 1  # in a block: so many that all blocks run at once, if that can be
        while groups(sequences) * lanes * blocks > processors and sequences < _SEQUENCES:
            sequences *= 2
        while sequences:
            tried = [Plan(cell, number, cut, units, blocks, width, sequences, resident) for width in _WIDTHS]
            if found := [p for one in tried if (p := one.within(room)) is not None]:
                free = processors // (groups(sequences) * lanes)
                return _spread(min(found, key=lambda p: p.rank), min(clusters[-1], free))
            sequences //= 2
    return None


def _spread(p: Plan, most: int) -> Plan:
    """Return a plan whose blocks are many enough for few threads each, where blocks share the work anyway."""
    while p.resident and p.blocks > 1 and p.threads > _MANY and 2 * p.blocks <= most:
        p = replace(p, blocks=2 * p.blocks)
    return p


def contiguous(matrix: Array, p: Plan) -> Array:
    """Return a matrix (*lanes, n, n) that is read in every step with contiguous rows and zeros after them."""
    lies = matrix.strides[-1] == p.bytes and not any(s % _PIECE for s in (*matrix.strides[:-1], address(matrix)))
    if lies and p.padded == p.units:
        return matrix
    wide = namespace(matrix).zeros((*matrix.shape[:-1], p.padded), matrix.dtype)
    wide[..., : p.units] = matrix
    return wide  # type: ignore[no-any-return]


@lru_cache(maxsize=256)
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
    starts : mapping of array
        ``initial`` and ``restart``, states of one step (1, ...).
    cut : array or None
        1 where steps are cut from their past, else 0, as a drive.
    """

    drives: Sequence[Array]
    constants: Sequence[Array]
    states: Array
    matrices: Sequence[Array]
    batch: int
    starts: Mapping[str, Array]
    cut: Array | None


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
    p = planned(cell, states, batch, given.cut is not None, machine)
    if p is None:
        return False
    axis, shape = _part(cell, states, batch)
    sequences, lanes = prod(shape[1 : 1 + batch]), prod(shape[1 + batch : -1])
    counts = {"DRIVES": cell.drives, "CONSTANTS": cell.constants, "CALLS": cell.calls}
    filled = np.zeros(1, structure("block/mixing_walk", "Walked", **counts))
    f = filled[0]
    f["steps"], f["batch"], f["groups"] = len(states), sequences, ceil(sequences / p.sequences)
    views = [_View("states", 0, states, axis), *(_View(name, 0, x, axis) for name, x in given.starts.items())]
    views += [_View("drives", i, broadcast(x, shape)) for i, x in enumerate(given.drives)]
    views += [_View("constants", i, broadcast(x, (1, *shape[1:]))) for i, x in enumerate(given.constants)]
    if given.cut is not None:
        views.append(_View("cut", 0, broadcast(given.cut, shape)))
    for i, w in enumerate(given.matrices):
        matrix = w if p.resident else contiguous(w, p)
        wide = broadcast(matrix, (1, *shape[1:-1], *matrix.shape[-2:]))
        views.append(_View("matrices", i, wide, wide.ndim - 1))
    kept = _fill(f, shape[1:-1], batch, views)
    machine.launch(p.launch(code, int(f["groups"]) * lanes, filled))
    return bool(kept)


class _View(NamedTuple):
    """An array, which view of which field it is, and its axis of columns if it has one; rows are the last other."""

    field: str
    number: int
    array: Array
    columns: int | None = None


def _fill(f: Any, sizes: tuple[int, ...], batch: int, views: Sequence[_View]) -> list[_View]:
    """Fill in views, and the sizes of axes: those of the batch, and then of lanes; return what must be kept."""
    kept = [v._replace(array=aligned(v.array)) for v in views]
    found = [strides_of(v.array, _rows_and_columns(v)) for v in kept]
    parts = [merge(sizes[part], [s.lanes[part] for s in found]) for part in (slice(batch), slice(batch, None))]
    merged = [size for sizes, _ in parts for size in sizes]
    f["sizes"] = 1
    f["sizes"][: len(merged)] = merged
    for i, (v, s) in enumerate(zip(kept, found, strict=True)):
        lanes = [stride for _, runs in parts for stride in runs[i]]
        entries = (address(v.array), s.time, s.row, s.column, lanes + [0] * (AXES - len(lanes)))
        if f[v.field].shape:
            f[v.field][v.number] = entries
        else:
            f[v.field] = entries
    return kept


def _rows_and_columns(v: _View) -> tuple[int, ...]:
    last = v.array.ndim - 1
    if v.columns is None:
        return (last,)
    return (last - (v.columns == last), v.columns)
