"""A cell together with its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, overload

import numpy as np

from recsolve.base.arrays import Array, empty_in_order
from recsolve.base.overriding import refuse_stale
from recsolve.base.shard import takes_shards
from recsolve.mixings import check_index
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.cell_weights import CellWeights


class WeightedCell(CellWeights):
    """A cell together with its weights: :meth:`Cell.random`, :meth:`Cell.with_weights` and others make one.

    Attributes
    ----------
    cell : Cell
        The definition.
    mixings : dict of Mixing
    parameters : dict of array
        Elementwise parameters, (*lanes, n).
    projection : Projection or None
        The hoisted input projection.
    hidden_size : int
        Units of all lanes together.
    layout : Layout
        The event axes of its states.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.LSTM.random(input_size=3, hidden_size=8, rng=0)
    >>> cell.recurrence(np.ones((20, 5, 3))).shape
    (20, 5, 2, 8)
    """

    compilable = True

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        refuse_stale(cls, "pull_output", "output")
        refuse_stale(cls, "pull_shown_by", "shown_by")

    def _measure(self, hidden_size: int | None) -> None:
        sizes = {f"mixing {n}": int(np.prod(m.lanes)) * m.units for n, m in self.mixings.items()}
        if self.projection is not None:
            sizes["projection"] = self.projection.hidden_size
        if hidden_size is not None:
            sizes["hidden_size"] = hidden_size
        if len(set(sizes.values())) != 1:
            raise ValueError(f"sizes of {self.cell.name} are {sizes}; wanted one number of units")
        self.hidden_size = next(iter(sizes.values()))
        self.layout = self.cell.layout(self.mixings, self.hidden_size)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The axes of what one step of the output holds, (*lanes, n)."""
        return self.layout.event[self.layout.components > 1 :]

    @overload
    def recurrence(
        self,
        x: Array | None = ...,
        *,
        drive: Mapping[str, Array] | None = ...,
        initial: Array | Mapping[str, Array] | float | None = ...,
        reset: Any = ...,
        ties: Any = ...,
        readout: Callable[..., Any] | None = ...,
    ) -> CellRecurrence[Array]: ...

    @overload
    def recurrence(
        self,
        x: Any = ...,
        *,
        drive: Mapping[str, Any] | None = ...,
        initial: Any = ...,
        reset: Any = ...,
        ties: Any = ...,
        readout: Callable[..., Any] | None = ...,
    ) -> CellRecurrence: ...

    @takes_shards
    def recurrence(
        self,
        x: Any = None,
        *,
        drive: Mapping[str, Any] | None = None,
        initial: Any = None,
        reset: Any = None,
        ties: Any = None,
        readout: Callable[..., Any] | None = None,
    ) -> CellRecurrence:
        """Return the recurrence of this cell on an input, or on drives already projected.

        Parameters
        ----------
        x : array, shape (T, *batch, input_size), optional
            The input.
        drive : mapping of arrays, optional
            Instead of ``x``: each drive by name, broadcasting to (T, *batch, *lanes, n), time first. Beside ``x``:
            those that are indices, integers in the same form.
        initial : array or dict, optional
            h[0], shape (*batch, [k], *lanes, n) or anything that broadcasts to it; or one array per component by
            name. Default: zeros.
        reset : array of bool, optional
            (T, *batch): steps that start from ``initial`` again.
        ties : float or mapping, optional
            The derivative at a tie of minimum or maximum (hence of relu and clip), and of absolute at 0: a number in
            [0, 1] for all of them, or a mapping from ``"minimum"``, ``"maximum"``, ``"absolute"`` to numbers. That of
            minimum and maximum, in [0, 1], is the share of the operand that depends on the state; if both do, that of
            the first, and the second gets the rest. That of absolute, in [-1, 1], is the slope at 0. Default: 1, 1 and
            0. It decides how many iterations a solver takes, not where it ends; gradients take the same choice.
        readout : callable, optional
            ``readout(s, u, p)`` of the components of the states h[t], the drives and the elementwise parameters, all by
            name, for all t: what ``solution.output`` shows, (T, *batch, ...), of any other axes. It uses NumPy's
            functions, and may couple units. Default: the component that the cell shows.

        Returns
        -------
        CellRecurrence
            In the dtype of the weights.

        Raises
        ------
        TypeError
            For mixed array kinds or dtypes, indices that are no integers, or ties that are no numbers.
        ValueError
            For wrong shapes or names, indices that are no units, or ties of unknown operations or out of range.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)
        >>> cell.recurrence(np.ones((20, 5, 3)), reset=rs.packed_resets([12, 8])).shape
        (20, 5, 8)
        """
        given = self._drives(x, drive, initial)
        rec = CellRecurrence(self, given.named, initial, reset, given.kind, given.x, ties, readout)
        for n in self.cell.indices:
            check_index(given.named[n], rec.layout.lane_width // rec.layout.components, f"drive {n}", "t")
        return rec

    def output(self, states: Array) -> Array:
        """Return the shown component of states (T, *batch, [k], *lanes, n): a view (T, *batch, *lanes, n)."""
        return self.layout.component(states, self.cell.state.index(self.cell.output))

    def pull_output(self, output: Array, states: Array) -> None:
        """Add to a cotangent of the states what a cotangent of the output, (T, *batch, *lanes, n), gives."""
        shown = WeightedCell.output(self, states)
        shown += output

    def shown_by(self, output: Array) -> Array:
        """Return the smallest value of the shown component that gives an output; ValueError where none does."""
        return output

    def pull_shown_by(self, shown: Array) -> Array:
        """Return the cotangent of an output for one of the value of the shown component that gives it."""
        return shown

    def stack_components(self, parts: list[Array], like: Array) -> Array:
        """Return states from one array per component, in the memory order of ``like``."""
        if len(parts) == 1:
            return parts[0]
        axis = like.ndim - len(self.layout.event) + 1
        shape = (*like.shape[:axis], *self.layout.event)
        states = empty_in_order(shape, like, axis)
        for index, part in enumerate(parts):
            self.layout.component(states, index)[...] = part
        return states

    def __repr__(self) -> str:
        kinds = {n: m.name for n, m in self.mixings.items()}
        return f"WeightedCell({self.cell.name}, {self.hidden_size} units, mixings {kinds}, {self.dtype})"
