"""The ranks of a process group: messages that all of them exchange, and what ends one of them ends all.

A message is one all-gather of a header, some numbers and some arrays. A rank that fails sends its next message with the
failure marked, so that no other waits for it; then all tell in words what they were doing. A rank that cannot, since
the others are in the middle of a message or do not come, leaves its reason in the store of the process group, by which
a rank that does not come within the timeout is named too (alarm.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from numbers import Real
from threading import Lock, get_ident
from typing import Any, NoReturn

import numpy as np

from recsolve.base.shard import text_of
from recsolve.distributed.exchange import FAILED, Exchange
from recsolve.distributed.gathering import RankError


class Ranks(Exchange):
    """A process group of ``torch.distributed``, and what its ranks are doing together.

    Parameters
    ----------
    group : ProcessGroup
    timeout : float
        Seconds for which a rank waits for the others.

    Attributes
    ----------
    rank, size, messages, sent
        As of :class:`recsolve.distributed.gathering.Gathering`.
    """

    def __init__(self, group: Any, timeout: float = 600.0):
        # What is done together, which is put into words when these are asked for.
        self._call: str | Callable[[], str] | None = None
        super().__init__(group, timeout)
        self._closed = False
        self._free, self._thread = Lock(), 0  # whether no call is made, and else the thread that makes it

    def __reduce__(self) -> tuple[Any, ...]:
        return Elsewhere, (self.rank, self.size)

    def __deepcopy__(self, memo: Any) -> Ranks:
        return self  # a copy in this process shares its steps with the same ranks

    @property
    def _doing(self) -> str | None:
        """The call that is made together, in words, which are found once: the first message says them, or an error."""
        call = self._call
        if call is not None and not isinstance(call, str):
            self._call = "a call"  # where its words cannot be found, others are told why
            self._call = call = text_of(call)
        return call

    @_doing.setter
    def _doing(self, call: str | None) -> None:
        self._call = call

    @contextmanager
    def together(self, call: str | Callable[[], str]) -> Iterator[None]:
        """Run what all ranks do together; an exception of one ends it on all.

        Parameters
        ----------
        call : str, or callable that returns one
            What is done, and with what: ranks that do something else are told so. A part of a call needs no words.
        """
        if self._thread == get_ident():  # a part of what is done together already, and goes on with it
            closed = self._closed
            try:
                yield
            finally:
                self._closed = closed
            return
        if self._lost:
            raise RankError(
                f"{text_of(call)}: ranks have been lost in an earlier call; make a new process group before you go on"
            )
        if not _exists(self.group):
            raise RuntimeError(
                f"{text_of(call)}: the process group of these shards has been destroyed; wanted shards of one that is "
                "there"
            )
        if not self._free.acquire(blocking=False):
            other = "a call"
            with suppress(Exception):  # of the other thread's words
                other = text_of(self._call or other)
            raise RuntimeError(
                f"{text_of(call)}: another thread of this process is amid {other}; wanted one call after the other, in "
                "the same order on all ranks"
            )
        try:
            self._call, self._closed, self._amid, self._over, self._more = call, False, False, False, False
            self._begins = True
            self._open.clear()
            self._thread = get_ident()
            if self._said:
                self._said = ""
                self._alarm.unsay()
            yield
        except BaseException as error:
            if not self._over and not self._lost:
                self._tell(error)
            raise
        finally:
            self._call, self._thread = None, 0
            self._free.release()

    @contextmanager
    def by_itself(self, call: str) -> Iterator[None]:
        """Run what this rank does by itself, before others may wait for it; if it fails they are told, once they do.

        Parameters
        ----------
        call : str
            What is done.
        """
        try:
            yield
        except BaseException as error:
            if self._call is None:
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
        with suppress(Exception):  # of what fails while an error is told of, nothing is said
            str(self._doing)
        try:
            if self._closed:
                self._leave_word(self._said)
            elif self._amid:
                self._give_up()
            else:
                self._settle()
                patience = self.timeout if self._more else self.grace  # all have said that they come, or perhaps not
                self._complete(self._heads(self._written(FAILED, np.empty(0), ()), patience)[0])
                self._texts(self._said, self.grace)
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
        self._lose()
        with suppress(Exception):  # the store may be gone with its process
            self._alarm.sound(self._said)


class Elsewhere:
    """The ranks of a process group in another process, which exchanges no messages with them."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size

    def together(self, call: str | Callable[[], str]) -> NoReturn:
        """Raise RuntimeError."""
        raise RuntimeError(
            f"{text_of(call)}: the shard comes from another process, rank {self.rank} of {self.size}, which shares its "
            "steps; wanted one that recsolve.distributed.shard has given here"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Elsewhere) and (self.rank, self.size) == (other.rank, other.size)

    def __hash__(self) -> int:
        return hash((self.rank, self.size))

    def __reduce__(self) -> tuple[Any, ...]:
        return Elsewhere, (self.rank, self.size)


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _exists(group: Any) -> bool:
    """Return whether a process group has not been destroyed."""
    import torch.distributed as dist

    try:
        return bool(dist.get_rank(group) >= 0)
    except ValueError:  # also where there is none any more
        return False


# Of every process group there is one: all messages of the group are counted together.
_KNOWN: dict[Any, Ranks] = {}


def ranks_of(group: Any = None, timeout: Any = None) -> Ranks:
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
        for gone in [known for known in _KNOWN if not _exists(known)]:
            del _KNOWN[gone]
        found = _KNOWN[key] = Ranks(key)
    if timeout is not None:
        if not (isinstance(timeout, Real) and float(timeout) > 0):
            raise ValueError(f"timeout is {timeout!r}; wanted seconds > 0")
        found.timeout = float(timeout)
    return found
