"""How far something is: a bar on a terminal; for sweeps a line a minute elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recsolve.base.progress import Bar, bar_of

if TYPE_CHECKING:
    from recsolve.studies.sweep import Sweep, Tick

_EVERY = 60.0  # seconds between two lines


@contextmanager
def progress_of(name: str) -> Iterator[Tick]:
    """Yield a function of a sweep that shows what is done, the rate and the remaining time."""
    with bar_of(name) as bar:
        yield _Lines(name) if bar is None else _in_a_bar(bar)


def _in_a_bar(bar: Bar) -> Tick:
    began = time.monotonic()

    def tick(state: Sweep) -> None:
        done = len(state.records) - state.reused
        rate = f"{done / (time.monotonic() - began):.3g} runs/s" if done else ""
        bar(done, len(state.points) - state.reused, rate, f", {state.failed} failed" if state.failed else "")

    return tick


class _Lines:
    """A line on standard error now and then, for logs of long sweeps."""

    def __init__(self, name: str):
        self.name = name
        self.began = self.last = time.monotonic()

    def __call__(self, state: Sweep) -> None:
        now, done = time.monotonic(), len(state.records) - state.reused
        if now - self.last < _EVERY or not done:
            return
        self.last, rate = now, done / (now - self.began)
        left = (len(state.points) - len(state.records)) / rate / 60
        print(
            f"{self.name}: {len(state.records)} of {len(state.points)} runs, {state.failed} failed; {rate:.3g} runs/s, "
            f"{left:.1f} min left",
            file=sys.stderr,
        )
