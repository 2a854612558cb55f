"""Transposes of the operations that functions are made of: sums, moved entries, matrix products, einsum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from string import ascii_letters
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.recurrence.function_tangent import DIRECTIONS, Tangent


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Return the sum of ``x`` over the axes along which something of ``shape`` was broadcast to it."""
    if x.shape == shape:
        return x
    extra = x.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + axis for axis, n in enumerate(shape) if n == 1 and x.shape[extra + axis] != 1
    )
    return x.sum(axis=axes).reshape(shape) if axes else x


def expanded(g: Array, axis: Any, keepdims: bool, shape: tuple[int, ...]) -> Array:
    """Return the cotangent of what was summed over ``axis``, for that of its sum."""
    if axis is None:
        g = g.reshape((1,) * len(shape))
    elif not keepdims:
        axes = {a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))}
        g = g.reshape([1 if a in axes else n for a, n in enumerate(shape)])
    return namespace(g).broadcast_to(g, shape)  # type: ignore[no-any-return]


def scattered(move: Callable[[list[Array]], Array], shapes: list[tuple[int, ...]], place: int, g: Any) -> Any:
    """Return the cotangent of one of the arrays whose entries ``move`` has moved, for that of its result.

    Where the result is a view of the array, the cotangent is added to the view of zeros. Otherwise numbered entries are
    moved, less what comes of zeros, which shows where each went: 0 stands for constants.

    Parameters
    ----------
    move : callable
        Takes one array for each of ``shapes``.
    shapes : list of tuple of int
    place : int
        Which of them is wanted.
    g : array
    """
    if isinstance(g, Tangent):
        moved = [scattered(move, shapes, place, d) for d in g.directions] if g.partials else []
        return Tangent(scattered(move, shapes, place, g.value), {DIRECTIONS: np.stack(moved)} if moved else {})
    xp = namespace(g)
    if len(shapes) == 1:
        result = xp.zeros(shapes[0], dtype=g.dtype)
        view = move([result])
        if xp.may_share_memory(view, result) and getattr(view.flags, "writeable", True):
            view += g
            return result
    parts = [xp.zeros(shape, dtype=np.int64) for shape in shapes]
    none = move(parts)
    parts[place] = xp.arange(1, 1 + prod(shapes[place])).reshape(shapes[place])
    origin = (move(parts) - none).ravel()
    sums = xp.bincount(origin, weights=g.ravel(), minlength=1 + prod(shapes[place]))[1:]
    return sums.astype(g.dtype).reshape(shapes[place])


def _matmul(place: int, values: list[Array], kwargs: Any) -> Callable[[Array], Array]:
    if kwargs or min(x.ndim for x in values) < 1:
        raise TypeError("numpy.matmul with arguments has no transpose here")
    return partial(_pull_matmul, place, values)


def _pull_matmul(place: int, values: list[Array], g: Array) -> Array:
    a, b = values
    rows, columns = a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b
    g = g[..., None] if b.ndim == 1 else g
    g = g[..., None, :] if a.ndim == 1 else g
    if place == 0 and rows.ndim == 2:  # one matrix for many: nothing of their number is formed
        return _contracted(g, columns.swapaxes(-1, -2)).reshape(a.shape)
    if place == 1 and columns.ndim == 2:
        return _contracted(rows.swapaxes(-1, -2), g).reshape(b.shape)
    wide = g @ columns.swapaxes(-1, -2) if place == 0 else rows.swapaxes(-1, -2) @ g
    wanted = (rows, columns)[place]
    return sum_to(wide, wanted.shape).reshape((a, b)[place].shape)


def _contracted(left: Array, right: Array) -> Array:
    """Return the sum over all leading axes of left (..., n, m) @ right (..., m, k)."""
    xp, n, k = namespace(left), left.shape[-2], right.shape[-1]
    last = xp.moveaxis(right, -1, 0).reshape(k, -1)
    return xp.moveaxis(left, -2, 0).reshape(n, -1) @ last.T  # type: ignore[no-any-return]


def _dot(place: int, values: list[Array], kwargs: Any) -> Callable[[Array], Array]:
    if min(x.ndim for x in values) < 1 or values[1].ndim > 2:
        raise TypeError("numpy.dot of such arrays has no transpose here")
    return _matmul(place, values, kwargs)


def _einsum(place: int, values: list[Any], kwargs: Any) -> Callable[[Array], Array]:
    """Transpose an einsum: another one, in which the result and an operand change places."""
    text, *arrays = values
    if not isinstance(text, str) or set(kwargs) - {"optimize"} or place == 0:
        raise TypeError("numpy.einsum in this form has no transpose here")
    terms, result = _subscripts(text, [x.ndim for x in arrays])
    own, others = terms[place - 1], [t for i, t in enumerate(terms) if i != place - 1]
    if len(set(own)) < len(own):
        raise TypeError("numpy.einsum of a diagonal has no transpose here")
    alone = [letter for letter in own if letter not in result and not any(letter in t for t in others)]
    seen = "".join(letter for letter in own if letter not in alone)
    rest = [x for i, x in enumerate(arrays) if i != place - 1]
    shape = arrays[place - 1].shape

    def back(g: Array) -> Array:
        found = namespace(g).einsum(f"{','.join([result, *others])}->{seen}", g, *rest, optimize=True)
        for axis, letter in enumerate(own):  # what was summed by itself
            if letter in alone:
                found = namespace(g).expand_dims(found, axis)
        summed = sum_to(found, tuple(1 if x in alone else n for x, n in zip(own, shape, strict=True)))
        return namespace(g).broadcast_to(summed, shape)  # type: ignore[no-any-return]

    return back


def _subscripts(text: str, axes: list[int]) -> tuple[list[str], str]:
    """Return the letters of operands with these numbers of axes, and of the result; dots become letters too."""
    given, arrow, result = text.replace(" ", "").partition("->")
    terms = given.split(",")
    letters = {x for x in text if x.isalpha()}
    free = [x for x in ascii_letters if x not in letters]
    hidden = [n - len(t.replace("...", "")) if "..." in t else 0 for t, n in zip(terms, axes, strict=True)]
    dots = "".join(free[: max(hidden)])
    if not arrow:
        once = sorted(x for x in letters if given.count(x) == 1)
        result = "..." + "".join(once)
    written = [t.replace("...", dots[len(dots) - n :]) for t, n in zip(terms, hidden, strict=True)]
    return written, result.replace("...", dots)


# How operand i of a product goes back: a function of i, all operands and keywords, that returns the pull.
PRODUCTS: dict[Any, Callable[[int, list[Any], Any], Callable[[Array], Array]]] = {
    np.matmul: _matmul,
    np.dot: _dot,
    np.einsum: _einsum,
}
