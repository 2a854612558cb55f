"""Compare what ``auto`` takes with the best of all methods and backends: ``python docs/choices.py SEED``.

Twenty problems are drawn by the seed; ``cells`` in its place takes cells, mixings, lengths and memories in turn, after
a long one of each has been compiled. Times are medians of calls in turns, the cost of the choice included and
compilation left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

import recsolve as rs
from recsolve.studies.timing import in_turns

METHODS = ("sequential", "newton", "quasi_newton", "jacobi", "gauss_seidel", "windowed", "multiple_shooting")
BACKENDS = ("numpy", "numba")
CELLS = ("elman", "elman_relu", "gru", "lstm", "mgu", "pararnn_gru")
WITHIN = 1.3  # times the best
_REPEATS = 5
_ENOUGH = 20.0  # times what auto took: a method that needs more is not the best


def problems(seed: int) -> Iterator[tuple[str, rs.Recurrence]]:
    """Yield twenty recurrences with their names, drawn by a seed."""
    random = np.random.default_rng(seed)
    for _ in range(13):
        name, mixing = random.choice(CELLS), random.choice(["dense", "diagonal", "heads"], p=[0.5, 0.3, 0.2])
        units, batch = int(random.choice([8, 16, 32, 64, 128])), int(random.choice([1, 2, 4, 8]))
        T, gain = int(300 * 2 ** random.uniform(0, 4)), round(random.uniform(0.5, 3.0), 1)
        dtype = str(random.choice(["float32", "float64"]))
        cell = rs.cells.get(name).random(
            input_size=5, hidden_size=units, mixing=mixing, gain=gain, rng=random, dtype=dtype
        )
        x = random.standard_normal((T, batch, 5)).astype(dtype)
        yield f"{name} {mixing}, {units} units, T {T}, batch {batch}, gain {gain}, {dtype}", cell.recurrence(x)
    for _ in range(7):
        structure, width = str(random.choice(["diagonal", "dense"])), int(random.choice([2, 6, 16, 64]))
        T, gain = int(300 * 2 ** random.uniform(0, 5)), round(random.uniform(0.3, 2.0), 2)
        u, rotation = random.standard_normal((T, width)), np.linalg.qr(random.standard_normal((width, width)))[0]
        f = _sine(gain) if structure == "diagonal" else _mixed(gain * rotation)
        rec = rs.Recurrence.from_function(f, inputs=u, initial=np.zeros(width), structure=structure)
        yield f"function, {structure}, {width} numbers, T {T}, gain {gain}", rec


def cells() -> Iterator[tuple[str, rs.Recurrence]]:
    """Yield recurrences that forget and that remember, from lengths below all thresholds to some above."""
    for name, gate in (("elman", None), ("gru", "z"), ("lstm", "f")):
        for mixing in ("dense", "diagonal", "heads"):
            cell = rs.cells.get(name).random(input_size=5, hidden_size=16, mixing=mixing, rng=0, dtype="float32")
            for T in (1024, 8, 64, 255, 256, 1000, 4096):
                drive = cell.drive(np.random.default_rng(T).standard_normal((T, 1, 5)).astype(np.float32))
                yield f"{name} {mixing}, T {T}, forgets", cell.recurrence(drive=drive)
                if gate is not None:  # as trained networks that remember have it
                    yield f"{name} {mixing}, T {T}, remembers", cell.recurrence(drive={**drive, gate: drive[gate] + 6})


def _sine(gain: float):
    return lambda h, u: gain * np.sin(h) + u


def _mixed(W: np.ndarray):
    return lambda h, u: np.tanh(h @ W.T + u)


def main(seed: str = "0") -> None:
    """Print a line per problem, and how many are within the bound."""
    within = count = 0
    for name, rec in cells() if seed == "cells" else problems(int(seed)):
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
    main(*sys.argv[1:2])
