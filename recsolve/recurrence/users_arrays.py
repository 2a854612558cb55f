"""Between the arrays of the user and native ones: kinds, dtypes, shapes, names, and the order of steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recsolve.base.arrays import DISCRETE, FLOATS, Array, Kind, from_native, is_discrete, kind_of, namespace, to_native
from recsolve.base.layout import Layout
from recsolve.base.links import requires_grad
from recsolve.base.names import Names


class UsersArrays:
    """What a recurrence knows of the arrays that its user gave and gets back."""

    kind: Kind
    dtype: np.dtype[Any]
    layout: Layout
    initial: Array
    description: str

    def name_of(self, step: int) -> int | tuple[int, ...]:
        """Return a step as the user calls it."""
        return step

    def as_given(self, x: Array) -> Array:
        """Return what has steps as its first axis, as the user lays them out."""
        return x

    def in_order(self, x: Array, name: str) -> Array:
        """Return what the user lays out as :meth:`as_given` with steps as its first axis; errors call it ``name``."""
        return x

    def named(self, x: Any) -> Names:
        """Return the components of states by name, of a cell or of a function with named states.

        Parameters
        ----------
        x : array, shape (..., *event)
            States, a final one or adjoint variables, of the kind and dtype of the recurrence.

        Returns
        -------
        Names
            Views, each (..., *the shape of the component).

        Raises
        ------
        AttributeError
            For states without names.
        TypeError, ValueError
            For arrays of another kind or dtype, or whose last axes are not those of a state.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.cells.LSTM.random(input_size=2, hidden_size=4, rng=0).recurrence(np.ones((9, 2)))
        >>> {name: part.shape for name, part in rec.named(np.zeros(rec.shape)).items()}
        {'h': (9, 4), 'c': (9, 4)}
        """
        carries, event = requires_grad(x), self.layout.event
        states = self.native(x.detach() if carries else x, "states")
        if tuple(states.shape[states.ndim - len(event) :]) != event:
            raise ValueError(f"states has shape {tuple(states.shape)}; wanted (..., {', '.join(map(str, event))})")
        if carries:  # torch's own views, which gradients go back through
            return Names(self._split(x), "component")
        parts = self._split(states)
        return Names({name: self.wrap(part) for name, part in parts.items()}, "component")

    def _split(self, states: Array) -> dict[str, Array]:
        """Return the components of native states by name, as views."""
        raise AttributeError(f"the states of {self.description} have no names; from_function takes state=")

    def by_name(self, x: Any, name: str, shape: tuple[int, ...]) -> Array:
        """Return states of the user's as a native array of this shape; a mapping of components is joined with zeros.

        Raises
        ------
        TypeError, ValueError
            As :meth:`native`, and for unknown components.
        """
        if not isinstance(x, Mapping):
            return self.native(x, name, shape)
        total = namespace(self.initial).zeros(shape, dtype=self.dtype)
        given = self.components_of(x, name, shape)
        for component, part in self._split(total).items():
            if component in given:
                part += given[component]
        return total  # type: ignore[no-any-return]

    def components_of(self, x: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> dict[str, Array]:
        """Return some components of states of this shape as native arrays, which may be views of the user's.

        Raises
        ------
        TypeError, ValueError
            As :meth:`native`, and for unknown components.
        """
        nothing = namespace(self.initial).zeros((), dtype=self.dtype)
        try:
            parts = self._split(namespace(nothing).broadcast_to(nothing, shape))
        except AttributeError as error:
            raise TypeError(f"{name} is given by components, and {error}") from None
        for component in x:
            if component not in parts:
                raise ValueError(f"{name} has {component!r}; wanted some of {tuple(parts)}")
        return {n: self.native(given, f"{name}[{n!r}]", tuple(parts[n].shape)) for n, given in x.items()}

    def native(self, x: Any, name: str, shape: tuple[int, ...] | None = None) -> Array:
        """Return an array of the user's as a native one of this recurrence's kind and dtype.

        Parameters
        ----------
        x : array
        name : str
            Of the argument, for messages.
        shape : tuple of int, optional
            The shape it must have.

        Returns
        -------
        array

        Raises
        ------
        TypeError
            When x is of another kind or dtype.
        ValueError
            When it has another shape.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.Recurrence.from_function(lambda h, u: h + u, inputs=np.ones((3, 1)), initial=np.zeros(1))
        >>> rec.native(np.zeros((2, 1)), "states", rec.shape)
        Traceback (most recent call last):
        ValueError: states has shape (2, 1); wanted (3, 1)
        """
        if kind_of(x) != self.kind:
            raise TypeError(f"{name} is {kind_of(x)} and the recurrence is {self.kind}; convert it first")
        native = to_native(x, name, (*FLOATS, *DISCRETE) if is_discrete(self.dtype) else FLOATS)
        if native.dtype != self.dtype:
            raise TypeError(f"{name} has dtype {native.dtype}; wanted {self.dtype}")
        if shape is not None and native.shape != shape:
            raise ValueError(f"{name} has shape {tuple(native.shape)}; wanted {tuple(shape)}")
        return native

    def wrap(self, native: Array) -> Any:
        """Return a native array as the kind that the user gave: NumPy, CuPy or torch (sharing memory)."""
        return from_native(native, self.kind)
