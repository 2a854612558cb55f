"""What holds for every command, found in the tree of them: help, JSON, outputs that are checked, whole names."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib import import_module

import pytest
import typer
from rich.table import Table
from rich.text import Text

import recsolve as rs
from recsolve.studies import registry
from recsolve.studies.bench import WHAT, distributed, get
from recsolve.studies.command import compare_cli, distributed_run, shared, study_cli, train_cli
from recsolve.studies.command.cli import app
from recsolve.studies.compare.compare import CompareConfig, Comparisons
from recsolve.studies.compare.comparison import Comparison
from recsolve.studies.compare.race import Entry
from recsolve.studies.draw import tables
from recsolve.studies.systems import system


def commands(group, *path):
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), {option for parameter in command.params for option in parameter.opts}


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", [(), ("study",), ("systems",), ("bench",), *COMMANDS], ids=" ".join)
def test_help_has_a_short_name(run, path):
    assert run(*path, "-h").stdout == run(*path, "--help").stdout
    assert run(*path, "-h").stdout.lstrip().startswith(" ".join(["Usage: recsolve", *path]))


def strict(text):
    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


def test_every_command_that_prints_tables_prints_json():
    lines = {("study", "run"), ("study", "plot"), ("study", "clean"), ("report",)}  # what they say is where files are
    assert {path for path, options in COMMANDS.items() if "--json" not in options} == lines


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("cells",), rs.cells.REGISTRY),
        (("solvers",), rs.solvers.REGISTRY),
        (("study", "list"), registry.CATALOGUE),
        (("systems", "list"), system.CATALOGUE),
    ],
    ids=["cells", "solvers", "studies", "systems"],
)
def test_listings_as_json_and_whole_at_80_columns(run, monkeypatch, arguments, names):
    rows = strict(run(*arguments, "--json").stdout)
    assert sorted(row["name"] for row in rows) == sorted(names)
    assert len({tuple(row) for row in rows}) == 1  # the same keys in every row
    monkeypatch.setattr(tables, "_PIPE_WIDTH", 80)
    with Seen(monkeypatch) as seen:
        text = run(*arguments).stdout
    seen.check(text)
    assert [name for name in names if not re.search(rf"^ ?{re.escape(name)}( |$)", text, re.MULTILINE)] == []


@pytest.mark.parametrize("arguments", [("info",), ("systems", "solve", "minmax", "--set", "length=9")], ids=" ".join)
def test_findings_are_whole_at_80_columns(run, tmp_path, monkeypatch, arguments):
    monkeypatch.setattr(tables, "_PIPE_WIDTH", 80)
    monkeypatch.setenv("RECSOLVE_CACHE", str(tmp_path / ("a_long_name" * 9)))
    with Seen(monkeypatch) as seen:
        text = run(*arguments).stdout
    seen.check(text)


def test_a_table_of_nothing_has_its_heads(capsys):
    tables.show_rows("nothing", ("names", "what they are"), [])
    assert capsys.readouterr().out.splitlines()[2].split() == ["names", "what", "they", "are"]


class Seen:
    """All that tables are given, to compare with what is printed."""

    def __init__(self, monkeypatch):
        self.given, self._patch = Counter(), monkeypatch
        self._row, self._column = Table.add_row, Table.add_column

    def __enter__(self):
        def row(table, *cells, **how):
            self.given.update("".join(Text.from_markup(cell).plain for cell in cells))
            self._row(table, *cells, **how)

        def column(table, header="", **how):
            self.given.update(Text.from_markup(header).plain)
            self._column(table, header, **how)

        self._patch.setattr(Table, "add_row", row)
        self._patch.setattr(Table, "add_column", column)
        return self

    def __exit__(self, *error):
        self._patch.setattr(Table, "add_row", self._row)
        self._patch.setattr(Table, "add_column", self._column)

    def check(self, text):
        """Nothing has been cut, and no line is longer than the terminal."""
        self.given.pop(" ", None)
        assert self.given - Counter(text) == Counter()
        assert max(map(len, text.splitlines())) <= 80


def made_up(table):
    """Return a row with a text or a number under every name that a table of times asks for."""
    row = {}
    while True:
        for value in (1234.5, "some long name, with more"):
            try:
                for column in table.columns:
                    column.show(row)
                return row
            except KeyError as missing:
                row[missing.args[0]] = value
                last = missing.args[0]
                break
            except (TypeError, ValueError, AttributeError):
                row[last] = "some long name, with more"
                break


@pytest.mark.parametrize(
    ("machine", "what"),
    [*((machine, what) for machine in WHAT for what in WHAT[machine]), ("distributed", "calls over ranks")],
)
def test_tables_of_times_are_whole_at_80_columns(capsys, monkeypatch, machine, what):
    monkeypatch.setattr(tables, "_PIPE_WIDTH", 80)
    table = get(machine, what).table if machine in WHAT else distributed.TABLE
    with Seen(monkeypatch) as seen:
        table.show([made_up(table)])
    seen.check(capsys.readouterr().out)


def comparison():
    """Return one of all solvers, of those with settings in their names, and of all that can become of them."""
    config, nan = CompareConfig(), float("nan")
    names = [*rs.solvers.REGISTRY, *(f"damped_newton(regularisation={x})" for x in (0.125, 0.1255))]
    entries = [
        Entry(name, "newton-type", str(status), "why", 12345, 1e-100, nan, 1234.5, 9999.5, False, 1e300)
        for name, status in zip(names, [*rs.Status, "error", "inapplicable"] * len(names), strict=False)
    ]
    tolerance = rs.solve(rs.cells.GRU.random(input_size=1, hidden_size=1, rng=0).recurrence([[1.0]])).tolerance
    panel = Comparison("b", "float64", tolerance, entries, complete=True)
    return Comparisons(config, "a", "9 steps", 1, [panel]), names


def test_comparisons_are_whole_at_80_columns(capsys, monkeypatch):
    monkeypatch.setattr(tables, "_PIPE_WIDTH", 80)
    result, names = comparison()
    with Seen(monkeypatch) as seen:
        tables.show_comparison(result)
    text = capsys.readouterr().out
    seen.check("\n".join(line for line in text.splitlines() if ": why" not in line))
    assert [name for name in names if f" {name} " not in text] == []
    assert all(type(row["iterations"]) is int for row in result.rows())


@pytest.mark.parametrize(
    ("path", "arguments", "file"),
    [
        (("compare",), (), "compare.json"),
        (("study", "run"), ("lyapunov",), "lyapunov/data.nc"),
        (("study", "plot"), ("lyapunov",), "lyapunov/captions.json"),
        (("report",), ("--only", "lyapunov"), "report.html"),
        (("train",), (), "log.jsonl"),
        (("bench", "distributed"), ("--ranks", "1"), "distributed.json"),
    ],
    ids=str,
)
def test_outputs_are_checked_before_anything_is_computed(run, tmp_path, monkeypatch, path, arguments, file):
    def computed(*arguments, **how):
        raise AssertionError("computed before the output was checked")

    computing = {compare_cli: ("_run",), study_cli: ("_run", "_draw"), train_cli: ("_train",)}
    for module, names in (computing | {distributed_run: ("on_rank",)}).items():
        for name in names:
            monkeypatch.setattr(module, name, computed)
    (tmp_path / "taken").write_text("")
    (tmp_path / "out" / file).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    for out, words in (
        ("taken", "--out taken is a file; wanted a folder"),
        ("taken/in/it", ": taken is a file; wanted a folder"),
        ("out", f"out/{file} is a folder; wanted a file there, or nothing"),
    ):
        assert words in run(*path, *arguments, "--out", out, code=2).stderr
    monkeypatch.setattr(shared.os, "access", lambda place, mode: False)
    assert "cannot be written to" in run(*path, *arguments, "--out", "new", code=2).stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_every_command_that_writes_is_tested_above():
    (mark,) = test_outputs_are_checked_before_anything_is_computed.pytestmark
    read = {("study", "show"), ("study", "clean")}
    assert {path for path, options in COMMANDS.items() if "--out" in options} - read == {row[0] for row in mark.args[1]}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("compare --solvers newton,damped", {"newton,damped_newton"}),
        ("compare --solvers fixed", {"fixed-point"}),
        ("compare --cell ", {*rs.cells.REGISTRY}),
        ("compare --system ", {*system.CATALOGUE}),
        ("study run ", {*registry.CATALOGUE}),
        ("study show paper/de", {"paper/deer"}),
        ("report --only lyapunov,mal", {"lyapunov,mala"}),
        ("systems solve minmax --method ", {*rs.solvers.REGISTRY}),
        ("bench cpu --what h", {"history"}),
        ("bench distributed --case scan", {"scan-forgets", "scan-keeps"}),
        ("info --warm al", {"all"}),
        ("train ma", {"match"}),
    ],
)
def test_shells_complete_names(run, line, offered):
    words = f"recsolve {line}"
    how = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1), "_RECSOLVE_COMPLETE": "complete_bash"}
    assert set(run(env=how).stdout.split()) == offered


def test_completion_can_be_installed(run):
    assert "_RECSOLVE_COMPLETE=complete_bash" in run("--show-completion", env={"SHELL": "/bin/bash"}).stdout
    assert "--install-completion" in run("-h").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are others")
def test_notices_go_above_a_bar_and_lines_into_their_file(tmp_path):
    """Standard error is a terminal with a bar, standard output a file, as in `recsolve train > log`."""
    pty = pytest.importorskip("pty")
    code = """
