"""The sequential loop over few lanes, blocks of time side by side.

A step of few lanes takes as long as its chain of operations, however fast each of them is. So blocks of time are walked
as if they were lanes, from guesses of the states before them, and again from where the blocks before them have ended.
A recurrence that forgets arrives at the same bits: a block whose guess *equals* the end of the block before it holds
what the loop gives. What does not is walked again, one block after the other, until a guess is right. So the result is
that of the loop, bit for bit, whatever the recurrence.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.starts import Starts

if TYPE_CHECKING:
    from recsolve.kernels.cpu.cell.fused_loops import Fused

_FEW = 6  # lanes up to which that is faster
_ROW = 1024  # lanes that the blocks make together
_SHORTEST = 512  # steps of a block at least
_BURN_IN = 256  # steps that the first guesses follow f
_PASSES = 3


def pays(shape: tuple[int, ...]) -> bool:
    """Return whether blocks side by side are faster, for one component (T, *axes) of states."""
    lanes = prod(shape[1:])
    return 0 < lanes <= _FEW and shape[0] * lanes >= 16 * _SHORTEST * lanes


def _blocks(shape: tuple[int, ...]) -> int:
    """Return the number of blocks."""
    return min(_ROW // prod(shape[1:]), shape[0] // _SHORTEST)


def walk(loops: Fused, inputs: Sequence[Array], states: Array, batch: int, starts: Starts) -> None:
    """Fill ``states`` one step after the other."""
    shape = loops.component(states, batch).shape
    blocks = _blocks(shape)
    length = len(states) // blocks
    covered = blocks * length

    def side_by_side(x: Array) -> Array:
        """View (T, ...) as (steps of a block, blocks, ...)."""
        return x[:covered].reshape(blocks, length, *x.shape[1:]).swapaxes(0, 1)

    full = [np.broadcast_to(x, shape) for x in inputs]
    moved = [side_by_side(x) if x.strides[0] else np.broadcast_to(x[0], (length, blocks, *shape[1:])) for x in full]
    reset = None if starts.reset is None else side_by_side(starts.reset)
    before, restarts = (np.broadcast_to(x, (blocks, *x.shape)) for x in (starts.initial, starts.restart))
    before = before.copy()
    walk = loops.laid_out(moved, side_by_side(states), batch + 1, Starts(before, restarts, reset))
    # 1. guesses from a few steps before each block, then all blocks
    walk.run(before, max(length - _BURN_IN, 0))
    for _ in range(_PASSES):
        before[1:] = walk.last()[:-1]
        walk.run(before)
        if _same(before[1:], walk.last()[:-1]):
            break
    walk.finish()
    # 2. what the guesses have missed, in order
    for block in range(1, blocks):
        begin = block * length
        if not _same(before[block], states[begin - 1]):
            loops.walk_in_order(inputs, states[: begin + length], batch, starts, begin)
    if covered < len(states):
        loops.walk_in_order(inputs, states, batch, starts, covered)


def _same(x: Array, y: Array) -> bool:
    """Return whether all bits are the same, those of NaN included."""
    return x.tobytes() == y.tobytes()
