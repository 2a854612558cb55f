"""The picture of times over ranks: speed as measured, as predicted, and the ideal line, a panel for each case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recsolve.studies.draw.figures import FORMATS
from recsolve.studies.draw.style import house_style, plain_ticks
from recsolve.studies.store.files import replace_into_place

_COLUMNS = 4
_TICKS = (1, 2, 4, 8, 64, 1024)
_LOOKS = {"strong": ("#0072B2", "o", "-"), "weak": ("#E69F00", "s", "--")}  # their greys differ too


def scaling_figure(record: dict[str, Any], folder: Path, stem: str = "distributed") -> list[Path]:
    """Draw what ``recsolve bench distributed`` has stored, as PNG and PDF.

    Parameters
    ----------
    record : dict
    folder : Path
    stem : str

    Returns
    -------
    list of Path
        Empty when there is nothing to draw.
    """
    cases = list(dict.fromkeys(row["case"] for row in record["rows"]))
    if not cases:
        return []
    columns = min(_COLUMNS, len(cases))
    lines = -(-len(cases) // columns)
    with house_style() as pyplot:
        size = (2.5 * columns + 1.0, 2.3 * lines + 1.1)
        figure, axes = pyplot.subplots(lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
        for axis, case in zip(axes.flat, cases, strict=False):
            _draw(axis, record, case)
        for place, axis in enumerate(axes.flat):
            axis.set_visible(place < len(cases))
            if len(cases) - columns <= place < len(cases):  # the last one of its column
                axis.set_xlabel("ranks")
                axis.tick_params(labelbottom=True)
        figure.supylabel("steps a second over those of one rank", fontsize=9)
        figure.suptitle(_title(record), fontsize=10)
        figure.legend(handles=_handles(pyplot), loc="outside lower center", ncols=5)
        paths = [folder / f"{stem}.{kind}" for kind in FORMATS]
        for path in paths:
            with replace_into_place(path) as part:
                figure.savefig(part, format=path.suffix[1:])
        pyplot.close(figure)
    return paths


def _draw(axis: Any, record: dict[str, Any], case: str) -> None:
    rows = [row for row in record["rows"] if row["case"] == case]
    predicted = [row for row in record["predictions"] if row["case"] == case]
    most = max([row["ranks"] for row in (*rows, *predicted)])
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.plot([1, most], [1, most], color="0.6", linewidth=0.9, zorder=1)
    for scaling, (color, marker, dashes) in _LOOKS.items():
        line = [(row["ranks"], float(row["speed"])) for row in predicted if row["scaling"] == scaling]
        if line:
            axis.plot(*zip(*line, strict=True), color=color, linestyle=dashes, marker=".", markersize=3, zorder=2)
        points = [row for row in rows if row["scaling"] == scaling]
        if points:
            ranks = np.array([row["ranks"] for row in points])
            speed = np.array([float(row["speed"]) for row in points])
            ends = np.array([[float(row[name]) for row in points] for name in ("upper", "lower")])
            median = np.array([float(row["median"]) for row in points])
            bars = abs(speed * median / ends - speed)
            face = color if scaling == "strong" else "white"
            look = {"color": color, "marker": marker, "markersize": 6, "markerfacecolor": face, "linestyle": "none"}
            axis.errorbar(ranks, speed, yerr=bars, capsize=2, zorder=3 if scaling == "strong" else 4, **look)
    axis.set_title(f"{rows[0]['what']}\n{rows[0]['memory']}", fontsize=9)
    axis.set_xticks(_TICKS, list(map(str, _TICKS)))
    axis.set_xticks([], minor=True)
    axis.set_xlim(0.8, 1.25 * most)
    plain_ticks(axis.yaxis)


def _title(record: dict[str, Any]) -> str:
    config = record["config"]
    return (
        f"T = {config['length']}, batch {config['batch']}, {config['units']} units, {config['dtype']}, "
        f"{record['ranks']} rank{'s' * (record['ranks'] > 1)} on {record['on']['device']}"
    )


def _handles(pyplot: Any) -> list[Any]:
    found, look = [], dict[str, Any]()
    for scaling, (color, marker, dashes) in _LOOKS.items():
        face = color if scaling == "strong" else "white"
        look = {"color": color, "marker": marker, "markerfacecolor": face, "linestyle": "none"}
        found.append(pyplot.Line2D([], [], label=f"{scaling} scaling", **look))
        look = {"color": color, "linestyle": dashes, "marker": ".", "markersize": 3}
        found.append(pyplot.Line2D([], [], label="predicted", **look))
    return [*found, pyplot.Line2D([], [], color="0.6", linewidth=0.9, label="ideal")]
