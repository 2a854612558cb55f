"""What one rank sends to all others, as bytes: a header, some numbers, then some arrays of its device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, kind_of, namespace, to_host
from recsolve.distributed.pinned import Arriving, Pinned
from recsolve.kernels.gpu.device import Reader, current, on
from recsolve.kernels.gpu.message import Packing
from recsolve.kernels.gpu.ranks import summed

HEADER = 32  # bytes: whether its rank goes on, the digest of what it does, a number of its own, and that of the call
_ALIGNED = 16
_LAYOUTS = 512  # that are remembered
_TEXT = 4096  # bytes of a text


class Layout(NamedTuple):
    """Where the arrays of a message lie, in bytes from its beginning, and how long it is, the header included."""

    numbers: int
    arrays: tuple[tuple[np.dtype[Any], tuple[int, ...], int, int], ...]  # dtype, shape, place and bytes of each
    length: int

    @property
    def parts(self) -> tuple[list[int], list[int]]:
        """Where arrays lie, and how many bytes each has."""
        return [place for *_, place, _ in self.arrays], [nbytes for *_, nbytes in self.arrays]


def layout_of(numbers: Array, arrays: Sequence[Array]) -> Layout:
    """Return the layout of messages of such numbers and arrays."""
    return _layout(numbers.size, tuple([(x.dtype, x.shape) for x in arrays]))


@lru_cache(maxsize=_LAYOUTS)
def _layout(numbers: int, arrays: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]) -> Layout:
    place, found = HEADER + _aligned(8 * numbers), []
    for dtype, shape in arrays:
        nbytes = dtype.itemsize * prod(shape)
        found.append((dtype, shape, place, nbytes))
        place += _aligned(nbytes)
    return Layout(numbers, tuple(found), place)


class Letter:
    """A message of this rank, before it is sent.

    Parameters
    ----------
    head : sequence of int
        The numbers of the header.
    numbers : array of float64
    arrays : sequence of native arrays
    least : int
        How many bytes there are, header included, if the message is shorter.
    on_device : bool
        Whether bytes are sent from a GPU, for which the host does not wait.
    """

    def __init__(
        self, head: Sequence[int], numbers: Array, arrays: Sequence[Array], least: int = HEADER, on_device: bool = True
    ):
        self.head, self.numbers, self.arrays, self.on_device = head, numbers, arrays, on_device
        self.layout = layout_of(numbers, arrays)
        self.size = max(self.layout.length, least)

    @property
    def words(self) -> list[int]:
        """What the host tells, in words of 64 bits."""
        return [*self.head, *self.numbers.view(np.int64).tolist()]

    def plain(self) -> list[Array]:
        """The arrays, as they lie on the device without gaps."""
        return [x if _plain(x) else _made_plain(x) for x in self.arrays]

    @cached_property
    def packed(self) -> Any:
        """The message as a tensor of bytes."""
        import torch

        if self.on_device:
            return self._packed_there()
        packed = torch.zeros(self.size, dtype=torch.uint8)
        host: Array = packed.numpy()
        host[:HEADER].view(np.int64)[:] = self.head
        host[HEADER : HEADER + self.numbers.nbytes] = self.numbers.view(np.uint8)
        for x, (dtype, shape, place, nbytes) in zip(self.arrays, self.layout.arrays, strict=True):
            if nbytes:
                host[place : place + nbytes].view(dtype).reshape(shape)[...] = to_host(x)
        return packed

    def _packed_there(self) -> Any:
        """Return it as bytes of the device: one launch."""
        import torch

        kept = Pinned.here().packings
        packing = kept.get(self.layout)
        if packing is None:
            if len(kept) >= _LAYOUTS:
                kept.clear()
            packing = kept[self.layout] = Packing(len(self.words), *self.layout.parts, current())
        packing.words[:] = self.words
        packed = torch.empty(self.size, dtype=torch.uint8, device="cuda")
        packing(packed.data_ptr(), self.plain())
        return packed


def unpack(rows: Any, told: Array, numbers: Array, arrays: Sequence[Array]) -> tuple[Array, list[Array]]:
    """Return the numbers of all ranks, (ranks, n), and their arrays, (ranks, ...), which are like those that were sent.

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
    said = np.ascontiguousarray(told[:, HEADER:end]).view(np.float64).reshape(len(told), numbers.size)
    return said, stacked(rows, numbers, arrays)


