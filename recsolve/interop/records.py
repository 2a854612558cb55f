"""What files of ``recsolve.save`` say of objects: a record, which is plain JSON, beside arrays by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsolve import cells, mixings
from recsolve.base.arrays import Array, to_host
from recsolve.base.overriding import changed, patched
from recsolve.cells.holding import held, held_by
from recsolve.interop.layers import Layers
from recsolve.mixings import Gather, LowRank, Masked, Mixing, Sparse
from recsolve.recurrence.cell import Cell
from recsolve.recurrence.projection import Projection
from recsolve.recurrence.ragged_cell import RaggedCell
from recsolve.recurrence.read_cell import ReadCell
from recsolve.recurrence.weighted_cell import WeightedCell


@dataclass(frozen=True)
class _Form:
    """How a mixing is stored.

    Attributes
    ----------
    kind : type
    arrays, settings : tuple of str
        Attributes that it is made of.
    make : callable, optional
        What makes it of them, by name; default: its class.
    """

    kind: type[Mixing]
    arrays: tuple[str, ...] = ("weight",)
    settings: tuple[str, ...] = ()
    make: Callable[..., Mixing] | None = None


def _low_rank(weight: Array, rank: int) -> LowRank:
    if weight.ndim != 2 or weight.shape[1] not in (2 * rank, 2 * rank + 1):
        raise ValueError(f"weight of a low rank mixing has shape {weight.shape}, which has not the rank {rank}")
    return LowRank(*LowRank._split(weight, rank))


def _sparse(weight: Array, indices: Array, indptr: Array) -> Sparse:
    from scipy.sparse import csr_array

    matrix = csr_array((weight, indices, indptr), shape=(len(indptr) - 1,) * 2)
    matrix.check_format(full_check=True)
    return Sparse(matrix)


_FORMS = {
    form.kind.name: form
    for form in (
        _Form(mixings.Diagonal),
        _Form(mixings.Dense),
        _Form(mixings.Heads),
        _Form(mixings.SharedHead, settings=("heads",)),
        _Form(mixings.Conv, settings=("grid", "boundary")),
        _Form(LowRank, settings=("rank",), make=_low_rank),
        _Form(mixings.Permutation, arrays=("index", "weight")),
        _Form(Gather, arrays=("index", "weight"), make=lambda index, weight: Gather(index, weight.dtype)),
        _Form(Sparse, arrays=("weight", "indices", "indptr"), make=_sparse),
    )
}


class Writer:
    """Makes the record of an object, and gathers its arrays.

    Attributes
    ----------
    arrays : dict of array
        By the keys that they have in the file: NumPy arrays, contiguous.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def record(self, x: Any, at: str = "") -> dict[str, Any]:
        """Return the record of an object, whose arrays have keys that begin with ``at``.

        Raises
        ------
        TypeError
            For an object, or a part of one, that is more than plain data: of a class of the user's.
        """
        if isinstance(x, Mixing):
            return {"object": "Mixing", **self._mixing(x, at)}
        write: Any = {Layers: self._layers, Projection: self._projection}.get(type(x))
        write = self._cell if type(x) in (WeightedCell, RaggedCell, ReadCell) else write
        if write is None or patched(x):
            raise TypeError(
                f"x is or holds {type(x).__name__}; wanted a cell with its weights, Layers, a Projection "
                "or a mixing, of a class of this package (an object of your own goes with pickle)"
            )
        return {"object": type(x).__name__, **write(x, at)}

    def _put(self, key: str, x: Array) -> None:
        self.arrays[key] = np.ascontiguousarray(to_host(x)).reshape(x.shape)  # which makes (1,) of ()

    def _layers(self, layers: Layers, at: str) -> dict[str, Any]:
        directions = [
            [self.record(cell, f"{at}directions.{i}.{j}.") for j, cell in enumerate(layer)]
            for i, layer in enumerate(layers.directions)
        ]
        return {"directions": directions, "batch_first": layers.batch_first}

    def _cell(self, cell: Any, at: str) -> dict[str, Any]:
        for name, x in cell.parameters.items():
            self._put(f"{at}parameters.{name}", x)
        if isinstance(cell, ReadCell):
            self._put(f"{at}readout", cell.readout)
        projection = cell.projection
        return {
            "cell": definition(cell.cell),
            "mixings": {name: self._mixing(mixing, f"{at}mixings.{name}.") for name, mixing in cell.mixings.items()},
            "parameters": list(cell.parameters),
            "projection": None if projection is None else self.record(projection, f"{at}projection."),
            "hidden_size": cell.hidden_size,
        }

    def _projection(self, projection: Projection, at: str) -> dict[str, Any]:
        for name in projection.weights:
            self._put(f"{at}weights.{name}", projection.weights[name])
            self._put(f"{at}biases.{name}", projection.biases[name])
        return {"drives": list(projection.weights)}

    def _mixing(self, mixing: Mixing, at: str) -> dict[str, Any]:
        if type(mixing) is Masked and not patched(mixing):
            self._put(f"{at}mask", mixing.mask)
            within = changed(mixing.within, weight=mixing.weight)  # map replaces the weight of the mask alone
            return {"kind": "masked", "within": self._mixing(within, f"{at}within.")}
        form = _FORMS.get(mixing.name)
        if form is None or type(mixing) is not form.kind or mixing.moves or patched(mixing):
            raise TypeError(
                f"{at.rstrip('.') or 'the mixing'} is {type(mixing).__name__}; files hold mixings of the classes "
                f"of this package: {', '.join(_FORMS)}, masked"
            )
        for name in form.arrays:
            self._put(f"{at}{name}", getattr(mixing, name))
        return {"kind": mixing.name, **{name: getattr(mixing, name) for name in form.settings}}


