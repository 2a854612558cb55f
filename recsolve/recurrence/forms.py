"""Structures that a name alone does not declare: where their entries are, and which directions reveal them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from recsolve.base.arrays import Array, namespace, to_native
from recsolve.base.layout import Layout
from recsolve.jacobians import Banded, Jacobian, LowRank, Pairs, PermutationDiagonal
from recsolve.jacobians.pattern import Pattern


@dataclass(frozen=True)
class Form(ABC):
    """What is declared of such a structure, of states with one event axis.

    Attributes
    ----------
    units : int
        Width n of the state.
    """

    units: int
    returned: ClassVar[str]  # what the user's ``jacobian`` returns, if differentiation cannot

    @property
    @abstractmethod
    def terms(self) -> int:
        """How many terms the sums of a row have."""

    @abstractmethod
    def seeds(self) -> Array | None:
        """Return directions (m, n) along which the derivatives reveal all entries; None where no few do."""

    def gather(self, directions: Array, layout: Layout) -> Jacobian:
        """Read the Jacobian off the derivatives (m, T, *batch, n) along the seeds; asked for where there are some."""
        raise NotImplementedError(f"{type(self).__name__} has no seeds")

    def declared(self, given: Any, layout: Layout, leading: tuple[int, ...], like: Array) -> Jacobian:
        """Return the Jacobian that the user's function returned; asked for where there may be such a function."""
        raise NotImplementedError(f"{type(self).__name__} takes no jacobian")


@dataclass(frozen=True)
class OneEntry(Form):
    """J e_j = d_j e_p(j), with p the same at all steps, or given by the user's ``jacobian``."""

    permutation: tuple[int, ...] | None
    returned = "(p, d), J e_j = d_j e_p(j)"

    @property
    def terms(self) -> int:
        most = None if self.permutation is None else np.bincount(self.permutation, minlength=1).max()
        return self.units if most is None else int(most)

    def _colours(self) -> Array:
        """Return how many columns before each have their entry in the same row: one direction cannot hold both."""
        p = self.permutation or ()
        return np.array([p[:j].count(place) for j, place in enumerate(p)], dtype=int)

    def seeds(self) -> Array | None:
        return None if self.permutation is None else _by_colour(self._colours())

    def gather(self, directions: Array, layout: Layout) -> Jacobian:
        p = np.array(self.permutation)
        rows = [directions[colour, ..., place] for colour, place in zip(self._colours(), p, strict=True)]
        return PermutationDiagonal(p, namespace(directions).stack(rows, axis=-1), layout)

    def declared(self, given: Any, layout: Layout, leading: tuple[int, ...], like: Array) -> Jacobian:
        if self.permutation is None:
            places, entries = _several(given, self.returned, 2)
            return PermutationDiagonal(places, _full(entries, (*leading, self.units), like), layout)
        return PermutationDiagonal(np.array(self.permutation), _full(given, (*leading, self.units), like), layout)


@dataclass(frozen=True)
class Thin(Form):
    """J = diag(a) + U V^T; differentiation in few directions cannot tell the factors."""

    returned = "(a, U, V), J = diag(a) + U V^T"

    @property
    def terms(self) -> int:
        return self.units

    def seeds(self) -> Array | None:
        return None

    def declared(self, given: Any, layout: Layout, leading: tuple[int, ...], like: Array) -> Jacobian:
        a, U, V = _several(given, self.returned, 3)
        rank = U.shape[-1] if np.ndim(U) else 1
        U, V = (_full(x, (*leading, self.units, rank), like) for x in (U, V))
        return LowRank(_full(a, (*leading, self.units), like), U, V, layout)


