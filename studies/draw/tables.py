"""Tables for people: coloured on a terminal, plain in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

from rich.box import ASCII2, SIMPLE_HEAD
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

_PIPE_WIDTH = 500  # a pipe has no width; wide enough that no row wraps
_UNUSED = 20  # keys that nothing uses, of a file of weights
_WIDE = 160  # from here on a column of sources is readable
_NAMES = 0.5  # the share of the width that names may take whole


def console_of_output() -> Console:
    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else _PIPE_WIDTH, highlight=False)


def table_of(title: str, columns: dict[str, str], narrow: bool = False) -> Table:
    """Return a table whose cells go on in the next line where they do not fit: nothing is ever cut."""
    unicode = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")  # some have no output
    box = SIMPLE_HEAD if unicode else ASCII2
    spacing = {"padding": 0, "show_edge": False} if narrow else {"padding": (0, 1, 0, 0)}
    table = Table(title=title, title_justify="left", title_style="bold", box=box, pad_edge=False, **spacing)
    for name, justify in columns.items():
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table, names in the first column whole; in a pipe without the blanks at the ends of lines."""
    names = table.columns[0]
    names.width = min(console.measure(Group(names.header, *names.cells)).maximum, int(_NAMES * console.width))
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


def cell_rows() -> list[dict[str, Any]]:
    """Return the built-in cells, a row each."""
    from recsolve import cells

    rows = []
    for name, cell in cells.REGISTRY.items():
        k = len(cell.state)
        unit = "diagonal" if k == 1 else f"{k} x {k} per unit"
        coupled = ("factored, nested" if name == "cho_gru" else "factored") if cell.mixings else unit
        rows.append(
            {
                "name": name, "state": list(cell.state), "mixings": list(cell.mixings), "drives": list(cell.drives),
                "diagonal": unit, "dense": coupled, "cite": cell.cite,
            }
        )  # fmt: skip
    return rows


def show_cells() -> None:
    """Print the built-in cells."""
    columns = ("cell", "state", "mixings", "drives", "Jacobian: diagonal mixing", "dense mixing", "source")
    rows = [[", ".join(x) or "none" if isinstance(x, list) else x for x in row.values()] for row in cell_rows()]
    show_rows("cells", columns, map(tuple, rows))


_AFFINE = {"all": "yes", "per-unit": "if units do not couple", "none": "no", "varies": "depends on the method chosen"}


def solver_rows() -> list[dict[str, Any]]:
    """Return the solvers by group, a row each."""
    from recsolve.solvers import REGISTRY
    from recsolve.studies.groups import solvers_by_group

    facts = ("name", "group", "matrix", "finite_termination", "exact_on_affine", "causal", "cite")
    found = (REGISTRY[name] for names in solvers_by_group().values() for name in names)
    return [{fact: getattr(solver, fact) for fact in facts} for solver in found]


def show_solvers() -> None:
    """Print the solvers, a section per group. Sources get a table of their own where the terminal is narrow."""
    from recsolve.studies.groups import grouped

    console = console_of_output()
    facts = ("A, in place of J", "exact within T by itself", "one update on affine problems", "causal")
    wide = console.width >= _WIDE
    table = table_of(r"solvers: h <- F + A d\[t-1], d = A d\[t-1] + r", _left("solver", *facts, *["source"] * wide))
    sources = table_of("sources", _left("solver", "source"))
    for group, rows in grouped(solver_rows(), lambda row: str(row["group"])).items():
        table.add_section()
        table.add_row(_heading(group))
        for row in rows:
            name, cite = escape(row["name"]), escape(row["cite"])
            exact = "yes" if row["finite_termination"] else "with the pin"
            causal = "yes" if row["causal"] else "no"
            affine = _AFFINE[row["exact_on_affine"]]
            table.add_row(f" {name}", escape(row["matrix"]), exact, affine, causal, *[cite] * wide)
            sources.add_row(name, cite)
    for shown in (table,) if wide else (table, sources):
        print_table(console, shown)


def _left(*columns: str) -> dict[str, str]:
    return dict.fromkeys(columns, "left")


def show_information(found: dict[str, Any]) -> None:
    """Print versions, machine, kernels, array libraries, and what a solve would use."""
    solves, cache, gpu = found["solves"], found["cache"], found["gpu"]
    compiled = f"compiled loops, {solves['threads']} thread{'s' * (solves['threads'] > 1)}"
    words = {None: "-", "numpy": "NumPy", "numba": compiled, "cuda": "CUDA kernels", "cupy": "CuPy, no kernels"}
    seen = ", ".join(gpu["devices"]) or ("there, without a name" if gpu["usable"] else "none found")
    kept = f"{cache['folder']}: {cache['files']} files, {cache['bytes'] / 1e6:.1f} MB"
    rows = [
        *found["versions"].items(),
        *found["machine"].items(),
        *((f"kernel: {operation}", ", ".join(backends)) for operation, backends in found["kernels"].items()),
        *((f"arrays: {name}", state) for name, state in found["arrays"].items()),
        ("GPU", seen),
        ("backend", solves["fault"] or f"{solves['backend']} ({solves['set_by']})"),
        ("solve of 64 steps", words[solves["small"]]),
        ("solve of 16384 steps", words[solves["large"]]),
        ("solve on a GPU", words[solves["gpu"]]),
        ("compiled code", cache["fault"] or kept),
    ]
    show_rows("recsolve", ("what", "found"), rows)


def show_rows(title: str, head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Print a table of texts and numbers."""
    table = table_of(title, _left(*head))
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row))
    print_table(console_of_output(), table)
