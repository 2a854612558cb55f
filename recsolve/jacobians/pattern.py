"""Which components of a named state depend on which ones of the state before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arrays import Array, namespace
from recsolve.base.named_state import NamedState
from recsolve.base.overriding import changed

Label = tuple[str, int]  # an axis, and which of those of its name in one component


class Places(NamedTuple):
    """Which numbers of a flat state the entries (..., L, a, b) of a pair lead to and come from.

    Attributes
    ----------
    rows : array of int, shape (L, a)
    columns : array of int, shape (L, b)
    """

    rows: Array
    columns: Array


class Group(NamedTuple):
    """Components that depend on each other in a circle, or one alone, as lanes that do not couple.

    Attributes
    ----------
    names : tuple of str
    places : array of int, shape (L, w)
        The places of their numbers in the flat state, a row per lane.
    """

    names: tuple[str, ...]
    places: Array


class Pattern:
    """Which components of a named state depend on which ones of the state before, and along which axes.

    Parameters
    ----------
    named : NamedState
    pairs : mapping
        ``(result, operand)`` to ``"dense"`` (every number on every number), ``"diagonal"`` (entries couple where the
        axes that both have are equal), or a tuple of the names of some of these axes. Absent pairs are zero.

    Raises
    ------
    TypeError, ValueError
        For pairs of unknown components, other structures, or axes that are not in both; the message names the pair.

    Examples
    --------
    >>> from recsolve.base.named_state import NamedState
    >>> from recsolve.jacobians.pattern import Pattern
    >>> named = NamedState({"m": (), "C": ("k", "v")}, {"k": 2, "v": 3})
    >>> pattern = Pattern(named, {("m", "m"): "diagonal", ("C", "m"): "dense", ("C", "C"): ("k",)})
    >>> pattern.directions, [group.names for group in pattern.groups]
    (4, [('m',), ('C',)])
    """

    def __init__(self, named: NamedState, pairs: Mapping[Any, Any]):
        self.named = named
        self.pairs = {pair: _labels(named, pair, how) for pair, how in pairs.items()}

    @cached_property
    def places(self) -> dict[tuple[str, str], Places]:
        """Where the entries of every pair are."""
        return {
            (a, b): Places(_index(self.named, a, along), _index(self.named, b, along))
            for (a, b), along in self.pairs.items()
        }

    @cached_property
    def matrix(self) -> Array:
        """(N, N) of bool: which numbers depend on which."""
        found = np.zeros((self.named.size, self.named.size), dtype=bool)
        for rows, columns in self.places.values():
            found[rows[:, :, None], columns[:, None, :]] = True
        return found

    @cached_property
    def colours(self) -> Array:
        """(N,) of int: the direction of each number, such that none depends on two of one; -1 of what nothing sees.

        Greedy, as in Curtis, Powell and Reid, "On the estimation of sparse Jacobian matrices" (1974), over sets of
        numbers: those of one component that differ in axes along which nothing couples go together.
        """
        found = np.full(self.named.size, -1)
        reached = np.zeros((self.named.size, 1), dtype=bool)  # which numbers depend on a direction
        for name in self.named.axes:
            pairs = [pair for pair in self.pairs if pair[1] == name]
            common = [label for label in labelled(self.named.axes[name]) if all(label in self.pairs[p] for p in pairs)]
            for members in _index(self.named, name, tuple(common)).T if pairs else ():
                rows = np.concatenate([self._seeing(pair, members) for pair in pairs])
                if not rows.size:
                    continue
                free = ~reached[rows].any(axis=0)
                if not free.any():
                    reached = np.concatenate([reached, np.zeros_like(reached)], axis=1)
                    free = ~reached[rows].any(axis=0)
                found[members] = colour = int(free.argmax())
                reached[rows, colour] = True
        return found

    def _seeing(self, pair: tuple[str, str], members: Array) -> Array:
        """Return which numbers of the result of a pair depend on some of its operand."""
        rows, columns = self.places[pair]
        first, lane = self.named.slices[pair[1]].start, np.empty(columns.size, dtype=np.int64)
        lane[columns - first] = np.arange(len(columns))[:, None]
        return rows[lane[members - first]].ravel()  # type: ignore[no-any-return]

    @property
    def directions(self) -> int:
        """How many directions show all entries."""
        return int(self.colours.max(initial=-1)) + 1

    def read(self, moved: Array) -> dict[tuple[str, str], Array]:
        """Return the entries of all pairs from the derivatives (m, T, *batch, N) along the directions.

        Returns
        -------
        dict of array, shape (T, *batch, L, a, b)
        """
        xp, blocks = namespace(moved), {}
        for pair, (rows, columns) in self.places.items():
            colours = self.colours[columns]
            if rows.size and colours.size and (colours == colours[:1]).all():  # the same in all lanes
                blocks[pair] = xp.moveaxis(taken(taken_first(moved, colours[0]), rows), 0, -1)
            else:
                at = xp.asarray(rows[:, :, None]), xp.asarray(colours[:, None, :])
                blocks[pair] = xp.moveaxis(moved, 0, -1)[(..., *at)]
        return blocks

    @cached_property
    def width(self) -> int:
        """How many numbers of the state before one number depends on, at most."""
        counts = dict.fromkeys(self.named.axes, 0)
        for (a, _), places in self.places.items():
            counts[a] += places.columns.shape[1]
        return max(counts.values())

    @cached_property
    def groups(self) -> list[Group]:
        """Components that depend on each other, after those that they depend on."""
        names = list(self.named.axes)
        sees = {a: {b for b in names if a == b or (a, b) in self.pairs} for a in names}
        for via in names:
            for a in names:
                if via in sees[a]:
                    sees[a] |= sees[via]
        together = {a: tuple(b for b in names if b in sees[a] and a in sees[b]) for a in names}
        ordered = sorted(dict.fromkeys(together.values()), key=lambda group: len(sees[group[0]]))
        return [self._group(group) for group in ordered]

    def _group(self, names: tuple[str, ...]) -> Group:
        """Return components with the axes along which none of their pairs couple as lanes."""
        common = [labelled(self.named.axes[name]) for name in names]
        common += [list(along) for (a, b), along in self.pairs.items() if a in names and b in names]
        along = tuple(x for x in common[0] if all(x in other for other in common))
        return Group(names, np.concatenate([_index(self.named, name, along) for name in names], axis=1))

    @cached_property
    def transposed(self) -> Pattern:
        """The pattern of J^T."""
        made = changed(self, pairs={(b, a): along for (a, b), along in self.pairs.items()})
        vars(made)["transposed"] = self
        return made


def labelled(axes: tuple[str, ...]) -> list[Label]:
    """Return axes with numbers: those of one name in one component are first, second, ..."""
    seen: Counter[str] = Counter()
    labels = []
    for axis in axes:
        labels.append((axis, seen[axis]))
        seen[axis] += 1
    return labels


def _labels(named: NamedState, pair: Any, how: Any) -> tuple[Label, ...]:
    """Return the axes along which a pair does not couple."""
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(name in named.axes for name in pair):
        raise ValueError(f"structure has the pair {pair!r}; wanted pairs (result, operand) of {tuple(named.axes)}")
    first, second = (labelled(named.axes[name]) for name in pair)
    shared = tuple(label for label in first if label in second)
    if how == "dense":
        return ()
    if how == "diagonal":
        return shared
    if not isinstance(how, tuple):
        raise ValueError(f"structure[{pair!r}] is {how!r}; wanted 'dense', 'diagonal' or a tuple of names of axes")
    if unknown := [axis for axis in how if axis not in [x for x, _ in shared]]:
        raise ValueError(f"structure[{pair!r}] has {unknown}; wanted axes that both have, some of {shared}")
    return tuple(label for label in shared if label[0] in how)


def _index(named: NamedState, name: str, along: tuple[Label, ...]) -> Array:
    """Return the places of the numbers of a component, (L, a): a row for each entry of the axes ``along``."""
    labels, shape = labelled(named.axes[name]), named.shapes[name]
    place = named.slices[name]
    first = [labels.index(label) for label in along]
    rest = [axis for axis in range(len(labels)) if axis not in first]
    moved = np.arange(place.start, place.stop).reshape(shape).transpose(*first, *rest)
    lanes = int(np.prod([shape[axis] for axis in first]))
    return moved.reshape(lanes, int(np.prod([shape[axis] for axis in rest])))


def taken_first(x: Array, index: Array) -> Array:
    """Return x[index], a view where the index counts up."""
    if bool((np.diff(index) == 1).all()):
        return x[int(index[0]) : int(index[-1]) + 1]
    return x[namespace(x).asarray(index)]  # type: ignore[no-any-return]


def taken(x: Array, index: Array) -> Array:
    """Return x[..., index], a view where the index counts up."""
    flat, size = index.ravel(), index.size
    if size and flat[-1] - flat[0] == size - 1 and bool((np.diff(flat) == 1).all()):
        return x[..., int(flat[0]) : int(flat[0]) + size].reshape((*x.shape[:-1], *index.shape))
    return x[..., namespace(x).asarray(index)]
