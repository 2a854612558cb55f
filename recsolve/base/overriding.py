"""Statements that a class makes about itself, and methods that it must not inherit from a class that it has changed.

Fast paths know the methods of certain classes by heart. A subclass may override any of them, so such knowledge is never
inherited: a fast path reads what a class states in its own body, and a method that a base class derives from another
one is derived anew where the other one is overridden.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any, NoReturn, TypeVar

Some = TypeVar("Some")


def stated(x: object, name: str) -> Any:
    """Return what the class of ``x`` states in its own body, None otherwise: subclasses do not inherit it.

    Nor does it hold of an object whose methods were replaced.

    Examples
    --------
    >>> from recsolve.mixings import Dense
    >>> class Masked(Dense):
    ...     pass
    >>> stated(Dense([[1.0]]), "form"), stated(Masked([[1.0]]), "form")
    ('dense', None)
    """
    return None if patched(x) else stated_by(type(x), name)


def patched(x: Any) -> bool:
    """Return whether an object has attributes of its own in the place of methods of its class.

    Examples
    --------
    >>> from recsolve.mixings import Dense
    >>> W = Dense([[1.0]])
    >>> W.matvec = lambda x: 2 * x
    >>> patched(W), stated(W, "form")
    (True, None)
    """
    return not _methods(type(x)).isdisjoint(getattr(x, "__dict__", ()))  # type: ignore[arg-type]  # a class is hashable


@lru_cache(maxsize=1024)
def _methods(kind: type) -> frozenset[str]:
    return frozenset(n for n in dir(kind) if not n.startswith("__") and callable(getattr(kind, n, None)))


def stated_by(kind: type, name: str) -> Any:
    """Return what a class states in its own body, None otherwise, as :func:`stated` does of its objects."""
    return vars(kind).get(name)


def changed(x: Some, **attributes: Any) -> Some:
    """Return another object of the class of ``x`` with all its attributes, a subclass's included, except for these.

    What a cached property of ``x`` has found is not taken over: it may depend on what has changed.
    """
    made = object.__new__(type(x))
    kept = {n: value for n, value in vars(x).items() if not isinstance(getattr(type(x), n, None), cached_property)}
    vars(made).update(kept, **attributes)
    return made


def stale(cls: type, name: str, method: str) -> bool:
    """Return whether ``cls`` inherits ``name`` from a class whose ``method`` a subclass between has overridden."""
    owner = next((place for place, c in enumerate(cls.__mro__) if name in vars(c)), -1)
    known = [vars(c)[method] for c in cls.__mro__[: owner + 1] if method in vars(c)]
    return sum(not getattr(x, "__isabstractmethod__", False) for x in known) > 1


def refuse_stale(cls: type, name: str, method: str) -> None:
    """Let ``name`` raise TypeError in ``cls`` if it is inherited and fits another ``method``: nothing derives it."""
    if stale(cls, name, method):

        def unknown(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
            raise TypeError(f"{type(self).__name__} overrides {method} and no {name}, so its gradient is not known")

        setattr(cls, name, unknown)


def derive(cls: type, base: type, method: str, names: Iterable[str]) -> None:
    """Give ``cls`` the methods that ``base`` derives from ``method``, if those it inherits fit another ``method``."""
    for name in names:
        if stale(cls, name, method):
            setattr(cls, name, vars(base)[name])
