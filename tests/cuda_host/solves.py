"""The CUDA functions and solve kernels of traced cells, built for the host."""

from __future__ import annotations

import ctypes

import numpy as np

from cuda_host import HERE, load
from recsolve.kernels.codegen.cuda_elementwise import module
from recsolve.kernels.gpu.cell.elementwise import FusedCuda
from recsolve.kernels.gpu.cell.solve_plan import Kernel
from recsolve.symbolic.tracing import trace_cell, trace_pullback

TYPES = {"float32": "float", "float64": "double"}


def built(text: str, functions: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Compile a module of kernels, and C functions around it."""
    host = (HERE / "solve_host.hpp").read_text().replace("#pragma once\n", "")
    return load(f"{text}\n{functions}", ("-ffp-contract=off", *flags), before=host)


def elementwise(names: dict[str, int], dtype: str, policy: str) -> dict[str, object]:
    """Return elementary functions of a policy, by name and number of arguments, as functions of arrays."""
    T = TYPES[dtype]
    loops = [
        f'extern "C" void f_{name}(const {T}* x, const {T}* y, {T}* z, long long n) {{\n'
        "    for (long long i = 0; i < n; ++i)\n"
        f"        z[i] = recsolve::{policy}<{T}>::{name}(x[i]{', y[i]' * (arity == 2)});\n}}"
        for name, arity in names.items()
    ]
    library = built(module("", kernels=False), "\n".join(loops))

    def wrap(name):
        def call(x, y=None):
            x, y = np.ascontiguousarray(x, dtype), np.ascontiguousarray(x if y is None else y, dtype)
            z = np.empty_like(x)
            pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, y, z)]
            getattr(library, f"f_{name}")(*pointers, ctypes.c_longlong(x.size))
            return z

        return call

    return {name: wrap(name) for name in names}


class Host:
    """A machine that runs solves on NumPy arrays, ``workers`` blocks at a time; kernels are built when asked for."""

    kind = "numpy"
    processors = 4

    def __init__(self, workers: int = 3, flags: tuple[str, ...] = ()):
        self.workers, self.flags = workers, flags
        self.libraries: dict[tuple[str, Kernel], ctypes.CDLL] = {}

    def launch(self, code: str, kernel: Kernel, blocks: int, problem: np.ndarray) -> None:
        """Run a kernel to its end."""
        if (code, kernel) not in self.libraries:
            cell = f"recsolve::{kernel.way}<recsolve::Cell>"
            sizes = f"blocks, {kernel.threads}, {kernel.shared}, workers"
            check = f'static_assert(sizeof(recsolve::Recurrence<{cell}>) == {problem.nbytes}, "another structure");\n'
            arguments = f"const recsolve::Recurrence<{cell}>* p, long long blocks, int workers"
            body = f"emulated::launch({sizes}, [p] {{ {kernel.expression}(*p); }});"
            function = f'extern "C" void run({arguments}) {{ {body} }}\n'
            self.libraries[code, kernel] = built(code, check + function, self.flags)
        run = self.libraries[code, kernel].run
        run(ctypes.c_void_p(problem.ctypes.data), ctypes.c_longlong(blocks), ctypes.c_int(self.workers))


def kernels_of(cell, ties=None, machine: Host | None = None) -> FusedCuda:
    """Return the fused kernels of a cell with diagonal mixings."""
    return FusedCuda.of(trace_cell(cell, ties=ties), trace_pullback(cell, ties=ties), machine or Host())