def stacked(rows: Any, numbers: Array, arrays: Sequence[Array]) -> list[Array]:
    """Return the arrays of all ranks, (ranks, ...) each, for which a device does not wait."""
    if not arrays:
        return []
    if rows.is_cuda:
        return _views_on_device(rows, layout_of(numbers, arrays))
    native = rows.numpy()
    return views(namespace(arrays[0]).asarray(native) if kind_of(arrays[0]) == "cupy" else native, numbers, arrays)


def views(rows: Array, numbers: Array, arrays: Sequence[Array]) -> list[Array]:
    """Return the arrays, (ranks, ...) each, that lie in rows of bytes, (ranks, bytes)."""
    found = []
    for dtype, shape, place, nbytes in layout_of(numbers, arrays).arrays:
        first, count = place // dtype.itemsize, nbytes // dtype.itemsize
        found.append(rows.view(dtype)[:, first : first + count].reshape(len(rows), *shape))
    return found


def _views_on_device(rows: Any, layout: Layout) -> list[Array]:
    """Return the same of a tensor, by one object for each: what CuPy and torch do is in the order of one stream."""
    import cupy

    nbytes, ranks, apart = rows.numel(), len(rows), rows.stride(0)
    memory = cupy.cuda.UnownedMemory(rows.data_ptr(), nbytes, rows, rows.device.index)
    found = []
    for dtype, shape, place, _ in layout.arrays:
        begins = cupy.cuda.MemoryPointer(memory, place)
        found.append(cupy.ndarray((ranks, *shape), dtype, begins, (apart, *_strides(shape, dtype.itemsize))))
    return found


@lru_cache(maxsize=_LAYOUTS)
def _strides(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return the distances of axes in a contiguous array, in bytes."""
    return tuple(size * prod(shape[axis + 1 :]) for axis in range(len(shape)))


def arriving(rows: Any, count: int) -> Arriving:
    """Return whether bytes of all ranks have come, as far as this says, and what gives ``count`` of each on the host.

    On a device they are asked for here, in its order, so that the host waits once for a message and what it says.
    """
    if not rows.is_cuda:
        return lambda: True, rows[:, :count].numpy
    return Pinned.here().arriving(rows, count)


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


_CONSTANTS: dict[tuple[Any, ...], Array] = {}  # of devices


def constant(like: Array, shape: tuple[int, ...], dtype: np.dtype[Any], value: float) -> Array:
    """Return an array of one number, which is sent and read, but never written to: a device fills it once."""
    xp = namespace(like)
    if xp is np:
        return np.full(shape, value, dtype)
    device: Any = like.device
    key = device.id, xp.cuda.get_current_stream().ptr, shape, dtype, value
    if key not in _CONSTANTS:
        if len(_CONSTANTS) >= _LAYOUTS:
            _CONSTANTS.clear()
        _CONSTANTS[key] = xp.full(shape, value, dtype)
    return _CONSTANTS[key]


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


def sums_of(arrays: Sequence[Array]) -> list[Array]:
    """Return the sums over ranks of arrays (ranks, ...) that have come with one message, for which nothing waits."""
    found = summed(arrays) if arrays and kind_of(arrays[0]) == "cupy" else None
    return [_sum(x) for x in arrays] if found is None else found


def _sum(x: Array) -> Array:
    """Return the sum over ranks, in their order; it is an array, also of those without axes."""
    total = x[:1].copy()
    for rank in range(1, len(x)):
        total += x[rank]
    return total.reshape(x.shape[1:])


def encoded(text: str) -> Array:
    """Return a text as bytes of one length, the end cut off if it is longer."""
    return np.frombuffer(text.encode()[:_TEXT].ljust(_TEXT, b"\0"), np.uint8).copy()


def decoded(coded: Array) -> str:
    """Return the text."""
    return bytes(to_host(coded)).rstrip(b"\0").decode(errors="replace")


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNED) * _ALIGNED


def _plain(x: Array) -> bool:
    """Return whether an array lies on the device without gaps."""
    return kind_of(x) == "cupy" and x.flags.c_contiguous


def _made_plain(x: Array) -> Array:
    import cupy

    return cupy.ascontiguousarray(cupy.asarray(x))  # type: ignore[no-any-return]
