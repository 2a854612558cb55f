"""The ranks of a process group: messages that all of them exchange, and what ends one of them ends all.

A message is one all-gather of a header, some numbers and some arrays. A rank that fails sends its next message with the
failure marked, so that no other waits for it; then all tell in words what they were doing. A rank that does not come
within the timeout is named with the help of the store of the process group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, to_host
from recsolve.distributed.packing import HEADER, OnDevice, OnHost, length_of, stacked

_TEXT = 4096
_LARGEST = 1 << 20  # bytes that are sent along with every header; what is longer takes a second message
_LOOK = 0.25  # seconds between two looks at the store
_GRACE = 5.0  # seconds in which the others are to answer that they are there, once one waits in vain
_GOES_ON, _FAILED = 0, 1


class RankError(RuntimeError):
    """A call that ranks make together has ended, for a reason that the message gives: which rank, and why.

    All ranks that are left raise it, but the one that has failed, which raises its own error.

    Attributes
    ----------
    ranks : tuple of int
        The ranks that have failed, did not come, or did something else.
    """

    def __init__(self, message: str, ranks: tuple[int, ...] = ()):
        super().__init__(message)
        self.ranks = ranks

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.ranks)


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


@dataclass
class _Coming:
    """Bytes under way: rows of all ranks, whether they are there, what brings some to the host, and these."""

    rows: Any
    there: Callable[[], bool]
    brought: Callable[[], Array]
    host: Any = None


class Sent:
    """A message under way.

    Attributes
    ----------
    arrays : list of array, shape (ranks, ...)
        In the dtypes of those that this rank has sent itself.
    """

    def __init__(self, ranks: Ranks, coming: _Coming, sent: Array, length: int):
        self._ranks, self._coming, self._sent, self._length = ranks, coming, sent, length
        self.arrays: list[Array] = []
        self.told: Array | None = None

    def check(self) -> None:
        """Wait for the message; raise where a rank has failed, or does something else."""
        if self._coming.host is None:
            self._ranks.settle()
            heads = np.ascontiguousarray(self._coming.host[:, :HEADER]).view(np.int64)
            self._ranks.check(heads)
            self._ranks.check_lengths(heads[:, 3].tolist())

    def numbers(self) -> Array:
        """Return the numbers of all ranks, (ranks, n), once they are there."""
        self.check()
        if self.told is None:
            self.told = np.ascontiguousarray(self._coming.host[:, HEADER:]).view(np.float64)
        return self.told


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
    """

    def __init__(self, group: Any = None, timeout: float = 600.0):
        import torch.distributed as dist

        self.group, self.timeout = group, timeout
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.on_device = "nccl" in str(dist.get_backend(group))
        self.messages = 0
        self._along = 1024  # bytes that go with every header: all ranks know them, for they have seen all messages
        self._doing: str | None = None
        self._digest = 0
        self._where = OnDevice() if self.on_device else OnHost()
        self._open: _Coming | None = None  # a message that is under way
        self._lost: str | None = None  # why no more messages can be exchanged

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
        if self._doing is not None:  # a part of what is done together already
            yield
            return
        if self._lost is not None:
            raise RankError(f"{self._lost}; make a new process group before you go on")
        self._doing, self._digest = call, int.from_bytes(blake2b(call.encode(), digest_size=7).digest(), "little")
        try:
            yield
        except RankError:
            raise
        except BaseException as error:
            self._tell(error)
            raise
        finally:
            self._doing = None

    def closed(self) -> None:
        """Say that no more messages belong to the call: what fails now fails on this rank alone."""
        self._digest = -1

    def _tell(self, error: BaseException) -> None:
        """Let the others know, in place of the message that they wait for, why this rank does not go on."""
        if self._digest < 0 or self._lost is not None:
            return
        try:
            self.settle()
            self._open = self._send(self._packed(_FAILED, np.empty(0), ())[: HEADER + self._along], HEADER)
            self.settle()
            self.texts(f"{type(error).__name__}: {error}")
        except RankError as other:  # nobody waits
            error.add_note(str(other))

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
        sent = self.begin(numbers, arrays)
        told = sent.numbers()
        return [Message(told[rank], [x[rank] for x in sent.arrays]) for rank in range(self.size)]

    def begin(self, numbers: Sequence[float] | Array = (), arrays: Sequence[Array] = ()) -> Sent:
        """Send the same, and return what all have sent while it is under way.

        Its arrays may be used at once: on a device that is ordered after the message, and nothing has waited for it.
        What comes of them counts once the numbers have been asked for, which raises what :meth:`exchange` does.
        """
        if self._doing is None:
            raise RuntimeError("messages are exchanged within together(...)")
        told = np.asarray(numbers, np.float64)
        length, along, short = length_of(told, arrays), HEADER + self._along, told.nbytes <= self._along
        with self._where.stream():
            packed = self._packed(_GOES_ON, told, arrays)
            coming = self._open = self._send(packed[:along], HEADER + min(told.nbytes, self._along))
            sent, rows = Sent(self, coming, told, length), coming.rows
            if length > self._along:
                import torch

                sent.check()
                rest = self._received(self._send(packed[along : HEADER + length], 0)).rows
                rows = torch.cat([rows, rest], dim=1)
                self._along = min(max(self._along, 1 << (length - 1).bit_length()), _LARGEST)
            elif not self.on_device:
                sent.check()
            if arrays or not short:
                native = self._where.native(rows, arrays)
                sent.arrays = stacked(native, told, arrays)
                sent.told = None if short else to_host(stacked(native, np.empty(0), [told])[0])
        return sent

    def total(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the sums of arrays over all ranks, the same on each, in the dtypes of the arrays."""
        if not arrays:
            return []
        found = [message.arrays for message in self.exchange((), arrays)]
        return [sum(parts[1:], start=parts[0].copy()) for parts in zip(*found, strict=True)]

    # How messages are sent --------------------------------------------------------------------------------------

    def _packed(self, code: int, numbers: Array, arrays: Sequence[Array]) -> Any:
        """Return a message as a tensor of bytes, at least as long as what goes along with the header."""
        length = length_of(numbers, arrays)
        head = np.array([self.messages, code, self._digest, length], np.int64)
        return self._where.packed(head, numbers, arrays, HEADER + max(length, self._along))

    def _send(self, packed: Any, count: int) -> _Coming:
        """Begin to exchange bytes, of which ``count`` of every rank are to come to the host."""
        import torch.distributed as dist

        if self.size == 1:
            rows, work = packed[None].clone(), None
        else:
            rows = packed.new_empty((self.size, len(packed)))
            together = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # its name from torch 2.13 on
            try:
                work = together(rows.view(-1), packed, group=self.group, async_op=True)
            except (RuntimeError, TimeoutError) as error:
                raise self._missing(error) from error
        return _Coming(rows, *self._where.started(work, rows, count))

    def _received(self, coming: _Coming) -> _Coming:
        """Wait for bytes; raise RankError where those of a rank do not come."""
        try:
            self._wait(coming.there)
            coming.host = coming.brought()
        except (RuntimeError, TimeoutError) as error:
            raise self._missing(error) from error
        return coming

    def settle(self) -> None:
        """Wait for the message that is under way, if one is."""
        coming, self._open = self._open, None
        if coming is not None:
            self._received(coming)
            self.messages += 1

    # What may go wrong ------------------------------------------------------------------------------------------

    def check(self, heads: Array) -> None:
        """Raise where a rank has failed, or where ranks do different things; all of them do then."""
        failed = np.flatnonzero(heads[:, 1])
        if not len(failed) and (heads[:, 2] == heads[0, 2]).all():
            return
        texts = self.texts(str(self._doing))
        if len(failed):
            told = "; ".join(f"rank {r}: {texts[r]}" for r in failed)
            raise RankError(f"{self._doing} has ended on all ranks, since it failed on {told}", tuple(failed.tolist()))
        raise self._other("calls", texts)

    def check_lengths(self, lengths: Sequence[int]) -> None:
        """Raise where ranks send messages of other lengths."""
        if len(set(lengths)) > 1:
            raise self._other("sends", [f"{n} bytes" for n in lengths])

    def _other(self, verb: str, texts: Sequence[str]) -> RankError:
        told = "; ".join(f"rank {r} {verb} {text}" for r, text in enumerate(texts))
        others = tuple(r for r, text in enumerate(texts) if text != texts[self.rank])
        return RankError(
            f"ranks do different things: {told}; wanted the same call with the same arguments on every rank", others
        )

    def texts(self, text: str) -> list[str]:
        """Exchange a text of every rank."""
        import torch

        sent = np.zeros(_TEXT, np.uint8)
        coded = text.encode()[:_TEXT]
        sent[: len(coded)] = np.frombuffer(coded, np.uint8)
        with self._where.stream():
            found = self._received(self._send(self._where.placed(torch.from_numpy(sent)), _TEXT)).host
        return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in found]

    def _wait(self, there: Callable[[], bool]) -> None:
        """Wait until a message is there, until another rank says that it waits in vain, or for the timeout."""
        began = looked = time.monotonic()
        while not there():
            now = time.monotonic()
            if now - began > self.timeout:
                raise TimeoutError(f"nothing came within {self.timeout:g} s")
            if now - looked > _LOOK:
                looked = now
                if self._alarm():
                    raise TimeoutError("another rank waits in vain")
            time.sleep(0 if now - began < 1e-3 else 5e-5 if now - began < 0.1 else 2e-3)

    def _store(self) -> Any:
        """Return the store of the process group, by which ranks find each other."""
        import torch.distributed as dist

        return dist.distributed_c10d._get_default_store()

    def _key(self, rank: int | str) -> str:
        import torch.distributed as dist

        ranks = "-".join(map(str, dist.get_process_group_ranks(self.group or dist.group.WORLD)))
        return f"recsolve/{ranks}/{self.messages}/{rank}"

    def _alarm(self) -> bool:
        try:
            return bool(self._store().check([self._key("alarm")]))
        except Exception:  # it is gone with the rank that holds it
            return True

    def _missing(self, error: BaseException) -> RankError:
        """Return what is said of ranks that have not come: those that do not answer an alarm."""
        what, said = self._doing or "a call", str(error).splitlines()[0] if str(error) else type(error).__name__
        self._lost = "ranks have been lost in an earlier call"
        try:
            store = self._store()
            store.set(self._key("alarm"), "1")
            store.set(self._key(self.rank), "here")
            waited, missing = time.monotonic(), list(range(self.size))
            while missing and time.monotonic() - waited < _GRACE:
                missing = [r for r in missing if not store.check([self._key(r)])]
                time.sleep(0.02)
        except Exception:
            return RankError(
                f"{what}: a message did not come ({said}), and the store of the process group does not answer: the "
                "process that holds it, which is that of rank 0 unless a launcher does, has ended",
                (0,),
            )
        if not missing:
            return RankError(f"{what}: a message did not come through although all ranks are there ({said})")
        named = ", ".join(map(str, missing))
        plural = "s" * (len(missing) > 1)
        return RankError(
            f"{what}: rank{plural} {named} did not come to message {self.messages} within {self.timeout:g} s: killed, "
            f"stuck, or doing something else ({said})",
            tuple(missing),
        )


class Elsewhere:
    """The ranks of a process group in another process, which exchanges no messages with them."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Elsewhere) and (self.rank, self.size) == (other.rank, other.size)

    def __hash__(self) -> int:
        return hash((self.rank, self.size))

    def __reduce__(self) -> tuple[Any, ...]:
        return Elsewhere, (self.rank, self.size)


# Of every process group there is one: all messages of the group are counted together.
_KNOWN: dict[Any, Ranks] = {}


def ranks_of(group: Any = None, timeout: float | None = None) -> Ranks:
    """Return the ranks of a process group of ``torch.distributed`` that has been initialised.

    Raises
    ------
    RuntimeError
        Where there is none.
    ValueError
        Where this process is not in the group.
    """
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(
            "no process group of torch.distributed is initialised; call torch.distributed.init_process_group first, "
            "and start the program with torchrun (docs/scale.md)"
        )
    key = dist.group.WORLD if group is None else group
    if dist.get_rank(key) < 0:
        raise ValueError(f"group is {group!r}, in which this process is not; wanted a group that it belongs to")
    found = _KNOWN.get(key)
    if found is None:
        found = _KNOWN[key] = Ranks(group)
    if timeout is not None:
        if not timeout > 0:
            raise ValueError(f"timeout is {timeout!r}; wanted seconds > 0")
        found.timeout = float(timeout)
    return found
