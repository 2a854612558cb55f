"""The solvers, one file each.

A class with a ``name`` in a file of this folder is found when the folder is imported: it is in ``REGISTRY``, and an
attribute here. The imports below are for type checkers and editors; a new solver works without one.
"""

from __future__ import annotations

from recsolve.solvers.adaptive_shooting import AdaptiveShooting as AdaptiveShooting
from recsolve.solvers.anderson import Anderson as Anderson
from recsolve.solvers.anderson import TriangularAnderson as TriangularAnderson
from recsolve.solvers.auto import Auto as Auto
from recsolve.solvers.broyden import Broyden as Broyden
from recsolve.solvers.broyden import DiagonalBroyden as DiagonalBroyden
from recsolve.solvers.chord import Chord as Chord
from recsolve.solvers.composite import Chain as Chain
from recsolve.solvers.composite import Windowed as Windowed
from recsolve.solvers.damped_newton import DampedNewton as DampedNewton
from recsolve.solvers.elk import Elk as Elk
from recsolve.solvers.elk import LevenbergMarquardt as LevenbergMarquardt
from recsolve.solvers.evaluation import Direct as Direct
from recsolve.solvers.gauss_seidel import GaussSeidel as GaussSeidel
from recsolve.solvers.iterate import Iterate as Iterate
from recsolve.solvers.iterate import Linearised as Linearised
from recsolve.solvers.jacobi import Jacobi as Jacobi
from recsolve.solvers.method import GROUPS as GROUPS
from recsolve.solvers.method import CorrectionSolver as CorrectionSolver
from recsolve.solvers.method import Method as Method
from recsolve.solvers.method import Solver as Solver
from recsolve.solvers.method import Stage as Stage
from recsolve.solvers.mgrit import MGRIT as MGRIT
from recsolve.solvers.multiple_shooting import MultipleShooting as MultipleShooting
from recsolve.solvers.newton import Newton as Newton
from recsolve.solvers.newton_krylov import NewtonKrylov as NewtonKrylov
from recsolve.solvers.parareal import Parareal as Parareal
from recsolve.solvers.picard import Picard as Picard
from recsolve.solvers.problem import Problem as Problem
from recsolve.solvers.quasi_newton import QuasiNewton as QuasiNewton
from recsolve.solvers.registry import REGISTRY as REGISTRY
from recsolve.solvers.registry import discover as _discover
from recsolve.solvers.registry import get as get
from recsolve.solvers.relaxed_newton import RelaxedNewton as RelaxedNewton
from recsolve.solvers.scaled_newton import ClippedNewton as ClippedNewton
from recsolve.solvers.scaled_newton import ScaledNewton as ScaledNewton
from recsolve.solvers.sequential import Sequential as Sequential
from recsolve.solvers.state import PerRow as PerRow
from recsolve.solvers.state import PerSequence as PerSequence
from recsolve.solvers.state import State as State

_discover(__name__, __path__)
globals().update({method.__name__: method for method in REGISTRY.values()})
