"""Bytes of all ranks of a process group: one all-gather after the other, and who is named where one does not come."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from recsolve.base.arrays import Array
from recsolve.distributed.alarm import Alarm
from recsolve.distributed.mailboxes import Mailboxes
from recsolve.distributed.messages import arriving
from recsolve.distributed.pinned import Arriving

_LOOK = 0.25  # seconds between two looks at the store
_SPINS = 1e-3, 5e-2  # seconds in which a host, and one that waits for its device, does nothing else
_LET_OTHERS: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))  # which takes 60 us on Linux


class RankError(RuntimeError):
    """A call that ranks make together has ended, for a reason that the message gives: which rank, and why.

    All ranks that are left raise it, but the one that has failed, which raises its own error.

    Attributes
    ----------
    ranks : tuple of int
        The ranks that have failed, did not come, or did something else, as they are numbered in their group.

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
        return type(self), (str(self), self.ranks), vars(self)


class Gathering:
    """What ranks send each other as bytes.

    Parameters
    ----------
    group : ProcessGroup
        Of ``torch.distributed``.
    timeout : float
        Seconds for which a rank waits for the others.

    Attributes
    ----------
    rank, size : int
        Of this process in the group, and how many there are.
    on_device : bool
        Whether a GPU sends them.
    messages : int
        How many have been exchanged.
    sent : int
        Bytes that this rank has sent with them.
    grace : float
        Seconds in which the others are to answer, once one waits in vain or has failed.
    """

    grace: ClassVar[float] = 5.0

    def __init__(self, group: Any, timeout: float):
        import torch.distributed as dist

        self.group, self.timeout = group, timeout
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.on_device = "nccl" in str(dist.get_backend(group))
        self.messages = self.sent = 0
        self._doing: str | None = None  # the call that is made together
        self._said = ""  # why this rank has failed, once it has
        self._lost = False  # whether no more messages can be exchanged
        self._alarm = Alarm(group, self.rank, self.size)
        self._options: dict[float, Any] = {}  # of an exchange, by how long it may take
        self._boxes: Mailboxes | None = None  # by which short messages go, once ranks have agreed on it

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

        self.sent += len(packed)
        if self.size == 1:
            return packed[None], None
        out, group = packed.new_empty((self.size, len(packed))), self.group
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
        self._lose()
        try:
            self._alarm.sound(self._said)
            answers = self._alarm.answers(self.grace)
        except Exception:
            return RankError(
                f"{self._doing}: a message did not come ({seen}), and the store of the process group does not answer: "
                "the process that holds it, which is the first of all processes unless a launcher does, has ended",
                self._first_of_all(),
            )
        failed = {rank: said for rank, said in answers.items() if said and rank != self.rank}
        if failed:
            return self._ended(failed)
        missing = tuple(rank for rank in range(self.size) if rank not in answers)
        if not (named := missing or self._alarm.late):
            return RankError(
                f"{self._doing}: a message did not come in time, though all ranks are there now ({seen}); perhaps "
                "it is this one that came too late for the others"
            )
        how, why = ("did not come", ": ended, stuck, or doing something else") if missing else ("came too late", "")
        ranks = ranks_in_words(named)
        return RankError(f"{self._doing}: {ranks} {how} to message {self.messages} ({seen}){why}", named)

    def _lose(self) -> None:
        """Exchange no more messages, nor let the device wait for any."""
        self._lost = True
        if self._boxes is not None:
            self._boxes.give_up()

    def _first_of_all(self) -> tuple[int, ...]:
        """Return which rank of the group is rank 0 of all processes, if one is."""
        import torch.distributed as dist

        try:
            return (dist.get_group_rank(self.group, 0),)
        except ValueError:
            return ()

    def _ended(self, failed: dict[int, str]) -> RankError:
        told = "; ".join(f"{ranks_in_words(ranks)}: {text}" for text, ranks in by_text(failed).items())
        return RankError(f"{self._doing} has ended on all ranks, since it failed on {told}", tuple(failed))


def by_text(said: Mapping[int, str]) -> dict[str, list[int]]:
    """Return which ranks, in their order, say each text: of many, most say the same."""
    found: dict[str, list[int]] = {}
    for rank, text in said.items():
        found.setdefault(text, []).append(rank)
    return found


def ranks_in_words(ranks: Sequence[int]) -> str:
    """Return ranks in ascending order as words, such as "rank 3" and "ranks 0 to 20, 22"."""
    apart = [i for i in range(1, len(ranks)) if ranks[i] != ranks[i - 1] + 1]
    runs = [ranks[i:j] for i, j in zip([0, *apart], [*apart, len(ranks)], strict=True)]
    words = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(words)}"
