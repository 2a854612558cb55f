"""Write docs/studies: the figures and sentences of stored studies, as a page.

recsolve report --quick && python docs/studies_gallery.py recsolve-studies [larger]...

Folders after the first are those of sweeps that are larger or from other machines; their names tell what they are. What
is stored nowhere keeps the part of the page, and the pictures, that it has.
"""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

from recsolve.studies.draw.drawing import drawn
from recsolve.studies.draw.style import house_style
from recsolve.studies.registry import CATALOGUE, Picture, Study, get
from recsolve.studies.sweep import Place

HERE = Path(__file__).parent / "studies"
LARGEST = 150_000  # bytes of a figure


def picture(shown: Picture, data: Any) -> bytes:
    """Return a figure as PNG of few colours, at the best resolution that fits."""
    from PIL import Image

    with house_style() as pyplot:
        figure = drawn(pyplot, shown, data)
        for dpi in (130, 110, 95, 80, 70, 60):
            sharp, small = BytesIO(), BytesIO()
            figure.savefig(sharp, format="png", dpi=dpi)
            Image.open(sharp).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(small, "png", optimize=True)
            if small.tell() < LARGEST:
                break
        pyplot.close(figure)
    return small.getvalue()


def section(study: Study, root: Path, kind: str = "") -> str:
    """Write the figures of a study, and return its part of the page; ``kind`` tells its files from those of others."""
    data = Place(root, study.name).read()
    known = {name: json.loads(data.attrs[name]) for name in ("config", "runs", "done", "failed", "seconds")}
    lines = [f"## {study.name}{f' ({kind})' if kind else ''}", study.question]
    for shown in study.pictures:
        name = "-".join(filter(None, (study.name.replace("/", "-"), shown.name, kind))) + ".png"
        (HERE / name).write_bytes(picture(shown, data))
        lines += [f"![{study.name}: {shown.name}]({name})", shown.says(data)]
    lines.append(
        f"`{study.command(known['config'])}`: {known['done']} of {known['runs']} runs done, {known['failed']} "
        f"failed, {known['seconds']:.0f} s of computing."
    )
    return "\n\n".join([*lines, _made(data)] if kind else lines)


def _made(data: Any) -> str:
    """Say where numbers were made."""
    made = {json.dumps(p["machine"]): p for p in json.loads(data.attrs["provenance"])}.values()
    return "; ".join(
        f"recsolve {p['versions']['recsolve']}, NumPy {p['versions']['numpy']}, {p['machine']['processor']}, "
        f"{p['machine']['cores']} cores"
        for p in made
    )


def main() -> None:
    """Write the page."""
    root, *others = map(Path, sys.argv[1:] or ["recsolve-studies"])
    HERE.mkdir(exist_ok=True)
    page = HERE / "README.md"
    parts = page.read_text(encoding="utf-8").strip().split("\n\n## ")[1:] if page.is_file() else []
    written = {part.partition("\n")[0]: f"## {part}" for part in parts}
    for folder, kind in ((root, ""), *((other, other.name) for other in others)):
        for name in CATALOGUE:
            if Place(folder, name).data.is_file():
                written[f"{name} ({kind})" if kind else name] = section(get(name), folder, kind)
    ordered = [*filter(written.__contains__, CATALOGUE), *(title for title in written if title not in CATALOGUE)]
    intro = (
        "# What the studies found\n\nA line is a solver, the same in all figures; a band is the range over seeds. "
        "What did not converge is left out or hatched. Ratios of times are over the time of the loop: below 1 is "
        "faster. Every sentence is computed from the numbers shown. Written by `python docs/studies_gallery.py` from "
        "`recsolve report --quick`, which also has tables and configs, and from what is larger, at the end. How to run "
        "the studies is in [studies.md](../studies.md). "
        f"{_made(Place(root, next(iter(CATALOGUE))).read())}."
    )
    text = "\n\n".join([intro, *(written[title] for title in ordered)]) + "\n"
    page.write_text(text, encoding="utf-8")
    for old in HERE.glob("*.png"):
        if f"({old.name})" not in text:
            old.unlink()


if __name__ == "__main__":
    main()
