"""A cell whose components have shapes of their own, together with its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, overload

import numpy as np

from recsolve.base.arrays import Array, Kind
from recsolve.base.named_state import NamedState, Sizes
from recsolve.base.names import Names
from recsolve.base.shard import takes_shards
from recsolve.mixings import check_index
from recsolve.recurrence.cell_weights import CellWeights
from recsolve.recurrence.function_names import packed
from recsolve.recurrence.given import check_initial
from recsolve.recurrence.ragged_recurrence import RaggedRecurrence


class RaggedCell(CellWeights):
    """A cell whose components have axes of their own, with its weights: :class:`Cell` with a mapping as its state.

    Attributes
    ----------
    cell : Cell
        The definition.
    mixings : dict of Mixing
        Each acts on the last axes of what it gets.
    parameters : dict of array
        Each of its own axes.
    projection : Projection or None
        The hoisted input projection.
    hidden_size : dict of int
        The sizes of those axes that weights show, or that were given.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> def memory(s, W, u, p):  # a matrix that is written to by rows, and a vector that reads it
    ...     h = np.tanh(W.h(s.h) + np.einsum("...kv,...k->...v", s.C, u.k))
    ...     return {"C": p.decay * s.C + u.k[..., :, None] * s.h[..., None, :], "h": h}
    >>> Memory = rs.Cell(memory, state={"C": ("k", "v"), "h": ("v",)}, output="h", axes={"k": ("k",), "decay": ()})
    >>> cell = Memory.random(input_size=3, hidden_size={"k": 2, "v": 4}, rng=0)
    >>> sol = rs.solve(cell.recurrence(np.ones((20, 5, 3))))
    >>> sol.named.C.shape, sol.output.shape, rs.adjoint(sol, output=sol.output).mixings.h.shape
    ((20, 5, 2, 4), (20, 5, 4), (4, 4))
    """

    sizes: Sizes

    def _measure(self, hidden_size: Any) -> None:
        axes, sizes = self.cell.axes, Sizes()
        for axis, size in sizes_of(hidden_size, self.cell.axis_names).items():
            sizes.meet("hidden_size", (axis,), (size,))
        for n, mixing in self.mixings.items():
            event = (*mixing.lanes, mixing.units)
            if len(event) > len(axes[n]):
                raise ValueError(f"mixing {n} acts on axes of sizes {event}; wanted the last of {axes[n]}")
            sizes.meet(f"mixing {n}", axes[n][len(axes[n]) - len(event) :], event)
        for n, p in self.parameters.items():
            _meet(sizes, f"parameter {n}", axes[n], p.shape, "")
        for n, event in ({} if self.projection is None else self.projection.events).items():
            _meet(sizes, f"projection {n}", axes[n], event, "")
        self.sizes, self.hidden_size = sizes, dict(sizes.known)

    @overload
    def recurrence(
        self,
        x: Array | None = ...,
        *,
        drive: Mapping[str, Array] | None = ...,
        initial: Array | Mapping[str, Array | float] | float | None = ...,
        reset: Any = ...,
        ties: Any = ...,
        readout: Callable[..., Any] | None = ...,
    ) -> RaggedRecurrence[Array]: ...

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
    ) -> RaggedRecurrence: ...

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
    ) -> RaggedRecurrence:
        """Return the recurrence of this cell on an input, or on drives already projected.

        Parameters
        ----------
        x : array, shape (T, *batch, input_size), optional
            The input.
        drive : mapping of arrays, optional
            Instead of ``x``: each drive by name, (T, *batch, *its axes), of which axes of the batch may be 1. Beside
            ``x``: those that are indices, integers in the same form.
        initial : dict, number or array, optional
            h[0], by name: numbers, or arrays (*batch, *axes) that may lack axes of the batch. Components that are
            missing are zeros. Also one number for all, or a flat state (*batch, N).
        reset : array of bool, optional
            (T, *batch): steps that start from ``initial`` again.
        ties : float or mapping, optional
            As in :meth:`WeightedCell.recurrence`.
        readout : callable, optional
            ``readout(s, u, p)`` as in :meth:`WeightedCell.recurrence`. Default: the component that the cell shows.

        Returns
        -------
        RaggedRecurrence

        Raises
        ------
        TypeError
            For mixed array kinds or dtypes, or indices that are no integers.
        ValueError
            For wrong names or shapes, axes of one name with several sizes or with none that is known, or indices that
            are no units.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> count = rs.Cell(lambda s, W, u, p: (0.5 * s.m + u.x,), state={"m": ()}, output="m").with_weights()
        >>> rs.solve(count.recurrence(drive={"x": np.ones(3)}, initial={"m": 2.0})).states[:, 0].tolist()
        [2.0, 2.0, 2.0]
        """
        given, axes = self._drives(x, drive, initial), self.cell.axes
        sizes = self.sizes.copy()
        batch = self._batch(given.named, sizes)
        state, start = self._start(initial, sizes, batch, self.like(given.named), given.kind)
        for n in self.cell.indices:
            check_index(given.named[n], sizes.known[axes[n][-1]], f"drive {n}", "t")
        return RaggedRecurrence(self, state, given, start, reset, ties, readout)

    def _batch(self, drives: Names, sizes: Sizes) -> tuple[int, ...]:
        """Return the shape of the batch that drives span together."""
        leads = {n: _meet(sizes, f"drive {n}", self.cell.axes[n], u.shape, "T, *batch") for n, u in drives.items()}
        lengths, ranks = {lead[:1] for lead in leads.values()}, {len(lead) for lead in leads.values()}
        try:
            if len(lengths) > 1 or len(ranks) > 1 or () in lengths:
                raise ValueError
            return tuple(np.broadcast_shapes(*leads.values())[1:])
        except ValueError:
            raise ValueError(f"drives have (T, *batch) of {leads}; wanted one T, and batches alike or 1") from None

    def _start(
        self, initial: Any, sizes: Sizes, batch: tuple[int, ...], like: Array, kind: Kind
    ) -> tuple[NamedState, Array]:
        """Return how states hold the components, and h[0] as one array."""
        axes, given = self.cell.components, initial if isinstance(initial, Mapping) else {}
        if unknown := [n for n in given if n not in axes]:
            raise ValueError(f"initial has components {unknown}; wanted some of {tuple(axes)}")
        for n, value in given.items():
            if not np.isscalar(value):
                _meet(sizes, f"initial[{n!r}]", axes[n], tuple(np.shape(value)), "*batch")
        missing = dict.fromkeys(axis for named in axes.values() for axis in named if axis not in sizes.known)
        if missing:
            raise ValueError(
                f"sizes of the axes {tuple(missing)} of {self.cell.name} are not known; give them by "
                "with_weights(hidden_size={axis: size}), or components that have them in initial"
            )
        state = NamedState(axes, sizes.known)
        if not isinstance(initial, Mapping):
            return state, check_initial(initial, (*batch, state.size), like, kind)
        parts = [check_initial(given.get(n), batch + state.shapes[n], like, kind) for n in axes]
        return state, packed(state, parts, batch)

    def __repr__(self) -> str:
        kinds = {n: m.name for n, m in self.mixings.items()}
        return f"RaggedCell({self.cell.name}, {dict(self.cell.components)}, mixings {kinds}, {self.dtype})"


def _meet(sizes: Sizes, where: str, axes: tuple[str, ...], shape: tuple[int, ...], before: str) -> tuple[int, ...]:
    """Note the sizes of the last axes of an array, and return what comes before them, which ``before`` describes."""
    lead = len(shape) - len(axes)
    if lead < 0 or (lead and not before):
        wanted = ", ".join([*([before] if before else []), *axes])
        raise ValueError(f"{where} has shape {tuple(shape)}; wanted ({wanted})")
    sizes.meet(where, axes, tuple(shape[lead:]))
    return tuple(shape[:lead])


def sizes_of(hidden_size: Any, axes: tuple[str, ...]) -> dict[str, int]:
    """Return the sizes of axes that a user gave, checked."""
    if hidden_size is None:
        return {}
    if not isinstance(hidden_size, Mapping):
        raise TypeError(f"hidden_size is {hidden_size!r}; wanted a dict of the sizes of axes {axes}")
    for axis, n in hidden_size.items():
        if axis not in axes or not isinstance(n, (int, np.integer)) or n < 1:
            raise ValueError(f"hidden_size has {axis!r}: {n!r}; wanted positive integers for axes {axes}")
    return {axis: int(n) for axis, n in hidden_size.items()}
