"""The command line on small problems."""

import json
import os
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import gallery
import numpy as np
import pytest
from matplotlib import pyplot
from test_recordings import write

import recsolve as rs
from recsolve.studies.compare import compare as study
from recsolve.studies.draw import figures, tables
from recsolve.studies.groups import select

ROOT = Path(__file__).parent.parent
BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}
SMALL = ["--units", "4", "--length", "40"]
LOOK_AT_FIGURES = (
    "test_compare_writes_table_figure_and_numbers",
    "test_solvers_that_are_not_in_the_registry",
    "test_the_table_and_the_figure_say_whether_a_recording_is_raw",
)


@pytest.fixture(autouse=True)
def formats(request, monkeypatch):
    """Draw as PNG alone but for the tests that look at figures: a PDF takes as long as all else."""
    if request.node.name not in LOOK_AT_FIGURES:
        monkeypatch.setattr(figures, "FORMATS", ("png",))


def test_compare_writes_table_figure_and_numbers(run, tmp_path):
    result = run("compare", *SMALL)
    for solver in study.DEFAULT_SOLVERS:
        rows = [line for line in result.stdout.splitlines() if line.split()[:2] == [solver, "converged"]]
        assert len(rows) == 2  # one per panel
    assert "gru, dense mixing, 4 units" in result.stdout
    assert "gru, diagonal mixing, 4 units" in result.stdout
    assert "vs loop" in result.stdout
    assert "wrote" in result.stdout
    out = tmp_path / "recsolve-compare"
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "compare.pdf").read_bytes().startswith(b"%PDF")
    assert {path.name for path in out.iterdir()} == {f"compare.{kind}" for kind in ("png", "pdf", "json", "toml")}
    record = json.loads((out / "compare.json").read_text())
    assert record["format"] == study.FORMAT
    assert record["complete"] is True
    assert record["config"]["seed"] == 0
    assert record["provenance"]["versions"]["numpy"] == np.__version__
    assert record["provenance"]["machine"]["cores"] == os.cpu_count()
    for panel in record["panels"]:
        assert [entry["solver"] for entry in panel["entries"]] == list(study.DEFAULT_SOLVERS)
        for entry in panel["entries"]:
            assert entry["status"] == "converged"
            assert len(entry["residuals"]) == len(entry["errors"]) == entry["iterations"] + 1
            assert entry["error"] < 1e-14
            assert entry["seconds"] > 0
            assert entry["trusted"] is True


def test_the_readme_shows_what_the_command_prints(run):
    """In form: the numbers are those of another machine and of wider cells."""
    spec = spec_from_file_location("readme_table", ROOT / "docs" / "readme_table.py")
    readme = module_from_spec(spec)
    spec.loader.exec_module(readme)

    def form(text):
        lines = [line for line in text.splitlines() if not line.startswith("compiling, or")]
        number = re.compile(r"[0-9][0-9.e+-]*x?")
        return [
            [number.sub("0", word) for word in line.strip(" ─").split() if word not in ("ms", "s")] for line in lines
        ]

    (shown,) = readme.BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert form(shown) == form(readme.abridged(run("compare", *SMALL).stdout))
    assert re.search(r"^compiling, or loading what was compiled, took [0-9.]+ s", shown, flags=re.MULTILINE)


def test_the_whole_family_converges_and_its_table_fits_a_plain_terminal(run, tmp_path):
    result = run("compare", *SMALL, "--solvers", "all")
    table = [line for line in result.stdout.splitlines() if line.strip().startswith(tuple(rs.solvers.REGISTRY))]
    assert len(table) >= 2 * len(rs.solvers.REGISTRY)
    assert max(map(len, table)) <= 80
    record = json.loads((tmp_path / "recsolve-compare" / "compare.json").read_text())
    for panel in record["panels"]:
        assert [entry["solver"] for entry in panel["entries"]] == list(rs.solvers.REGISTRY)
        assert all(entry["status"] == "converged" for entry in panel["entries"])


def test_groups_are_selected_by_name_and_shown_in_order(run):
    text = run(
        "compare", *SMALL, "--mixing", "dense", "--solvers", "Fixed_Point,damped-newton,sequential,jacobi"
    ).stdout
    lines = [line.strip() for line in text.splitlines()]
    shown = [word for line in lines for word in line.split(" ")[:1] if word in rs.solvers.REGISTRY]
    assert shown == ["sequential", "damped_newton", "jacobi", "picard", "anderson", "triangular_anderson"]
    assert [line for line in lines if line in rs.solvers.GROUPS] == ["reference", "globalised", "fixed point"]


