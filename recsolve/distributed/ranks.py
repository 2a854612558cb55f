"""The ranks of a process group: messages that all of them exchange, and what ends one of them ends all.

A message is one all-gather of a header, some numbers and some arrays. A rank that fails sends its next message with the
failure marked, so that no other waits for it; then all tell in words what they were doing. A rank that cannot, since
the others are in the middle of a message or do not come, leaves its reason in the store of the process group, by which
a rank that does not come within the timeout is named too (alarm.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NoReturn

import numpy as np

from recsolve.base.arrays import Array, namespace, to_host
from recsolve.distributed.alarm import Alarm
from recsolve.distributed.messages import (
    HEADER,
    Arriving,
    Message,
    arriving,
    decoded,
    encoded,
    layout_of,
    one_stream,
    pack,
    stacked,
    unpack,
    views,
)  # fmt: skip

_LARGEST = 1 << 20  # bytes that are sent along with every header; what is longer takes a second message
_LOOK = 0.25  # seconds between two looks at the store
_GRACE = 5.0  # seconds in which the others are to answer, once one waits in vain or has failed
_SPINS = 1e-3, 5e-2  # seconds in which a host, and one that waits for its device, does nothing else
_LET_OTHERS: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))  # which takes 60 us on Linux
_GOES_ON, _FAILED = 0, 1


class RankError(RuntimeError):
    """A call that ranks make together has ended, for a reason that the message gives: which rank, and why.

    All ranks that are left raise it, but the one that has failed, which raises its own error.

    Attributes
    ----------
    ranks : tuple of int
        The ranks that have failed, did not come, or did something else.

    Examples
    --------
    >>> import recsolve as rs
    >>> error = rs.distributed.RankError("rank 2 did not come", (2,))
    >>> error.ranks
    (2,)
    """

    def __init__(self, message: str, ranks: tuple[int, ...] = ()):
        super().__init__(message)
        self.ranks = ranks

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.ranks)


class Sent:
    """A message under way.

    Attributes
    ----------
    arrays : list of array, shape (ranks, ...)
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


