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
    for part in _parts(method):
        if not _applies(part, recurrence):
            which = f"method is {method.name!r}" + (f", which runs {part.name!r}" if part is not method else "")
            raise TypeError(f"{which}; wanted {which_apply(recurrence)}")


def which_apply(recurrence: Recurrence) -> str:
    """Return the names of the methods that can solve a recurrence, and why no others can, as the end of a sentence."""
    why = recurrence.why or "the others follow one axis of time, which a graph does not have"
    return f"one of {', '.join(sorted(applicable(recurrence)))}, since {why}"


def applicable(recurrence: Recurrence) -> list[str]:
    """Return the names of the methods that can solve a recurrence, in the order of the registry.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.solvers.registry import applicable
    >>> rec = rs.Recurrence.from_function(lambda h, u: ~h, initial=np.ones(1, bool), length=9, structure="none")
    >>> applicable(rec)
    ['sequential', 'jacobi', 'gauss_seidel', 'parareal', 'windowed', 'auto']
    """
    return [name for name, known in REGISTRY.items() if all(_applies(part, recurrence) for part in _parts(known()))]


def _parts(method: Method) -> Iterator[Method]:
    """Yield a method, and the methods that it runs."""
    yield method
    for other in method.inside():
        yield from _parts(other)


def _applies(method: Method, recurrence: Recurrence) -> bool:
    known = method.name not in REGISTRY or recurrence.takes(method.name)
    return known and (recurrence.graph is None or method.graphs)


def label(solver: str | Method) -> str:
    """Return the name of a solver, with those settings of a solver object that are not the defaults."""
    if isinstance(solver, str):
        return solver
    settings = {f.name: getattr(solver, f.name) for f in fields(solver) if getattr(solver, f.name) != f.default}
    listed = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return f"{solver.name}({listed})" if listed else solver.name
