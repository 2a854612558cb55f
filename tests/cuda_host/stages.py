"""The CUDA stages and sweeps of traced cells on NumPy arrays: kernels built for the host, products by NumPy."""

from __future__ import annotations

import ctypes
import re

import numpy as np

from cuda_host.solves import built
from recsolve.kernels.gpu.device import REPORT, THREADS
from recsolve.kernels.monoids.base import MONOIDS
from recsolve.kernels.reference import scan_numpy

_CALL = """
template <class P> void call(void (*kernel)(P), const void* problem, long long bytes, long long blocks, int workers) {{
    if (bytes != sizeof(P)) emulated::fail("another structure");
    const P& p = *static_cast<const P*>(problem);
    emulated::launch(blocks, {threads}, {shared}, workers, [&] {{ kernel(p); }});
}}
"""


def kernels_of(code: str, number: str) -> list[str]:
    """Return the kernels of a module of stages or of sweeps, for a type of numbers."""
    stages = re.findall(r"struct (\w+) \{\n    static constexpr int IN", code)
    if stages:
        return [f"recsolve::each<recsolve::{name}, {number}>" for name in stages]
    sweeps = [f"recsolve::sweep_stage<recsolve::SweepCell, {number}, {linear}>" for linear in ("true", "false")]
    return [*sweeps, f"recsolve::sweep_update<{number}>"]


class Host:
    """A machine that runs kernels on NumPy arrays; ``rough`` products round their factors to eleven bits."""

    processors = 1

    def __init__(self, workers: int = 2):
        self.workers, self.products = workers, []
        self.libraries: dict[tuple[str, str], ctypes.CDLL] = {}

    def launch(self, code: str, kernel: str, blocks: int, problem: np.ndarray) -> None:
        """Run a kernel to its end."""
        kernels = kernels_of(code, "double" if "double" in kernel else "float")
        if (code, kernel) not in self.libraries:
            arguments = "const void* problem, long long bytes, long long blocks, int workers"
            functions = [
                f'extern "C" void run_{i}({arguments}) {{ call(&{name}, problem, bytes, blocks, workers); }}\n'
                for i, name in enumerate(kernels)
            ]
            call = _CALL.format(threads=THREADS, shared=4 * REPORT)
            library = built(code, "".join([call, *functions]))
            self.libraries |= dict.fromkeys([(code, name) for name in kernels], library)
        run = getattr(self.libraries[code, kernel], f"run_{kernels.index(kernel)}")
        sizes = (ctypes.c_longlong(problem.nbytes), ctypes.c_longlong(blocks), ctypes.c_int(self.workers))
        run(ctypes.c_void_p(problem.ctypes.data), *sizes)

    def product(self, weights, x, out, *, add, rough):
        """Multiply by NumPy."""
        self.products.append("rough" if rough else "full")
        if rough:
            weights, x = _rounded(weights), _rounded(x)
        mixed = np.matmul(x.swapaxes(0, 1), weights.swapaxes(1, 2)).swapaxes(0, 1)
        out[...] = out + mixed if add else mixed

    def scanner(self, A, r, d, reset):
        """Scan by NumPy."""

        def run():
            d[...] = scan_numpy.scan(MONOIDS["affine"], (A, r), reset=reset)

        return run

    def captured(self, run):
        return run

    def clear(self, report):
        report[...] = 0

    def reader(self, report):
        return _Reader(report)


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
