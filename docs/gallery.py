"""Write docs/gallery.md: every solver on twelve problems, with the iterations that were predicted.

python docs/gallery.py > docs/gallery.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import recsolve as rs
from recsolve.analysis.distance import distance
from recsolve.base.arrays import Array
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.solvers.registry import applicable
from recsolve.studies.problems.gallery import PROBLEMS
from recsolve.studies.store.provenance import versions
from recsolve.studies.timing import in_turns

SECONDS = 240.0  # after which a solve is stopped
BRIEF = 0.5  # solves shorter than this are timed three times
SHOWN = ("newton", "quasi_newton", "damped_newton", "adaptive_shooting", "jacobi", "gauss_seidel", "windowed")


@dataclass(frozen=True)
class Row:
    """One solver on one problem: its time, and its work, evaluations of f in units of all steps."""

    solver: str
    status: str
    iterations: int
    predicted: int | None
    error: float
    seconds: float
    work: float
    jacobians: int
    scans: int


def timed(rec: rs.Recurrence, method: str, most: float) -> tuple[rs.Solution, float]:
    """Return a solution, stopped after so many seconds, and the least time it took."""
    found: list[rs.Solution] = []

    def run() -> None:
        watch = Stopwatch()

        def stop(_: object) -> None:
            if watch.seconds > most:
                raise StopIteration

        found.append(rs.solve(rec, method=method, callback=stop))

    least = float(in_turns([run], 3, BRIEF).min())
    return found[-1], least


def rows(
    rec: rs.Recurrence, truth: Array | None = None, *, most: float = SECONDS, budget: float = 3600
) -> Iterator[Row]:
    """Yield a row for every solver that applies; errors are distances from ``truth``, or from the sequential loop."""
    try:
        predicted = rs.diagnose(rec, budget=budget).predicted
    except TypeError:  # states are discrete, or along no one axis of time
        predicted = {}
    truth = rs.solve(rec, method="sequential").states if truth is None else truth
    for name in applicable(rec):
        solution, seconds = timed(rec, name, most)
        error = distance(solution.states, truth)
        print(rec.description, name, solution.status, solution.nit, predicted.get(name), file=sys.stderr)
        work = solution.stats["rows"] / max(prod((rec.length, *rec.batch)), 1)
        counted = work, solution.stats["njev"], solution.stats["nscan"]
        yield Row(name, str(solution.status), solution.nit, predicted.get(name), error, seconds, *counted)


def table(name: str, found: list[Row]) -> None:
    """Print the table of a problem."""
    rec = PROBLEMS[name](0)
    print(f"\n## {name}\n\n{PROBLEMS[name].__doc__} {rec.length} steps of {rec.layout.size} numbers.\n")
    print("| solver | status | iterations | predicted | error | evaluations | Jacobians | scans |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for row in found:
        predicted = "" if row.predicted is None else row.predicted
        counted = f"{row.work:.1f} | {row.jacobians} | {row.scans}"
        print(f"| {row.solver} | {row.status} | {row.iterations} | {predicted} | {row.error:.0e} | {counted} |")


def page(tables: dict[str, list[Row]]) -> None:
    """Print the page."""
    made = versions()
    newton, shooting = (
        [row.iterations for found in tables.values() for row in found if row.solver == name]
        for name in ("newton", "adaptive_shooting")
    )
    print("# Twelve problems\n")
    print(
        "Every solver runs on twelve problems, from contractive to chaotic, with its default settings in float64. "
        f"`newton` takes {min(newton)} iterations on the easiest of them and {max(newton)} on the hardest, and "
        f"`adaptive_shooting` at most {max(shooting)} on any. The table has the iterations of some solvers; below it "
        "are the problems one by one, with all solvers.\n"
    )
    print("| problem | " + " | ".join(f"`{name}`" for name in SHOWN) + " |")
    print("|---" + "|--:" * len(SHOWN) + "|")
    for name, found in tables.items():
        counts = {row.solver: row.iterations if row.status == "converged" else row.status for row in found}
        print(f"| [{name}](#{name}) | " + " | ".join(str(counts[solver]) for solver in SHOWN) + " |")
    print(
        "\nIterations of different solvers do not cost the same: one of `adaptive_shooting` or `gauss_seidel` follows "
        "f for about the square root of T steps, one after the other. So the tables also count what a solve has done. "
        "*Evaluations* are those of f, in units of all steps; *Jacobians* and *scans* are those of the steps that were "
        "left. *Predicted* are the iterations that `rs.diagnose` expects from the first 256 steps. *Error* is the "
        "largest distance from the sequential loop. In chaos errors of order one are what a small residual leaves, and "
        "`trusted` is false there. What `auto` takes depends on the costs that were measured on the machine. "
        f"A solve is stopped after {SECONDS:.0f} seconds.\n\n"
        f"`python docs/gallery.py` writes this page, here with recsolve {made['recsolve']}, NumPy {made['numpy']} and "
        '`rs.backend("numpy")`; the problems are `recsolve.studies.problems.gallery.PROBLEMS`.'
    )
    for name, found in tables.items():
        table(name, found)


def main() -> None:
    """Run all solvers, and print the page."""
    with rs.backend("numpy"):  # the reference: counts do not depend on what has been compiled
        page({name: list(rows(make(0))) for name, make in PROBLEMS.items()})


if __name__ == "__main__":
    main()
