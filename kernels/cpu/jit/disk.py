"""Compiled code on disk: files that are checked when they are read, and that may be missing.

A file is found by its name, which says all that its content depends on, and it begins with the hash of that content. So
what is damaged, half written or of another release is not found, and is made again. Where a folder cannot be written
to (it is read-only, full, or a file), a temporary one takes its place; where none can be, code is compiled in every
process.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

VARIABLE = "RECSOLVE_CACHE"

_HASH = hashlib.sha256
_LOG = logging.getLogger("recsolve")
_failed: set[str] = set()  # folders that could not be written to: each is tried, and reported, once


def cache_directory() -> Path:
    """Return where compiled code lies: $RECSOLVE_CACHE, where that is not empty, else a folder in the user's cache."""
    named, user = os.environ.get(VARIABLE), os.environ.get("XDG_CACHE_HOME", "")
    try:
        if named:
            return Path(named).expanduser()
        return (Path(user) if os.path.isabs(user) else Path("~/.cache").expanduser()) / "recsolve"
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from None  # there is no home


def temporary_directory() -> Path:
    """Return the folder that takes its place where it cannot be written to."""
    folder = Path(tempfile.gettempdir())
    if folder.samefile(os.curdir):
        raise FileNotFoundError("there is no temporary folder but the current one")
    return folder / f"recsolve-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def read(name: str) -> bytes | None:
    """Return the content of a file, or None where there is none that is whole."""
    for place in (cache_directory, temporary_directory):
        with suppress(OSError):
            folder = place()
            if place is temporary_directory:
                _require_own(folder)
            found = (folder / name).read_bytes()
            size = _HASH().digest_size
            if _HASH(found[size:]).digest() == found[:size]:
                return found[size:]
            _LOG.info("%s is damaged; what it held is compiled again", folder / name)
    return None


def holds(beginning: str) -> bool:
    """Return whether there is a file whose name begins so."""
    for place in (cache_directory, temporary_directory):
        with suppress(OSError), os.scandir(place()) as files:
            if any(file.name.startswith(beginning) for file in files):
                return True
    return False


def write(name: str, content: bytes) -> None:
    """Write a file into the first folder that takes it, and say once for each folder that does not."""
    for place, then in (
        (cache_directory, "a temporary folder takes its place"),
        (temporary_directory, "every process compiles anew"),
    ):
        where = "the user's cache" if place is cache_directory else "a temporary folder"
        try:
            folder = place()
            where = str(folder)
            if where in _failed:
                continue
            _write(folder, name, content, private=place is temporary_directory)
        except OSError as error:
            if where not in _failed:
                _LOG.warning("compiled code cannot be kept in %s (%s); %s", where, error, then)
            _failed.add(where)
        else:
            return


def _write(folder: Path, name: str, content: bytes, *, private: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    if private:
        _require_own(folder)
    path = folder / f"{name}.{uuid4().hex}.tmp"
    try:
        path.write_bytes(_HASH(content).digest() + content)
        path.replace(folder / name)  # atomic, so that other writers do no harm
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _require_own(folder: Path) -> None:
    """Refuse a folder that others own or may write to, because code in it is executed."""
    if hasattr(os, "getuid"):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(f"{folder} is not a folder of this user alone")