class Ranks:
    """A process group of ``torch.distributed``, and what its ranks are doing together.

    Parameters
    ----------
    group : ProcessGroup, optional
        Default: that of all processes.
    timeout : float
        Seconds for which a rank waits for the others.

    Attributes
    ----------
    rank, size : int
        Of this process in the group, and how many there are.
    messages : int
        How many have been exchanged.
    sent : int
        Bytes that this rank has sent with them.
    """

    def __init__(self, group: Any = None, timeout: float = 600.0):
        import torch.distributed as dist

        self.group, self.timeout = group, timeout
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.on_device = "nccl" in str(dist.get_backend(group))
        self.messages = self.sent = 0
        self._along = 1024  # bytes that go with every header: all ranks know them, for they have seen all messages
        self._doing: str | None = None
        self._closed = False
        self._open: Sent | None = None  # a message under way
        self._amid = False  # whether the others may wait for the rest of a message
        self._over = False  # whether the call has ended on all ranks
        self._said = ""  # why this rank has failed, once it has
        self._lost = False  # whether no more messages can be exchanged
        self._alarm = Alarm(group, self.rank, self.size)
        self._options: dict[float, Any] = {}  # of an exchange, by how long it may take

    def __reduce__(self) -> tuple[Any, ...]:
        return Elsewhere, (self.rank, self.size)

    @contextmanager
    def together(self, call: str) -> Iterator[None]:
        """Run what all ranks do together; an exception of one ends it on all.

        Parameters
        ----------
        call : str
            What is done, and with what: ranks that do something else are told so.
        """
        if self._doing is not None:  # a part of what is done together already, and goes on with it
            closed = self._closed
            try:
                yield
            finally:
                self._closed = closed
            return
        if self._lost:
            raise RankError(
                f"{call}: ranks have been lost in an earlier call; make a new process group before you go on"
            )
        self._doing, self._closed, self._amid, self._over, self._open = call, False, False, False, None
        if self._said:
            self._said = ""
            self._alarm.unsay()
        try:
            yield
        except BaseException as error:
            if not self._over and not self._lost:
                self._tell(error)
            raise
        finally:
            self._doing = None

    @contextmanager
    def alone(self, call: str) -> Iterator[None]:
        """Run what this rank does by itself, before others may wait for it; if it fails they are told, once they do.

        Parameters
        ----------
        call : str
            What is done.
        """
        try:
            yield
        except BaseException as error:
            if self._doing is None:
                self._leave_word(f"{_in_words(error)} (in {call})")
            raise

    def closed(self) -> None:
        """Say that no more messages belong to the call: what fails now ends it on this rank alone.

        The others are told in the next call, if this rank does not come to it.
        """
        self._closed = True

    def _tell(self, error: BaseException) -> None:
        """Let the others know why this rank does not go on, in place of the message that they wait for if they do."""
        self._said = _in_words(error)
        try:
            if self._closed:
                self._leave_word(self._said)
            elif self._amid:
                self._give_up()
            else:
                self._settle()
                self._heads(self._packed(_FAILED, np.empty(0), ()), _GRACE)
                self._texts(self._said, _GRACE)
        except RankError as other:  # they do not, or not yet
            error.add_note(str(other))
        except BaseException:
            self._give_up()
            raise

    def _leave_word(self, said: str) -> None:
        """Let those who will miss this rank find out why."""
        self._said = said
        with suppress(Exception):  # the store may be gone with its process
            self._alarm.say(said)

    def _give_up(self) -> None:
        """Exchange no more messages, and leave word why."""
        self._lost = True
        with suppress(Exception):  # the store may be gone with its process
            self._alarm.sound(self._said)

    def exchange(self, numbers: Sequence[float] | Array = (), arrays: Sequence[Array] = ()) -> list[Message]:
        """Send numbers and arrays to all ranks, and return what all have sent, in the order of ranks.

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
        if self._doing is None:
            raise RuntimeError("messages are exchanged within together(...)")
        self._settle()
        sent = np.ascontiguousarray(numbers, np.float64)
        with one_stream(self.on_device):
            packed = self._packed(_GOES_ON, sent, arrays)
            length = len(packed) - HEADER
            self._amid = True
            told, rows = self._heads(packed, seen=sent.nbytes)
            self._check(told, sent, arrays)
            if length > self._along:
                rows = self._joined(rows, self._gathered(packed[HEADER + self._along :])[0])
                self._along = min(max(self._along, 1 << (length - 1).bit_length()), _LARGEST)
            self._amid = False
            return unpack(rows, told, sent, arrays)

    def begin(self, numbers: Sequence[float] | Array = (), arrays: Sequence[Array] = (), *, brought: int = 0) -> Sent:
        """Send the same; a device may use the arrays at once, and nothing has waited for them.

        They count once the numbers have been asked for, which raises what :meth:`exchange` does. The first ``brought``
        of them come to the host too.
        """
        sent = np.ascontiguousarray(numbers, np.float64)
        along, few = HEADER + self._along, arrays[:brought]
        if not self.on_device or self._doing is None or layout_of(sent, arrays).length > along:
            found = self.exchange(sent, arrays)
            own = [namespace(x[0]).stack(x) for x in zip(*[m.arrays for m in found], strict=True)]
            told = np.array([m.numbers for m in found])
            return Sent(own, lambda: (told, [to_host(x) for x in own[:brought]]))
        self._settle()
        with one_stream(True):
            packed = self._packed(_GOES_ON, sent, arrays)
            rows, work = self._started(packed[:along], self.timeout)
            coming = self._arriving(work, rows, layout_of(sent, few).length)
            there = stacked(rows, sent, arrays)

        def read() -> tuple[Array, list[Array]]:
            self._open = None
            told = self._seen(work, coming, self.timeout)
            self._counted(told)
            self._check(told, sent, arrays)
            return np.ascontiguousarray(told[:, HEADER : HEADER + sent.nbytes]).view(np.float64), views(told, sent, few)

        self._open = Sent(there, read)
        return self._open

    def _settle(self) -> None:
        """Wait for a message that is under way, if one is."""
        if self._open is not None:
            self._open.numbers()

    def total(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the sums of arrays over all ranks, the same on each, in the dtypes of the arrays."""
        if not arrays:
            return []
        found = [message.arrays for message in self.exchange((), arrays)]
        return [sum(parts[1:], start=parts[0].copy()) for parts in zip(*found, strict=True)]

    def words(self, text: str) -> list[str]:
        """Send a text to all ranks, and return those of all, in the order of ranks."""
        return [decoded(message.arrays[0]) for message in self.exchange((), [encoded(text)])]

    def _packed(self, code: int, numbers: Array, arrays: Sequence[Array]) -> Any:
        """Return a message as a tensor of bytes, at least as long as what goes along with the header."""
        head = (code, self._digest(numbers, arrays), self._alarm.own)
        return pack(head, numbers, arrays, least=HEADER + self._along, on_device=self.on_device)

    def _digest(self, numbers: Array, arrays: Sequence[Array]) -> int:
        """Return what is the same on ranks that do the same."""
        return _digest_of(str(self._doing), numbers.shape, tuple([(x.dtype, x.shape) for x in arrays]))

    def _described(self, numbers: Array, arrays: Sequence[Array]) -> str:
        return _described(str(self._doing), numbers.shape, tuple([(x.dtype, x.shape) for x in arrays]))

    @staticmethod
    def _joined(first: Any, rest: Any) -> Any:
        import torch

        return torch.cat([first, rest], dim=1)

    def _heads(self, packed: Any, patience: float | None = None, *, seen: int = 0) -> tuple[Array, Any]:
        """Exchange headers and what goes along with them; return all of it, and before that what the host sees of it.

        The host sees the header, and ``seen`` bytes after it if they go along, (ranks, bytes).
        """
        count = HEADER + (seen if seen <= self._along else 0)
        rows, told = self._gathered(packed[: HEADER + self._along], patience, seen=count)
        self._counted(told)
        return told, rows

    def _counted(self, told: Array) -> None:
        self.messages += 1
        self._alarm.epoch = int(_numbers_of(told)[0, 2])

    # What may go wrong ------------------------------------------------------------------------------------------

    def _check(self, seen: Array, numbers: Array, arrays: Sequence[Array]) -> None:
        """Raise where a rank has failed, or where ranks do different things; all of them do then."""
        heads = _numbers_of(seen)
        failed = np.flatnonzero(heads[:, 0])
        if not len(failed) and (heads[:, 1] == heads[0, 1]).all():
            return
        texts = self._texts(self._described(numbers, arrays))
        self._over = True
        if len(failed):
            raise self._ended({int(r): texts[r] for r in failed})
        told = "; ".join(f"rank {r} calls {text}" for r, text in enumerate(texts))
        raise RankError(
            f"ranks do different things: {told}; wanted the same call with the same arguments on every rank",
            tuple(r for r, text in enumerate(texts) if text != texts[self.rank]),
        )

    def _ended(self, failed: dict[int, str]) -> RankError:
        told = "; ".join(f"rank {r}: {text}" for r, text in failed.items())
        return RankError(f"{self._doing} has ended on all ranks, since it failed on {told}", tuple(failed))

    def _texts(self, text: str, patience: float | None = None) -> list[str]:
        """Exchange a text of every rank."""
        import torch

        packed = torch.from_numpy(encoded(text))
        with one_stream(self.on_device):
            found = self._gathered(packed.cuda() if self.on_device else packed, patience, len(packed))[1]
        return [decoded(row) for row in found]

    def _gathered(self, packed: Any, patience: float | None = None, seen: int = 0) -> tuple[Any, Array]:
        """Return the bytes of all ranks, (ranks, bytes), and the first ones of each as the host sees them.

        Raises
        ------
        RankError
            Where one does not come.
        """
        patience = self.timeout if patience is None else patience
        rows, work = self._started(packed, patience)
        return rows, self._seen(work, self._arriving(work, rows, seen), patience)

    def _started(self, packed: Any, patience: float) -> tuple[Any, Any]:
        """Begin to exchange bytes; return where those of all ranks come, and what tells that they have."""
        import torch.distributed as dist

        self.sent += len(packed)
        if self.size == 1:
            return packed[None], None
        out, group = packed.new_empty((self.size, len(packed))), self.group or dist.group.WORLD
        name = "all_gather_single" if hasattr(group, "all_gather_single") else "_allgather_base"  # until torch 2.12
        try:
            return out, getattr(group, name)(out.view(-1), packed, self._how(patience))
        except RuntimeError as error:
            raise self._missing("a connection broke") from error

    def _how(self, patience: float) -> Any:
        """Return the options of an exchange: on a device it runs on the current stream, which waits by itself."""
        import torch.distributed as dist

        if patience not in self._options:
            how = self._options[patience] = dist.distributed_c10d.AllgatherOptions()
            how.asyncOp = not self.on_device
            how.timeout = timedelta(seconds=patience + 1)  # the process cannot end before: the group's own may be long
        return self._options[patience]

    def _arriving(self, work: Any, rows: Any, count: int) -> Arriving:
        if self.on_device and work is not None:
            work.wait()  # the stream does, not the host
        return arriving(rows, count)

    def _seen(self, work: Any, arriving: Arriving, patience: float) -> Array:
        """Wait for a message, and return its first bytes of every rank."""
        there, told = arriving
        try:
            # On a device what is seen comes after the message, in the order of its stream.
            self._wait(there if self.on_device or work is None else work.is_completed, patience)
            if not self.on_device and work is not None:
                work.wait()
        except TimeoutError as error:
            raise self._missing(str(error)) from error
        except RuntimeError as error:
            raise self._missing("a connection broke") from error
        return told()

    def _wait(self, there: Callable[[], bool], patience: float) -> None:
        """Wait until a message is there, until another rank says that it waits in vain, or for so long."""
        began = looked = time.monotonic()
        while not there():
            now = time.monotonic()
            if now - began > patience:
                raise TimeoutError(f"nothing came within {patience:g} s")
            if now - looked > _LOOK:
                looked = now
                if self._alarm.heard():
                    raise TimeoutError("another rank has failed or waits in vain")
            if now - began < _SPINS[self.on_device]:
                _LET_OTHERS()
            else:
                time.sleep(5e-5 if now - began < 0.1 else 2e-3)

    def _missing(self, seen: str) -> RankError:
        """Return what is said of ranks that have not come: why they failed, or that they do not answer an alarm."""
        self._lost = True
        try:
            self._alarm.sound(self._said)
            answers = self._alarm.answers(_GRACE)
        except Exception:
            return RankError(
                f"{self._doing}: a message did not come ({seen}), and the store of the process group does not answer: "
                "the process that holds it, which is that of rank 0 unless a launcher does, has ended",
                (0,),
            )
        failed = {rank: said for rank, said in answers.items() if said and rank != self.rank}
        if failed:
            return self._ended(failed)
        missing = tuple(rank for rank in range(self.size) if rank not in answers)
        if not missing:
            return RankError(f"{self._doing}: a message did not come in time, though all ranks are there now ({seen})")
        named = f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
        return RankError(
            f"{self._doing}: {named} did not come to message {self.messages} ({seen}): killed, stuck, or doing "
            "something else",
            missing,
        )


