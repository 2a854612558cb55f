"""The registry of solvers: every class with a name in a module of this folder, found when the folder is imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from recsolve.base import discovery
from recsolve.recurrence.base import Recurrence
from recsolve.solvers.method import GROUPS, Method

REGISTRY: dict[str, type[Method]] = {}


def discover(package: str, folders: Iterable[str]) -> None:
    """Enter the methods of a package, by group and place.

    Parameters
    ----------
    package : str
        The import name of the package.
    folders : iterable of str
        Where its modules lie.

    Raises
    ------
    ValueError
        For two classes of one name, or a group that is not one of ``GROUPS``.
    """
    discovery.discover(REGISTRY, package, folders, Method, _order)  # type: ignore[type-abstract]


def _order(method: type[Method]) -> tuple[int, float, str]:
    if method.group not in GROUPS:
        raise ValueError(f"group is {method.group!r} in {method.__module__}; wanted one of {GROUPS}")
    return GROUPS.index(method.group), method.place, method.name


def get(method: Any, settings: Mapping[str, Any] | None = None) -> Method:
    """Return a solver by name with its settings, or the solver object itself.

    Parameters
    ----------
    method : str or Method
    settings : mapping, optional
        Of the named solver; see its class.

    Returns
    -------
    Method

    Raises
    ------
    ValueError
        For an unknown name or setting; the message lists the known ones.
    TypeError
        When ``method`` is neither a name nor a solver.

    Examples
    --------
    >>> import recsolve as rs
    >>> rs.solvers.get("chord", {"refresh": 3})
    Chord(refresh=3)
    """
    settings = dict(settings or {})
    if isinstance(method, Method):
        if settings:
            raise ValueError(f"options has {sorted(settings)}, but method is a solver object; set them on the object")
        return method
    if isinstance(method, type) and issubclass(method, Method):
        raise TypeError(f"method is the class {method.__name__}; wanted a solver object: {method.__name__}()")
    if not isinstance(method, str):
        raise TypeError(f"method is {type(method).__name__}; wanted a name or a solver object")
    if method not in REGISTRY:
        raise ValueError(f"method is {method!r}; wanted one of {', '.join(REGISTRY)}")
    if settings:
        known = [f.name for f in fields(REGISTRY[method])]
        if unknown := sorted(set(settings) - set(known)):
            raise ValueError(f"options has unknown {unknown}; {method} takes {known or 'none of its own'}")
    return REGISTRY[method](**settings)


def check_applies(method: Method, recurrence: Recurrence) -> None:
    """Raise TypeError unless a method, and all that it runs, can solve a recurrence; a method of the user's own may.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.solvers.registry import check_applies
    >>> rec = rs.Recurrence.from_function(lambda h, u: ~h, initial=np.ones(1, bool), length=9, structure="none")
    >>> check_applies(rs.solvers.Jacobi(), rec)
    >>> try:
    ...     check_applies(rs.solvers.Windowed(solver="picard"), rec)
    ... except TypeError as error:
    ...     print(str(error).split(";")[0])
    method is 'windowed', which runs 'picard'
    """
    if recurrence.applies is None:
        return
    for name in _names(method):
        if name in REGISTRY and not recurrence.takes(name):
            which = f"method is {method.name!r}" + (f", which runs {name!r}" if name != method.name else "")
            raise TypeError(f"{which}; wanted one of {', '.join(sorted(recurrence.applies))}, since {recurrence.why}")


def _names(method: Method) -> Iterator[str]:
    yield method.name
    for other in method.inside():
        yield from _names(other)
