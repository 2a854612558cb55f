"""Arrays that stay from call to call, so that where and how they lie is looked up once."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

from recsolve.base.arrays import Array, address


def where_and_how(arrays: Sequence[Array]) -> tuple[list[int], tuple[Any, ...]]:
    """Return addresses, and what else a launch depends on, of arrays that may be :class:`Held`."""
    if isinstance(arrays, Held):
        return arrays.seen()
    return _look(arrays)


def identical(these: Sequence[Any], those: Sequence[Any]) -> bool:
    """Return whether two sequences hold the very same objects."""
    return len(these) == len(those) and all(map(is_, these, those))


class Held(list[Array]):
    """Arrays that their owner keeps; a copy of the list, in another process perhaps, looks at its own.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.kernels.held import Held
    >>> x = np.zeros((3, 2))
    >>> held = Held([x])
    >>> held.seen()[1][0][:3], held.same([x]), held.same([x.copy()])
    (((3, 2), (16, 8), 'd'), True, False)
    """

    _seen: tuple[list[int], tuple[Any, ...]] | None = None

    def seen(self) -> tuple[list[int], tuple[Any, ...]]:
        """Return where they are, and how they lie: shapes, strides, dtypes, and how far from 16 bytes they begin."""
        if self._seen is None:
            self._seen = _look(self)
        return self._seen

    def same(self, arrays: Sequence[Array]) -> bool:
        """Return whether these are the very same arrays."""
        return identical(self, arrays)

    def __getstate__(self) -> None:
        """Forget addresses."""


def _look(arrays: Sequence[Array]) -> tuple[list[int], tuple[Any, ...]]:
    at = [*map(address, arrays)]
    return at, tuple([(x.shape, x.strides, x.dtype.char, where & 15) for x, where in zip(arrays, at, strict=True)])
