"""What the C library does with memory that is freed."""

from __future__ import annotations

from functools import cache

import numpy as np

_BLOCK = (32 << 20) - (64 << 10)  # bytes; glibc learns from blocks below 32 MB


@cache
def keep_freed() -> None:
    """Let glibc keep freed memory for the next iteration; elsewhere nothing happens.

    It gives back what is free at the top of its heap beyond twice the largest block that it has mapped and seen freed.
    To get pages of a few MB again in every iteration takes as long as the sums in them (half of newton's time on states
    of 1 MB). A block that is not touched costs nothing.
    """
    np.empty(_BLOCK, np.uint8)
