"""Tables for people: coloured on a terminal, plain in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

from rich.box import ASCII2, SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_PIPE_WIDTH = 500  # a pipe has no width; wide enough that no row wraps
_UNUSED = 20  # keys that nothing uses, of a file of weights
_WIDE = 160  # from here on a column of sources is readable


def console_of_output() -> Console:
    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else _PIPE_WIDTH, highlight=False)


def table_of(title: str, columns: dict[str, str], narrow: bool = False) -> Table:
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    box = SIMPLE_HEAD if unicode else ASCII2
    spacing = {"padding": 0, "show_edge": False} if narrow else {"padding": (0, 1, 0, 0)}
    table = Table(title=title, title_justify="left", title_style="bold", box=box, pad_edge=False, **spacing)
    for name, justify in columns.items():
        # Numbers never wrap; in a terminal that is too narrow the last columns lose their end first.
        table.add_column(name, justify=justify, no_wrap=narrow)  # type: ignore[arg-type]
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table; in a pipe without the blanks at the ends of lines."""
    if sys.stdout.isatty():
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows what is being done: a spinner on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("starting") as status:
        yield lambda text: status.update(text)


_STYLE = {"converged": "green", "nonfinite": "red", "diverged": "red", "error": "red"}


_REAL = (
    "residual: max |r|, r = f(h[t-1]) - h[t]; error: max |h - h of the sequential loop|\n"
    "converged: |r| <= tolerance (m + max(|h|, |f|)) in every entry; m = 1, but with the\n"
    "default tolerance and units that couple the largest of 1, |h|, |f| in its lane\n"
    "trust: converged, and an error estimated at no more than 1 % of the size of the states"
)
_DISCRETE = (
    "residual: 1 where f(h[t-1]) is not h[t]; error: how large a part of the states is not the loop's\n"
    "converged: equal, which can be trusted"
)


COLUMNS = {
    "solver": "left", "status": "left", "iter": "right", "residual": "right", "error": "right",
    "time": "right", "vs loop": "right", "trust": "left", "kappa": "right",
}  # fmt: skip


def show_comparison(result: Any) -> None:
    """Print one table per panel, and what to do about solvers that did not converge. Fits 80 columns."""
    console = console_of_output()
    sequences = f"{result.sequences} sequence{'s' * (result.sequences > 1)}"
    console.print(f"{result.recording}: {result.steps}, {sequences}, {result.dtype}, seed {result.seed}", markup=False)
    for found in result.panels:
        if found.entries:
            print_table(console, _comparison_table(found))
            _print_messages(console, found.entries)
            console.print()
    _print_words(console, result)


def comparison_text(found: Any) -> str:
    """Return the table of one comparison as text, for any terminal: without colours, 88 columns wide."""
    plain: dict[str, Any] = {"color_system": None, "force_terminal": False, "force_jupyter": False}
    console = Console(width=88, highlight=False, file=StringIO(), **plain)
    console.print(_comparison_table(found))
    _print_messages(console, found.entries)
    _print_words(console, found)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def _comparison_table(found: Any) -> Table:
    from recsolve.studies.groups import grouped

    table = table_of(escape(found.headline), COLUMNS, narrow=True)
    for group, members in grouped(found.entries, lambda entry: str(entry.group)).items():
        table.add_row(_heading(group))
        for entry in members:
            status, *numbers = cells_of(entry)
            shown = status if status == "n/a" else f"[{_STYLE.get(status, 'yellow')}]{status}[/]"
            table.add_row(f" {escape(entry.solver)}", shown, *numbers)
    return table


def _print_words(console: Console, found: Any) -> None:
    """Print what the columns mean, and the time that they leave out."""
    console.print(_REAL if found.dtype.startswith("float") else _DISCRETE, markup=False)
    if found.compile_seconds >= 0.1:
        waited = three(found.compile_seconds)
        console.print(f"compiling, or loading what was compiled, took {waited} s, which no time includes", markup=False)


def cells_of(entry: Any) -> tuple[str, ...]:
    """Return the cells of an entry behind the name of its solver."""
    if entry.status == "inapplicable":
        return "n/a", *"-------"
    return (
        entry.status,
        str(entry.iterations),
        f"{entry.residual:.1e}",
        f"{entry.error:.1e}",
        _time(entry.seconds),
        f"{three(entry.relative)}x",
        {None: "-", True: "yes", False: "no"}[entry.trusted],
        f"{entry.condition:.0e}",
    )


def messages(entries: list[Any]) -> dict[str, list[str]]:
    """Return each message of a solver that did not converge, once, with the solvers that it is true of."""
    solvers: dict[str, list[str]] = {}
    for entry in entries:
        if entry.status != "converged":
            solvers.setdefault(entry.message, []).append(entry.solver)
    return solvers


def _print_messages(console: Console, entries: list[Any]) -> None:
    for message, names in messages(entries).items():
        console.print(f"{', '.join(names)}: {message}", markup=False)


