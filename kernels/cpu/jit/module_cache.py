"""Modules of generated source: each is executed once, and seen by others when that is done."""

from __future__ import annotations

import hashlib
import re
import sys
from importlib.abc import ExecutionLoader
from importlib.util import module_from_spec, spec_from_loader
from threading import RLock
from types import ModuleType

from recsolve.kernels.compile_clock import compiling

_LOCK = RLock()
_LONGEST = 60  # letters of a name, which is part of that of a file


class _Source(ExecutionLoader):
    """A source in memory, from which tracebacks take their lines, and the cache of compiled code its key."""

    def __init__(self, source: str):
        self._source = source

    def get_source(self, fullname: str) -> str:
        return self._source

    def get_filename(self, fullname: str) -> str:
        return f"{fullname}.py"

    def is_package(self, fullname: str) -> bool:
        return False


def label(name: str) -> str:
    """Return how the name of a module begins, and so those of files with its compiled code."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)[:_LONGEST]


def load(source: str, name: str) -> ModuleType:
    """Return the module of a generated source, the same for every call.

    Parameters
    ----------
    source : str
    name : str
        For people who read a traceback, or look into the folder of compiled code.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    title = f"recsolve.generated.{label(name)}_{digest}"
    if title in sys.modules:
        return sys.modules[title]
    with compiling(), _LOCK:  # the first one imports Numba
        if title not in sys.modules:
            loader = _Source(source)
            spec = spec_from_loader(title, loader)
            assert spec is not None
            module = module_from_spec(spec)
            loader.exec_module(module)
            sys.modules[title] = module  # not before it is whole
        return sys.modules[title]
