"""Windows of time one after the other, from disk to disk: read ahead, computed, written, recorded, told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array
from recsolve.base.progress import bar_of
from recsolve.distributed.journal import Journal, as_text, from_text
from recsolve.distributed.stored_arrays import Target, flush
from recsolve.windows import Cut

_LOG = logging.getLogger("recsolve")
_EVERY = 60.0  # seconds between two lines of a log


class Done(NamedTuple):
    """What a window has come to: its rows of the output, the state that the next one begins with, what is recorded."""

    rows: Array
    last: Array
    said: Mapping[str, Any]


@dataclass(frozen=True)
class StoredRun:
    """A run from disk to disk, of which one window is in memory, the next one's input, and last states.

    Attributes
    ----------
    cut : Cut
    order : sequence of int
        Of the windows.
    read : callable
        Returns the input of some steps; it is called in a thread.
    work : callable
        ``work(input, last)`` of a window, with the last state of the one before, None for the first.
    target : Target
    journal : Journal
    facts : mapping
        What tells this run from others, as JSON holds it.
    last : tuple
        Shape and dtype of a state.
    """

    cut: Cut
    order: Sequence[int]
    read: Callable[[slice], Any]
    work: Callable[[Any, Array | None], Done]
    target: Target
    journal: Journal
    facts: Mapping[str, Any]
    last: tuple[tuple[int, ...], np.dtype[Any]]

    def recorded(self, resume: bool) -> list[dict[str, Any]]:
        """Return the records that there are, and have a journal for the others.

        Raises
        ------
        ValueError
            For a journal of another run.
        FileExistsError
            For an ``out`` that is there without a journal, unless it may be written over.
        """
        found = self.journal.found(self.facts) if resume else []
        if found is None and self.target.is_path and Path(self.target.out).exists():
            raise FileExistsError(
                f"out is {self.target}, which is there and has no {self.journal.path.name} to go on with; pass "
                "resume=False to write over it, or another out"
            )
        if not found:
            self.journal.begin(self.facts)
            return []
        if [record["window"] for record in found] != [*self.order[: len(found)]]:
            raise ValueError(
                f"{self.journal.path} has windows out of order, as if two runs had written it at once; pass "
                "resume=False to begin again, or another out"
            )
        return found

    def go(self, records: list[dict[str, Any]], *, progress: bool) -> list[dict[str, Any]]:
        """Compute the windows that are not recorded; return the records of all, in their order."""
        place = self.target.ready(again=bool(records))
        done, total = len(records), len(self.cut)
        if done and done < total:
            _LOG.info("%s: %d of %d windows are there already", self.target, done, total)
        state = self.state(records[-1]) if records else None
        cuts = [self.cut.steps(index) for index in self.order[done:]]
        try:
            with _told(str(self.target), self.cut, done, progress) as tell, closing(_ahead(self.read, cuts)) as inputs:
                for steps, given in zip(cuts, inputs, strict=True):
                    said, state = self._written(place, steps, self.work(given, state))
                    record = {"window": self.order[len(records)], **said, "last": as_text(state)}
                    self.journal.append(record)
                    records.append(record)
                    tell(len(records))
        except BaseException as error:  # also an interrupt: whatever it is, what has been done stays
            if len(records) < total:
                error.add_note(
                    f"in {self.cut.place(self.order[len(records)])} of {self.target}; {len(records)} of them are there "
                    f"and in {self.journal.path}, and the same call goes on after them"
                )
            raise
        return records

    def _written(self, place: Any, steps: slice, found: Done) -> tuple[Mapping[str, Any], Array]:
        """Have the rows of a window on the disk; return what is recorded of it, and the last state."""
        wanted = (steps.stop - steps.start, *self.target.shape[1:])
        if found.rows.shape != wanted or found.rows.dtype != self.target.dtype:
            raise ValueError(
                f"the output has shape {found.rows.shape} and {found.rows.dtype}; wanted {wanted} and "
                f"{self.target.dtype}, as of the steps that were looked at first"
            )
        place[steps] = found.rows
        flush(place)
        return found.said, found.last

    def state(self, record: Mapping[str, Any]) -> Array:
        """Return the last state that a record has."""
        shape, dtype = self.last
        return from_text(record["last"], dtype, shape)


def _ahead(read: Callable[[slice], Any], cuts: Sequence[slice]) -> Generator[Any, None, None]:
    """Yield what is read of some steps after the others, each read while the one before it is in use."""
    with ThreadPoolExecutor(1, "recsolve-reads") as pool:
        coming = [pool.submit(read, cut) for cut in cuts[:1]]
        for cut in [*cuts[1:], None]:
            if coming:
                given = coming.pop().result()
                if cut is not None:
                    coming.append(pool.submit(read, cut))
                yield given


@contextmanager
def _told(name: str, cut: Cut, before: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that says how many windows are done: in a bar on a terminal, else in the log now and then."""
    began = said = time.monotonic()
    if not wanted:
        yield lambda done: None
        return
    with bar_of(Path(name).name) as bar:
        if bar is not None:
            bar(before, len(cut), "")  # so that what was there already is not counted as done now

        def tell(done: int) -> None:
            nonlocal said
            now, total = time.monotonic(), len(cut)
            rate = (done - before) * cut.every / max(now - began, 1e-9)
            if bar is not None:
                bar(done, total, f"{rate:.3g} steps/s")
            elif now - said >= _EVERY or done == total:
                said, left = now, (total - done) * cut.every / rate / 60
                _LOG.info("%s: %d of %d windows, %.3g steps/s, %.1f min left", name, done, total, rate, left)

        yield tell
