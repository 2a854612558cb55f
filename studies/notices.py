"""Notices of other processes: kept there, and told by the one that the user watches, where they tear no bar."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_LIBRARY = logging.getLogger("recsolve")


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.notices: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.notices.append(record.getMessage())


def with_notices(run: Callable[..., T], *arguments: Any) -> tuple[T, list[str]]:
    """Call a function in a process of workers; return its result, and its warnings instead of printing them."""
    kept = _Kept()
    _LIBRARY.addHandler(kept)
    try:
        with warnings.catch_warnings(record=True) as found:
            result = run(*arguments)
    finally:
        _LIBRARY.removeHandler(kept)
    said = [f"{Path(w.filename).name}:{w.lineno}: {w.category.__name__}: {w.message}" for w in found]
    return result, [*dict.fromkeys([*kept.notices, *said])]


def told(results: Iterable[tuple[T, list[str]]]) -> Iterator[T]:
    """Yield results, and put the notices that came with them into the log, each once."""
    known: set[str] = set()
    for result, notices in results:
        for notice in (text for text in notices if text not in known):
            _LIBRARY.warning("%s", notice)
        known.update(notices)
        yield result
