"""Monoids of state maps: what a scan composes along time.

An element of a monoid stands for a map h -> e(h) of one step. A monoid says how to *act* with an element on a state,
how to *compose* two elements into one, which element does nothing, and what a step that is cut from its past gives.
Laws: compose is associative, ``identity`` is neutral, and act(compose(b, a), h) = act(b, act(a, h)).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from typing import Any, ClassVar

import numpy as np

from recsolve.base.arrays import FLOATS, Array, broadcast, namespace
from recsolve.base.overriding import derive, stale
from recsolve.jacobians import Jacobian
from recsolve.kernels.monoids.cuda_map import CudaMap
from recsolve.kernels.monoids.elementwise import forget, linearise

STORED = (np.dtype(np.float16), *FLOATS)
COMPLEX = (np.dtype(np.complex64), np.dtype(np.complex128))
_WORDS = {2: "a pair", 3: "a triple"}


def _never(self: Any, elements: Any) -> bool:
    return False


class Monoid(ABC):
    """Maps of a state that compose: what :func:`recsolve.scan` runs along time. Derive from it for maps of your own.

    A subclass has ``letters`` and defines ``act``, ``compose`` and ``identity``; ``constant`` where a cut step does not
    act on the initial state; ``linearise`` where ``act`` is not elementwise and gradients are wanted. Elements are a
    tuple of arrays, time first, and all methods get some times of them, or a single time without its axis.
    :func:`recsolve.testing.check_monoid` tries the laws.

    Attributes
    ----------
    letters : tuple of str
        What the arrays of an element are called. They have one shape, (T, ...), unless ``prepare`` says otherwise.
    dtypes : tuple of dtype
        What elements may be stored as; by default float16, float32 and float64. States have the same dtype, float32 for
        elements in float16.
    name : str
        Of the monoids of this package, for :func:`recsolve.scan`. A class of yours needs none: pass it itself.
    place : float
        Where it is listed, the smallest first; those without one come last, by name.
    cuda : CudaMap, optional
        The map for GPUs, in ``kernels/cuda/scan/monoids``; see ``recsolve.kernels.monoids.cuda_map``. Without one
        the scan of NumPy runs there, on CuPy arrays.

    Notes
    -----
    Blelloch, "Prefix sums and their applications" (1990). Compiled scans take the monoids of this package alone, by
    their exact types; the scan of NumPy runs all others, with a few calls of ``act`` and ``compose`` in sqrt(T).

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> class Concatenation(rs.Monoid):
    ...     '''x -> x + text: elements are arrays of strings, tuples or lists.'''
    ...     letters, dtypes = ("text",), (np.dtype(object),)
    ...
    ...     def act(self, elements, states):
    ...         return states + elements[0]
    ...
    ...     def compose(self, later, earlier):
    ...         return (earlier[0] + later[0],)
    ...
    ...     def identity(self, elements):
    ...         return (np.full_like(elements[0], ""),)
    >>> rs.scan(Concatenation, (np.array(list("scan"), dtype=object),), initial="a ")
    array(['a s', 'a sc', 'a sca', 'a scan'], dtype=object)
    """

    name: str
    letters: tuple[str, ...]
    dtypes: tuple[np.dtype[Any], ...] = STORED
    place: ClassVar[float] = inf
    cuda: CudaMap | None = None

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if stale(cls, "compose", "act"):  # it composes other maps
            cls.composable = _never  # type: ignore[method-assign]
        derive(cls, Monoid, "act", ("linearise",))
        derive(cls, Monoid, "constant", ("forget",))

    @abstractmethod
    def act(self, elements: Any, states: Array) -> Array:
        """Return e[t](states[t])."""

    @abstractmethod
    def compose(self, later: Any, earlier: Any) -> Any:
        """Return the elements of the maps later[t] after earlier[t]."""

    @abstractmethod
    def identity(self, elements: Any) -> Any:
        """Return elements that do nothing, one per time of ``elements``."""

    def constant(self, elements: Any, initial: Array | None) -> Array:
        """Return what a step gives when it is cut from its past: a value, selected rather than multiplied out.

        By default the step acts on ``initial``. A monoid that overrides this has a value of its own for an absent past.
        """
        if initial is None:
            raise ValueError(f"initial is None; the {self.title} monoid needs a state to act on")
        return self.act(elements, initial)

    @property
    def restarts(self) -> bool:
        """Whether cut steps act on ``initial``: there is no state that stands for an absent past."""
        return type(self).constant is Monoid.constant

    @property
    def title(self) -> str:
        """What messages call it."""
        return getattr(self, "name", type(self).__name__)

    def prepare(self, elements: Any) -> Any:
        """Check user elements and return them in the monoid's own form; raise ValueError for shapes and values.

        Arrays without axes are the same at all times, and so is an axis of time of length 1.
        """
        arrays = given(self.title, self.letters, elements)
        return spread(self.letters, arrays)

    def simplest(self, elements: Any) -> tuple[Monoid, Any]:
        """Return the simplest monoid and elements of the same maps: itself, or one of plain arrays."""
        return self, elements

    def like(self, elements: Any) -> Array:
        """Return an array with the shape (T, ...), dtype and memory order of the result."""
        return elements[0]  # type: ignore[no-any-return]

    def take(self, elements: Any, index: Any) -> Any:
        """Select times."""
        return tuple(e[index] for e in elements)

    def composable(self, elements: Any) -> bool:
        """Return whether composing costs about as much as acting."""
        return True

    def mixed(self, elements: Any) -> tuple[int, ...]:
        """Return the axes of a state over which an element mixes numbers, so that they can only be cut together."""
        return ()

    def check_initial(self, elements: Any, initial: Array) -> None:
        """Raise ValueError for what is no state."""
        return

    def linearise(self, elements: Any, before: Array) -> tuple[Jacobian, Pull]:
        """Return the derivative of ``act`` with respect to the states, and how to pull cotangents back to elements.

        Parameters
        ----------
        elements : tuple
            In the monoid's own form, floating point.
        before : array, shape (T, ...)
            The states on which they act.

        Returns
        -------
        Jacobian
            d e[t](x) / dx at ``before[t]``.
        callable
            Takes the cotangent g (T, ...) of the results to those of the elements, which are arrays as these are, but
            may be summed up along axes on which these repeat; None for what has no entries. It is linear in g.

        Raises
        ------
        TypeError
            By default, where this is derived from ``act``: for maps that are not elementwise, and complex numbers.
        """
        return linearise(self.act, elements, before, self.title)

    def forget(self, elements: Any, cotangent: Array) -> Any:
        """Return the cotangents of elements for those of ``constant``, where a monoid overrides it; None for zeros."""
        return forget(self.constant, elements, cotangent, self.title)


Pull = Callable[[Array], tuple[Array | None, ...]]


def given(name: str, letters: tuple[str, ...], elements: Any) -> tuple[Any, ...]:
    """Return the arrays of ``elements`` if they are as many as ``letters``."""
    try:
        arrays = tuple(elements)
    except TypeError:
        arrays = ()
    if len(arrays) != len(letters):
        written = f"({', '.join(letters)}{',' * (len(letters) == 1)})"
        form = _WORDS.get(len(letters), "a tuple")
        seen = f"{len(arrays)} array{'s' * (len(arrays) != 1)}"
        raise ValueError(f"elements of the {name} monoid are {form} {written}; got {seen}")
    return arrays


def spread(letters: tuple[str, ...], arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return arrays in one shape: along axes of length 1, and all if there are none, they repeat with stride 0."""
    shapes = [tuple(x.shape) for x in arrays]
    if shapes[0] and shapes.count(shapes[0]) == len(shapes):
        return arrays
    try:
        if len({len(shape) for shape in shapes if shape}) != 1:
            raise ValueError
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"elements ({', '.join(letters)}) have shapes {' and '.join(map(str, shapes))}; wanted equal shapes (or "
            "numbers, and axes of length 1)"
        ) from None
    return tuple(broadcast(x, shape) for x in arrays)


