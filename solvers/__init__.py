"""The solvers, one file each.

A class with a ``name`` in a file of this folder is found when the folder is imported: it is in ``REGISTRY``, and an
attribute here and a public name. The imports and names below are for type checkers; a new solver works without them.
"""

from __future__ import annotations

from recsolve.solvers.adaptive_shooting import AdaptiveShooting
from recsolve.solvers.anderson import Anderson, TriangularAnderson
from recsolve.solvers.auto import Auto
from recsolve.solvers.broyden import Broyden, DiagonalBroyden
from recsolve.solvers.chord import Chord
from recsolve.solvers.composite import Chain, Windowed
from recsolve.solvers.damped_newton import DampedNewton
from recsolve.solvers.elk import Elk, LevenbergMarquardt
from recsolve.solvers.evaluation import Direct
from recsolve.solvers.gauss_seidel import GaussSeidel
from recsolve.solvers.iterate import Iterate, Linearised
from recsolve.solvers.jacobi import Jacobi
from recsolve.solvers.method import GROUPS, CorrectionSolver, Method, Solver, Stage
from recsolve.solvers.mgrit import MGRIT
from recsolve.solvers.multiple_shooting import MultipleShooting
from recsolve.solvers.newton import Newton
from recsolve.solvers.newton_krylov import NewtonKrylov
from recsolve.solvers.parareal import Parareal
from recsolve.solvers.picard import Picard
from recsolve.solvers.problem import Problem
from recsolve.solvers.quasi_newton import QuasiNewton
from recsolve.solvers.registry import REGISTRY, get
from recsolve.solvers.registry import discover as _discover
from recsolve.solvers.relaxed_newton import RelaxedNewton
from recsolve.solvers.scaled_newton import ClippedNewton, ScaledNewton
from recsolve.solvers.sequential import Sequential
from recsolve.solvers.state import PerRow, PerSequence, State

__all__ = [
    "AdaptiveShooting",
    "Anderson",
    "Auto",
    "Broyden",
    "Chain",
    "Chord",
    "ClippedNewton",
    "CorrectionSolver",
    "DampedNewton",
    "DiagonalBroyden",
    "Direct",
    "Elk",
    "GROUPS",
    "GaussSeidel",
    "Iterate",
    "Jacobi",
    "LevenbergMarquardt",
    "Linearised",
    "MGRIT",
    "Method",
    "MultipleShooting",
    "Newton",
    "NewtonKrylov",
    "Parareal",
    "PerRow",
    "PerSequence",
    "Picard",
    "Problem",
    "QuasiNewton",
    "REGISTRY",
    "RelaxedNewton",
    "ScaledNewton",
    "Sequential",
    "Solver",
    "Stage",
    "State",
    "TriangularAnderson",
    "Windowed",
    "get",
]

_discover(__name__, __path__)
globals().update({method.__name__: method for method in REGISTRY.values()})
__all__.extend(method.__name__ for method in REGISTRY.values() if method.__name__ not in __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
