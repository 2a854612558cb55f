"""Readouts y[t] = g(h[t], u[t]): evaluated after a solve, windows of time one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recsolve.base.arrays import Array, is_discrete, namespace

NUMBERS = 2**20  # of the states, or of what is read out of them, that are looked at together


def read_out(evaluate: Callable[[slice], Any], like: Array, axes: int, *, whole: bool = False) -> Array:
    """Return what a readout gives for all t.

    Parameters
    ----------
    evaluate : callable
        Returns y at some times.
    like : array, shape (T, *batch, *event)
        The states.
    axes : int
        The number of axes (T, *batch), which y has too.
    whole : bool
        Whether y at one time may depend on the states at others, so that all are looked at together.

    Returns
    -------
    array, shape (T, *batch, ...)

    Raises
    ------
    TypeError, ValueError
        For results of another dtype than real states, or without these axes; the message names ``readout``.
    """
    length = len(like)
    steps = length if whole else max(NUMBERS * length // max(like.size, 1), 1)
    first = _checked(evaluate(slice(0, steps)), like[:steps], axes)
    if steps >= length:
        return first
    y = namespace(like).empty((length, *first.shape[1:]), dtype=first.dtype)
    y[:steps] = first
    for start in range(steps, length, steps):
        cut = slice(start, min(start + steps, length))
        y[cut] = _checked(evaluate(cut), like[cut], axes)
    return y  # type: ignore[no-any-return]


def _checked(y: Any, like: Array, axes: int) -> Array:
    if not hasattr(y, "dtype") or not hasattr(y, "shape"):
        raise TypeError(f"readout returned {type(y).__name__}; wanted an array (T, *batch, ...)")
    if y.dtype != like.dtype and not is_discrete(like.dtype):  # of tokens, their embeddings or probabilities
        raise TypeError(f"readout returned dtype {y.dtype}; wanted {like.dtype}, as the states")
    if tuple(y.shape[:axes]) != tuple(like.shape[:axes]):
        raise ValueError(f"readout returned shape {tuple(y.shape)}; wanted {tuple(like.shape[:axes])} and its own axes")
    return y  # type: ignore[no-any-return]
