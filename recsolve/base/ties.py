"""The derivative at a tie: one Clarke element for each operation that has a kink.

Where min(a, b) has a = b any convex combination of the two derivatives serves a semismooth Newton method, and so does
any slope in [-1, 1] where abs(x) has x = 0. Which one takes the fewest iterations depends on the problem, so it is a
setting of the recurrence. It is in force while the recurrence is differentiated, in its own thread only.
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
    """Return the derivative at a tie for every operation, from the argument ``ties`` of a user.

    Parameters
    ----------
    ties : None, float or mapping
        As in :meth:`recsolve.WeightedCell.recurrence`.

    Returns
    -------
    dict of float
        With the keys ``"minimum"``, ``"maximum"``, ``"absolute"``.

    Raises
    ------
    TypeError
        For what is no number or mapping.
    ValueError
        For unknown operations, and numbers out of range.

    Examples
    --------
    >>> from recsolve.base.ties import check_ties
    >>> check_ties({"minimum": 0.5})
    {'minimum': 0.5, 'maximum': 1.0, 'absolute': 0.0}
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
    """Differentiate with these derivatives at ties inside the ``with`` block, in this thread only.

    Examples
    --------
    >>> from recsolve.base.ties import at_tie, check_ties, ties_in_force
    >>> with ties_in_force(check_ties(0.5)):
    ...     at_tie("maximum")
    0.5
    """
    token = _in_force.set(ties)
    try:
        yield
    finally:
        _in_force.reset(token)


def at_tie(name: str) -> float:
    """Return the derivative at a tie of an operation that is in force; see :func:`ties_in_force`."""
    return _in_force.get()[name]
