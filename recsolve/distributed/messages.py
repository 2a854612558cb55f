"""What one rank sends to all others, as bytes: a header, some numbers, then some arrays of its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, kind_of, namespace, to_host
from recsolve.kernels.gpu.device import Reader, on

HEADER = 32  # bytes: whether its rank goes on, the digest of its call and of what it sends, a number of its own
_ALIGNED = 16
_TEXT = 4096


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
    first = torch.zeros(begin if on_device else size, dtype=torch.uint8, pin_memory=on_device)
    host: Array = first.numpy()
    host[: 8 * len(head)] = np.array(head, np.int64).view(np.uint8)
    host[HEADER : HEADER + numbers.nbytes] = numbers.view(np.uint8)
    if not on_device:
        _fill(host, [to_host(x) for x in arrays], begin)
        return first
    packed = torch.empty(size, dtype=torch.uint8, device=torch.device("cuda", torch.cuda.current_device()))
    packed[:begin].copy_(first, non_blocking=True)
    if arrays:
        _fill(_on_device(packed), arrays, begin)
    return packed


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
    place, end = HEADER + _aligned(numbers.nbytes), HEADER + numbers.nbytes
    if told.shape[1] < end:
        told = rows[:, :end].cpu().numpy()
    said = np.ascontiguousarray(told[:, HEADER:end]).view(np.float64)
    if not arrays:
        return [Message(own, []) for own in said]
    native = _on_device(rows) if rows.is_cuda else rows.numpy()
    if kind_of(arrays[0]) == "cupy" and not rows.is_cuda:
        native = namespace(arrays[0]).asarray(native)
    found = []
    for x in arrays:
        first = place // x.itemsize
        found.append(native.view(x.dtype)[:, first : first + x.size].reshape(len(native), *x.shape))
        place += _aligned(x.nbytes)
    return [Message(own, [x[rank] for x in found]) for rank, own in enumerate(said)]


def arriving(rows: Any, count: int) -> tuple[Callable[[], bool], Callable[[], Array]]:
    """Return whether bytes of all ranks have come, as far as this says, and what gives ``count`` of each on the host.

    On a device they are asked for here, in its order, so that the host waits once for a message and what it says.
    """
    import torch

    if not rows.is_cuda:
        return lambda: True, rows[:, :count].numpy
    host = torch.empty((len(rows), count), dtype=torch.uint8, pin_memory=True)
    host.copy_(rows[:, :count], non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return event.query, host.numpy


@contextmanager
def one_stream(on_device: bool) -> Iterator[None]:
    """Let torch ask the device for things in the order in which CuPy does, on CuPy's current stream."""
    if not on_device:
        yield
        return
    import cupy
    import torch

    own = cupy.cuda.get_current_stream().ptr
    if own == torch.cuda.current_stream().cuda_stream:
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
    import cupy

    found: Array = cupy.from_dlpack(tensor)
    return found
