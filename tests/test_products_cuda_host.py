"""Products of matrices as cuBLAS is asked for them."""

import ctypes
import sys
from functools import partial
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from recsolve.kernels.gpu.device import Cuda


class OnDevice(np.ndarray):
    """An array that says where it lies as CuPy's do."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


def column_major_product(calls, handle, transa, transb, m, n, k, alpha, A, type_a, lda, step_a, B, type_b, ldb, step_b,
                         beta, C, type_c, ldc, step_c, lanes, compute, algorithm):  # fmt: skip
    """What cuBLAS does with such arguments, on host memory."""
    assert (handle, transa, transb, algorithm) == ("handle", 1, 0, -1)
    assert lda >= k <= ldb
    assert ldc >= m
    calls.append(compute)
    dtype = {0: np.float32, 1: np.float64}[type_a]

    def matrix(address, lane, step, rows, lead, columns):
        begin = address + lane * step * dtype().itemsize
        numbers = (ctypes.c_byte * (((columns - 1) * lead + rows) * dtype().itemsize)).from_address(begin)
        return as_strided(np.frombuffer(numbers, dtype), (columns, rows), (lead * dtype().itemsize, dtype().itemsize)).T

    scalars = [np.frombuffer((ctypes.c_byte * dtype().itemsize).from_address(x), dtype)[0] for x in (alpha, beta)]
    for lane in range(lanes):
        a, b = matrix(A, lane, step_a, k, lda, m), matrix(B, lane, step_b, k, ldb, n)
        c = matrix(C, lane, step_c, m, ldc, n)
        c[...] = scalars[0] * (a.T @ b) + (scalars[1] * c if scalars[1] else 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_asked_of_cublas_as_it_counts(dtype, host, monkeypatch):
    calls = []
    cublas = SimpleNamespace(gemmStridedBatchedEx=partial(column_major_product, calls))
    modules = {"cupy": {}, "cupy.cuda": {"cublas": cublas}, "cupy.cuda.device": {"get_cublas_handle": lambda: "handle"}}
    for name, members in modules.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    attributes = {"MultiProcessorCount": 1, "MaxSharedMemoryPerBlockOptin": 0}
    device, rng = Cuda(SimpleNamespace(attributes=attributes, compute_capability="90")), np.random.default_rng(0)
    for rows, lanes, n, count in [(5, 1, 4, 3), (7, 3, 2, 2), (1, 2, 3, 1)]:
        weights = rng.standard_normal((lanes, count * n, n)).astype(dtype).view(OnDevice)
        states = rng.standard_normal((rows, 2, lanes, n)).astype(dtype).view(OnDevice)
        for add in (False, True):
            out = rng.standard_normal((rows, lanes, count * n)).astype(dtype).view(OnDevice)
            wanted = np.array(out)
            device.product(weights, states[:, 1], out, add=add, rough=False)
            host.product(np.array(weights), np.array(states[:, 1]), wanted, add=add, rough=False)
            np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
    device.product(weights, states[:, 1], out, add=False, rough=True)
    assert calls[-2:] == ([68, 77] if dtype is np.float32 else [70, 70])
