"""How far a sweep is: a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from recsolve.studies.sweep import Sweep, Tick

_EVERY = 60.0  # seconds between two lines


@contextmanager
def progress_of(name: str) -> Iterator[Tick]:
    """Yield a function of a sweep that shows what is done, the rate and the remaining time."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(name)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(), TextColumn("left{task.fields[failed]}"),
    ]  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task, began = progress.add_task(name, total=None, rate="", failed=""), time.monotonic()

        def tick(state: Sweep) -> None:
            done = len(state.records) - state.reused
            rate = f"{done / (time.monotonic() - began):.3g} runs/s" if done else ""
            failed = f", {state.failed} failed" if state.failed else ""
            total = len(state.points) - state.reused
            progress.update(task, total=total, completed=done, rate=rate, failed=failed)

        yield tick


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
