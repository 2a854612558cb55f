"""Generated modules on disk, so that what Numba compiles from them is found again by the next process."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

from recsolve.kernels.compile_clock import compiling

VARIABLE = "RECSOLVE_CACHE"


def cache_directory() -> Path:
    """Return where generated modules lie: $RECSOLVE_CACHE, else a folder in the user's cache, else a temporary one."""
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(home) / "recsolve"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    return folder if writable else Path(tempfile.gettempdir()) / f"recsolve-{os.getuid()}"


@cache
def _helpers() -> str:
    """Return the sources of what generated modules call: Numba looks at the date of their own file only."""
    folder = Path(__file__).parent
    names = ("compiled", "memory", "prefetch", "products", "rows", "tiles")
    paths = [*(folder / f"{name}.py" for name in names), *sorted(folder.glob("elementary*.py"))]
    return "\n".join(path.read_text() for path in paths)


def load(source: str, name: str) -> ModuleType:
    """Return the module of a generated source, written to a file that its content names.

    Parameters
    ----------
    source : str
    name : str
        For people who look into the folder.

    Raises
    ------
    OSError
        When the folder cannot be written to.
    """
    digest = hashlib.sha256((source + _helpers()).encode()).hexdigest()[:16]
    label = "".join(letter if letter.isalnum() else "_" for letter in name)
    title = f"recsolve.generated.{label}_{digest}"
    if title in sys.modules:
        return sys.modules[title]
    folder = cache_directory()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{label}_{digest}.py"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".tmp", delete=False) as file:
            file.write(source)
        os.replace(file.name, path)  # another process may write the same file
    spec = importlib.util.spec_from_file_location(title, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[title] = module
    try:
        with compiling():  # the first one imports Numba
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[title]
        raise
    return module
