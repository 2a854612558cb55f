"""README snippets and docstring examples run as they stand."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "recsolve": "recsolve",
    "solvers": "recsolve.solvers",
    "kernels": "recsolve.kernels",
    "studies": "recsolve.studies",
}


def modules():
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [p for p in path.relative_to(ROOT / folder).with_suffix("").parts if p != "__init__"]
            if parts[-1:] != ["__main__"]:
                yield ".".join([package, *parts])


def snippets(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/cells.md",
        "docs/cite.md",
        "docs/compiled.md",
        "docs/gradients.md",
        "docs/networks.md",
        "docs/recurrences.md",
        "docs/scans.md",
        "docs/solutions.md",
        *(f"docs/solvers/{path.name}" for path in sorted((ROOT / "docs" / "solvers").glob("*.md"))),
        "docs/training.md",
    ],
)
def test_snippets(name):
    pytest.importorskip("torch")
    namespace = {}
    blocks = snippets(ROOT / name)
    assert blocks, "no snippet is found: are they still ```python?"
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)


@pytest.mark.parametrize("name", list(modules()))
def test_examples_in_docstrings(name):
    if name == "recsolve.interop.layers" or name.startswith("recsolve.nn"):
        pytest.importorskip("torch")
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0
