"""What the runs of studies share: recurrences by name, and one solve as a row of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsolve import Recurrence, cells, solve
from recsolve.arrays import Array
from recsolve.mixings import Dense
from recsolve.solvers import Method
from recsolve.studies.gather import FAILED
from recsolve.studies.groups import label
from recsolve.studies.records import Row


def measured(
    rec: Recurrence, solver: str | Method, truth: Array, *, name: str | None = None, **arguments: Any
) -> Row:
    """Solve and return status, iterations, evaluations, residual and error; an exception gives the status "failed".

    Parameters
    ----------
    rec : Recurrence
    solver : str or Method
    truth : array
        The states of the sequential loop.
    name : str, optional
        What the row calls the solver.
    **arguments
        Of :func:`recsolve.solve`.
    """
    name = label(solver) if name is None else name
    try:
        solution = solve(rec, method=solver, **arguments)
    except (MemoryError, ArithmeticError, ValueError, TypeError) as error:
        return {"solver": name, "status": FAILED, "error_message": f"{type(error).__name__}: {error}"}
    return {
        "solver": name,
        "status": str(solution.status),
        "iterations": solution.nit,
        "evaluations": int(solution.stats["nfev"]),
        "residual": float(solution.residuals[-1]),
        "error": distance(solution.states, truth),
    }


def distance(states: Array, truth: Array) -> float:
    """Return max |h - truth|, NaN where one is."""
    with np.errstate(all="ignore"):
        return float(np.abs(states - truth).max()) if truth.size else 0.0


def loop(rec: Recurrence) -> Array:
    """Return the states of the sequential loop."""
    return np.asarray(solve(rec, method="sequential").states)


def cell_recurrence(
    cell: str,
    mixing: str = "dense",
    *,
    units: int,
    T: int,
    gain: float = 1.0,
    drive: float = 1.0,
    seed: int = 0,
    dtype: str = "float64",
    batch: tuple[int, ...] = (),
) -> Recurrence:
    """Return a built-in cell with random weights times ``gain``, on normal input of deviation ``drive``, 4 channels."""
    kind = cells.get(cell)
    settings: dict[str, Any] = {"mixing": mixing, "gain": gain} if kind.mixings else {}
    weighted = kind.random(input_size=4, hidden_size=units, rng=seed, dtype=np.dtype(dtype), **settings)
    x = drive * np.random.default_rng(seed + 1_000).standard_normal((T, *batch, 4))
    return weighted.recurrence(x.astype(dtype))


def tanh_network(gain: float, units: int, T: int, seed: int) -> Recurrence:
    """Return h' = W tanh(h) + u: W ~ N(0, gain^2 / units) with zero diagonal, u sinusoids of random phase.

    The recurrence of figure 2 of Gonzalez et al., NeurIPS 2025 (arXiv 2508.16817).
    """
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((units, units)) * gain / np.sqrt(units)
    np.fill_diagonal(W, 0.0)
    u = np.sin(0.1 * np.arange(T)[:, None] + rng.uniform(0, 2 * np.pi, units))
    # With a = tanh(h) this is Elman's network, but residuals are to be those of h.
    mixing = Dense(W)

    def step(h: Any, u: Any) -> Any:
        return mixing.matvec(np.tanh(h)) + u

    def jacobian(h: Any, u: Any) -> Any:
        return W * (1 - np.tanh(h) ** 2)[..., None, :]

    initial = rng.standard_normal(units)
    return Recurrence.from_function(step, inputs=u, initial=initial, structure="dense", jacobian=jacobian)


def lyapunov(rec: Recurrence, states: Array, seed: int = 0) -> float:
    """Return the largest Lyapunov exponent per step along a trajectory, from one vector pushed along it."""
    _, J = rec.linearise(states)
    vector = np.random.default_rng(seed).standard_normal(rec.shape[1:]).astype(rec.dtype)
    total = 0.0
    with np.errstate(all="ignore"):
        for t in range(1, rec.length):  # the first step has no step before it
            vector = J[t].matvec(vector)
            size = float(np.linalg.norm(vector))
            total += np.log(size)
            vector = vector / size if size > 0 else vector
    return total / max(rec.length - 1, 1)
