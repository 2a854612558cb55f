"""The CUDA functions and solve kernels of traced cells, built for the host."""

from __future__ import annotations

import ctypes

import numpy as np

from cuda_host import Host, load
from recsolve.kernels.codegen.cuda_elementwise import module
from recsolve.kernels.gpu.cell.fused_solve import FusedCuda
from recsolve.symbolic.tracing import trace_cell, trace_pullback

TYPES = {"float32": "float", "float64": "double"}


def elementwise(names: dict[str, int], dtype: str, policy: str) -> dict[str, object]:
    """Return elementary functions of a policy, by name and number of arguments, as functions of arrays."""
    T = TYPES[dtype]
    loops = [
        f'extern "C" void f_{name}(const {T}* x, const {T}* y, {T}* z, long long n) {{\n'
        "    for (long long i = 0; i < n; ++i)\n"
        f"        z[i] = recsolve::{policy}<{T}>::{name}(x[i]{', y[i]' * (arity == 2)});\n}}"
        for name, arity in names.items()
    ]
    library = load("\n".join([module("", kernels=False), *loops]))

    def wrap(name):
        def call(x, y=None):
            x, y = np.ascontiguousarray(x, dtype), np.ascontiguousarray(x if y is None else y, dtype)
            z = np.empty_like(x)
            pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, y, z)]
            getattr(library, f"f_{name}")(*pointers, ctypes.c_longlong(x.size))
            return z

        return call

    return {name: wrap(name) for name in names}


def kernels_of(cell, ties=None, machine: Host | None = None) -> FusedCuda:
    """Return the fused kernels of a cell with diagonal mixings."""
    return FusedCuda.of(trace_cell(cell, ties=ties), trace_pullback(cell, ties=ties), machine or Host())
