"""A message to other ranks, put together on the device by one launch: a few words of the host, then arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from recsolve.base.arrays import Array, address
from recsolve.kernels.codegen.cuda_headers import headers
from recsolve.kernels.codegen.cuda_structures import constants, fields_at, structure
from recsolve.kernels.gpu.device import Launch, Machine

_KERNEL, _THREADS, _OPTIONS = "recsolve::pack_message<unsigned int>", 256, ("-std=c++17",)
_WORDS, _SLOTS = (constants("ranks/message")[name] for name in ("WORDS", "SLOTS"))
_MESSAGE = structure("ranks/message", "Message")
_AT = fields_at(_MESSAGE)
_EACH = 4096  # bytes of a block
_MOST = 256  # blocks


class Packing:
    """What puts messages of one layout together.

    Parameters
    ----------
    words : int
        How many words of 64 bits come first.
    places, sizes : sequence of int
        Where arrays begin, and how many bytes each has.
    machine : Machine
    """

    def __init__(self, words: int, places: Sequence[int], sizes: Sequence[int], machine: Machine):
        self.words = np.zeros(words, np.int64)
        self._launches: list[tuple[Array, slice, slice, Callable[[], None]]] = []
        blocks = min(max(sum(sizes) // _EACH, 1), _MOST)
        for first in range(max(-(-words // _WORDS), -(-len(sizes) // _SLOTS), 1)):
            told = slice(min(first * _WORDS, words), min((first + 1) * _WORDS, words))
            some = slice(first * _SLOTS, (first + 1) * _SLOTS)
            p = np.zeros(_MESSAGE.itemsize // 8, np.int64)
            p[_AT["blocks"]] = blocks
            p[_AT["words_at"]], p[_AT["words"]], p[_AT["slots"]] = (
                8 * told.start,
                told.stop - told.start,
                len(sizes[some]),
            )
            for name, given in (("at", places[some]), ("bytes", sizes[some])):
                p[_AT[name] : _AT[name] + len(given)] = given
            launch = Launch(headers("ranks/message"), _KERNEL, _OPTIONS, blocks, _THREADS, 0, p)
            self._launches.append((p, told, some, machine.prepared(launch)))

    def __call__(self, out: int, arrays: Sequence[Array]) -> None:
        """Fill the message at an address with ``words``, and arrays that are contiguous."""
        begins = [address(x) for x in arrays]
        for p, told, some, launch in self._launches:
            p[_AT["out"]] = out
            p[_AT["word"] : _AT["word"] + told.stop - told.start] = self.words[told]
            p[_AT["from"] : _AT["from"] + len(begins[some])] = begins[some]
            launch()
