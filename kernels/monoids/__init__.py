"""Monoids of state maps: what a scan composes along time."""

from recsolve.kernels.monoids.base import MONOIDS, Affine, Monoid, Riccati

__all__ = ["MONOIDS", "Affine", "Monoid", "Riccati"]
