"""Messages of GPUs of one host that write to each other's memory, without a call of NCCL for each.

Each rank has a box in the memory of its GPU, into which all put their rows of a message. One launch writes the own row
to all boxes, waits for those of the others, and hands them on, to the host too: a fifth of the host's time that NCCL
takes, and as little of the device's. Where GPUs do not see each other's memory, messages go by NCCL.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, address
from recsolve.distributed.messages import Arriving, Letter, Pinned
from recsolve.kernels.gpu.device import on
from recsolve.kernels.gpu.mailbox import BOX, LONGEST, PEERS, SLOTS, WORDS, Post

_HANDLE, _HOST = 64, 16  # bytes of what CUDA tells of memory to other processes, and of what tells hosts apart
_TRIAL = 5.0  # seconds in which a first message must have come
_LAYOUTS = 512  # that are remembered
_THERE = Path("/proc/sys/kernel/random/boot_id")  # of Linux, which alone shares memory of GPUs like this


class Mailboxes:
    """The boxes of all ranks of a group, as one of them sees them.

    Parameters
    ----------
    rank : int
    boxes : list of int
        Their addresses, as far as this process is concerned.
    """

    def __init__(self, rank: int, boxes: list[int]):
        import cupyx

        self.rank, self.boxes = rank, boxes
        self._number = 0
        self._given_up: Array = cupyx.zeros_pinned(1, np.int64)
        self._posts: dict[Any, Post] = {}

    def takes(self, nbytes: int) -> bool:
        """Return whether rows of so many bytes have room."""
        return nbytes <= LONGEST

    def post(self, letter: Letter, nbytes: int, count: int) -> tuple[Any, Arriving]:
        """Exchange the first bytes of messages, of which the host sees ``count``.

        Returns
        -------
        rows : tensor of bytes, shape (ranks, nbytes)
        arriving : Arriving
        """
        import torch

        size = len(self.boxes)
        rows = torch.empty((size, nbytes), dtype=torch.uint8, device="cuda")
        pinned = Pinned.here()
        room = pinned.take(size * (8 + count))
        seen = room[: 8 * size].view(np.int64)
        seen[:] = 0
        number, at = self._number + 1, room.ctypes.data
        came, told = [number] * size, room[8 * size : size * (8 + count)].reshape(size, count)
        self._send(letter, number, rows.data_ptr(), nbytes, at + 8 * size, count, at)
        self._number = number  # of one that failed before it was launched the others have not seen anything

        def read() -> Array:
            found = told.copy()
            pinned.back(room)
            return found

        return rows, (lambda: seen.tolist() == came, read)

    def _send(self, letter: Letter, number: int, *where: int) -> None:
        """Launch what exchanges a message; of one with more parts than a launch takes, what has been packed before."""
        layout, words = letter.layout, letter.words
        if len(words) <= WORDS and len(layout.arrays) <= SLOTS and self.takes(layout.length):
            post = self._posts.get(layout) or self._post(layout, len(words), *layout.parts)
            post.words[:] = words
            plain = letter.plain
            post(number, [address(x) for x in plain], *where)
        else:
            row = where[1]
            post = self._posts.get(row) or self._post(row, 0, [0], [row])
            post(number, [letter.packed.data_ptr()], *where)

    def _post(self, key: Any, words: int, places: list[int], sizes: list[int]) -> Post:
        import cupy

        if len(self._posts) >= _LAYOUTS:
            self._posts.clear()
        with on(cupy.empty(0, np.uint8), None) as machine:
            found = self._posts[key] = Post(
                self.rank, self.boxes, self._given_up.ctypes.data, words, places, sizes, machine
            )
        return found

    def give_up(self) -> None:
        """Let what waits on the device end, whatever it finds."""
        self._given_up[0] = 1


def opened(rank: int, size: int, gather: Callable[[Array], Array]) -> Mailboxes | None:
    """Return the boxes of all ranks; None, on all of them, where some do not see each other's memory.

    Parameters
    ----------
    rank, size : int
    gather : callable
        Returns the bytes of all ranks, (ranks, n), given those of this one; n is the same on all.
    """
    import cupy

    runtime = cupy.cuda.runtime
    own = np.zeros(_HOST + _HANDLE, np.uint8)
    box = 0
    if size <= PEERS:
        with suppress(Exception):  # which others have to be told, and no more
            box = runtime.malloc(BOX)
            runtime.memset(box, 0, BOX)
            runtime.deviceSynchronize()
            handle = np.frombuffer(runtime.ipcGetMemHandle(box), np.uint8)
            own[:] = np.concatenate([_host(), handle])
    told = gather(own)
    boxes: list[int] = []
    if own.any() and (told[:, :_HOST] == own[:_HOST]).all():
        with suppress(Exception):
            for other in range(size):
                shown = told[other, _HOST:].tobytes()
                boxes.append(box if other == rank else runtime.ipcOpenMemHandle(shown))
    if not gather(np.array([len(boxes) == size], np.uint8)).all():
        return None
    found = Mailboxes(rank, boxes)
    # What cannot be written to may look as if it could.
    return found if gather(np.array([_tried(found, size)], np.uint8)).all() else None


def _tried(boxes: Mailboxes, size: int) -> bool:
    """Return whether a first message comes, and says what all have sent."""
    letter = Letter((boxes.rank + 1,), np.zeros(0), ())
    _, (there, told) = boxes.post(letter, 64, 32)
    until = monotonic() + _TRIAL
    while not there():
        if monotonic() > until:
            boxes.give_up()
            return False
    return bool((told().view(np.int64)[:, 0] == np.arange(1, size + 1)).all())


def _host() -> Array:
    """Return what tells this host, since it has started, from others."""
    booted = _THERE.read_bytes() if _THERE.exists() else b""
    return np.frombuffer(blake2b(platform.node().encode() + booted, digest_size=_HOST).digest(), np.uint8)
