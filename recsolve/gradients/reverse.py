"""Cotangents through a user's NumPy function: one pass back over the operations that it has made.

A :class:`Recorded` array knows what it was computed from. Elementwise operations go back by the rules of
:mod:`recsolve.symbolic.dual`, those that move entries by where they move the numbers 1, 2, 3, ..., sums and matrix
products by their own transposes. One pass costs a few evaluations of the function, however many numbers it depends on.
Any other operation raises TypeError, and whoever asks takes one direction per number instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any, TypeAlias

import numpy as np

from recsolve.base.arrays import Array, broadcast, namespace
from recsolve.gradients.transposes import PRODUCTS, expanded, scattered, sum_to
from recsolve.recurrence.function_rules import SLOPES
from recsolve.symbolic.dual import ONE, Dual, OfState, value_of

Pull: TypeAlias = Callable[[Array], Array]  # from the cotangent of a result to that of an operand

_ORDER = count()

# Results hold entries of the first argument, which may be a list of arrays, and constants.
_MOVES = {
    np.reshape, np.ravel, np.transpose, np.moveaxis, np.swapaxes, np.expand_dims, np.squeeze, np.roll, np.flip,
    np.take, np.take_along_axis, np.repeat, np.tile, np.copy, np.concatenate, np.stack, np.hstack, np.vstack,
    np.diagonal,
}  # fmt: skip


class _NoPartials:
    """Stands where other duals have partials: whoever computes with it as a number fails."""


class Recorded(Dual):
    """An array and the operands that it was computed from, each with how a cotangent goes back to it.

    Parameters
    ----------
    value : array
    sources : iterable of (Recorded, callable)
        Operands that lead to what is differentiated.
    moves : bool
        Whether this is what is differentiated, a leaf.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.gradients.reverse import Recorded, pull
    >>> x, W = Recorded(np.array([[1.0, 2.0]])), Recorded(np.eye(2), moves=True)
    >>> pull([(np.tanh(0 * (x @ W)), np.ones((1, 2)))], [W])[0].tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """

    __slots__ = ("order", "sources")
    __hash__ = None  # type: ignore[assignment]

    order: int | None  # None for what does not depend on a leaf
    sources: list[tuple[Recorded, Pull]]

    def __init__(self, value: Any, sources: Iterable[tuple[Any, Pull]] = (), *, moves: bool = False):
        super().__init__(value, {"recorded": _NoPartials()})
        if getattr(getattr(value, "dtype", None), "kind", None) == "c":  # |z| and the parts of z are not holomorphic
            raise self._unsupported("a complex number")
        self.sources = [(x, back) for x, back in sources if isinstance(x, Recorded) and x.order is not None]
        self.order = next(_ORDER) if moves or self.sources else None

    def _values(self, args: Sequence[Any]) -> list[Any]:
        return [value_of(x) for x in args]

    def _made(self, y: Any, partials: Any) -> Any:
        raise self._unsupported("this operation")

    def _combine(self, y: Any, terms: Sequence[tuple[Dual, Any]]) -> Any:
        return type(self)(y, [(arg, partial(_scaled, factor, arg.shape)) for arg, factor in terms])

    def _select(self, y: Any, choices: Sequence[tuple[Any, Any, Any]]) -> Any:
        return type(self)(
            y, [(x, partial(_chosen, mask, scale, x.shape)) for x, mask, scale in choices if isinstance(x, Dual)]
        )

    def _other(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        if function in PRODUCTS:
            return self._product(PRODUCTS[function], function, args, kwargs)
        if isinstance(function, np.ufunc) and function.__name__ in SLOPES:
            values = self._values(args)
            y = function(*values)
            slopes = zip(args, SLOPES[function.__name__], strict=True)
            return self._combine(y, [(x, f(*values, y)) for x, f in slopes if isinstance(x, Dual)])
        if any(isinstance(x, Dual) for x in (*args[1:], *kwargs.values())):
            raise self._unsupported(name)
        if function in _MOVES:
            return self._moved(lambda x: function(x, *args[1:], **kwargs), args[0])
        if function in (np.sum, np.mean):
            return self._summed(function, *args, **kwargs)
        if function is np.broadcast_to:
            return type(self)(function(value_of(args[0]), *args[1:]), [(args[0], lambda g: sum_to(g, args[0].shape))])
        raise self._unsupported(name)

    def _product(self, transposed: Any, function: Any, args: Any, kwargs: Any) -> Any:
        values = [value_of(x) for x in args]
        y = function(*values, **kwargs)
        return type(self)(
            y, [(x, transposed(i, values, kwargs)) for i, x in enumerate(args) if isinstance(x, Recorded)]
        )

    def _moved(self, function: Callable[[Any], Any], first: Any) -> Any:
        """Apply a function that moves entries of one array, or of a list of them."""
        entries, listed = list(first) if isinstance(first, (list, tuple)) else [first], isinstance(first, (list, tuple))

        def call(parts: list[Any]) -> Any:
            return function(parts if listed else parts[0])

        y, shapes = call([value_of(e) for e in entries]), [np.shape(value_of(e)) for e in entries]
        return type(self)(y, [(e, partial(scattered, call, shapes, i)) for i, e in enumerate(entries)])

    def _summed(self, function: Any, x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        y = function(x.value, axis=axis, keepdims=keepdims)
        share = 1.0 if function is np.sum else y.size / max(x.value.size, 1)
        return type(self)(y, [(x, lambda g: share * expanded(g, axis, keepdims, x.shape))])

    def astype(self, dtype: Any, **kwargs: Any) -> Any:
        """Return another dtype; the cotangent goes back in this one."""
        return type(self)(self.value.astype(dtype, **kwargs), [(self, lambda g: g.astype(self.dtype))])

    def _unsupported(self, what: str) -> TypeError:
        return TypeError(f"{what} has no transpose here")

    # The methods of arrays that user functions call; each is the function of the same name.
    def __getitem__(self, index: Any) -> Any:
        return self._moved(lambda x: x[index], self)

    def __len__(self) -> int:
        return len(self.value)

    @property
    def T(self) -> Any:
        return np.transpose(self)

    @property
    def size(self) -> int:
        return int(self.value.size)

    def reshape(self, *shape: Any) -> Any:
        return self._moved(lambda x: x.reshape(*shape), self)

    def transpose(self, *axes: Any) -> Any:
        return self._moved(lambda x: x.transpose(*axes), self)

    def swapaxes(self, a: int, b: int) -> Any:
        return self._moved(lambda x: x.swapaxes(a, b), self)

    def sum(self, *args: Any, **kwargs: Any) -> Any:
        return self._summed(np.sum, self, *args, **kwargs)

    def mean(self, *args: Any, **kwargs: Any) -> Any:
        return self._summed(np.mean, self, *args, **kwargs)

    def dot(self, other: Any) -> Any:
        return np.dot(self, other)

    def copy(self) -> Any:
        return self


class RecordedState(OfState, Recorded):
    """A recorded array that depends on the state; see :class:`recsolve.symbolic.dual.OfState`."""

    __slots__ = ()
    __hash__ = None


def _scaled(factor: Any, shape: tuple[int, ...], g: Array) -> Array:
    return sum_to(g if factor is ONE else factor * g, shape)


def _chosen(mask: Any, scale: Any, shape: tuple[int, ...], g: Array) -> Array:
    return sum_to(namespace(g).where(mask, g if scale is ONE else scale * g, g.dtype.type(0)), shape)


def pull(results: Sequence[tuple[Any, Array]], leaves: Sequence[Recorded]) -> list[Array]:
    """Return the cotangents of leaves for those of results.

    Parameters
    ----------
    results : sequence of (Recorded, array)
        What a function of the leaves returned, each with its cotangent; constants are passed over.
    leaves : sequence of Recorded
        Made with ``moves=True``.

    Returns
    -------
    list of array
        In the shapes of the leaves.
    """
    found: dict[int, Array] = {}
    nodes: dict[int, Recorded] = {}

    def add(x: Any, g: Array) -> None:
        if isinstance(x, Recorded) and x.order is not None:
            found[x.order] = found[x.order] + g if x.order in found else g
            nodes[x.order] = x

    for x, g in results:
        add(x, broadcast(g, x.shape))
    kept = {x.order for x in leaves}
    while nodes:
        order = max(nodes)  # operands are older than results
        x = nodes.pop(order)
        g = found[order] if order in kept else found.pop(order)
        for operand, back in x.sources:
            add(operand, back(g))
    return [found[x.order] if x.order in found else namespace(x.value).zeros_like(x.value) for x in leaves]
