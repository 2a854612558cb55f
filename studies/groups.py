"""Solvers by group: the order in which they are shown, what they are called, and what ``--solvers`` selects."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from recsolve.solvers import GROUPS, REGISTRY, Method
from recsolve.solvers.registry import label as label  # who groups solvers takes it from here

T = TypeVar("T")


def grouped(things: Iterable[T], group: Callable[[T], str]) -> dict[str, list[T]]:
    """Return things by their group, in the order of ``GROUPS``; groups that are not among them come last."""
    found: dict[str, list[T]] = {}
    for thing in things:
        found.setdefault(group(thing), []).append(thing)
    return {name: found[name] for name in (*GROUPS, *found) if name in found}


def solvers_by_group() -> dict[str, list[str]]:
    """Return the names of all solvers by group."""
    return grouped(REGISTRY, lambda name: REGISTRY[name].group)


def select(wanted: Iterable[str | Method], name: str = "--solvers") -> tuple[str | Method, ...]:
    """Return the solvers meant by names of solvers, names of groups, "all" and solver objects, each once.

    Errors call the argument ``name``. Spaces, hyphens and underscores in names are the same: "fixed-point" is the group
    "fixed point".

    Raises
    ------
    TypeError
        For what is neither a name nor a solver.
    ValueError
        For unknown names, or none; the message lists the known ones.
    """
    groups = solvers_by_group()
    meant = {"all": [*REGISTRY], **groups, **{name: [name] for name in REGISTRY}}
    known = {_plain(name): names for name, names in meant.items()}
    items = [item for item in wanted if item != ""]
    for item in items:
        if not isinstance(item, (str, Method)):
            raise TypeError(f"{name} has {type(item).__name__}; wanted names of solvers or groups, or solver objects")
    unknown = [item for item in items if isinstance(item, str) and _plain(item) not in known]
    if unknown or not items:
        raise ValueError(
            f"{name} {f'has unknown {unknown}' if unknown else 'is empty'}; wanted some of {', '.join(REGISTRY)}, "
            f"of the groups {', '.join(groups)}, or all"
        )
    chosen = [solver for item in items for solver in (known[_plain(item)] if isinstance(item, str) else [item])]
    return tuple({label(solver): solver for solver in chosen}.values())


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("-", " ").replace("_", " ").split())
