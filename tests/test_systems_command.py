"""``recsolve systems`` and ``recsolve compare --system``, as someone new to them types them."""

import json
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import recsolve as rs
from recsolve.analysis.distance import distance
from recsolve.studies.compare.compare import extent
from recsolve.studies.compare.race import race
from recsolve.studies.draw import tables
from recsolve.studies.systems import system
from recsolve.studies.systems.system import CATALOGUE, System, get


def grid_system():
    """A system on a graph."""

    def make(arrays):
        u = arrays["u"]
        return rs.Recurrence.from_graph(
            lambda h, u: np.tanh(h[0] + h[1] + u),
            rs.graphs.grid(u.shape[:2]),
            inputs=u,
            initial=np.zeros(u.shape[2:]),
            structure="diagonal",
        )

    def draw(config):
        return {"u": np.random.default_rng(config.seed).standard_normal((config.length, 5, 2))}

    made = get("minmax")
    words = {"title": "Grids", "cite": "nobody", "text": "Grids: h", "structure": "diagonal"}
    return System(name="grid", config=type(made.config)(length=6), draw=draw, make=make, **words)


@pytest.fixture
def with_grid(monkeypatch):
    real = system.get
    for module in ("systems.system", "systems.solved"):
        monkeypatch.setattr(
            f"recsolve.studies.{module}.get", lambda name: grid_system() if name == "grid" else real(name)
        )
    monkeypatch.setattr(system, "CATALOGUE", {**CATALOGUE, "grid": "grid"})


def test_list_names_every_system_and_the_solvers_that_apply(run, with_grid):
    rows = json.loads(run("systems", "list", "--json").stdout)
    assert [row["name"] for row in rows] == [*CATALOGUE, "grid"]
    solvers = {row["name"]: row["solvers"] for row in rows}
    assert solvers["pararnn_gru"] == [*rs.solvers.REGISTRY]
    assert solvers["htm_memory"] == ["sequential", "jacobi", "gauss_seidel", "parareal", "windowed", "auto"]
    assert {"newton", "jacobi"} < set(solvers["grid"]) < set(rs.solvers.REGISTRY)
    lines = {line.split()[0]: line for line in run("systems", "list").stdout.splitlines() if line.strip()}
    assert " all " in lines["pararnn_gru"]
    assert "sequential, jacobi, gauss_seidel, parareal, windowed, auto" in lines["htm_memory"]
    assert f" {len(solvers['grid'])} of {len(rs.solvers.REGISTRY)} " in lines["grid"]  # names would tear all columns


def test_names_can_be_read_in_a_narrow_terminal(run, monkeypatch):
    monkeypatch.setattr(tables, "console_of_output", lambda: Console(width=60))
    text = run("systems", "list").stdout
    assert [name for name in CATALOGUE if f"{name} " not in text] == []


@pytest.mark.parametrize("name", CATALOGUE)
def test_show_says_what_to_run(run, name):
    text = run("systems", "show", name).stdout
    assert get(name).text in text
    assert f"Solvers that apply: {get(name).which_solvers()}." in text
    for line in text[text.index("Config, which --set changes:") :].splitlines()[1:]:
        if " = " in line:
            assert line.split(" = ")[0] in vars(get(name).config)


@pytest.mark.parametrize(("name", "taken"), [("minmax", "newton"), ("htm_memory", "jacobi"), ("grid", "newton")])
def test_solve_takes_a_method_that_applies(run, with_grid, name, taken):
    found = json.loads(run("systems", "solve", name, "--set", "length=30", "--json").stdout)
    assert found["method"] == taken
    assert found["status"] == "converged"
    assert found["error"] <= 1e-14
    assert found.get("error of the scan", 0) == 0
    assert "converged" in run("systems", "solve", name, "--set", "length=30").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "minmaxx"), "system is 'minmaxx'; wanted one of pararnn_gru, "),
        (("solve", "minmaxx"), "system is 'minmaxx'; wanted one of pararnn_gru, "),
        (("solve", "minmax", "--method", "newtn"), "method is 'newtn'; wanted one of sequential, newton, "),
        (("solve", "htm_memory", "--method", "newton"), "method is 'newton'; wanted one of auto, gauss_seidel, jacobi"),
        (("solve", "grid", "--method", "elk"), "method is 'elk'; wanted one of"),
        (("solve", "htm_memory", "--tol", "1e-3"), "tol is 0.001; wanted None or 0"),
        (("solve", "minmax", "--tol", "-1"), "tol is -1.0; wanted a finite number >= 0"),
        (("solve", "minmax", "--set", "lenght=5"), "the config has unknown ['lenght']; wanted some of length, batch"),
        (("solve", "minmax", "--set", "length=many"), "length is 'many'; wanted int, as 4096"),
        (("solve", "minmax", "--set", "length=2.5"), "length is 2.5; wanted int, as 4096"),
        (("solve", "minmax", "--set", "length"), "--set is 'length'; wanted key=value"),
        (("solve", "minmax", "--set", "length=-1"), "length is -1; wanted at least 0"),
        (("solve", "minmax", "--set", "seed=-1"), "seed is -1; wanted at least 0"),
        (("solve", "minmax", "--set", "spread=inf"), "spread is inf; wanted a finite number"),
        (("solve", "minmax", "--set", "dtype=float16"), "dtype float16; wanted float32 or float64"),
        (("solve", "flash_elman", "--set", "units=0"), "units is 0; wanted at least 1"),
        (("solve", "minmax", "--set", "length=100000000000000"), "Unable to allocate"),
    ],
)
def test_wrong_input_is_one_line_that_names_it(run, with_grid, arguments, message):
    result = run("systems", *arguments, code=2)
    assert result.stderr.startswith("recsolve: error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--system", "minmx"), "--system is 'minmx'; wanted one of pararnn_gru"),
        (("--system", "minmax", "--units", "5"), "leave out --units, and write --set KEY=VALUE"),
        (("--system", "minmax", "--set", "units=0"), "units is 0; wanted at least 1"),
        (("--system", "minmax", "--set", "length=100000000000000"), "Unable to allocate"),
        (("--set", "units=3"), "--set units=3 changes what --system is, which is not given"),
    ],
)
def test_wrong_input_of_compare(run, arguments, message):
    assert message in run("compare", *arguments, code=2).stderr


