"""How numbers and arrays lie in a message, on the host and on a device.

A message is a row of bytes: a header, float64 numbers, arrays. On a device the host does not wait for it: header and
numbers go there and come back through memory that the device copies itself, and arrays are used as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, kind_of, namespace, to_host
from recsolve.kernels.gpu.device import Reader, on

HEADER = 64  # bytes: the number of the message, whether its rank goes on, the digest of its call, bytes that follow
_ALIGNED = 16


def aligned(nbytes: int) -> int:
    """Return how many bytes an array takes in a message."""
    return -(-nbytes // _ALIGNED) * _ALIGNED


def length_of(numbers: Array, arrays: Sequence[Array]) -> int:
    """Return how many bytes follow the header."""
    return aligned(numbers.nbytes) + sum(aligned(x.nbytes) for x in arrays)


def _fill(row: Array, arrays: Sequence[Array], place: int) -> None:
    """Put arrays into a row of bytes of their namespace."""
    for x in arrays:
        if x.nbytes:
            row[place : place + x.nbytes].view(x.dtype).reshape(x.shape)[...] = x
        place += aligned(x.nbytes)


def stacked(rows: Array, numbers: Array, arrays: Sequence[Array]) -> list[Array]:
    """Return the arrays of all ranks, (ranks, ...) each, of rows of bytes; ``arrays`` are like those of each rank."""
    place, found = HEADER + aligned(numbers.nbytes), []
    for x in arrays:
        first = place // x.itemsize
        found.append(rows.view(x.dtype)[:, first : first + x.size].reshape(len(rows), *x.shape))
        place += aligned(x.nbytes)
    return found


class OnHost:
    """Messages between processes, over the host."""

    def packed(self, head: Array, numbers: Array, arrays: Sequence[Array], size: int) -> Any:
        """Return a message as a tensor of so many bytes."""
        import torch

        row = np.zeros(size, np.uint8)
        row[: head.nbytes] = head.view(np.uint8)
        row[HEADER : HEADER + numbers.nbytes] = numbers.view(np.uint8)
        _fill(row, [to_host(x) for x in arrays], HEADER + aligned(numbers.nbytes))
        return torch.from_numpy(row)

    def placed(self, message: Any) -> Any:
        """Return a tensor where messages are sent from."""
        return message

    def started(self, work: Any, out: Any, count: int) -> tuple[Callable[[], bool], Callable[[], Array]]:
        """Return whether a message has come, and what brings ``count`` bytes of every rank to the host then."""

        def brought() -> Array:
            if work is not None:
                work.wait()
            found: Array = out[:, :count].numpy()
            return found

        return (lambda: True) if work is None else work.is_completed, brought

    def native(self, rows: Any, like: Sequence[Array]) -> Array:
        """Return rows of bytes as a native array, of the namespace of some arrays."""
        host: Array = rows.numpy()
        return namespace(like[0]).asarray(host) if like and kind_of(like[0]) == "cupy" else host

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Order what torch does with what CuPy does, where both work on a device."""
        yield


class OnDevice:
    """Messages between devices, by NCCL: all is asked for on CuPy's current stream."""

    def __init__(self) -> None:
        self._row: tuple[Any, Any] | None = None  # what is sent, as torch and as CuPy see it; the last message has gone

    def packed(self, head: Array, numbers: Array, arrays: Sequence[Array], size: int) -> Any:
        import cupy
        import torch

        device = torch.device("cuda", torch.cuda.current_device())
        if self._row is None or len(self._row[0]) != size or self._row[0].device != device:
            fresh = torch.zeros(size, dtype=torch.uint8, device=device)
            self._row = fresh, cupy.from_dlpack(fresh)
        row, seen = self._row
        begin = HEADER + aligned(numbers.nbytes)
        staged = torch.zeros(begin, dtype=torch.uint8, pin_memory=True)
        host = staged.numpy()
        host[: head.nbytes] = head.view(np.uint8)
        host[HEADER : HEADER + numbers.nbytes] = numbers.view(np.uint8)
        row[:begin].copy_(staged, non_blocking=True)
        _fill(seen, arrays, begin)
        return row

    def placed(self, message: Any) -> Any:
        return message.cuda()

    def started(self, work: Any, out: Any, count: int) -> tuple[Callable[[], bool], Callable[[], Array]]:
        import torch

        if work is not None:
            work.wait()  # the stream does, not the host
        host = torch.empty((len(out), count), dtype=torch.uint8, pin_memory=True)
        host.copy_(out[:, :count], non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        there = event.query if work is None else lambda: work.is_completed() and event.query()
        return there, host.numpy

    def native(self, rows: Any, like: Sequence[Array]) -> Array:
        import cupy

        found: Array = cupy.from_dlpack(rows)
        return found

    @contextmanager
    def stream(self) -> Iterator[None]:
        import cupy
        import torch

        own = cupy.cuda.get_current_stream().ptr
        if own == torch.cuda.current_stream().cuda_stream:
            yield
            return
        same = torch.cuda.ExternalStream(own) if own else torch.cuda.default_stream()
        with torch.cuda.stream(same):
            yield


class Soon:
    """An array on its way to the host, which :meth:`read` waits for, but for nothing that was asked for after it."""

    def __init__(self, x: Array):
        self._x = x
        self._reader: Reader | None = None
        if kind_of(x) == "cupy" and x.size:
            with on(x, None) as machine:
                self._reader = machine.reader(namespace(x).ascontiguousarray(x))
                self._reader.send()
                self._reader.mark()

    def read(self) -> Array:
        """Return the array on the host."""
        return to_host(self._x) if self._reader is None else self._reader.read().reshape(self._x.shape)
