"""How the event axes of a state are read: named components, then lanes, then units."""

from __future__ import annotations

import math
from dataclasses import dataclass

from recsolve.base.arrays import Array


@dataclass(frozen=True)
class Layout:
    """The event shape of a state (T, *batch, [components], *lanes, units).

    Parameters
    ----------
    components : int
        Named components a unit has (LSTM: h and c are 2). The axis is absent when it is 1.
    lanes : tuple of int
        Independent copies of the recurrence inside a state (heads, rows).
    units : int or None
        Width of a lane; ``None`` for a state that is one number per step.

    Examples
    --------
    >>> import recsolve as rs
    >>> layout = rs.Layout(components=2, lanes=(4,), units=8)  # an LSTM of four heads
    >>> layout.event, layout.size, layout.lane_width
    ((2, 4, 8), 64, 16)
    """

    components: int = 1
    lanes: tuple[int, ...] = ()
    units: int | None = 1

    @property
    def event(self) -> tuple[int, ...]:
        """The event shape ([components], *lanes, units)."""
        first = (self.components,) if self.components > 1 else ()
        last = () if self.units is None else (self.units,)
        return first + self.lanes + last

    @property
    def size(self) -> int:
        """Numbers per state."""
        return math.prod(self.event)

    @property
    def lane_width(self) -> int:
        """Numbers per lane: components times units."""
        return self.components * (1 if self.units is None else self.units)

    @property
    def component_axis(self) -> int:
        """The axis of the components, counted from the end; the first axis of the event when they have none."""
        return -len(self.event)

    def leading(self, x: Array) -> tuple[int, ...]:
        """Return the axes of ``x`` before the event, (T, *batch)."""
        return tuple(x.shape[: x.ndim - len(self.event)])

    def component(self, x: Array, index: int) -> Array:
        """Return component ``index`` of states ``x`` (..., [k], *lanes, n): a view (..., *lanes, n).

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rs.Layout(components=2, units=3).component(np.arange(6).reshape(2, 3), 1)
        array([3, 4, 5])
        """
        if self.components == 1:
            return x
        return x[(..., index) + (slice(None),) * (len(self.event) - 1)]

    def lane_vectors(self, x: Array) -> Array:
        """Return states (..., [k], *lanes, n) as one vector per lane, (..., *lanes, k n), components first.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rs.Layout(components=2, lanes=(4,), units=8).lane_vectors(np.ones((9, 2, 4, 8))).shape
        (9, 4, 16)
        """
        if self.units is None:
            return x[..., None]
        if self.components == 1:
            return x
        moved = _move(x, self.component_axis, -2)
        return moved.reshape(*moved.shape[:-2], self.lane_width)

    def from_lane_vectors(self, v: Array) -> Array:
        """Return states (..., [k], *lanes, n) from vectors (..., *lanes, k n); inverts :meth:`lane_vectors`."""
        if self.units is None:
            return v[..., 0]
        if self.components == 1:
            return v
        split = v.reshape(*v.shape[:-1], self.components, self.units)
        return _move(split, -2, self.component_axis)


def _move(x: Array, source: int, target: int) -> Array:
    axes = list(range(x.ndim))
    axes.insert(target % x.ndim, axes.pop(source % x.ndim))
    return x.transpose(axes)
