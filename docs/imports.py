"""Draw which rooms of the package import which: ``python docs/imports.py [REVISION] [--out FILE]``.

A room is a folder of modules; a module that lies beside folders is a room of its own, unless ``--folders`` is given.
Arrows run from what imports to what is imported, as wide as there are imports; those that are part of a circle are red.
Rooms stand above all that they import; an arrow beside which others lead there is left out, or none could be followed.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
from collections import Counter
from pathlib import Path, PurePosixPath

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "recsolve": "recsolve",
    "solvers": "recsolve.solvers",
    "kernels": "recsolve.kernels",
    "studies": "recsolve.studies",
}
_LAYERS = ("recsolve", "recsolve.kernels", "recsolve.kernels.cpu", "recsolve.kernels.gpu", "recsolve.studies")
_DEEPEST = 4  # names of a room: recsolve.kernels.cpu.jit has them all


def sources(revision: str | None) -> dict[str, str]:
    """Return the text of every module by its name, of the working tree or of a revision."""
    if revision is None:
        paths = [path.relative_to(ROOT) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
        return {_module(str(path)): (ROOT / path).read_text(encoding="utf-8") for path in paths}
    listed = _git("ls-tree", "-r", "--name-only", revision, *FOLDERS).split()
    return {_module(path): _git("show", f"{revision}:{path}") for path in listed if path.endswith(".py")}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _module(path: str) -> str:
    folder, *rest = PurePosixPath(path).with_suffix("").parts
    return ".".join([FOLDERS[folder], *rest]).removesuffix(".__init__")


def imports(modules: dict[str, str]) -> Counter[tuple[str, str]]:
    """Count imports between modules, those for type checkers alone left out."""
    found: Counter[tuple[str, str]] = Counter()
    for name, text in modules.items():
        tree = ast.parse(text)
        typing = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id.endswith("TYPE_CHECKING")
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing:
                for alias in node.names:
                    for target in (f"{node.module}.{alias.name}", node.module):
                        if target in modules:
                            found[name, target] += 1
                            break
    return found


def room_of(module: str, modules: dict[str, str], folders: bool) -> str:
    """Return the folder that a module lies in, or the module itself where it lies beside the rooms of a layer."""
    packages = {name.rpartition(".")[0] for name in modules}
    room = module if module in packages else module.rpartition(".")[0]
    room = ".".join(room.split(".")[:_DEEPEST])
    beside = not folders and room in _LAYERS and any(other.rpartition(".")[0] == room for other in packages)
    return module if beside and room != module else room


def reachable(start: str, arrows: Counter[tuple[str, str]]) -> set[str]:
    """Return the rooms that one leads to."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        room = waiting.pop()
        for a, b in arrows:
            if a == room and b not in seen:
                seen.add(b)
                waiting.append(b)
    return seen


def levels(rooms: list[str], leads: dict[str, set[str]]) -> dict[str, int]:
    """Return the height of every room: one more than the highest room below it; rooms of a circle share theirs."""

    def height(room: str) -> int:
        below = [other for other in leads[room] if room not in leads[other]]
        return 1 + max((found[other] for other in below), default=-1)

    found: dict[str, int] = {}
    for room in sorted(rooms, key=lambda room: len(leads[room] - {room})):
        found[room] = height(room)
    for room in rooms:
        found[room] = max(
            found[other] for other in rooms if other == room or (other in leads[room] and room in leads[other])
        )
    return found


def draw(modules: dict[str, str], out: Path, title: str, folders: bool) -> None:
    """Draw the rooms of some modules and write the picture."""
    home = {name: room_of(name, modules, folders) for name in modules if modules[name].count("\n") > 3}
    rooms = sorted(set(home.values()))
    arrows: Counter[tuple[str, str]] = Counter()
    for (a, b), count in imports(modules).items():
        pair = home.get(a), home.get(b)
        if None not in pair and pair[0] != pair[1]:
            arrows[pair] += count
    leads = {room: reachable(room, arrows) for room in rooms}
    level = levels(rooms, leads)
    figure, axes = plt.subplots(figsize=(17, 1.3 + 0.95 * (1 + max(level.values()))))
    place = {}
    for height in sorted(set(level.values())):
        row = [room for room in rooms if level[room] == height]
        for i, room in enumerate(row):
            place[room] = ((i + 0.5 + 0.18 * (height % 2)) / (len(row) + 0.18), height)
    circles = 0
    for (a, b), count in sorted(arrows.items(), key=lambda item: item[1]):
        circle = a in leads[b]
        circles += circle
        if not circle and any(b in leads[c] for c in rooms if c != b and (a, c) in arrows):
            continue
        axes.add_patch(
            FancyArrowPatch(
                place[a], place[b], arrowstyle="-|>", mutation_scale=9, shrinkA=14, shrinkB=16,
                connectionstyle=f"arc3,rad={0.12 if circle else 0.04}", lw=0.5 + 0.35 * count**0.5,
                color="#c0392b" if circle else "#9aa3ad", alpha=0.95 if circle else 0.6,
                ls="--" if circle else "-", zorder=2 if circle else 1,
            )
        )  # fmt: skip
    for room, (x, y) in place.items():
        inside = [name for name in home if home[name] == room]
        lines = sum(modules[name].count("\n") for name in inside)
        size = f"{len(inside)} files, {lines} lines" if len(inside) > 1 else f"{lines} lines"
        name = room.removeprefix("recsolve.")
        axes.text(
            x, y, f"{name}\n{size}", ha="center", va="center", fontsize=8, zorder=3,
            bbox={"boxstyle": "round,pad=0.35", "fc": "#f4f1e8", "ec": "#444444", "lw": 0.8},
        )  # fmt: skip
    count = sum(arrows.values())
    verdict = "no circles" if not circles else f"{circles} arrows are part of a circle (red, dashed)"
    axes.set_title(f"{title}: {len(modules)} modules in {len(rooms)} rooms, {count} imports between rooms, {verdict}")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, max(level.values()) + 0.6)
    axes.axis("off")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90, bbox_inches="tight")
    print(f"{out}: {verdict}")


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", nargs="?", help="a git revision; default: the working tree")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "imports.png")
    parser.add_argument("--folders", action="store_true", help="count a module to its folder wherever it lies")
    given = parser.parse_args()
    draw(sources(given.revision), given.out, given.revision or "Imports", given.folders)


if __name__ == "__main__":
    main()
