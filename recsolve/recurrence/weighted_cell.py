"""A cell together with its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from recsolve.base.arrays import (
    Array,
    check_devices,
    common_dtype,
    common_kind,
    empty_in_order,
    kind_of,
    namespace,
    to_native,
)
from recsolve.base.links import Leaf, sever_all, tensor_of, to_linked
from recsolve.base.names import Names
from recsolve.base.overriding import changed, patched, refuse_stale
from recsolve.mixings import Mixing, states_linear
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.projection import Projection

if TYPE_CHECKING:
    from recsolve.recurrence.cell import Cell


class WeightedCell:
    """A cell together with its weights: :meth:`Cell.random`, :meth:`Cell.with_weights` and others make one.

    Attributes
    ----------
    cell : Cell
        The definition.
    mixings : dict of Mixing
    parameters : dict of array
        Elementwise parameters, (*lanes, n).
    projection : Projection or None
        The hoisted input projection.
    hidden_size : int
        Units of all lanes together.
    layout : Layout
        The event axes of its states.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> cell = rs.cells.LSTM.random(input_size=3, hidden_size=8, rng=0)
    >>> cell.recurrence(np.ones((20, 5, 3))).shape
    (20, 5, 2, 8)
    """

    compilable = True

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        refuse_stale(cls, "pull_output", "output")
        refuse_stale(cls, "pull_shown_by", "shown_by")

    def __init__(
        self,
        cell: Cell,
        mixings: dict[str, Mixing],
        parameters: Mapping[str, Any],
        projection: Projection | None,
        hidden_size: int | None,
    ):
        _require(cell.name, "mixings", cell.mixings, mixings)
        for name, mixing in mixings.items():
            if not isinstance(mixing, Mixing):
                raise TypeError(f"mixings[{name!r}] is {type(mixing).__name__}; wanted a Mixing, Dense(weight) say")
            if patched(mixing):
                raise TypeError(f"mixings[{name!r}] has methods that were replaced on the object; wanted a subclass")
        _require(cell.name, "parameters", cell.parameters, parameters)
        sizes = {f"mixing {n}": int(np.prod(m.lanes)) * m.units for n, m in mixings.items()}
        if projection is not None:
            if not isinstance(projection, Projection):
                raise TypeError(f"projection is {type(projection).__name__}; wanted a Projection")
            _require(cell.name, "projection", cell.drives, projection.weights)
            sizes["projection"] = projection.hidden_size
        if hidden_size is not None:
            sizes["hidden_size"] = hidden_size
        if len(set(sizes.values())) != 1:
            raise ValueError(f"sizes of {cell.name} are {sizes}; wanted one number of units")
        self.cell, self.mixings, self.projection = cell, mixings, projection
        self.hidden_size = next(iter(sizes.values()))
        self.layout = cell.layout(mixings, self.hidden_size)
        for name, mixing in mixings.items():
            _check_linear(f"mixing {name}", mixing)
        self.parameters = {n: to_linked(x, n) for n, x in parameters.items()}
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

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The axes of what one step of the output holds, (*lanes, n)."""
        return self.layout.event[self.layout.components > 1 :]

    def map(self, function: Callable[[Array], Array]) -> Self:
        """Return the cell with ``function`` applied to every weight array; it must keep their shapes.

        Raises
        ------
        TypeError
            When it returns mixed dtypes, or others than float32 and float64.

        Examples
        --------
        >>> import recsolve as rs
        >>> cell = rs.cells.Elman.random(input_size=3, hidden_size=8, rng=0)
        >>> bool(cell.map(abs).mixings["h"].weight.min() >= 0)
        True
        """
        projection = None if self.projection is None else self.projection.map(function)
        mapped = changed(self)
        WeightedCell.__init__(
            mapped,
            self.cell,
            {n: m.map(function) for n, m in self.mixings.items()},
            {n: function(x) for n, x in self.parameters.items()},
            projection,
            self.hidden_size,
        )
        sever_all(mapped, self)
        return mapped

    def leaves(self) -> dict[Leaf, Array]:
        """Return the weights without those of the projection, by what gradients call them."""
        weights: dict[Leaf, Array] = {("mixing", n): m.weight for n, m in self.mixings.items()}
        return weights | {("parameter", n): p for n, p in self.parameters.items()}

    def astype(self, dtype: Any) -> Self:
        """Return the cell with weights of another dtype (float32 or float64); TypeError for others.

        Examples
        --------
        >>> import recsolve as rs
        >>> rs.cells.Elman.random(input_size=3, hidden_size=8, rng=0).astype("float32").dtype
        dtype('float32')
        """
        return self.map(lambda w: w.astype(dtype))

    def to(self, kind: str) -> Self:
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
            In the dtype of the weights.

        Returns
        -------
        Names
            One drive per name that the cell uses, each (T, *batch, *lanes, n).

        Raises
        ------
        ValueError
            Without a projection, or for a wrong shape.
        TypeError
            When x is of another dtype than the weights, or on another device.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)
        >>> {name: u.shape for name, u in cell.drive(np.ones((20, 3))).items()}
        {'r': (20, 8), 'z': (20, 8), 'n': (20, 8)}
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
            if kind_of(like) == "cupy" and weight.device != like.device:
                raise TypeError(f"the drive is on {like.device} and {name} is on {weight.device}; move one of them")

    def recurrence(
        self,
        x: Any = None,
        *,
        drive: Mapping[str, Any] | None = None,
        initial: Any = None,
        reset: Any = None,
        ties: Any = None,
        readout: Callable[..., Any] | None = None,
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
        ties : float or mapping, optional
            The derivative at a tie of minimum or maximum (hence of relu and clip), and of absolute at 0: a number in
            [0, 1] for all of them, or a mapping from ``"minimum"``, ``"maximum"``, ``"absolute"`` to numbers. That of
            minimum and maximum, in [0, 1], is the share of the operand that depends on the state; if both do, that of
            the first, and the second gets the rest. That of absolute, in [-1, 1], is the slope at 0. Default: 1, 1 and
            0. It decides how many iterations a solver takes, not where it ends; gradients take the same choice.
        readout : callable, optional
            ``readout(s, u, p)`` of the components of the states h[t], the drives and the elementwise parameters, all by
            name, for all t: what ``solution.output`` shows, (T, *batch, ...), of any other axes. It uses NumPy's
            functions, and may couple units. Default: the component that the cell shows.

        Returns
        -------
        CellRecurrence
            In the dtype of the weights.

        Raises
        ------
        TypeError
            For mixed array kinds or dtypes, or ties that are no numbers.
        ValueError
            For wrong shapes or names, or ties of unknown operations or out of range.

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> cell = rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)
        >>> cell.recurrence(np.ones((20, 5, 3)), reset=rs.packed_resets([12, 8])).shape
        (20, 5, 8)
        """
        if (x is None) == (drive is None):
            seen = "neither x nor drive is" if x is None else "both x and drive are"
            raise ValueError(f"{seen} given; wanted one of them")
        given = {"x": x} if drive is None else {f"drive {n}": u for n, u in drive.items()}
        starts = initial if isinstance(initial, dict) else {"": initial}
        check_devices(given | {f"initial[{n!r}]" if n else "initial": h for n, h in starts.items()})
        native = None if x is None else to_linked(x, "x")
        if native is not None:
            kind = kind_of(x)
            drives: Mapping[str, Any] = self.drive(x if tensor_of(native) is None else native)
        else:
            assert drive is not None
            _require(self.cell.name, "drive", self.cell.drives, drive)
            kind = common_kind({f"drive {n}": drive[n] for n in self.cell.drives})
            drives = {n: to_linked(drive[n], f"drive {n}") for n in self.cell.drives}
            like = next(iter(drives.values()))
            common_dtype({**{f"drive {n}": d for n, d in drives.items()}, **dict(self._weights())})
            self._check_namespace(like)
        return CellRecurrence(self, Names(drives, "drive"), initial, reset, kind, native, ties, readout)

    def output(self, states: Array) -> Array:
        """Return the shown component of states (T, *batch, [k], *lanes, n): a view (T, *batch, *lanes, n)."""
        return self.layout.component(states, self.cell.state.index(self.cell.output))

    def pull_output(self, output: Array, states: Array) -> None:
        """Add to a cotangent of the states what a cotangent of the output, (T, *batch, *lanes, n), gives."""
        shown = WeightedCell.output(self, states)
        shown += output

    def shown_by(self, output: Array) -> Array:
        """Return the smallest value of the shown component that gives an output; ValueError where none does."""
        return output

    def pull_shown_by(self, shown: Array) -> Array:
        """Return the cotangent of an output for one of the value of the shown component that gives it."""
        return shown

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


def _check_linear(name: str, mixing: Mixing) -> None:
    """Raise where a mixing that does not state that it is linear adds something: its matrix is no derivative then."""
    if not states_linear(mixing):
        nothing = namespace(mixing.weight).zeros((1, *mixing.lanes, mixing.units), mixing.weight.dtype)
        if bool((abs(mixing(nothing)) > 0).any()):  # NaN may come of weights
            raise ValueError(f"{name} is no linear map: matvec of zeros is not zero; add a bias in the cell")
