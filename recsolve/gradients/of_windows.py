"""Gradients through a trajectory of which only the ends of windows were kept: the last window first, each solved again.

The adjoint of the state before a window is the cotangent of the last state of the window before it, so that windows are
gone through one after the other, each by the reverse scan of its own. What all windows depend on adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recsolve.base.arrays import Array, namespace, to_native
from recsolve.base.links import Leaf
from recsolve.base.names import Names
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.ragged_recurrence import RaggedRecurrence
from recsolve.windows_solution import WindowsSolution

if TYPE_CHECKING:
    from recsolve.gradients.result import Gradients

_OVER_TIME = ("states", "drive", "inputs")
_ADDED = ("parameters", "mixings", "projection")
# The attributes that gradients by leaves of a kind are in.
_CALLED = {"drive": "drive", "mixing": "mixings", "parameter": "parameters"}


class WindowsGradients:
    """The result of :func:`recsolve.adjoint` for a solution of ``every=L``: the same gradients, in less memory.

    Arrays are of the kind and dtype of the recurrence, and an attribute that the recurrence does not have raises
    AttributeError, as of :class:`recsolve.Gradients`. All are computed at once, but for ``states`` and for the
    ``drive`` of a cell on an input x, which have the size of trajectories: when these are first read all windows are
    gone through again.

    Attributes
    ----------
    states : array, shape (T, *batch, *event)
        The adjoint variables g[t].
    named : Names
        ``states`` by component, of a cell or a function with named states.
    initial : array, shape (*batch, *event), or Names
        With respect to h[0], by component where a function has named states; resets of all windows included where they
        go back to it.
    drive : Names
        Of a cell: with respect to each drive, in its own shape.
    inputs : array, or tuple or dict of arrays
        With respect to x, or to the inputs of a function, in their shapes.
    parameters, mixings, projection : Names
        As those of :class:`recsolve.Gradients`.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((100, 3)))
    >>> whole, kept = rs.solve(rec), rs.solve(rec, every=32)
    >>> g, wanted = (rs.adjoint(sol, output=2 * sol.output) for sol in (kept, whole))
    >>> g.inputs.shape, bool(np.allclose(g.mixings.r, wanted.mixings.r))
    ((100, 3), True)
    """

    def __init__(self, solution: WindowsSolution, given: Mapping[str, Any], adjoint: Callable[..., Gradients]):
        self._solution, self._adjoint, self._given = solution, adjoint, _checked(solution, given)
        self._found: dict[str, Any] = {}
        self._refused: dict[str, Exception] = {}
        rec = solution.recurrence
        projected = isinstance(rec, (CellRecurrence, RaggedRecurrence)) and rec.x is not None
        later = ("states", "drive") if projected else ("states",)
        self._initial, by_component = self._go_back([name for name in (*_OVER_TIME, *_ADDED) if name not in later])
        self.initial = by_component(self._initial)

    def _go_back(self, names: Sequence[str]) -> tuple[Array, Callable[[Array], Any]]:
        """Find these gradients, window by window from the last to the first.

        Returns the native one of the initial state, and what shows that to the user.
        """
        rec, last, restarts, ends = self._solution.recurrence, self._given["final"], [], self._given.get("ends")
        if ends is not None and len(ends):
            last = ends[-1] if last is None else last + ends[-1]
        for index in reversed(range(len(self._solution.windows))):
            g = self._of_window(index, last)
            for name in names:
                self._add(name, g, self._solution.cut.steps(index))
            restarts.append(g._restart)
            last = rec.wrap(g._initial)
            if ends is not None and index:
                last = last + ends[index - 1]
        if rec.restart is not rec.initial:  # of a window of another recurrence, which is where its resets go
            return g._initial, g._by_component
        return sum(restarts, start=g._initial), g._by_component

    def _of_window(self, index: int, last: Any) -> Gradients:
        """Return the gradients of one window, given the cotangent of its last state."""
        steps = self._solution.cut.steps(index)
        given = {n: self._given.get(n) for n in ("states", "output")}
        cut = {n: None if x is None else tree(lambda x: x[steps], x) for n, x in given.items()}
        return self._adjoint(self._solution.again(index), **cut, final=last, unconverged=True)

    def _add(self, name: str, g: Gradients, steps: slice) -> None:
        """Add one gradient of a window to that of the whole, or remember why there is none."""
        if name in self._refused:
            return
        try:
            part = getattr(g, name)
        except (AttributeError, TypeError) as error:  # raised where it is asked for
            self._refused[name] = error.with_traceback(None)
            return
        part = tree(lambda x: to_native(x, name), part)
        if name in _ADDED:
            known = self._found.get(name)
            self._found[name] = part if known is None else tree(_sum, known, part)
            return
        length = self._solution.recurrence.length
        whole = self._found.setdefault(name, tree(lambda x: _empty(x, length), part))
        tree(lambda x, p: x.__setitem__(steps, p), whole, part)

    def of(self, leaf: Leaf) -> Array:
        """Return the native gradient by one of ``recurrence.leaves()``, in its shape."""
        kind, name = leaf
        if kind == "initial":
            return self._initial
        if kind in ("weight", "bias"):
            return self._native("projection")["weights" if kind == "weight" else "biases"][name]  # type: ignore[no-any-return]
        if kind != "input":
            return self._native(_CALLED[kind])[name]  # type: ignore[no-any-return]
        found = self._native("inputs")
        found = list(found.values()) if isinstance(found, Mapping) else found
        return found[name] if isinstance(found, (tuple, list)) else found  # type: ignore[no-any-return, call-overload]

    def _read(self, name: str) -> Any:
        return tree(self._solution.recurrence.wrap, self._native(name))

    def _native(self, name: str) -> Any:
        if name not in self._found and name not in self._refused:
            self._go_back([name])
        if name in self._refused:
            raise self._refused[name]
        return self._found[name]

    @property
    def states(self) -> Any:
        return self._read("states")

    @property
    def named(self) -> Names:
        return self._solution.recurrence.named(self.states)

    @property
    def drive(self) -> Names:
        return self._read("drive")  # type: ignore[no-any-return]

    @property
    def inputs(self) -> Any:
        return self._read("inputs")

    @property
    def parameters(self) -> Names:
        return self._read("parameters")  # type: ignore[no-any-return]

    @property
    def mixings(self) -> Names:
        return self._read("mixings")  # type: ignore[no-any-return]

    @property
    def projection(self) -> Names:
        return self._read("projection")  # type: ignore[no-any-return]


def _checked(solution: WindowsSolution, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return cotangents of which those over time have the shapes of the whole."""
    rec: Recurrence = solution.recurrence
    shapes = {"states": rec.shape, "output": tuple(solution.output.shape), "ends": tuple(solution.ends.shape)}
    for name, x in given.items():
        if name == "final" or x is None:
            continue
        if isinstance(x, Mapping) and shapes[name] == rec.shape:
            rec.components_of(x, name, rec.shape)
        else:
            rec.native(x, name, shapes[name])
    return dict(given)


def tree(function: Callable[..., Any], *trees: Any) -> Any:
    """Return what a function gives of all leaves of trees that are alike, in their containers."""
    first = trees[0]
    if first is None:
        return None
    if len(trees) == 1 and type(first) is Names:  # as most are
        return Names({name: tree(function, x) for name, x in vars(first).items()}, first._what)
    if hasattr(type(first), "dtype"):
        return function(*trees)
    if isinstance(first, tuple):
        return tuple(tree(function, *parts) for parts in zip(*trees, strict=True))
    if isinstance(first, Mapping):
        found = {name: tree(function, *(tree[name] for tree in trees)) for name in first}
        return Names(found, first._what) if isinstance(first, Names) else found
    return function(*trees)


def _sum(x: Array, y: Array) -> Array:
    return namespace(x).asarray(x + y)  # type: ignore[no-any-return]  # a number is an array too


def _empty(x: Array, length: int) -> Array:
    return namespace(x).empty((length, *x.shape[1:]), dtype=x.dtype)  # type: ignore[no-any-return]