def definition(cell: Cell) -> dict[str, Any]:
    """Return the record of a definition: the name of a built-in one, and of others where their function lies.

    Raises
    ------
    TypeError
        For a subclass.
    """
    if type(cell) is not Cell:
        raise TypeError(f"{cell.name} is a {type(cell).__name__}; wanted a Cell, no subclass")
    if (plain := held_by(cell)) is not None:
        return {"holding": definition(plain)}
    components = cell.components if cell.ragged else cell.state
    record = {"name": cell.name, "state": components, "output": cell.output}
    if _built_in(cell.name, cell.state, cell.output, cell.function) is not None:
        return record
    function: Any = cell.function
    named = function if hasattr(function, "__qualname__") else type(function)
    own = {"function": f"{named.__module__}:{named.__qualname__}", "cite": cell.cite, "axes": cell.axes or None}
    pairs = cell.structure  # which are no keys in JSON
    return {**record, **own, "structure": {"pairs": list(pairs.items())} if isinstance(pairs, Mapping) else pairs}


def _built_in(name: str, state: Any, output: str, function: Any = None) -> Cell | None:
    """Return the built-in cell that a name, components and a function, if it is known, are of."""
    cell = cells.REGISTRY.get(name)
    if cell is None or (cell.state, cell.output) != (state, output) or function not in (None, cell.function):
        return None
    return cell


