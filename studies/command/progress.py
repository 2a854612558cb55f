"""How far something is: a bar on a terminal; for sweeps a line a minute elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console

if TYPE_CHECKING:
    from recsolve.studies.sweep import Sweep, Tick

_EVERY = 60.0  # seconds between two lines


class Bar(Protocol):
    """Say what is done, a note on it, and what follows the time that is left."""

    def __call__(self, done: int, total: int, note: str, rest: str = "") -> None: ...


@contextmanager
def bar_of(name: str) -> Iterator[Bar | None]:
    """Yield a function that shows how far something is in a bar; None where standard error is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(), TextColumn("left{task.fields[rest]}"),
    )  # fmt: skip
    # What is printed meanwhile goes above the bar, but for what is not on the terminal: that must reach its file.
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as progress:
        task = progress.add_task(name, total=None, note="", rest="")

        def show(done: int, total: int, note: str, rest: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note, rest=rest)

        yield show


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
