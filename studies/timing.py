"""The one way to time: after a run that warms up, in turns, and without what compilers take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import numpy as np

from recsolve.arrays import Array
from recsolve.kernels.compile_clock import Stopwatch


def in_turns(
    runs: Sequence[Callable[[], Any]], repeats: int, enough: float = inf, settle: Callable[[], Any] | None = None
) -> Array:
    """Return wall times, shape (runs, repeats), taken in turns so that other load meets all runs.

    Each run is called once before, which compiles, loads and fills caches, and does not count. Whatever is compiled
    later is left out of the times too.

    Parameters
    ----------
    runs : sequence of callable
    repeats : int
    enough : float
        Fewer repeats do once all runs together have taken so many seconds; where the first call alone has taken them,
        compilation left out, it is the time.
    settle : callable, optional
        Waits for a device, before and after each run.
    """
    first = [_seconds(run, settle) for run in runs]
    if sum(first) >= enough:
        return np.array(first)[:, None]
    rounds: list[list[float]] = []
    while len(rounds) < repeats and sum(map(sum, rounds)) < enough:
        rounds.append([_seconds(run, settle) for run in runs])
    return np.array(rounds).T


def _seconds(run: Callable[[], Any], settle: Callable[[], Any] | None) -> float:
    if settle is not None:
        settle()
    watch = Stopwatch()
    run()
    if settle is not None:
        settle()
    return watch.seconds
