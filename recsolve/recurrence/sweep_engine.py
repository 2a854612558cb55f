"""Sweeps on a GPU bound to a cell's recurrence: quasi-Newton for cells whose mixings read the state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsolve.base.arrays import Array
from recsolve.base.tolerance import Tolerance
from recsolve.kernels.codegen.cuda_stages import SweepCell
from recsolve.kernels.gpu.cell.sweeps import Given, SweepsCuda
from recsolve.kernels.starts import Starts
from recsolve.mixings import couples
from recsolve.recurrence.compilation import plain_mixings
from recsolve.recurrence.engine import Verdict
from recsolve.symbolic.graph import Leaf

if TYPE_CHECKING:
    from recsolve.recurrence.cell_recurrence import CellRecurrence


def given(recurrence: CellRecurrence, cell: SweepCell) -> Given:
    """Return the arrays of a recurrence as its sweeps take them."""
    weighted, mixings = recurrence.cell, plain_mixings(recurrence.cell)
    constants: dict[Leaf, Array] = {Leaf("parameter", name): p for name, p in weighted.parameters.items()}
    for name, mixing in mixings.items():
        constants[Leaf("weight", name)] = mixing.diagonal() if couples(mixing) else mixing.weight
    return Given(
        drives=[recurrence.drive[name] for name in cell.drives],
        constants=[constants[leaf] for leaf in cell.constants],
        weights={name: m.weight for name, m in mixings.items() if couples(m)},
        starts=Starts(recurrence.initial, recurrence.restart, recurrence.reset),
        shape=recurrence.shape,
        layout=recurrence.layout,
        like=recurrence.drive_like,
    )


def sweep(
    recurrence: CellRecurrence,
    sweeps: SweepsCuda | None,
    tolerance: Tolerance,
    *,
    scanned: bool,
    most: int | None = None,
) -> Verdict | None:
    """Return what sweeps find; None where they find nothing, and for mixings of what is computed from the state.

    Parameters
    ----------
    recurrence : CellRecurrence
    sweeps : SweepsCuda or None
        Those of its cell.
    tolerance : Tolerance
    scanned : bool
        Whether to scan with the k x k blocks of J; False takes A = 0, which is Jacobi's iteration.
    most : int, optional
        Sweeps.
    """
    unit = 1.0 if tolerance.lanes is None else tolerance.unit
    test = tolerance.atol * unit, tolerance.rtol
    found = None if sweeps is None else sweeps.solve(given(recurrence, sweeps.cell), test, scanned=scanned, most=most)
    if found is None:
        return None
    states, iterations, residual, largest = found
    evaluations = iterations + 1
    rows = evaluations * states.size // recurrence.layout.size
    counts = {"nfev": evaluations, "rows": rows, **dict.fromkeys(("njev", "nscan"), evaluations * scanned)}
    values = None if residual is None else states + residual
    return Verdict(states, iterations, values=values, counts=counts, largest=largest)
