"""Listings, pipes, styles and files of the command line."""

import json
import logging
import os
import subprocess
import sys
import warnings
from copy import copy

import pytest
from test_compare import BUFFERED

import recsolve as rs
from recsolve.kernels.cpu.threads import threads
from recsolve.studies.command import information, warm
from recsolve.studies.draw import tables
from recsolve.studies.draw.style import STYLES, line_arguments, style_of
from recsolve.studies.notices import told, with_notices
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
    assert {path.suffix for path in (tmp_path / "recsolve-compare").iterdir()} == {".json", ".toml", ".png", ".pdf"}


def test_a_full_disk_ends_in_one_line(tmp_path):
    command = [sys.executable, "-P", "-m", "recsolve.studies", "cells"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=BUFFERED)
    assert done.returncode == 1
    assert done.stderr.startswith("recsolve: error: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_version(run):
    assert run("--version").stdout.strip() == f"recsolve {rs.__version__}"


@pytest.mark.parametrize(
    ("value", "backend", "small", "large"),
    [
        (None, "auto", None, "numba"),  # a small one may take loops that are there
        ("numpy", "numpy", "numpy", "numpy"),
        ("numba", "numba", "numba", "numba"),
        ("nunba", None, None, None),
    ],
)
def test_info_says_what_a_solve_would_use(run, monkeypatch, value, backend, small, large):
    if value is None:
        monkeypatch.delenv("RECSOLVE_BACKEND", raising=False)
    else:
        monkeypatch.setenv("RECSOLVE_BACKEND", value)
    found = json.loads(run("info", "--json").stdout)["solves"]
    assert (found["backend"], found["large"]) == (backend, large)
    assert found["small"] == small or value is None
    assert found["threads"] == threads()
    text = run("info").stdout
    assert "RECSOLVE_BACKEND is 'nunba'; wanted one of auto" in text if backend is None else f"{backend} (" in text


@pytest.mark.parametrize(
    ("installed", "devices", "works", "words"),
    [
        (False, [], False, ["none found", "not installed: pip install"]),
        (False, ["NVIDIA H200"], False, ["NVIDIA H200", "pip install 'recsolve[cuda13]' (or [cuda12]), to use NVIDIA"]),
        (True, [], False, ["none found", "installed, but no CUDA device is usable (no driver)"]),
        (True, ["NVIDIA H200"], False, ["NVIDIA H200", "no CUDA device is usable (no driver)"]),
        (True, ["NVIDIA H200"], True, ["yes, on NVIDIA H200", "CUDA kernels"]),
    ],
)
def test_info_tells_gpus_from_cupy(run, monkeypatch, installed, devices, works, words):
    real = information.find_spec
    monkeypatch.setattr(information, "find_spec", lambda name: installed or None if name == "cupy" else real(name))
    monkeypatch.setattr(information, "_devices", lambda: devices)
    monkeypatch.setattr(information, "has_gpu", lambda: works)
    monkeypatch.setattr(information, "_why_unusable", lambda: "no driver")
    monkeypatch.delenv("RECSOLVE_BACKEND", raising=False)
    found = json.loads(run("info", "--json").stdout)
    assert found["gpu"]["usable"] == works
    assert found["solves"]["gpu"] == ("cuda" if works else None)
    text = run("info").stdout
    assert [word for word in words if word not in text] == []


def test_info_says_where_compiled_code_lies(run, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSOLVE_CACHE", str(tmp_path / "cache"))
    assert json.loads(run("info", "--json").stdout)["cache"]["files"] == 0
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "a.loop").write_bytes(b"12345")
    found = json.loads(run("info", "--json").stdout)["cache"]
    assert found == {"folder": str(tmp_path / "cache"), "files": 1, "bytes": 5, "fault": None}
    monkeypatch.setenv("RECSOLVE_CACHE", str(tmp_path / "cache" / "a.loop"))
    assert "RECSOLVE_CACHE" in json.loads(run("info", "--json").stdout)["cache"]["fault"]
    assert "a.loop is a file; wanted a folder" in run("info").stdout


def test_warming_compiles_what_is_asked_for(run, monkeypatch):
    every = warm.parts_of(["all"])
    assert len(set(every)) == len(every)
    mixings = {
        name: {"dense", "diagonal"} if cell.mixings else {"diagonal"} for name, cell in rs.cells.REGISTRY.items()
    }
    for dtype in ("float32", "float64"):
        assert {p.cell for p in every if p.dtype == dtype} == {"", *mixings}
        for name in mixings:
            assert {p.mixing for p in every if (p.cell, p.dtype) == (name, dtype)} == mixings[name]
    assert {p.cell for p in warm.parts_of([])} == {"", *warm.USUAL}
    assert {p.cell for p in warm.parts_of(["minmax"])} == {"", "minmax"}
    assert "cell is 'gruu'; wanted one of elman" in run("info", "--warm", "gruu", code=2).stderr
    assert "says what --warm compiles" in run("info", "gru", code=2).stderr
    part = warm.Part("float32", "minmax", "diagonal")
    assert warm.compiled(part) == part
    monkeypatch.setattr(warm, "compiled", copy)  # in other processes, and quickly
    said = run("info", "--warm", "minmax", "--json")
    assert sorted(line.split(" (")[0] for line in said.stderr.splitlines()) == [
        f"compiled {part}, {dtype}" for part in ("minmax", "scans") for dtype in ("float32", "float64")
    ]
    assert "cache" in json.loads(said.stdout)


def test_notices_of_other_processes_are_told_once(caplog):
    def run():
        logging.getLogger("recsolve.kernels").warning("compiling")
        warnings.warn("rough", stacklevel=1)
        return 3

    found = [with_notices(run) for _ in range(2)]
    caplog.clear()
    assert [*told(found)] == [3, 3]
    assert len(found[0][1]) == 2
    assert [record.getMessage() for record in caplog.records] == found[0][1]
    assert found[0][1][0] == "compiling"
    assert "UserWarning: rough" in found[0][1][1]


def test_no_advice_names_a_method_that_may_be_the_one_that_failed():
    for status in rs.Status:
        named = [name for name in rs.solvers.REGISTRY if f"method='{name}'" in status.advice]
        assert named == []
