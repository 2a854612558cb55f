"""The one way to time: after a run that warms up, in turns, and without what compilers take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.compile_clock import Stopwatch


def in_turns(
    runs: Sequence[Callable[[], Any]], repeats: int, enough: float = inf, settle: Callable[[], Any] | None = None
) -> Array:
    """Return wall times, shape (runs, repeats), taken in turns so that other load meets all runs.

    Each run is called once before, which traces, compiles, loads and fills caches, and does not count. What is compiled
    later is left out of the times too.

    Parameters
    ----------
    runs : sequence of callable
    repeats : int
    enough : float
        Seconds after which, taken by all runs together, there are no more repeats. If the first calls take them, and
        nothing was compiled, these are the times.
    settle : callable, optional
        Waits for a device, before and after each run.
    """
    watch, rounds = Stopwatch(), [[_seconds(run, settle) for run in runs]]
    if watch.compile_seconds or sum(rounds[0]) < enough:
        rounds = []
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
