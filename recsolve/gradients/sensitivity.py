"""How one evaluation of a recurrence depends on drives, parameters and mixing weights.

:class:`CellSensitivity` runs a cell once on duals whose leaves are all of these. ``pull`` takes a cotangent of F back
to the leaves, ``push`` takes tangents of the leaves to F; both cost about as much as the mixings.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.names import Names
from recsolve.base.ties import ties_in_force
from recsolve.gradients.transposes import sum_to
from recsolve.mixings import Mixing, from_plain
from recsolve.recurrence.base import check_known
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.cell_weights import CellWeights
from recsolve.recurrence.engine import Pulled
from recsolve.recurrence.projection import Projection
from recsolve.recurrence.ragged_recurrence import RaggedRecurrence
from recsolve.symbolic.constants import state_dtype
from recsolve.symbolic.dual import ONE, Dual, OfState
from recsolve.symbolic.units import units_in_force

Leaf = tuple[str, Hashable]


def projection_of(recurrence: CellRecurrence | RaggedRecurrence) -> Projection | None:
    """Return what projected the input of a cell, or None where drives were given.

    Raises
    ------
    TypeError
        When a subclass of the cell projects otherwise.
    """
    cell = recurrence.cell
    if cell.projection is None or recurrence.x is None:
        return None
    if type(cell).drive is not CellWeights.drive:
        raise TypeError(f"{type(cell).__name__} overrides drive, so how drives depend on the input is not known")
    return cell.projection


class CellSensitivity:
    """A cell evaluated once, with the partials of its outputs and mixing inputs with respect to every leaf.

    A leaf is a pair of a kind (``"state"``, ``"drive"``, ``"parameter"``) and a name.

    Parameters
    ----------
    recurrence : CellRecurrence
    previous : array, shape (T, *batch, *event)
        h[t-1] for all t, native.

    Raises
    ------
    TypeError
        When a subclass of the recurrence overrides f.
    """

    def __init__(self, recurrence: CellRecurrence, previous: Array):
        check_known(recurrence, CellRecurrence)
        self.recurrence, self.cell = recurrence, recurrence.cell
        self.calls: list[tuple[str | None, Mixing, Array, Mapping[Hashable, Any]]] = []
        part = recurrence.layout.component
        state = {n: self._leaf("state", n, part(previous, i), OfState) for i, n in self._components()}
        drive = {n: self._leaf("drive", n, u) for n, u in recurrence.drive.items()}
        parameters = {n: self._leaf("parameter", n, p) for n, p in self.cell.parameters.items()}
        mixings = {n: self._caller(n, m) for n, m in self.cell.mixings.items()}
        self.part = recurrence.layout.component(previous, 0)
        units = recurrence.layout.lane_width // recurrence.layout.components
        known = units_in_force(units, self._without_name)
        with ties_in_force(recurrence.ties), state_dtype(recurrence.dtype), np.errstate(all="ignore"), known:
            out = self.cell.cell.function(
                Names(state, "component"),
                Names(mixings, "mixing"),
                Names(drive, "drive"),
                Names(parameters, "parameter"),
            )
        outputs = out if isinstance(out, tuple) else (out,)
        self.outputs = [x.partials if isinstance(x, Dual) else {} for x in outputs]

    def _components(self) -> list[tuple[int, str]]:
        return list(enumerate(self.cell.cell.state))

    def _leaf(self, kind: str, name: Hashable, value: Any, depends: type[Dual] = Dual) -> Dual:
        return depends(value, {(kind, name): ONE})

    def _without_name(self, mixing: Mixing, x: Dual) -> Dual:
        return self._caller(None, mixing)(x)  # type: ignore[no-any-return]

    def _caller(self, name: str | None, mixing: Mixing) -> Any:
        """Open a leaf for the output of every call, diagonal mixings included: their weights are wanted too."""

        def call(x: Any) -> Dual:
            value, depends = (x.value, type(x)) if isinstance(x, Dual) else (x, Dual)
            self.calls.append((name, mixing, value, x.partials if isinstance(x, Dual) else {}))
            return self._leaf("call", len(self.calls) - 1, self._mixed(name, mixing, value), depends)

        return call

    def _mixed(self, name: str | None, mixing: Mixing, x: Any) -> Any:
        return mixing.matvec(x)

    def _mixed_back(self, name: str | None, mixing: Mixing, g: Any) -> Any:
        return mixing.rmatvec(g)

    @np.errstate(all="ignore")
    def pull(self, cotangent: Array, *, states: bool = True) -> Pulled:
        """Return the cotangents of the leaves and of the results of mixing calls, for one of F.

        Parameters
        ----------
        cotangent : array, shape (T, *batch, *event)
        states : bool
            Whether those of the states before the steps are wanted, and mixings are taken back for them.
        """
        adjoints: dict[Any, Any] = {}
        mixed: list[tuple[str, Array, Array]] = []

        def accumulate(partials: Mapping[Hashable, Any], g: Array) -> None:
            for leaf, partial in partials.items():
                adjoints[leaf] = adjoints.get(leaf, 0.0) + partial * g

        for (index, _), partials in zip(self._components(), self.outputs, strict=True):
            accumulate(partials, self.recurrence.layout.component(cotangent, index))
        for index in reversed(range(len(self.calls))):
            name, mixing, x, inner = self.calls[index]
            g = adjoints.pop(("call", index), None)
            if g is None:
                continue
            g = np.broadcast_to(g, self.part.shape)
            if name is not None:
                mixed.append((name, g, np.broadcast_to(x, self.part.shape)))
            if not states and all(isinstance(leaf, tuple) and leaf[0] == "state" for leaf in inner):
                continue
            accumulate(inner, self._mixed_back(name, mixing, g))
        full = {leaf: np.broadcast_to(g, self.part.shape) for leaf, g in adjoints.items()}
        return Pulled(full, mixed)

    @np.errstate(all="ignore")
    def push(self, tangents: Mapping[Leaf, Array], weights: Mapping[str, Array]) -> Array:
        """Return the tangent of F, (T, *batch, *event), for tangents of leaves and of mixing weights."""
        xp, moved = namespace(self.part), dict(tangents)

        def combine(partials: Mapping[Hashable, Any]) -> Any:
            return sum((p * moved[leaf] for leaf, p in partials.items() if leaf in moved), start=0.0)

        for index, (name, mixing, x, partials) in enumerate(self.calls):
            dx = xp.broadcast_to(xp.asarray(combine(partials), self.part.dtype), self.part.shape)
            dy = mixing.matvec(dx)
            along = None if name is None else weights.get(name)
            moved["call", index] = dy if along is None else dy + mixing.weight_tangent(along, x)
        parts = [xp.broadcast_to(xp.asarray(combine(p), self.part.dtype), self.part.shape) for p in self.outputs]
        return self.cell.stack_components(parts, self.part)


@np.errstate(all="ignore")
def weight_cotangents(mixings: Mapping[str, Mixing], pulled: Pulled) -> dict[str, Array]:
    """Return the cotangents of mixing weights by name, in their own shapes.

    Parameters
    ----------
    mixings : mapping of Mixing
    pulled : Pulled
        From :meth:`CellSensitivity.pull`, or from what is compiled.

    Raises
    ------
    TypeError
        When a mixing does not define how it depends on its weight.
    """
    totals = {}
    for name, m in mixings.items():
        own = pulled.leaves.get(("mixing", name))
        if own is None:
            totals[name] = namespace(m.weight).zeros_like(m.weight)
        else:
            totals[name] = from_plain(m, sum_to(own, m.weight.shape))
    for name, g, x in pulled.mixed:
        totals[name] = totals[name] + mixings[name].weight_cotangent(g, x)
    return totals
