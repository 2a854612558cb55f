"""What all steps of NumPy arrays do to the state before them, by compiled loops on CPU threads.

The loops are those with which a scan summarises blocks of time, for the structures whose lanes are single numbers or
blocks of up to four. Elements are read once: where lanes are many their rows are composed as they lie in memory, where
they are few several blocks of time are walked side by side. How the work is cut depends on shapes alone. What is not
carried here goes to the tree of NumPy.
"""

from __future__ import annotations

from typing import Any

from recsolve.base.arrays import FLOATS, Array
from recsolve.jacobians import Jacobian, LaneDense, Zero
from recsolve.kernels.cpu.scan import scan_numba
from recsolve.kernels.cpu.scan.scan_numba import Laid
from recsolve.kernels.monoids.affine import structured
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.kernels.registry import register
from recsolve.kernels.summary import Summary, folded, joined
from recsolve.kernels.summary import summarise as by_tree


def carries(monoid: Monoid, elements: Any, initial: Array | None = None) -> bool:
    """Return whether the compiled loops take these elements, and do not hand them to the tree of NumPy."""
    e = elements[0]
    if not scan_numba.carries(monoid, elements, initial) or elements[1].dtype not in FLOATS or not elements[1].size:
        return False
    return not isinstance(e, Zero) and monoid.composable(elements)


@register("summary", "numba")
def summarise(monoid: Monoid, elements: Any, *, initial: Array | None = None, reset: Array | None = None) -> Summary:
    """Return what :func:`recsolve.kernels.backends.summarise` does, by compiled loops."""
    like = monoid.like(elements)
    if not carries(monoid, elements, initial) or (reset is not None and reset.ndim != like.ndim):
        return by_tree(monoid, elements, initial=initial, reset=reset)
    e, f = elements
    laid = Laid(monoid, (e.diagonal() if isinstance(e, LaneDense) else e, f), f, initial, None, reset)
    length, blocks = laid.blocks()
    if blocks < 2 or not laid.together:
        return by_tree(monoid, elements, initial=initial, reset=reset)
    P, Q, cut = laid.summaries(length, blocks)
    found = Summary((structured(e, P) if isinstance(e, Jacobian) else P, Q))
    if reset is not None:
        found = Summary(found.element, Q, cut)
    found = folded(monoid, found)
    rest = slice(length * blocks, None)
    if length * blocks == len(like):
        return found
    tail = by_tree(monoid, monoid.take(elements, rest), initial=initial, reset=None if reset is None else reset[rest])
    return joined(monoid, tail, found)
