"""Messages that all ranks of a process group exchange, and what is wrong with one that a rank has not sent alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, to_host
from recsolve.distributed.gathering import Gathering, RankError, by_text, ranks_in_words
from recsolve.distributed.mailboxes import Mailboxes, opened
from recsolve.distributed.messages import (
    HEADER,
    Letter,
    decoded,
    encoded,
    layout_of,
    one_stream,
    stacked,
    sums_of,
    unpack,
    views,
)  # fmt: skip
from recsolve.distributed.pinned import Arriving

_LARGEST = 1 << 20  # bytes that are sent along with every header; what is longer takes a second message
GOES_ON, FAILED = 0, 1  # what a header says of its rank
_CODE, _DIGEST, _OWN, _CALL = range(4)  # the numbers of a header; the last one is twice that of the call, or one more


class Sent:
    """What all ranks have sent in one message, which may be under way, in the order of ranks.

    Attributes
    ----------
    arrays : list of array, shape (ranks, ...)
        In the dtypes of those that this rank has sent itself.
    """

    def __init__(self, arrays: list[Array], read: Callable[[], tuple[Array, list[Array]]]):
        self.arrays, self._read = arrays, read
        self._told: tuple[Array, list[Array]] | None = None

    def told(self) -> tuple[Array, list[Array]]:
        """Return the numbers of all ranks, (ranks, n), and the arrays that come to the host, once they are there."""
        if self._told is None:
            self._told = self._read()
        return self._told

    def numbers(self) -> Array:
        """Return the numbers of all ranks, (ranks, n), once they are there."""
        return self.told()[0]


class Exchange(Gathering):
    """A header, some numbers and some arrays of every rank, all at once."""

    def __init__(self, group: Any, timeout: float):
        super().__init__(group, timeout)
        self._along = 1024  # bytes that go with every header: all ranks know them, for they have seen all messages
        self._open: deque[Sent] = deque()  # messages under way
        self._more = False  # whether another message follows before the last one is read
        self._calls = 0  # with messages; ranks that are in step have made as many
        self._begins = False  # whether the next message is the first one of its call
        self._amid = False  # whether the others may wait for the rest of a message
        self._over = False  # whether the call has ended on all ranks
        self._asked = False  # whether ranks have agreed on how short messages go

    def exchange(self, numbers: Sequence[float] | Array = (), arrays: Sequence[Array] = ()) -> Sent:
        """Send numbers and arrays to all ranks, and return what all have sent, once it is there.

        Parameters
        ----------
        numbers : sequence of float
        arrays : sequence of native arrays
            Of the same shapes and dtypes on all ranks.

        Raises
        ------
        RankError
            Where a rank has failed, did not come in time, or does something else.
        """
        told, found = self._exchanged(np.ascontiguousarray(numbers, np.float64), arrays)
        return Sent(found, lambda: (told, []))

    def _exchanged(self, sent: Array, arrays: Sequence[Array]) -> tuple[Array, list[Array]]:
        """Return the numbers of all ranks, (ranks, n), and their arrays, (ranks, ...) each."""
        if self._doing is None:
            raise RuntimeError("messages are exchanged within together(...)")
        self._settle()
        with one_stream(self.on_device):
            letter = self._written(GOES_ON, sent, arrays)
            length = letter.size - HEADER
            self._amid = True
            told, rows = self._heads(letter, seen=sent.nbytes)
            self._check(told, sent, arrays)
            if length > self._along:
                rows = self._joined(rows, self._gathered(letter.packed[HEADER + self._along :])[0])
                most = _LARGEST if self._boxes is None else self._boxes.longest - HEADER
                self._along = min(max(self._along, 1 << (length - 1).bit_length()), most)
            self._amid = False
            return unpack(rows, told, sent, arrays)

    def begin(
        self,
        numbers: Sequence[float] | Array = (),
        arrays: Sequence[Array] = (),
        *,
        brought: int = 0,
        more: bool = False,
    ) -> Sent:
        """Send the same; arrays may be used at once, for which a host does not wait that has asked a device for them.

        They count once the numbers have been asked for, which raises what :meth:`exchange` does.

        Parameters
        ----------
        numbers, arrays
        brought : int
            How many of the first arrays come to the host too.
        more : bool
            Whether all ranks begin another message before they look at the numbers of this one.
        """
        sent = np.ascontiguousarray(numbers, np.float64)
        along, few = HEADER + self._along, arrays[:brought]
        if self._doing is None or layout_of(sent, arrays).length > along:
            told, own = self._exchanged(sent, arrays)
            return Sent(own, lambda: (told, [to_host(x) for x in own[:brought]]))
        if not self._more:
            self._settle()
        with one_stream(self.on_device):
            letter = self._written(GOES_ON, sent, arrays, more)
            rows, work, coming = self._sent_off(letter, layout_of(sent, few).length, self.timeout)
            if work is not None and not self.on_device:
                self._seen(work, coming, self.timeout)
            there = stacked(rows, sent, arrays)

        def read() -> tuple[Array, list[Array]]:
            while self._open[0] is not begun:  # those before it count first
                self._open[0].numbers()
            self._open.popleft()
            told = self._seen(work if self.on_device else None, coming, self.timeout)
            self._counted(told)
            self._check(told, sent, arrays)
            return np.ascontiguousarray(told[:, HEADER : HEADER + sent.nbytes]).view(np.float64), views(told, sent, few)

        begun = Sent(there, read)
        self._open.append(begun)
        return begun

    def _settle(self) -> None:
        """Wait for messages that are under way, if any are."""
        while self._open:
            self._open[0].numbers()

    def total(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the sums of arrays over all ranks, the same on each, in the dtypes of the arrays."""
        return self.total_if((), arrays)[1] if arrays else []

    def total_if(self, flags: Sequence[Array], arrays: Sequence[Array]) -> tuple[list[bool], list[Array]]:
        """Return on which ranks all flags are set, arrays of bool without axes, and the sums of arrays."""
        sent = self.begin((), [*flags, *arrays], brought=len(flags))
        own = sent.arrays[len(flags) :]
        sums = sums_of(own)
        told = [flag.tolist() for flag in sent.told()[1]]
        return [all(flag[rank] for flag in told) for rank in range(self.size)], sums

    def words(self, text: str) -> list[str]:
        """Send a text to all ranks, and return those of all, in the order of ranks."""
        return [decoded(row) for row in self.exchange((), [encoded(text)]).arrays[0]]

    def _written(self, code: int, numbers: Array, arrays: Sequence[Array], more: bool = False) -> Letter:
        """Return a message, at least as long as what goes along with the header."""
        self._calls += self._begins
        self._begins, self._more = False, more
        head = (code, self._digest(numbers, arrays), self._alarm.own, 2 * self._calls + more)
        return Letter(head, numbers, arrays, HEADER + self._along, self.on_device)

    def _sent_off(self, letter: Letter, count: int, patience: float) -> tuple[Any, Any, Arriving]:
        """Send a header and what goes along; return where those of all come, what tells of it, and ``count`` bytes."""
        along = HEADER + self._along
        if (boxes := self._mailboxes(patience)) is not None:
            self.sent += along
            rows, coming = boxes.post(letter, along, count, patience + 1)
            return rows, None, coming
        rows, work = self._started(letter.packed[:along], patience)
        return rows, work, self._arriving(work, rows, count)

    def _mailboxes(self, patience: float) -> Mailboxes | None:
        """Return by what short messages go if not by the process group; all ranks ask at their first message."""
        if self._asked or self.size == 1 or not self._may_have_boxes:
            return self._boxes
        self._asked, amid, self._amid = True, self._amid, True
        self._boxes = opened(self.rank, self.size, lambda own: self._shown(own, patience))
        self._amid = amid
        return self._boxes

    @property
    def _may_have_boxes(self) -> bool:
        """Whether ranks have memory of a kind that others can perhaps write to."""
        return self.on_device

    def _shown(self, own: Array, patience: float) -> Array:
        """Return bytes of all ranks on the host, (ranks, n)."""
        import torch

        packed = torch.from_numpy(own)
        return self._gathered(packed.cuda() if self.on_device else packed, patience, len(own))[1]

    def _digest(self, numbers: Array, arrays: Sequence[Array]) -> int:
        """Return what is the same on ranks that do the same."""
        return _digest_of(str(self._doing), numbers.shape, tuple([(x.dtype, x.shape) for x in arrays]))

    def _described(self, numbers: Array, arrays: Sequence[Array]) -> str:
        return _described(str(self._doing), numbers.shape, tuple([(x.dtype, x.shape) for x in arrays]))

    @staticmethod
    def _joined(first: Any, rest: Any) -> Any:
        import torch

        return torch.cat([first, rest], dim=1)

    def _heads(self, letter: Letter, patience: float | None = None, *, seen: int = 0) -> tuple[Array, Any]:
        """Exchange headers and what goes along with them; return all of it, and before that what the host sees of it.

        The host sees the header, and ``seen`` bytes after it if they go along, (ranks, bytes).
        """
        count = HEADER + (seen if seen <= self._along else 0)
        patience = self.timeout if patience is None else patience
        with one_stream(self.on_device):
            rows, work, coming = self._sent_off(letter, count, patience)
        told = self._seen(work, coming, patience)
        self._counted(told)
        return told, rows

    def _counted(self, told: Array) -> None:
        self.messages += 1
        self._alarm.epoch = int(_numbers_of(told)[0, _OWN])

    def _check(self, seen: Array, numbers: Array, arrays: Sequence[Array]) -> None:
        """Raise where a rank has failed, or where ranks do different things; all of them do then."""
        heads = _numbers_of(seen)
        failed, calls = np.flatnonzero(heads[:, _CODE]), heads[:, _CALL] >> 1
        differ, behind = heads[:, _DIGEST] != heads[self.rank, _DIGEST], calls != calls[self.rank]
        out_of_step = bool(behind.any())
        if not (len(failed) or differ.any() or out_of_step):
            return
        self._complete(seen)
        texts = self._texts(self._described(numbers, arrays) + f", in call {self._calls} of the group" * out_of_step)
        self._over = True
        if len(failed):
            raise self._ended({int(r): texts[r] for r in failed})
        told = "; ".join(
            f"{ranks_in_words(ranks)} call{'s' * (len(ranks) == 1)} {text}"
            for text, ranks in by_text(dict(enumerate(texts))).items()
        )
        wanted = "make a new process group, for a rank has failed in a call that others have completed"
        raise RankError(
            f"ranks do different things: {told}; "
            + (wanted if out_of_step else "wanted the same call with the same arguments on every rank"),
            tuple(np.flatnonzero(differ | behind).tolist()),
        )

    def _complete(self, seen: Array) -> None:
        """Send, in place of the message that others begin before they look at this one, one that says nothing.

        They come to it, however late: they have said so.
        """
        if (_numbers_of(seen)[:, _CALL] & 1).any() and not self._open:
            self._heads(self._written(FAILED, np.empty(0), ()))
        self._open.clear()

    def _texts(self, text: str, patience: float | None = None) -> list[str]:
        """Exchange a text of every rank."""
        with one_stream(self.on_device):
            found = self._shown(encoded(text), self.timeout if patience is None else patience)
        return [decoded(row) for row in found]


def _described(doing: str, numbers: tuple[int, ...], arrays: tuple[tuple[Any, tuple[int, ...]], ...]) -> str:
    sent = ", ".join(f"{dtype} {shape}" for dtype, shape in ((np.dtype(np.float64), numbers), *arrays))
    return f"{doing}, and sends {sent}"


@lru_cache(maxsize=1024)
def _digest_of(doing: str, numbers: tuple[int, ...], arrays: tuple[tuple[Any, tuple[int, ...]], ...]) -> int:
    told = blake2b(_described(doing, numbers, arrays).encode(), digest_size=7)
    return int.from_bytes(told.digest(), "little")


def _numbers_of(told: Array) -> Array:
    """Return the numbers of headers, (ranks, 4)."""
    return np.ascontiguousarray(told[:, :HEADER]).view(np.int64)
