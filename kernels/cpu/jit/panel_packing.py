"""Matrices packed for :mod:`recsolve.kernels.cpu.jit.panel_product`.

A *panel* is as many outputs as have their sums in registers at once, with all inputs one after the other; panels follow
each other, so a product reads the matrix in the order of memory.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from recsolve.base.arrays import Array

_LINE = 64  # bytes of a cache line: vectors that straddle two take two loads


@cache
def vector_shape(dtype: Any) -> tuple[int, int]:
    """Return how many numbers a vector of this processor has, and how many vectors a panel: sums fill registers."""
    from recsolve.kernels.cpu.jit.decorators import binding

    features = binding.get_host_cpu_features()
    wide = features.get("avx512f", False)
    size = 64 if wide else 32 if features.get("avx", False) else 16
    many = wide or binding.get_default_triple().startswith(("aarch64", "arm64"))
    return size // np.dtype(dtype).itemsize, 4 if many else 2


def aligned(size: int, dtype: Any) -> Array:
    """Return a flat array of zeros that begins with a cache line."""
    item = np.dtype(dtype).itemsize
    memory = np.zeros(size + _LINE // item, dtype)
    start = -memory.ctypes.data % _LINE // item
    return memory[start : start + size]


def packed(weights: Array, vector: int, width: int) -> Array:
    """Return matrices (calls, heads, n, n) that share their input as flat panels, (heads, panels, n, width).

    The outputs of each call are padded to whole vectors.
    """
    calls, heads, n, _ = weights.shape
    each = -(-n // vector) * vector
    panels = -(-calls * each // width)
    flat = aligned(heads * panels * n * width, weights.dtype)
    outputs = np.zeros((heads, n, panels * width), weights.dtype)
    for call in range(calls):
        outputs[:, :, call * each : call * each + n] = weights[call].swapaxes(-1, -2)
    flat.reshape(heads, panels, n, width)[...] = outputs.reshape(heads, n, panels, width).swapaxes(1, 2)
    return flat
