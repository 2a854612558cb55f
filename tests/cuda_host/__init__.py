"""The CUDA kernels of scans built for the host, as a machine that `scan_cuda` launches them on.

``python -m cuda_host [address | thread]`` in ``tests/`` builds with a sanitizer and runs a few scans; see `main`.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from recsolve.kernels.gpu.scan.variants import WALKS, Variant, text

HERE = Path(__file__).parent
HEADERS = ("copies.hpp", "fibers.hpp", "threads.hpp", "cuda_host.hpp")
FLAGS = ("-std=c++20", "-Og", "-fPIC", "-shared", "-pthread", "-U_FORTIFY_SOURCE", "-Wall", "-Wno-unknown-pragmas")


def compiler() -> str | None:
    """Return the host's C++ compiler, if there is one and the emulation knows the system."""
    return shutil.which("g++") if sys.platform == "linux" else None


def siblings(variant: Variant) -> list[Variant]:
    """Return the kernels that are compiled with one, since another costs a fifth of the first."""
    cuts = (False, True) if variant.regime in (*WALKS, "dense") else (variant.cut,)
    afters: tuple[Literal["", "again"], ...] = ("", "again") if variant.regime == "segments" else ("",)
    return [replace(variant, cut=cut, after=after) for cut in cuts for after in afters]


def build(variants: list[Variant], flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Compile kernels to a shared library, unless that has been done, and load it."""
    functions = [
        f'extern "C" void run_{i}(const recsolve::Problem* p, long long blocks, long long shared, int workers) {{\n'
        f"    emulated::launch(blocks, {v.threads}, shared, workers, [p] {{ {v.expression}(*p); }});\n}}\n"
        for i, v in enumerate(variants)
    ]
    return load("".join(functions), flags, before=text())


def conversions() -> ctypes.CDLL:
    """Return the host's conversions of halves, over arrays."""
    library = load(
        'extern "C" {\n'
        "void from_halves(const unsigned short* x, float* y, long long n) {\n"
        "    for (long long i = 0; i < n; ++i) y[i] = recsolve::from_half(x[i]);\n}\n"
        "void to_halves(const float* x, unsigned short* y, long long n) {\n"
        "    for (long long i = 0; i < n; ++i) y[i] = recsolve::to_half(x[i]);\n}\n}\n"
    )
    for function in (library.from_halves, library.to_halves):
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_longlong)
    return library


def load(unit: str, flags: tuple[str, ...] = (), before: str = "") -> ctypes.CDLL:
    """Compile a translation unit to a shared library, unless that has been done; ``before`` comes first in many."""
    common = f'#include "cuda_host.hpp"\n{before}'
    headers = [(HERE / name).read_text() for name in HEADERS]
    header = _once(f"{_key(common, *flags, *headers)}/common.hpp.gch", lambda to: _precompile(common, flags, to))
    key = _key(common, unit, *flags, *headers)
    library = _once(f"{key}.so", lambda to: _compile(unit, (*flags, f"-I{header.parent}"), to))
    return ctypes.CDLL(str(library))


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join((*FLAGS, *parts)).encode()).hexdigest()[:16]


def _once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a file of the cache, which is made by one worker of the test run and shared by all."""
    folder = Path(os.environ.get("RECSOLVE_HOST_CACHE", tempfile.gettempdir())) / f"recsolve-cuda-host-{os.getuid()}"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                make(Path(scratch) / path.name)
                (Path(scratch) / path.name).replace(path)
    return path


def _precompile(common: str, flags: tuple[str, ...], to: Path) -> None:
    header = to.with_suffix("")
    header.write_text(common)
    _run("-x", "c++-header", *flags, str(header), "-o", str(to))


def _compile(unit: str, flags: tuple[str, ...], to: Path) -> None:
    code = to.with_suffix(".cpp")
    code.write_text(f'#include "common.hpp"\n{unit}')
    _run(*flags, str(code), "-o", str(to))


def _run(*arguments: str) -> None:
    command = [str(compiler()), *FLAGS, "-Winvalid-pch", f"-I{HERE}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise RuntimeError("\n".join([" ".join(command), *errors[:20], done.stderr[-4000:]]))


class Host:
    """A machine that runs kernels on NumPy arrays, ``workers`` blocks at a time; kernels are built when asked for."""

    kind = "numpy"
    processors = 4

    def __init__(self, flags: tuple[str, ...] = (), workers: int = 3):
        self.flags, self.workers = flags, workers
        self.kernels: dict[Variant, Any] = {}

    def launch(self, variant: Variant, blocks: int, shared: int, problem: Any) -> None:
        """Run a kernel to its end."""
        if variant not in self.kernels:
            together = siblings(variant)
            library = build(together, self.flags)
            self.kernels |= {v: getattr(library, f"run_{i}") for i, v in enumerate(together)}
        self.kernels[variant](
            ctypes.c_void_p(problem.ctypes.data),
            ctypes.c_longlong(blocks),
            ctypes.c_longlong(shared),
            ctypes.c_int(self.workers),
        )
