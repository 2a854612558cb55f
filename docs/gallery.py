"""Write docs/gallery.md: every solver on twelve problems, with the iterations that were predicted.

python docs/gallery.py > docs/gallery.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import recsolve as rs
from recsolve.analysis.distance import distance
from recsolve.base.arrays import Array
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.solvers.registry import applicable
from recsolve.studies.problems.gallery import PROBLEMS
from recsolve.studies.store.provenance import versions
from recsolve.studies.timing import in_turns

SECONDS = 10.0  # after which a solve is stopped
BRIEF = 0.5  # solves shorter than this are timed three times


@dataclass(frozen=True)
class Row:
    """One solver on one problem."""

    solver: str
    status: str
    iterations: int
    predicted: int | None
    error: float
    seconds: float


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
        yield Row(name, str(solution.status), solution.nit, predicted.get(name), error, seconds)


def table(name: str, found: list[Row]) -> None:
    """Print the table of a problem."""
    loop = next(row.seconds for row in found if row.solver == "sequential")
    rec = PROBLEMS[name](0)
    print(f"\n## {name}\n\n{PROBLEMS[name].__doc__} {rec.length} steps of {rec.layout.size} numbers.\n")
    print("| solver | status | iterations | predicted | error | time / loop |")
    print("|---|---|---|---|---|---|")
    for row in found:
        predicted = "" if row.predicted is None else row.predicted
        ratio = row.seconds / loop
        print(f"| {row.solver} | {row.status} | {row.iterations} | {predicted} | {row.error:.0e} | {ratio:.2f} |")


def main() -> None:
    """Print the page."""
    tables = {name: list(rows(make(0))) for name, make in PROBLEMS.items()}
    found = versions()
    print("# Twelve problems\n")
    print(
        "Every solver with its default settings, float64, default tolerance; iterations predicted by `rs.diagnose` "
        "from the first 256 steps; error against the sequential loop; time over that of the loop (NumPy, two cores, "
        f"the least of three). A solve is stopped after {SECONDS:.0f} seconds. In chaos errors of order one are what a "
        "small residual leaves: there `trusted` is false. Written by `python docs/gallery.py` with recsolve "
        f"{found['recsolve']}, NumPy {found['numpy']}; the problems are `recsolve.studies.problems.gallery.PROBLEMS`.\n"
    )
    print("| problem | fastest | time / loop | auto, time / fastest |")
    print("|---|---|---|---|")
    for name, found_rows in tables.items():
        times = {row.solver: row.seconds for row in found_rows if row.status == "converged"}
        best = min((solver for solver in times if solver != "auto"), key=times.__getitem__)
        print(f"| {name} | {best} | {times[best] / times['sequential']:.2f} | {times['auto'] / times[best]:.2f} |")
    for name, found_rows in tables.items():
        table(name, found_rows)


if __name__ == "__main__":
    main()
