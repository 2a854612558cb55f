"""How far something long is, in a bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Bar(Protocol):
    """Say what is done, a note on it, and what follows the time that is left."""

    def __call__(self, done: int, total: int, note: str, rest: str = "") -> None: ...


@contextmanager
def bar_of(name: str) -> Iterator[Bar | None]:
    """Yield a function that shows how far something is in a bar; None where standard error is no terminal."""
    from rich.console import Console

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
