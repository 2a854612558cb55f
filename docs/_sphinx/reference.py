"""Write the pages of the API reference, docs/api, from what the package says is public.

A public name is one of ``recsolve.__all__``, of a public module in it, or one of ``BESIDE``, which public names return
or take. Names of ``recsolve`` are grouped by the room in which they are defined, so that a new one finds its page.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx

# The names of `recsolve` itself: by page, the title, what one does there, and the rooms whose names it has.
ROOMS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "solve": ("Solving", "Solve a recurrence, and read what comes back.",
              ("solve", "solution", "windows_solution", "solvers", "base.status", "_version")),
    "recurrences": ("Recurrences and cells", "Say what is to be solved.", ("recurrence", "base")),
    "diagnosis": ("Diagnosis", "Find out how hard a recurrence is, and whether its stated structure is true.",
                  ("diagnosis", "analysis")),
    "gradients": ("Gradients", "Differentiate what a solution shows.", ("gradients",)),
    "scans": ("Scans and backends", "Compose maps along time, and choose what computes them.", ("scan", "kernels")),
    "interop": ("Modules and weights from elsewhere", "Run modules of torch; read and write weights.", ("interop",)),
    "compare": ("Comparing and plotting", "Race methods, and draw what they did.", ("studies",)),
    "more": ("More of recsolve", "What has no page of its own.", ("",)),
}  # fmt: skip

# The public modules, in this order; those of `recsolve.__all__` that are missing here follow.
MODULES = {
    "cells": "Built-in cells", "mixings": "Mixings", "math": "Functions for cells", "graphs": "Graphs",
    "solvers": "Solvers", "jacobians": "Structured Jacobians", "nn": "Layers of torch", "kernels": "Kernels",
    "testing": "Checks of your own parts",
}  # fmt: skip

# What public names return or take, and what studies are made of: public where it is defined.
BESIDE: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "monoids": ("Monoids", "What :func:`recsolve.scan` composes, by name.", ()),  # those of the registry
    "returned": ("Returned and taken", "Objects that others return or take, and calls for special purposes.", (
        "recsolve.solve_trace.Trace", "recsolve.base.tolerance.Tolerance", "recsolve.jacobians.factored.Factored",
        "recsolve.interop.autograd.solve_cell", "recsolve.interop.autograd.CellSpec",
        "recsolve.interop.autograd.CellResult", "recsolve.gradients.second.second_adjoint",
        "recsolve.gradients.second.Cotangents", "recsolve.gradients.second.Second",
    )),
    "studies": ("Studies and systems", "What studies and systems are made of.", (
        "recsolve.studies.registry.get", "recsolve.studies.registry.study_of", "recsolve.studies.registry.Study",
        "recsolve.studies.registry.Picture", "recsolve.studies.registry.Table", "recsolve.studies.systems.system.get",
        "recsolve.studies.systems.system.system_of", "recsolve.studies.systems.system.System",
    )),
}  # fmt: skip

# Values that have no docstring of their own.
VALUES = {
    "recsolve.__version__": "The version, a str.",
    "recsolve.cells.REGISTRY": "The built-in cells by name.",
    "recsolve.mixings.MIXINGS": "The mixings that ``Cell.random`` makes, by name.",
    "recsolve.solvers.GROUPS": "The groups of methods, in the order of listings.",
    "recsolve.solvers.REGISTRY": "The methods by name.",
    "recsolve.solvers.PerRow": "Marks a field of a :class:`State` with one entry a row, (T, \\*batch, ...).",
    "recsolve.solvers.PerSequence": "Marks a field of a :class:`State` with one entry a sequence, (\\*batch, ...).",
}


@dataclass(frozen=True)
class Page:
    """A page of the reference, with the full names that it documents; of a module also the module."""

    file: str
    title: str
    text: str
    names: tuple[str, ...]
    module: str | None = None


def public(module: ModuleType) -> list[str]:
    """Return the public names of a module: its ``__all__``, or what it has without an underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    shown = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return [name for name, value in shown.items() if not isinstance(value, ModuleType) and name != "annotations"]


