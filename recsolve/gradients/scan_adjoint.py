"""Gradients through a scan: one reverse affine scan with the derivatives of its maps at its states.

Where y[t] = e[t](y[t-1]), the cotangents obey g[t] = c[t] + J[t+1]^T g[t+1], with J[t] the derivative of e[t] at
y[t-1]; the gradients of elements are products of g[t] with their own step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, from_native, namespace
from recsolve.base.overriding import changed
from recsolve.base.shard import OVER_RANKS, Shard
from recsolve.base.ties import check_ties, ties_in_force
from recsolve.gradients.transposes import sum_to
from recsolve.jacobians import Block, Diagonal, Jacobian, LaneDense, Scalar
from recsolve.kernels.affine_scan import reverse_solve
from recsolve.kernels.monoids.float16 import state_dtype, widen
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.kernels.reference.scan_numpy import cuts_apart
from recsolve.scan import Given, is_complex, read

_CONJUGATED = (Scalar, Diagonal, Block, LaneDense)


class ScanGradients(NamedTuple):
    """The result of :func:`scan_adjoint`.

    Attributes
    ----------
    elements : tuple
        With respect to each element, in its shape. That of a structured Jacobian is one of the same type, which holds
        the gradients of its entries; None where it has no entries, or is of a type of your own.
    initial : array or None
        With respect to ``initial``, in its shape; None if none was given.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> b = np.array([1.0, 2.0, 3.0])
    >>> g = rs.scan_adjoint("addition", (b,), rs.scan("addition", (b,)), np.ones(3))
    >>> g.elements[0].tolist(), g.initial
    ([3.0, 2.0, 1.0], None)
    """

    elements: tuple[Any, ...]
    initial: Any


def scan_adjoint(
    monoid: str | Monoid | type[Monoid],
    elements: tuple[Any, ...],
    y: Any,
    cotangent: Any,
    *,
    initial: Any = None,
    reset: Any = None,
    reverse: bool = False,
    axis: int = 0,
    ties: Any = None,
) -> ScanGradients:
    """Return the gradients of a scalar function of a scan, given its derivatives with respect to the result.

    Parameters
    ----------
    monoid, elements, initial, reset, reverse, axis
        As they were given to :func:`recsolve.scan`.
    y : array, shape (T, ...)
        What it returned, of its dtype: float16, float32, float64, complex64 or complex128.
    cotangent : array, shape (T, ...)
        The derivatives with respect to y, of its kind and dtype. Those with respect to a complex number are, as
        torch's, d/d(real part) + i d/d(imaginary part).
    ties : float or mapping, optional
        The derivatives of maxima and minima where operands are equal, as for
        :meth:`recsolve.Recurrence.from_function`: by default all passes to the state. Of several entries of a row of a
        matrix over a semiring that are best the first is taken.

    Returns
    -------
    ScanGradients

    Raises
    ------
    ValueError, TypeError
        As :func:`recsolve.scan`; TypeError for a monoid that has no derivative, as ``finite_map``, and ValueError for a
        mask that cuts a part of the numbers that an element mixes.

    Notes
    -----
    The reverse scan is that of section 3 of Lim et al., ICLR 2024 (arXiv 2309.12252). Elementwise monoids, of yours
    too, are differentiated by running ``act`` on dual numbers; others define ``linearise``.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> a, b = np.full(4, 0.5), np.ones(4)
    >>> y = rs.scan("affine", (a, b), initial=2.0)
    >>> g = rs.scan_adjoint("affine", (a, b), y, np.array([0.0, 0.0, 0.0, 1.0]), initial=2.0)  # of the last state
    >>> g.elements[1].tolist(), float(g.initial)
    ([0.125, 0.25, 0.5, 1.0], 0.0625)
    """
    if isinstance(elements, (tuple, list)) and any(isinstance(e, Shard) for e in elements):
        given = {"initial": initial, "reset": reset, "reverse": reverse, "axis": axis, "ties": ties}
        return OVER_RANKS["scan_adjoint"](monoid, elements, y, cotangent, **given)  # type: ignore[no-any-return]
    with np.errstate(all="ignore"), ties_in_force(check_ties(ties)):
        known = read(monoid, elements, initial=initial, reset=reset, reverse=reverse, axis=axis)
        return pulled(known, elements, y, cotangent, initial)


@dataclass(frozen=True)
class Surroundings:
    """What the steps of a scan have before and after them: nothing, but for the initial state.

    Attributes
    ----------
    before : array or None
        The state before the first step, where that is not the initial one.
    """

    before: Array | None = None

    def complete(self, J: Jacobian, cuts: Array | None, cotangent: Array) -> Array:
        """Return the cotangent of the results, with what comes from steps after these; none is cut without a mask."""
        return cotangent


def pulled(
    given: Given, elements: Any, y: Any, cotangent: Any, initial: Any, around: Surroundings = Surroundings()
) -> ScanGradients:  # fmt: skip
    """Return the gradients of a scan whose arguments have been read."""
    if given.like.dtype.kind not in "fc":
        raise TypeError(f"the {given.monoid.title} monoid has no derivative: its states are {given.like.dtype}")
    if len(given.elements) != len(elements):
        raise TypeError(
            f"the {given.monoid.title} monoid prepares {len(given.elements)} arrays of {len(elements)} elements; "
            "gradients want as many"
        )
    if given.reset is not None and cuts_apart(given.monoid, given.elements, given.reset):
        raise ValueError(
            f"reset cuts some of the numbers that the {given.monoid.title} monoid mixes and not others; wanted one "
            "that cuts them together, as one of shape (T,) does"
        )
    dtype = state_dtype(given.like)
    named = (("y", y), ("cotangent", cotangent))
    states, c = (given.native(x, name, given.like.shape).astype(dtype, copy=False) for name, x in named)
    e = tuple(_ready(given, p, x, dtype) for p, x in zip(given.elements, elements, strict=True))
    into, start = _pull(given, e, states, c, around)
    shaped = tuple(as_given(given, e, g) for e, g in zip(elements, into, strict=True))
    return ScanGradients(shaped, None if initial is None else as_given(given, initial, start, in_time=False))


def _pull(
    given: Given, e: tuple[Any, ...], y: Array, c: Array, around: Surroundings
) -> tuple[tuple[Array | None, ...], Array | None]:
    """Return the cotangents of the prepared elements, and of the initial state."""
    monoid, start, mask, xp, zero = given.monoid, given.initial, given.reset, namespace(y), y.dtype.type(0)
    comes = start if around.before is None else around.before
    before = xp.concatenate([xp.zeros_like(y[:1]) if comes is None else comes[None], y[:-1]])[: len(y)]
    first = (xp.arange(len(y)) == 0).reshape(-1, *(1,) * (y.ndim - 1))
    if around.before is not None:  # the first step here is one among others
        first = first & False
    cuts = first & False if mask is None else mask
    forgets = None if monoid.restarts else cuts | first if start is None else mask
    if mask is not None:  # what cut steps have forgotten is selected, and 0 comes back from a cotangent of 0
        before = xp.where(mask, start if monoid.restarts and start is not None else zero, before)
    J, pull = monoid.linearise(e, before)
    g = reverse_solve(_conjugate(J), cuts, around.complete(_conjugate(J), mask, c))
    if forgets is None:
        into = pull(g)
    else:
        kept, lost = pull(xp.where(forgets, zero, g)), monoid.forget(e, xp.where(forgets, g, zero))
        into = tuple(a if a is None or b is None else a + b for a, b in zip(kept, lost, strict=True))
    if start is None:
        return into, None
    from_start = cuts | first if monoid.restarts else first & ~cuts
    seen = slice(None) if monoid.restarts and mask is not None else slice(0, 1)
    at_start = _conjugate(J)[seen].rmatvec(g[seen])
    return into, xp.where(from_start[seen], at_start, zero).sum(axis=0)


def _ready(given: Given, e: Any, x: Any, dtype: np.dtype[Any]) -> Any:
    """Return an element as the state is carried: in float32 for float16, and repeated only where ``x`` has length 1."""
    entries = getattr(e, "data", None) if isinstance(e, Jacobian) else e
    if entries is None:
        return e
    shape = list(np.shape(x.data if isinstance(x, Jacobian) else x))  # type: ignore[attr-defined]
    if given.axis and shape:
        shape.insert(0, shape.pop(given.axis))
    if any(step == 0 and n > 1 for step, n in zip(entries.strides, shape, strict=False)):
        copied = entries.copy()
        e = changed(e, data=copied) if isinstance(e, Jacobian) else copied
    return e if entries.dtype == dtype else widen(e, dtype)


def _conjugate(J: Jacobian) -> Jacobian:
    data = getattr(J, "data", None)
    if data is None or data.dtype.kind != "c":
        return J
    if type(J) not in _CONJUGATED:
        raise TypeError(
            f"elements[0] is a complex {type(J).__name__}; wanted {', '.join(c.__name__ for c in _CONJUGATED)}"
        )
    return changed(J, data=data.conj())


def as_given(given: Given, x: Any, g: Array | None, *, in_time: bool = True) -> Any:
    """Return a cotangent in the kind, shape and dtype of what the user has given."""
    if g is None:
        return None
    if isinstance(x, Jacobian):
        data = x.data  # type: ignore[attr-defined]
        return changed(x, data=_real_as(g[::-1] if given.reverse else g, data.dtype))
    xp = namespace(g)
    g = g[::-1] if in_time and given.reverse else g
    g = g[..., 0] if given.alone else g
    shape = tuple(np.shape(x))
    g = xp.moveaxis(g, 0, given.axis) if in_time and given.axis and len(shape) else g
    dtype = given.like.dtype if is_complex(x) else given.like.real.dtype
    return from_native(xp.ascontiguousarray(_real_as(sum_to(g, shape), dtype)).reshape(shape), given.kind)


def _real_as(g: Array, dtype: np.dtype[Any]) -> Array:
    """Return a cotangent in a dtype: that of a real number is real."""
    return (g.real if dtype.kind != "c" else g).astype(dtype, copy=False)
