"""Count the Python calls of one solve: ``python docs/calls.py [MOST]``, which lists the MOST frequent functions too."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import numpy as np

import recsolve as rs

ROOT = Path(rs.__file__).parent.parent


def calls_of(rec: rs.Recurrence, method: str) -> tuple[rs.Solution, Counter[tuple[str, str]]]:
    """Return a solution, and how often each function was called, by file and name."""
    rs.solve(rec, method=method)  # what is compiled or made once is there
    calls: Counter[tuple[str, str]] = Counter()

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            calls[frame.f_code.co_filename, frame.f_code.co_name] += 1

    sys.setprofile(count)
    try:
        solution = rs.solve(rec, method=method)
    finally:
        sys.setprofile(None)
    return solution, calls


def main(most: int = 0) -> None:
    """Print a line per backend and mixing, for a GRU of 64 units on 8 sequences of 512 steps."""
    x = np.random.default_rng(0).standard_normal((512, 8, 3))
    for backend, mixing in (("numpy", "diagonal"), ("numba", "diagonal"), ("numba", "dense")):
        cell = rs.cells.GRU.random(input_size=3, hidden_size=64, mixing=mixing, rng=0)
        with rs.backend(backend):
            solution, calls = calls_of(cell.recurrence(x), "newton")
        files = {path for path, _ in calls if Path(path).is_relative_to(ROOT)}
        print(f"{backend}, {mixing}: {calls.total()} calls over {len(files)} files, {solution.nit} iterations")
        for (path, name), count in calls.most_common(most):
            print(f"  {count:5d} {Path(path).name} {name}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