def linear(letters: tuple[str, ...], arrays: tuple[Array, ...]) -> tuple[Array, Array]:
    """Return (A, b) with A in the shape of b, or of matrices (T, ..., n, n) beside b (T, ..., n), repeated as needed.

    Raises
    ------
    ValueError
        For other shapes.
    """
    A, b = arrays
    if A.shape == b.shape and b.ndim:
        return A, b
    matrices = (*b.shape, b.shape[-1]) if b.ndim > 1 else b.shape
    try:
        if A.ndim == len(matrices) > b.ndim and A.shape[-2:] == matrices[-2:]:
            return namespace(A).broadcast_to(A, matrices), b
        if b.ndim:
            return spread(letters, arrays)  # type: ignore[return-value]
    except ValueError:
        pass
    wanted = " or ".join(dict.fromkeys((str(b.shape), str(matrices))))
    raise ValueError(
        f"elements ({', '.join(letters)}) have shapes {A.shape} and {b.shape}; wanted "
        + (f"A of {wanted} (or a number, and axes of length 1)" if b.ndim else "an array for b, not a number")
    )


def exact_range(x: Array, y: Array) -> Array:
    """Return x + y, and NaN where finite numbers overflow: a loop that is bounded in between may not."""
    total = x + y
    xp = namespace(total)
    return xp.where(xp.isinf(total) & xp.isfinite(x) & xp.isfinite(y), total.dtype.type(np.nan), total)  # type: ignore[no-any-return]


MONOIDS: dict[str, Monoid] = {}
"""The monoids by name, in the order in which they are listed; entered when the folder is imported."""
