"""Structured Jacobians: the structure is the type.

:mod:`recsolve.jacobians.jacobian` says how the structures contain and become one another. Cells whose mixings couple
units have a :class:`recsolve.jacobians.factored.Factored`, functions whose structure is declared by pairs of components
a :class:`Pairs`.
"""

from recsolve.jacobians.by_parent import ByParent
from recsolve.jacobians.diagonals import Diagonal, Identity, Scalar, Zero
from recsolve.jacobians.jacobian import Jacobian
from recsolve.jacobians.matrices import Block, LaneDense
from recsolve.jacobians.pairs import Pairs

__all__ = ["Block", "ByParent", "Diagonal", "Identity", "Jacobian", "LaneDense", "Pairs", "Scalar", "Zero"]
