"""States of several named components of different shapes, laid one after the other in a flat state."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.base.names import Names

DTYPE_ADVICE = (
    "as initial and inputs: look for a NumPy number or array of another dtype in f, such as np.sqrt(2) or np.zeros(n), "
    "and write float(...) or .astype"
)


class Sizes:
    """The sizes of axes by name, as arrays show them; axes of one name have one size.

    Attributes
    ----------
    known : dict of int

    Examples
    --------
    >>> from recsolve.base.named_state import Sizes
    >>> sizes = Sizes()
    >>> sizes.meet("W", ("k", "v"), (2, 3))
    >>> sizes.known
    {'k': 2, 'v': 3}
    """

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self._seen: dict[str, str] = {}

    def meet(self, where: str, axes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        """Note the sizes of some axes; ValueError where another array, which it names, has others."""
        for axis, n in zip(axes, shape, strict=True):
            if self.known.setdefault(axis, n) != n:
                raise ValueError(
                    f"axis {axis!r} has size {n} in {where} and {self.known[axis]} in {self._seen[axis]}; axes of one "
                    "name have one size"
                )
            self._seen.setdefault(axis, where)

    def copy(self) -> Sizes:
        """Return the same sizes, to which others may come."""
        other = Sizes()
        other.known, other._seen = dict(self.known), dict(self._seen)
        return other


class NamedState:
    """How a flat state (..., N) holds named components, each (..., *its own shape).

    Parameters
    ----------
    axes : mapping
        The names of the axes of each component, in the order in which they are stored: ``{"m": (), "C": ("k", "v")}``.
    sizes : mapping of int
        The size of every axis.

    Attributes
    ----------
    shapes : dict of tuple of int
    slices : dict of slice
        The place of each component in the flat state.
    size : int
        N.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.base.named_state import NamedState
    >>> named = NamedState({"m": (), "C": ("k", "v")}, {"k": 2, "v": 3})
    >>> named.size, named.split(np.arange(7.0)).C.tolist()
    (7, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    """

    def __init__(self, axes: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]):
        self.axes = dict(axes)
        self.sizes = dict(sizes)
        self.shapes = {name: tuple(sizes[a] for a in named) for name, named in axes.items()}
        ends = np.cumsum([prod(shape) for shape in self.shapes.values()]).tolist()
        self.slices = dict(zip(self.shapes, map(slice, [0, *ends], ends), strict=False))
        self.size = ends[-1]
        # The shapes of components behind the axes that were last seen.
        self._fitting: tuple[Any, list[tuple[Any, ...]]] = (None, [])

    @classmethod
    def of(cls, state: Any, shapes: Mapping[str, tuple[int, ...]]) -> tuple[NamedState, tuple[int, ...]]:
        """Return the state that a user has described, and its batch, from the shapes of h[0].

        Raises
        ------
        TypeError
            When ``state`` is no mapping of names to tuples of names.
        ValueError
            When components or their batch shapes do not fit each other, or equal axes have different sizes.
        """
        axes = axes_of(state)
        if axes.keys() != shapes.keys():
            raise ValueError(f"initial has components {tuple(shapes)}; wanted {tuple(axes)}, as state has")
        sizes, batches = Sizes(), {}
        for name, named in axes.items():
            shape, lead = shapes[name], len(shapes[name]) - len(named)
            if lead < 0:
                raise ValueError(
                    f"initial[{name!r}] has shape {shape}; wanted (*batch{''.join(f', {a}' for a in named)})"
                )
            batches[name] = shape[:lead]
            sizes.meet(f"initial[{name!r}]", named, shape[lead:])
        if len(set(batches.values())) > 1:
            raise ValueError(f"initial has the batch shapes {batches}; wanted the same for all components")
        return cls(axes, sizes.known), next(iter(batches.values()))

    @cached_property
    def _places(self) -> list[tuple[str, Any, tuple[int, ...] | None]]:
        """The index of every component, and its shape where that is more than one axis."""
        return [
            (name, (..., part if shape else part.start), shape if len(shape) > 1 else None)
            for (name, shape), part in zip(self.shapes.items(), self.slices.values(), strict=True)
        ]

    def split(self, x: Any) -> Names:
        """Return the components of flat states (..., N): views, of arrays or of what stands for them."""
        lead = x.shape[:-1]
        parts = {n: x[i] if shape is None else x[i].reshape(lead + shape) for n, i, shape in self._places}
        return Names(parts, "component")

    def ordered(self, parts: Any, who: str = "f") -> list[Any]:
        """Return components that a function, which messages call ``who``, returned as a mapping or a tuple, in order.

        Raises
        ------
        TypeError, ValueError
            For anything else, and for missing or unknown names.
        """
        if isinstance(parts, (tuple, list)):
            if len(parts) != len(self.axes):
                raise ValueError(f"{who} returned {len(parts)} components; wanted {len(self.axes)}: {tuple(self.axes)}")
            return list(parts)
        if not isinstance(parts, Mapping):
            raise TypeError(
                f"{who} returned {type(parts).__name__}; wanted a dict or tuple of components {tuple(self.axes)}"
            )
        if parts.keys() != self.axes.keys():
            raise ValueError(f"{who} returned components {tuple(parts)}; wanted {tuple(self.axes)}")
        return [parts[name] for name in self.axes]

    def pack(self, out: Any, lead: tuple[int, ...], dtype: Any = None) -> Any:
        """Return flat states (*lead, N) from what a function returned: arrays, or what stands for them.

        Raises
        ------
        TypeError, ValueError
            As ``ordered``, and for components of another shape or dtype (None: of any), which the message names.
        """
        rows = self._rows(out, lead, dtype)
        if rows is None:
            parts = self.ordered(out)
            self.check(parts, lead, dtype)
            rows = [part.reshape((*lead, prod(shape))) for part, shape in zip(parts, self.shapes.values(), strict=True)]
        return np.concatenate(rows, axis=-1)

    def _rows(self, out: Any, lead: tuple[int, ...], dtype: Any) -> list[Array] | None:
        """Return the components as rows, where they are NumPy arrays that fit; else None.

        The loop calls it at every step, so it does in one pass what ``ordered`` and ``check`` do.
        """
        kind = type(out)
        if not (kind is dict or kind is tuple) or len(out) != len(self.axes):
            return None
        known = self._fitting
        if known[0] != lead:
            known = self._fitting = lead, [self._fit(name, lead) for name in self.axes]
        rows = []
        for name, place, shape, flat in known[1]:
            part = out[place] if kind is tuple else out.get(name)
            if type(part) is not np.ndarray or part.shape != shape or part.dtype is not dtype:
                return None
            rows.append(part if flat is None else part.reshape(flat))
        return rows

    def _fit(self, name: str, lead: tuple[int, ...]) -> tuple[Any, ...]:
        """Return a component, its place, the shape it has behind some axes, and as a row, if that is another one."""
        shape = self.shapes[name]
        return name, list(self.axes).index(name), lead + shape, None if len(shape) == 1 else (*lead, prod(shape))

    def check(self, parts: list[Any], lead: tuple[int, ...], dtype: Any) -> None:
        """Raise unless components have their shapes behind ``lead``, and a dtype; the messages name them."""
        for (name, shape), part in zip(self.shapes.items(), parts, strict=True):
            if not hasattr(part, "dtype"):
                raise TypeError(f"f returned {type(part).__name__} for component {name!r}; wanted an array")
            if tuple(part.shape) != lead + shape:
                raise ValueError(f"f returned component {name!r} of shape {tuple(part.shape)}; wanted {lead + shape}")
            if dtype is not None and part.dtype != dtype:
                raise TypeError(f"f returned component {name!r} of dtype {part.dtype}; wanted {dtype}, {DTYPE_ADVICE}")


def axes_of(state: Any, what: str = "state") -> dict[str, tuple[str, ...]]:
    """Return the names of the axes of components, or of ``what`` else has axes by name, checked."""
    wanted = "wanted a dict from names to tuples of the names of axes, {'m': (), 'C': ('k', 'v')} say"
    if not isinstance(state, Mapping) or not state:
        raise TypeError(f"{what} is {state!r}; {wanted}")
    for name, axes in state.items():
        if not isinstance(axes, tuple) or not all(isinstance(a, str) for a in (name, *axes)):
            raise TypeError(f"{what} has {name!r}: {axes!r}; {wanted}")
    if taken := sorted({*state} & {*dir(Names)}):
        raise ValueError(f"{what} has the names {taken}, which mappings have as methods; rename them")
    return dict(state)
