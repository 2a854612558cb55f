"""Checks of what users pass that several functions take: seeds and functions."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np

from recsolve.base.arrays import Array

MASKS = tuple(np.dtype(name) for name in ("bool", "uint8", "int8", "int16", "int32", "int64"))


def generator_of(rng: Any) -> np.random.Generator:
    """Return the generator of a seed; a Generator as it is.

    Raises
    ------
    TypeError, ValueError
        For what is no seed.

    Examples
    --------
    >>> from recsolve.base.arguments import generator_of
    >>> generator_of(0).integers(10)
    np.int64(8)
    """
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(f"rng is {rng!r}; wanted an integer >= 0, a Generator or None") from None


def as_mask(x: Array, name: str) -> Array:
    """Return a native array of bool, or of integers 0 and 1, as one of bool.

    Raises
    ------
    TypeError
        For another dtype.
    ValueError
        For integers other than 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from recsolve.base.arguments import as_mask
    >>> as_mask(np.array([1, 0, 1]), "reset")
    array([ True, False,  True])
    """
    if x.dtype not in MASKS:
        raise TypeError(f"{name} has dtype {x.dtype}; wanted bool, or integers 0 and 1")
    mask = x.astype(bool, copy=False)
    if x.dtype.kind != "b" and bool((mask != x).any()):
        raise ValueError(f"{name} has values from {x.min()} to {x.max()}; wanted bool, or integers 0 and 1")
    return mask


def check_callable(name: str, function: Any, form: str) -> None:
    """Raise unless an argument can be called as ``form`` shows, ``"f(h_prev, u_t)"`` say.

    Raises
    ------
    TypeError
        For what is not callable, or takes another number of arguments.

    Examples
    --------
    >>> from recsolve.base.arguments import check_callable
    >>> check_callable("f", lambda h: h, "f(h_prev, u_t)")
    Traceback (most recent call last):
    ...
    TypeError: f takes (h); wanted a callable f(h_prev, u_t)
    """
    if not callable(function):
        raise TypeError(f"{name} is {type(function).__name__}; wanted a callable {form}")
    if (taken := _parameters(function)) is not None:
        try:
            taken.bind(*form.split(","))
        except TypeError:
            raise TypeError(f"{name} takes {taken}; wanted a callable {form}") from None


def _parameters(function: Callable[..., Any]) -> Any:
    try:
        return signature(function)
    except (TypeError, ValueError):  # what is written in C need not say
        return None
