"""The public scan over any monoid and either direction of time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arguments import MASKS, as_mask
from recsolve.base.arrays import Array, Kind, common_dtype, common_kind, from_native, kind_of, namespace, to_native
from recsolve.base.links import RECORDERS, requires_grad
from recsolve.base.shard import OVER_RANKS, Shard
from recsolve.jacobians import Jacobian
from recsolve.kernels.backends import scan as chosen_scan
from recsolve.kernels.monoids.float16 import state_dtype, widen
from recsolve.kernels.monoids.monoid import COMPLEX, MONOIDS, Monoid


def scan(
    monoid: str | Monoid | type[Monoid],
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
    monoid : str, Monoid or type
        A :class:`recsolve.Monoid` of your own, or the name of one of these:

        ======================  ===========================================  ===================================
        monoid                  elements                                     y[t]
        ======================  ===========================================  ===================================
        affine                  (A, b), A a structured Jacobian, an array    A[t] y[t-1] + b[t]
                                of the shape of b (diagonal), or matrices
                                (T, ..., n, n) beside b (T, ..., n)
        clamp                   (r, s)                                       max(min(r[t], y[t-1]), s[t])
        addition                (b,)                                         y[t-1] + b[t]
        saturating_add          (d, lo, hi)                                  max(min(y[t-1] + d[t], hi[t]), lo[t])
        max_min, max_plus,      (A, b), A of the shape of b, or matrices     max(b[t], min(A[t], y[t-1])),
        min_plus                                                             max(b[t], A[t] + y[t-1]), min(...)
        logsumexp               (m, s)                                       pairs (M, S) on a last axis of y:
                                                                             S[t] e^M[t] = sum of s e^m until t
        weighted_logsumexp      (f, m, v), vectors v (T, ..., d)             (M, *S), decayed sums of v e^m that
                                                                             share M: e^f[t] before each step
        moebius                 (a, b, c, d)                                 (a[t] y[t-1] + b[t]) /
                                                                             (c[t] y[t-1] + d[t])
        finite_map              (e,), integers (T, ..., n)                   e[t, ..., y[t-1]]
        riccati                 (A, C, B), matrices (T, ..., m, m)           A (I + y[t-1] B)^-1 y[t-1] A^T + C
        ======================  ===========================================  ===================================

        docs/scans.md says which of them round, and which backends run them.
    elements : tuple
        Arrays with time along ``axis``, or shards of them (:func:`recsolve.distributed.shard`): then the steps of all
        ranks are scanned, and the result is a shard. What is the same at all times is a number, or has an axis of time
        of length 1, and so have other axes along which it repeats; it is not copied.
    initial : array, optional
        y before the first step, the shape of one step. Without it the first step is one that is cut from its past;
        clamp, saturating_add, moebius and finite_map need it.
    reset : array of bool, or of integers 0 and 1, optional
        Steps cut from their past: (T,), the shape of the elements, or their first axes with time before all others.
        They act on ``initial`` with those four monoids, and give with the others what does not depend on the past: b,
        (m, s), (m, v), C. Cuts are selected, so an inf or NaN before one does not pass it.
    reverse : bool
        Run from the last step to the first: y[t] = e[t](y[t+1]).
    axis : int
        The axis of time, when the elements are arrays.

    Returns
    -------
    array
        y, shape and kind of the elements. Of tensors that require grad, gradients go back from it as
        :func:`recsolve.scan_adjoint` has them. Over ranks every one of them must go back, and gets its own part: of the
        gradient of the sum of all ranks' losses what belongs to its own steps, and that of ``initial`` where these are
        the first.

    Raises
    ------
    ValueError
        For an unknown monoid, shapes that do not agree, or integers in ``reset`` other than 0 and 1.
    TypeError
        For mixed kinds, or dtypes that are not float16, float32 or float64 (affine and addition: or complex64 or
        complex128, where one complex element or ``initial`` makes all complex; finite_map: integers; moebius and
        riccati: not float16; those of a monoid of yours).

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
    if isinstance(elements, (tuple, list)) and any(isinstance(e, Shard) for e in elements):
        return OVER_RANKS["scan"](monoid, tuple(elements), initial=initial, reset=reset, reverse=reverse, axis=axis)
    if isinstance(elements, (tuple, list)) and any(map(requires_grad, (*elements, initial))):
        return RECORDERS["scan"](monoid, elements, initial=initial, reset=reset, reverse=reverse, axis=axis)
    with np.errstate(all="ignore"):
        given = read(monoid, elements, initial=initial, reset=reset, reverse=reverse, axis=axis)
        y = chosen_scan(given.monoid, given.elements, initial=given.initial, reset=given.reset)
    return given.returned(y)


class Given(NamedTuple):
    """The arguments of a scan, checked: native arrays of one dtype, in the order in which it runs, time first."""

    monoid: Monoid
    elements: Any
    like: Array
    initial: Array | None
    reset: Array | None
    kind: Kind
    reverse: bool
    axis: int
    alone: bool  # objects, one a step, which have got an axis: NumPy takes the entries of a single one for numbers

    def native(self, x: Any, name: str, shape: tuple[int, ...]) -> Array:
        """Return an argument of the shape, kind and dtype of the result as the scan sees it."""
        if kind_of(x) != self.kind:
            raise TypeError(f"{name} is {kind_of(x)} and the elements are {self.kind}; convert them to one kind first")
        rows = to_native(x, name, (self.like.dtype,))
        rows = np.moveaxis(rows, self.axis, 0) if rows.ndim == len(shape) else rows
        if rows.shape != shape:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; wanted that of the result of the scan")
        return rows[::-1] if self.reverse else rows

    def returned(self, y: Array) -> Any:
        """Return rows as the user sees them."""
        y = y[::-1] if self.reverse else y
        y = y[..., 0] if self.alone else y
        return from_native(np.moveaxis(y, 0, self.axis) if self.axis else y, self.kind)


def read(
    monoid: str | Monoid | type[Monoid], elements: Any, *, initial: Any, reset: Any, reverse: bool, axis: int
) -> Given:
    """Check the arguments of :func:`scan`; raise as it says."""
    op = _known(monoid)
    if not isinstance(elements, (tuple, list)):
        raise ValueError(f"elements is {type(elements).__name__}; wanted a tuple of arrays")
    native, kind, axis, alone = _alike(op, elements, initial, axis) or _native(op, elements, initial, axis)
    prepared = op.prepare(native)
    like = op.like(prepared)
    start = None if initial is None else _row(initial, like)
    if start is not None:
        op.check_initial(prepared, start)
    mask = None if reset is None else _mask(reset, like, axis)
    if reverse:
        prepared, mask = op.take(prepared, slice(None, None, -1)), None if mask is None else mask[::-1]
        like = op.like(prepared)
    return Given(op, prepared, like, start, mask, kind, reverse, axis, alone)


def _known(monoid: Any) -> Monoid:
    """Return a monoid by its name, or that of the user."""
    if isinstance(monoid, str):
        if monoid not in MONOIDS:
            raise ValueError(f"monoid is {monoid!r}; wanted one of {', '.join(MONOIDS)}, or a Monoid")
        return MONOIDS[monoid]
    if isinstance(monoid, type) and issubclass(monoid, Monoid):
        return monoid()
    if not isinstance(monoid, Monoid):
        raise TypeError(f"monoid is {monoid!r}; wanted a name, or a Monoid")
    return monoid


def _alike(op: Monoid, elements: Any, initial: Any, axis: int) -> tuple[tuple[Array, ...], Kind, int, bool] | None:
    """Return what :func:`_native` does of arrays of one type, device and dtype with time first, as nearly all are.

    None where it takes a closer look.
    """
    if axis != 0 or not elements:
        return None
    first = elements[0]
    if not getattr(first, "ndim", 0) or isinstance(first, Jacobian):
        return None
    own = type(first)
    if own is not np.ndarray and own.__module__.partition(".")[0] not in ("cupy", "torch"):  # it may be anything
        return None
    kind, dtype = kind_of(first), first.dtype
    for e in elements if initial is None or type(initial) in (int, float) else (*elements, initial):
        if type(e) is not own or e.dtype != dtype or (kind == "torch" and e.device != first.device):
            return None
        if not e.ndim and e is not initial:
            return None
    if own is np.ndarray and dtype in op.dtypes and dtype.kind != "O":
        return tuple(elements), kind, 0, False
    native = tuple([to_native(e, f"elements[{i}]", op.dtypes) for i, e in enumerate(elements)])
    return None if native[0].dtype.kind == "O" else (native, kind, 0, False)


def _native(op: Monoid, elements: Any, initial: Any, axis: int) -> tuple[tuple[Any, ...], Kind, int, bool]:
    """Return elements of one dtype with time first, their kind, the axis from the front, and whether one got added."""
    named = {f"elements[{i}]": e for i, e in enumerate(elements)}
    structures = {name for name, e in named.items() if isinstance(e, Jacobian)}
    numbers = {name for name, e in named.items() if np.isscalar(e)}
    arrays = {name: e for name, e in named.items() if name not in structures | numbers}
    kind = common_kind({**arrays, "initial": None if np.isscalar(initial) else initial})
    if axis != 0 and structures:
        raise ValueError(f"axis is {axis}; wanted 0 with a structured Jacobian, whose time comes first")
    native = {name: to_native(e, name, op.dtypes) for name, e in arrays.items()}
    in_time = {name: e for name, e in native.items() if e.ndim}
    if not in_time:
        raise ValueError(f"elements are {elements!r}; wanted an array with an axis of time among them")
    axis = _from_front(axis, in_time)
    native |= {name: np.moveaxis(e, axis, 0) for name, e in in_time.items() if axis}
    entries = native | {name: x for name in structures if (x := getattr(named[name], "data", None)) is not None}
    dtype = _dtype(op, entries, [named[name] for name in numbers] + ([] if initial is None else [initial]))
    alone = dtype.kind == "O" and max(x.ndim for x in in_time.values()) == 1
    xp = namespace(next(iter(native.values())))

    def cast(name: str) -> Any:
        if name in numbers:
            return _number(named[name], name, dtype, xp)
        e = native.get(name, named[name])
        e = e[:, None] if alone and name in in_time else e
        return widen(e, dtype) if name in entries and entries[name].dtype != dtype else e

    return tuple(map(cast, named)), kind, axis, alone


def _dtype(op: Monoid, entries: dict[str, Array], others: list[Any]) -> np.dtype[Any]:
    """Return the dtype of the scan: that of all elements, complex where one of them or of others is complex."""
    if COMPLEX[0] not in op.dtypes or not any(is_complex(x) for x in (*entries.values(), *others)):
        return common_dtype(entries)
    promoted = {name: np.result_type(x.dtype, COMPLEX[0]) for name, x in entries.items()}
    if len(set(promoted.values())) > 1:
        common_dtype(entries)
    return next(iter(promoted.values()))


def is_complex(x: Any) -> bool:
    """Return whether an array of any kind, a list or a number is complex."""
    dtype = getattr(x, "dtype", None) or np.asarray(x).dtype
    return dtype.kind == "c" if isinstance(dtype, np.dtype) else "complex" in str(dtype)


def _number(x: Any, name: str, dtype: np.dtype[Any], xp: Any) -> Array:
    """Return a number, which is the same everywhere, as an array without axes."""
    allowed = np.dtype(np.int64) if dtype.kind == "u" else dtype  # -1 is an integer, which is found to be out of range
    if not np.can_cast(np.min_scalar_type(x), allowed, "same_kind"):
        raise TypeError(f"{name} is {x!r}; wanted a number of dtype {dtype}")
    return xp.asarray(x, dtype)  # type: ignore[no-any-return]


def _from_front(axis: int, arrays: dict[str, Array]) -> int:
    """Return the axis counted from the front, which arrays of matrices and of vectors have in common."""
    least = min((x.ndim for x in arrays.values()), default=1)
    for name, x in arrays.items():
        if not -least <= axis < least:
            raise ValueError(f"{name} has shape {x.shape}; wanted time along its axis {axis}")
    return axis % least


def _row(initial: Any, like: Array) -> Array:
    """Return y[-1] in the dtype in which the state is carried."""
    dtype = state_dtype(like)
    taken = tuple(dict.fromkeys((like.dtype, dtype, *((like.real.dtype,) if like.dtype.kind == "c" else ()))))
    number = np.isscalar(initial)
    row = _number(initial, "initial", dtype, namespace(like)) if number else to_native(initial, "initial", taken)
    row = row.astype(dtype, copy=False)
    try:
        return np.broadcast_to(row, like.shape[1:])
    except ValueError:
        raise ValueError(f"initial has shape {row.shape}; wanted that of one step, {like.shape[1:]}") from None


def _mask(reset: Any, like: Array, axis: int) -> Array:
    mask = as_mask(to_native(reset, "reset", MASKS), "reset")
    if mask.ndim == like.ndim:  # in the shape of the elements
        mask = np.moveaxis(mask, axis, 0)
    if mask.ndim > like.ndim or mask.shape != like.shape[: mask.ndim]:
        raise ValueError(f"reset has shape {mask.shape}; wanted the first axes of {like.shape}")
    return mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim))
