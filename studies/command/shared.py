"""What commands share: errors in one line, JSON, outputs that are checked first, notices that tear no bar."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from recsolve.studies.store.files import finite_or_text

ERRORS = (ValueError, TypeError, ImportError, OSError, MemoryError, ArithmeticError)  # of what the user asked for

Json = Annotated[bool, typer.Option("--json", help="Print JSON; inf and nan are texts.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the config; TOML values.")
]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="TOML with values of the config.")]


def fail(error: Exception) -> typer.Exit:
    """Print an error in one line, and return the exit to raise."""
    print(f"recsolve: error: {error}", file=sys.stderr)
    return typer.Exit(2)


def print_json(value: Any) -> None:
    """Print strict JSON."""
    print(json.dumps(finite_or_text(value), indent=1, allow_nan=False))


def text_of(config: Path | None) -> str:
    """Return the text of ``--config``; nothing where it is not given."""
    if config is None:
        return ""
    try:
        return config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"--config {config} cannot be read ({why}); wanted a TOML file") from None


def check_output(folder: Path, *files: str) -> None:
    """Refuse, before anything is computed, what could not be written then; nothing is made or changed.

    Parameters
    ----------
    folder : Path
        Made when it is written to.
    *files : str
        Names in it that will be written.

    Raises
    ------
    ValueError
        For a file where a folder is wanted, or the other way round.
    PermissionError
        For a folder in which no files may be made.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"--out {folder}{'' if there == folder else f': {there}'} is a file; wanted a folder")
    for name in files:
        if (folder / name).is_dir():
            raise ValueError(f"--out {folder}: {folder / name} is a folder; wanted a file there, or nothing")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {folder} cannot be written to: no files can be made in {there.absolute()}")


class _Notices(logging.Handler):
    """Print to what standard error is when a notice comes: a bar of progress takes its place, and prints above."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"recsolve: {record.getMessage()}", file=sys.stderr)


def show_notices() -> None:
    """Print warnings in the log of the library, a line each."""
    log = logging.getLogger("recsolve")
    if not any(isinstance(handler, _Notices) for handler in log.handlers):
        log.addHandler(_Notices(logging.WARNING))
