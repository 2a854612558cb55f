"""The scan of factored Jacobians on the GPU: one product J[t] v a step, walked through time by blocks.

Where few sequences are long, sweeps over all times are tried first (:mod:`recsolve.kernels.gpu.scan.factored_sweeps`).
A product with a factored Jacobian is a linear cell: its drives are the partials and what is added, its mixings those of
the Jacobian. The transpose is another such cell, whose table of partials is the transposed one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recsolve.base.arrays import Array, address, empty_in_order, kind_of
from recsolve.jacobians.factored import Factored
from recsolve.kernels.codegen.cuda_walk import Sum, WalkCell, linear_cell
from recsolve.kernels.gpu.block_walk import Given, text, walk
from recsolve.kernels.gpu.device import Machine
from recsolve.kernels.gpu.scan.factored_sweeps import most_sweeps, sweep_factored
from recsolve.mixings import has_matrix, matrix_of
from recsolve.symbolic.graph import Leaf


def scan_factored(
    e: Any, f: Array, machine: Machine, *, initial: Array | None = None, reset: Array | None = None
) -> Array | None:
    """Return y[t] = e[t] y[t-1] + f[t] for all t, or None where no kernel does that.

    Parameters
    ----------
    e : Factored, or its transpose
    f : array, shape (T, *batch, *event)
    machine : Machine
    initial : array, optional
        y[-1]; without it the first step is cut from its past.
    reset : array of bool, optional
        Steps that are cut from their past, broadcasting against ``f``; all components of a unit together.
    """
    layout, batch = e.layout, f.ndim - 1 - len(e.layout.event)
    axis = None if layout.components == 1 else 1 + batch
    table = _Table(e)
    if not _carried(table, f, initial, machine.kind) or (reset is not None and not _fits(reset, f, axis)):
        return None
    y = empty_in_order(f.shape, f, f.ndim)
    if not y.size:
        return y
    if (swept := sweep_factored(e, f, initial=initial, reset=reset, most=most_sweeps(e, f))) is not None:
        return swept
    found = table.cell([layout.component(f, j) for j in range(layout.components)])
    if found is None:
        return None
    cell, drives, constants, matrices = found
    starts = {} if initial is None else {"initial": initial[None]}
    cut = None if reset is None else (reset if axis is None else reset.squeeze(axis)).astype(f.dtype)
    given = Given(drives, [x[:1] for x in constants], y, matrices, batch, starts, cut)
    return y if walk(cell, text(cell), given, machine) else None


def _carried(table: _Table, f: Array, initial: Array | None, kind: str) -> bool:
    """Return whether all arrays are of one dtype and lie where kernels run, and the mixings are known ones."""
    arrays = [*table.partials.values(), *(m.weight for m in table.mixings), *([] if initial is None else [initial])]
    known = table.layout.units is not None and all(has_matrix(m) for m in table.mixings)
    return known and all(kind_of(x) == kind and x.dtype == f.dtype for x in [f, *arrays])


def _fits(reset: Array, f: Array, axis: int | None) -> bool:
    return reset.ndim == f.ndim and (axis is None or reset.shape[axis] == 1)


class _Table:
    """The partials of a product y = J x: of outputs and inputs of mixings by states and results of mixings.

    Rows are the components of y, and then the inputs of the calls; columns those of x, and then their results.
    """

    def __init__(self, e: Any):
        original, backwards = (e, False) if type(e) is Factored else (e.original, True)
        self.layout, self.backwards, self.k = original.layout, backwards, original.layout.components
        self.mixings = [call.mixing for call in original.calls]
        rows = [*original.outputs, *(call.partials for call in original.calls)]
        places = {(row, leaf): p for row, partials in enumerate(rows) for leaf, p in partials.items()}
        self.partials = {(j, i): p for (i, j), p in places.items()} if backwards else places

    def cell(self, added: list[Array]) -> tuple[WalkCell, list[Array], list[Array], list[Array]] | None:
        """Return the cell, its drives, of which ``added`` are the first, its constants, and a matrix for every call."""
        operands = _Operands(added)
        k, levels = self.k, self._levels()
        if not levels:
            return None  # nothing is multiplied: such Jacobians have a structure of their own
        calls = [call for level in levels for call in level]
        names = {i: Leaf("component", str(i)) for i in range(k)}
        names |= {k + call: Leaf("mixing", str(i)) for i, call in enumerate(calls)}

        def total(row: int) -> Sum:
            own = [(column, p) for (i, column), p in self.partials.items() if i == row and column in names]
            return tuple((names[column], operands.leaf(p)) for column, p in own)

        stages = tuple(tuple(total(k + call) for call in level) for level in levels)
        outputs = tuple(total(j) for j in range(k))
        cell = linear_cell(k, len(operands.drives), len(operands.constants), stages, outputs)
        weights = [matrix_of(self.mixings[call]) for call in calls]
        matrices = [w.swapaxes(-1, -2) for w in weights] if self.backwards else weights
        return cell, operands.drives, operands.constants, matrices

    def _levels(self) -> list[list[int]]:
        """Return the calls that depend on x and that y depends on, those together that can be made at once."""
        k = self.k
        read: dict[int, list[int]] = {}
        readers: dict[int, list[int]] = {}
        for row, column in self.partials:
            read.setdefault(row, []).append(column)
            readers.setdefault(column, []).append(row)
        wanted = _reached(range(k), read)
        seen = _reached(range(k), {column: [row for row in rows if row >= k] for column, rows in readers.items()})
        waiting = {i - k for i in wanted & seen if i >= k}
        levels: list[list[int]] = []
        while waiting:
            before = {c for c in waiting if not any((k + c, k + other) in self.partials for other in waiting)}
            levels.append(sorted(before))
            waiting -= before
        return levels


def _reached(first: Iterable[int], after: Mapping[int, list[int]]) -> set[int]:
    found: set[int] = set()
    waiting = list(first)
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += after.get(one, [])
    return found


class _Operands:
    """Arrays by name: those that change with time are drives, and the others constants; each is listed once."""

    def __init__(self, drives: Sequence[Array]):
        self.drives, self.constants = list(drives), list[Array]()
        self._found: dict[Any, Leaf] = {}

    def leaf(self, x: Array) -> Leaf:
        """Return the leaf of an array."""
        key = address(x), x.strides
        if key not in self._found:
            kind, into = ("drive", self.drives) if x.strides[0] else ("weight", self.constants)
            into.append(x)
            self._found[key] = Leaf(kind, str(len(into) - 1))
        return self._found[key]
