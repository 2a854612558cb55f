"""The solvers, one file each, and their registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from recsolve.solvers.anderson import Anderson, TriangularAnderson
from recsolve.solvers.auto import Auto
from recsolve.solvers.base import GROUPS, CorrectionSolver, Method, Solver, Stage
from recsolve.solvers.broyden import Broyden, DiagonalBroyden
from recsolve.solvers.chord import Chord
from recsolve.solvers.composite import Chain, Windowed
from recsolve.solvers.damped_newton import DampedNewton
from recsolve.solvers.elk import Elk, LevenbergMarquardt
from recsolve.solvers.gauss_seidel import GaussSeidel
from recsolve.solvers.jacobi import Jacobi
from recsolve.solvers.mgrit import MGRIT
from recsolve.solvers.multiple_shooting import MultipleShooting
from recsolve.solvers.newton import Newton
from recsolve.solvers.newton_krylov import NewtonKrylov
from recsolve.solvers.parareal import Parareal
from recsolve.solvers.picard import Picard
from recsolve.solvers.problem import Iterate, Problem
from recsolve.solvers.quasi_newton import QuasiNewton
from recsolve.solvers.relaxed_newton import RelaxedNewton
from recsolve.solvers.scaled_newton import ClippedNewton, ScaledNewton
from recsolve.solvers.sequential import Sequential

REGISTRY: dict[str, type[Method]] = {
    solver.name: solver
    for solver in (
        Sequential,
        Newton,
        QuasiNewton,
        NewtonKrylov,
        Chord,
        ScaledNewton,
        ClippedNewton,
        RelaxedNewton,
        Broyden,
        DiagonalBroyden,
        DampedNewton,
        Elk,
        LevenbergMarquardt,
        Jacobi,
        Picard,
        Anderson,
        TriangularAnderson,
        GaussSeidel,
        MultipleShooting,
        Parareal,
        MGRIT,
        Windowed,
        Chain,
        Auto,
    )
}


def get(method: Any, settings: Mapping[str, Any] | None = None) -> Method:
    """Return a solver by name with its settings, or the solver object itself.

    Raises
    ------
    ValueError
        For an unknown name or setting; the message lists the known ones.
    TypeError
        When ``method`` is neither a name nor a solver.
    """
    settings = dict(settings or {})
    if isinstance(method, Method):
        if settings:
            raise ValueError(f"options has {sorted(settings)}, but method is a solver object; set them on the object")
        return method
    if isinstance(method, type) and issubclass(method, Method):
        raise TypeError(f"method is the class {method.__name__}; wanted a solver object: {method.__name__}()")
    if not isinstance(method, str):
        raise TypeError(f"method is {type(method).__name__}; wanted a name or a solver object")
    if method not in REGISTRY:
        raise ValueError(f"method is {method!r}; wanted one of {', '.join(REGISTRY)}")
    known = [f.name for f in fields(REGISTRY[method])]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"options has unknown {unknown}; {method} takes {known or 'none of its own'}")
    return REGISTRY[method](**settings)


__all__ = [
    "GROUPS",
    "MGRIT",
    "REGISTRY",
    "Anderson",
    "Auto",
    "Broyden",
    "Chain",
    "Chord",
    "ClippedNewton",
    "CorrectionSolver",
    "DampedNewton",
    "DiagonalBroyden",
    "Elk",
    "GaussSeidel",
    "Iterate",
    "Jacobi",
    "LevenbergMarquardt",
    "Method",
    "MultipleShooting",
    "Newton",
    "NewtonKrylov",
    "Parareal",
    "Picard",
    "Problem",
    "QuasiNewton",
    "RelaxedNewton",
    "ScaledNewton",
    "Sequential",
    "Solver",
    "Stage",
    "TriangularAnderson",
    "Windowed",
    "get",
]
