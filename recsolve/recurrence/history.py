"""A recurrence with growing history: y = F(y, u), where a row of F depends on all rows before it.

F maps the whole trajectory to the whole trajectory, for all t at once, under a causal mask of its own. So there is no
step from one state to the next, and no Jacobian per step: I - dF/dy is strictly lower triangular and full. A window of
time sees the settled rows before it, through a cache where F has one; else F gets all rows up to the window's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self

import numpy as np

from recsolve.base.arguments import check_callable
from recsolve.base.arrays import (
    DISCRETE,
    FLOATS,
    Array,
    UserArray,
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
from recsolve.recurrence.function import FunctionRecurrence
from recsolve.recurrence.function_arguments import leaves_of
from recsolve.recurrence.function_engine import attempt
from recsolve.symbolic.constants import state_dtype

# From so many rows on F is taken of some at a time: all together are T x T numbers wherever rows see rows, and products
# of small blocks stay below the size from which BLAS wakes threads.
_MANY, _BLOCK = 128, 16
_SWEEPING = frozenset(("sequential", "jacobi", "windowed", "chain", "auto"))
_ACCELERATED = _SWEEPING | {"anderson", "triangular_anderson"}
# What F may have besides, and what these take: then the parameters, where there are some.
_METHODS = {"window": "cache, y, u", "extend": "cache, y, u", "pull": "y, u, g"}
_WHY = "F gives all rows from all rows before them, not a state from the one before (windowed goes block by block)"


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


class HistoryRecurrence(FunctionRecurrence[UserArray]):
    """The recurrence of an F of whole trajectories; :meth:`recsolve.Recurrence.from_history` makes it.

    A window of it, from time ``start`` on, takes the states before it, y[:start] or all of their components, for its
    ``initial``.

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
        F: Callable[..., Any],
        *,
        inputs: Any = None,
        initial: Any = None,
        structure: str = "dense",
        state: Any = None,
        parameters: Any = None,
        **given: Any,
    ):
        last = "" if parameters is None else ", p"
        check_callable("F", F, f"F(y, u{last})")
        if structure not in ("dense", "none"):
            raise ValueError(f"structure is {structure!r}; wanted dense or none")
        self.cached = callable(getattr(F, "window", None))
        if self.cached != callable(getattr(F, "extend", None)):
            raise TypeError("F has one of window(cache, y, u) and extend(cache, y, u); wanted both, or none of them")
        for name, takes in _METHODS.items():
            if callable(getattr(F, name, None)):
                check_callable(f"F.{name}", getattr(F, name), f"F.{name}({takes}{last})")
        if initial is None and state is not None:
            raise TypeError("initial is None; wanted a dict of components, as state is")
        start = _blank(inputs, structure) if initial is None else initial
        super().__init__(
            F, inputs=inputs, initial=start, parameters=parameters, state=state, structure=structure, **given
        )
        self._set_applies()
        self._begin(F)
        check_causal(self)

    def _begin(self, F: Callable[..., Any]) -> None:
        """State that these are all rows, with none before them."""
        self.F, self.description = F, getattr(F, "__name__", type(F).__name__)
        self.offset, self._all, self._rows, self._memory = 0, self.inputs, self.initial[None][:0], _Memory()

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
            settled = self._settled_rows(initial, (start, *self.shape[1:]))
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
        return part

    def _settled_rows(self, initial: Any, shape: tuple[int, ...]) -> Array:
        """Return the rows before a window as the user gives them, as an array or by component."""
        if isinstance(initial, Mapping) and self.state is not None and initial.keys() != self.state.axes.keys():
            raise ValueError(f"initial has components {tuple(initial)}; wanted {tuple(self.state.axes)}")
        return self.by_name(initial, "initial", shape)

    def call(self, function: Callable[..., Any], state: Any, inputs: list[Any], parameters: Mapping[str, Any]) -> Any:
        """Return what F or a readout gives of these rows, where it sees those before them too."""
        start = len(self._rows)
        if not start or (self.cached and function is self.f):
            return super().call(function, state, inputs, parameters)
        state = self.shown(np.concatenate([self._rows, state]))
        inputs = [
            (self._all[i][: start + len(u)] if u is self.inputs[i] else np.concatenate([self._all[i][:start], u]))
            for i, u in enumerate(inputs)
        ]
        return _from(super().call(function, state, inputs, parameters), start)

    def _contained(self, start: int, stop: int) -> Any:
        return self.contain([freeze(u[start:stop]) for u in self._all])

    @property
    def drive_of_all(self) -> Any:
        """The inputs of all these rows, in the container that they came in."""
        return self.contain(list(self.inputs))

    def _extend(self, rows: Array, cache: Any, start: int) -> Any:
        return self._extended(cache, rows[start:], self._contained(start, len(rows)))

    def _extended(self, cache: Any, rows: Array, inputs: Any) -> Any:
        """Return the cache with some rows added."""
        return self.F.extend(cache, self.seen(freeze(rows)), inputs, *self.weights(self.parameters))  # type: ignore[attr-defined]

    def follow(self, states: Array, start: int) -> None:
        """Fill the rows of ``states`` from ``start`` on, one after the other."""
        states[start:] = self.initial  # F must not look at it
        if not self.cached:
            for t in range(start, self.length):
                states[t] = self.window(0, t + 1).whole(states[: t + 1])[t]
            return
        part = self.window(start, self.length, self.wrap(states[:start])) if start else self
        with state_dtype(self.dtype):
            for t, row in part._blocks(states[start:], 1):
                states[start + t] = row[0]

    def whole(self, states: Array) -> Array:
        """Return F of all these rows, shape (T, *batch, *event)."""
        return self._call(states, slice(None))  # type: ignore[no-any-return]

    @property
    def blocked(self) -> bool:
        """Whether F of all rows is taken block by block through its cache: then no row meets what comes after it."""
        return self.cached and type(self.initial) is np.ndarray and self.length > _MANY

    def values(self, states: Array) -> Array:
        """Return F of all these rows as a solve takes it, shape (T, *batch, *event)."""
        if not self.blocked:
            return self.whole(states)
        values = self.empty()
        with state_dtype(self.dtype):
            for start, found in self._blocks(states, _BLOCK):
                values[start : start + len(found)] = found
        return values

    def _blocks(self, states: Array, size: int) -> Iterator[tuple[int, Array]]:
        """Yield F of so many rows at a time, and where they begin; they may be set before the next are asked for."""
        F: Any = self.F
        cache, weights = None if self.f is F else self.f.args[0], self.weights(self.parameters)  # type: ignore[attr-defined]
        for start in range(0, self.length, size):
            rows, inputs = freeze(states[start : start + size]), [u[start : start + size] for u in self.inputs]
            found = None
            if type(rows) is np.ndarray and self.state is None:
                found = attempt(F.window, rows.shape, self.dtype, cache, rows, self.contain(inputs), *weights)
            if found is None:
                found = changed(self, f=partial(F.window, cache), inputs=inputs, length=len(rows)).whole(rows)
            yield start, found
            if start + size < self.length:
                cache = self._extended(cache, rows, self.contain(inputs))

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

    def _select(self, place: tuple[Array, ...], initial: Any) -> FunctionRecurrence | None:
        return None if self.offset else super()._select(place, initial)  # rows before and cache are of all sequences

    def _remade(
        self, inputs: Any, initial: Any, reset: Array | None, length: int | None, parameters: Any = None
    ) -> Self:
        part = super()._remade(inputs, initial, reset, length, parameters)
        part._begin(self.F)
        return part

    def astype(self, dtype: Any) -> Self:
        """Return the history with all its arrays in another dtype; F may refuse it (TypeError)."""
        if self.offset:
            raise TypeError("a window of a history holds the rows before it in one dtype; convert the whole")
        return super().astype(dtype)


