"""Structured Jacobians: the structure is the type.

:mod:`recsolve.jacobians.jacobian` says how the structures contain and become one another. Cells whose mixings couple
units have a :class:`recsolve.jacobians.factored.Factored`, functions whose structure is declared by pairs of components
a :class:`Pairs`.
"""

from recsolve.jacobians.banded import Banded
from recsolve.jacobians.by_parent import ByParent
from recsolve.jacobians.diagonals import Diagonal, Identity, Scalar, Zero
from recsolve.jacobians.jacobian import Jacobian
from recsolve.jacobians.low_rank import LowRank
from recsolve.jacobians.matrices import Block, LaneDense
from recsolve.jacobians.pairs import Pairs
from recsolve.jacobians.permutation_diagonal import PermutationDiagonal

__all__ = [
    "Banded",
    "Block",
    "ByParent",
    "Diagonal",
    "Identity",
    "Jacobian",
    "LaneDense",
    "LowRank",
    "Pairs",
    "PermutationDiagonal",
    "Scalar",
    "Zero",
]


def __dir__() -> list[str]:
    return sorted(__all__)
