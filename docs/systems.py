"""Write docs/systems.md: the recurrences of published systems, and every solver on them.

python docs/systems.py > docs/systems.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from gallery import Row, rows

import recsolve as rs
from recsolve.analysis.distance import distance
from recsolve.solvers.registry import which_apply
from recsolve.studies.compare.compare import extent
from recsolve.studies.store.provenance import versions
from recsolve.studies.systems.system import CATALOGUE, Arrays, System, get
from recsolve.studies.timing import in_turns

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from oracles import ORACLES  # noqa: E402 - it lies beside the tests

STEPS = 256  # of the tables of solvers
SECONDS, BUDGET = 2.0, 10.0  # after which a solve is stopped; of predictions
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
Solves are stopped after two seconds. Iterations are predicted by `recsolve.diagnose`. Errors are the largest distance
from the literal loop of the paper; of discrete states, the share that differs.
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


def section(module: str) -> Iterator[str]:
    """Yield the part of the page on one paper."""
    found = [get(name) for name, home in CATALOGUE.items() if home == module]
    yield f"## {found[0].title}\n"
    yield f"{found[0].cite}: `studies/systems/{module}.py`.\n"
    yield "```text\n" + found[0].text + "\n```\n"
    for system in found:
        yield from solved(system)
    for study in dict.fromkeys(filter(None, (system.study for system in found))):
        yield f"**In miniature**: `recsolve study run {study}`.\n"
        yield from shown(study)


def solved(system: System) -> Iterator[str]:
    """Yield the table of solvers of one system."""
    arrays = system.draw(system.configured(length=min(STEPS, system.config.length)))
    rec = system.build(arrays)
    yield f"### {system.name}\n"
    yield f"Jacobian: {system.structure}. {size(rec)}.\n"
    yield from table(list(rows(rec, ORACLES[system.name](arrays), most=SECONDS, budget=BUDGET)))
    yield ""
    if system.which_solvers() != "all":
        yield f"Not listed are those that do not apply: {which_apply(rec).partition(', since ')[2]}.\n"
    if system.scan is not None:
        gap = distance(system.scan(rec), rs.solve(rec, method="sequential").states)
        yield f"Exact scans without iterations: {'the bits of' if gap == 0 else f'at most {gap:.1e} from'} the loop.\n"


def size(rec: rs.Recurrence) -> str:
    """Say how large a recurrence is."""
    event, batch = (" x ".join(map(str, axes)) for axes in (rec.layout.event, rec.batch))
    return (
        f"{extent(rec)}, {f'a batch of {batch}' if batch else 'one sequence'}, states of {event or 'one'} {rec.dtype}"
    )


def shown(study: str) -> Iterator[str]:
    """Yield the figures of a study, and its sentences, from the page on studies."""
    pages = (ROOT / "docs" / "studies" / "README.md").read_text(encoding="utf-8").split("\n## ")
    for page in pages:
        name, _, body = page.partition("\n")
        if name == study:
            question, *parts, _ = body.strip().split("\n\n")
            yield from (f"{part.replace('](', '](studies/')}\n" for part in (f"*{question}*", *parts))


def main() -> None:
    """Write the page."""
    found = versions()
    print(HEAD.format(machine=f"two cores, NumPy {found['numpy']}, Numba {found.get('numba', 'none')}"))
    print("## Loops and scans\n\nMilliseconds of the literal loop, and multiples of it; the default backends.\n")
    print("\n".join(loops()), "\n")
    for module in dict.fromkeys(CATALOGUE.values()):
        print("\n".join(section(module)))


if __name__ == "__main__":
    main()
