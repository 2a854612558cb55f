"""Second derivatives of scans: a scan is a recurrence of the ``act`` of its monoid, and has those of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace, to_native
from recsolve.base.links import Leaf
from recsolve.gradients.scan_adjoint import as_given
from recsolve.gradients.second import Cotangents, second_adjoint
from recsolve.jacobians import Diagonal, Jacobian, LaneDense
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.scan import Given, read


class _Act:
    """One step of a scan as a function of the state before it, and of its elements; the last input says what is cut."""

    def __init__(self, monoid: Monoid, affine: bool):
        self.monoid, self.affine = monoid, affine

    def __call__(self, h: Any, u: Any, p: Any) -> Any:
        *elements, cut = u
        forgotten = self._act(elements, p.start) if self.monoid.restarts else self.monoid.constant(elements, None)
        return np.where(cut, forgotten, self._act(elements, h))

    def _act(self, elements: Any, h: Any) -> Any:
        if not self.affine:
            return self.monoid.act(tuple(elements), h)
        A, b = elements
        return (np.matmul(A, h[..., None])[..., 0] if len(A.shape) > len(b.shape) else A * h) + b


def second_scan_adjoint(
    monoid: Any, elements: Sequence[Any], y: Any, cotangent: Any, directions: Sequence[Any], **given: Any
) -> tuple[list[Any], Any, Any]:
    """Return the gradients of <v, gradients of :func:`recsolve.scan_adjoint`>.

    Parameters
    ----------
    monoid, elements, y, cotangent, **given
        As of :func:`recsolve.scan_adjoint`.
    directions : sequence
        v for every element and for the initial state, each in its shape; None for 0.

    Returns
    -------
    elements : list of array
    initial : array or None
    cotangent : array

    Raises
    ------
    TypeError
        For monoids whose steps mix more than the last axis of a state, or use operations without a transpose, complex
        numbers, and elements that are structured Jacobians.
    """
    known = read(monoid, tuple(elements), **given)
    prepared, affine = _arrays(known, elements)
    xp, time = namespace(known.like), (len(known.like), *(1,) * (known.like.ndim - 1))
    start = xp.zeros_like(known.like[:1].sum(axis=0)) if known.initial is None else known.initial
    cut = xp.zeros(time, bool) if known.reset is None else known.reset
    if known.initial is None and not known.monoid.restarts:
        cut = cut | (xp.arange(time[0]) == 0).reshape(time)
    rec = FunctionRecurrence(
        _Act(known.monoid, affine), (*prepared, cut), start,
        "dense" if known.monoid.mixed(known.elements) else "diagonal", None, None, None, None, {"start": start},
    )  # fmt: skip
    v: dict[Leaf, Array] = {}
    for place, (direction, like) in enumerate(zip(directions, (*prepared, start), strict=True)):
        if direction is not None and place < len(prepared):
            v["input", place] = _arranged(known, to_native(direction, "a direction"), like.shape)
        elif direction is not None:
            row = namespace(like).broadcast_to(to_native(direction, "a direction"), like.shape)
            v["initial", None] = v["parameter", "start"] = row
    rows = [known.native(x, name, known.like.shape) for name, x in (("y", y), ("cotangent", cotangent))]
    found = second_adjoint(rec, rows[0], Cotangents(rows[1]), v)
    into = [as_given(known, e, found.leaves["input", i]) for i, e in enumerate(elements)]
    initial = None
    if given.get("initial") is not None:
        both = found.leaves["initial", None] + found.leaves["parameter", "start"]
        initial = as_given(known, given["initial"], both, in_time=False)
    return into, initial, known.returned(found.states)


def _arrays(known: Given, elements: Sequence[Any]) -> tuple[list[Array], bool]:
    """Return the elements as plain arrays (T, ...), and whether they are those of affine maps."""
    op, prepared = known.monoid, list(known.elements)
    affine = len(prepared) == 2 and type(prepared[0]) in (Diagonal, LaneDense) and not isinstance(elements[0], Jacobian)
    if affine:
        prepared[0] = prepared[0].data
    plain = all(isinstance(e, type(known.like)) for e in prepared)
    if not plain or op.mixed(known.elements) not in ((), (-1,)) or known.like.dtype.kind == "c":
        raise TypeError(f"second derivatives of the {op.title} scan with these elements are not known")
    return [namespace(e).broadcast_to(e, (len(known.like), *e.shape[1:])) for e in prepared], affine


def _arranged(known: Given, x: Array, shape: tuple[int, ...]) -> Array:
    """Return what is laid out as an element is, as the scan takes it."""
    x = np.moveaxis(x, known.axis, 0) if x.ndim and known.axis else x
    x = x[::-1] if x.ndim and known.reverse else x
    x = x[..., None] if known.alone else x
    return namespace(x).broadcast_to(x, shape)  # type: ignore[no-any-return]
