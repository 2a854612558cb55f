"""Is F(y, u) strictly causal? Seen by perturbation: rows from some time on change, those up to it must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recsolve.base.arrays import Array, is_discrete, namespace, same_bits, to_host
from recsolve.base.status import NOT_A_FUNCTION

if TYPE_CHECKING:
    from recsolve.recurrence.history import HistoryRecurrence


def first_that_differs(recurrence: HistoryRecurrence, found: Array, wanted: Array) -> int | None:
    """Return the first time at which two evaluations differ by more than rounding explains; else None.

    That is sqrt(eps) (s + max |F|), with s the size of states (``state_scale``) and max |F| that of a sequence at that
    time, in entries that are finite; of discrete states, anything.
    """
    xp, event = namespace(wanted), tuple(range(1 + len(recurrence.batch), wanted.ndim))
    if is_discrete(recurrence.dtype):
        wrong = found != wanted
    else:
        known = xp.isfinite(wanted)
        size = xp.where(known, abs(wanted), wanted.dtype.type(0)).max(axis=event, keepdims=True)
        allowed = float(np.finfo(recurrence.dtype).eps) ** 0.5 * (recurrence.state_scale + size)
        wrong = known & ~(abs(found - wanted) <= allowed)
    rows = np.flatnonzero(to_host(wrong).reshape(len(wrong), -1).any(axis=1))
    return int(rows[0]) if rows.size else None


def check_causal(recurrence: HistoryRecurrence, seed: int | np.random.Generator = 0) -> None:
    """Raise ValueError unless F is a function, strictly causal, and the same on a prefix and through its cache.

    Of discrete states F is only tried on rows that it has made itself, for it may know no others.
    """
    if 0 in recurrence.shape:
        return
    T, name, rng = recurrence.length, recurrence.description, np.random.default_rng(seed)
    y, other = _trajectories(recurrence, rng)
    with np.errstate(all="ignore"):
        values = recurrence.whole(y)
        if not same_bits(values, recurrence.whole(y)):
            raise ValueError(NOT_A_FUNCTION.format(name=name))
        for cut in sorted({0, int(rng.integers(T)), T - 1}):
            moved = namespace(y).concatenate([y[:cut], other[cut:]])
            t = first_that_differs(recurrence, recurrence.whole(moved)[: cut + 1], values[: cut + 1])
            if t is not None:
                raise ValueError(
                    f"{name} is not strictly causal: row {t} changed when y was changed from row {cut} on; row t may "
                    "depend on y[:t] and u[:t + 1] alone"
                )
        half = T // 2
        _check_prefix(recurrence, y, values, half + 1)
        if recurrence.cached and half:
            rest = recurrence.between(half, T, y).whole(y[half:])
            t = first_that_differs(recurrence, rest, values[half:])
            if t is not None:
                raise ValueError(
                    f"{name}.window gives another row {half + t} after {half} cached rows than F of all rows"
                )


def _check_prefix(recurrence: HistoryRecurrence, y: Array, values: Array, stop: int) -> None:
    try:
        found = recurrence.window(0, stop).whole(y[:stop])
    except Exception as error:
        error.add_note(f"{recurrence.description} was given the first {stop} of {len(y)} rows; it must take any number")
        raise
    t = first_that_differs(recurrence, found, values[:stop])
    if t is not None:
        raise ValueError(
            f"{recurrence.description} of the first {stop} rows of y and the inputs gives another row {t} than of all "
            f"{len(y)}: it looks ahead in its inputs, or depends on how many rows there are"
        )


def _trajectories(recurrence: HistoryRecurrence, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return two trajectories that F may meet."""
    made = recurrence.guess()
    xp, T = namespace(made), recurrence.length
    if is_discrete(recurrence.dtype):
        made = xp.concatenate([made, recurrence.whole(made)])
        y, other = (made[xp.asarray(rng.integers(2 * T, size=T))] for _ in range(2))
        blank = recurrence.over_event(xp.asarray(rng.random((T, *(1,) * len(recurrence.batch))) < 0.5))
        return y, xp.where(blank, recurrence.initial, other)
    made = xp.where(xp.isfinite(made), made, made.dtype.type(0))
    size = float(to_host(abs(made).max())) or 1.0

    def moved(x: Array) -> Array:
        return x + xp.asarray((size * rng.standard_normal(x.shape)).astype(x.dtype))  # type: ignore[no-any-return]

    y = moved(made)
    return y, moved(y)