@dataclass
class Reader:
    """Makes the object of a record and its arrays.

    Attributes
    ----------
    arrays : dict of array
    function : callable, optional
        That of a cell which is not built in.
    used : set of str
        Keys of arrays that objects were made of.
    called : bool
        Whether a cell was made of the function.
    """

    arrays: dict[str, Array]
    function: Callable[..., Any] | None = None
    used: set[str] = field(default_factory=set)
    called: bool = False

    def object(self, record: Any, at: str = "") -> Any:
        """Return the object of a record.

        Raises
        ------
        ValueError
            For what is missing in it, or unknown, and for arrays that are missing.
        TypeError, ValueError
            As what makes the objects does, for what does not fit.
        """
        kinds: dict[str, Callable[[Any, str], Any]] = {
            "Mixing": self._mixing, "Projection": self._projection, "Layers": self._layers,
            **dict.fromkeys(("WeightedCell", "RaggedCell", "ReadCell"), self._cell),
        }  # fmt: skip
        kind = _entry(record, "object", str)
        if kind not in kinds:
            raise ValueError(f"object is {kind!r}; wanted one of {', '.join(kinds)}")
        return kinds[kind](record, at)

    def _take(self, key: str) -> Array:
        if key not in self.arrays:
            raise ValueError(f"array {key} is missing")
        self.used.add(key)
        return self.arrays[key]

    def _layers(self, record: Any, at: str) -> Layers:
        directions = [
            [self._cell(cell, f"{at}directions.{i}.{j}.") for j, cell in enumerate(layer)]
            for i, layer in enumerate(_entry(record, "directions", tuple))
        ]
        return Layers(directions, batch_first=_entry(record, "batch_first", bool))

    def _cell(self, record: Any, at: str) -> Any:
        plain, projection = self.definition(_entry(record, "cell", dict)), _entry(record, "projection", dict | None)
        mixed = _entry(record, "mixings", dict)
        cell = plain.with_weights(
            mixings={name: self._mixing(of, f"{at}mixings.{name}.") for name, of in mixed.items()},
            parameters={n: self._take(f"{at}parameters.{n}") for n in _entry(record, "parameters", tuple)},
            projection=None if projection is None else self._projection(projection, f"{at}projection."),
            hidden_size=_entry(record, "hidden_size", int | dict),
        )
        kind = _entry(record, "object", str)
        if kind == "ReadCell":
            readout = self._take(f"{at}readout")
            if (readout.shape[1:], readout.dtype) != ((cell.hidden_size,), cell.dtype):
                raise ValueError(
                    f"readout is {readout.shape} {readout.dtype}; wanted (p, {cell.hidden_size}), {cell.dtype}"
                )
            return ReadCell.of(cell, readout)
        if type(cell).__name__ != kind:
            raise ValueError(f"object is {kind}, and its cell makes a {type(cell).__name__}")
        return cell

    def _projection(self, record: Any, at: str) -> Projection:
        drives = _entry(record, "drives", tuple)
        weights, biases = ({n: self._take(f"{at}{of}.{n}") for n in drives} for of in ("weights", "biases"))
        return Projection(weights, biases)

    def _mixing(self, record: Any, at: str) -> Mixing:
        kind = _entry(record, "kind", str)
        if kind == "masked":
            return Masked(self._mixing(_entry(record, "within", dict), f"{at}within."), self._take(f"{at}mask"))
        if kind not in _FORMS:
            raise ValueError(f"kind of a mixing is {kind!r}; wanted one of {', '.join(_FORMS)}, masked")
        form = _FORMS[kind]
        parts = {name: self._take(f"{at}{name}") for name in form.arrays}
        parts |= {name: _entry(record, name, object) for name in form.settings}
        return (form.make or form.kind)(**parts)

    def definition(self, record: Any) -> Cell:
        """Return the definition of a record: a built-in one, or one of the function that was given."""
        if "holding" in record:
            return held(self.definition(_entry(record, "holding", dict)))
        name, state, output = (_entry(record, n, of) for n, of in (("name", str), ("state", object), ("output", str)))
        if "function" not in record:
            cell = _built_in(name, state, output)
            if cell is None:
                known = ", ".join(cells.REGISTRY)
                raise ValueError(f"the cell {name} with components {state} is not built in; wanted one of {known}")
            return cell
        if self.function is None:
            raise ValueError(
                f"the cell {name} is of the function {record['function']}, and no code is run because a file names it; "
                "pass function="
            )
        self.called, structure = True, _entry(record, "structure", object)
        if isinstance(structure, dict):
            structure = dict(_entry(structure, "pairs", tuple))
        axes, cite = _entry(record, "axes", dict | None), _entry(record, "cite", str)
        return Cell(self.function, state=state, output=output, name=name, cite=cite, axes=axes, structure=structure)


def _entry(record: Any, name: str, kind: Any) -> Any:
    """Return an entry of a record; ValueError where it is missing, or of another kind."""
    if not isinstance(record, dict) or name not in record:
        raise ValueError(f"{name} is missing")
    if not isinstance(record[name], kind) or (kind is not bool and isinstance(record[name], bool)):
        raise ValueError(f"{name} is {record[name]!r}, which is of another kind")
    return record[name]
