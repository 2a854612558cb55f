"""One solve of a system, measured against its loop and its scan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array, is_discrete
from recsolve.studies.store.configs import configured
from recsolve.studies.systems.system import get


def solved(name: str, method: str, tol: float | None = None, settings: Iterable[str] = ()) -> dict[str, Any]:
    """Return what a solve of a system found, by what it is called.

    Raises
    ------
    ValueError, TypeError
        For an unknown system or method, settings that the config does not have, and a method that does not apply.
    """
    system = get(name)
    recurrence = system.build(**vars(configured(system.config, settings=settings)))
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


def distance(x: Array, y: Array) -> float:
    """Return max |x - y|, infinities that are the same being no distance; of discrete states, 1 if any differs."""
    if is_discrete(x.dtype):
        return float((x != y).any())
    gap = np.abs(np.where(x == y, 0, x - y))
    return float(gap.max()) if gap.size else 0.0
