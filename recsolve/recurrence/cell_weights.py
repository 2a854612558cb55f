"""What cells with weights share: the weights themselves, and the drives that inputs give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from recsolve.base.arrays import (
    FLOATS,
    Array,
    Kind,
    check_devices,
    common_dtype,
    common_kind,
    is_discrete,
    kind_of,
    namespace,
    to_native,
)
from recsolve.base.links import Leaf, sever_all, tensor_of, to_linked
from recsolve.base.names import Names
from recsolve.base.overriding import changed, patched
from recsolve.mixings import INTEGERS, Mixing, states_linear
from recsolve.recurrence.projection import Projection

if TYPE_CHECKING:
    from recsolve.recurrence.cell import Cell


class Drives(NamedTuple):
    """Drives as the user gave them, or an input does.

    Attributes
    ----------
    kind : str
        Of the user's arrays.
    named : Names
        Native, in the order of the cell.
    x : array or None
        The input, native.
    """

    kind: Kind
    named: Names
    x: Array | None


class CellWeights(ABC):
    """A cell together with its weights, whatever the shapes of its components.

    Attributes
    ----------
    cell : Cell
        The definition.
    mixings : dict of Mixing
    parameters : dict of array
    projection : Projection or None
        The hoisted input projection.
    hidden_size : int, or dict of int
        Of an axis, by its name, where components have shapes of their own.
    """

    hidden_size: Any

    def __init__(
        self,
        cell: Cell,
        mixings: dict[str, Mixing],
        parameters: Mapping[str, Any],
        projection: Projection | None,
        hidden_size: Any,
    ):
        _require(cell.name, "mixings", cell.mixings, mixings)
        for name, mixing in mixings.items():
            if not isinstance(mixing, Mixing):
                raise TypeError(f"mixings[{name!r}] is {type(mixing).__name__}; wanted a Mixing, Dense(weight) say")
            if patched(mixing):
                raise TypeError(f"mixings[{name!r}] has methods that were replaced on the object; wanted a subclass")
        _require(cell.name, "parameters", cell.parameters, parameters)
        if projection is not None:
            if not isinstance(projection, Projection):
                raise TypeError(f"projection is {type(projection).__name__}; wanted a Projection")
            _require(cell.name, "projection", cell.projected, projection.weights)
        self.cell, self.mixings, self.projection = cell, mixings, projection
        self.parameters = {n: to_linked(x, n) for n, x in parameters.items()}
        self._measure(hidden_size)
        for name, mixing in mixings.items():
            _check_linear(f"mixing {name}", mixing)
        if weights := dict(self._weights()):
            common_dtype(weights)

    @abstractmethod
    def _measure(self, hidden_size: Any) -> None:
        """Set ``hidden_size``, and what follows from it, from sizes that the user gave and the shapes of weights."""

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
        CellWeights.__init__(
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

    def leaves_on(self, drive: Mapping[str, Array], x: Array | None) -> dict[Leaf, Array]:
        """Return what states depend on besides h[0]; an input with its projection stands for the drives it gives."""
        drives: dict[Leaf, Array] = {("drive", n): u for n, u in drive.items()}
        if x is not None and self.projection is not None:
            drives = {("input", 0): x, **self.projection.leaves()}
        return {**drives, **self.leaves()}

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

    def _drives(self, x: Any, drive: Mapping[str, Any] | None, initial: Any) -> Drives:
        """Return the drives that an input gives, or that were given; ValueError and TypeError where they do not fit."""
        if (x is None) == (drive is None) and (x is None or not self.cell.indices):
            seen = "neither x nor drive is" if x is None else "both x and drive are"
            raise ValueError(f"{seen} given; wanted one of them")
        given, indices = {} if drive is None else drive, self.cell.indices
        named = {**({} if x is None else {"x": x}), **{f"drive {n}": u for n, u in given.items()}}
        starts = initial if isinstance(initial, Mapping) else {"": initial}
        check_devices(named | {f"initial[{n!r}]" if n else "initial": h for n, h in starts.items()})
        native = None if x is None else to_linked(x, "x")
        drives = {} if native is None else dict(self.drive(x if tensor_of(native) is None else native))
        _require(self.cell.name, "drive", self.cell.drives if x is None else indices, given)
        kind = common_kind(named)
        drives |= {n: to_linked(given[n], f"drive {n}", INTEGERS if n in indices else FLOATS) for n in given}
        floats = {f"drive {n}": d for n, d in drives.items() if n not in indices}
        if real := floats | dict(self._weights()):
            common_dtype(real)
        self._check_namespace(next(iter(drives.values())))
        return Drives(kind, Names({n: drives[n] for n in self.cell.drives}, "drive"), native)

    def like(self, drives: Names) -> Array:
        """Return an array of the kind and dtype of the states that drives lead to, which may all be indices."""
        floats = (u for u in drives.values() if not is_discrete(u.dtype))
        return next(floats, namespace(next(iter(drives.values()))).zeros(0, self.dtype))


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