class Elsewhere:
    """The ranks of a process group in another process, which exchanges no messages with them."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size

    def together(self, call: str) -> NoReturn:
        """Raise RuntimeError."""
        raise RuntimeError(
            f"{call}: the shard comes from another process, rank {self.rank} of {self.size}, which shares its steps; "
            "wanted one that recsolve.distributed.shard has given here"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Elsewhere) and (self.rank, self.size) == (other.rank, other.size)

    def __hash__(self) -> int:
        return hash((self.rank, self.size))

    def __reduce__(self) -> tuple[Any, ...]:
        return Elsewhere, (self.rank, self.size)


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


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


# Of every process group there is one: all messages of the group are counted together.
_KNOWN: dict[Any, Ranks] = {}


def ranks_of(group: Any = None, timeout: float | None = None) -> Ranks:
    """Return the ranks of a process group of ``torch.distributed`` that has been initialised, or of a mesh of one axis.

    Raises
    ------
    RuntimeError
        Where there is none.
    TypeError
        For what is no process group.
    ValueError
        Where this process is not in the group, and for meshes of several axes.
    """
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(
            "no process group of torch.distributed is initialised; call torch.distributed.init_process_group first, "
            "and start the program with torchrun (docs/scale.md)"
        )
    if hasattr(group, "mesh_dim_names"):
        if group.ndim != 1:
            raise ValueError(f"group is {group!r}; wanted the axis of time alone, as mesh['time'] gives it")
        group = group.get_group()
    key = dist.group.WORLD if group is None else group
    if not isinstance(key, (dist.ProcessGroup, int)):  # the latter is what new_group returns where one is not in it
        raise TypeError(f"group is {group!r}; wanted a process group of torch.distributed, or a mesh of one axis")
    if isinstance(key, int) or dist.get_rank(key) < 0:
        raise ValueError(f"group is {group!r}, in which this process is not; wanted a group that it belongs to")
    found = _KNOWN.get(key)
    if found is None:
        found = _KNOWN[key] = Ranks(group)
    if timeout is not None:
        if not (isinstance(timeout, (int, float)) and timeout > 0):
            raise ValueError(f"timeout is {timeout!r}; wanted seconds > 0")
        found.timeout = float(timeout)
    return found
