"""Structured Jacobians: the structure is the type.

:mod:`recsolve.jacobians.jacobian` says how the structures contain and become one another. Cells whose mixings couple
units have a :class:`recsolve.jacobians.factored.Factored`.
"""

from recsolve.jacobians.by_parent import ByParent
from recsolve.jacobians.diagonals import Diagonal, Identity, Scalar, Zero
from recsolve.jacobians.jacobian import Jacobian
from recsolve.jacobians.matrices import Block, LaneDense

__all__ = ["Block", "ByParent", "Diagonal", "Identity", "Jacobian", "LaneDense", "Scalar", "Zero"]
