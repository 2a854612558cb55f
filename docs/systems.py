"""Write docs/systems.md: the recurrences of published systems, and every solver on them.

python docs/systems.py > docs/systems.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from gallery import Row, rows

import recsolve as rs
from recsolve.studies.store.provenance import versions
from recsolve.studies.systems.solved import distance
from recsolve.studies.systems.system import CATALOGUE, Arrays, System, get
from recsolve.studies.timing import in_turns

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from oracles import ORACLES  # noqa: E402 - it lies beside the tests

STEPS = 256  # of the tables of solvers
LENGTHS = (1024, 4096, 16384)  # of the table of loops and scans
HEAD = """# Systems: the recurrences of published papers

Each is one short file in `studies/systems`, written as its paper writes it; literal loops in `tests/oracles` judge it.

```
recsolve systems list
recsolve systems show minmax
recsolve systems solve minmax --set length=100000
recsolve compare --system minmax
```

In Python, `recsolve.studies.systems.system.get("minmax").build(length=4096)` is a recurrence like any other.

Times are the least of a few, on {machine}, compilation left out; *loop* is the solver `sequential`.
Iterations are predicted by `recsolve.diagnose`, where it applies. Errors are the largest distance from the literal loop
of the paper.
"""


def literal(system: System, arrays: Arrays) -> float:
    """Return the seconds of the literal loop."""
    return float(in_turns([lambda: ORACLES[system.name](arrays)], 3, 1.0).min())


def loops() -> Iterator[str]:
    """Yield the rows of the table of loops and scans, in milliseconds."""
    yield "| system | T | literal loop | `sequential`, times it | scans, times it |"
    yield "|---|---|---|---|---|"
    for name in CATALOGUE:
        system = get(name)
        for T in LENGTHS if system.scan is not None else LENGTHS[1:2]:
            arrays = system.draw(type(system.config)(**{**vars(system.config), "length": T}))
            rec, slow = system.build(arrays), literal(system, arrays)
            runs = [lambda rec=rec: rs.solve(rec, method="sequential")]
            if system.scan is not None:
                runs.append(lambda rec=rec, scan=system.scan: scan(rec))
            for run in runs:
                run()  # compiles
            fast = in_turns(runs, 5, 1.0).min(axis=1)
            ratios = [f"{seconds / slow:.2g}" for seconds in fast]
            yield f"| {name} | {T} | {1e3 * slow:.3g} | {ratios[0]} | {ratios[1] if len(ratios) > 1 else '-'} |"


def table(found: list[Row]) -> Iterator[str]:
    """Yield the rows of the table of solvers."""
    loop = next(row.seconds for row in found if row.solver == "sequential")
    yield "| solver | status | iterations | predicted | error | time over the loop |"
    yield "|---|---|---|---|---|---|"
    for row in found:
        predicted = "-" if row.predicted is None else row.predicted
        yield (
            f"| {row.solver} | {row.status} | {row.iterations} | {predicted} | {row.error:.1e} "
            f"| {row.seconds / loop:.2g} |"
        )


def section(system: System) -> Iterator[str]:
    """Yield the part of the page on one system."""
    rec = system.build(length=min(STEPS, system.config.length))
    yield f"## {system.name}\n"
    yield f"{system.title} ({system.cite}). Jacobian: {system.structure}.\n"
    yield "```text\n" + system.text + "\n```\n"
    yield f"T = {rec.length}, {rec.batch or 'no'} batch, states of {rec.layout.event}, {rec.dtype}.\n"
    yield from table(list(rows(rec)))
    yield ""
    if system.scan is not None:
        gap = distance(system.scan(rec), rs.solve(rec, method="sequential").states)
        yield f"Exact scans without iterations: at most {gap:.1e} from the loop.\n"
    if system.study is not None:
        yield f"In miniature: `recsolve study run {system.study}` ([figures](studies/README.md)).\n"


def main() -> None:
    """Write the page."""
    found = versions()
    print(HEAD.format(machine=f"two cores, NumPy {found['numpy']}, Numba {found.get('numba', 'none')}"))
    print("## Loops and scans\n\nMilliseconds of the literal loop, and multiples of it; the default backends.\n")
    print("\n".join(loops()), "\n")
    for name in CATALOGUE:
        print("\n".join(section(get(name))))


if __name__ == "__main__":
    main()
