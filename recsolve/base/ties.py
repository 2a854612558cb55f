"""The derivative at a tie: one Clarke element for each operation that has a kink.

Where min(a, b) has a = b any convex combination of the two derivatives serves a semismooth Newton method, and so does
any slope in [-1, 1] where abs(x) has x = 0. Which one takes the fewest iterations depends on the problem, so it is a
setting of the recurrence. It is in force while that is differentiated, in its own thread only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Any

# Passing all to the operand that depends on the state is a robust choice, though none always wins.
DEFAULT: Mapping[str, float] = {"minimum": 1.0, "maximum": 1.0, "absolute": 0.0}
_LOWEST: Mapping[str, float] = {"minimum": 0.0, "maximum": 0.0, "absolute": -1.0}

_in_force: ContextVar[Mapping[str, float]] = ContextVar("ties", default=DEFAULT)


def check_ties(ties: Any) -> dict[str, float]:
    """Return the number of every operation, from the argument ``ties`` of a user.

    Raises
    ------
    TypeError, ValueError
        For what is no number or mapping, unknown operations, and numbers out of range.
    """
    if ties is None:
        return dict(DEFAULT)
    if not isinstance(ties, Mapping):
        return dict.fromkeys(DEFAULT, _checked("ties", ties, 0.0))
    unknown = [name for name in ties if name not in DEFAULT]
    if unknown:
        raise ValueError(f"ties has the operations {unknown}; wanted some of {tuple(DEFAULT)}")
    return {name: _checked(f"ties[{name!r}]", ties.get(name, DEFAULT[name]), _LOWEST[name]) for name in DEFAULT}


def _checked(name: str, number: Any, lowest: float) -> float:
    if isinstance(number, bool) or not isinstance(number, Real):
        wanted = "a number" if "[" in name else f"None, a number, or a mapping from some of {tuple(DEFAULT)} to numbers"
        raise TypeError(f"{name} is {number!r}; wanted {wanted}")
    if not lowest <= float(number) <= 1:
        raise ValueError(f"{name} is {number}; wanted a number in [{lowest:g}, 1]")
    return float(number)


@contextmanager
def ties_in_force(ties: Mapping[str, float]) -> Iterator[None]:
    """Differentiate with these numbers inside the ``with`` block."""
    token = _in_force.set(ties)
    try:
        yield
    finally:
        _in_force.reset(token)


def at_tie(name: str) -> float:
    """Return the number of an operation that is in force."""
    return _in_force.get()[name]
