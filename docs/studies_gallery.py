"""Write docs/studies: the figures and sentences of stored studies, as a page.

recsolve report --quick && python docs/studies_gallery.py recsolve-studies
"""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

from recsolve.studies.configs import SIZES, to_toml
from recsolve.studies.registry import CATALOGUE, Study, get
from recsolve.studies.style import house_style
from recsolve.studies.sweep import Place

HERE = Path(__file__).parent / "studies"
LARGEST = 150_000  # bytes of a figure


def picture(draw: Any, data: Any) -> bytes:
    """Return a figure as PNG of few colours, at the best resolution that fits."""
    from PIL import Image

    with house_style() as pyplot:
        figure = draw(pyplot, data)
        for dpi in (130, 110, 95, 80, 70, 60):
            sharp, small = BytesIO(), BytesIO()
            figure.savefig(sharp, format="png", dpi=dpi)
            Image.open(sharp).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(small, "png", optimize=True)
            if small.tell() < LARGEST:
                break
        pyplot.close(figure)
    return small.getvalue()


def section(study: Study, root: Path) -> str:
    """Write the figures of a study, and return its part of the page."""
    data = Place(root, study.name).read()
    known = {name: json.loads(data.attrs[name]) for name in ("config", "runs", "done", "failed", "seconds")}
    size = next((size for size in SIZES if to_toml(getattr(study, size)) == known["config"]), None)
    if size is None:
        raise SystemExit(f"{study.name} was run with a config of its own; wanted one of {', '.join(SIZES)}")
    lines = [f"## {study.name}", study.question]
    for shown in study.pictures:
        name = f"{study.name.replace('/', '-')}-{shown.name}.png"
        (HERE / name).write_bytes(picture(shown.draw, data))
        lines += [f"![{study.name}: {shown.name}]({name})", shown.says(data)]
    lines.append(
        f"`recsolve study run {study.name} --{size}`: {known['done']} of {known['runs']} runs done, {known['failed']} "
        f"failed, {known['seconds']:.0f} s of computing."
    )
    return "\n\n".join(lines)


def main() -> None:
    """Write the page."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "recsolve-studies")
    HERE.mkdir(exist_ok=True)
    for old in HERE.glob("*.png"):
        old.unlink()
    sections = [section(get(name), root) for name in CATALOGUE]
    [made] = {json.dumps(p["machine"]): p for p in _provenance(root)}.values()
    versions, machine = made["versions"], made["machine"]
    intro = (
        "# What the studies found\n\nA line is a solver, the same in all figures; a band is the range over seeds. What "
        "did not converge is left out or hatched. Every sentence is computed from the numbers shown. Written by "
        "`python docs/studies_gallery.py` from `recsolve report --quick`, which also has tables and configs; how to "
        "run the studies is in [studies.md](../studies.md). "
        f"recsolve {versions['recsolve']}, NumPy {versions['numpy']}, {machine['processor']}, {machine['cores']} cores."
    )
    (HERE / "README.md").write_text("\n\n".join([intro, *sections]) + "\n", encoding="utf-8")


def _provenance(root: Path) -> list[dict[str, Any]]:
    return [p for name in CATALOGUE for p in json.loads(Place(root, name).read().attrs["provenance"])]


if __name__ == "__main__":
    main()
