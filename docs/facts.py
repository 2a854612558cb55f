"""Keep what the pages count true: ``python docs/facts.py`` writes every marked place anew, from where it comes from.

A marked place stands between two comments, which no reader sees:

    there are <!-- fact: studies -->66<!-- /fact --> studies

The words after the colon are a function of ``FACTS`` and its arguments. Lists and tables come from the registries,
figures from the tables that are committed (docs/gallery.md, docs/tanh_rnn.md, docs/benchmarks.md). A test asserts that
nothing is out of date.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import recsolve as rs

ROOT = Path(__file__).parent.parent
PLACE = re.compile(r"(<!-- fact: (.*?) -->)(.*?)(<!-- /fact -->)", re.DOTALL)
EXACT = {"all": "yes", "per-unit": "if units do not couple", "none": "no", "varies": "as the method chosen"}


def pages() -> list[Path]:
    """Return all pages, README.md among them."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def current(text: str) -> str:
    """Return a page with every marked place written anew."""
    return PLACE.sub(lambda place: f"{place[1]}{value(place[2])}{place[4]}", text)


def value(words: str) -> str:
    """Return what stands in a place; what has several lines, as a table, with empty ones around it."""
    name, *arguments = shlex.split(words)
    text = FACTS[name](*arguments)
    return f"\n\n{text}\n\n" if "\n" in text else text


# What the registries hold ----------------------------------------------------------------------------------------


def studies() -> str:
    """How many studies there are."""
    from recsolve.studies.registry import CATALOGUE

    return str(len(CATALOGUE))


def questions() -> str:
    """What each study asks."""
    from recsolve.studies.registry import CATALOGUE, get

    return table(("study", "it asks"), ((f"`{name}`", get(name).question) for name in CATALOGUE))


def solvers() -> str:
    """How many solvers there are."""
    return str(len(rs.solvers.REGISTRY))


def family() -> str:
    """The solvers of each group, with the page that describes them."""
    groups = {group: [name for name, method in _known() if method.group == group] for group in rs.solvers.GROUPS}
    rows = (
        (f"[{group}]({page_of(group)})", ", ".join(f"`{name}`" for name in names)) for group, names in groups.items()
    )
    return table(("group", "solvers"), rows)


def group(name: str) -> str:
    """What is guaranteed of the solvers of a group."""
    head = (
        "solver",
        "A, in place of J",
        "exact within T by itself",
        "one update if f is affine",
        "causal",
        "on graphs",
    )
    return table(head, (_promises(method) for _, method in _known() if method.group == name))


def page_of(group: str) -> str:
    """Return the name of the page of a group."""
    return group.replace(" ", "_").replace("-", "_") + ".md"


def _promises(method: type[rs.solvers.Method]) -> tuple[str, ...]:
    within = "yes" if method.finite_termination else "with the pin"
    flags = ("yes" if flag else "no" for flag in (method.causal, method.graphs))
    return f"`{method.name}`", method.matrix, within, EXACT[method.exact_on_affine], *flags


def _known() -> Iterable[tuple[str, type[rs.solvers.Method]]]:
    return rs.solvers.REGISTRY.items()


# What was measured -----------------------------------------------------------------------------------------------


@cache
def gallery() -> dict[str, dict[str, int]]:
    """Return the iterations of docs/gallery.md by problem and solver."""
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    sections = re.findall(r"\n## (\w+)\n(.*?)(?=\n## |\Z)", text, re.DOTALL)
    return {
        name: {row[0]: int(row[2]) for row in _rows(section) if row[0] in rs.solvers.REGISTRY}
        for name, section in sections
    }


def iterations(solver: str, problem: str) -> str:
    """How many iterations a solver takes on a problem of the gallery."""
    return str(gallery()[problem][solver])


def most(solver: str) -> str:
    """The most iterations that a solver takes on any problem of the gallery."""
    return str(max(found[solver] for found in gallery().values()))


def tanh_network(solver: str, gain: str) -> str:
    """The median of iterations on tanh networks of a gain, of docs/tanh_rnn.md."""
    head, _, *rows = _rows((ROOT / "docs" / "tanh_rnn.md").read_text(encoding="utf-8"))
    return next(row[head.index(f"g = {gain}")].split()[0] for row in rows if row[0] == solver)


def benchmark(solve: str, how: str = "slower") -> str:
    """How many times slower, or faster, than what is beside it a solve was, of the tables of docs/benchmarks.md."""
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = (" ".join(line.replace("|", " ").split()) for line in text.splitlines() if line.startswith((" ", "|")))
    ratios = [float(re.findall(r" ([\d.]+)x\b", row)[0]) for row in rows if re.match(f"{solve} ", row)]
    return between(1 / ratio if how == "slower" else ratio for ratio in ratios)


def kernel(pattern: str) -> str:
    """The time of kernels on a GPU over that of a copy, of rows of docs/benchmarks.md that begin with a pattern."""
    rows = _rows((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"))
    column = {15: 7, 8: 5}  # of "ratio", in the table of solves and in that of scans
    found = (row[column[len(row)]] for row in rows if len(row) in column and re.match(pattern, " ".join(row[:4])))
    return between(float(ratio) for ratio in found if ratio[:1].isdigit())


def _rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of the rows of tables."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


# How it is written -----------------------------------------------------------------------------------------------


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of Markdown."""
    cells = list(head)
    lines = (cells, ["---"] * len(cells), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def between(values: Iterable[float]) -> str:
    """Return the least and the largest of some numbers, to two digits: "1.5 to 13"."""
    known = list(values)
    low, high = (f"{x:.1f}" if x < 9.95 else f"{x:.0f}" for x in (min(known), max(known)))
    return low if low == high else f"{low} to {high}"


FACTS: dict[str, Callable[..., str]] = {
    fact.__name__.replace("_", "-"): fact
    for fact in (
        studies, questions, solvers, family, group, iterations, most, tanh_network, benchmark, kernel,
    )
}  # fmt: skip


def main() -> None:
    """Write all pages anew, and name those that have changed."""
    for page in pages():
        before = page.read_text(encoding="utf-8")
        if (after := current(before)) != before:
            page.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
