"""The report: one HTML file with every figure, table, config and sentence, and nothing outside it."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsolve.studies.registry import Picture, Study, Table
from recsolve.studies.store.files import replace_into_place
from recsolve.studies.store.provenance import provenance
from recsolve.studies.sweep import Place

if TYPE_CHECKING:
    from xarray import Dataset

REPORT = "report.html"
_NUMBER = re.compile(r"[-+]?(\d[\d.,]*(e[-+]?\d+)?|inf|nan)( ?(%|x|ms|s))?")
_NAN = re.compile(r"^nan( ?(%|x|ms|s))?$")  # what was not reached has no number
_NO_NUMBER = ("", "-", "none", "more", "not converged", "no")
_KNOWN = ("config", "runs", "done", "failed", "seconds", "provenance")  # the entries of a Dataset about its sweep


def write_report(studies: Sequence[Study], root: Path, problems: Mapping[str, str]) -> Path:
    """Write ``report.html`` from the stored Datasets and SVG figures of some studies.

    Parameters
    ----------
    studies : sequence of Study
        Run and drawn before.
    root : Path
        Where they are stored.
    problems : mapping
        Of studies without results, by name, what went wrong; it is shown in place of the results.

    Raises
    ------
    FileNotFoundError
        For a study that has not been run or drawn.
    """
    from jinja2 import Environment, StrictUndefined

    text = (files("recsolve.studies") / "report.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
    sections = [_section(study, Place(root, study.name), problems.get(study.name, "")) for study in studies]
    path = root / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_into_place(path) as part:
        part.write_text(page.render(here=provenance(), studies=sections), encoding="utf-8")
    return path


def _section(study: Study, place: Place, problem: str) -> dict[str, Any]:
    title = {"id": study.name.replace("/", "-"), "name": study.name, "question": study.question, "problem": problem}
    if problem:
        return {**title, "figures": [], "tables": []}
    data = place.read()
    known = {name: json.loads(data.attrs[name]) for name in _KNOWN}
    figures = [_figure(picture, place.folder, data) for picture in study.pictures]
    return {
        **title,
        "figures": figures,
        "tables": [_table(table) for table in study.tables(data)],
        "command": study.command(known["config"]),
        **known,
    }


def _table(table: Table) -> dict[str, Any]:
    """Return a table, and which of its columns are numbers, to be aligned at their right."""
    columns = zip(*table.rows, strict=True) if table.rows else ((),) * len(table.head)
    return {
        "title": table.title,
        "head": table.head,
        "rows": [[_NAN.sub("-", cell) for cell in row] for row in table.rows],
        "numeric": [_are_numbers(column) for column in columns],
    }


def _are_numbers(column: Sequence[str]) -> bool:
    """Return whether the cells of a column are numbers, with a unit or without, but for those that have none."""
    found = [cell for cell in column if cell not in _NO_NUMBER]
    return bool(found) and all(_NUMBER.fullmatch(cell) for cell in found)


def _figure(picture: Picture, folder: Path, data: Dataset) -> dict[str, str]:
    """Return a figure as the address of an image: inside a page, the ids and styles of one SVG would meet another's."""
    path = folder / f"{picture.name}.svg"
    if not path.is_file():
        raise FileNotFoundError(f"no figure {path}; draw it first: recsolve study plot {folder.name}")
    return {"name": picture.name, "image": b64encode(path.read_bytes()).decode(), "says": picture.says(data)}
