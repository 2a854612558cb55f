"""What is solved: recurrences of cells and of functions, and the engines that evaluate them."""

from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.given import packed_resets

__all__ = ["Recurrence", "packed_resets"]


def __dir__() -> list[str]:
    return sorted(__all__)
