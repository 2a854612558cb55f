"""The CUDA kernels built for the host, and a machine that runs them on NumPy arrays.

``python -m cuda_host [address | thread]`` in ``tests/`` builds with a sanitizer and runs a few scans; see `main`.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.kernels.gpu.device import SHARED, Launch
from recsolve.kernels.gpu.scan.variants import WALKS

HERE = Path(__file__).parent
HEADERS = ("copies.hpp", "fibers.hpp", "threads.hpp", "cuda_host.hpp", "solve_host.hpp", "cluster_host.hpp")
COMMON = "".join(f'#include "{name}"\n' for name in HEADERS[3:])
FLAGS = (
    *("-std=c++20", "-Og", "-fPIC", "-shared", "-pthread", "-U_FORTIFY_SOURCE"),
    *("-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas"),
)


def compiler() -> str | None:
    """Return the host's C++ compiler, if there is one and the emulation knows the system."""
    return shutil.which("g++") if sys.platform == "linux" else None


def template(kernel: str) -> str:
    """Return the name of the template that a kernel is one of."""
    return kernel.partition("<")[0].removeprefix("recsolve::")


def together(launch: Launch) -> list[str]:
    """Return the kernels that are compiled with one, since another costs a fifth of the first."""
    kernel, name = launch.kernel, template(launch.kernel)
    number = kernel.rpartition(", ")[2].removesuffix(">")
    if name == "each":
        stages = re.findall(r"struct (\w+) \{\n    static constexpr int IN", launch.code)
        return [f"recsolve::each<recsolve::{stage}, {number}>" for stage in stages]
    if name in ("test_rows", "evaluate_rows", "guard_rows"):
        before = kernel.rpartition(", ")[0]
        counts = (0, 1, 2) if before.endswith("double") else (0, 1, 4)
        kinds = [before]
        if name == "guard_rows":
            kinds = [re.sub(r"<\d", f"<{made}", before) for made in range(5)]
        if name == "evaluate_rows":
            kinds = [before.replace("partials", job).replace("values", job) for job in ("values", "partials")]
        return [f"{kind}, {count}>" for kind in kinds for count in counts]
    if name in ("sweep_stage", "sweep_update"):
        number = "double" if "double" in kernel else "float"
        stages = [f"recsolve::sweep_stage<recsolve::SweepCell, {number}, {linear}>" for linear in ("true", "false")]
        return [*stages, f"recsolve::sweep_update<{number}>"]
    if name in ("summary", "together"):
        return _summaries(launch)
    if name in (*WALKS, "dense", "walk_block", "walk_cluster"):
        return sorted({kernel.replace(", true,", ", false,"), kernel.replace(", false,", ", true,")})
    return [kernel]


def _summaries(launch: Launch) -> list[str]:
    """Return the kernels of a summary, with and without cuts, and the one that comes after them."""
    if template(launch.kernel) == "together":
        return [launch.kernel]
    inner = launch.kernel.partition("<")[2]
    depth = [inner[:i].count("<") - inner[:i].count(">") for i in range(len(inner))]
    map_type = inner[: next(i for i, c in enumerate(inner) if c == "," and not depth[i])]
    kernels = {launch.kernel.replace(", true,", ", false,", 1), launch.kernel.replace(", false,", ", true,", 1)}
    return [launch.kernel, *sorted(kernels - {launch.kernel}), f"recsolve::together<{map_type}>"]


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


def load(unit: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Compile a translation unit to a shared library, unless that has been done."""
    header = precompiled(flags)
    library = _once(f"{_key(unit, *flags)}.so", lambda to: _compile(unit, (*flags, f"-I{header.parent}"), to))
    return ctypes.CDLL(str(library))


def precompiled(flags: tuple[str, ...] = ()) -> Path:
    """Return what all units begin with, compiled."""
    return _once(f"{_key(*flags)}/common.hpp.gch", lambda to: _precompile(flags, to))


def _key(*parts: str) -> str:
    headers = [(HERE / name).read_text() for name in HEADERS]
    return hashlib.sha256("\0".join((*FLAGS, COMMON, *headers, *parts)).encode()).hexdigest()[:16]


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


def _precompile(flags: tuple[str, ...], to: Path) -> None:
    header = to.with_suffix("")
    header.write_text(COMMON)
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


_CALL = """
template <class P>
void call(void (*kernel)(P), const void* problem, long long bytes, long long blocks, int threads, long long shared,
          int workers) {
    if (bytes != sizeof(P)) emulated::fail("another structure");
    const P& p = *static_cast<const P*>(problem);
    emulated::clusters.clear();
    emulated::launch(blocks, threads, shared, workers, [&] { kernel(p); });
}
"""
_RUN = """extern "C" void run_{i}(const void* problem, long long bytes, long long blocks, int threads, long long shared,
                      int workers) {{
    call(&{kernel}, problem, bytes, blocks, threads, shared, workers);
}}
"""


class Host:
    """A machine that runs kernels on NumPy arrays, ``workers`` blocks at a time; kernels are built when asked for.

    It notes which products were rough: those round their factors to eleven bits.
    """

    kind = "numpy"
    shared = SHARED
    cluster = 1

    def __init__(self, workers: int = 3, flags: tuple[str, ...] = (), processors: int = 4):
        self.workers, self.flags, self.processors = workers, flags, processors
        self.products: list[str] = []
        self.kernels: dict[tuple[str, str], Any] = {}

    def launch(self, launch: Launch) -> None:
        """Run a kernel to its end."""
        code, kernel, _, blocks, threads, shared, problem = launch
        if (code, kernel) not in self.kernels:
            names = together(launch)
            functions = [_RUN.format(i=i, kernel=name) for i, name in enumerate(names)]
            library = load("\n".join([code, _CALL, *functions]), self.flags)
            self.kernels |= {(code, name): getattr(library, f"run_{i}") for i, name in enumerate(names)}
        sizes = ctypes.c_longlong(blocks), ctypes.c_int(threads), ctypes.c_longlong(shared), ctypes.c_int(self.workers)
        self.kernels[code, kernel](ctypes.c_void_p(problem.ctypes.data), ctypes.c_longlong(problem.nbytes), *sizes)

    def prepared(self, launch):
        return lambda: self.launch(launch)

    def product(self, weights, x, out, *, add, rough):
        """Multiply by NumPy."""
        self.products.append("rough" if rough else "full")
        if rough:
            weights, x = _rounded(weights), _rounded(x)
        mixed = np.matmul(x.swapaxes(0, 1), weights.swapaxes(1, 2)).swapaxes(0, 1)
        out[...] = out + mixed if add else mixed

    def captured(self, run):
        return run

    def clear(self, report, size=None):
        report.view(np.uint8)[:size] = 0

    def reader(self, report, dtype=None, count=None):
        return _Reader((report if dtype is None else report.view(dtype))[:count])

    def coming(self, report, count):
        numbers = np.asarray(report).view(np.int32)[:count].copy()
        return lambda: numbers

    def brought(self, report, count):
        return self.coming(report, count)()


class _Reader:
    def __init__(self, report):
        self.report, self.sent = report, report.copy()

    def send(self):
        self.sent = self.report.copy()

    def mark(self):
        pass

    def read(self):
        return self.sent


def _rounded(x):
    """Round float32 to eleven bits, as tensor cores take it."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
