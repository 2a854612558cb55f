"""What one rank sends to all others, as bytes: a header, some numbers, then some arrays of its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from recsolve.base.arrays import Array, kind_of, namespace, to_host, to_native
from recsolve.kernels.gpu.device import Reader, on

HEADER = 32  # bytes: whether its rank goes on, the digest of its call and of what it sends, a number of its own
_ALIGNED = 16
_TO_DEVICE, _TO_HOST = 1, 2  # the directions in which CUDA copies
_BYTES = (np.dtype(np.uint8),)
_TEXT = 4096


# Whether bytes have come, and what gives them.
Arriving: TypeAlias = tuple[Callable[[], bool], Callable[[], Array]]


class Message(NamedTuple):
    """What one rank has sent.

    Attributes
    ----------
    numbers : array of float64
    arrays : list of array
        In the shapes and dtypes of those that this rank has sent itself.
    """

    numbers: Array
    arrays: list[Array]


def pack(head: Sequence[int], numbers: Array, arrays: Sequence[Array], *, least: int, on_device: bool) -> Any:
    """Return a message as a tensor of bytes.

    Parameters
    ----------
    head : sequence of int
    numbers : array of float64
    arrays : sequence of native arrays
    least : int
        How many bytes there are, header included, if the message is shorter.
    on_device : bool
        Whether bytes are sent from a GPU, for which the host does not wait.
    """
    import torch

    begin = HEADER + _aligned(numbers.nbytes)
    size = max(begin + sum(_aligned(x.nbytes) for x in arrays), least)
    if on_device:
        return Pinned.here().packed(head, numbers, arrays, begin, size)
    packed = torch.zeros(size, dtype=torch.uint8)
    host: Array = packed.numpy()
    _begin(host, head, numbers)
    _fill(host, [to_host(x) for x in arrays], begin)
    return packed


def _begin(host: Array, head: Sequence[int], numbers: Array) -> None:
    """Put the header and the numbers at the beginning of a message."""
    host[: 8 * len(head)].view(np.int64)[:] = head
    host[HEADER : HEADER + numbers.nbytes] = numbers.view(np.uint8)


def _fill(row: Array, arrays: Sequence[Array], place: int) -> None:
    """Put arrays into a row of bytes of their namespace."""
    for x in arrays:
        if x.nbytes:
            row[place : place + x.nbytes].view(x.dtype).reshape(x.shape)[...] = x
        place += _aligned(x.nbytes)


def unpack(rows: Any, told: Array, numbers: Array, arrays: Sequence[Array]) -> list[Message]:
    """Return the messages of all ranks, whose numbers and arrays are like those that were sent.

    Parameters
    ----------
    rows : tensor, shape (ranks, bytes)
    told : array, shape (ranks, bytes)
        The first bytes of these on the host: the header, and the numbers if they fit.
    numbers, arrays
        Those that this rank has sent.
    """
    end = HEADER + numbers.nbytes
    if told.shape[1] < end:
        told = rows[:, :end].cpu().numpy()
    said = np.ascontiguousarray(told[:, HEADER:end]).view(np.float64)
    if not arrays:
        return [Message(own, []) for own in said]
    found = stacked(rows, numbers, arrays)
    return [Message(own, [x[rank, ...] for x in found]) for rank, own in enumerate(said)]


def stacked(rows: Any, numbers: Array, arrays: Sequence[Array]) -> list[Array]:
    """Return the arrays of all ranks, (ranks, ...) each, for which a device does not wait."""
    if not arrays:
        return []
    native = _on_device(rows) if rows.is_cuda else rows.numpy()
    if kind_of(arrays[0]) == "cupy" and not rows.is_cuda:
        native = namespace(arrays[0]).asarray(native)
    return views(native, numbers, arrays)


def views(rows: Array, numbers: Array, arrays: Sequence[Array]) -> list[Array]:
    """Return the arrays, (ranks, ...) each, that lie in rows of bytes, (ranks, bytes)."""
    place, found = HEADER + _aligned(numbers.nbytes), []
    for x in arrays:
        first = place // x.itemsize
        found.append(rows.view(x.dtype)[:, first : first + x.size].reshape(len(rows), *x.shape))
        place += _aligned(x.nbytes)
    return found


def length_of(numbers: Array, arrays: Sequence[Array]) -> int:
    """Return how many bytes a message has, the header included."""
    return HEADER + _aligned(numbers.nbytes) + sum(_aligned(x.nbytes) for x in arrays)


def arriving(rows: Any, count: int) -> Arriving:
    """Return whether bytes of all ranks have come, as far as this says, and what gives ``count`` of each on the host.

    On a device they are asked for here, in its order, so that the host waits once for a message and what it says.
    """
    if not rows.is_cuda:
        return lambda: True, rows[:, :count].numpy
    return Pinned.here().arriving(rows, count)


class Pinned:
    """Memory of the host that a device reads and writes by itself, for one message after the other of a thread.

    A message that is waited for costs 0.1 ms this way, and ten times as much with new memory for each.
    """

    _KNOWN: ClassVar[dict[tuple[int, int], Pinned]] = {}  # by device and thread

    def __init__(self) -> None:
        import cupy

        self._event = cupy.cuda.Event(disable_timing=True)
        self._sent, self._told = self._room(4096), self._room(4096)

    @classmethod
    def here(cls) -> Pinned:
        """Return that of the current device and thread."""
        import cupy

        key = cupy.cuda.runtime.getDevice(), get_ident()
        if key not in cls._KNOWN:
            cls._KNOWN[key] = cls()
        return cls._KNOWN[key]

    @staticmethod
    def _room(size: int) -> Array:
        import cupyx

        return cupyx.empty_pinned((size,), np.uint8)  # type: ignore[no-any-return]

    def packed(self, head: Sequence[int], numbers: Array, arrays: Sequence[Array], begin: int, size: int) -> Any:
        """Return a message as bytes of the device."""
        import cupy
        import torch

        if begin > len(self._sent):
            self._sent = self._room(2 * begin)
        _begin(self._sent, head, numbers)
        packed = torch.empty(size, dtype=torch.uint8, device="cuda")
        stream = cupy.cuda.get_current_stream().ptr
        cupy.cuda.runtime.memcpyAsync(packed.data_ptr(), self._sent.ctypes.data, begin, _TO_DEVICE, stream)
        if arrays:
            _fill(_on_device(packed), arrays, begin)
        return packed

    def arriving(self, rows: Any, count: int) -> tuple[Callable[[], bool], Callable[[], Array]]:
        """Ask for the first bytes of the messages of all ranks."""
        import cupy

        size = len(rows) * count
        if size > len(self._told):
            self._told = self._room(2 * size)
        stream = cupy.cuda.get_current_stream()
        if size:
            where, begins = self._told.ctypes.data, rows.data_ptr()
            cupy.cuda.runtime.memcpy2DAsync(
                where, count, begins, rows.stride(0), count, len(rows), _TO_HOST, stream.ptr
            )
        self._event.record(stream)
        return lambda: bool(self._event.done), lambda: self._told[:size].reshape(len(rows), count).copy()


@contextmanager
def one_stream(on_device: bool) -> Iterator[None]:
    """Let torch ask the device for things in the order in which CuPy does, on CuPy's current stream."""
    if not on_device:
        yield
        return
    import cupy
    import torch

    own = cupy.cuda.get_current_stream().ptr
    if own == torch._C._cuda_getCurrentRawStream(cupy.cuda.runtime.getDevice()):
        yield
        return
    with torch.cuda.stream(torch.cuda.ExternalStream(own) if own else torch.cuda.default_stream()):
        yield


class Soon:
    """An array on its way to the host, for which :meth:`read` waits, but for nothing that is asked for after it."""

    def __init__(self, x: Array):
        self._x = x
        self._reader: Reader | None = None
        if kind_of(x) == "cupy" and x.size:
            with on(x, None) as machine:
                self._reader = machine.reader(namespace(x).ascontiguousarray(x))
                self._reader.send()
                self._reader.mark()

    @property
    def waits(self) -> bool:
        """Whether it takes time."""
        return self._reader is not None

    def read(self) -> Array:
        """Return the array on the host."""
        return self._x if self._reader is None else self._reader.read().reshape(self._x.shape)


def encoded(text: str) -> Array:
    """Return a text as bytes of one length, the end cut off if it is longer."""
    return np.frombuffer(text.encode()[:_TEXT].ljust(_TEXT, b"\0"), np.uint8).copy()


def decoded(coded: Array) -> str:
    """Return the text."""
    return bytes(to_host(coded)).rstrip(b"\0").decode(errors="replace")


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNED) * _ALIGNED


def _on_device(tensor: Any) -> Array:
    return to_native(tensor, "a message", _BYTES)
