"""Monoids of state maps, one file each: what a scan composes along time.

A class with a ``name`` in a file of this folder is found when the folder is imported, and one of it is in ``MONOIDS``.
"""

from __future__ import annotations

from recsolve.base.discovery import discover
from recsolve.kernels.monoids.affine import Affine
from recsolve.kernels.monoids.base import MONOIDS, Base, Monoid
from recsolve.kernels.monoids.riccati import Riccati

__all__ = ["MONOIDS", "Affine", "Monoid", "Riccati"]

_classes: dict[str, type[Base]] = {}
discover(_classes, __name__, __path__, Base, lambda monoid: (monoid.place, monoid.name))
MONOIDS.update({name: monoid() for name, monoid in _classes.items()})  # type: ignore[misc]
