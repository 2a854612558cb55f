"""Compare what ``auto`` takes with the best of all methods and backends on twenty problems: ``python docs/choices.py``.

Times are medians of calls in turns, the cost of the choice included and compilation left out. The cells, lengths and
gains are none of those that the choice was made on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

import recsolve as rs
from recsolve.studies.timing import in_turns

METHODS = ("sequential", "newton", "quasi_newton", "jacobi", "gauss_seidel", "windowed", "multiple_shooting")
BACKENDS = ("numpy", "numba")
WITHIN = 1.5  # times the best
_REPEATS = 5
_ENOUGH = 20.0  # times what auto took: a method that needs more is not the best


def problems() -> Iterator[tuple[str, rs.Recurrence]]:
    """Yield twenty recurrences with their names."""
    random = np.random.default_rng(7)
    for name, mixing, units, T, batch, gain, dtype in (
        ("gru", "dense", 96, 700, 1, 1.0, "float32"),
        ("gru", "dense", 48, 1500, 4, 2.5, "float64"),
        ("lstm", "dense", 128, 1000, 1, 1.5, "float64"),
        ("lstm", "dense", 24, 3000, 2, 3.0, "float32"),
        ("elman", "dense", 64, 1000, 1, 0.8, "float64"),
        ("elman", "dense", 32, 5000, 1, 1.4, "float32"),
        ("elman_relu", "dense", 40, 900, 3, 0.7, "float64"),
        ("gru", "diagonal", 64, 800, 8, 1.0, "float32"),
        ("lstm", "diagonal", 16, 10000, 1, 1.0, "float64"),
        ("minmax", "diagonal", 32, 2000, 2, 1.0, "float64"),
        ("gru", "heads", 64, 1200, 2, 1.0, "float64"),
        ("mgu", "diagonal", 200, 300, 1, 1.0, "float64"),
        ("gru", "dense", 12, 400, 1, 1.0, "float64"),
    ):
        cell = rs.cells.get(name).random(
            input_size=5, hidden_size=units, mixing=mixing, gain=gain if mixing != "none" else 1.0, rng=3, dtype=dtype
        )
        x = random.standard_normal((T, batch, 5)).astype(dtype)
        yield f"{name} {mixing}, {units} units, T {T}, batch {batch}, gain {gain}, {dtype}", cell.recurrence(x)
    for gain, T, width, structure in (
        (0.4, 3000, 64, "diagonal"),
        (0.95, 3000, 64, "diagonal"),
        (2.5, 1000, 8, "diagonal"),
        (0.6, 20000, 4, "diagonal"),
        (0.5, 2000, 12, "dense"),
        (0.9, 600, 24, "dense"),
        (1.3, 1500, 6, "dense"),
    ):
        W = gain * (
            np.eye(width) if structure == "diagonal" else np.linalg.qr(random.standard_normal((width, width)))[0]
        )
        u = random.standard_normal((T, width))
        f = _sine(gain) if structure == "diagonal" else _mixed(W)
        rec = rs.Recurrence.from_function(f, inputs=u, initial=np.zeros(width), structure=structure)
        yield f"function, {structure}, {width} numbers, T {T}, gain {gain}", rec


def _sine(gain: float):
    return lambda h, u: gain * np.sin(h) + u


def _mixed(W: np.ndarray):
    return lambda h, u: np.tanh(h @ W.T + u)


def main() -> None:
    """Print a line per problem, and how many are within the bound."""
    within = count = 0
    for name, rec in problems():
        auto, _ = in_turns([lambda rec=rec: rs.solve(rec, method="auto")] * 2, _REPEATS)
        taken, mine = rs.solve(rec, method="auto"), float(np.median(auto))
        best, how = mine, "auto"
        for backend in BACKENDS:
            for method in METHODS:
                found = _median(rec, method, backend, _ENOUGH * mine)
                if found is not None and found < best:
                    best, how = found, f"{method}, {backend}"
        count += 1
        within += mine <= WITHIN * best
        said = taken.message.split("; ")[-1]
        sys.stdout.write(f"{mine / best:5.2f}x  {1e3 * mine:8.2f} ms  {name}: {said}; best {how}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{within} of {count} within {WITHIN} times the best\n")


def _median(rec: rs.Recurrence, method: str, backend: str, enough: float) -> float | None:
    """Return the median time of a method that converges, None for others and for those that take too long."""
    with rs.backend(backend):
        sol = rs.solve(rec, method=method, maxiter=min(rec.length + 2, 400))
        if not sol.success or sol.stats["seconds"] - sol.stats["compile_seconds"] > enough:
            return None
        times = in_turns([lambda: rs.solve(rec, method=method)], _REPEATS)
    return float(np.median(times))


if __name__ == "__main__":
    main()
