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
from pathlib import Path
from typing import Any

from recsolve.kernels.cuda_source import Variant, text

HERE = Path(__file__).parent
HEADERS = ("copies.hpp", "fibers.hpp", "threads.hpp", "cuda_host.hpp")
FLAGS = ("-std=c++20", "-O1", "-fPIC", "-shared", "-pthread", "-U_FORTIFY_SOURCE", "-Wall", "-Wno-unknown-pragmas")


def compiler() -> str | None:
    """Return the host's C++ compiler, if there is one and the emulation knows the system."""
    return shutil.which("g++") if sys.platform == "linux" else None


def source(variants: list[Variant]) -> str:
    """Return a translation unit with one C function for each variant."""
    functions = [
        f'extern "C" void kernel_{i}(const recsolve::Problem* p, long long blocks, long long shared, int workers) {{\n'
        f"    emulated::launch(blocks, {v.threads}, shared, workers, [p] {{ {v.expression}(*p); }});\n}}\n"
        for i, v in enumerate(variants)
    ]
    return f'#include "cuda_host.hpp"\n{text()}\n' + "".join(functions)


def build(variants: list[Variant], flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Compile variants to a shared library, unless that has been done, and load it."""
    unit = source(variants)
    return _built(unit, flags)


def conversions() -> ctypes.CDLL:
    """Return the host's conversions of halves, over arrays."""
    library = _built(
        '#include "cuda_host.hpp"\nextern "C" {\n'
        "void from_halves(const unsigned short* x, float* y, long long n) {\n"
        "    for (long long i = 0; i < n; ++i) y[i] = recsolve::from_half(x[i]);\n}\n"
        "void to_halves(const float* x, unsigned short* y, long long n) {\n"
        "    for (long long i = 0; i < n; ++i) y[i] = recsolve::to_half(x[i]);\n}\n}\n"
    )
    for function in (library.from_halves, library.to_halves):
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_longlong)
    return library


def _built(unit: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    parts = [unit, *(str(flag) for flag in (*FLAGS, *flags)), *((HERE / name).read_text() for name in HEADERS)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("RECSOLVE_HOST_CACHE", tempfile.gettempdir())) / f"recsolve-cuda-host-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    library = folder / f"{key}.so"
    with (folder / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers of the test run share what one of them builds
        if not library.exists():
            _compile(unit, flags, library)
    return ctypes.CDLL(str(library))


def _compile(unit: str, flags: tuple[str, ...], library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        code, built = Path(scratch) / "kernels.cpp", Path(scratch) / "kernels.so"
        code.write_text(unit)
        command = [str(compiler()), *FLAGS, *flags, f"-I{HERE}", str(code), "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            raise RuntimeError("\n".join([" ".join(command), *errors[:20], done.stderr[-4000:]]))
        built.replace(library)


class Host:
    """A machine that runs kernels on NumPy arrays, ``workers`` blocks at a time; regimes are built when asked for."""

    kind = "numpy"
    processors = 4

    def __init__(self, variants: list[Variant], flags: tuple[str, ...] = (), workers: int = 3):
        self.variants, self.flags, self.workers = variants, flags, workers
        self.groups: dict[tuple[str, str], list[Variant]] = {}
        for variant in variants:
            self.groups.setdefault((variant.regime, variant.dtype), []).append(variant)
        self.libraries: dict[tuple[str, str], ctypes.CDLL] = {}

    def launch(self, variant: Variant, blocks: int, shared: int, problem: Any) -> None:
        """Run a kernel to its end."""
        key = variant.regime, variant.dtype
        if key not in self.libraries:
            self.libraries[key] = build(self.groups[key], self.flags)
        kernel = getattr(self.libraries[key], f"kernel_{self.groups[key].index(variant)}")
        kernel(
            ctypes.c_void_p(problem.ctypes.data),
            ctypes.c_longlong(blocks),
            ctypes.c_longlong(shared),
            ctypes.c_int(self.workers),
        )


class Recorder:
    """A machine that only notes which kernels it is asked to run, so that these can be built."""

    kind = "numpy"
    processors = Host.processors

    def __init__(self) -> None:
        self.variants: dict[Variant, None] = {}

    def launch(self, variant: Variant, blocks: int, shared: int, problem: Any) -> None:
        """Note a kernel."""
        self.variants[variant] = None
