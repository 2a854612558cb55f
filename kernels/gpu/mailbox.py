"""Messages between devices that write to each other's memory: one launch puts one together, sends and receives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsolve.base.arrays import Array
from recsolve.kernels.codegen.cuda_headers import headers
from recsolve.kernels.codegen.cuda_structures import constants, fields_at, structure
from recsolve.kernels.gpu.device import Launch, Machine

_KERNEL, _THREADS, _OPTIONS = "recsolve::exchange_rows<unsigned int>", 256, ("-std=c++17",)
PEERS, ROOM, _FLAG, WORDS, SLOTS = (
    constants("ranks/mailbox")[name] for name in ("PEERS", "ROOM", "FLAG", "WORDS", "SLOTS")
)
LONGEST = ROOM - _FLAG  # bytes of a row
# Bytes of a box, which are 0 at first: a multiple of 2 MB, of which CUDA makes allocations, and shows whole ones alone.
BOX = 2 * PEERS * ROOM
_MAIL = structure("ranks/mailbox", "Mail")
_AT = fields_at(_MAIL)


class Post:
    """What exchanges messages of one layout.

    Parameters
    ----------
    rank : int
    boxes : sequence of int
        The addresses of the boxes of all ranks, `PEERS` at most.
    given_up : int
        The address of a word of the host, which is set once it waits no more: ranks that wait then leave.
    words : int
        How many words of 64 bits come first, `WORDS` at most.
    places, sizes : sequence of int
        Where arrays begin in a row, and how many bytes each has; `SLOTS` at most.
    machine : Machine
    """

    def __init__(
        self,
        rank: int,
        boxes: Sequence[int],
        given_up: int,
        words: int,
        places: Sequence[int],
        sizes: Sequence[int],
        machine: Machine,
    ):
        p = self._p = np.zeros(_MAIL.itemsize // 8, np.int64)
        fixed = {"rank": rank, "given_up": given_up, "words": words, "slots": len(sizes)}
        for name, value in fixed.items():
            p[_AT[name]] = value
        for name, given in (("boxes", boxes), ("at", places), ("bytes", sizes)):
            p[_AT[name] : _AT[name] + len(given)] = given
        self.words: Array = p[_AT["word"] : _AT["word"] + words]
        self._from = p[_AT["from"] : _AT["from"] + len(sizes)]
        self._each = p[_AT["number"] : _AT["seen"] + 1]  # number, begins, rows, row, told, told_row, seen
        self._patience = p[_AT["patience"] : _AT["patience"] + 1]
        launch = Launch(headers("ranks/mailbox"), _KERNEL, _OPTIONS, len(boxes), _THREADS, 0, p)
        self._launch = machine.prepared(launch)

    def __call__(
        self,
        number: int,
        arrays: Sequence[int],
        rows: int,
        row: int,
        told: int,
        told_row: int,
        seen: int,
        patience: float,
    ) -> None:
        """Exchange ``words`` and arrays.

        Parameters
        ----------
        number : int
            Of the message, from 1: each is one more than the one before.
        arrays : sequence of int
            The addresses of arrays that are contiguous.
        rows, row : int
            The address of what all ranks have sent, (ranks, row) bytes; `LONGEST` bytes at most, a multiple of 16.
        told, told_row : int
            That of the first bytes of each row in memory of the host, (ranks, told_row); a multiple of 8.
        seen : int
            That of a word of the host for each rank, which becomes ``number`` once its row is there.
        patience : float
            Seconds after which the device waits no more.
        """
        self._each[:] = number, number % 2 * PEERS * ROOM, rows, row, told, told_row, seen
        self._from[:], self._patience[:] = arrays, int(1e9 * patience)
        self._launch()
