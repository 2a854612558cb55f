"""Where stages and sweeps run: launches, matrix products, captured graphs, and reports that the host reads.

What uses a machine is written once; in tests another one runs the same kernels on NumPy arrays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Protocol

import numpy as np

from recsolve.base.arrays import Array
from recsolve.jacobians import Jacobian
from recsolve.kernels.gpu.modules import Kernels, compile_kernel
from recsolve.kernels.gpu.scan import scan_cuda
from recsolve.kernels.gpu.views import by_value
from recsolve.kernels.monoids.base import MONOIDS

THREADS = 256  # of a block
REPORT = 4  # integers
OPTIONS = ("-std=c++17", "-fmad=false")  # what is fused is spelt out
_HELD = 8  # graphs that may still run
_TF32 = 77  # CUBLAS_COMPUTE_32F_FAST_TF32
_COMPUTE = {"f": 68, "d": 70}  # CUBLAS_COMPUTE_32F and _64F
_TYPES = {"f": 0, "d": 1}  # CUDA_R_32F and _64F
_FACTORS = {char: [np.full((), value, char) for value in (0, 1)] for char in _TYPES}
_TRANSPOSED, _PLAIN, _DEFAULT = 1, 0, -1  # of cuBLAS


class Machine(Protocol):
    """Where kernels run, one after the other."""

    processors: int

    def launch(self, code: str, kernel: str, blocks: int, problem: Array) -> None:
        """Run a kernel of a module, by its C++ name, over a grid of blocks of THREADS threads."""

    def product(self, weights: Array, x: Array, out: Array, *, add: bool, rough: bool) -> None:
        """Fill ``out`` (rows, lanes, m) with W x, or add that: weights (lanes, m, n), x (rows, lanes, n).

        ``rough`` allows factors of eleven bits instead of float32.
        """

    def scanner(self, A: Jacobian, r: Array, d: Array, reset: Array | None) -> Callable[[], None] | None:
        """Return what fills d with the scan d[t] = A[t] d[t-1] + r[t], with no memory of its own; None without such."""

    def captured(self, run: Callable[[], None]) -> Callable[[], None]:
        """Return what does the same in one launch, as long as the arrays it uses are kept."""

    def clear(self, report: Array) -> None:
        """Set a report to zero."""

    def reader(self, report: Array) -> Reader:
        """Return what brings a report to the host."""


class Reader(Protocol):
    """A report on its way to the host."""

    def send(self) -> None:
        """Start to copy it; this may be captured."""

    def mark(self) -> None:
        """Note that the copy has been asked for."""

    def read(self) -> Array:
        """Wait for the copy that was asked for last, but for nothing after it."""


@contextmanager
def on(like: Array, machine: Machine | None) -> Iterator[Machine]:
    """Yield the machine given, or the device of an array, which is the current one meanwhile."""
    if machine is not None:
        yield machine
        return
    with like.device:  # type: ignore[attr-defined]
        yield current()


class Cuda:
    """A device, with kernels compiled for it as they are asked for; all work goes to the current stream."""

    def __init__(self, device: Any):
        self.processors = int(device.attributes["MultiProcessorCount"])
        self._kernels = Kernels()
        self._capturing: Any = None  # a stream, for one Python thread at a time
        self._lock = Lock()
        self._held: deque[Any] = deque(maxlen=_HELD)

    def launch(self, code: str, kernel: str, blocks: int, problem: Array) -> None:
        """Launch on the current stream; CuPy raises what the driver reports."""
        if blocks >= 1 << 31:
            raise ValueError(f"a launch of {blocks} blocks; wanted fewer than 2^31")
        self._kernel(code, kernel)((blocks,), (THREADS,), (by_value(problem.copy()),), shared_mem=4 * REPORT)

    def _kernel(self, code: str, name: str) -> Any:
        return self._kernels.get((code, name), lambda: compile_kernel(code, name, OPTIONS))

    def product(self, weights: Array, x: Array, out: Array, *, add: bool, rough: bool) -> None:
        """Multiply by cuBLAS, which counts columns first: out^T = W x^T for every lane."""
        from cupy.cuda import cublas
        from cupy.cuda.device import get_cublas_handle

        char, size = x.dtype.char, x.itemsize
        (lanes, m, n), rows = weights.shape, len(x)
        one, beta = _FACTORS[char][1], _FACTORS[char][add]
        compute = _TF32 if rough and char == "f" else _COMPUTE[char]
        kind, lead = _TYPES[char], [max(array.strides[0] // size, array.shape[-1]) for array in (x, out)]
        cublas.gemmStridedBatchedEx(
            *(get_cublas_handle(), _TRANSPOSED, _PLAIN, m, rows, n, one.ctypes.data),
            *(weights.data.ptr, kind, n, m * n),  # type: ignore[attr-defined]
            *(x.data.ptr, kind, lead[0], x.strides[1] // size, beta.ctypes.data),  # type: ignore[attr-defined]
            *(out.data.ptr, kind, lead[1], out.strides[1] // size, lanes, compute, _DEFAULT),  # type: ignore[attr-defined]
        )

    def scanner(self, A: Jacobian, r: Array, d: Array, reset: Array | None) -> Callable[[], None] | None:
        """Return a launch of the CUDA scan, if that carries such matrices."""
        return scan_cuda.launcher(MONOIDS["affine"], (A, r), d, reset=reset)

    def captured(self, run: Callable[[], None]) -> Callable[[], None]:
        """Return a graph: at first the calls themselves, which compile what they need, and then captured ones."""
        return _Captured(run, self)

    def capture(self, run: Callable[[], None]) -> Any:
        """Return a graph of what is launched by ``run``; it is held until many others have come after it."""
        import cupy

        with self._lock:
            if self._capturing is None:
                self._capturing = cupy.cuda.Stream(non_blocking=True)
            with self._capturing as stream:
                stream.begin_capture()
                try:
                    run()
                finally:
                    graph = stream.end_capture()
            self._held.append(graph)
        return graph

    def clear(self, report: Array) -> None:
        """Set a report to zero on the current stream."""
        report.data.memset_async(0, report.nbytes)  # type: ignore[attr-defined]

    def reader(self, report: Array) -> Reader:
        """Return a copy in memory that the device can write to."""
        return _Pinned(report)


class _Captured:
    def __init__(self, run: Callable[[], None], machine: Cuda):
        self.run, self.machine, self.calls = run, machine, 0
        self.graph: Any = None

    def __call__(self) -> None:
        if self.calls == 1:
            self.graph = self.machine.capture(self.run)
        self.calls += 1
        if self.graph is None:
            self.run()
        else:
            self.graph.launch()


class _Pinned:
    def __init__(self, report: Array):
        import cupy

        self.report, self.memory = report, cupy.cuda.alloc_pinned_memory(report.nbytes)
        self.host: Array = np.frombuffer(self.memory, report.dtype, report.size)
        self.event = cupy.cuda.Event(disable_timing=True)

    def send(self) -> None:
        import cupy

        stream = cupy.cuda.get_current_stream().ptr
        to_host = cupy.cuda.runtime.memcpyDeviceToHost
        address = self.report.data.ptr  # type: ignore[attr-defined]
        cupy.cuda.runtime.memcpyAsync(self.memory.ptr, address, self.report.nbytes, to_host, stream)

    def mark(self) -> None:
        self.event.record()

    def read(self) -> Array:
        self.event.synchronize()
        return self.host


_DEVICES: dict[int, Cuda] = {}


def current() -> Cuda:
    """Return the current device."""
    import cupy

    device = cupy.cuda.Device()
    return _DEVICES.setdefault(device.id, _DEVICES.get(device.id) or Cuda(device))
