"""How the ranks of a process group learn from its store that one of them has failed or does not come."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from typing import Any

_AT_ONCE = 1.0  # seconds in which a rank answers that waits for a message


class Alarm:
    """What ranks say of themselves in the store of a process group, where messages do not come through.

    Parameters
    ----------
    group : ProcessGroup
    rank, size : int

    Attributes
    ----------
    own : int
        A random number of this process.
    late : tuple of int
        The ranks that did not answer at once when they were asked last, as those do that wait.
    epoch : int
        That of rank 0, once a message has told it: a later group may have the same name in the same store.
    """

    def __init__(self, group: Any, rank: int, size: int):
        self.group, self.rank, self.size = group, rank, size
        self.own, self.epoch = secrets.randbits(62), 0
        self.late: tuple[int, ...] = ()

    def say(self, said: str) -> None:
        """Leave word why this rank has failed, for those who miss it.

        Parameters
        ----------
        said : str
            Empty for a rank that is there.
        """
        self._store().set(self._key(self.rank), said)

    def unsay(self) -> None:
        """Take the word back."""
        with suppress(Exception):  # the store may be gone with its process
            self._store().delete_key(self._key(self.rank))

    def sound(self, said: str) -> None:
        """Say that this rank waits in vain, or why it has failed; all others stop waiting.

        Parameters
        ----------
        said : str
            Empty for a rank that has not failed.
        """
        self.say(said)
        self._store().set(self._key("alarm"), "")

    def heard(self) -> bool:
        """Return whether a rank has sounded it."""
        try:
            return bool(self._store().check([self._key("alarm")]))
        except Exception:  # the store is gone with its process
            return True

    def answers(self, seconds: float) -> dict[int, str]:
        """Return what ranks have said: of all, of those that do within some seconds, or once one says that it failed.

        Parameters
        ----------
        seconds : float

        Returns
        -------
        dict of int to str
        """
        store, found, asked = self._store(), dict[int, str](), time.monotonic()
        self.late = ()
        while True:
            waited = time.monotonic() - asked
            for rank in range(self.size):
                if rank not in found and store.check([self._key(rank)]):
                    found[rank] = store.get(self._key(rank)).decode()
                    self.late += (rank,) * (waited > _AT_ONCE)
            if len(found) == self.size or any(found.values()) or waited > seconds:
                return found
            time.sleep(0.02)

    def _key(self, of: int | str) -> str:
        return f"recsolve/{self.group.group_name}/{self.epoch}/{of}"

    @staticmethod
    def _store() -> Any:
        import torch.distributed as dist

        return dist.distributed_c10d._get_default_store()
