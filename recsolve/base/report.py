"""Facts by name, as text for terminals and as small tables of HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from textwrap import wrap

WIDTH = 80


def as_text(title: str, facts: Mapping[str, str], width: int | None = None) -> str:
    """Return a title, and below it a line per fact; with a width long ones go on in the next line.

    Examples
    --------
    >>> from recsolve.base.report import as_text
    >>> print(as_text("Solution", {"message": "converged", "nit": "3"}))
    Solution
      message: converged
          nit: 3
    """
    indent = max(map(len, facts), default=0) + 4
    lines = [title]
    for name, value in facts.items():
        parts = [value] if width is None else wrap(value, max(width - indent, 20)) or [""]
        lines.append(f"{name:>{indent - 2}}: {parts[0]}")
        lines += [" " * indent + part for part in parts[1:]]
    return "\n".join(lines)


def as_html(title: str, facts: Mapping[str, str]) -> str:
    """Return a title and facts as a table of HTML, in which nothing that they hold is markup.

    Examples
    --------
    >>> from recsolve.base.report import as_html
    >>> "a &lt; b" in as_html("Solution", {"message": "a < b"})
    True
    """
    return table_html(title, {}, facts.items())


def table_html(title: str, columns: Mapping[str, str], rows: Iterable[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """Return rows of texts as a table of HTML, with notes below; escaped, without styles from elsewhere.

    Parameters
    ----------
    title : str
    columns : mapping
        The names of the columns, each with the side to which it is aligned; empty for a table without a head, whose
        cells are aligned to the left. The first cell of every row is its name.
    rows : iterable of sequences of str
    notes : sequence of str
    """
    sides = [*columns.values()]

    def row(cells: Sequence[str], names: int) -> str:
        found = []
        for i, cell in enumerate(cells):
            tag, side = "th" if i < names else "td", sides[i] if sides else "left"
            found.append(f'<{tag} style="text-align: {side}; padding: 0.1em 0.5em">{escape(cell)}</{tag}>')
        return f"<tr>{''.join(found)}</tr>"

    parts = [f'<caption style="text-align: left; font-weight: bold">{escape(title)}</caption>']
    if columns:
        parts.append(f"<thead>{row([*columns], len(columns))}</thead>")
    parts.append(f"<tbody>{''.join(row(cells, 1) for cells in rows)}</tbody>")
    below = "".join(f"<div>{escape(note)}</div>" for note in notes)
    return f'<div style="overflow-x: auto"><table>{"".join(parts)}</table>{below}</div>'


class Reported:
    """The base of results that tell about themselves: ``repr``, a summary, a table in notebooks."""

    def _facts(self) -> dict[str, str]:
        """Return by name what is known without computing anything."""
        raise NotImplementedError

    def _details(self) -> dict[str, str]:
        """Return all that a summary says."""
        return self._facts()

    def __repr__(self) -> str:
        return as_text(type(self).__name__, self._facts())

    def _repr_html_(self) -> str:
        return as_html(type(self).__name__, self._facts())

    def summary(self) -> str:
        """Return what there is to know, in lines of at most 80 columns.

        Beside what ``print`` shows that is whether the result is trusted, its error and conditioning, and more; what
        of this has not been asked for before is computed, which takes a few scans.

        Returns
        -------
        str

        Examples
        --------
        >>> import numpy as np, recsolve as rs
        >>> rec = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0).recurrence(np.ones((60, 3)))
        >>> text = rs.solve(rec).summary()
        >>> text.splitlines()[0], max(map(len, text.splitlines())) <= 80
        ('Solution', True)
        """
        return as_text(type(self).__name__, self._details(), WIDTH)