@pytest.mark.parametrize("group", rs.solvers.GROUPS)
def test_every_group_can_be_typed(group):
    names = tuple(name for name, solver in rs.solvers.REGISTRY.items() if solver.group == group)
    for spelling in (group, group.replace(" ", "-"), group.replace(" ", "_"), group.upper()):
        assert select([spelling]) == names
    assert select([names[-1], group, "all"])[: len(names)] == (names[-1], *names[:-1])


def test_solvers_that_are_not_in_the_registry(tmp_path, capsys):
    fading = gallery.Fading()
    mine = (fading, gallery.Fading(c=0.5), rs.solvers.Windowed(solver=fading, window=9))
    config = study.CompareConfig(units=4, length=40, mixing="dense", solvers=("newton", *mine))
    *_, result = study.compare(config)
    labels = ["newton", "fading", "fading(c=0.5)", "windowed(solver=Fading(c=0.8), window=9)"]
    (entries,) = (panel.entries for panel in result.panels)
    assert [entry.solver for entry in entries] == labels
    assert [entry.group for entry in entries] == ["newton-type", "custom", "custom", "composite"]
    assert {entry.status for entry in entries} == {"converged"}
    assert [path.suffix for path in result.save(tmp_path)] == [".json", ".png", ".pdf"]
    assert json.loads((tmp_path / "compare.json").read_text())["config"]["solvers"] == labels
    tables.show_comparison(result)
    assert "custom" in capsys.readouterr().out.splitlines()


def test_many_solvers_are_drawn_by_group(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "by_group", lambda *args: drawn.append(args[2]) or pyplot.figure())
    for some in (("newton-type", "jacobi"), ("newton-type",)):  # ten and nine
        config = study.CompareConfig(units=2, length=9, mixing="dense", solvers=("sequential", *some))
        *_, result = study.compare(config)
        result.save(tmp_path)
    assert [*drawn[0]] == ["newton-type", "fixed point"]
    assert len(drawn) == 1


def test_the_same_seed_gives_the_same_numbers(run, tmp_path):
    def numbers(out):
        run("compare", *SMALL, "--out", out, "--seed", "3")
        record = json.loads((tmp_path / out / "compare.json").read_text())
        return [(e["solver"], e["residuals"], e["errors"]) for p in record["panels"] for e in p["entries"]]

    assert numbers("a") == numbers("b")


def test_json_prints_rows_and_nothing_else(run):
    result = run("compare", *SMALL, "--solvers", "newton,jacobi", "--json", "--mixing", "heads")
    rows = json.loads(result.stdout)
    assert [row["solver"] for row in rows] == ["newton", "jacobi"]
    assert {"panel", "status", "iterations", "residual", "error", "seconds", "relative", "trusted"} <= set(rows[0])
    assert "wrote" in result.stderr


@pytest.mark.sample(cell=gallery.COMPILE_LIKE_OTHERS)
@pytest.mark.parametrize("cell", sorted(rs.cells.REGISTRY))
def test_every_cell(run, cell):
    result = run("compare", *SMALL, "--cell", cell, "--solvers", "newton,picard", "--dtype", "float32", "--batch", "3")
    assert "converged" in result.stdout


def test_what_does_not_converge_says_so(run, tmp_path):
    result = run("compare", *SMALL, "--solvers", "jacobi", "--maxiter", "3", "--mixing", "dense")
    assert "maxiter" in result.stdout
    assert "fallback" in result.stdout
    record = json.loads((tmp_path / "recsolve-compare" / "compare.json").read_text())
    assert record["panels"][0]["entries"][0]["trusted"] is False


