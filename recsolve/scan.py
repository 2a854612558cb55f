"""The public scan over any monoid and either direction of time."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve.arrays import FLOATS, Array, common_dtype, common_kind, from_native, namespace, to_native
from recsolve.jacobians import Jacobian
from recsolve.kernels.choose import scan as chosen_scan
from recsolve.kernels.half import HALF, state_dtype
from recsolve.kernels.monoids import MONOIDS


def affine_scan(
    A: Jacobian, b: Array, *, initial: Array | None = None, reset: Array | None = None, reverse: bool = False
) -> Array:
    """Return y[t] = A[t] y[t-1] + b[t] (or y[t+1] with ``reverse``) of native arrays, unchecked."""
    monoid = MONOIDS["affine"]
    if not reverse:
        return chosen_scan(monoid, (A, b), initial=initial, reset=reset)
    backwards = slice(None, None, -1)
    flipped = None if reset is None else reset[backwards]
    return chosen_scan(monoid, (A[backwards], b[backwards]), initial=initial, reset=flipped)[backwards]


def reverse_solve(J: Jacobian, starts: Array, c: Array) -> Array:
    """Return g[t] = c[t] + J[t+1]^T g[t+1], cut where step t+1 does not see step t.

    Parameters
    ----------
    J : Jacobian
    starts : array of bool
        Steps that start afresh, broadcasting against ``c``.
    c : array, shape (T, *batch, *event)
    """
    g = namespace(c).empty_like(c)
    g[-1:] = c[-1:]
    if len(c) > 1:
        g[:-1] = affine_scan(J.transpose()[1:], c[:-1], initial=c[-1], reset=starts[1:], reverse=True)
    return g  # type: ignore[no-any-return]


def scan(
    monoid: str,
    elements: tuple[Any, Any],
    *,
    initial: Any = None,
    reset: Any = None,
    reverse: bool = False,
    axis: int = 0,
) -> Any:
    """Apply the maps of a monoid one after the other along time: y[t] = e[t](y[t-1]).

    Parameters
    ----------
    monoid : {"affine", "clamp", "riccati"}
        ``affine``: elements (A, b), y[t] = A[t] y[t-1] + b[t], with A a structured Jacobian or an array of the shape of
        b (diagonal). ``clamp``: elements (r, s), y[t] = max(min(r[t], y[t-1]), s[t]); never rounds. ``riccati``:
        matrices (A, C, B), y[t] = A (I + y[t-1] B)^-1 y[t-1] A^T + C, the gains of a Kalman filter.
    elements : tuple
        Arrays with time along ``axis``.
    initial : array, optional
        y before the first step, the shape of one step. Without it the first step of an affine scan gives b.
    reset : array of bool, optional
        Steps cut from their past: (T,), the shape of the elements, or their first axes with time before all others.
        An affine scan gives b there, a clamp scan clamps ``initial``. Cuts are selected, so an inf or NaN before one
        does not pass it.
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
        For mixed kinds or dtypes that are not float16, float32 or float64.

    Notes
    -----
    Blelloch, "Prefix sums and their applications" (1990). The work is linear in T.

    float16 is a way to store numbers: elements (not those of ``riccati``) are converted to float32 as they are read,
    the state is float32 from the first step to the last, and only what is returned is rounded to float16. ``initial``
    may then be float16 or float32.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.scan("affine", (np.full(4, 0.5), np.ones(4)))
    array([1.   , 1.5  , 1.75 , 1.875])
    """
    if monoid not in MONOIDS:
        raise ValueError(f"monoid is {monoid!r}; wanted one of {', '.join(MONOIDS)}")
    if not isinstance(elements, (tuple, list)):
        raise ValueError(f"elements is {type(elements).__name__}; wanted a tuple of arrays")
    arrays = {f"elements[{i}]": e for i, e in enumerate(elements) if not isinstance(e, Jacobian)}
    kind = common_kind({**arrays, "initial": None if np.isscalar(initial) else initial})
    if axis != 0 and len(arrays) < 2:
        raise ValueError(f"axis is {axis}; wanted 0 with a structured Jacobian, whose time comes first")
    native = [
        e if isinstance(e, Jacobian) else _time_first(_stored(e, f"elements[{i}]"), i, axis)
        for i, e in enumerate(elements)
    ]
    entries = {
        f"elements[{i}]": getattr(e, "data", None) if isinstance(e, Jacobian) else e for i, e in enumerate(native)
    }
    dtype = common_dtype({name: x for name, x in entries.items() if x is not None})
    if dtype == HALF and monoid == "riccati":
        raise TypeError("elements have dtype float16; wanted float32 or float64 for the riccati monoid, which inverts")
    op = MONOIDS[monoid]
    prepared = op.prepare(tuple(native))
    like = op.like(prepared)
    start = None if initial is None else _row(initial, like)
    mask = None if reset is None else _mask(reset, like, axis)
    if reverse:
        prepared, mask = op.take(prepared, slice(None, None, -1)), None if mask is None else mask[::-1]
    with np.errstate(all="ignore"):
        y = chosen_scan(op, prepared, initial=start, reset=mask)
    return from_native(np.moveaxis(y[::-1] if reverse else y, 0, axis), kind)


def _time_first(x: Array, index: int, axis: int) -> Array:
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"elements[{index}] has shape {x.shape}; wanted time along its axis {axis}")
    return np.moveaxis(x, axis, 0)


def _stored(x: Any, name: str) -> Array:
    """View arrays as `to_native` does, and float16 ones too."""
    return to_native(x, name, (HALF, *FLOATS))


def _row(initial: Any, like: Array) -> Array:
    """Return y[-1] in the dtype in which the state is carried."""
    dtype = state_dtype(like)
    row = np.asarray(initial, dtype=dtype) if np.isscalar(initial) else _stored(initial, "initial")
    if row.dtype not in (like.dtype, dtype):
        raise TypeError(f"initial has dtype {row.dtype}; wanted {like.dtype}, as the elements")
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
