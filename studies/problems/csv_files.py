"""Tables of numbers as programs write them: names, units, comments, quotes, other delimiters, decimal commas.

A table is wrong in one place, so an error names its line and column, counted from 1.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from recsolve.base.arrays import Array

_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar", " ": "blanks"}
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d+")
_COMMENT = re.compile(r'("[^"]*")|^\s*[#%].*|\s#.*')  # a line or the end of one, but nothing quoted
_MISSING = {"na", "n/a", "#n/a", "nil", "none", "null", "missing"}
_SEEN = 50  # of the last lines, which names and units are not among, to find the delimiter


@dataclass(frozen=True)
class Table:
    """Numbers with the lines that they stand in.

    Attributes
    ----------
    numbers : array, shape (N, columns)
        float64.
    lines : list of int
        The line of each row, from 1.
    note : str
        What was taken for names although it is numbers, or nothing.
    """

    numbers: Array
    lines: list[int]
    note: str = ""


@dataclass(frozen=True)
class _Row:
    line: int
    cells: list[str]
    quoted: bool

    def numbers(self, decimal_comma: bool) -> list[float | None]:
        return [_number(cell, decimal_comma) for cell in self.cells]


def read_table(path: Path) -> Table:
    """Read a table of numbers.

    Left out are leading rows without numbers (names, units, what a program says about itself), and a first row of names
    some or all of which are numbers: with words among them, with an empty corner before 0, 1, 2, ..., quoted where the
    rows below are not, or increasing integers above numbers none of which is written as one. Comments begin with # or
    %. Empty cells at the end of a row do not count. The delimiter is the one that makes the most numbers; where it is
    no comma, a comma is decimal.

    Raises
    ------
    ValueError
        Where a cell is missing or is no number; the message names its line and column.
    """
    return table_of(text_of(path))


def text_of(path: Path) -> str:
    """Return the text of a file in UTF-8, in UTF-16 with its mark, or else in the encoding of Windows.

    Lines end with one character, whatever they end with in the file.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:  # a degree sign among the units, say
        text = content.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def table_of(text: str) -> Table:
    """Return the numbers of a text; see :func:`read_table`."""
    lines = [_COMMENT.sub(lambda found: found[1] or "", line) for line in text.split("\n")]
    delimiter = _delimiter([line for line in lines if line.strip()][-_SEEN:])
    rows = list(_rows(lines, delimiter))
    if not rows:
        return Table(np.zeros((0, 1)), [])
    decimal_comma = delimiter != ","
    parsed = [row.numbers(decimal_comma) for row in rows]
    whole = Counter(len(numbers) for numbers in parsed if None not in numbers)
    width = whole.most_common(1)[0][0] if whole else max(len(row.cells) for row in rows)
    start, note = _start(rows, parsed, width)
    for row, numbers in zip(rows[start:], parsed[start:], strict=True):
        _check(row, numbers, width, delimiter)
    return Table(np.array(parsed[start:], np.float64).reshape(-1, width), [row.line for row in rows[start:]], note)


def is_number(word: str) -> bool:
    """Return whether a word is a number, nan and inf included."""
    return _number(word, False) is not None


def _number(word: str, decimal_comma: bool) -> float | None:
    if decimal_comma and _DECIMAL_COMMA.fullmatch(word):
        word = word.replace(",", ".")
    try:
        return None if "_" in word else float(word)
    except ValueError:
        return None


def _delimiter(lines: Sequence[str]) -> str:
    """Return what makes the most rows of numbers, and the most numbers, of some lines."""
    there = [mark for mark in _DELIMITERS if any(mark in line for line in lines)]
    if "\t" in there and " " in there:  # blanks are then within cells
        there.remove(" ")
    best, found = (0, 0), ","
    for mark in there:
        try:
            parsed = [row.numbers(mark != ",") for row in _rows(lines, mark)]
        except ValueError:
            continue
        score = (sum(None not in row for row in parsed), sum(len(row) - row.count(None) for row in parsed))
        if score > best:
            best, found = score, mark
    return found


def _rows(lines: Sequence[str], delimiter: str) -> Iterator[_Row]:
    """Yield the rows that hold anything, without the empty cells at their end."""
    if delimiter == " ":  # any number of them, at the ends as well
        lines = [" ".join(line.split()) for line in lines]
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    before = 0
    try:
        for cells in reader:
            line, before = before + 1, reader.line_num
            cells = [cell.strip() for cell in cells]
            while cells and not cells[-1]:
                cells.pop()
            if cells:
                yield _Row(line, cells, lines[line - 1].count('"') >= 2 * len(cells))
    except csv.Error as error:
        raise ValueError(f"line {before + 1} cannot be split into cells: {error}") from None


def _start(rows: list[_Row], parsed: list[list[float | None]], width: int) -> tuple[int, str]:
    """Return at which row the numbers begin, and what to say of a first row of names that are numbers."""
    note = ""
    for index, (row, numbers) in enumerate(zip(rows, parsed, strict=True)):
        words = [cell for cell, number in zip(row.cells, numbers, strict=True) if number is None]
        if not words:
            if index or not _names_that_are_numbers(rows, parsed):
                return index, note
            names = ",".join(row.cells)
            note = f"named {names if len(names) <= 24 else names[:21] + '...'} by its first row"
        elif len(words) < len(row.cells) and len(row.cells) == width:  # numbers, and words among them
            corner = words == [""] and numbers == [None, *range(width - 1)]
            if index or not (corner or any(map(_is_name, words))):
                return index, note  # where the first of the words is refused
    # No row is all numbers: the first with any says best what is wrong.
    some = [i for i, numbers in enumerate(parsed) if len(numbers) > numbers.count(None)]
    return (some or [0])[0], note


def _names_that_are_numbers(rows: list[_Row], parsed: list[list[float | None]]) -> bool:
    """Return whether a first row of numbers cannot be one of the rows below."""
    first, below = rows[0], rows[1:]
    if not below:
        return False
    if first.quoted and not any(row.quoted for row in below):
        return True
    numbers = [number for number in parsed[0] if number is not None]
    increasing = len(numbers) > 1 and all(a < b for a, b in pairwise(numbers))
    return (
        increasing
        and all(_INTEGER.fullmatch(cell) for cell in first.cells)
        and not any(_INTEGER.fullmatch(cell) for row in below for cell in row.cells)
    )


def _is_name(word: str) -> bool:
    return any(map(str.isalpha, word)) and word.lower() not in _MISSING


def _check(row: _Row, numbers: list[float | None], width: int, delimiter: str) -> None:
    for column, (cell, number) in enumerate(zip(row.cells, numbers, strict=True), start=1):
        if number is None:
            seen = f"is {cell[:40]!r}" if cell else "is empty"
            raise ValueError(
                f"line {row.line}, column {column} {seen}; wanted a number (columns are separated by "
                f"{_DELIMITERS[delimiter]})"
            )
    if len(numbers) < width:
        raise ValueError(f"line {row.line}, column {len(numbers) + 1} is empty; wanted {width} numbers in every row")
    if len(numbers) > width:
        seen = row.cells[width][:40]
        raise ValueError(f"line {row.line}, column {width + 1} is {seen!r}; wanted {width} numbers, as in other rows")
