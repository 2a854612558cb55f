"""Checks of settings: the message names the setting, its value and what was wanted."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np


def whole_number(name: str, value: Any, least: int, *, optional: bool = False) -> None:
    """Check that a setting is an integer, not a bool, and at least ``least``.

    Parameters
    ----------
    name : str
        Of the setting, for the message.
    value : object
        Its value.
    least : int
        The smallest value allowed.
    optional : bool
        Whether None is allowed too.

    Raises
    ------
    ValueError
        For any other value.

    Examples
    --------
    >>> whole_number("window", 256, 1)
    >>> whole_number("window", 2.5, 1)
    Traceback (most recent call last):
    ...
    ValueError: window is 2.5; wanted an integer >= 1
    """
    if optional and value is None:
        return
    # A bool is an int in Python, but hardly ever meant as one.
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} is {value!r}; wanted an integer >= {least}{', or None' * optional}")


def one_of(name: str, value: Any, words: Sequence[str], *, or_callable: bool = False) -> None:
    """Check that a setting is one of some words, or with ``or_callable`` a function.

    Raises
    ------
    ValueError
        For any other value.

    Examples
    --------
    >>> one_of("rule", "gain_ratio", ("backtracking", "gain_ratio"))
    """
    if value not in words and not (or_callable and callable(value)):
        raise ValueError(f"{name} is {value!r}; wanted one of {words}{', or a callable' * or_callable}")


def number(
    name: str, value: Any, low: float, high: float = inf, *, closed: bool = False, optional: bool = False
) -> None:
    """Check that a setting is a finite real number, not a bool, between ``low`` and ``high``.

    Parameters
    ----------
    name : str
        Of the setting, for the message.
    value : object
        Its value.
    low, high : float
        The bounds.
    closed : bool
        Whether the bounds themselves are allowed.
    optional : bool
        Whether None is allowed too.

    Raises
    ------
    ValueError
        For any other value.

    Examples
    --------
    >>> number("omega", 0.5, 0, 2)
    >>> number("omega", 2, 0, 2)
    Traceback (most recent call last):
    ...
    ValueError: omega is 2; wanted a number between 0 and 2
    """
    if optional and value is None:
        return
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if real and (low < value < high or (closed and value in (low, high) and abs(value) < inf)):
        return
    if high == inf:
        wanted = f"a finite number {'>=' if closed else '>'} {low}"
    else:
        wanted = f"a number from {low} to {high}" if closed else f"a number between {low} and {high}"
    raise ValueError(f"{name} is {value!r}; wanted {wanted}{', or None' * optional}")
