"""Monoids of state maps, one file each: what a scan composes along time.

A class with a ``name`` in a file of this folder is found when the folder is imported, and one of it is in ``MONOIDS``.
"""

from __future__ import annotations

from collections.abc import Iterable

from recsolve.base.discovery import discover
from recsolve.kernels.monoids.affine import Affine
from recsolve.kernels.monoids.monoid import MONOIDS, Monoid
from recsolve.kernels.monoids.riccati import Riccati

__all__ = ["MONOIDS", "Affine", "Monoid", "Riccati"]


def found_in(package: str, folders: Iterable[str]) -> dict[str, Monoid]:
    """Return the monoids that the modules of a package define, in the order in which they are listed."""
    classes: dict[str, type[Monoid]] = {}
    discover(classes, package, folders, Monoid, lambda monoid: (monoid.place, monoid.name))  # type: ignore[type-abstract]
    return {name: monoid() for name, monoid in classes.items()}


MONOIDS.update(found_in(__name__, __path__))
