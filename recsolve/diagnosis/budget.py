"""The time that a diagnosis may take: a clock that ends what is dear, between one scan and the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any


class OutOfTimeError(Exception):
    """The share of the budget is spent."""


class Budget:
    """Seconds to spend, of which parts are given to one thing after the other.

    Parameters
    ----------
    seconds : float

    Examples
    --------
    >>> from recsolve.diagnosis.budget import Budget, OutOfTimeError
    >>> budget = Budget(3600.0)
    >>> with budget.share(0.0):
    ...     try:
    ...         budget.check()
    ...     except OutOfTimeError:
    ...         print("nothing is left of this part")
    nothing is left of this part
    >>> budget.check()  # of the whole there is
    """

    def __init__(self, seconds: float):
        self._end = perf_counter() + seconds

    @contextmanager
    def share(self, part: float) -> Iterator[None]:
        """Spend at most a part of what is left, inside a ``with`` block."""
        whole = self._end
        left = whole - perf_counter()
        self._end = min(whole, perf_counter() + part * max(left, 0.0))
        try:
            yield
        finally:
            self._end = whole

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return perf_counter() >= self._end

    def check(self) -> None:
        """Raise OutOfTimeError when the time is up."""
        if self.over:
            raise OutOfTimeError

    def counter(self, counts: Counter[str]) -> Counter[str]:
        """Return counters of work that check the time whenever anything is counted: an evaluation, or a scan."""
        return _Checked(self, counts)


class _Checked(Counter[str]):
    def __init__(self, budget: Budget, counts: Counter[str]):
        self._budget: Budget | None = None
        super().__init__(counts)
        self._budget = budget

    def __setitem__(self, name: str, value: Any) -> None:
        if self._budget is not None:
            self._budget.check()
        super().__setitem__(name, value)
