"""Outputs that nobody needs to read: of a reader that leaves, closed from the start, or without the user's letters."""

from __future__ import annotations

import os
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any, TextIO


class _Output(FileIO):
    """An output that goes on as if nothing had happened when the reader of a pipe leaves, as ``head`` does."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            discard(self.fileno())
            return len(data)


def discard(number: int) -> None:
    """Let what is written to an output lead nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def patient(stream: TextIO | None) -> TextIO:
    """Return an output that nobody needs to read: one that was closed before the start leads nowhere."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, TextIOWrapper):
        return stream
    stream.reconfigure(errors="replace")  # authors' names where the output knows ASCII only
    if stream.isatty():
        return stream
    pipe = BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
    return TextIOWrapper(pipe, encoding=stream.encoding, errors="replace", line_buffering=True)
