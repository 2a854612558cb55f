"""A recurrence with growing history: y = F(y, u), where a row of F depends on all rows before it.

F maps the whole trajectory to the whole trajectory, for all t at once, under a causal mask of its own. So there is no
step from one state to the next, and no Jacobian per step: I - dF/dy is strictly lower triangular and full. A window of
time sees the settled rows before it, through a cache where F has one; else F gets all rows up to the window's end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from recsolve.base.arguments import check_callable
from recsolve.base.arrays import (
    DISCRETE,
    FLOATS,
    Array,
    all_finite,
    freeze,
    from_native,
    is_discrete,
    kind_of,
    namespace,
    same_bits,
)
from recsolve.base.links import sever_all, to_linked
from recsolve.base.overriding import changed
from recsolve.base.status import LEAKS
from recsolve.jacobians import Jacobian, Zero
from recsolve.recurrence.causality import check_causal, first_that_differs
from recsolve.recurrence.engine import Engine
from recsolve.recurrence.function import FunctionRecurrence, _leaves

_SWEEPING = frozenset(("sequential", "jacobi", "windowed", "chain", "auto"))
_ACCELERATED = _SWEEPING | {"anderson", "triangular_anderson"}
_WHY = "F gives all rows from all rows before them, not a state from the one before (windowed goes block by block)"


class _OnPrefix(NamedTuple):
    """F of a window without a cache: of the settled rows and those of the window, cut off again."""

    F: Callable[[Any, Any], Any]
    rows: Array
    drive: Any

    def values(self, y: Any, u: Any) -> Any:
        return self.F(np.concatenate([self.rows, y]), self.drive)[len(self.rows) :]


class _Memory:
    """The last cache that was made, and of which rows, so that the next one extends it; not pickled."""

    def __init__(self) -> None:
        self.last: tuple[Array, Any] | None = None

    def __reduce__(self) -> Any:
        return _Memory, ()

    def cache_of(self, rows: Array, extend: Callable[[Any, int], Any]) -> Any:
        """Return the cache of some leading rows; ``extend(cache, start)`` adds those from ``start`` on."""
        known, cache = self.last or (rows[:0], None)
        if len(known) > len(rows) or not same_bits(known, rows[: len(known)]):
            known, cache = rows[:0], None
        if len(rows) > len(known):
            cache = extend(cache, len(known))
        self.last = rows.copy(), cache
        return cache


class HistoryRecurrence(FunctionRecurrence):
    """The recurrence of an F of whole trajectories; :meth:`recsolve.Recurrence.from_history` makes it.

    A window of it, from time ``start`` on, takes the states before it, y[:start], for its ``initial``.

    Attributes
    ----------
    F : callable
        F(y, u).
    offset : int
        How many settled rows there are before these.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> def F(y, u):
    ...     return u + 0.5 * (np.cumsum(y, axis=0) - y)
    >>> rec = rs.Recurrence.from_history(F, inputs=np.ones((6, 1)))
    >>> y = rs.solve(rec, method="sequential").states
    >>> y.ravel().tolist()
    [1.0, 1.5, 2.25, 3.375, 5.0625, 7.59375]
    >>> rec.window(4, 6, initial=y[:4]).evaluate(y[4:]).ravel().tolist()
    [5.0625, 7.59375]
    """

    stepwise = False

    def __init__(
        self,
        F: Callable[[Any, Any], Any],
        inputs: Any,
        initial: Any,
        structure: str,
        length: int | None,
        ties: Any = None,
    ):
        check_callable("F", F, "F(y, u)")
        if structure not in ("dense", "none"):
            raise ValueError(f"structure is {structure!r}; wanted dense or none")
        self.cached = callable(getattr(F, "window", None))
        if self.cached != callable(getattr(F, "extend", None)):
            raise TypeError("F has one of window(cache, y, u) and extend(cache, y, u); wanted both, or none of them")
        start = _blank(inputs, structure) if initial is None else initial
        super().__init__(
            f=F,
            inputs=inputs,
            initial=start,
            structure=structure,
            jacobian=None,
            reset=None,
            length=length,
            ties=ties,
        )
        self.description = getattr(F, "__name__", type(F).__name__)
        self._set_applies()
        self.F, self.offset, self._all, self._rows, self._memory = F, 0, self.inputs, self.initial[None][:0], _Memory()
        check_causal(self)

    def _set_applies(self) -> None:
        discrete, none = is_discrete(self.dtype), self.structure == "none"
        self.applies = _SWEEPING if discrete else _ACCELERATED if none else _ACCELERATED | {"newton_krylov"}
        self.why = _WHY

    def bind(self) -> HistoryEngine:
        return HistoryEngine(self)

    def between(self, start: int, stop: int, states: Array) -> HistoryRecurrence:
        return self.window(start, stop, self.wrap(states[:start].copy()) if start else None)

    def window(self, start: int, stop: int, initial: Any = None) -> HistoryRecurrence:
        if not 0 <= start <= stop <= self.length:
            raise ValueError(f"window is {start}..{stop}; wanted 0 <= start <= stop <= {self.length}")
        if start and initial is None:
            raise ValueError(
                f"window begins at step {start} of a history; wanted initial=y[:{start}], all states before"
            )
        rows = self._rows
        if initial is not None:
            settled = self.native(initial, "initial", (start, *self.shape[1:]))
            rows = namespace(rows).concatenate([rows, settled]) if len(rows) else settled
        part = self._placed(self.offset + start, self.offset + stop, rows)
        sever_all(part, self)
        return part

    def _placed(self, start: int, stop: int, rows: Array) -> HistoryRecurrence:
        """Return the recurrence of some steps of the whole, given all rows before them."""
        inputs = [freeze(u[start:stop]) for u in self._all]
        part = changed(self, inputs=inputs, length=stop - start, offset=start, _rows=rows, f=self.F)
        if len(rows) and self.cached:
            part.f = partial(self.F.window, self._memory.cache_of(rows, partial(self._extend, rows)))  # type: ignore[attr-defined]
        elif len(rows):
            part.f = _OnPrefix(self.F, freeze(rows), self._contained(0, stop)).values
        return part

    def _contained(self, start: int, stop: int) -> Any:
        return self.contain([freeze(u[start:stop]) for u in self._all])

    @property
    def drive_of_all(self) -> Any:
        """The inputs of all these rows, in the container that they came in."""
        return self.contain(list(self.inputs))

    @staticmethod
    def named_inputs(inputs: Any) -> dict[str, Any]:
        """Return arrays in the container of the inputs by the names that errors call them."""
        return _leaves(inputs)

    def _extend(self, rows: Array, cache: Any, start: int) -> Any:
        return self.F.extend(cache, freeze(rows[start:]), self._contained(start, len(rows)))  # type: ignore[attr-defined]

    def follow(self, states: Array, start: int) -> None:
        """Fill the rows of ``states`` from ``start`` on, one after the other."""
        states[start:] = self.initial  # F must not look at it
        if not self.cached:
            for t in range(start, self.length):
                states[t] = self.window(0, t + 1).whole(states[: t + 1])[t]
            return
        part = self.window(start, self.length, self.wrap(states[:start])) if start else self
        cache = part.f.args[0] if isinstance(part.f, partial) else None
        for t in range(start, self.length):
            row, at = states[t : t + 1], self.offset + t
            inputs = [freeze(u[at : at + 1]) for u in self._all]
            row[...] = changed(self, f=partial(self.F.window, cache), inputs=inputs, length=1).whole(row)  # type: ignore[attr-defined]
            cache = self.F.extend(cache, freeze(row), self.contain(inputs))  # type: ignore[attr-defined]

    def whole(self, states: Array) -> Array:
        """Return F of all these rows, shape (T, *batch, *event)."""
        return self._call(states, slice(None))  # type: ignore[no-any-return]

    def apply(self, previous: Array) -> Array:
        """Return F where y[:-1] are ``previous[1:]``: F looks neither at y[T-1] nor at what was before y[0]."""
        return self.whole(namespace(previous).concatenate([previous[1:], previous[-1:]]))

    def step(self, state: Array, t: int) -> Array:
        raise TypeError(f"{self.description} has no steps: a row depends on all rows before it, not on one state")

    def differentiate(self, previous: Array) -> tuple[Array, Jacobian]:
        raise TypeError(
            f"{self.description} has no Jacobian per step, since a row depends on all rows before it: gradients and "
            "conditioning would need the whole derivative of F, of which only products forward in time are known"
        )

    def operator(self, states: Array) -> tuple[Callable[[Array], Array], Jacobian | None]:
        """Return the product with dF/dy, and no preconditioner.

        As of other recurrences the product takes d[t-1] in row t, so that it moves them back.
        """

        def product(v: Array) -> Array:
            d = namespace(v).zeros_like(v)
            d[:-1] = v[1:]
            try:
                with np.errstate(all="ignore"):
                    return self.push_state(states, d[None])[0]  # type: ignore[no-any-return]
            except TypeError as error:
                error.add_note("jacobi, anderson and windowed need F alone")
                raise

        return product, Zero(states, self.layout)

    def sampled(self, every: slice) -> HistoryRecurrence:
        return self  # no step can be left out

    def _cut(self, cut: slice, initial: Any) -> HistoryRecurrence:
        raise TypeError("steps of a history cannot be left out, as guess='coarse' does: a row depends on all before it")

    def _select(self, place: tuple[Array, ...], initial: Any) -> HistoryRecurrence | None:
        if self.offset:
            return None  # the rows before and their cache are of all sequences
        part: Any = super()._select(place, initial)
        if part is not None:
            part._all, part._rows, part._memory = part.inputs, part.initial[None][:0], _Memory()
            part.F, part.description = self.F, self.description
        return part  # type: ignore[no-any-return]

    def astype(self, dtype: Any) -> HistoryRecurrence:
        """Return the history with inputs and blank rows of another dtype; F may refuse it (TypeError)."""
        if self.offset:
            raise TypeError("a window of a history holds the rows before it in one dtype; convert the whole")
        start, length = self.wrap(self.initial.astype(dtype)), None if self.inputs else self.length
        made = HistoryRecurrence(self.F, self._inputs_as(dtype), start, self.structure, length, self.ties)
        sever_all(made, self)
        return made


class HistoryEngine(Engine):
    """Computes F of a history for all t at once."""

    mixes = LEAKS
    recurrence: HistoryRecurrence

    def evaluate(self, states: Array) -> Array:
        with np.errstate(all="ignore"):
            values = self.recurrence.whole(states)
            return values if all_finite(values) else self._shielded(states, values)

    def _shielded(self, states: Array, values: Array) -> Array:
        """Return F, with rows up to the first of y that is not finite as they are without it and what comes after.

        They do not depend on it, but an F that multiplies by a mask makes NaN of it there.
        """
        rec, xp = self.recurrence, namespace(states)
        bad = rec.over_event(~xp.isfinite(states).all(axis=tuple(range(1 + len(rec.batch), states.ndim))))
        count = xp.cumsum(bad, axis=0)
        if not bool(count.any()):
            return values
        clean = xp.where(count > 0, rec.initial, states)
        return xp.where(count - bad == 0, rec.whole(clean), values)  # type: ignore[no-any-return]

    def guess(self) -> Array:
        states = self.recurrence.empty()
        states[...] = self.recurrence.initial
        return namespace(states).array(self.evaluate(states))  # type: ignore[no-any-return]

    def _follow(self, states: Array, start: int) -> None:
        with np.errstate(all="ignore"):
            self.recurrence.follow(states, start)

    def check_repeats(self) -> None:
        """Do nothing: F was called several times when the recurrence was made."""

    def step_that_differs(self, states: Array, values: Callable[[], Array]) -> int | None:
        """Return the first row of F of the first half of the rows that is not that of F of all rows; else None."""
        rec = self.recurrence
        if 0 in rec.shape:
            return None
        stop = rec.length // 2 + 1
        with np.errstate(all="ignore"):
            return first_that_differs(rec, rec.window(0, stop).whole(states[:stop]), values()[:stop])


def _blank(inputs: Any, structure: str) -> Any:
    """Return zeros like a row of the first input that rows may be like, of the user's kind."""
    for name, x in _leaves(inputs).items():
        native = to_linked(x, name, (*FLOATS, *DISCRETE))
        if structure == "none" or not is_discrete(native.dtype):
            return from_native(namespace(native).zeros(native.shape[1:], native.dtype), kind_of(x))
    raise TypeError(
        "initial is None and there are no inputs of real numbers; wanted an array (*batch, *event) like a row"
    )
