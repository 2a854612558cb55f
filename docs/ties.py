"""Write docs/ties.md: iterations of Newton's method with each choice of the derivative at ties.

python docs/ties.py > docs/ties.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.math import maximum, minimum, relu
from recsolve.studies.store.provenance import versions

SEEDS, UNITS, STEPS = 12, 4, 200
CHOICES: dict[str, Any] = {
    "0": 0.0,
    "0.5": 0.5,
    "1": 1.0,
    "minimum 0, maximum 1": {"minimum": 0.0, "maximum": 1.0},
    "minimum 1, maximum 0": {"minimum": 1.0, "maximum": 0.0},
}


def _parity(s: Any, W: Any, u: Any, p: Any) -> Any:
    h = W.h(s.h)
    return maximum(minimum(h, 1 - u.x), minimum(1 - h, u.x))


def _rectifier(s: Any, W: Any, u: Any, p: Any) -> Any:
    return relu(W.h(s.h) + u.x)


def _inhibition(s: Any, W: Any, u: Any, p: Any) -> Any:
    return relu(u.x - W.h(s.h))


def _bits(rng: np.random.Generator) -> Any:
    return rng.integers(0, 2, (STEPS, UNITS)).astype(float)


def _permutation(rng: np.random.Generator) -> Any:
    return np.eye(UNITS)[rng.permutation(UNITS)]


def _dense(function: Callable[..., Any], weight: Any, x: Any, ties: Any) -> rs.Recurrence:
    cell = rs.Cell(function, state=("h",), output="h")
    return cell.with_weights(mixings={"h": rs.mixings.Dense(weight)}).recurrence(drive={"x": x}, ties=ties)


def parity(seed: int, ties: Any = None) -> rs.Recurrence:
    """h = (P h) xor u of bits, in minimum and maximum, with P a permutation."""
    rng = np.random.default_rng(seed)
    return _dense(_parity, _permutation(rng), _bits(rng), ties)


def rectifier(seed: int, ties: Any = None) -> rs.Recurrence:
    """h = relu(W h + u) where nothing is negative, and most drives are 0."""
    rng = np.random.default_rng(seed)
    weight = rng.random((UNITS, UNITS)) / UNITS
    x = rng.random((STEPS, UNITS)) * (rng.random((STEPS, UNITS)) < 0.1)
    return _dense(_rectifier, weight, x, ties)


def inhibition(seed: int, ties: Any = None) -> rs.Recurrence:
    """h = relu(u - (P + Q) h) of bits, with P and Q permutations."""
    rng = np.random.default_rng(seed)
    return _dense(_inhibition, _permutation(rng) + _permutation(rng), _bits(rng), ties)


def latch(seed: int, ties: Any = None) -> rs.Recurrence:
    """h = max(min(r, h), s) of bits with s <= r, the MinMax cell: set, reset or hold, from 0."""
    rng = np.random.default_rng(seed)
    s, r = np.sort([_bits(rng), _bits(rng)], axis=0)
    return rs.cells.MinMax.with_weights(hidden_size=UNITS).recurrence(drive={"r": r, "s": s}, ties=ties)


# The problem, the choice that takes the fewest iterations, and why.
PROBLEMS: dict[Callable[..., rs.Recurrence], tuple[str, str]] = {
    parity: (
        "0.5",
        "On bits f has ties everywhere. Halves give slopes of ±1/2, all of the right sign: the step leaves the bits "
        "for where f is affine, and the next one is exact. With 1 one of the four pairs of bits has slope 0, with 0 "
        "three have, and each cuts the chain.",
    ),
    rectifier: (
        "1",
        "On nonnegative states f is affine, and 1 at ties is its slope there: one step is exact. With 0 a silent unit "
        "passes nothing on until an iterate has moved it.",
    ),
    inhibition: (
        "0",
        "At a tie a unit is silent, and more inhibition leaves it so: slope 0. With 1 it stays in the chain, where "
        "P + Q, of norm 2, amplifies errors at every step.",
    ),
    latch: (
        "minimum 0, maximum 1",
        "From 0, a state that ties with the floor s is held (slope 1), one that ties with the ceiling r is reset, or "
        "was set the step before (slope 0). From 1 it is the other way round.",
    ),
}


def counts(problem: Callable[..., rs.Recurrence], choice: str) -> list[int]:
    """Return the iterations to convergence, one per seed."""
    solutions = [rs.solve(problem(seed, CHOICES[choice]), method="newton") for seed in range(SEEDS)]
    assert all(solution.success for solution in solutions)
    return [solution.nit for solution in solutions]


def main() -> None:
    """Print the page."""
    found = versions()
    print("# Iterations with each choice of the derivative at ties\n")
    print(
        "No choice of the derivative at ties is the best on every problem, and a wrong one costs Newton's method many "
        "times the iterations. All choices converge to the same states.\n\n"
        f"The problems are full of ties, with {UNITS} units and {STEPS} steps. The table has the median of iterations "
        f"over {SEEDS} seeds, and the range, in float64 to the default tolerance. The columns are the setting `ties`, "
        "the share that passes to the operand that depends on the state. `python docs/ties.py` writes this page, here "
        f"with recsolve {found['recsolve']}, NumPy {found['numpy']}.\n"
    )
    print("| problem | " + " | ".join(CHOICES) + " |")
    print("|---" * (len(CHOICES) + 1) + "|")
    for problem, (winner, _) in PROBLEMS.items():
        cells = []
        for choice in CHOICES:
            n = counts(problem, choice)
            cell = f"{np.median(n):g} ({min(n)}-{max(n)})"
            cells.append(f"**{cell}**" if choice == winner else cell)
            print(problem.__name__, choice, cell, file=sys.stderr)
        print(f"| {problem.__name__} | " + " | ".join(cells) + " |")
    for problem, (winner, why) in PROBLEMS.items():
        print(f"\n**{problem.__name__}**, {problem.__doc__} Best: {winner}. {why}")
    print(
        "\nOver an axis, `np.max` and `np.min` are the operation of two taken from the first entry to the last: with 1 "
        "the first of the entries that tie passes its derivative on, with 0 the last one, with a half the last one "
        "half of it, the one before a quarter, and so on. `np.sort` keeps the order of equal entries."
    )
    print(
        "\nA half is best or next best on all four; the default, 1, is best on the rectifier alone. The problems are "
        "made so that choices differ: drives drawn from a continuum rarely tie, and then the choice does nothing."
    )


if __name__ == "__main__":
    main()
