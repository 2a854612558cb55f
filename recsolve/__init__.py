"""recsolve: solve nonlinear recurrences h[t] = f(h[t-1], u[t]) in parallel over t."""

from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING

# In a checkout the folders of the other layers lie beside this one, where an installation has them inside. Python that
# is started in the checkout finds this folder before what is installed; this line lets it find the rest as well.
if __name__ != "recsolve":  # beside them lies this folder too, which must not become a second copy within itself
    raise ModuleNotFoundError(f"no module named {__name__!r}", name=__name__)
_HERE = _Path(__file__).parent
if not (_HERE / "solvers").exists() and (_HERE.parent / "pyproject.toml").exists():
    __path__.append(str(_HERE.parent))

from recsolve import cells, graphs, jacobians, math, mixings, plot, solvers, testing
from recsolve._version import __version__
from recsolve.analysis.structure_check import StructureReport, check_structure
from recsolve.base.layout import Layout
from recsolve.base.status import Status
from recsolve.diagnosis.diagnose import Diagnosis, diagnose
from recsolve.gradients.adjoint import adjoint
from recsolve.gradients.of_windows import WindowsGradients
from recsolve.gradients.result import Gradients
from recsolve.gradients.scan_adjoint import ScanGradients, scan_adjoint
from recsolve.gradients.tangent import tangent
from recsolve.interop import autograd as _autograd  # noqa: F401  # so that solve and scan record nodes of torch
from recsolve.interop.layers import Layers
from recsolve.interop.layers_gradients import LayersGradients
from recsolve.interop.layers_solution import LayersSolution
from recsolve.interop.saved import load, save
from recsolve.interop.torch_run import run
from recsolve.kernels.backends import backend
from recsolve.kernels.monoids.monoid import Monoid
from recsolve.recurrence.base import Recurrence
from recsolve.recurrence.cell import Cell
from recsolve.recurrence.given import packed_resets
from recsolve.recurrence.projection import Projection
from recsolve.recurrence.ragged_cell import RaggedCell
from recsolve.recurrence.weighted_cell import WeightedCell
from recsolve.scan import scan
from recsolve.solution import ConvergenceError, Solution
from recsolve.solve import IntermediateResult, solve
from recsolve.solvers.auto_pilot import explain
from recsolve.solvers.choice import Choice
from recsolve.windows_solution import WindowsSolution

if _TYPE_CHECKING:
    from recsolve import distributed as distributed
    from recsolve import nn as nn
    from recsolve.studies.compare.comparison import Comparison, compare

__all__ = [
    "Cell",
    "Choice",
    "Comparison",
    "ConvergenceError",
    "Diagnosis",
    "Gradients",
    "IntermediateResult",
    "Layers",
    "LayersGradients",
    "LayersSolution",
    "Layout",
    "Monoid",
    "Projection",
    "RaggedCell",
    "Recurrence",
    "ScanGradients",
    "Solution",
    "Status",
    "StructureReport",
    "WeightedCell",
    "WindowsGradients",
    "WindowsSolution",
    "__version__",
    "adjoint",
    "backend",
    "cells",
    "check_structure",
    "compare",
    "diagnose",
    "distributed",
    "explain",
    "graphs",
    "jacobians",
    "load",
    "math",
    "mixings",
    "packed_resets",
    "plot",
    "run",
    "save",
    "scan",
    "scan_adjoint",
    "solve",
    "solvers",
    "tangent",
    "testing",
]


_ON_DEMAND = {"nn": "recsolve.nn", "distributed": "recsolve.distributed"}  # the first needs torch
_ON_DEMAND |= dict.fromkeys(("Comparison", "compare"), "recsolve.studies.compare.comparison")  # needs rich


def __dir__() -> list[str]:
    return sorted([*__all__, *(["nn"] if _find_spec("torch") else [])])


def __getattr__(name: str) -> object:
    """Import what needs heavy libraries when it is first asked for."""
    if name in _ON_DEMAND:
        module = _import_module(_ON_DEMAND[name])
        return module if module.__name__.endswith(name) else getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
