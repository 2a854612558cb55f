"""Arrays as rows of contiguous lanes, for the loops of :mod:`recsolve.kernels.cpu.templates.loops_cell`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from math import ceil
from typing import NamedTuple

import numpy as np

from recsolve.base.arrays import Array, broadcast, freeze
from recsolve.kernels.cpu.jit import ready
from recsolve.kernels.cpu.placement.strides import Flat, Lanes, flat, lanes_of
from recsolve.kernels.cpu.threads import spread, threads

# Columns of ``where`` and places of ``at``; those of inputs begin at FIRST, and those of their gradients follow.
Y, LANE, X, JACOBIAN, COTANGENT, FIRST = range(6)

_WIDTH = 1024  # lanes of a tile at most: the rows of a step stay in the nearest cache
_LEAST = 64  # lanes of a row that is worth more than copying it
_VECTOR = 16
_LARGE = 1 << 16  # numbers from which on a loop that copies them is worth compiling
SPREAD = 20_000  # numbers from which on threads pay for waking them


class States(NamedTuple):
    """An array (steps, *axes) that has further axes for components: one in states, two in Jacobians.

    Attributes
    ----------
    array : array
    components : tuple of int
        These axes.
    written : bool
        Whether it is a result.
    """

    array: Array
    components: tuple[int, ...] = ()
    written: bool = False

    def packed(self) -> States:
        """Return a contiguous copy with the components right after time, empty where it is a result."""
        count = len(self.components)
        moved = np.moveaxis(self.array, self.components, range(1, 1 + count))
        copy = np.empty(moved.shape, moved.dtype)
        if not self.written:
            _copy(moved, copy)
        return States(copy, tuple(range(1, 1 + count)), self.written)

    def fill(self, packed: States) -> None:
        """Take the values of a packed copy."""
        _copy(packed.array, np.moveaxis(self.array, self.components, packed.components))

    def flat(self) -> tuple[Flat, tuple[int, ...]]:
        """Return it flat, without the axes of its components, and their strides."""
        base, origin, strides = flat(self.array, self.written)
        if not self.components:
            return Flat(base, origin, strides), ()
        rest = tuple(s for axis, s in enumerate(strides) if axis not in self.components)
        return Flat(base, origin, rest), tuple(strides[axis] for axis in self.components)


def _copy(x: Array, y: Array) -> None:
    """Copy an array (steps, ...) to another one of its shape, which has its axes in another order in memory."""
    if x.size < _LARGE and not ready.here(("copy", x.dtype)):
        y[...] = x
        return
    from recsolve.kernels.cpu.jit import transpose

    source, result = flat(x), flat(y, writeable=True)
    lanes = lanes_of(x.shape[1:], (source.strides[1:], result.strides[1:]), (source.origin, result.origin))
    if not x.size:
        return
    steps = source.strides[0], result.strides[0], len(x)
    loop = partial(transpose.copy, source.base, result.base, lanes.each(), *steps)
    tiles = ceil(lanes.number / transpose.LANES) * ceil(len(x) / transpose.STEPS)
    spread(loop, tiles, threads() if x.size >= SPREAD else 1)
    ready.note(("copy", x.dtype))


class _Placed(NamedTuple):
    """Where the rows of arrays lie whose strides are known, whatever is in them; the arrays in it are shared."""

    lanes: Lanes
    columns: tuple[int, ...]  # those of states, in the order of their arrays
    where: Array
    by_time: Array
    contiguous: bool


@lru_cache(maxsize=1024)
def _placed(
    shape: tuple[int, ...],
    columns: tuple[int, ...],
    moving: tuple[bool, ...],
    arrays: tuple[tuple[int, tuple[int, ...]], ...],
) -> _Placed:
    """Return it for arrays by origin and strides: inputs that move in time, gradients, states by column."""
    origins, strides = zip(*arrays, strict=True)
    lanes = lanes_of(shape[1:], tuple([s[1:] for s in strides]), origins)
    lane = np.arange(len(lanes.offsets)) * lanes.inner
    places = iter([(offsets, s[0]) for offsets, s in zip(lanes.offsets.T, strides, strict=True)])
    found = {LANE: (lane, 0)}
    found |= {FIRST + i: next(places) if moves else (lane, 0) for i, moves in enumerate(moving)}
    gradients = len(arrays) - sum(moving) - len(columns)
    found |= {FIRST + len(moving) + i: next(places) for i in range(gradients)}
    found |= {column: next(places) for column in columns}
    width = max(found) + 1
    where, by_time = np.zeros((len(lane), width), np.int64), np.zeros(width, np.int64)
    for column, (offsets, step) in found.items():
        where[:, column], by_time[column] = offsets, step
    return _Placed(lanes, columns, where, by_time, all(s == 1 for s in lanes.strides))


class Rows:
    """Where the rows of some arrays lie.

    Parameters
    ----------
    shape : tuple of int
        (steps, *axes): the axes are independent of each other.
    states : mapping
        Column of ``where`` to array; Y is the result, whose memory order is that of the lanes.
    inputs : sequence of array
        Read-only, each broadcasting to ``shape``. What does not change from step to step becomes one row.
    gradients : sequence of array
        Results of ``shape``.
    least : int
        A group of fewer lanes is not worth a loop: arrays are copied so that groups merge.

    Attributes
    ----------
    bases : dict
        Column to flat array.
    distances : dict
        Column to the strides of its components.
    inputs, gradients : tuple of array
        Flat.
    where : array of int, shape (groups, columns)
    by_time : array of int, shape (columns,)
    groups, inner, number : int
        Groups of lanes, lanes of a group and all of them.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        states: Mapping[int, States],
        inputs: Sequence[Array] = (),
        gradients: Sequence[Array] = (),
        least: int = _LEAST,
    ):
        self.shape, self._outside = shape, dict(states)
        self._gradients = [States(g, (), True) for g in gradients]
        full = [broadcast(x, shape) for x in inputs]
        self._moving = tuple([x.strides[0] != 0 and shape[0] > 1 for x in full])
        moving = [States(x) for x, moves in zip(full, self._moving, strict=True) if moves]
        self._lay_out(dict(states), moving, self._gradients)
        if not (self._placed.contiguous and self.inner >= min(least, self.number)):
            packed = {column: x.packed() for column, x in states.items()}
            self._lay_out(packed, [x.packed() for x in moving], [x.packed() for x in self._gradients])
        rest = iter(self._bases)
        constants = iter([x for x, moves in zip(full, self._moving, strict=True) if not moves])
        self.inputs = tuple(
            [next(rest) if moves else freeze(self.lanes.flatten(next(constants)[0], len(shape) - 1))
             for moves in self._moving]
        )  # fmt: skip
        self.gradients = tuple([next(rest) for _ in gradients])
        self.bases = dict(zip(self._placed.columns, rest, strict=True))

    def _lay_out(self, states: Mapping[int, States], moving: Sequence[States], gradients: Sequence[States]) -> None:
        """Find the lanes that the arrays share."""
        self._inside = dict(states), gradients
        # The result comes last: its memory order is that of the lanes.
        columns = (*[column for column in states if column != Y], Y)
        flats = [x.flat() for x in (*moving, *gradients, *[states[column] for column in columns])]
        self._bases = [f.base for f, _ in flats]
        found = _placed(self.shape, columns, self._moving, tuple([(f.origin, f.strides) for f, _ in flats]))
        self._placed, self.lanes, self.where, self.by_time = found, found.lanes, found.where, found.by_time
        self.groups, self.inner, self.number = len(found.lanes.offsets), found.lanes.inner, found.lanes.number
        self.distances = dict(zip(columns, [distances for _, distances in flats[-len(columns) :]], strict=True))

    def finish(self) -> None:
        """Put the results where they belong, if they have been computed elsewhere."""
        states, gradients = self._inside
        pairs = [(x, states[column]) for column, x in self._outside.items()]
        for outside, inside in [*pairs, *zip(self._gradients, gradients, strict=True)]:
            if outside.written and outside is not inside and outside.array is not inside.array:
                outside.fill(inside)

    def last(self) -> Array:
        """Return the last step of the result, (*axes) with those of components where they were given."""
        inside, outside = self._inside[0][Y], self._outside[Y]
        components = tuple(axis - 1 for axis in inside.components)
        return np.moveaxis(inside.array[-1], components, [axis - 1 for axis in outside.components])

    def component_rows(self, x: Array, axes: tuple[int, ...] = ()) -> Array:
        """Return one step of states (*axes with those of components) as flat (k * number,), read-only.

        Loops are compiled for what may be written and once more for what may not, so it never may.
        """
        moved = np.moveaxis(x, axes, range(len(axes))).reshape(-1, *self.shape[1:])
        return freeze(self.lanes.flatten(moved, len(self.shape) - 1).ravel())

    def unflatten(self, rows: Array) -> Array:
        """Return (..., number) as (..., *axes)."""
        order, axes = self.lanes.order, self.shape[1:]
        leading = rows.ndim - 1
        spread = rows.reshape(*rows.shape[:-1], *(axes[axis] for axis in order))
        back = np.argsort(order) + leading
        return spread.transpose(*range(leading), *back)

    def tile(self, workers: int) -> tuple[int, int]:
        """Return how many lanes and how many groups a task takes.

        It takes several groups where the next one is nearer in memory than the next time: memory is read in order then.
        """
        tiles = max(ceil(self.inner / _WIDTH), ceil(workers / self.groups))
        share = ceil(self.inner / tiles / _VECTOR) * _VECTOR
        width = min(max(share, _LEAST), max(self.inner, 1))
        if self.groups == 1 or abs(self.where[1, Y] - self.where[0, Y]) >= abs(self.by_time[Y]):
            return width, 1
        return width, max(min(ceil(self.groups / workers), _WIDTH // width), 1)
