"""What is shipped, and what importing costs."""

import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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


def test_every_cuda_header_is_shipped():
    kernels = ROOT / "kernels"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["recsolve.kernels"]
    shipped = {path for pattern in patterns for path in kernels.glob(pattern)}
    assert shipped == set((kernels / "cuda").rglob("*.cuh"))


def test_the_metadata_says_who_and_which_python():
    project = PROJECT["project"]
    cite = (ROOT / "docs" / "CITATION.cff").read_text(encoding="utf-8")
    assert [f"name: {author['name']}" for author in project["authors"] if f"name: {author['name']}" not in cite] == []
    said = "Programming Language :: Python :: 3."
    minors = [int(line.removeprefix(said)) for line in project["classifiers"] if line.startswith(said)]
    assert project["requires-python"] == f">=3.{min(minors)}"
    assert minors == [*range(min(minors), max(minors) + 1)]


def test_importing_loads_numpy_and_nothing_heavier():
    code = (
        "import sys, recsolve; heavy = {'numba', 'cupy', 'torch', 'matplotlib', 'scipy', 'rich', 'typer', 'xarray'};"
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


def test_layers_are_imported_on_demand_and_name_the_extra():
    code = (
        "import sys, recsolve as rs; assert 'recsolve.nn' not in sys.modules; sys.modules['torch'] = None\n"
        "try:\n    rs.nn\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'recsolve[torch]'" in done.stdout


def test_the_top_level_stays_as_designed():
    if not (ROOT / ".git").exists():
        pytest.skip("git says what is tracked, and this is no checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    top = {name.partition("/")[0] for name in tracked if not name.startswith(".")}
    folders = {"recsolve", "solvers", "kernels", "studies", "tests", "docs"}
    assert top == folders | {"pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"}


def test_the_version_is_one():
    assert f"version: {recsolve.__version__}" in (ROOT / "docs" / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {recsolve.__version__}" in (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")


USE = "import recsolve, recsolve.kernels, recsolve.studies; recsolve.solvers; print(recsolve.__file__)"
FRONT_DOORS = {
    "-c": ["-c", USE],
    "a script": ["script.py"],
    "pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "test_script.py"],
    "the command line": ["-m", "recsolve", "--version"],
}


@pytest.fixture
def checkout(tmp_path):
    """Return a folder with the checkout's folders in it, to which scripts may be added."""
    for name in ("pyproject.toml", "recsolve", "solvers", "kernels", "studies"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "script.py").write_text(USE)
    (tmp_path / "test_script.py").write_text(f"def test_it():\n    {USE}\n")
    return tmp_path


def without_an_installation(folder):
    """Return an environment in which Python finds no installed recsolve: neither a finder nor a wheel's folder."""
    (folder / "sitecustomize.py").write_text(
        "import sys\nsys.meta_path[:] = [f for f in sys.meta_path if 'recsolve' not in getattr(f, '__module__', '')]\n"
    )
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": ""}


@pytest.mark.parametrize("door", FRONT_DOORS)
@pytest.mark.parametrize("installed", [True, False])
def test_a_checkout_is_a_package(checkout, tmp_path_factory, door, installed):
    """Python that starts in a checkout finds its folder first, whatever is installed."""
    environment = dict(os.environ) if installed else without_an_installation(tmp_path_factory.mktemp("site"))
    done = subprocess.run(
        [sys.executable, *FRONT_DOORS[door]], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if door in ("-c", "a script"):
        assert Path(done.stdout.strip()).samefile(ROOT / "recsolve" / "__init__.py")
    if door == "the command line":
        assert done.stdout.strip() == f"recsolve {recsolve.__version__}"


def test_without_an_installation_there_is_none(tmp_path):
    """Otherwise the test above would say nothing."""
    code = "from importlib.util import find_spec; print(find_spec('recsolve'))"
    environment, elsewhere = without_an_installation(tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "None"


def test_a_checkout_is_not_a_part_of_itself():
    """The folder of the package lies beside the layers; taken for one of them it would be loaded twice, and so on."""
    with pytest.raises(ModuleNotFoundError):
        __import__("recsolve.recsolve")
    parts = {module.name for module in pkgutil.iter_modules(recsolve.__path__) if module.ispkg}
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert parts - {"recsolve"} == {name.split(".")[1] for name in listed if "." in name}
