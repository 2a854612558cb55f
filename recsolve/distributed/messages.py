"""What one rank sends to all others, as bytes: a header, some numbers, then some arrays of its device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, from_native, kind_of, namespace, to_host

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
        Whether bytes are sent from a GPU.
    """
    import torch

    sizes = [_aligned(x.nbytes) for x in arrays]
    place = HEADER + _aligned(numbers.nbytes)
    host = np.zeros(max(place + sum(sizes), least), np.uint8)
    host[: 8 * len(head)] = np.array(head, np.int64).view(np.uint8)
    host[HEADER : HEADER + numbers.nbytes] = numbers.view(np.uint8)
    if not on_device:
        for x, size in zip(arrays, sizes, strict=True):
            host[place : place + x.nbytes] = np.ascontiguousarray(to_host(x)).reshape(-1).view(np.uint8)
            place += size
        return torch.from_numpy(host)
    packed = torch.empty(len(host), dtype=torch.uint8, device=torch.device("cuda", torch.cuda.current_device()))
    packed[:place] = torch.from_numpy(host[:place])
    for x, size in zip(arrays, sizes, strict=True):
        if x.nbytes:
            flat = namespace(x).ascontiguousarray(x).reshape(-1).view(np.uint8)
            packed[place : place + x.nbytes] = from_native(flat, "torch")
        place += size
    return packed


def unpack(parts: Sequence[Any], numbers: Array, arrays: Sequence[Array]) -> Message:
    """Return the message of a rank, whose numbers and arrays are like those that were sent.

    Parameters
    ----------
    parts : sequence of tensor
        Its bytes after the header.
    numbers, arrays
        Those that this rank has sent.
    """
    import torch

    body = parts[0] if len(parts) == 1 else torch.cat(list(parts))
    place, found = _aligned(numbers.nbytes), []
    told = body[: numbers.nbytes].cpu().numpy().view(np.float64)
    for x in arrays:
        found.append(_like(body[place : place + x.nbytes], x))
        place += _aligned(x.nbytes)
    return Message(told, found)


def encoded(text: str) -> Array:
    """Return a text as bytes of one length, the end cut off if it is longer."""
    return np.frombuffer(text.encode()[:_TEXT].ljust(_TEXT, b"\0"), np.uint8).copy()


def decoded(coded: Array) -> str:
    """Return the text."""
    return bytes(to_host(coded)).rstrip(b"\0").decode(errors="replace")


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNED) * _ALIGNED


def _like(body: Any, x: Array) -> Array:
    """Return bytes as an array like another, of its namespace."""
    if not x.nbytes:
        return x.copy()
    if body.is_cuda:
        import cupy

        found: Array = cupy.from_dlpack(body.contiguous()).view(x.dtype).reshape(x.shape)
        return found
    host: Array = body.numpy().view(x.dtype).reshape(x.shape)
    if kind_of(x) == "cupy":
        return namespace(x).asarray(host)  # type: ignore[no-any-return]
    return host.copy()
