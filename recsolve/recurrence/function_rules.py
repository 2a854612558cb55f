"""Derivative rules of the NumPy functions that users write besides the elementwise ones of cells.

By how the derivative is stated there are

- :data:`LINEAR`, :data:`MULTILINEAR` and :data:`PARTS`, which are applied to directions as they are;
- :data:`SLOPES`, elementwise functions that only user functions know: the factor of each argument;
- :data:`RULES`: a function of values that returns the value and the linear map of directions;
- :data:`COMPOSITIONS`: the function written with others, of which the derivative is taken, the value being NumPy's own;
- :data:`PLAIN` and :data:`FLAT`, whose values are no floats, or constant but for jumps: nothing moves them.

A reduction along an axis is that of its entries from the first to the last, which says what it does at ties.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.base.ties import at_tie
from recsolve.symbolic.dual import BINARY, UNARY

_LN2, _LN10 = math.log(2.0), math.log(10.0)

# For each argument its slope from (arguments, y).
SLOPES: dict[str, tuple[Callable[..., Any], ...]] = {
    "exp2": (lambda x, y: _LN2 * y,),
    "log2": (lambda x, y: 1.0 / (_LN2 * x),),
    "log10": (lambda x, y: 1.0 / (_LN10 * x),),
    "cbrt": (lambda x, y: 1.0 / (3.0 * y * y),),
    "fabs": (UNARY["absolute"],),
    "arcsin": (lambda x, y: 1.0 / np.sqrt(1.0 - x * x),),
    "arccos": (lambda x, y: -1.0 / np.sqrt(1.0 - x * x),),
    "arcsinh": (lambda x, y: 1.0 / np.sqrt(1.0 + x * x),),
    "arccosh": (lambda x, y: 1.0 / (np.sqrt(x - 1.0) * np.sqrt(x + 1.0)),),
    "arctanh": (lambda x, y: 1.0 / (1.0 - x * x),),
    **dict.fromkeys(("deg2rad", "radians"), (lambda x, y: math.pi / 180.0,)),
    **dict.fromkeys(("rad2deg", "degrees"), (lambda x, y: 180.0 / math.pi,)),
    "float_power": BINARY["power"],
    "logaddexp2": (lambda a, b, y: np.exp2(a - y), lambda a, b, y: np.exp2(b - y)),
    "remainder": (lambda a, b, y: 1.0, lambda a, b, y: -np.floor_divide(a, b)),
    "fmod": (lambda a, b, y: 1.0, lambda a, b, y: -np.trunc(a / b)),
    "erf": (lambda x, y: 2.0 / math.sqrt(math.pi) * np.exp(-x * x),),  # this and the next ones are SciPy's
    "erfc": (lambda x, y: -2.0 / math.sqrt(math.pi) * np.exp(-x * x),),
    "ndtr": (lambda x, y: 1.0 / math.sqrt(2.0 * math.pi) * np.exp(-0.5 * x * x),),
    "expit": (UNARY["sigmoid"],),
    "log_expit": (lambda x, y: -np.expm1(y),),
    "logit": (lambda x, y: 1.0 / (x * (1.0 - x)),),
    "copysign": (lambda a, b, y: np.sign(a) * np.sign(y), lambda a, b, y: 0.0),
}


def _those(*names: str) -> set[Any]:
    """Return the functions of these names that this NumPy has; some came after 2.0."""
    return {getattr(np, name) for name in names if hasattr(np, name)}


PLAIN = {
    np.argmax, np.argmin, np.argsort, np.argpartition, np.count_nonzero, np.any, np.all, np.searchsorted, np.digitize,
    np.nonzero, np.flatnonzero, np.argwhere, np.isclose, np.allclose, np.array_equal, np.isreal, np.iscomplex,
    np.isrealobj, np.iscomplexobj, np.result_type, np.empty_like,
    np.logical_and, np.logical_or, np.logical_xor, np.logical_not, np.signbit,
}  # fmt: skip
FLAT = {np.round, np.around, np.floor_divide, np.heaviside}
PARTS = {np.split, np.array_split, np.hsplit, np.vsplit} | _those("unstack")  # linear, and return several arrays

# Linear in the first argument, which may be a list of arrays.
LINEAR = {
    np.reshape, np.ravel, np.transpose, np.moveaxis, np.swapaxes, np.expand_dims, np.squeeze, np.broadcast_to,
    np.roll, np.flip, np.rot90, np.take, np.take_along_axis, np.repeat, np.tile, np.sum, np.mean, np.cumsum, np.diff,
    np.trace, np.trapezoid, np.pad, np.copy, np.concatenate, np.stack, np.hstack, np.vstack, np.dstack,
    np.column_stack, np.atleast_1d, np.atleast_2d, np.diagonal, np.diag, np.tril, np.triu, np.delete, np.fliplr,
    np.flipud, np.matrix_transpose,
    np.real, np.imag, np.conjugate, np.fft.fft, np.fft.ifft, np.fft.rfft, np.fft.irfft, np.fft.fftshift,
    np.fft.ifftshift,
}  # fmt: skip
MULTILINEAR = {
    np.matmul, np.dot, np.einsum, np.tensordot, np.inner, np.outer, np.vdot, np.cross, np.kron, np.convolve,
    *_those("vecdot", "matvec", "vecmat"),
}  # fmt: skip
_PADS = ("constant", "edge", "wrap", "reflect", "symmetric")


def is_linear(function: Any, args: Any, kwargs: Any) -> bool:
    """Return whether a function is linear in its first argument; numpy.pad is not with mode maximum and the like."""
    mode = kwargs.get("mode", args[2] if len(args) > 2 else "constant") if function is np.pad else "constant"
    return function in LINEAR and mode in _PADS


def _rows(x: Array, axis: Any) -> Array:
    """Return ``x`` with the axes that a reduction takes as one last axis."""
    taken = range(x.ndim) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)
    kept = [a for a in range(x.ndim) if a not in taken]
    shape = [x.shape[a] for a in kept]
    return np.transpose(x, (*kept, *taken)).reshape(*shape, math.prod(x.shape[a] for a in taken))


def _shares(tied: Array, share: float, dtype: Any) -> Array:
    """Return the weight of every entry of a maximum over the last axis, given which are tied for it.

    They are those of the operation of two operands, taken from the first entry to the last: of two that are tied the
    first one gets ``share``, the second one the rest.
    """
    rank = np.cumsum(tied, axis=-1)
    weights = share ** (rank[..., -1:] - rank) * np.where(rank > 1, 1.0 - share, 1.0)
    return np.where(tied, weights, 0.0).astype(dtype)


def _extreme(function: Any, pair: str) -> Callable[..., Any]:
    """Return the rule of a maximum or minimum over axes."""

    def rule(x: Array, axis: Any = None, *, keepdims: bool = False, **limited: Any) -> Any:
        y = function(x, axis=axis, keepdims=keepdims, **limited)
        top = function(x, axis=axis, keepdims=True, **limited)
        share = at_tie(pair)
        weights = _shares(_rows((x == top) & limited.get("where", True), axis), share, x.dtype)
        if "initial" in limited:  # a constant, which the state may be tied with
            weights = weights * np.where(_rows(top, axis) == limited["initial"], x.dtype.type(share), x.dtype.type(1))

        def push(dx: Array) -> Any:
            moved = np.where(weights != 0, weights * _rows(dx, axis), dx.dtype.type(0))  # selected: 0 * inf is NaN
            return np.sum(moved, axis=-1).reshape(y.shape)

        return y, push

    return rule


def _product(x: Array, axis: Any = None, *, keepdims: bool = False) -> Any:
    """Prod: the weight of an entry is the product of all others, zeros among them or not."""
    y = np.prod(x, axis=axis, keepdims=keepdims)
    rows = _rows(x, axis)
    one = np.ones_like(rows[..., :1])
    before = np.cumprod(np.concatenate([one, rows[..., :-1]], axis=-1), axis=-1)
    after = np.cumprod(np.concatenate([one, rows[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    weights = (before * after)[..., : rows.shape[-1]]
    return y, lambda dx: np.sum(weights * _rows(dx, axis), axis=-1).reshape(y.shape)


def _permuted(function: Any, place: int) -> Callable[..., Any]:
    """Return the rule of sort or partition, whose axis is argument ``place``; equal entries keep their order."""

    def rule(x: Array, *args: Any, **kwargs: Any) -> Any:
        y = function(x, *args, **kwargs)
        axis = kwargs.get("axis", args[place] if len(args) > place else -1)
        shape, axis = (x.shape, axis) if axis is not None else ((x.size,), -1)
        source, target = (np.argsort(a.reshape(shape), axis=axis, kind="stable") for a in (x, y))
        index = np.take_along_axis(source, np.argsort(target, axis=axis, kind="stable"), axis=axis)
        return y, lambda dx: np.take_along_axis(dx.reshape(shape), index, axis=axis)

    return rule


def _solve(a: Array, b: Array) -> Any:
    y = np.linalg.solve(a, b)
    column = np.ndim(b) == 1  # NumPy reads other arrays as matrices

    def push(da: Array | None, db: Array | None) -> Array:
        moved: Any = 0 if db is None else db[..., None] if column else db
        if da is not None:
            moved = moved - np.matmul(da, y[..., None] if column else y)
        found: Array = np.linalg.solve(a, moved)
        return found[..., 0] if column else found

    return y, push


def _inverse(a: Array) -> Any:
    y = np.linalg.inv(a)
    return y, lambda da: -np.matmul(np.matmul(y, da), y)


# How many leading arguments are arrays, and the rule.
RULES: dict[Any, tuple[int, Callable[..., Any]]] = {
    **dict.fromkeys((np.max, np.amax), (1, _extreme(np.max, "maximum"))),
    **dict.fromkeys((np.min, np.amin), (1, _extreme(np.min, "minimum"))),
    np.prod: (1, _product),
    np.sort: (1, _permuted(np.sort, 0)),
    np.partition: (1, _permuted(np.partition, 1)),
    np.linalg.solve: (2, _solve),
    np.linalg.inv: (1, _inverse),
}

COMPLEX = {_product, _solve, _inverse}  # rules that hold for complex numbers too


def folded(ufunc: Any, method: str, x: Any, axis: int = 0, *, keepdims: bool = False) -> Any:
    """Return ``ufunc.reduce`` or ``ufunc.accumulate`` with operations on two entries, from the first to the last."""
    entries = np.moveaxis(x, axis, 0)
    if not len(entries):
        return None  # nor has it a derivative
    results = [entries[0]]
    for k in range(1, len(entries)):
        results.append(ufunc(results[-1], entries[k]))
    if method == "accumulate":
        return np.moveaxis(np.stack(results), 0, axis)
    return np.expand_dims(results[-1], axis) if keepdims else results[-1]


def _cumprod(x: Any, axis: int | None = None) -> Any:
    return folded(np.multiply, "accumulate", np.ravel(x) if axis is None else x, axis or 0)


def _var(x: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
    away = x - np.mean(x, axis=axis, keepdims=True)
    spread = np.mean(np.real(away * np.conjugate(away)), axis=axis, keepdims=keepdims)
    count = x.size / max(math.prod(spread.shape), 1)
    return spread * (count / (count - ddof)) if ddof else spread


def _std(x: Any, axis: Any = None, **kwargs: Any) -> Any:
    return _of_square(_var(x, axis, **kwargs))


def _of_square(x: Any) -> Any:
    """Return sqrt(x), with derivative 0 where it is 0."""
    flat = x == 0
    return np.where(flat, 0, np.sqrt(np.where(flat, 1, x)))


def _ptp(x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return np.max(x, axis=axis, keepdims=keepdims) - np.min(x, axis=axis, keepdims=keepdims)


def _median(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    if not (axis is None or isinstance(axis, (int, np.integer))):
        raise TypeError("axis")
    rows = np.sort(np.ravel(x) if axis is None else np.moveaxis(x, axis, -1), axis=-1)
    n = rows.shape[-1]
    middle = np.mean(rows[..., (n - 1) // 2 : n // 2 + 1], axis=-1)
    shape = [1 if axis is None or a == axis % x.ndim else size for a, size in enumerate(x.shape)]
    return np.reshape(middle, shape) if keepdims else middle


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Norms of vectors, and the one of Frobenius. Where a norm is 0 its derivative is."""
    axes = np.ndim(x) if axis is None else 1 if isinstance(axis, (int, np.integer)) else len(axis)
    if ord == "fro" or (ord is None and axes != 1):
        ord, axes = 2, 1
    if axes != 1 or isinstance(ord, str):
        raise TypeError("norms of matrices other than that of Frobenius")
    return _vector_norm(x, axis=axis, keepdims=keepdims, ord=2 if ord is None else ord)


