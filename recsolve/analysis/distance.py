"""How far two trajectories are apart."""

from __future__ import annotations

import numpy as np

from recsolve.base.arrays import Array, is_discrete, namespace


def distance(states: Array, truth: Array) -> float:
    """Return max |h - truth|, in which equal infinities are no distance; of discrete states the share that differs."""
    same = states == truth
    if not truth.size or bool(same.all()):
        return 0.0
    if is_discrete(truth.dtype):
        return float((~same).mean())
    with np.errstate(all="ignore"):
        return float(namespace(truth).where(same, 0, abs(states - truth)).max())
