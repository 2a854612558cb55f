"""The record of a run that goes on after it was ended: a line of JSON a window, beside the array that it writes."""

from __future__ import annotations

import json
import logging
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.base.files import replace_into_place

FORMAT = "recsolve-journal/1"
_LOG = logging.getLogger("recsolve")
_ADVICE = "give it the arguments of that run to go on with it, or pass resume=False to begin again, or another out"


class Journal:
    """A file whose first line says which run it is of, and every other one what a window of that run has come to.

    A line is written when the numbers of its window are on the disk, and is there itself before the next window is. So
    whatever ends the run, all that is recorded is right. The file is there as a whole from its first line on, and a
    last line that was cut short counts as not written.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path):
        self.path = path

    def begin(self, run: Mapping[str, Any]) -> None:
        """Make a new file of a run, in the place of one that is there."""
        with replace_into_place(self.path) as part:
            part.write_text(json.dumps({"format": FORMAT, "run": run}) + "\n", encoding="utf-8")

    def found(self, run: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return what is recorded of a run, in the order in which it was; None where there is no file.

        Raises
        ------
        ValueError
            Where the file is of another run, or of something else; the message names what differs.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        lines = [_read(line) for line in data.splitlines(keepends=True)]
        if not lines or lines[0] is None or lines[0].get("format") != FORMAT:
            raise ValueError(f"{self.path} is no journal of this version of recsolve ({FORMAT}); {_ADVICE}")
        if len(lines) == 1:  # nothing is recorded
            return []
        if differences := _differences(lines[0]["run"], run):
            raise ValueError(f"{self.path} is of another run: {'; '.join(differences)}; {_ADVICE}")
        whole = next((i for i, line in enumerate(lines) if line is None), len(lines))
        if whole < len(lines):
            _LOG.warning("%s: line %d was cut short, its window is computed again", self.path, whole + 1)
            with open(self.path, "r+b") as file:
                file.truncate(sum(map(len, data.splitlines(keepends=True)[:whole])))
        return [line for line in lines[1:whole] if line is not None]

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line, which is on the disk when this returns."""
        with open(self.path, "ab") as file:
            file.write((json.dumps(record) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())


def _read(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds; None where it is not whole."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what makes two runs different ones."""
    return [
        _said(name, was.get(name), now.get(name)) for name in {**was, **now} if not _same(was.get(name), now.get(name))
    ]


def _same(was: Any, now: Any) -> bool:
    """Return whether two facts are the same; lists of numbers up to what another machine rounds otherwise."""
    if not (isinstance(was, list) and isinstance(now, list)):
        return bool(was == now)
    return len(was) == len(now) and np.allclose(was, now, rtol=1e-5, atol=0, equal_nan=True)


def _said(name: str, was: Any, now: Any) -> str:
    digests = isinstance(now, list) or any(str(x).startswith("sha256") for x in (was, now))
    return (
        f"{name} {'are others' if name.endswith('s') else 'is another'}" if digests else f"{name} is {now}, was {was}"
    )


def as_text(x: Array) -> str:
    """Return the bytes of an array as text.

    >>> from recsolve.distributed.journal import as_text, from_text
    >>> from_text(as_text(np.array([0.1, np.nan])), np.dtype(float), (2,)).tolist()
    [0.1, nan]
    """
    return b64encode(np.ascontiguousarray(x).tobytes()).decode()


def from_text(text: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Return the array of :func:`as_text`."""
    return np.frombuffer(b64decode(text), dtype).reshape(shape).copy()