def _time(seconds: float) -> str:
    return f"{three(1e3 * seconds)} ms" if seconds < 0.9995 else f"{three(seconds)} s"


def three(number: float) -> str:
    """Return three digits of a number that is neither tiny nor huge."""
    decimals = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{decimals}f}"


def _heading(group: str) -> str:
    return f"[bold]{escape(group)}[/]"


def show_weights(contents: Any) -> None:
    """Print the recurrent modules of a file, what is wrong with some, and what belongs to none."""
    console = console_of_output()
    record = contents.record()
    head = ("module", "cell", "layers", "directions", "input", "units", "output", "bias", "dtype")
    names = ("layers", "directions", "input_size", "hidden_size", "output_size", "bias", "dtype")
    table = table_of(escape(f"recurrent modules of {contents.path.name}"), _left(*head))
    for row in record["modules"]:
        cells = [{"True": "yes", "False": "no"}.get(text := str(row.get(name, "-")), text) for name in names]
        table.add_row(escape(row["name"] or "(no name)"), row["cell"] or "-", *cells)
    if record["modules"]:
        print_table(console, table)
    else:
        console.print(f"{contents.path.name} holds no recurrent layer of a known form (RNN, GRU, LSTM)", markup=False)
    for row in record["modules"]:
        if row["fault"] is not None:
            console.print(f"{row['name'] or '(no name)'} cannot be used: {row['fault']}", markup=False)
    unused = [f"  {key} {tuple(x['shape'])} {x['dtype']}" for key, x in record["unused"].items()]
    if unused:
        console.print(f"not recurrent, not used ({len(unused)}):", markup=False)
        rest = len(unused) - _UNUSED
        console.print(
            "\n".join(unused[:_UNUSED] + [f"  and {rest} more (--json lists all)"] * (rest > 0)), markup=False
        )


def show_cells() -> None:
    """Print the built-in cells."""
    from recsolve import cells

    columns = ("cell", "state", "mixings", "drives", "Jacobian: diagonal mixing", "dense mixing", "source")
    table = table_of("cells", _left(*columns))
    for name, cell in cells.REGISTRY.items():
        k = len(cell.state)
        unit = "diagonal" if k == 1 else f"{k} x {k} per unit"
        coupled = ("factored, nested" if name == "cho_gru" else "factored") if cell.mixings else unit
        table.add_row(
            name,
            ", ".join(cell.state),
            ", ".join(cell.mixings) or "none",
            ", ".join(cell.drives),
            unit,
            coupled,
            cell.cite,
        )
    print_table(console_of_output(), table)


_AFFINE = {"all": "yes", "per-unit": "if units do not couple", "none": "no", "varies": "depends on the method chosen"}


def show_solvers() -> None:
    """Print the solvers, a section per group. Sources get a table of their own where the terminal is narrow."""
    from recsolve.solvers import REGISTRY
    from recsolve.studies.groups import solvers_by_group

    console = console_of_output()
    facts = ("A, in place of J", "exact within T by itself", "one update on affine problems", "causal")
    wide = console.width >= _WIDE
    table = table_of(r"solvers: h <- F + A d\[t-1], d = A d\[t-1] + r", _left("solver", *facts, *["source"] * wide))
    sources = table_of("sources", _left("solver", "source"))
    for group, names in solvers_by_group().items():
        table.add_section()
        table.add_row(_heading(group))
        for solver in (REGISTRY[name] for name in names):
            exact = "yes" if solver.finite_termination else "with the pin"
            causal = "yes" if solver.causal else "no"
            row = (escape(solver.matrix), exact, _AFFINE[solver.exact_on_affine], causal, *[escape(solver.cite)] * wide)
            table.add_row(f" {escape(solver.name)}", *row)
            sources.add_row(escape(solver.name), escape(solver.cite))
    for shown in (table,) if wide else (table, sources):
        shown.columns[0].no_wrap = True
        print_table(console, shown)


def _left(*columns: str) -> dict[str, str]:
    return dict.fromkeys(columns, "left")


def show_information(found: dict[str, Any]) -> None:
    """Print versions, machine, kernels and array libraries."""
    table = table_of("recsolve", _left("what", "found"))
    for name, version in found["versions"].items():
        table.add_row(name, version)
    for name, value in found["machine"].items():
        table.add_row(name, str(value))
    for operation, backends in found["kernels"].items():
        table.add_row(f"kernel: {operation}", ", ".join(backends))
    for name, state in found["arrays"].items():
        table.add_row(f"arrays: {name}", escape(state))
    print_table(console_of_output(), table)


def show_rows(title: str, head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Print a table of texts and numbers."""
    table = table_of(title, _left(*head))
    table.columns[0].no_wrap = True  # a name that is cut short cannot be typed
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row))
    print_table(console_of_output(), table)
