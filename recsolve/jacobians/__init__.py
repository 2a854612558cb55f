"""Structured Jacobians: the structure is the type.

The structures are in :mod:`recsolve.jacobians.structures`, each contained in the next one. Cells whose mixings couple
units have a :class:`recsolve.jacobians.factored.Factored`.
"""

from recsolve.jacobians.structures import Block, Diagonal, Identity, Jacobian, LaneDense, Scalar, Zero

__all__ = ["Block", "Diagonal", "Identity", "Jacobian", "LaneDense", "Scalar", "Zero"]
