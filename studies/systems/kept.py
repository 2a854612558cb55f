"""The cache of attention: rows of keys and values, which are added to in place."""

from __future__ import annotations

from collections.abc import Sequence

from recsolve.base.arrays import Array, namespace


class Kept:
    """Arrays that grow along their first axis, in memory that has room for more.

    What is made by adding rows shares the memory. Of two that are made from one the second is a copy, so that none ever
    changes.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.studies.systems.kept import Kept
    >>> one = Kept.of([np.zeros((2, 3))])
    >>> two, other = one.added([np.ones((1, 3))]), one.added([np.full((1, 3), 2.0)])
    >>> len(one), two.arrays[0][:, 0].tolist(), other.arrays[0][:, 0].tolist()
    (2, [0.0, 0.0, 1.0], [0.0, 0.0, 2.0])
    """

    def __init__(self, memory: Sequence[Array], length: int, free: dict[int, None]):
        self._memory, self._length, self._free = memory, length, free

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> Kept:
        """Return it with some rows, which are copied when there are more."""
        return cls(arrays, len(arrays[0]), {})

    def __len__(self) -> int:
        return self._length

    @property
    def arrays(self) -> list[Array]:
        """Views of the rows."""
        return [x[: self._length] for x in self._memory]

    def added(self, arrays: Sequence[Array]) -> Kept:
        """Return it with more rows."""
        start, stop = self._length, self._length + len(arrays[0])
        memory, free = self._memory, self._free
        # Who takes the end, in one operation, has it; rows behind it are free.
        if start not in free or stop > len(memory[0]) or free.pop(start, self) is self:
            memory, free = [namespace(x).empty((2 * stop, *x.shape[1:]), x.dtype) for x in memory], {}
            for new, old in zip(memory, self.arrays, strict=True):
                new[:start] = old
        for x, rows in zip(memory, arrays, strict=True):
            x[start:stop] = rows
        free[stop] = None
        return Kept(memory, stop, free)