import logging
from recsolve.base.progress import bar_of
from recsolve.studies.command.shared import show_notices
show_notices()
with bar_of("sweep") as bar:
    bar(1, 2, "note")
    logging.getLogger("recsolve.kernels").warning("heed this")
    print("a line of the log")
    bar(2, 2, "note")
"""
    reader, writer = pty.openpty()
    with open(tmp_path / "log", "w") as log:
        subprocess.run(
            [sys.executable, "-P", "-c", code],
            stdout=log,
            stderr=writer,
            check=True,
            env={**os.environ, "TERM": "xterm"},
        )
    os.close(writer)
    shown = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert (tmp_path / "log").read_text() == "a line of the log\n"
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "\n").split("\n")
    assert "recsolve: heed this" in [line.strip() for line in lines]


@pytest.mark.parametrize("error", shared.ERRORS)
@pytest.mark.parametrize(
    ("arguments", "module", "name"),
    [
        (("bench", "cpu"), "recsolve.studies.bench", "get"),
        (("info",), "recsolve.studies.command.information", "information"),
        (("weights", "x.npz"), "recsolve.interop.contents", "read_contents"),
        (("study", "show", "lyapunov"), "recsolve.studies.registry", "get"),
        (("systems", "solve", "elman"), "recsolve.studies.systems.solved", "solved"),
        (("compare",), "recsolve.studies.command.compare_cli", "_run"),
        (("train",), "recsolve.studies.command.train_cli", "_train"),
        (("bench", "distributed", "--ranks", "1"), "recsolve.studies.command.distributed_run", "on_rank"),
    ],
    ids=lambda x: x[0] if isinstance(x, tuple) else "",
)
def test_errors_of_what_is_asked_for_are_a_line(run, monkeypatch, arguments, module, name, error):
    def fail(*given, **settings):
        raise error("of a test")

    monkeypatch.setattr(import_module(module), name, fail)
    result = run(*arguments, code=2)
    assert result.stderr.splitlines()[-1] == "recsolve: error: of a test"
