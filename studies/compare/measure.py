"""Shared parts of the runs of studies: recurrences by name, and one solve as a row of numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from recsolve import IntermediateResult, Recurrence, cells, solve
from recsolve.analysis.distance import distance as distance  # who measures takes it from here
from recsolve.analysis.exponents import lyapunov as lyapunov  # who measures takes it from here, as distances
from recsolve.base.arrays import Array
from recsolve.mixings import Dense
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.solvers import Method
from recsolve.studies.groups import label
from recsolve.studies.store.gather import FAILED
from recsolve.studies.store.records import Row
from recsolve.studies.timing import in_turns


def measured(
    rec: Recurrence,
    solver: str | Method,
    truth: Array,
    *,
    name: str | None = None,
    curves: bool = False,
    **arguments: Any,
) -> Row:
    """Solve and return status, iterations, evaluations, residual and error; an exception gives the status "failed".

    Parameters
    ----------
    rec : Recurrence
    solver : str or Method
    truth : array
        The states of the sequential loop.
    name : str, optional
        The solver's name in the row.
    curves : bool
        Whether to add the lists ``residuals`` and ``errors``, a number per iterate.
    **arguments
        Of :func:`recsolve.solve`.
    """
    name = label(solver) if name is None else name
    errors: list[float] = []

    def watch(iterate: IntermediateResult) -> None:
        errors.append(distance(iterate.states, truth))

    try:
        solution = solve(rec, method=solver, callback=watch if curves else None, **arguments)
    except (MemoryError, ArithmeticError, ValueError, TypeError) as error:
        return {"solver": name, "status": FAILED, "error_message": f"{type(error).__name__}: {error}"}
    row = {
        "solver": name,
        "status": str(solution.status),
        "iterations": solution.nit,
        "evaluations": int(solution.stats["nfev"]),
        "rows": int(solution.stats["rows"]),
        "residual": float(solution.residuals[-1]),
        "error": distance(solution.states, truth),
    }
    return {**row, "residuals": [*map(float, solution.residuals)], "errors": errors} if curves else row


def timed(run: Callable[[], Any], repeats: int = 5, enough: float = 1.0) -> Row:
    """Return median and quartiles of wall times, as :func:`recsolve.studies.timing.in_turns` takes them."""
    low, middle, high = np.quantile(in_turns([run], repeats, enough), (0.25, 0.5, 0.75))
    return {"seconds": float(middle), "seconds_low": float(low), "seconds_high": float(high)}


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
    place: str = "numpy",
) -> CellRecurrence:
    """Return a built-in cell with random weights times ``gain``, on normal input of deviation ``drive``, 4 channels.

    ``place`` is the kind of its arrays, "numpy" or "cupy"; the numbers are the same.
    """
    kind = cells.get(cell)
    settings: dict[str, Any] = {"mixing": mixing, "gain": gain} if kind.mixings else {}
    weighted = kind.random(input_size=4, hidden_size=units, rng=seed, dtype=np.dtype(dtype), **settings)
    x = drive * np.random.default_rng(seed + 1_000).standard_normal((T, *batch, 4))
    return weighted.to(place).recurrence(moved(x.astype(dtype), place))


def moved(x: Array, place: str) -> Array:
    """Return an array of NumPy's as one of the kind "numpy" or "cupy"."""
    if place == "numpy":
        return x
    import cupy

    return cupy.asarray(x)  # type: ignore[no-any-return]


def tanh_network(gain: float, units: int, T: int, seed: int, dtype: str = "float64") -> Recurrence:
    """Return h' = W tanh(h) + u: W ~ N(0, gain^2 / units) with zero diagonal, u sinusoids of random phase.

    The recurrence of figure 2 of Gonzalez et al., NeurIPS 2025 (arXiv 2508.16817).
    """
    rng = np.random.default_rng(seed)
    W = (rng.standard_normal((units, units)) * gain / np.sqrt(units)).astype(dtype)
    np.fill_diagonal(W, 0.0)
    u = np.sin(0.1 * np.arange(T)[:, None] + rng.uniform(0, 2 * np.pi, units)).astype(dtype)
    # With a = tanh(h) this is Elman's network, but residuals are to be those of h.
    mixing = Dense(W)

    def step(h: Any, u: Any) -> Any:
        return mixing.matvec(np.tanh(h)) + u

    def jacobian(h: Any, u: Any) -> Any:
        return W * (1 - np.tanh(h) ** 2)[..., None, :]

    initial = rng.standard_normal(units).astype(dtype)
    return Recurrence.from_function(step, inputs=u, initial=initial, structure="dense", jacobian=jacobian)
