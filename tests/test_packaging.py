"""What is shipped, and what importing costs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import recsolve

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_subpackage_is_listed():
    """An unlisted one would be missing from the wheel and nowhere else."""
    setuptools = PROJECT["tool"]["setuptools"]
    folders = set()
    for folder in ("recsolve", "solvers", "kernels", "studies"):
        folders |= {str(path.parent.relative_to(ROOT)) for path in (ROOT / folder).rglob("__init__.py")}
    assert folders == set(setuptools["package-dir"].values())
    assert set(setuptools["packages"]) == set(setuptools["package-dir"])


def test_package_data_exists():
    setuptools = PROJECT["tool"]["setuptools"]
    for package, patterns in setuptools["package-data"].items():
        for pattern in patterns:
            assert list((ROOT / setuptools["package-dir"][package]).glob(pattern)), (package, pattern)


def test_importing_loads_numpy_and_nothing_heavier():
    code = (
        "import sys, recsolve; heavy = {'numba', 'cupy', 'torch', 'matplotlib', 'scipy', 'rich', 'typer'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_torch_everything_else_works():
    code = (
        "import sys; sys.modules['torch'] = None; import numpy as np, recsolve as rs;"
        "cell = rs.cells.LSTM.random(input_size=2, hidden_size=4, rng=0);"
        "assert rs.solve(cell.recurrence(np.ones((20, 2)))).trusted"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_the_top_level_stays_as_designed():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    top = {name.partition("/")[0] for name in tracked if not name.startswith(".")}
    folders = {"recsolve", "solvers", "kernels", "studies", "tests", "docs"}
    assert top <= folders | {"pyproject.toml", "README.md", "LICENSE"}


def test_the_version_is_one():
    assert f"version: {recsolve.__version__}" in (ROOT / "docs" / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {recsolve.__version__}" in (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
