"""Registries of classes that are found because their file is in a folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

Some = TypeVar("Some")


def discover(
    registry: dict[str, type[Some]], package: str, folders: Iterable[str], base: type[Some], order: Callable[[Any], Any]
) -> None:
    """Enter the classes that the modules of a package define and name.

    Parameters
    ----------
    registry : dict
        Of classes by name.
    package : str
        The import name of the package.
    folders : iterable of str
        Where its modules lie.
    base : type
        What the classes are derived from. Abstract ones, and those that only inherit a ``name``, are not entered.
    order : callable
        The key by which they are sorted.

    Raises
    ------
    ValueError
        For two classes of one name.
    """
    found = [cls for module in iter_modules(folders) for cls in _named(f"{package}.{module.name}", base)]
    for cls in sorted(found, key=order):
        name = vars(cls)["name"]
        if name in registry:
            other = registry[name].__module__
            raise ValueError(f"name is {name!r} in {cls.__module__} and in {other}; wanted one class of a name")
        registry[name] = cls


def _named(module: str, base: type[Some]) -> list[type[Some]]:
    """Return the classes that a module defines and names."""
    return [
        cls
        for cls in vars(import_module(module)).values()
        if isinstance(cls, type)
        and issubclass(cls, base)
        and cls.__module__ == module
        and "name" in vars(cls)
        and not inspect.isabstract(cls)
    ]
