"""Checks of settings: the message names the setting, its value and what was wanted."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np


def whole_number(name: str, value: Any, least: int, *, optional: bool = False) -> None:
    """Refuse what is not an integer of at least so much, nor None where the setting is optional.

    Raises
    ------
    ValueError
    """
    if optional and value is None:
        return
    # A bool is an int to Python, and hardly ever meant as one.
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} is {value!r}; wanted an integer >= {least}{', or None' * optional}")


def number(
    name: str, value: Any, low: float, high: float = inf, *, closed: bool = False, optional: bool = False
) -> None:
    """Refuse what is not a finite number between two others (closed: or one of them), nor None where that is optional.

    Raises
    ------
    ValueError
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
