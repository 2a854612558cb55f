"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE
from threading import get_ident


@contextmanager
def replace_into_place(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends well.

    A link stays: what it names is replaced. Who may read the file stays as well, whoever writes the new one: of a new
    file all whom the user lets read files.
    """
    path = Path(os.path.realpath(path))
    part = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}.part")
    try:
        part.touch()
        mode = (path if path.exists() else part).stat().st_mode
        part.unlink()
        yield part
        if part.stat().st_mode != mode:
            part.chmod(S_IMODE(mode))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