def _vector_norm(x: Any, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    size = np.absolute(x)
    if abs(ord) == np.inf:
        return (np.max if ord > 0 else np.min)(size, axis=axis, keepdims=keepdims)
    if ord < 1:
        raise TypeError(f"ord={ord}")
    if ord == 1:
        return np.sum(size, axis=axis, keepdims=keepdims)
    length = np.sum(size.value**ord, axis=axis, keepdims=True) ** (1 / ord)
    scaled = size / np.where(length == 0, 1, length)  # d length is that of the sum of powers of these, times length
    total = np.sum(scaled**ord, axis=axis, keepdims=True) * (length / ord)
    return total if keepdims else np.reshape(total, np.sum(size.value, axis=axis).shape)


def _average(x: Any, axis: Any = None, weights: Any = None, *, keepdims: bool = False) -> Any:
    if weights is None:
        return np.mean(x, axis=axis, keepdims=keepdims)
    if np.shape(weights) != np.shape(x):
        raise TypeError("weights of another shape")
    return np.sum(x * weights, axis=axis, keepdims=keepdims) / np.sum(weights, axis=axis, keepdims=keepdims)


def _select(conditions: Any, choices: Any, default: Any = 0) -> Any:
    pairs = list(zip(conditions, choices, strict=True))[::-1]
    return reduce(lambda rest, pair: np.where(pair[0], pair[1], rest), pairs, default)


COMPOSITIONS: dict[Any, Callable[..., Any]] = {
    np.cumprod: _cumprod,
    np.var: _var,
    np.std: _std,
    np.ptp: _ptp,
    np.median: _median,
    np.linalg.norm: _norm,
    np.linalg.vector_norm: _vector_norm,
    np.average: _average,
    np.select: _select,
    np.nan_to_num: lambda x, **kwargs: np.where(np.isfinite(x), x, 0),
    np.angle: lambda z: np.arctan2(np.imag(z), np.real(z)),
}

# What a reduction of a ufunc is called; its axis is 0 unless it is given.
REDUCTIONS: dict[tuple[Any, str], Any] = {
    (np.add, "reduce"): np.sum,
    (np.add, "accumulate"): np.cumsum,
    (np.multiply, "reduce"): np.prod,
    (np.multiply, "accumulate"): np.cumprod,
    (np.maximum, "reduce"): np.max,
    (np.minimum, "reduce"): np.min,
    (np.logical_or, "reduce"): np.any,
    (np.logical_and, "reduce"): np.all,
}
