"""Run ``recsolve compare`` with an empty cache, and put its table and its figure into README.md.

python docs/readme_table.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
README, FIGURE = ROOT / "README.md", ROOT / "docs" / "figures" / "compare.png"
BLOCK = re.compile(r"(?<=```text\n).*?(?=```)", re.DOTALL)


def abridged(output: str) -> str:
    """Return what is shown of the output: the first panel, and the notes below the last one."""
    first, _, notes = output.strip().split("\n\n")
    kept = [line for line in notes.splitlines() if not line.startswith("wrote ")]
    return "\n".join([first, "...", *kept, ""])


def main() -> None:
    """Do so."""
    with tempfile.TemporaryDirectory() as folder:
        empty = dict.fromkeys(("RECSOLVE_CACHE", "NUMBA_CACHE_DIR"), folder)
        command = [sys.executable, "-m", "recsolve.studies", "compare", "--out", folder]
        environment = {**os.environ, **empty, "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, encoding="utf-8", check=True)
        text, count = BLOCK.subn(lambda _: abridged(done.stdout), README.read_text(encoding="utf-8"))
        if count != 1:
            raise SystemExit(f"README.md has {count} blocks of text; wanted one, for the table")
        README.write_text(text, encoding="utf-8")
        shutil.copy(Path(folder) / "compare.png", FIGURE)


if __name__ == "__main__":
    main()
