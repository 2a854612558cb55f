"""The first iterate of a solve, from what the user guesses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recsolve.base.arguments import check_callable
from recsolve.base.arrays import Array, is_discrete, namespace
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.frozen_gates import frozen_gates
from recsolve.solution import Solution
from recsolve.solvers.active import Guess
from recsolve.solvers.sequential import loop

WORDS = "'step', 'zeros', 'coarse', 'frozen_gates'"


def first_iterate(guess: Any, recurrence: Recurrence) -> Guess:
    """Return the first iterate as a new native array, a function that returns it of any window, or None by default."""
    if guess is None or (isinstance(guess, str) and guess == "step"):
        return None
    if callable(guess):
        check_callable("guess", guess, "guess(recurrence)")
        return lambda window: _spread(guess(window), window, "guess(recurrence)")
    states = recurrence.empty()
    if isinstance(guess, str):
        if guess == "coarse":
            if recurrence.graph is not None:
                raise ValueError("guess is 'coarse', which takes every m-th step of time; a graph has none")
            return _coarse_guess(recurrence)
        if guess == "frozen_gates":
            return _finite(frozen_gates(recurrence), recurrence)
        if guess != "zeros":
            raise ValueError(f"guess is {guess!r}; wanted {WORDS}, an array, a callable or a Solution")
        states[...] = 0
        return states
    if isinstance(guess, Solution):
        guess = guess.states
    if np.isscalar(guess):
        number = isinstance(guess, (int, float, np.number)) and not isinstance(guess, (bool, np.bool_))
        discrete = is_discrete(recurrence.dtype)
        if not (_fits(guess, recurrence.dtype) if discrete else number):
            kind = f"a number of {recurrence.dtype}" if discrete else "a number"
            raise TypeError(f"guess is {guess!r}; wanted {kind}, an array, {WORDS}, a callable or a Solution")
        states[...] = guess
        return states
    return _spread(guess, recurrence, "guess")


def _spread(given: Any, recurrence: Recurrence, name: str) -> Array:
    """Return an array of the user's, or arrays by component, as new native states."""
    states = recurrence.empty()
    if isinstance(given, Mapping):
        return recurrence.in_order(recurrence.by_name(given, name, recurrence.as_given(states).shape), name)
    native = recurrence.native(given, name)
    if recurrence.graph is not None:
        native = recurrence.in_order(native, name)
    states[...] = _broadcast(native, recurrence, name)
    return states


def _broadcast(native: Array, recurrence: Recurrence, name: str) -> Array:
    try:
        return np.broadcast_to(native, recurrence.shape)
    except ValueError:
        raise ValueError(f"{name} has shape {tuple(native.shape)}; wanted {recurrence.shape}") from None


def guess_of_steps(guess: Any, recurrence: Recurrence, steps: slice) -> Any:
    """Return the part of a user's guess that belongs to some steps; words, numbers and callables are of any steps."""
    if isinstance(guess, Solution):
        guess = guess.states
    if guess is None or isinstance(guess, str) or callable(guess) or np.isscalar(guess):
        return guess
    if isinstance(guess, Mapping):
        parts = recurrence.components_of(guess, "guess", recurrence.shape)
        return {n: recurrence.wrap(x[steps]) for n, x in parts.items()}
    return recurrence.wrap(_broadcast(recurrence.native(guess, "guess"), recurrence, "guess")[steps])


def _fits(number: Any, dtype: np.dtype[Any]) -> bool:
    """Return whether a Python or NumPy number is one of a discrete dtype."""
    if dtype.kind == "b" or isinstance(number, (bool, np.bool_)):
        return dtype.kind == "b" and isinstance(number, (bool, np.bool_))
    limits = np.iinfo(dtype)
    return isinstance(number, (int, np.integer)) and bool(limits.min <= number <= limits.max)


def _coarse_guess(recurrence: Recurrence) -> Array:
    """Return f from the states of the loop over every m-th step, each held until the next."""
    T = recurrence.length
    m = max(round(T**0.5), 1)
    every = recurrence._cut(slice(m - 1, T, m), recurrence.wrap(recurrence.initial))
    held = recurrence.empty()
    held[: m - 1] = recurrence.initial
    xp = namespace(held)
    held[m - 1 :] = xp.repeat(loop(every), m, axis=0)[: T - m + 1]
    # A guess that overflows in the coarse loop is not used.
    values = recurrence.evaluate(xp.where(xp.isfinite(held), held, recurrence.initial))
    return xp.array(values)  # type: ignore[no-any-return]


def _finite(states: Array, recurrence: Recurrence) -> Array:
    """Return a guess with f(h[0], u[t]) where a number of it is not finite."""
    xp = namespace(states)
    good = xp.isfinite(states)
    return states if good.all() else xp.where(good, states, recurrence.guess())
