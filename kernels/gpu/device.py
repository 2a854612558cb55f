"""Where kernels run: launches, matrix products, captured graphs, and reports that the host reads.

What uses a machine is written once; in tests another one runs the same kernels on NumPy arrays.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from ctypes import addressof, c_char, c_void_p
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np

from recsolve.base.arrays import Array, address
from recsolve.kernels.gpu.modules import Kernels, compile_kernel

SHARED = 227 << 10  # bytes of shared memory that a block may have on an H100 or H200
CLUSTER = 8  # blocks of a cluster on any device that has clusters
_CLUSTERS = 90  # the compute capability that has them
LITTLE = 1 << 10  # bytes of shared memory, such as those of a report, for which the cache is left as it is
_HELD = 8  # graphs that may still run
_GRIDS = 4096  # kernels and grids that are remembered
_TF32 = 77  # CUBLAS_COMPUTE_32F_FAST_TF32
_COMPUTE = {"f": 68, "d": 70}  # CUBLAS_COMPUTE_32F and _64F
_TYPES = {"f": 0, "d": 1}  # CUDA_R_32F and _64F
_FACTORS = {char: [np.full((), value, char) for value in (0, 1)] for char in _TYPES}
_Arguments = c_void_p * 1  # of a kernel that is given one structure
_TRANSPOSED, _PLAIN, _DEFAULT = 1, 0, -1  # of cuBLAS


class Launch(NamedTuple):
    """A kernel, the grid that it runs on, and what it is given.

    Attributes
    ----------
    code : str
        The module, a text that includes nothing.
    kernel : str
        Its C++ name.
    options : tuple of str
        Of the compiler.
    blocks, threads, shared : int
        Blocks, threads of a block, and bytes of shared memory of a block.
    problem : array
        The structure that is passed by value, in any dtype.
    """

    code: str
    kernel: str
    options: tuple[str, ...]
    blocks: int
    threads: int
    shared: int
    problem: Array


class Machine(Protocol):
    """Where kernels run, one after the other.

    Attributes
    ----------
    kind : str
        Of the arrays that kernels take.
    processors : int
        Multiprocessors.
    shared : int
        Bytes of shared memory that a block may have.
    cluster : int
        Blocks that may write to each other's shared memory.
    """

    kind: str
    processors: int
    shared: int
    cluster: int

    def launch(self, launch: Launch) -> None:
        """Run a kernel."""

    def prepared(self, launch: Launch) -> Callable[[], None]:
        """Return what launches a kernel with what its structure holds by then."""

    def product(self, weights: Array, x: Array, out: Array, *, add: bool, rough: bool) -> None:
        """Fill ``out`` (rows, lanes, m) with W x, or add that: weights (lanes, m, n), x (rows, lanes, n).

        ``rough`` allows factors of eleven bits instead of float32.
        """

    def captured(self, run: Callable[[], None]) -> Callable[[], None]:
        """Return what does the same in one launch, as long as the arrays it uses are kept."""

    def clear(self, report: Array, size: int | None = None) -> None:
        """Set so many bytes of a report to zero, by default all."""

    def reader(self, report: Array, dtype: Any = None, count: int | None = None) -> Reader:
        """Return what brings a report to the host, or so many numbers at its beginning, of another dtype perhaps."""

    def coming(self, report: Array, count: int) -> Callable[[], Array]:
        """Ask for so many int32 at the beginning of a report; return what waits for them, once, but nothing later."""

    def brought(self, report: Array, count: int) -> Array:
        """Return so many int32 at the beginning of a report on the host, once all that was launched is done."""


class Reader(Protocol):
    """A report on its way to the host."""

    def send(self) -> None:
        """Start to copy it; this may be captured."""

    def mark(self) -> None:
        """Note that the copy has been asked for."""

    def read(self) -> Array:
        """Wait for the copy that was asked for last, but for nothing after it."""


class Cuda:
    """A device, with kernels compiled for it as they are asked for; all work goes to the current stream."""

    kind = "cupy"

    def __init__(self, device: Any):
        self.processors = int(device.attributes["MultiProcessorCount"])
        self.shared = int(device.attributes["MaxSharedMemoryPerBlockOptin"])
        self.cluster = CLUSTER if int(device.compute_capability) >= _CLUSTERS else 1
        self._kernels = Kernels()
        self._launched: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}  # kernels with what launches them
        self._readers: defaultdict[int, list[_Pinned]] = defaultdict(list)  # that nothing waits for, by their size
        self._capturing: Any = None  # a stream, for one Python thread at a time
        self._lock = Lock()
        self._held: deque[Any] = deque(maxlen=_HELD)

    def launch(self, launch: Launch) -> None:
        """Launch on the current stream; CuPy raises what the driver reports."""
        self.prepared(launch)()

    def prepared(self, launch: Launch) -> Callable[[], None]:
        """Return a launch on the current stream, without the microseconds in which CuPy looks at arguments."""
        from cupy.cuda import driver, get_current_stream

        kernel, given = self._launched.get(launch[:-1]) or self._first(launch)
        # Where the structure is, which a launch copies; NumPy takes three times as long to tell.
        arguments = _Arguments(addressof(c_char.from_buffer(launch.problem)))  # type: ignore[arg-type]
        where, kept = addressof(arguments), (kernel, launch.problem, arguments)

        def run(kept: Any = kept) -> None:
            driver.launchKernel(*given, get_current_stream().ptr, where, 0)

        return run

    def _first(self, launch: Launch) -> tuple[Any, tuple[Any, ...]]:
        """Return a kernel, compiled if it is new, and what launches it on this grid."""
        code, name, options, blocks, threads, shared, _ = launch
        if blocks >= 1 << 31:
            raise ValueError(f"a launch of {blocks} blocks; wanted fewer than 2^31")
        room = self.shared if shared > LITTLE else 0
        kernel = self._kernels.get(launch[:3], lambda: compile_kernel(code, name, options, room))
        if len(self._launched) >= _GRIDS:
            self._launched.clear()
        found = self._launched[launch[:-1]] = kernel, (kernel.kernel.ptr, blocks, 1, 1, threads, 1, 1, shared)
        return found

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

    def clear(self, report: Array, size: int | None = None) -> None:
        """Set bytes of a report to zero on the current stream."""
        report.data.memset_async(0, report.nbytes if size is None else size)  # type: ignore[attr-defined]

    def reader(self, report: Array, dtype: Any = None, count: int | None = None) -> Reader:
        """Return a copy in memory that the device can write to."""
        kind = report.dtype if dtype is None else np.dtype(dtype)
        return _Pinned(report, kind, report.size if count is None else count)

    def coming(self, report: Array, count: int) -> Callable[[], Array]:
        """Ask for the numbers, in memory that the device can write to, which is kept for the next call."""
        kept = self._readers[4 * count]
        reader = kept.pop() if kept else _Pinned(report, np.dtype(np.int32), count)
        reader.report = report
        reader.send()
        reader.mark()

        def read() -> Array:
            numbers = reader.read().copy()
            kept.append(reader)
            return numbers

        return read

    def brought(self, report: Array, count: int) -> Array:
        """Wait for the numbers."""
        return self.coming(report, count)()


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
    def __init__(self, report: Array, dtype: np.dtype[Any], count: int):
        import cupy

        self.report, self.size = report, dtype.itemsize * count
        self.memory = cupy.cuda.alloc_pinned_memory(self.size)
        self.host: Array = np.frombuffer(self.memory, dtype, count)
        self.event = cupy.cuda.Event(disable_timing=True)

    def send(self) -> None:
        import cupy

        stream = cupy.cuda.get_current_stream().ptr
        to_host = cupy.cuda.runtime.memcpyDeviceToHost
        cupy.cuda.runtime.memcpyAsync(self.memory.ptr, address(self.report), self.size, to_host, stream)

    def mark(self) -> None:
        self.event.record()

    def read(self) -> Array:
        self.event.synchronize()
        return self.host


_DEVICES: dict[int, Cuda] = {}


def on(like: Array, machine: Machine | None) -> AbstractContextManager[Machine]:
    """Return a context that gives the machine given, or the device of an array, which is the current one meanwhile."""
    if machine is not None:
        return nullcontext(machine)
    import cupy

    device: Any = like.device
    found = _DEVICES.get(device.id) or _DEVICES.setdefault(device.id, Cuda(device))
    return nullcontext(found) if cupy.cuda.runtime.getDevice() == device.id else _entered(device, found)


def current() -> Machine:
    """Return the current device."""
    import cupy

    with on(cupy.empty(0, np.uint8), None) as machine:
        return machine


@contextmanager
def _entered(device: Any, machine: Machine) -> Iterator[Machine]:
    with device:
        yield machine
