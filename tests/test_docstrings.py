"""Every public name says its shapes, dtypes, errors and source, and shows an example that runs."""

import doctest
import inspect
import re
from dataclasses import is_dataclass
from importlib.util import find_spec
from types import FunctionType

import pytest

import recsolve as rs

ROOMS = [rs, rs.cells, rs.distributed, rs.graphs, rs.jacobians, rs.mixings, rs.plot, rs.solvers, rs.testing]
ROOMS += [rs.nn] if find_spec("torch") else []
SHAPE = re.compile(r"shape|\((T|\*|\.\.\.|n|\d|nit)")  # (T, *batch, *event), say
DTYPE = re.compile(r"float32|dtype|of bool|of int")


def exported():
    """Yield the public classes, functions and cells of the rooms that users import from."""
    for room in ROOMS:
        for name in getattr(room, "__all__", None) or sorted(vars(room)):
            value = getattr(room, name)
            if not name.startswith("_") and isinstance(value, (type, FunctionType, rs.Cell)):
                yield f"{room.__name__}.{name}", value


PUBLIC = dict(exported())


def sections(documented):
    """Return the entries of the sections of a docstring, by title."""
    _, *parts = re.split(r"^(\w+)\n---+\n", inspect.getdoc(documented) or "", flags=re.MULTILINE)
    split = {
        title: re.split(r"^(?=\S)", text, flags=re.MULTILINE)
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {title: [entry for entry in entries if entry.strip()] for title, entries in split.items()}


def own(documented):
    """Return a class with those of its bases that this package defines."""
    bases = inspect.getmro(documented) if isinstance(documented, type) else (documented,)
    return [x for x in bases if not isinstance(x, type) or x.__module__.startswith("recsolve")]


def arguments(documented):
    """Return the names that users pass: to a function, to the constructor of a class that they call, to a cell none."""
    called = isinstance(documented, FunctionType) or "Parameters" in sections(documented)
    if not called and not is_dataclass(documented):
        return set()
    taken = inspect.signature(documented).parameters.values()
    return {p.name for p in taken if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def may_raise(documented):
    """Whether a function, or the constructor of a class, looks at what it is given."""
    if not isinstance(documented, type):
        return isinstance(documented, FunctionType)
    return any({"__post_init__", "check"} & set(vars(c)) for c in own(documented) if not inspect.isabstract(c))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_documented(name):
    documented = PUBLIC[name]
    text, found = inspect.getdoc(documented), sections(documented)
    titles = ("Parameters", "Attributes", "Returns")
    listed = [entry for base in own(documented) for title in titles for entry in sections(base).get(title, [])]
    headings = {word.strip(" *") for entry in listed for word in re.split("[:\n]", entry)[0].split(",")}
    assert arguments(documented) <= headings, "arguments"
    if isinstance(documented, FunctionType):
        returns = str(inspect.signature(documented).return_annotation)
        assert "Returns" in found or returns.startswith(("None", "Iterator")), "what is returned"
    for entry in listed:
        if re.match(r"[^\n:]*: array", entry):
            assert SHAPE.search(entry), f"no shape: {entry}"
            assert DTYPE.search(text) or entry not in found.get("Parameters", []), f"no dtype: {entry}"
    assert "Raises" in found or not may_raise(documented), "errors"
    cite = getattr(documented, "cite", None)
    assert not isinstance(cite, str) or cite in "".join(found.get("References", [])), "the source"
    test = doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, name, None, 0)
    assert "Examples" in found, "an example"
    assert test.examples, "an example"
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed == 0
