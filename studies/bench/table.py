"""The one table of times: columns that show what rows hold under their names, and a line on how to read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.markup import escape

from recsolve.studies.draw.tables import console_of_output, print_table, table_of, three

Row = dict[str, Any]  # JSON values; None is what has not been measured


class Column(NamedTuple):
    """A heading, and what a row shows under it."""

    head: str
    show: Callable[[Row], str]
    justify: str = "right"


@dataclass(frozen=True)
class Table:
    """A title, columns, and the line below them."""

    title: str
    columns: Sequence[Column]
    note: str

    def label(self, row: Row) -> str:
        """Return what was timed, in the words of the first two columns."""
        return ", ".join(column.show(row) for column in self.columns[:2])

    def show(self, rows: Sequence[Row]) -> None:
        """Print rows."""
        table = table_of(self.title, {column.head: column.justify for column in self.columns})
        for row in rows:
            table.add_row(*(column.show(row) for column in self.columns))
        console = console_of_output()
        print_table(console, table)
        console.print(self.note, markup=False)


def _column(head: str, name: str, words: Callable[[Any], str], justify: str = "right") -> Column:
    return Column(head, lambda row: "" if row[name] is None else words(row[name]), justify)


def text(name: str, head: str = "") -> Column:
    """Return a column of words."""
    return _column(head or name, name, escape, "left")


def number(head: str, name: str, scale: float = 1.0, unit: str = "") -> Column:
    """Return a column of three digits."""
    return _column(head, name, lambda x: f"{three(scale * x)}{unit}")


def times(head: str, name: str) -> Column:
    """Return a column of ratios, as in 1.50x."""
    return number(head, name, unit="x")


def error(head: str, name: str) -> Column:
    """Return a column of errors: one digit and a power of ten, and ``nan`` for a wrong answer."""
    return _column(head, name, lambda x: f"{x:.0e}")


def some(head: str, name: str, words: Callable[[Any], str] = str) -> Column:
    """Return a column that shows nothing where a count is 0."""
    return _column(head, name, lambda x: words(x) if x else "")


def middle(head: str = "ms") -> tuple[Column, Column]:
    """Return the columns of the median and of the quartiles."""
    ends = Column("quartiles", lambda row: f"{three(1e3 * row['lower'])}-{three(1e3 * row['upper'])}")
    return number(head, "median", 1e3), ends


def on_gpu(title: str, *first: str, more: Sequence[Column] = ()) -> Table:
    """Return a table of times on a GPU beside the floor."""
    columns = (number(f"{name} us", name, 1e6) for name in ("floor", "kernel", "call"))
    floor, kernel, call = columns
    return Table(
        title,
        (*map(text, first), floor, kernel, number("ratio", "kernel_over_floor"), call, error("error", "error"), *more),
        "floor: a copy of the bytes that must move, in the same run; kernel: on the device, in a graph; call: from "
        "Python; error: against the loop in float64, relative to its largest number.",
    )
