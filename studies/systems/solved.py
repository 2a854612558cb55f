"""One solve of a system, measured against its loop and its scan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import recsolve as rs
from recsolve.analysis.distance import distance
from recsolve.solvers.registry import applicable, check_applies
from recsolve.studies.store.configs import configured
from recsolve.studies.systems.system import get

_USUAL = ("newton", "jacobi", "sequential")  # the first that applies is taken where none is asked for


def solved(
    name: str, method: str | None = None, tol: float | None = None, settings: Iterable[str] = ()
) -> dict[str, Any]:
    """Return what a solve of a system found, by what it is called; without a method newton solves it, or jacobi.

    Raises
    ------
    ValueError, TypeError
        For an unknown system or method, settings that the config does not have, and a method that does not apply.
    """
    system = get(name)
    recurrence = system.build(**vars(configured(system.config, settings=settings)))
    method = next(name for name in _USUAL if name in applicable(recurrence)) if method is None else method
    check_applies(rs.solvers.get(method), recurrence)  # before the loop has walked for nothing
    loop = rs.solve(recurrence, method="sequential", tol=tol)
    solution = rs.solve(recurrence, method=method, tol=tol)
    found = {
        "method": method,
        "status": str(solution.status),
        "message": solution.message,
        "iterations": solution.nit,
        "residual": float(solution.residuals[-1]),
        "error": distance(solution.states, loop.states),
        "trusted": solution.trusted if solution.success else False,
        "milliseconds": 1e3 * solution.stats["seconds"],
        "milliseconds of the loop": 1e3 * loop.stats["seconds"],
    }
    if system.scan is not None:
        found["error of the scan"] = distance(system.scan(recurrence), loop.states)
    return found
