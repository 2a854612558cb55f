"""The public scan over any monoid and either direction of time."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.base.arrays import Array, common_dtype, common_kind, from_native, namespace, to_native
from recsolve.jacobians import Jacobian
from recsolve.kernels.backends import scan as chosen_scan
from recsolve.kernels.monoids.float16 import state_dtype
from recsolve.kernels.monoids.monoid import MONOIDS


def scan(
    monoid: str,
    elements: tuple[Any, ...],
    *,
    initial: Any = None,
    reset: Any = None,
    reverse: bool = False,
    axis: int = 0,
) -> Any:
    """Apply the maps of a monoid one after the other along time: y[t] = e[t](y[t-1]).

    Parameters
    ----------
    monoid : str
        ======================  ===========================================  ===================================
        monoid                  elements                                     y[t]
        ======================  ===========================================  ===================================
        affine                  (A, b), A a structured Jacobian or an array  A[t] y[t-1] + b[t]
                                of the shape of b (diagonal)
        clamp                   (r, s)                                       max(min(r[t], y[t-1]), s[t])
        addition                (b,)                                         y[t-1] + b[t]
        saturating_add          (d, lo, hi)                                  max(min(y[t-1] + d[t], hi[t]), lo[t])
        max_min, max_plus,      (A, b), A of the shape of b, or matrices     max(b[t], min(A[t], y[t-1])),
        min_plus                (T, ..., n, n) beside b (T, ..., n)          max(b[t], A[t] + y[t-1]), min(...)
        logsumexp               (m, s)                                       pairs (M, S) on a last axis of y:
                                                                             S[t] e^M[t] = sum of s e^m until t
        moebius                 (a, b, c, d)                                 (a[t] y[t-1] + b[t]) /
                                                                             (c[t] y[t-1] + d[t])
        finite_map              (e,), integers (T, ..., n)                   e[t, ..., y[t-1]]
        riccati                 (A, C, B), matrices (T, ..., m, m)           A (I + y[t-1] B)^-1 y[t-1] A^T + C
        ======================  ===========================================  ===================================

        docs/scans.md says which of them round, and which backends run them.
    elements : tuple
        Arrays with time along ``axis``.
    initial : array, optional
        y before the first step, the shape of one step. Without it the first step is one that is cut from its past;
        clamp, saturating_add, moebius and finite_map need it.
    reset : array of bool, optional
        Steps cut from their past: (T,), the shape of the elements, or their first axes with time before all others.
        They act on ``initial`` with those four monoids, and give with the others what does not depend on the past: b,
        (m, s), C. Cuts are selected, so an inf or NaN before one does not pass it.
    reverse : bool
        Run from the last step to the first: y[t] = e[t](y[t+1]).
    axis : int
        The axis of time, when the elements are arrays.

    Returns
    -------
    array
        y, shape and kind of the elements.

    Raises
    ------
    ValueError
        For an unknown monoid or shapes that do not agree.
    TypeError
        For mixed kinds, or dtypes that are not float16, float32 or float64 (affine: or complex64 or complex128;
        finite_map: integers; moebius and riccati: not float16).

    Notes
    -----
    Blelloch, "Prefix sums and their applications" (1990). The work is linear in T.

    float16 is a way to store numbers: elements are converted to float32 as they are read,
    the state is float32 from the first step to the last, and only what is returned is rounded to float16. ``initial``
    may then be float16 or float32.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.scan("affine", (np.full(4, 0.5), np.ones(4)))
    array([1.   , 1.5  , 1.75 , 1.875])
    >>> turn = np.array([[1, 2, 0], [0, 1, 2], [1, 2, 0]])  # a cycle, nothing, the cycle
    >>> rs.scan("finite_map", (turn,), initial=0)
    array([1, 1, 2])
    """
    if monoid not in MONOIDS:
        raise ValueError(f"monoid is {monoid!r}; wanted one of {', '.join(MONOIDS)}")
    if not isinstance(elements, (tuple, list)):
        raise ValueError(f"elements is {type(elements).__name__}; wanted a tuple of arrays")
    structures = [isinstance(e, Jacobian) for e in elements]
    arrays = {f"elements[{i}]": e for i, e in enumerate(elements) if not structures[i]}
    kind = common_kind({**arrays, "initial": None if np.isscalar(initial) else initial})
    if axis != 0 and len(arrays) < len(elements):
        raise ValueError(f"axis is {axis}; wanted 0 with a structured Jacobian, whose time comes first")
    op = MONOIDS[monoid]
    native = [
        e if structured else to_native(e, f"elements[{i}]", op.dtypes)
        for i, (e, structured) in enumerate(zip(elements, structures, strict=True))
    ]
    axis = _from_front(axis, [e for e, structured in zip(native, structures, strict=True) if not structured])
    if axis:
        native = [np.moveaxis(e, axis, 0) for e in native]
    entries = {
        f"elements[{i}]": getattr(e, "data", None) if structured else e
        for i, (e, structured) in enumerate(zip(native, structures, strict=True))
    }
    common_dtype({name: x for name, x in entries.items() if x is not None})
    prepared = op.prepare(tuple(native))
    like = op.like(prepared)
    start = None if initial is None else _row(initial, like)
    if start is not None:
        op.check_initial(prepared, start)
    mask = None if reset is None else _mask(reset, like, axis)
    if reverse:
        prepared, mask = op.take(prepared, slice(None, None, -1)), None if mask is None else mask[::-1]
    with np.errstate(all="ignore"):
        y = chosen_scan(op, prepared, initial=start, reset=mask)
    y = y[::-1] if reverse else y
    return from_native(np.moveaxis(y, 0, axis) if axis else y, kind)


def _from_front(axis: int, arrays: list[Any]) -> int:
    """Return the axis counted from the front, which arrays of matrices and of vectors have in common."""
    ranks = [x.ndim for x in arrays]
    for i, x in enumerate(arrays):
        if not -min(ranks) <= axis < min(ranks):
            raise ValueError(f"elements[{i}] has shape {x.shape}; wanted time along its axis {axis}")
    return axis % min(ranks) if ranks else axis


def _row(initial: Any, like: Array) -> Array:
    """Return y[-1] in the dtype in which the state is carried."""
    dtype = state_dtype(like)
    row = (
        namespace(like).asarray(initial, dtype=dtype)
        if np.isscalar(initial)
        else to_native(initial, "initial", tuple(dict.fromkeys((like.dtype, dtype))))
    )
    row = row.astype(dtype, copy=False)
    try:
        return np.broadcast_to(row, like.shape[1:])
    except ValueError:
        raise ValueError(f"initial has shape {row.shape}; wanted that of one step, {like.shape[1:]}") from None


def _mask(reset: Any, like: Array, axis: int) -> Array:
    mask = to_native(reset, "reset", (np.dtype(bool),))
    if mask.ndim == like.ndim:  # in the shape of the elements
        mask = np.moveaxis(mask, axis, 0)
    if mask.ndim > like.ndim or mask.shape != like.shape[: mask.ndim]:
        raise ValueError(f"reset has shape {mask.shape}; wanted the first axes of {like.shape}")
    return mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim))
