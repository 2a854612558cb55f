"""``recsolve bench distributed``: the table of times over ranks, and words on links."""

from __future__ import annotations

from typing import Any

from recsolve.studies.bench import table
from recsolve.studies.bench.shared_calls import CASES
from recsolve.studies.draw.tables import three

TABLE = table.Table(
    "calls over ranks",
    (
        table.text("what"),
        table.text("memory"),
        table.text("scaling"),
        table.some("ranks", "ranks"),
        table.some("steps", "steps"),
        *table.middle(),
        table.number("alone ms", "alone", 1e3),
        table.times("speed", "speed"),
        table.number("predicted ms", "predicted", 1e3),
        table.times("of measured", "predicted_over_measured"),
        table.some("messages", "messages"),
        table.some("iterations", "iterations"),
        table.error("error", "error"),
    ),
    "alone: the plain call of one rank, in turns with the others; on its own share in weak scaling. speed: steps a "
    "second over those of that one. error: against the plain call, relative to the largest number.",
)


def show_more(record: dict[str, Any]) -> None:
    """Print what the links take, and what is predicted for more ranks."""
    for link in record["links"]:
        latency, message = (three(1e6 * link[name]) for name in ("latency", "message"))
        print(
            f"link of {link['ranks']} ranks: an all-gather of a few bytes takes {latency} us, a message adds {message} "
            f"us; each rank receives {three(link['bandwidth'] / 1e9)} GB/s"
        )
    if not record["links"]:
        print("no link was measured, so nothing is predicted for more ranks: take 2 or more")
    found: dict[tuple[str, str], list[str]] = {}
    for row in record["predictions"]:
        shown = found.setdefault((row["case"], row["scaling"]), [])
        shown.append(f"{row['speed']:.2g} on {row['ranks']}")
    for (name, scaling), speeds in found.items():
        case = CASES[name]
        print(f"predicted speed of {case.words}, {case.memory}, {scaling} scaling: {', '.join(speeds)}")
