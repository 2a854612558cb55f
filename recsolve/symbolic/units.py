"""Sums over the units of a lane, and gathers, inside a cell: the coupling that has no weights.

``total`` is a mixing, the matrix of ones, that a cell function calls without a name. All else follows from it and from
elementwise arithmetic: means, dot products, norms, and their derivatives. While a cell is evaluated, the number of its
units is in force, so that what a drive broadcasts counts as often as there are units; while it is differentiated, also
what opens a leaf for the result. ``gather`` is another mixing at every step, whose index is a drive; a cell finds out
which drives are indices by calling its function once with what is watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import broadcast
from recsolve.mixings import Gather
from recsolve.mixings.factors import Total
from recsolve.mixings.mixing import Mixing
from recsolve.symbolic.dual import Dual, value_of
from recsolve.symbolic.stand_in import Elementwise


class NotTracedError(TypeError):
    """What a cell may do, and compiled loops do not know."""


class _Scope(NamedTuple):
    units: int
    call: Callable[[Mixing, Dual], Any] | None


_SCOPE: ContextVar[_Scope | None] = ContextVar("units", default=None)


@contextmanager
def units_in_force(units: int, call: Callable[[Mixing, Dual], Any] | None = None) -> Iterator[None]:
    """Say how many units a lane has, and what calls a mixing on a dual, while the function of a cell runs."""
    token = _SCOPE.set(_Scope(units, call))
    try:
        yield
    finally:
        _SCOPE.reset(token)


_INDICES: ContextVar[list[Any] | None] = ContextVar("indices of gathers", default=None)


@contextmanager
def indices_watched() -> Iterator[list[Any]]:
    """Collect what gathers get as their indices; while they are watched, they select nothing."""
    seen: list[Any] = []
    token = _INDICES.set(seen)
    try:
        yield seen
    finally:
        _INDICES.reset(token)


def _units(x: Any) -> int:
    scope = _SCOPE.get()
    return int(np.shape(x)[-1]) if scope is None else scope.units


def total(x: Any) -> Any:
    """Return the sum over the units of a lane, in the place of every unit.

    Parameters
    ----------
    x : array, shape (..., n)
        Inside a cell, something of the state, of drives and parameters.

    Returns
    -------
    array, shape (..., n)

    Raises
    ------
    TypeError
        On what carries no sums: the nodes of which loops are compiled, so NumPy evaluates a cell that has them.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.math.total(np.array([[1.0, 2.0, 4.0]])).tolist()
    [[7.0, 7.0, 7.0]]
    """
    scope = _SCOPE.get()
    if isinstance(x, Dual) and scope is not None and scope.call is not None:
        return scope.call(Total(scope.units, x.value), x)
    if isinstance(x, Elementwise):
        try:  # a function of one's own is differentiated by duals that carry sums
            return np.broadcast_to(np.sum(x, axis=-1, keepdims=True), x.shape)
        except TypeError as error:
            raise NotTracedError(f"a sum over units is not elementwise, so it is not compiled ({error})") from error
    return Total(_units(x), x).matvec(x)


def mean(x: Any) -> Any:
    """Return the mean over the units of a lane, in the place of every unit; as :func:`total`.

    Parameters
    ----------
    x : array, shape (..., n)

    Returns
    -------
    array, shape (..., n)

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.math.mean(np.array([1.0, 2.0, 6.0])).tolist()
    [3.0, 3.0, 3.0]
    """
    return total(x) / _units(x)


def dot(a: Any, b: Any) -> Any:
    """Return the scalar product over the units of a lane, in the place of every unit; as :func:`total`.

    Parameters
    ----------
    a, b : array, shape (..., n)

    Returns
    -------
    array, shape (..., n)

    Notes
    -----
    A drive k makes ``s.h - u.b * u.k * dot(u.k, s.h)`` a map of rank one that changes with time: the delta rule (Yang
    et al., NeurIPS 2024, arXiv 2406.06484).

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> def delta(s, W, u, p):
    ...     return s.h - u.k * dot(u.k, s.h) + u.v
    >>> dot = rs.math.dot
    >>> k = np.linspace(-1, 1, 30).reshape(10, 3)
    >>> cell = rs.Cell(delta, state=("h",), output="h").with_weights(hidden_size=3)
    >>> rs.solve(cell.recurrence(drive={"k": k, "v": k[::-1].copy()})).trusted
    True
    """
    return total(a * b)


def gather(x: Any, index: Any) -> Any:
    """Return x[index] over the units of a lane: y[i] = x[index[i]], by an index of its own at every step.

    Parameters
    ----------
    x : array, shape (..., n)
        Inside a cell, something of the state, of drives and parameters.
    index : array of int32 or int64, shape (..., n)
        A drive of the cell, ``u.name``, which is then an index and nothing else: of units 0..n-1, not necessarily a
        permutation. It has all axes that x has, is not projected from an input, and has no gradient.

    Returns
    -------
    array, shape (..., n)

    Raises
    ------
    TypeError
        On what carries no gathers: the nodes of which loops are compiled, so NumPy evaluates a cell that has them.
    ValueError
        For an index of fewer axes than x.

    Notes
    -----
    A map that is the same at all steps is a mixing of the cell, :class:`recsolve.mixings.Gather`.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> def shuffled(s, W, u, p):
    ...     return np.tanh(0.5 * rs.math.gather(s.h, u.index) + u.x)
    >>> cell = rs.Cell(shuffled, state=("h",), output="h").with_weights(hidden_size=3)
    >>> index = np.random.default_rng(0).integers(0, 3, (20, 3))
    >>> sol = rs.solve(cell.recurrence(drive={"index": index, "x": np.ones((20, 3))}))
    >>> sol.trusted, cell.cell.indices
    (True, ('index',))
    """
    if getattr(index, "ndim", 0) < getattr(x, "ndim", 0) and hasattr(index, "ndim"):  # NumPy would align other axes
        raise ValueError(
            f"index of gather has shape {tuple(index.shape)}, and x has shape {tuple(x.shape)}; wanted an index with "
            "all axes of x (of components with axes, the cell states them: axes={'index': (...)})"
        )
    if (seen := _INDICES.get()) is not None:
        seen.append(index)
        return x
    scope, index = _SCOPE.get(), value_of(index)
    if isinstance(index, Elementwise) or (isinstance(x, Elementwise) and scope is None):
        try:  # a function of one's own is differentiated by duals that carry gathers
            return np.take_along_axis(x, index, axis=-1)
        except TypeError as error:
            raise NotTracedError(f"a gather is not elementwise, so it is not compiled ({error})") from error
    like = value_of(value_of(x))  # in full, for a part of the sequences may be asked for
    shape = (*np.broadcast_shapes(like.shape[:-1], index.shape[:-1]), _units(x))
    mixing = Gather.by_step(broadcast(index, shape), like)
    if isinstance(x, Dual) and scope is not None and scope.call is not None:
        return scope.call(mixing, x)
    return mixing.matvec(x)


def layer_norm(x: Any, eps: float = 1e-5) -> Any:
    """Return x less its mean over the units of a lane, divided by its standard deviation there.

    Parameters
    ----------
    x : array, shape (..., n)
    eps : float
        Added to the variance.

    Returns
    -------
    array, shape (..., n)

    Notes
    -----
    Ba et al. 2016 (arXiv 1607.06450). Gain and bias are parameters of the cell: ``p.gain * layer_norm(x) + p.bias``.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.math.layer_norm(np.array([1.0, 3.0]), eps=0.0).tolist()
    [-1.0, 1.0]
    """
    centred = x - mean(x)
    return centred / np.sqrt(mean(centred * centred) + eps)


def rms_norm(x: Any, eps: float = 1e-5) -> Any:
    """Return x divided by the root of the mean of its square over the units of a lane.

    Parameters
    ----------
    x : array, shape (..., n)
    eps : float
        Added to the mean square.

    Returns
    -------
    array, shape (..., n)

    Notes
    -----
    Zhang and Sennrich, NeurIPS 2019 (arXiv 1910.07467). A gain is a parameter of the cell: ``p.gain * rms_norm(x)``.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rs.math.rms_norm(np.array([3.0, -3.0]), eps=0.0).tolist()
    [1.0, -1.0]
    """
    return x / np.sqrt(mean(x * x) + eps)