def test_options_reach_the_problem(run, tmp_path):
    arguments = [
        "--gain",
        "3",
        "--tol",
        "1e-6",
        "--batch",
        "2",
        "--input",
        "eeg",
        "--mixing",
        "dense",
        "--cell",
        "lstm",
    ]
    run("compare", *SMALL, *arguments, "--solvers", "newton")
    record = json.loads((tmp_path / "recsolve-compare" / "compare.json").read_text())
    config = record["config"]
    assert (config["gain"], config["tol"], config["batch"], config["cell"]) == (3.0, 1e-6, 2, "lstm")
    assert record["panels"][0]["tolerance"] == 1e-6
    assert "2 sequences" in record["title"]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_checkpoint_saved_from_torch_on_a_recording_of_ones_own(run, tmp_path, signal, suffix):
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(2, 6)
    weights = tmp_path / f"lstm{suffix}"
    if suffix == ".npz":
        np.savez(weights, **{name: value.numpy() for name, value in module.state_dict().items()})
    else:
        from safetensors.torch import save_file

        save_file(module.state_dict(), weights)
    recording = write(tmp_path / "mine.csv", signal)
    result = run("compare", "--weights", str(weights), "--input", str(recording), "--solvers", "newton,quasi_newton")
    assert f"lstm from lstm{suffix}, 6 units" in result.stdout
    assert "mine.csv (2 channels, raw): 120 steps" in result.stdout
    wrong = run("compare", "--weights", str(weights), "--input", "membrane", code=2)
    assert "wants 2 channels, --input membrane has 1" in wrong.stderr


def test_the_table_and_the_figure_say_whether_a_recording_is_raw(run, tmp_path, signal, monkeypatch):
    """A long title is broken, not cut off."""
    file = tmp_path / f"{'recording_' * 8}.csv"
    np.savetxt(file, 100 + signal, delimiter=",")
    drawn, together = [], figures._together
    monkeypatch.setattr(figures, "_together", lambda *args: drawn.append(together(*args)) or drawn[-1])
    small = ["--units", "4", "--mixing", "dense", "--solvers", "newton", "--input", str(file)]
    residuals = []
    for option, word in (([], "raw"), (["--standardise"], "standardised")):
        shown = f"{file.name} (2 channels, {word}): "
        assert shown in run("compare", *small, *option).stdout
        record = json.loads((tmp_path / "recsolve-compare" / "compare.json").read_text())
        assert record["title"].startswith(shown)
        assert record["config"]["standardise"] is bool(option)
        residuals.append(record["panels"][0]["entries"][0]["residuals"][0])
        title = drawn[-1]._suptitle.get_window_extent()
        assert 0 <= title.x0 < title.x1 <= drawn[-1].bbox.width
    assert residuals[0] != residuals[1]


def test_a_disk_that_is_full_by_then_keeps_the_table(run, monkeypatch):
    def full(result, folder):
        raise OSError("no space left on device")

    monkeypatch.setattr(study.Comparisons, "save", full)
    result = run("compare", *SMALL, "--solvers", "newton", code=2)
    assert "newton" in result.stdout
    assert "the rows above are complete" in result.stderr


def test_an_interrupt_keeps_what_is_done(run, tmp_path, monkeypatch):
    from recsolve.studies.compare import race

    real = race._entry

    def interrupted(recurrence, name, *rest):
        if name == "jacobi":
            raise KeyboardInterrupt
        return real(recurrence, name, *rest)

    monkeypatch.setattr(race, "_entry", interrupted)
    result = run("compare", *SMALL, code=130)
    assert "newton" in result.stdout
    record = json.loads((tmp_path / "recsolve-compare" / "compare-partial.json").read_text())
    assert record["complete"] is False
    assert record["title"].endswith("(partial: 4 of 14 solves)")  # which the figure shows
    assert [e["solver"] for e in record["panels"][0]["entries"]][-1] == "damped_newton"


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, LookupError])
def test_a_solver_that_fails_is_recorded_not_lost(run, tmp_path, monkeypatch, error):
    from recsolve.solvers import Newton

    def explode(self, problem, iterate):
        raise error("a large matrix")

    monkeypatch.setattr(Newton, "preconditioner", explode)
    result = run("compare", *SMALL, "--solvers", "newton,jacobi", "--mixing", "dense")
    assert f"{error.__name__}: a large matrix" in result.stdout
    record = json.loads((tmp_path / "recsolve-compare" / "compare.json").read_text())
    newton, jacobi = record["panels"][0]["entries"]
    assert (newton["status"], newton["error"]) == ("error", "nan")
    assert jacobi["status"] == "converged"


def test_nothing_to_draw_gives_no_figure(run, tmp_path):
    run("compare", *SMALL, "--solvers", "sequential", "--tol", "0")
    written = {path.name for path in (tmp_path / "recsolve-compare").iterdir()}
    assert written == {"compare.json", "compare.toml"}
