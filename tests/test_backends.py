"""Which backend is taken, and what it says."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from test_scan_numba import AFFINE, affine, numpy_scan

import recsolve as rs
from recsolve.jacobians import Diagonal, LaneDense
from recsolve.kernels import backends
from recsolve.kernels.monoids.monoid import MONOIDS


def test_the_choice(monkeypatch):
    def of(T, **kwargs):
        return backends.chosen(AFFINE, affine(Diagonal, T, np.float64, np.random.default_rng(0), units=100), **kwargs)

    monkeypatch.delenv(backends.VARIABLE, raising=False)
    assert of(10) == "numpy"
    assert of(1000) == "numba"
    with rs.backend("numpy"):
        assert of(1000) == "numpy"
        with rs.backend("numba"):
            assert of(10) == "numba"
        assert of(1000) == "numpy"
    monkeypatch.setenv(backends.VARIABLE, "numba")
    assert of(10) == "numba"
    with rs.backend("auto"):
        assert of(10) == "numpy"
    monkeypatch.setenv(backends.VARIABLE, "abacus")
    with pytest.raises(ValueError, match="RECSOLVE_BACKEND is 'abacus'"):
        of(10)
    dense = affine(LaneDense, 3000, np.float64, np.random.default_rng(0))
    gains = (np.full((9000, 2, 2), 0.1),) * 3
    with rs.backend("auto"):
        assert backends.chosen(AFFINE, dense) == "numba"
        assert backends.chosen(MONOIDS["riccati"], gains) == "numpy"
    with rs.backend("numba"):  # has no loop for it and hands it on
        np.testing.assert_array_equal(rs.scan("riccati", gains), numpy_scan(MONOIDS["riccati"], gains))


def test_without_numba(monkeypatch):
    monkeypatch.setattr(backends, "_installed", lambda package="numba": False)
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    elements = affine(Diagonal, 1000, np.float64, np.random.default_rng(0), units=100)
    assert backends.chosen(AFFINE, elements) == "numpy"
    for name, words in (("numba", "pip install numba"), ("cuda", r"pip install 'recsolve\[cuda13\]'")):
        with pytest.raises(ImportError, match=words), rs.backend(name):
            pass


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("opencl",), "name is 'opencl'; wanted one of auto, numpy, numba, cuda"), (("auto", 0), "threads is 0")],
)
def test_bad_choices(arguments, words):
    name, *threads = arguments
    with pytest.raises(ValueError, match=words), rs.backend(name, threads=threads[0] if threads else None):
        pass


def test_compiling_is_said_once(tmp_path):
    code = (
        "import logging, numpy as np, recsolve as rs; logging.basicConfig(format='%(name)s %(message)s');"
        "x = np.full((3, 2), 0.5)\n"
        "with rs.backend('numba'):\n"
        "    rs.scan('affine', (x, x)); rs.scan('clamp', (x, x), initial=x[0])"
    )
    environment = {"RECSOLVE_CACHE": str(tmp_path), "PATH": "/usr/bin"}
    runs = [
        subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, env=environment)
        for _ in range(2)
    ]
    assert runs[0].stderr.startswith("recsolve compiling loops with Numba")
    assert runs[0].stderr.count("\n") == 1
    assert runs[1].stderr == ""
    assert logging.getLogger("recsolve").level == logging.NOTSET


def test_the_benchmark(capsys):
    """Every row is complete, in the table and as JSON."""
    from recsolve.studies.bench import board
    from recsolve.studies.command import cli

    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as done:
            cli.app(["bench", "cpu", "--repeats", "1", "--numbers", "4096", *options])
        assert done.value.code == 0
        text = capsys.readouterr().out
        assert options or "2 x 2 block" in text
    rows = json.loads(text)["rows"]
    assert {row["scan"] for row in rows} >= {"diagonal", "clamp, reverse", "2 x 2 block"}
    for row in rows:
        assert 0 < row["least"] <= row["median"]
        assert row["over_traffic"] > 0
        assert row["error"] == 0 if "clamp" in row["scan"] else row["error"] < 1e-5
    with pytest.raises(SystemExit) as done:
        cli.app(["bench", "cpu", "--what", "naps"])
    assert done.value.code == 2
    with pytest.raises(ValueError, match="numbers is 5000"):
        board.Config(numbers=5000)
