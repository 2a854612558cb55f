"""Messages of GPUs of one host that write to each other's memory, without a call of NCCL for each.

Each rank has a box in the memory of its GPU, into which all put their rows of a message. One launch writes the own row
to all boxes, waits for those of the others, and hands them on, to the host too, for which the host takes half the time
of a message by NCCL. Where GPUs do not see each other's memory, messages go by NCCL.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from itertools import count as counting
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

import numpy as np

from recsolve.base.arrays import Array, address
from recsolve.distributed.messages import HEADER, Letter
from recsolve.distributed.pinned import Arriving, Pinned
from recsolve.kernels.gpu.device import current
from recsolve.kernels.gpu.mailbox import BOX, LONGEST, PEERS, SLOTS, WORDS, Post

_HANDLE, _HOST = 64, 16  # bytes of what CUDA tells of memory to other processes, and of what tells hosts apart
_TRIAL = 5.0  # seconds in which a first message must have come
_LAYOUTS = 512  # that are remembered
_LOOKS = 256  # at what the device has told, between two at whether it has failed
_THERE = Path("/proc/sys/kernel/random/boot_id")  # of Linux, which alone shares memory of GPUs like this


class Mailboxes:
    """The boxes of all ranks of a group, as one of them sees them.

    The memory of a box, 2 MB, is kept until the process ends: others may still write to it.

    Parameters
    ----------
    rank : int
    boxes : list of int
        Their addresses, as far as this process is concerned.

    Attributes
    ----------
    longest : int
        Bytes that a row has room for.
    """

    longest: ClassVar[int] = LONGEST
    _KEPT: ClassVar[list[Array]] = []  # words that a device may still look at

    def __init__(self, rank: int, boxes: list[int]):
        import cupyx

        self.rank, self.boxes = rank, boxes
        self._number = 0
        self._given_up: Array = cupyx.zeros_pinned(1, np.int64)
        self._KEPT.append(self._given_up)
        self._posts: dict[Any, Post] = {}

    def post(self, letter: Letter, nbytes: int, count: int, patience: float) -> tuple[Any, Arriving]:
        """Exchange the first bytes of messages, of which the host sees ``count``.

        Parameters
        ----------
        letter : Letter
        nbytes, count : int
        patience : float
            Seconds after which the device waits no more.

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
        seen, told = room[: 8 * size].view(np.int64), room[8 * size : size * (8 + count)].reshape(size, count)
        seen[:] = 0
        number = self._number = self._number + 1
        at, came, event = room.ctypes.data, [number] * size, pinned.event()
        try:
            self._send(letter, number, rows.data_ptr(), nbytes, at + 8 * size, count, at, patience)
        except Exception:  # nobody has seen anything of it
            self._number -= 1
            raise
        event.record()
        looks = counting(1)

        def there() -> bool:
            if seen.tolist() == came:
                return True
            if next(looks) % _LOOKS == 0:
                event.done  # noqa: B018  # it raises where the device has failed, which then tells nothing any more
            return False

        def read() -> Array:
            found = told.copy()
            pinned.back(room, event)
            return found

        return rows, (there, read)

    def _send(self, letter: Letter, number: int, rows: int, nbytes: int, *where: Any) -> None:
        """Launch what exchanges a message; of one with more parts than a launch takes, what has been packed before."""
        layout, words = letter.layout, letter.words
        if len(words) <= WORDS and len(layout.arrays) <= SLOTS and layout.length <= nbytes:
            post = self._posts.get(layout) or self._post(layout, len(words), *layout.parts)
            post.words[:] = words
            plain = letter.plain()
            post(number, [address(x) for x in plain], rows, nbytes, *where)
        else:
            post = self._posts.get(nbytes) or self._post(nbytes, 0, [0], [nbytes])
            post(number, [letter.packed.data_ptr()], rows, nbytes, *where)

    def _post(self, key: Any, words: int, places: list[int], sizes: list[int]) -> Post:
        if len(self._posts) >= _LAYOUTS:
            self._posts.clear()
        word = self._given_up.ctypes.data
        found = self._posts[key] = Post(self.rank, self.boxes, word, words, places, sizes, current())
        return found

    def prepared(self, letter: Letter) -> Mailboxes:
        """Return these, with what exchanges such messages compiled."""
        self._post(letter.layout, len(letter.words), *letter.layout.parts)
        return self

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
    letter = Letter((rank + 1, 0, 0, 0), np.zeros(0), ())
    found: Mailboxes | None = None
    if own.any() and (told[:, :_HOST] == own[:_HOST]).all():
        shown = [told[other, _HOST:].tobytes() for other in range(size)]
        with suppress(Exception):
            boxes = [box if other == rank else runtime.ipcOpenMemHandle(shown[other]) for other in range(size)]
            found = Mailboxes(rank, boxes).prepared(letter)
    if not gather(np.array([found is not None], np.uint8)).all():
        return None
    assert found is not None
    # What cannot be written to may look as if it could.
    return found if gather(np.array([_tried(found, letter)], np.uint8)).all() else None


def _tried(boxes: Mailboxes, letter: Letter) -> bool:
    """Return whether a first message comes, and says what all have sent."""
    try:
        _, (there, told) = boxes.post(letter, HEADER, HEADER, _TRIAL)
        until = monotonic() + _TRIAL
        while not there():
            if monotonic() > until:
                boxes.give_up()
                return False
        said = told().view(np.int64)[:, 0]
        return bool((said == np.arange(1, len(said) + 1)).all())
    except Exception:
        return False
    except BaseException:  # nobody else knows of these boxes yet
        boxes.give_up()
        raise


def _host() -> Array:
    """Return what tells this host, since it has started, from others."""
    booted = _THERE.read_bytes() if _THERE.exists() else b""
    return np.frombuffer(blake2b(platform.node().encode() + booted, digest_size=_HOST).digest(), np.uint8)
