"""Write docs/tanh_rnn.md: iterations of every solver on tanh networks of growing gain.

python docs/tanh_rnn.py > docs/tanh_rnn.md
"""

from __future__ import annotations

import sys

import numpy as np

import recsolve as rs
from recsolve.studies.store.provenance import versions

GAINS, SEEDS, UNITS, STEPS, TOLERANCE = (0.5, 1.0, 1.2, 1.6, 2.2), 20, 8, 400, 1e-10


def problem(gain: float, seed: int) -> rs.Recurrence:
    """h = tanh(W h + u), W ~ N(0, gain^2 / units), u ~ N(0, 1)."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((UNITS, UNITS)) * gain / np.sqrt(UNITS)
    cell = rs.cells.Elman.with_weights(mixings={"h": rs.mixings.Dense(W)})
    return cell.recurrence(drive={"h": rng.standard_normal((STEPS, UNITS))})


def counts(method: str, gain: float) -> list[int]:
    """Return the iterations to the tolerance, one per seed."""
    return [rs.solve(problem(gain, seed), method=method, tol=TOLERANCE).nit for seed in range(SEEDS)]


def main() -> None:
    """Print the page."""
    solvers = [name for name in rs.solvers.REGISTRY if name not in ("sequential", "auto")]
    found = versions()
    print("# Iterations on tanh networks\n")
    print(
        "Most solvers take more iterations as the gain g of a network grows. Those that follow f in blocks of steps "
        "take the fewest (adaptive_shooting, gauss_seidel, multiple_shooting, parareal and mgrit), but one of theirs "
        f"follows f for {round(STEPS**0.5)} steps or more, one after the other.\n\n"
        f"The network is h = tanh(W h + u) with {UNITS} units, W ~ N(0, g²/{UNITS}) and u ~ N(0, 1), over {STEPS} "
        f"steps. The table has the median of iterations over {SEEDS} seeds, and the range, in float64 to a tolerance "
        f"of {TOLERANCE:g}. With the pin every method ends within T. `python docs/tanh_rnn.py` writes this page, here "
        f"with recsolve {found['recsolve']}, NumPy {found['numpy']}.\n"
    )
    print("| solver | " + " | ".join(f"g = {gain}" for gain in GAINS) + " |")
    print("|---" * (len(GAINS) + 1) + "|")
    for name in solvers:
        cells = []
        for gain in GAINS:
            n = counts(name, gain)
            cells.append(f"{np.median(n):.0f} ({min(n)}-{max(n)})")
            print(name, gain, cells[-1], file=sys.stderr)
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
