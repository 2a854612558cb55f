"""Write the pages of the API reference, docs/api, from what the package says is public.

A public name is one of ``recsolve.__all__``, of a public module in it, or one of ``BESIDE``, which public names return
or take. Names of ``recsolve`` are grouped by the room in which they are defined, so that a new one finds its page.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    "compare": ("Comparing", "Race methods on one recurrence.", ("studies",)),
    "more": ("More of recsolve", "What has no page of its own.", ("",)),
}  # fmt: skip

# The public modules, in this order; those of `recsolve.__all__` that are missing here follow.
MODULES = {
    "cells": "Built-in cells", "mixings": "Mixings", "math": "Functions for cells", "graphs": "Graphs",
    "solvers": "Solvers", "jacobians": "Structured Jacobians", "nn": "Layers of torch",
    "distributed": "Many devices, and files larger than memory", "kernels": "Kernels",
    "plot": "Plots", "testing": "Checks of your own parts",
}  # fmt: skip

# What public names return or take, and what studies are made of: public where it is defined.
BESIDE: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "monoids": ("Monoids", "What :func:`recsolve.scan` composes, by name.", ()),  # those of the registry
    "returned": ("Returned and taken", "Objects that others return or take, and calls for special purposes.", (
        "recsolve.solve_trace.Trace", "recsolve.base.tolerance.Tolerance", "recsolve.jacobians.factored.Factored",
        "recsolve.interop.autograd.solve_cell", "recsolve.interop.autograd.CellSpec",
        "recsolve.interop.autograd.CellResult", "recsolve.gradients.second.second_adjoint",
        "recsolve.gradients.second.Cotangents", "recsolve.gradients.second.Second",
        "recsolve.solvers.globalised.Globalised",
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
    """A page of the reference: full names in sections, and the module that they are all of, if they are."""

    file: str
    title: str
    text: str
    sections: dict[str, list[str]]
    module: str | None = None

    @property
    def names(self) -> list[str]:
        """The names of all sections."""
        return [name for names in self.sections.values() for name in names]


def public(module: ModuleType) -> list[str]:
    """Return the public names of a module: its ``__all__``, or what it has without an underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    shown = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return [name for name, value in shown.items() if not isinstance(value, ModuleType) and name != "annotations"]


@cache
def pages() -> list[Page]:
    """Return all pages of the reference."""
    return [*_of_rooms(), *map(_of_module, _modules()), *_beside()]


def _modules() -> list[str]:
    root = import_module("recsolve")
    return list(dict.fromkeys([*MODULES, *(n for n in public(root) if isinstance(getattr(root, n), ModuleType))]))


def _of_rooms() -> list[Page]:
    root, modules = import_module("recsolve"), _modules()
    rooms: dict[str, list[str]] = {file: [] for file in ROOMS}
    names = [name for name in public(root) if name not in modules]
    for name in sorted(names, key=lambda name: (inspect.isclass(getattr(root, name)), name)):  # what is called first
        rooms[_room(getattr(root, name))].append(f"recsolve.{name}")
    return [Page(file, *ROOMS[file][:2], {"": names}, "recsolve") for file, names in rooms.items() if names]


def _of_module(name: str) -> Page:
    module = import_module(f"recsolve.{name}")
    names = public(module)
    sections: dict[str, list[str]] = {"": [f"recsolve.{name}.{n}" for n in names]}
    if name == "solvers":  # as listings have them
        sections = {}
        for method in module.REGISTRY.values():
            sections.setdefault(method.group.capitalize(), []).append(f"recsolve.solvers.{method.__name__}")
        listed = {method.__name__ for method in module.REGISTRY.values()}
        sections["To choose and to write one"] = [f"recsolve.solvers.{n}" for n in names if n not in listed]
    text = inspect.cleandoc(module.__doc__ or "").split("\n\n")[0]
    return Page(name, MODULES.get(name, name.capitalize()), text, sections, f"recsolve.{name}")


def _beside() -> list[Page]:
    monoids = [type(monoid) for monoid in import_module("recsolve.kernels.monoids").MONOIDS.values()]
    listed = {"monoids": [f"{monoid.__module__}.{monoid.__name__}" for monoid in monoids]}
    return [Page(f, title, text, {"": listed.get(f, list(names))}) for f, (title, text, names) in BESIDE.items()]


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
    """Return what a class, and bases of it that are not public, define for users: what has a docstring.

    Of methods of the registry nothing: one sets them, and the driver calls what their public bases describe.
    """
    if cls in import_module("recsolve.solvers").REGISTRY.values():
        return []
    known = {id(get(name)) for page in pages() for name in page.names}
    bases = [c for c in cls.__mro__ if c.__module__.startswith("recsolve.") and (c is cls or id(c) not in known)]
    found: dict[str, None] = {}
    for base in bases:
        for name, value in vars(base).items():
            described = isinstance(value, (property, classmethod, staticmethod)) or inspect.isfunction(value)
            if described and not name.startswith("_") and (value.__doc__ or "").strip():
                found[name] = None
    return list(found)


def described(name: str, short: str) -> list[str]:
    """Return the directive that documents a name, as lines of reStructuredText."""
    value = get(name)
    if name in VALUES:
        return [f".. py:data:: {short}", "", f"   {VALUES[name]}", ""]
    if inspect.isclass(value):
        listed = members(value)
        return [f".. autoclass:: {name}", *([f"   :members: {', '.join(listed)}"] if listed else []), ""]
    if inspect.isroutine(value):
        return [f".. autofunction:: {name}", ""]
    return [f".. autodata:: {name}", "   :no-value:", ""]


def written(page: Page) -> str:
    """Return a page as reStructuredText: a table of the names of each section, then each name."""
    directive = "currentmodule" if page.module == "recsolve" else "module"  # which has several pages
    module = [f".. py:{directive}:: {page.module}", ""] if page.module else []
    lines = [*_title(page.title, "="), *module, page.text, ""]
    for title, names in page.sections.items():
        short = {name: name.removeprefix(f"{page.module}.") for name in names}  # within a module Sphinx adds its name
        borrowed = [name for name in names if getattr(get(name), "__module__", None) == "numpy"]
        own = [name for name in names if name not in borrowed]
        rows = [short[name] if page.module else f"~{name}" for name in own if name not in VALUES]
        lines += [*(_title(title, "-") if title else []), *(_table(rows) if len(rows) > 1 else [])]
        lines += [line for name in own for line in described(name, short[name])]
        if borrowed:
            taken = {name: {1: "x", 2: "x, y"}.get(getattr(get(name), "nin", 0), "x, ...") for name in borrowed}
            lines += [".. py:function::", *(f"   {short[name]}({taken[name]})" for name in borrowed)]
            lines += ["", "   NumPy's own, by the same names.", ""]
    return "\n".join(lines)


def _title(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def _table(rows: list[str]) -> list[str]:
    return [".. autosummary::", "   :nosignatures:", "", *(f"   {row}" for row in rows), ""]


def write(app: Sphinx) -> None:
    """Write all pages into docs/api, those that have changed."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    texts = {f"{page.file}.rst": written(page) for page in pages()}
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
