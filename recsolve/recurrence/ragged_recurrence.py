"""The recurrence of a cell whose components have shapes of their own: a function of named states."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from recsolve.base.arrays import Array, UserArray, from_native, picked
from recsolve.base.links import Leaf, from_linked
from recsolve.base.named_state import NamedState
from recsolve.base.names import Names
from recsolve.base.overriding import changed
from recsolve.mixings import Mixing
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.reach import read_pairs
from recsolve.symbolic.dual import value_of
from recsolve.symbolic.stand_in import Elementwise

if TYPE_CHECKING:
    from recsolve.recurrence.cell_weights import Drives
    from recsolve.recurrence.ragged_cell import RaggedCell


class RaggedRecurrence(FunctionRecurrence[UserArray]):
    """The recurrence of a cell whose components have axes; :meth:`RaggedCell.recurrence` makes it.

    It is that of a function ``f(s, u, p)``, whose inputs are the drives, and whose parameters are those of the cell and
    the weights of its mixings.

    Attributes
    ----------
    cell : RaggedCell
    x : array or None
        The input (T, *batch, input_size) that the drives were projected from.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.Cell(lambda s, W, u, p: (W.h(s.h) + u.x,), state={"h": ("d",)}, output="h")
    >>> rec = cell.random(input_size=3, hidden_size={"d": 4}, rng=0).recurrence(np.ones((20, 3)))
    >>> type(rec).__name__, rec.drive.x.shape
    ('RaggedRecurrence', (20, 4))
    """

    def __init__(
        self,
        cell: RaggedCell,
        state: NamedState,
        given: Drives,
        initial: Array,
        reset: Any,
        ties: Any,
        readout: Callable[..., Any] | None,
    ):
        self.cell, self.x = cell, given.x
        weights = {weight_name(n): m.weight for n, m in cell.mixings.items()}
        inputs = {n: from_linked(a, given.kind) for n, a in given.named.items()}
        parameters = {n: from_native(a, given.kind) for n, a in (cell.parameters | weights).items()}
        step, start = _Step(cell), from_linked(initial, given.kind)
        structure = cell.cell.structure
        if structure is None:
            plain = FunctionRecurrence(step, inputs=inputs, initial=start, parameters=parameters, state=state)
            structure = read_pairs(plain)
        super().__init__(
            step, inputs=inputs, initial=start, parameters=parameters, state=state, structure=structure, reset=reset,
            ties=ties, readout=_Readout(readout, cell.cell.output),
        )  # fmt: skip

    @property
    def drive(self) -> Names:
        """The drives by name, native."""
        return Names(self.contain(self.inputs), "drive")

    def leaves(self) -> dict[Leaf, Array]:
        return {**Recurrence.leaves(self), **self.cell.leaves_on(self.drive, self.x)}

    @cached_property
    def places(self) -> dict[Leaf, Leaf]:
        """What f gets in the place of drives and weights of mixings: inputs and parameters."""
        drives: dict[Leaf, Leaf] = {("drive", n): ("input", i) for i, n in enumerate(self.drive)}
        return drives | {("mixing", n): ("parameter", weight_name(n)) for n in self.cell.mixings}

    def _cut(self, cut: slice, initial: Any) -> FunctionRecurrence:
        return self._with_x(super()._cut(cut, initial), lambda x: x[cut])

    def _select(self, place: tuple[Array, ...], initial: Any) -> FunctionRecurrence | None:
        part, lead = super()._select(place, initial), (self.length, *self.batch)
        return None if part is None else self._with_x(part, lambda x: picked(x, lead, (slice(None), *place)))

    def _with_x(self, part: FunctionRecurrence, change: Callable[[Array], Array]) -> FunctionRecurrence:
        part.x = None if self.x is None else change(self.x)  # type: ignore[attr-defined]
        return part


def weight_name(mixing: str) -> str:
    """Return what the weight of a mixing is called among the parameters of the function."""
    return f"W.{mixing}"


class _Step:
    """The function of a cell as one of named states, inputs and parameters, of which mixings take their weights."""

    def __init__(self, cell: RaggedCell):
        self.function, self.mixings, self.__name__ = cell.cell.function, cell.mixings, cell.cell.name
        self._last: dict[str, tuple[Any, Mixing]] = {}

    def __call__(self, s: Any, u: Any, p: Any) -> Any:
        W = Names({n: partial(self._mixed, n, p[weight_name(n)]) for n in self.mixings}, "mixing")
        out = self.function(s, W, Names(u, "drive"), p)
        return out if isinstance(out, (tuple, dict)) else (out,)

    def _mixed(self, name: str, weight: Any, x: Any) -> Any:
        for stand_in in (x, weight):
            if isinstance(stand_in, Elementwise):
                return stand_in.mixed(self._of(name, value_of(value_of(weight))), weight, x)
        return self._of(name, weight).matvec(x)

    def _of(self, name: str, weight: Array) -> Mixing:
        """Return a mixing with this weight: the last one, with all that it has computed, where that is the same."""
        last = self._last.get(name)
        if last is None or last[0] is not weight:
            last = self._last[name] = weight, changed(self.mixings[name], weight=weight)
        return last[1]


class _Readout:
    """What a cell shows, as a function of named states, inputs and parameters."""

    def __init__(self, readout: Callable[..., Any] | None, shown: str):
        self.readout, self.shown = readout, shown

    def __call__(self, s: Any, u: Any, p: Any) -> Any:
        return s[self.shown] if self.readout is None else self.readout(s, Names(u, "drive"), p)
