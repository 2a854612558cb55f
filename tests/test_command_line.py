"""Listings, pipes, styles and files of the command line."""

import json
import os
import subprocess
import sys

import pytest
from test_compare import BUFFERED

import recsolve as rs
from recsolve.studies.draw import tables
from recsolve.studies.draw.style import STYLES, line_arguments, style_of
from recsolve.studies.store.files import replace_into_place


@pytest.mark.parametrize("command", ["cells", "solvers", "info"])
def test_listings(run, command):
    text = run(command).stdout
    names = {"cells": rs.cells.REGISTRY, "solvers": rs.solvers.REGISTRY, "info": ("numpy", "kernel: scan", "cupy")}
    for name in names[command]:
        assert name in text


def test_solvers_are_listed_by_group(run):
    lines = run("solvers").stdout.splitlines()
    assert lines == [line.rstrip() for line in lines]
    names = [line.strip().split(" ")[0] if line.startswith("  ") else line.strip() for line in lines]
    in_order = []
    for group in rs.solvers.GROUPS:
        in_order += [group, *(name for name, solver in rs.solvers.REGISTRY.items() if solver.group == group)]
    assert [name for name in names if name in in_order] == in_order
    for line in lines:  # one line per solver, with its source at the end
        if line.startswith("  "):
            assert line.endswith(rs.solvers.REGISTRY[line.split()[0]].cite)


def test_the_listing_fits_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setattr(tables, "_PIPE_WIDTH", 80)
    tables.show_solvers()
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for solver in rs.solvers.REGISTRY.values():
        assert solver.name in text
        assert all(word in text for word in solver.cite.split())


def test_info_as_json(run):
    found = json.loads(run("info", "--json").stdout)
    assert found["kernels"]["scan"] == ["cuda", "numba", "numpy"]
    assert found["kernels"]["fused"] == ["cuda", "numba"]
    assert found["arrays"]["numpy"] == "yes"


def test_every_solver_has_a_style_of_its_own():
    """One that is not in the table gets one that follows from its name: a new solver is one file."""
    assert set(STYLES) <= set(rs.solvers.REGISTRY)
    styles = [style_of(name) for name in rs.solvers.REGISTRY]
    assert len({style.color for style in styles}) == len(styles)
    assert len({style.marker for style in styles}) == len(styles)
    assert [line_arguments(name)["color"] for name in rs.solvers.REGISTRY] == [style.color for style in styles]


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "numbers.json"
    path.write_text("old")

    def fail():
        with replace_into_place(path) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_gets_plain_text(tmp_path):
    command = [sys.executable, "-P", "-m", "recsolve.studies", "cells"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "pararnn_lstm" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise")
@pytest.mark.parametrize("closed", ["| head -c 10", "2>&1 | true", ">&- 2>&-"])
def test_a_reader_that_leaves_ends_nothing(closed, tmp_path):
    """The files are written, and the status is that of what was done. With --json both outputs are used."""
    command = f'"{sys.executable}" -m recsolve.studies compare --units 2 --length 9 --mixing diagonal --solvers newton'
    script = f"set -o pipefail; {command} --json {closed}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=BUFFERED)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stdout + done.stderr
    assert {path.suffix for path in (tmp_path / "recsolve-compare").iterdir()} == {".json", ".png", ".pdf"}


def test_a_full_disk_ends_in_one_line(tmp_path):
    command = [sys.executable, "-P", "-m", "recsolve.studies", "cells"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=BUFFERED)
    assert done.returncode == 1
    assert done.stderr.startswith("recsolve: error: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_version(run):
    assert run("--version").stdout.strip() == f"recsolve {rs.__version__}"
