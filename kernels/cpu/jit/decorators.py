"""Compiling with Numba: two typed decorators, a cache on disk, lines in the log, and the time that compiling takes.

This is the only module that imports Numba and llvmlite, of which it uses internals: pyproject.toml pins Numba to the
releases that were tried. Modules of loops take from here what they need, and are imported on first use.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar

import llvmlite
import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, config, event, types
from numba.core.caching import NullCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, CompileResult
from numba.core.serialize import dumps
from numba.core.types.containers import BaseTuple
from numba.core.types.misc import CPointer
from numba.extending import intrinsic

from recsolve._version import __version__
from recsolve.kernels import compile_clock
from recsolve.kernels.cpu.jit import disk

__all__ = [
    "BaseTuple",
    "CPointer",
    "binding",
    "cgutils",
    "called",
    "compiled",
    "config",
    "inlined",
    "intrinsic",
    "ir",
    "types",
]

Loop = TypeVar("Loop", bound=Callable[..., Any])

_LOG = logging.getLogger("recsolve")
_OPTIONS = {"nogil": True, "error_model": "numpy"}
_LOOPS = "recsolve.kernels.", "recsolve.generated."  # modules whose functions and numbers are compiled into loops


def compiled(function: Loop) -> Loop:
    """Compile a function on first call, cached on disk; it lets other threads run.

    No fastmath: with contraction results would differ from the loop of the reference in the last bits, and the full set
    drops NaN. These loops wait for memory, so nothing is lost.
    """
    dispatcher = numba.njit(**_OPTIONS, no_cfunc_wrapper=True)(function)
    dispatcher._cache = _Cache(function)
    return dispatcher  # type: ignore[no-any-return]


def inlined(function: Loop, fastmath: Any = False) -> Loop:
    """Compile a function into its callers: a call with a dozen arrays would cost as much as a short row."""
    return _part(function, forceinline=True, fastmath=fastmath)


def called(function: Loop) -> Loop:
    """Compile a function that branches, and is called: in its caller it would keep a loop from becoming vectors."""
    return _part(function)


def _part(function: Loop, **options: Any) -> Loop:
    """Compile a function for loops, which take a copy each. Python must not call it: there is no code of its own."""
    wrappers = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(**_OPTIONS, **wrappers, pipeline_class=_Part, **options)(function)  # type: ignore[no-any-return]


class _Part(Compiler):  # type: ignore[misc]
    """Compile as Numba does, into a library without machine code."""

    def compile_extra(self, function: Callable[..., Any]) -> CompileResult:
        self.state.library = _PartLibrary(self.state.targetctx.codegen(), function.__qualname__)
        return super().compile_extra(function)


class _PartLibrary(JITCodeLibrary):  # type: ignore[misc]
    """A library whose code is optimised and linked into others: its own machine code would never run."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> _PartLibrary:
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """Set nothing, as for what is loaded from disk: constants that only objects of Python need."""


class _Cache(NullCache):  # type: ignore[misc]
    """The cache from which Numba loads compiled code, in place of its own.

    Numba's own writes beside the sources, sees no change of the modules that a loop is made of, fails on damaged files,
    and keeps an index that two processes can leave pointing at each other's code. Here every signature is a file, and
    its name says all that the code depends on.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    @property
    def cache_path(self) -> str:
        """Where the files lie, for Numba's statistics."""
        return str(disk.cache_directory())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code compiled for a signature, or None."""
        if not compile_clock.may_load():
            return None
        target_context.refresh()
        content = disk.read(self._name(sig, target_context.codegen()))
        if content is None:
            return None
        try:
            found, payload = pickle.loads(content)
            return CompileResult._rebuild(target_context, *payload) if found == sig else None
        except Exception as error:  # any error: compile instead
            _LOG.info("compiled code of %s cannot be loaded (%r); it is compiled again", self._function, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store the code compiled for a signature, unless it contains addresses of this process."""
        if not data.library.has_dynamic_globals and all(loop.can_cache for loop in data.lifted):
            disk.write(self._name(sig, data.codegen), dumps((sig, data._reduce())))

    def _name(self, sig: Any, codegen: Any) -> str:
        f = self._function
        parts = (_versions(), _sources(f.__module__), f.__module__, f.__qualname__, sig, codegen.magic_tuple())
        label = f"{f.__module__.rpartition('.')[2]}.{f.__qualname__}"
        return f"{label}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.loop"


@cache
def _versions() -> tuple[str, ...]:
    return __version__, sys.version, numba.__version__, llvmlite.__version__, np.__version__


@cache
def _sources(module: str) -> str:
    """Return a hash of a module and of all modules of loops that it imports: they are compiled into its functions."""
    found: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = getattr(sys.modules[name].__loader__, "get_source", str)(name) or ""
            todo += _imported(found[name])
    return hashlib.sha256("\0".join(f"{name}\0{found[name]}" for name in sorted(found)).encode()).hexdigest()


def _imported(source: str) -> Iterator[str]:
    """Yield the modules of loops that a source imports when it is loaded."""
    for line in ast.parse(source).body:
        if isinstance(line, ast.ImportFrom) and line.module and f"{line.module}.".startswith(_LOOPS):
            names = [line.module, *(f"{line.module}.{alias.name}" for alias in line.names)]
            yield from (n for n in names if n in sys.modules and not hasattr(sys.modules[n], "__path__"))


class _Notice(event.Listener):  # type: ignore[misc]
    """Say once per process that loops are being compiled, before a call that waits for it; then how long each took."""

    said = False

    def __init__(self) -> None:
        self._began: dict[Any, float] = {}

    def on_start(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        if not dispatcher.py_func.__module__.startswith("recsolve."):
            return
        compile_clock.check_allowed()
        self._began[dispatcher] = time.perf_counter()
        if not self.said:
            self.said = True
            _LOG.warning("compiling loops with Numba; this takes some seconds once, later runs find them on disk")

    def on_end(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        began = self._began.pop(dispatcher, None)
        if began is not None:
            compile_clock.count_compilation()
            function, seconds = dispatcher.py_func, time.perf_counter() - began
            _LOG.info("compiled %s.%s in %.2f s", function.__module__, function.__qualname__, seconds)


class _Clock(event.Listener):  # type: ignore[misc]
    """Numba compiles, and loads from its cache, under one lock: the time from requesting it to releasing it counts."""

    def on_start(self, event: Any) -> None:
        compile_clock.enter()

    def on_end(self, event: Any) -> None:
        compile_clock.leave()


event.register("numba:compile", _Notice())
event.register("numba:compiler_lock", _Clock())
