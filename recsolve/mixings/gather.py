"""Gathers: every unit sees one unit that an index names, and several may see the same one."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import numpy as np

from recsolve.base.arrays import Array, broadcast, namespace, to_native
from recsolve.base.overriding import changed
from recsolve.mixings.mixing import LinearInWeight, Mixing, beside

INTEGERS = (np.dtype(np.int32), np.dtype(np.int64))


class Gather(LinearInWeight):
    """Each unit sees the one that an index names: y[i] = x[index[i]], without weights.

    An index that changes with time is a drive of the cell: :func:`recsolve.math.gather`.

    Parameters
    ----------
    index : array of int32 or int64, shape (*lanes, n)
        Of units 0..n-1, not necessarily a permutation. Axes before the last give states lanes.
    dtype : dtype
        float32 or float64, that of the cell; ``weight`` is empty, (0,), and so is its gradient.

    Raises
    ------
    TypeError
        For an index of another dtype.
    ValueError
        When it has no axis or no units, or an index is negative or not below n.

    Notes
    -----
    Pointer networks: Vinyals et al., NeurIPS 2015 (arXiv 1506.03134). A permutation with weights is
    :class:`Permutation`.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> W = rs.mixings.Gather([2, 0, 0])
    >>> W(np.array([10.0, 20.0, 30.0])).tolist(), W.rmatvec(np.array([1.0, 2.0, 4.0])).tolist()
    ([30.0, 10.0, 10.0], [6.0, 0.0, 1.0])
    """

    name = "gather"
    linear = True

    def __init__(self, index: Any, dtype: Any = np.float64):
        index = to_native(index, "index", INTEGERS)
        if not index.ndim or not index.size:
            raise ValueError(f"index has shape {tuple(index.shape)}; wanted (*lanes, n) with one unit at least")
        check_index(index, index.shape[-1], "index", "place")
        super().__init__(namespace(index).zeros(0, dtype))
        self.index = index.copy()  # which has been checked

    @classmethod
    def by_step(cls, index: Array, like: Array) -> Self:
        """Return the gather of an index (T, *batch, *lanes, n), or (*batch, *lanes, n) of one step, that is checked."""
        made = object.__new__(cls)
        vars(made).update(index=index, weight=namespace(like).zeros(0, like.dtype), moves=True)
        return made

    @property
    def lanes(self) -> tuple[int, ...]:
        return () if self.moves else tuple(self.index.shape[:-1])

    @property
    def units(self) -> int:
        return int(self.index.shape[-1])

    @cached_property
    def _index(self) -> Array:
        return beside(self.index, self.weight)  # type: ignore[no-any-return]

    def at(self, steps: Any) -> Mixing:
        return changed(self, index=self.index[steps]) if self.moves else self

    def matvec(self, x: Any) -> Any:
        """Return x[index]; an x that broadcasts over units, or over times, counts for each."""
        index = self._index
        shape = (*np.broadcast_shapes(x.shape[:-1], index.shape[:-1]), self.units)
        full = broadcast(x, shape)
        if index.ndim == 1:
            return full[..., index]
        return namespace(x).take_along_axis(full, broadcast(index, shape), axis=-1)

    def rmatvec(self, x: Array) -> Array:
        """Return the sums over all units that see a unit."""
        xp, rows = namespace(x), int(np.prod(x.shape[:-1]))
        if not rows:
            return x.copy()
        places = broadcast(self._index, x.shape).reshape(rows, self.units) + self.units * xp.arange(rows)[:, None]
        sums = xp.bincount(places.ravel(), weights=x.ravel(), minlength=x.size)
        return sums.astype(x.dtype).reshape(x.shape)  # type: ignore[no-any-return]

    def _sees(self, units: Array) -> Array:
        return (self._index[..., None] == units).astype(self.weight.dtype)  # type: ignore[no-any-return]

    def dense(self) -> Array:
        return self._sees(namespace(self.weight).arange(self.units))

    def diagonal(self) -> Array:
        return self._sees(namespace(self.weight).arange(self.units)[:, None])[..., 0]

    @property
    def rounding(self) -> float:
        return 0.0  # no sums

    def weight_cotangent(self, g: Array, x: Array) -> Array:
        return namespace(self.weight).zeros_like(self.weight)  # type: ignore[no-any-return]

    def weight_tangent(self, tangent: Array, x: Array) -> Array:
        return namespace(x).zeros_like(x)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(index {self.index.shape} {self.index.dtype}, {self.weight.dtype})"


def check_index(index: Array, units: int, name: str, first: str) -> None:
    """Raise ValueError for indices that name no unit; the message says where, by ``first`` for the first axis."""
    wrong = (index < 0) | (index >= units)
    if bool(wrong.any()):
        place = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
        where = f"{first} = {place[0]}" + (f", at {place[1:]}" if place[1:] else "")
        raise ValueError(f"{name} is {int(index[place])} at {where}; wanted units 0 to {units - 1}")
