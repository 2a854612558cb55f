"""Structured Jacobians: the structure is the type.

The chain of structures is in :mod:`recsolve.jacobians.structures`; :class:`recsolve.jacobians.factored.Factored` is
what cells whose mixings couple units have.
"""

from recsolve.jacobians.structures import Block, Diagonal, Identity, Jacobian, LaneDense, Scalar, Zero

__all__ = ["Block", "Diagonal", "Identity", "Jacobian", "LaneDense", "Scalar", "Zero"]
