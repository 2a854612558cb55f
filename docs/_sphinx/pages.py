"""What pages that are read on GitHub too need here: titles in the place of file names, and numbers to the right."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

# A number with an exponent, a unit, a range or another number behind it, or what stands for none.
NUMBER = re.compile(r"[+-]?\d[\d.,]*(e[+-]?\d+)? ?(%|x|[munµ]?s|[KMG]?i?B)?( \(.*\))?|-|–|nan|inf|")


class Titles(SphinxPostTransform):
    """Links whose text is the name of the file, [cells.md](cells.md), show the title of the page."""

    default_priority = 8  # before MyST resolves them

    def run(self, **_: Any) -> None:
        for link in self.document.findall(addnodes.pending_xref):
            if link["reftype"] == "myst" and re.fullmatch(r"[\w/.-]+\.md", link.astext()):
                link["refexplicit"] = False


class Numbers(SphinxTransform):
    """Columns of numbers are aligned right."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        for group in self.document.findall(nodes.tgroup):
            rows = list(group.findall(nodes.row))
            inside = [row.children for row in rows if not isinstance(row.parent, nodes.thead)]
            for place, column in enumerate(zip(*inside, strict=False)):
                texts = [entry.astext().strip() for entry in column]
                if re.search(r"\d", "".join(texts)) and all(NUMBER.fullmatch(text) for text in texts):
                    for row in rows:
                        row.children[place]["classes"].append("text-right")


def spread(app: Sphinx, env: Any, names: list[str]) -> None:
    """Take neighbours apart: processes read ten pages each, and those that run code lie side by side."""
    names[:] = [name for first in range(9) for name in names[first::9]]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("env-before-read-docs", spread)
    app.add_post_transform(Titles)
    app.add_transform(Numbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
