"""The commands of studies, and the report."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from io import StringIO

import demo_study
import pytest
import rich.console
import rich.progress  # as the bar does, before what it imports is replaced
from demo_study import STUDY, Config
from rich.console import Console

from recsolve.studies import registry, report
from recsolve.studies.command import progress, study_cli
from recsolve.studies.registry import Table
from recsolve.studies.report import write_report
from recsolve.studies.sweep import sweep


@pytest.fixture
def call(run, monkeypatch):
    real = registry.get
    monkeypatch.setattr(registry, "get", lambda name: STUDY if name == STUDY.name else real(name))
    monkeypatch.setattr(registry, "CATALOGUE", {STUDY.name: "demo_study"})
    return run


def test_run_show_plot_and_clean(call, tmp_path):
    out = tmp_path / "recsolve-studies" / "paper" / "demo"
    text = call("study", "list").stdout
    assert "paper/demo" in text
    assert "What are powers?" in text
    text = call("study", "run", "paper/demo", "--workers", "1").stdout
    assert "6 runs, 0 of them stored before, 0 failed" in text
    assert "values: The largest value is 3" in text
    written = {path.name for path in out.iterdir()}
    assert written == {"records", "data.nc", "captions.json", "values.png", "values.pdf", "values.svg"}
    captions = json.loads((out / "captions.json").read_text())
    assert captions["facts"] == {"largest": 3.0, "failed": 0}
    text = call("study", "show", "paper/demo").stdout
    assert "6 of 6 runs stored" in text
    assert "The largest value is 3" in text
    (out / "values.png").unlink()
    call("study", "plot", "paper/demo")
    assert (out / "values.png").read_bytes().startswith(b"\x89PNG")
    assert "0 failed" in call("study", "run", "paper/demo", "--set", "seeds=1").stdout
    (out / "notes.txt").write_text("mine")
    call("study", "clean", "paper/demo", "--yes")
    assert [path.name for path in out.iterdir()] == ["notes.txt"]  # only what it made
    assert "deleted 0 files" in call("study", "clean", "paper/demo").stdout  # which nobody needs to allow


@pytest.mark.parametrize(
    ("terminal", "answer", "code", "said"),
    [
        (False, "y\n", 2, "11 files of paper/demo in recsolve-studies/paper/demo would be deleted"),
        (True, "n\n", 1, "nothing is deleted"),
        (True, "", 1, "Aborted"),
        (True, "y\n", 0, ""),
    ],
)
def test_records_are_deleted_by_those_who_say_so(call, tmp_path, monkeypatch, terminal, answer, code, said):
    call("study", "run", "paper/demo", "--workers", "1")
    monkeypatch.setattr(study_cli, "_can_be_asked", lambda: terminal)
    result = call("study", "clean", "paper/demo", code=code, input=answer)
    assert said in result.stderr
    assert "--yes" in result.stderr or terminal
    assert len(list((tmp_path / "recsolve-studies").rglob("*.*"))) == (0 if code == 0 else 11)


def test_what_is_shown_of_studies_as_json(call):
    call("study", "run", "paper/demo", "--workers", "1")
    found = json.loads(call("study", "show", "paper/demo", "--json").stdout)
    assert (found["runs"], found["stored"]) == (6, 6)
    assert found["config"]["bases"] == [0.5, 2.0, 3.0]
    assert "The largest value is 3" in found["captions"]["values"]
    (row,) = json.loads(call("study", "list", "--json").stdout)
    assert row["runs"]["quick"] == 6


def test_a_config_file_and_settings(call, tmp_path):
    (tmp_path / "config.toml").write_text("bases = [5.0]\nseeds = 3\n")
    text = call("study", "run", "paper/demo", "--config", "config.toml", "--set", "seeds=1").stdout
    assert "1 runs, 0 of them" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing"], "study is 'nothing'; wanted one of paper/demo"),
        (["run", "paper/demo", "--set", "seeds"], "--set is 'seeds'; wanted key=value"),
        (["run", "paper/demo", "--config", "missing.toml"], "--config missing.toml cannot be read"),
        (["run", "paper/demo", "--workers", "0"], "workers is 0"),
        (["run", "paper/demo", "--full", "--tiny"], "--full and --tiny are both given"),
        (["run", "paper/demo", "--tiny", "--quick"], "--quick and --tiny are both given"),
        (["show", "paper/demo", "--quick", "--full"], "--full and --quick are both given"),
        (["plot", "paper/demo"], "no results in"),
        (["clean", "nothing"], "study is 'nothing'"),
        (["run", "paper/demo", "--out", "taken"], "--out taken is a file; wanted a folder"),
    ],
)
def test_errors_are_one_line(call, tmp_path, arguments, message):
    (tmp_path / "taken").write_text("a file")
    result = call("study", *arguments, code=2)
    assert result.stderr.startswith("recsolve: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_study_whose_runs_all_failed_is_shown_in_one_line(call):
    call("study", "run", "paper/demo", "--set", "bad=3.0", "--set", "bases=[3.0]", "--workers", "1", code=2)
    result = call("study", "show", "paper/demo", code=2)
    assert "recsolve: error: paper/demo cannot be drawn" in result.stderr
    assert "Traceback" not in result.output


def test_failed_runs_are_reported_and_the_exit_status_says_so(call):
    result = call("study", "run", "paper/demo", "--set", "bad=3", "--workers", "1", code=1)
    assert "6 runs, 0 of them stored before, 2 failed" in result.stdout
    assert "no powers of 3.0" in result.stderr
    assert "--retry" in result.stderr


def test_an_interrupted_command_says_that_it_resumes(call, monkeypatch):
    monkeypatch.setattr(demo_study.time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    result = call("study", "run", "paper/demo", "--workers", "1", code=130)
    assert result.stderr == "recsolve: interrupted; what is stored in recsolve-studies will be reused\n"
    monkeypatch.undo()


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_has_a_rate_and_the_time_that_is_left(place, monkeypatch, capsys, terminal):
    shown = StringIO()
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    console = Console(file=shown, force_terminal=terminal, width=120)
    monkeypatch.setattr(rich.console, "Console", lambda stderr: console)
    with progress.progress_of("demo") as tick:
        sweep(STUDY, Config(bad=3.0, pause=0.01), place, workers=1, tick=tick)
    text = shown.getvalue() if terminal else capsys.readouterr().err
    assert "demo" in text
    assert "2 failed" in text
    assert re.search(r"[\d.]+ runs/s", text)
    assert "left" in text
    assert "6/6" in text or "6 of 6 runs" in text


def test_commands_start_without_heavy_imports():
    code = (
        "import sys; from recsolve.studies.command import cli;"
        "print(sorted({'xarray', 'matplotlib', 'numba', 'joblib', 'dask', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_report_holds_everything(call, tmp_path):
    text = call("report", "--quick", "--workers", "1").stdout
    path = tmp_path / "recsolve-studies" / "report.html"
    assert f"wrote {path.relative_to(tmp_path)}" in text
    html = path.read_text()
    assert html.count("data:image/svg+xml;base64,") == 1
    assert "more than 1 &amp; less than 1e9" in html
    assert "recsolve study run paper/demo --quick" in html
    assert "6 of 6 runs done, 0 failed" in html
    assert "bases = [0.5, 2.0, 3.0]" in html
    assert "http" not in re.sub(r"base64,[^\"]*", "", html)  # nothing is loaded from elsewhere
    call("study", "run", "paper/demo", "--set", "bases=[2, 3]")
    call("report", "--stored")
    assert "recsolve study run paper/demo --quick --set &#39;bases=[2.0, 3.0]&#39;" in path.read_text()


def test_a_study_that_cannot_be_drawn_keeps_no_other_from_being_read(call, tmp_path, monkeypatch):
    broken = replace(STUDY, name="broken", quick=Config(bases=(3.0,), bad=3.0))
    studies = {"broken": broken, STUDY.name: STUDY}
    monkeypatch.setattr(registry, "get", studies.__getitem__)
    monkeypatch.setattr(registry, "CATALOGUE", studies)
    call("report", "--workers", "1", code=1)
    html = (tmp_path / "recsolve-studies" / "report.html").read_text()
    assert "broken cannot be drawn: 0 of 2 runs are done, 2 failed" in html
    assert html.count("data:image/svg+xml;base64,") == 1


def test_a_report_of_what_is_stored_leaves_out_what_is_not(call, tmp_path, monkeypatch):
    studies = {"other": replace(STUDY, name="other"), STUDY.name: STUDY}
    monkeypatch.setattr(registry, "get", studies.__getitem__)
    monkeypatch.setattr(registry, "CATALOGUE", studies)
    assert "--stored finds no results of other, paper/demo" in call("report", "--stored", code=2).stderr
    call("study", "run", "paper/demo", "--workers", "1")
    assert "not stored, and left out of the report: other\n" in call("report", "--stored").stdout
    html = (tmp_path / "recsolve-studies" / "report.html").read_text()
    assert html.count("<section") == 1
    assert not list((tmp_path / "recsolve-studies").glob("other*"))


def test_a_report_asks_its_questions_first_and_aligns_numbers(call, tmp_path):
    call("report", "--quick", "--workers", "1")
    html = (tmp_path / "recsolve-studies" / "report.html").read_text()
    assert '<li><a href="#paper-demo">What are powers?</a> <span>paper/demo</span></li>' in html
    assert '<th class="number">base</th>' in html
    assert '<td class="number">0.5</td>' in html
    assert html.count("<table") == html.count('<div class="box"><table')


@pytest.mark.parametrize(
    ("column", "numbers"),
    [
        (["1", "-2.5", "3e-05"], True), (["12%", "0.5 ms", "2x"], True), (["3", "not converged"], True),
        (["newton", "3"], False), (["not converged", "-"], False), ([], False), (["1 to 3"], False), (["2x2"], False),
    ],
)  # fmt: skip
def test_columns_of_numbers_are_known(column, numbers):
    table = report._table(Table("a table", ["a"], [[cell] for cell in column]))
    assert table["numeric"] == [numbers]


def test_what_has_no_number_is_a_dash_in_the_report():
    table = report._table(
        Table("a table", ["solver", "knee at"], [["nan_newton", "nan"], ["jacobi", "nanx"], ["a", "2"]])
    )
    assert table["rows"] == [["nan_newton", "-"], ["jacobi", "-"], ["a", "2"]]


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="recsolve study run paper/demo"):
        write_report([STUDY], tmp_path, {})
