"""A cell is one function: elementwise arithmetic around linear mixings.

``Cell(function, state=..., output=...)`` is the definition; with weights it becomes a :class:`WeightedCell`, and with a
drive a :class:`CellRecurrence`. The names of mixings, drives and parameters are read off the function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from recsolve import torch_weights
from recsolve.arrays import Array, common_dtype, common_kind, empty_in_order, kind_of, namespace, to_native
from recsolve.cell_recurrence import CellRecurrence
from recsolve.layout import Layout
from recsolve.mixings import Mixing, make
from recsolve.names import Names
from recsolve.projection import Projection


class _Probe:
    """A namespace that records which names a cell function asks for, in order."""

    def __init__(self, value: Callable[[], Any]):
        self._value = value
        self.seen: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self.seen:
            self.seen.append(name)
        return self._value()


class Cell:
    """The definition of a cell.

    Parameters
    ----------
    function : callable
        ``function(s, W, u, p)`` returns the new state (a tuple in the order of ``state`` when it has several
        components). ``s.name`` is a component of the old state, ``W.name(x)`` a mixing, ``u.name`` a drive,
        ``p.name`` an elementwise parameter. Between mixings it uses elementwise functions of :mod:`recsolve.math`
        or NumPy only.
    state : tuple of str
        Names of the state's components.
    output : str
        The component that the cell shows.
    name : str, optional
        Name in listings; default: that of the function.
    cite : str, optional
        The source of the equations.

    Attributes
    ----------
    mixings, drives, parameters : tuple of str
        The names that the function uses, in order of first use.

    Raises
    ------
    ValueError
        When ``output`` is not a component or the function returns another number of components.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.math import sigmoid, tanh
    >>> def minimal_gated_unit(s, W, u, p):
    ...     f = sigmoid(W.f(s.h) + u.f)
    ...     return (1 - f) * s.h + f * tanh(W.h(f * s.h) + u.h)
    >>> MGU = rs.Cell(minimal_gated_unit, state=("h",), output="h")
    >>> cell = MGU.random(input_size=3, hidden_size=8, mixing="dense", rng=0)
    >>> sol = rs.solve(cell.recurrence(np.ones((20, 3))))
    >>> sol.success, sol.output.shape
    (True, (20, 8))
    """

    def __init__(
        self,
        function: Callable[[Any, Any, Any, Any], Any],
        *,
        state: tuple[str, ...],
        output: str,
        name: str | None = None,
        cite: str = "",
    ):
        if not callable(function):
            raise TypeError(f"function is {type(function).__name__}; wanted a callable f(s, W, u, p)")
        self.function, self.state, self.output, self.cite = function, tuple(state), output, cite
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.__doc__ = "\n\n".join(text for text in (function.__doc__, cite and f"Source: {cite}") if text)
        if output not in self.state:
            raise ValueError(f"output is {output!r}; wanted one of the components {self.state}")
        one = np.zeros(1)
        W, u, p = _Probe(lambda: lambda x: x), _Probe(lambda: one), _Probe(lambda: one)
        with np.errstate(all="ignore"):
            result = function(Names(dict.fromkeys(self.state, one), "component"), W, u, p)
        if isinstance(result, (list, dict)):
            raise ValueError(f"{self.name} returns a {type(result).__name__}; wanted an array, or a tuple of arrays")
        returned = len(result) if isinstance(result, tuple) else 1
        if returned != len(self.state):
            raise ValueError(f"{self.name} returns {returned} components; wanted {len(self.state)}: {self.state}")
        self.mixings, self.drives, self.parameters = tuple(W.seen), tuple(u.seen), tuple(p.seen)
        if not self.drives:
            raise ValueError(f"{self.name} uses no drive u.name, so nothing gives its length; use from_function")
        taken = sorted({*self.state, *self.mixings, *self.drives, *self.parameters} & set(dir(Names)))
        if taken:
            raise ValueError(f"{self.name} uses the names {taken}, which mappings have as methods; rename them")

    def __repr__(self) -> str:
        return f"Cell({self.name}: state {self.state}, mixings {self.mixings}, drives {self.drives})"

    def random(
        self,
        *,
        input_size: int,
        hidden_size: int,
        mixing: str = "dense",
        heads: int | None = None,
        gain: float = 1.0,
        rng: int | np.random.Generator | None = None,
        dtype: Any = np.float64,
    ) -> WeightedCell:
        """Draw weights as torch does: every entry uniform in +-1/sqrt(hidden_size).

        Parameters
        ----------
        input_size, hidden_size : int
            Width of the input and of the state (all heads together).
        mixing : {"dense", "diagonal", "heads"}
            How units are coupled; ignored by cells without mixings.
        heads : int, optional
            Number of heads for ``mixing="heads"``; default 4.
        gain : float
            Factor on the mixing weights: below 1 more contractive, well above 1 chaotic.
        rng : int or Generator, optional
            Seed; the same seed gives the same weights.
        dtype : dtype
            float32 or float64.

        Returns
        -------
        WeightedCell

        Raises
        ------
        ValueError
            For sizes below 1, an unknown mixing, or a gain on a cell without mixings.
        """
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if not isinstance(size, (int, np.integer)) or size < 1:
                raise ValueError(f"{name} is {size!r}; wanted a positive integer")
        if not isinstance(gain, (int, float, np.number)) or not np.isfinite(gain):
            raise ValueError(f"gain is {gain!r}; wanted a finite number")
        if not self.mixings and gain != 1.0:
            raise ValueError(f"gain is {gain}, but {self.name} has no mixings for it to scale; leave it at 1")
        generator = np.random.default_rng(rng)
        bound = 1.0 / np.sqrt(hidden_size)

        def draw(shape: tuple[int, ...], scale: float = 1.0) -> Array:
            return (scale * generator.uniform(-bound, bound, shape)).astype(dtype)

        mixings = {n: make(mixing, hidden_size, heads, lambda shape: draw(shape, gain)) for n in self.mixings}
        layout = self._layout(mixings, hidden_size)
        event = (*layout.lanes, layout.lane_width // layout.components)
        weights = {name: draw((*event, input_size)) for name in self.drives}
        biases = {name: draw(event) for name in self.drives}
        parameters = {name: draw(event) for name in self.parameters}
        return WeightedCell(self, mixings, parameters, Projection(weights, biases), hidden_size)

    def with_weights(
        self,
        *,
        mixings: Mapping[str, Mixing] | None = None,
        parameters: Mapping[str, Any] | None = None,
        projection: Projection | None = None,
        hidden_size: int | None = None,
    ) -> WeightedCell:
        """Return the cell with given weights; without a projection it is driven by ``recurrence(drive=...)``.

        Raises
        ------
        ValueError
            When a name that the function uses is missing, or shapes do not agree.
        """
        return WeightedCell(self, dict(mixings or {}), dict(parameters or {}), projection, hidden_size)

    def from_torch(self, module: Any, *, layer: int = 0, reverse: bool = False) -> WeightedCell:
        """Take the weights of one layer and direction of a ``torch.nn`` RNN, GRU or LSTM.

        Parameters
        ----------
        module : torch.nn.RNN, GRU or LSTM
            Its kind must be that of this cell.
        layer : int
            Which layer.
        reverse : bool
            The reverse direction of a bidirectional module.

        Raises
        ------
        TypeError
            When the module is of another kind.
        ValueError
            When the layer or direction does not exist, or the module has ``proj_size``.
        """
        return torch_weights.cell_from_module(self, module, layer, reverse)

    def _layout(self, mixings: Mapping[str, Mixing], hidden_size: int) -> Layout:
        lanes = {mixing.lanes for mixing in mixings.values()} or {()}
        if len(lanes) > 1:
            raise ValueError(f"mixings of {self.name} have lanes {sorted(lanes)}; wanted the same for all")
        shape = lanes.pop()
        return Layout(len(self.state), shape, hidden_size // int(np.prod(shape)))


class WeightedCell:
    """A cell together with its weights.

    Attributes
    ----------
    cell : Cell
        The definition.
    mixings : dict of Mixing
    parameters : dict of array
        Elementwise parameters, (*lanes, n).
    projection : Projection or None
        The hoisted input projection.
    layout : Layout
        The event axes of its states.
    """

    def __init__(
        self,
        cell: Cell,
        mixings: dict[str, Mixing],
        parameters: Mapping[str, Any],
        projection: Projection | None,
        hidden_size: int | None,
    ):
        _require(cell.name, "mixings", cell.mixings, mixings)
        _require(cell.name, "parameters", cell.parameters, parameters)
        sizes = {f"mixing {n}": int(np.prod(m.lanes)) * m.units for n, m in mixings.items()}
        if projection is not None:
            _require(cell.name, "projection", cell.drives, projection.weights)
            sizes["projection"] = projection.hidden_size
        if hidden_size is not None:
            sizes["hidden_size"] = hidden_size
        if len(set(sizes.values())) != 1:
            raise ValueError(f"sizes of {cell.name} are {sizes}; wanted one number of units")
        self.cell, self.mixings, self.projection = cell, mixings, projection
        self.hidden_size = next(iter(sizes.values()))
        self.layout = cell._layout(mixings, self.hidden_size)
        self.parameters = {n: to_native(x, n) for n, x in parameters.items()}
        if weights := dict(self._weights()):
            common_dtype(weights)

    def _weights(self) -> Iterator[tuple[str, Array]]:
        yield from ((f"mixing {n}", m.weight) for n, m in self.mixings.items())
        yield from self.parameters.items()
        if self.projection is not None:
            yield "projection", self.projection.matrix

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the weights."""
        return next((w.dtype for _, w in self._weights()), np.dtype(np.float64))

    @property
    def input_size(self) -> int | None:
        """Width of the input, or None without a projection."""
        return None if self.projection is None else self.projection.input_size

    def map(self, function: Callable[[Array], Array]) -> WeightedCell:
        """Return the cell with ``function`` applied to every weight array."""
        projection = None if self.projection is None else self.projection.map(function)
        return WeightedCell(
            self.cell,
            {n: m.map(function) for n, m in self.mixings.items()},
            {n: function(x) for n, x in self.parameters.items()},
            projection,
            self.hidden_size,
        )

    def astype(self, dtype: Any) -> WeightedCell:
        """Return the cell with weights of another dtype (float32 or float64)."""
        return self.map(lambda w: w.astype(dtype))

    def to(self, kind: str) -> WeightedCell:
        """Return the cell with its weights on the CPU (``"numpy"``) or on the GPU (``"cupy"``).

        Raises
        ------
        ValueError
            For another kind.
        ImportError
            Without CuPy; the message names the extra.
        """
        if kind == "numpy":
            return self.map(lambda w: w if kind_of(w) == "numpy" else w.get())  # type: ignore[attr-defined]
        if kind != "cupy":
            raise ValueError(f"kind is {kind!r}; wanted 'numpy' or 'cupy'")
        try:
            import cupy
        except ImportError as error:
            raise ImportError("weights on the GPU need CuPy: pip install 'recsolve[cuda13]' (or [cuda12])") from error
        return self.map(cupy.asarray)

    def drive(self, x: Any) -> Names:
        """Return the input projection of ``x`` for all t: one matrix product.

        Parameters
        ----------
        x : array, shape (T, *batch, input_size)

        Returns
        -------
        Names
            One drive per name that the cell uses, each (T, *batch, *lanes, n).
        """
        if self.projection is None:
            raise ValueError(f"{self.cell.name} has no projection; pass recurrence(drive=...) instead of x")
        native = to_native(x, "x")
        common_dtype({"x": native, "the cell's weights": self.projection.matrix})
        self._check_namespace(native)
        return self.projection(native)

    def _check_namespace(self, like: Array) -> None:
        for name, weight in self._weights():
            if namespace(weight) is not namespace(like):
                raise TypeError(
                    f"the drive is {kind_of(like)} and {name} is {kind_of(weight)}; move the cell with "
                    f"cell.to({kind_of(like)!r})"
                )

    def recurrence(
        self, x: Any = None, *, drive: Mapping[str, Any] | None = None, initial: Any = None, reset: Any = None
    ) -> CellRecurrence:
        """Return the recurrence of this cell on an input, or on drives already projected.

        Parameters
        ----------
        x : array, shape (T, *batch, input_size), optional
            The input.
        drive : mapping of arrays, optional
            Instead of ``x``: each drive by name, broadcasting to (T, *batch, *lanes, n), time first.
        initial : array or dict, optional
            h[0], shape (*batch, [k], *lanes, n) or anything that broadcasts to it; or one array per component by
            name. Default: zeros.
        reset : array of bool, optional
            (T, *batch): steps that start from ``initial`` again.

        Returns
        -------
        Recurrence

        Raises
        ------
        TypeError
            For mixed array kinds or dtypes.
        ValueError
            For wrong shapes or names.
        """
        if (x is None) == (drive is None):
            raise ValueError("recurrence takes either x or drive=, and exactly one of them")
        if x is not None:
            kind = kind_of(x)
            drives: Mapping[str, Any] = self.drive(x)
        else:
            assert drive is not None
            _require(self.cell.name, "drive", self.cell.drives, drive)
            kind = common_kind({f"drive {n}": drive[n] for n in self.cell.drives})
            drives = {n: to_native(drive[n], f"drive {n}") for n in self.cell.drives}
            like = next(iter(drives.values()))
            common_dtype({**{f"drive {n}": d for n, d in drives.items()}, **dict(self._weights())})
            self._check_namespace(like)
        return CellRecurrence(self, Names(drives, "drive"), initial, reset, kind)

    def output(self, states: Array) -> Array:
        """Return the shown component of states (T, *batch, [k], *lanes, n)."""
        return self.layout.component(states, self.cell.state.index(self.cell.output))

    def stack_components(self, parts: list[Array], like: Array) -> Array:
        """Return states from one array per component, in the memory order of ``like``."""
        if len(parts) == 1:
            return parts[0]
        axis = like.ndim - len(self.layout.event) + 1
        shape = (*like.shape[:axis], *self.layout.event)
        states = empty_in_order(shape, like, axis)
        for index, part in enumerate(parts):
            self.layout.component(states, index)[...] = part
        return states

    def __repr__(self) -> str:
        kinds = {n: m.name for n, m in self.mixings.items()}
        return f"WeightedCell({self.cell.name}, {self.hidden_size} units, mixings {kinds}, {self.dtype})"


def _require(owner: str, what: str, wanted: tuple[str, ...], given: Any) -> None:
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    if missing or extra:
        raise ValueError(f"{what} of {owner} has names {tuple(given)}; wanted {wanted}")