def test_compare_shows_solvers_that_do_not_apply_as_such(run, tmp_path):
    text = run("compare", "--system", "htm_memory", "--set", "length=30", "--solvers", "newton,elk,jacobi").stdout
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith(" ")}
    assert rows["newton"] == ["newton", "n/a", *"-------"]
    assert rows["elk"][1] == "n/a"
    assert rows["jacobi"][1] == "converged"
    assert "newton, elk: not applicable (n/a); wanted one of auto, gauss_seidel, jacobi" in text
    assert ", since states are bool, not real numbers" in text
    assert "30 steps, 2 sequences, bool, seed 0" in text
    assert "error: how large a part" in text
    record = json.loads((tmp_path / "recsolve-compare" / "compare.json").read_text())
    assert [entry["status"] for entry in record["panels"][0]["entries"]] == [
        "inapplicable",
        "inapplicable",
        "converged",
    ]
    assert extent(grid_system().build()) == "6 x 5 nodes"
    for entry in race(grid_system().build(), ["elk", "newton"], tol=None, maxiter=None):
        assert entry.status == {"elk": "inapplicable", "newton": "converged"}[entry.solver]


def test_errors_of_infinite_states():
    inf, nan = np.inf, np.nan
    assert distance(np.array([-inf, 1.0]), np.array([-inf, 1.5])) == 0.5
    assert distance(np.array([-inf, inf]), np.array([-inf, inf])) == 0
    assert distance(np.array([-inf]), np.array([inf])) == inf
    assert np.isnan(distance(np.array([nan, 1.0]), np.array([nan, 1.0])))
    assert distance(np.array([True, False, True, True]), np.array([True, True, True, True])) == 0.25
    assert distance(np.array([7, 200], np.uint8), np.array([200, 200], np.uint8)) == 0.5
    assert distance(np.empty((0, 3)), np.empty((0, 3))) == 0
    rec = rs.Recurrence.from_function(  # a maximum from -inf, of inputs of which the first are -inf
        lambda h, u: np.maximum(h, u),
        inputs=np.array([[-inf], [-inf], [1.0]]),
        initial=np.array([-inf]),
        structure="diagonal",
    )
    (entry,) = race(rec, ["sequential"], tol=None, maxiter=None)
    assert entry.error == 0


def test_the_page_on_systems(monkeypatch):
    """Its tables for discrete states and graphs, and its figures, which exist."""
    docs = Path(__file__).parent.parent / "docs"
    for name in ("gallery", "systems"):  # the former is also the name of a module of the tests
        spec = spec_from_file_location(name, docs / f"{name}.py")
        page = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, page)
        spec.loader.exec_module(page)
    monkeypatch.setattr(page, "STEPS", 5)
    grid = grid_system()
    monkeypatch.setitem(page.ORACLES, "grid", lambda arrays: rs.solve(grid.make(arrays), method="sequential").states)
    text = "\n".join(page.solved(grid))
    assert "5 x 5 nodes, one sequence, states of 2 float64" in text
    assert "| newton | converged |" in text
    assert "| elk |" not in text
    assert "one axis of time" in text
    text = "\n".join(page.solved(get("htm_memory")))
    assert "5 steps, a batch of 2, states of 192 bool" in text
    assert "| newton |" not in text
    assert "| jacobi | converged |" in text
    figures = re.findall(r"!\[.*\]\((.*)\)", "\n".join(page.shown("minmax")))
    assert figures
    assert [name for name in figures if not (docs / name).is_file()] == []


def test_a_reader_that_stops_early_is_no_error():
    for command in ("systems list", "systems show minmax"):
        lines = f"{sys.executable} -m recsolve.studies {command} | head -1; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
