"""Docstrings are written to be read: stars and bars of shapes and norms, (T, *batch) and |r|, stand for themselves.

reStructuredText would take them for markup, so they are escaped, but not in code and not around single words, which
they emphasise.
"""

import re
from itertools import groupby
from typing import Any

from sphinx.application import Sphinx

_KEPT = r"``.+?``|:[a-z:]+:`.+?`|`[^`]+`_{0,2}|(?<![\w*])\*[A-Za-z][\w'-]*\*(?![\w*])"
_MARKS = re.compile(rf"({_KEPT})|[*|]|(?<=\w)_(?=\W|_|$)", re.DOTALL)


def _is_code(lines: list[str]) -> list[bool]:
    """Return which lines are examples, or stand indented below a paragraph that ends in two colons."""
    found, example, outer = [], False, None
    for line in lines:
        text, indent = line.strip(), len(line) - len(line.lstrip())
        example = text.startswith(">>>") or (example and bool(text))
        if outer is not None and text and indent <= outer:
            outer = None
        found.append(example or outer is not None)
        if not found[-1] and text.endswith("::"):
            outer = indent
    return found


def escape(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Escape what is no markup, in place."""
    escaped = []
    for code, block in groupby(zip(_is_code(lines), lines, strict=True), key=lambda pair: pair[0]):
        text = "\n".join(line for _, line in block)
        escaped += (text if code else _MARKS.sub(lambda m: m[1] or "\\" + m[0], text)).split("\n")
    lines[:] = escaped


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", escape, priority=400)  # before numpydoc
    return {"parallel_read_safe": True, "parallel_write_safe": True}
