"""The compiled copy between strided arrays whose fastest axes differ: a transposition, in tiles that fit the cache."""

from __future__ import annotations

from numpy import uint64

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.decorators import compiled

STEPS = 64  # of a tile
LANES = 16  # of a tile: a line of the cache


@compiled
def copy(x: Array, y: Array, where: Array, x_t: int, y_t: int, steps: int, first: int, last: int) -> None:
    """Copy lanes, which begin at x[where[:, 0]] and y[where[:, 1]], for the tasks [first, last): tiles, lanes first."""
    tiles = -(-len(where) // LANES)
    for task in range(first, last):
        lane, begin = task % tiles * LANES, task // tiles * STEPS
        n, m = min(LANES, len(where) - lane), min(STEPS, steps - begin)
        if y_t >= x_t:  # lanes are nearer than times in y: write lines of it as a whole
            for t in range(begin, begin + m):
                for i in range(lane, lane + n):
                    y[uint64(where[i, 1] + t * y_t)] = x[uint64(where[i, 0] + t * x_t)]
        else:
            for i in range(lane, lane + n):
                for t in range(begin, begin + m):
                    y[uint64(where[i, 1] + t * y_t)] = x[uint64(where[i, 0] + t * x_t)]