class HistoryEngine(Engine):
    """Computes F of a history for all t at once."""

    mixes = LEAKS
    recurrence: HistoryRecurrence

    def evaluate(self, states: Array) -> Array:
        with np.errstate(all="ignore"):
            values = self.recurrence.values(states)
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
        return xp.where(count - bad == 0, rec.values(clean), values)  # type: ignore[no-any-return]

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
        """Return the first row of F of the first rows that is not that of F of all rows; else None.

        They are half of all; or so many that the last one has others of its block after it.
        """
        rec = self.recurrence
        if 0 in rec.shape:
            return None
        stop = _MANY + 1 if rec.blocked else rec.length // 2 + 1
        with np.errstate(all="ignore"):
            return first_that_differs(rec, rec.window(0, stop).whole(states[:stop]), values()[:stop])


def _from(out: Any, start: int) -> Any:
    """Return what a function of the user's gave, an array or components, without its first rows."""
    if isinstance(out, Mapping):
        return {name: x[start:] for name, x in out.items()}
    return tuple(x[start:] for x in out) if isinstance(out, (tuple, list)) else out[start:]


def _blank(inputs: Any, structure: str) -> Any:
    """Return zeros like a row of the first input that rows may be like, of the user's kind."""
    for name, x in leaves_of(inputs).items():
        native = to_linked(x, name, (*FLOATS, *DISCRETE))
        if structure == "none" or not is_discrete(native.dtype):
            return from_native(namespace(native).zeros(native.shape[1:], native.dtype), kind_of(x))
    raise TypeError(
        "initial is None and there are no inputs of real numbers; wanted an array (*batch, *event) like a row"
    )
