"""The solvers, one file each, and their registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from recsolve.solvers.anderson import TriangularAnderson
from recsolve.solvers.base import CorrectionSolver, Solver
from recsolve.solvers.broyden import Broyden, DiagonalBroyden
from recsolve.solvers.chord import Chord
from recsolve.solvers.damped_newton import DampedNewton
from recsolve.solvers.jacobi import Jacobi
from recsolve.solvers.newton import Newton
from recsolve.solvers.picard import Picard
from recsolve.solvers.problem import Iterate, Problem
from recsolve.solvers.quasi_newton import QuasiNewton
from recsolve.solvers.relaxed_newton import RelaxedNewton
from recsolve.solvers.scaled_newton import ClippedNewton, ScaledNewton
from recsolve.solvers.sequential import Sequential

REGISTRY: dict[str, type[Solver]] = {
    solver.name: solver
    for solver in (
        Sequential,
        Newton,
        QuasiNewton,
        DampedNewton,
        Chord,
        ScaledNewton,
        ClippedNewton,
        RelaxedNewton,
        Broyden,
        DiagonalBroyden,
        Jacobi,
        Picard,
        TriangularAnderson,
    )
}


def get(method: Any, settings: Mapping[str, Any] | None = None) -> Solver:
    """Return a solver by name with its settings, or the solver object itself.

    Raises
    ------
    ValueError
        For an unknown name or setting; the message lists the known ones.
    TypeError
        When ``method`` is neither a name nor a solver.
    """
    settings = dict(settings or {})
    if isinstance(method, Solver):
        if settings:
            raise ValueError(f"options has {sorted(settings)}, but method is a solver object; set them on the object")
        return method
    if isinstance(method, type) and issubclass(method, Solver):
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
    "REGISTRY",
    "Broyden",
    "Chord",
    "ClippedNewton",
    "CorrectionSolver",
    "DampedNewton",
    "DiagonalBroyden",
    "Iterate",
    "Jacobi",
    "Newton",
    "Picard",
    "Problem",
    "QuasiNewton",
    "RelaxedNewton",
    "ScaledNewton",
    "Sequential",
    "Solver",
    "TriangularAnderson",
    "get",
]
