"""Walks through time of cells whose mixings couple units, as launches: which blocks take what, and the arrays they see.

A block takes a few sequences from the first step to the last, with its weights in registers. Where they do not fit, a
cluster of blocks shares the units, and where they do not fit there, they are read from the cache in every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, prod
from typing import NamedTuple

import numpy as np

from recsolve.base.arrays import Array, address, namespace
from recsolve.kernels.codegen.cuda_elementwise import OPTIONS, stages_text
from recsolve.kernels.codegen.cuda_structures import structure
from recsolve.kernels.codegen.cuda_walk import WalkCell
from recsolve.kernels.gpu.device import Launch, Machine
from recsolve.kernels.gpu.views import AXES, LANES, aligned, merge

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
    matrices = given.matrices if p.resident else [contiguous(w, p) for w in given.matrices]
    named = [("states", 0, states), *((name, 0, x) for name, x in given.starts.items())]
    for name, arrays in {"drives": given.drives, "constants": given.constants, "matrices": matrices}.items():
        named += [(name, i, x) for i, x in enumerate(arrays)]
    named += [] if given.cut is None else [("cut", 0, given.cut)]
    kept = [aligned(x) for *_, x in named]
    columns = {"states": axis, "initial": axis, "restart": axis, "matrices": len(shape)}
    views = tuple(
        _View(name, i, _distances(x, len(shape) + (columns.get(name) is not None)), columns.get(name))
        for (name, i, _), x in zip(named, kept, strict=True)
    )
    laid_out, places = _laid_out(p, shape, batch, views)
    problem = laid_out.copy()
    problem.view(np.int64)[places] = [address(x) for x in kept]
    machine.launch(p.launch(code, int(problem[0]["groups"]) * prod(shape[1 + batch : -1]), problem))
    return True


class _View(NamedTuple):
    """Which view of which field an array has, its distances, and its axis of columns; rows are the last other axis."""

    field: str
    number: int
    distances: tuple[int, ...]
    columns: int | None = None


def _distances(x: Array, axes: int) -> tuple[int, ...]:
    """Return the distances in an array that broadcasts to so many axes, in numbers."""
    own = (s // x.itemsize if n > 1 else 0 for n, s in zip(x.shape, x.strides, strict=True))
    return (0,) * (axes - x.ndim) + tuple(own)


@lru_cache(maxsize=1024)
def _laid_out(p: Plan, shape: tuple[int, ...], batch: int, views: tuple[_View, ...]) -> tuple[Array, list[int]]:
    """Return the structure of a walk without addresses, and where in it these go, in integers.

    Axes are those of the batch, and then those of lanes.
    """
    cell, sequences = p.cell, prod(shape[1 : 1 + batch])
    described = structure("block/mixing_walk", "Walked", DRIVES=cell.drives, CONSTANTS=cell.constants, CALLS=cell.calls)
    filled, places = np.zeros(1, described), []
    f, fields = filled[0], dict(described.fields or {})
    f["steps"], f["batch"], f["groups"], f["sizes"] = shape[0], sequences, ceil(sequences / p.sequences), 1
    last = [len(v.distances) - 1 - (v.columns == len(v.distances) - 1) for v in views]
    lanes = [
        tuple(d for axis, d in enumerate(v.distances) if axis not in (0, row, v.columns))
        for v, row in zip(views, last, strict=True)
    ]
    parts = [merge(shape[1:-1][part], [d[part] for d in lanes]) for part in (slice(batch), slice(batch, None))]
    sizes = [size for merged, _ in parts for size in merged]
    f["sizes"][: len(sizes)] = sizes
    for i, (v, row) in enumerate(zip(views, last, strict=True)):
        runs = [stride for _, strides in parts for stride in strides[i]]
        column = 0 if v.columns is None else v.distances[v.columns]
        entries = (0, v.distances[0], v.distances[row], column, runs + [0] * (AXES - len(runs)))
        kind, offset = fields[v.field][:2]
        places.append((offset + v.number * kind.base.itemsize) // 8)
        if kind.shape:
            f[v.field][v.number] = entries
        else:
            f[v.field] = entries
    return filled, places
