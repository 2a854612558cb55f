"""Which components of a named state depend on which, read off a function that is evaluated once.

A :class:`Reach` carries directions of the state, which are positive where a value may depend on them, whatever the
numbers are: slopes that are 0 count, both branches of a choice do, and what an index moves may have come from anywhere.
So no pair of numbers that depend on each other is missed, and some that never do may be taken for such. Drives and
parameters, and what follows of all these by comparisons and the like, are a Reach without directions: their numbers are
others at other steps, so that no branch may be chosen by one of them, and no place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array, namespace, to_host
from recsolve.base.named_state import NamedState
from recsolve.jacobians.pattern import labelled
from recsolve.recurrence import function_rules as rules
from recsolve.recurrence.function_tangent import DIRECTIONS, Tangent
from recsolve.symbolic.dual import ONE, Dual, value_of

if TYPE_CHECKING:
    from recsolve.recurrence.function import FunctionRecurrence

_MOST = 512  # directions
_BY_INDEX = {np.take, np.take_along_axis, np.delete}
_REDUCTIONS = {np.max, np.amax, np.min, np.amin, np.prod}
_BITS = {np.invert, np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.left_shift, np.right_shift}


class Reach(Tangent):
    """A value, and which numbers of the state it may depend on.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.recurrence.reach import Reach
    >>> x = Reach.seeded(np.zeros((1, 3)), np.eye(3)[:, None])
    >>> (np.where(x > 0, 0 * x, x[..., ::-1]).directions[:, 0] > 0).astype(int).tolist()
    [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    """

    __slots__ = ()
    __hash__ = None

    @staticmethod
    def _scale(factor: Any, partial: Any) -> Any:
        return partial

    def _select(self, y: Any, choices: Sequence[tuple[Any, Any, Any]]) -> Dual:
        return self._combine(y, [(x, ONE) for x, _, _ in choices if isinstance(x, Dual)])

    def _ufunc(self, ufunc: Any, inputs: Sequence[Any]) -> Any:
        return self._still(super()._ufunc(ufunc, inputs))

    def _still(self, y: Any) -> Any:
        """Return truths and indices as what holds at this state, and may not at another one."""
        return y if isinstance(y, Dual) else self._made(y, {})

    def _other(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        if function in rules.PLAIN or function in _BITS:
            y = function(*map(value_of, args), **{k: value_of(x) for k, x in kwargs.items()})
            if getattr(y, "shape", None) is None:  # a tuple of indices, say
                raise self._unsupported(name)
            return self._still(y)
        if function in _BY_INDEX:
            return self._anywhere(function(*map(value_of, args), **{k: value_of(x) for k, x in kwargs.items()}), args)
        if function in _REDUCTIONS:
            found = super()._other(name, np.sum, args, kwargs)
            return _positive(function(*map(value_of, args), **kwargs), found.partials)
        return super()._other(name, function, args, kwargs)

    def _ruled(self, name: str, rule: Callable[..., Any], count: int, args: Any, kwargs: Any) -> Tangent:
        return self._anywhere(rule(*map(value_of, args), **kwargs)[0], args[:count])

    def __getitem__(self, index: Any) -> Tangent:
        parts = index if isinstance(index, tuple) else (index,)
        if all(x is None or x is Ellipsis or isinstance(x, (int, slice)) for x in parts):
            return super().__getitem__(index)
        return self._anywhere(self.value[tuple(map(value_of, parts))], (self,))

    def _linear(self, function: Callable[[Any], Any], first: Any) -> Tangent:
        listed = isinstance(first, (list, tuple))
        y = function([value_of(x) for x in first] if listed else value_of(first))
        found = super()._linear(function, [_apart(x) for x in first] if listed else _apart(first))
        return _positive(y, found.partials)

    def _multilinear(self, function: Any, args: Any, kwargs: Any) -> Tangent:
        """Follow one argument after the other, for terms of a sum may cancel at other numbers than those here."""
        y, apart = function(*map(value_of, args), **kwargs), [_apart(x) for x in args]
        terms: list[tuple[Dual, Any]] = []
        for place in range(len(args)):
            one = [x if i == place else value_of(x) for i, x in enumerate(apart)]
            terms.append((_positive(y, super()._multilinear(function, one, kwargs).partials), ONE))
        return self._combine(y, terms)  # type: ignore[return-value]

    def mixed(self, mixing: Any, weight: Any, x: Any) -> Any:
        sees = (mixing.dense() != 0).astype(self.dtype)
        partials = x.partials if isinstance(x, Tangent) else {}
        moved = {leaf: (sees @ d[..., None])[..., 0] for leaf, d in partials.items()}
        return _positive(mixing.matvec(value_of(x)), moved)

    def _anywhere(self, y: Any, args: Sequence[Any]) -> Tangent:
        """Return a value of which any entry may have come from any entry of some others."""
        found: Any = 0.0
        for x in args:
            if isinstance(x, Tangent) and x.partials:
                reached = (x.directions > 0).reshape(len(x.directions), -1).any(axis=1)
                found = found + reached.reshape(-1, *(1,) * np.ndim(y))
        return self._made(y, {DIRECTIONS: found * np.ones_like(y)} if np.ndim(found) else {})


def _apart(x: Any) -> Any:
    """Return an operand whose value is one everywhere, and whose directions do not cancel in a sum with signs."""
    if not isinstance(x, Tangent):  # a number may be a setting
        return np.ones_like(x) if getattr(x, "ndim", 0) else x
    ones, generator = np.ones_like(x.value), np.random.default_rng(0)
    numbers = generator.uniform(1.0, 2.0, x.shape)
    if x.dtype.kind == "c":
        numbers = numbers + 1j * generator.uniform(1.0, 2.0, x.shape)
    return type(x)(ones, {leaf: d * namespace(x.value).asarray(numbers) for leaf, d in x.partials.items()})


def _positive(y: Any, partials: Any) -> Reach:
    return Reach(y, {leaf: (d != 0).astype(float) for leaf, d in partials.items()})


def read_pairs(recurrence: FunctionRecurrence) -> Any:
    """Return the structure of a function of named states, as :meth:`Recurrence.from_function` takes it.

    Returns
    -------
    str or dict
        By pairs of components; "dense" where the function uses what is not followed, there are no numbers, or axes are
        too long; "zero" where nothing depends on the state before. Without steps it is that of any.
    """
    state = recurrence.state
    if state is None or 0 in recurrence.shape[1:]:
        return "dense"
    directions = _directions(state)
    first: Any = recurrence.window(0, 1) if recurrence.length else recurrence.with_a_step()
    if len(directions) > _MOST:
        return "dense"
    first = (first.sequences(np.zeros(1, dtype=int)) if first.batch else None) or first
    xp, lead = namespace(first.initial), (1, *first.batch)
    seeds = xp.asarray(np.stack(list(directions.values())), first.dtype)
    seeds = xp.broadcast_to(seeds.reshape(len(seeds), *(1,) * len(lead), -1), (len(seeds), *lead, state.size))
    try:
        with np.errstate(all="ignore"):
            seen, still = Reach.seeded(first.initial.reshape(*lead, -1), seeds), partial(Reach, partials={})
            parameters = {n: still(p) for n, p in first.parameters.items()}
            out = first._call(seen, slice(None), [still(u) for u in first.inputs], parameters)
    except Exception:  # f is the user's own code
        return "dense"
    if not isinstance(out, Tangent) or not out.partials:
        return "zero"
    reached = to_host(out.directions).reshape(len(seeds), -1) > 0
    return _pairs(dict(zip(directions, reached, strict=True)), state)


def _directions(state: NamedState) -> dict[tuple[str, Any, int], Array]:
    """Return directions (N,) by component, axis and index: all numbers with this index along this axis."""
    found: dict[tuple[str, Any, int], Array] = {}
    for name, shape in state.shapes.items():
        numbers = np.zeros(state.size)
        numbers[state.slices[name]] = 1
        found[name, None, 0] = numbers
        for axis, label in enumerate(labelled(state.axes[name])):
            for i in range(shape[axis]):
                at = np.zeros(shape)
                np.moveaxis(at, axis, 0)[i] = 1
                numbers = np.zeros(state.size)
                numbers[state.slices[name]] = at.ravel()
                found[name, label, i] = numbers
    return found


def _pairs(reached: dict[tuple[str, Any, int], Array], state: NamedState) -> Any:
    """Return the pairs of components of which some numbers see each other, with the axes along which none do."""
    pairs: dict[tuple[str, str], Any] = {}
    for a, place in state.slices.items():
        shape = state.shapes[a] or (1,)
        moved = {key: np.nonzero(row[place].reshape(shape)) for key, row in reached.items()}
        labels = labelled(state.axes[a])
        for b in state.axes:
            if not reached[b, None, 0][place].any():
                continue
            apart = dict.fromkeys((label for label in labelled(state.axes[b]) if label in labels), True)
            for (name, label, i), at in moved.items():
                if name == b and label in apart:
                    apart[label] &= bool((at[labels.index(label)] == i).all())
            names = dict.fromkeys(axis for axis, _ in apart)
            pairs[a, b] = tuple(n for n in names if all(apart[x] for x in apart if x[0] == n)) or "dense"
    whole = len(pairs) == len(state.axes) ** 2 and state.size > 1
    return "dense" if whole and all(how == "dense" for how in pairs.values()) else pairs
