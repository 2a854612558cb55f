"""Compiled loops over the rows of an iterate: its residual and test, and the guard of the next one.

Trajectories are flat, row after row of ``n`` numbers. The largest of numbers without sign is that of their bits read as
integers, NaN being larger than all: unlike a maximum of floats that keeps NaN, this vectorises.
"""

from __future__ import annotations

import numpy as np
from numpy import uint64

from recsolve.base.arrays import Array
from recsolve.kernels.cpu.jit.decorators import compiled, inlined

NORMAL, FRONT, LEADING = range(3)  # the pin's verdict on a row


@inlined
def _largest(bits: Array, mask: int, p: int, n: int) -> int:
    """Return the bits of the largest |x| of n numbers."""
    top = 0
    for i in range(n):
        top = max(top, bits[uint64(p + i)] & mask)
    return top


@compiled
def residual(states: Array, values: Array, out: Array, bits: tuple[Array, Array, Array], mask: int, atol: float,
             rtol: float, n: int, lane: int, converged: Array, exact: Array, worst: Array, worst_bits: Array,
             first: int, last: int) -> None:  # fmt: skip
    """Fill ``out`` with F - h, and say of the rows [first, last) whether they pass and are exact, and what max |r| is.

    ``lane`` numbers are tested together. With ``worst`` set the absolute tolerance is multiplied with the largest of
    them, or with it, whatever is larger; NaN fails them all.
    """
    for row in range(first, last):
        failed, moved, unit = 0, 0, worst[row]
        for p in range(row * n, row * n + n, lane):
            absolute = atol
            if unit != 0:
                worst_bits[row] = max(_largest(bits[0], mask, p, lane), _largest(bits[1], mask, p, lane))
                absolute = atol * (worst[row] if not worst[row] < unit else unit)
            for i in range(lane):
                h, f = states[uint64(p + i)], values[uint64(p + i)]
                r, a, b = f - h, abs(h), abs(f)
                out[uint64(p + i)] = r
                met = abs(r) <= absolute + rtol * (a if a > b else b) and abs(r) < np.inf
                failed += not met
                moved += r != 0
        converged[row], exact[row] = failed == 0, moved == 0
        worst_bits[row] = _largest(bits[2], mask, row * n, n)


@compiled
def largest_finite(bits: Array, mask: int, infinity: int, n: int, largest: Array, first: int, last: int) -> None:
    """Fill ``largest`` with the bits of the largest finite |x| of every row; 0 where there is none."""
    for row in range(first, last):
        top = 0
        for i in range(n):
            size = bits[uint64(row * n + i)] & mask
            top = max(top, size if size < infinity else 0)
        largest[row] = top


@compiled
def guard(proposal: Array, states: Array, values: Array, out: Array, reach: Array, pin: Array, n: int,
          first: int, last: int) -> None:  # fmt: skip
    """Fill ``out`` with the proposal where it is at most ``reach``, else with F; exact rows as they are."""
    for row in range(first, last):
        p = row * n
        if pin[row] == NORMAL:
            limit = reach[row]
            for i in range(n):
                x = proposal[uint64(p + i)]
                inside = abs(x) <= limit and abs(x) < np.inf
                out[uint64(p + i)] = x if inside else values[uint64(p + i)]
        else:
            kept = values if pin[row] == FRONT else states
            for i in range(n):
                out[uint64(p + i)] = kept[uint64(p + i)]
