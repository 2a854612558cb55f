"""Pages that are executed when the site is built check what they claim, and their pictures say what they show."""

import ast
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
TUTORIALS = ["cell", "torch_model", "training", "trust", "grid", "decoder", "memory", "many_gpus"]
PAGES = ["start.md", "choose.md", *(f"tutorials/{name}.md" for name in TUTORIALS)]
OPTIONS = r"(?P<options>---\n.*?\n---\n|(?::[^\n]*\n)+)?"
CELL = re.compile(r"^```\{code-cell\} ipython3\n" + OPTIONS + r"(?P<code>.*?)^```", re.S | re.M)


def cells(page):
    """Return (options, tree) of each code cell."""
    found = list(CELL.finditer((DOCS / page).read_text(encoding="utf-8")))
    return [(cell["options"] or "", ast.parse(cell["code"])) for cell in found]


def draws(tree):
    return any(isinstance(node, ast.Attribute) and node.attr in ("subplots", "plot") for node in ast.walk(tree))


def test_every_tutorial_is_listed():
    assert {path.stem for path in (DOCS / "tutorials").glob("*.md")} == set(TUTORIALS)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_checks_what_it_claims(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text.startswith("---\njupytext:")
    assert text.count("{code-cell}") == len(cells(page)), "a cell is not read as one"
    checks = sum(isinstance(node, ast.Assert) for _, tree in cells(page) for node in ast.walk(tree))
    assert checks >= 2, "a claim that cannot fail is none"


@pytest.mark.parametrize("page", PAGES)
def test_pictures_say_what_they_show(page):
    drawing = [options for options, tree in cells(page) if draws(tree)]
    assert drawing or page == "tutorials/many_gpus.md"
    for options in drawing:
        assert re.search(r"^    alt: \S.{20,}$", options, re.M), "a picture has no alt text"