def pages() -> list[Page]:
    """Return all pages of the reference."""
    root = import_module("recsolve")
    values = {name: getattr(root, name) for name in public(root)}
    modules = dict.fromkeys([*MODULES, *(name for name, value in values.items() if isinstance(value, ModuleType))])
    rooms: dict[str, list[str]] = {file: [] for file in ROOMS}
    for name, value in values.items():
        if name not in modules:
            rooms[_room(value)].append(f"recsolve.{name}")
    found = [Page(file, *ROOMS[file][:2], tuple(names)) for file, names in rooms.items() if names]
    for name in modules:
        module = import_module(f"recsolve.{name}")
        names = tuple(f"recsolve.{name}.{n}" for n in public(module))
        text = inspect.cleandoc(module.__doc__ or "").split("\n\n")[0]
        found.append(Page(name, MODULES.get(name, name.capitalize()), text, names, f"recsolve.{name}"))
    monoids = [type(monoid) for monoid in import_module("recsolve.kernels.monoids").MONOIDS.values()]
    listed = {"monoids": tuple(f"{monoid.__module__}.{monoid.__name__}" for monoid in monoids)}
    return [*found, *(Page(f, title, text, listed.get(f, names)) for f, (title, text, names) in BESIDE.items())]


def _room(value: Any) -> str:
    """Return the page of ROOMS with the longest room that a value comes from."""
    home = (getattr(value, "__module__", None) or "recsolve._version").removeprefix("recsolve.") + "."
    rooms = {room: file for file, (*_, of_file) in ROOMS.items() for room in of_file}
    return rooms[max((room for room in rooms if home.startswith(room and room + ".")), key=len)]


def get(name: str) -> Any:
    """Return the object of a full name."""
    module, _, last = name.rpartition(".")
    return getattr(import_module(module), last)


def members(cls: type) -> list[str]:
    """Return what a class defines for users, and bases that are not public define for it: what has a docstring."""
    known = {id(get(name)) for page in pages() for name in page.names}
    bases = [c for c in cls.__mro__ if c.__module__.startswith("recsolve.") and (c is cls or id(c) not in known)]
    found: dict[str, None] = {}
    for base in bases:
        for name, value in vars(base).items():
            described = isinstance(value, (property, classmethod, staticmethod)) or inspect.isfunction(value)
            if described and not name.startswith("_") and (value.__doc__ or "").strip():
                found[name] = None
    return list(found)


def described(name: str) -> list[str]:
    """Return the directive that documents a name, as lines of reStructuredText."""
    value, short = get(name), name.rpartition(".")[2]
    if name in VALUES:
        return [f".. py:data:: {name}", "", f"   {VALUES[name]}", ""]
    if inspect.isclass(value):
        listed = [f"   :members: {', '.join(members(value))}"] if members(value) else []
        return [f".. autoclass:: {name}", *listed, ""]
    kind = "autofunction" if callable(value) and hasattr(value, "__name__") else "autodata"
    return [f".. {kind}:: {name}", *(["   :no-value:"] if kind == "autodata" else []), ""] if short else []


def written(page: Page) -> str:
    """Return a page as reStructuredText: a table of its names, then each."""
    prefix = f"{page.module}." if page.module else ""  # within a module Sphinx wants short names
    numpy = [name for name in page.names if getattr(get(name), "__module__", None) == "numpy"]
    own = [name for name in page.names if name not in numpy]
    rows = [f"   {name.removeprefix(prefix) if prefix else '~' + name}" for name in own if name not in VALUES]
    head = [page.title, "=" * len(page.title), "", page.text, ""]
    module = [f".. py:module:: {page.module}", ""] if page.module else []
    table = [".. autosummary::", "", *rows, ""]
    signatures = [f"   {name}({', '.join('xy'[: getattr(get(name), 'nin', 1)])})" for name in numpy]
    borrowed = [".. py:function::", *signatures, "", "   NumPy's own, by the same names.", ""] if numpy else []
    return "\n".join([*head, *module, *table, *(line for name in own for line in described(name)), *borrowed])


def write(app: Sphinx) -> None:
    """Write all pages into docs/api, those that have changed."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    texts = {f"{page.file}.rst": written(page) for page in pages()}
    entries = [f"   {page.file}" for page in pages()]
    title = ["API reference", "=============", "", "Every public name, by what one does with it.", ""]
    texts["index.rst"] = "\n".join([*title, ".. toctree::", "   :maxdepth: 1", "", *entries, ""])
    for path in folder.iterdir():
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