@dataclass(frozen=True)
class Bands(Form):
    """J has entries on a few diagonals."""

    offsets: tuple[int, ...]
    returned = "the diagonals (T, *batch, m, n)"

    @property
    def terms(self) -> int:
        return len(self.offsets)

    def _colours(self) -> Array:
        """Return j mod c, with the least c for which columns that share a row differ: m for a band of m diagonals."""
        apart = {a - b for a in self.offsets for b in self.offsets if 0 < a - b < self.units}
        c = next(c for c in range(1, self.units + 1) if not any(d % c == 0 for d in apart))
        return np.arange(self.units) % c

    def seeds(self) -> Array | None:
        return _by_colour(self._colours())

    def gather(self, directions: Array, layout: Layout) -> Jacobian:
        xp, colours, n = namespace(directions), self._colours(), self.units
        data = xp.zeros((*directions.shape[1:-1], len(self.offsets), n), dtype=directions.dtype)
        for a, offset in enumerate(self.offsets):
            for colour in range(len(directions)):
                inside = (np.arange(n) >= offset) & (np.arange(n) < n + offset)
                columns = xp.asarray(np.flatnonzero((colours == colour) & inside))
                data[..., a, columns] = directions[colour][..., columns - offset]
        return Banded(data, self.offsets, layout)

    def declared(self, given: Any, layout: Layout, leading: tuple[int, ...], like: Array) -> Jacobian:
        return Banded(_full(given, (*leading, len(self.offsets), self.units), like), self.offsets, layout)


@dataclass(frozen=True)
class ByPairs(Form):
    """J by pairs of the components of a named state."""

    pattern: Pattern
    returned = "nothing: it is differentiated"

    @property
    def terms(self) -> int:
        return self.pattern.width

    def seeds(self) -> Array:
        return (np.arange(self.pattern.directions)[:, None] == self.pattern.colours).astype(float)  # type: ignore[no-any-return]

    def gather(self, directions: Array, layout: Layout) -> Jacobian:
        return Pairs(self.pattern.read(directions), self.pattern, layout, directions[0])


FORMS = ("permutation_diagonal", "low_rank", "banded")


def read_structure(structure: Any, units: int) -> tuple[str, Form | None]:
    """Return the name of a declared structure, and what is declared beside the name; TypeError and ValueError name it.

    Parameters
    ----------
    structure : str or pair
        A name, ("permutation_diagonal", p) or ("banded", offsets).
    units : int
        Size of the last axis of the state.
    """
    name, given = structure if isinstance(structure, tuple) and len(structure) == 2 else (structure, None)
    if not isinstance(name, str) or (name not in FORMS and given is not None):
        raise ValueError(
            f"structure is {structure!r}; wanted a name, ('permutation_diagonal', p) or ('banded', offsets)"
        )
    if name == "permutation_diagonal":
        if given is None:
            return name, OneEntry(units, None)
        # The types themselves check what is declared.
        return name, OneEntry(
            units, tuple(PermutationDiagonal(given, np.ones(units), Layout(units=units)).index.tolist())
        )
    if name == "low_rank":
        if given is not None:
            raise ValueError(f"structure is {structure!r}; wanted 'low_rank': its factors come from jacobian=")
        return name, Thin(units)
    if name == "banded":
        if given is None:
            raise ValueError("structure is 'banded'; wanted ('banded', offsets), columns minus rows of its diagonals")
        return name, Bands(units, Banded(np.ones((np.size(given), units)), given, Layout(units=units)).offsets)
    return name, None


def _by_colour(colours: Array) -> Array:
    """Return one direction for each colour: 1 in the columns that have it."""
    return (colours == np.arange(colours.max(initial=0) + 1)[:, None]).astype(float)  # type: ignore[no-any-return]


def _several(given: Any, form: str, count: int) -> tuple[Any, ...]:
    if not isinstance(given, (tuple, list)) or len(given) != count:
        raise ValueError(f"jacobian returned {type(given).__name__}; wanted a tuple {form}")
    return tuple(given)


def _full(x: Any, shape: tuple[int, ...], like: Array) -> Array:
    """Return entries that the user gave, broadcast to a shape."""
    data = to_native(x, "jacobian")
    if data.dtype != like.dtype:
        raise TypeError(f"jacobian returned dtype {data.dtype}; wanted {like.dtype}")
    try:
        return namespace(like).broadcast_to(data, shape)  # type: ignore[no-any-return]
    except ValueError:
        raise ValueError(f"jacobian returned shape {tuple(data.shape)}; wanted {shape}") from None
