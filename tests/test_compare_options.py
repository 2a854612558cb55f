"""Options of the comparison that are wrong, without effect, or belong together."""

import json

import numpy as np
import pytest
from test_recordings import write

from recsolve.studies.compare.compare import CompareConfig
from recsolve.studies.store.configs import to_toml, values_of


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cell", "gruu"], "--cell is 'gruu'; wanted one of elman"),
        (["--solvers", "newton,magic"], "--solvers has unknown ['magic']; wanted some of sequential, newton"),
        (["--solvers", "fixed-points"], "of the groups reference, newton-type, globalised, fixed point, in blocks"),
        (["--solvers", ","], "--solvers is empty"),
        (["--mixing", "soup"], "--mixing is 'soup'"),
        (["--units", "0"], "--units is 0"),
        (["--length", "0"], "--length is 0"),
        (["--batch", "-1"], "--batch is -1"),
        (["--maxiter", "-2"], "--maxiter is -2"),
        (["--tol", "nan"], "--tol is nan"),
        (["--gain", "inf"], "--gain is inf; wanted a finite number"),
        (["--weights", "noise.xyz"], "--weights: noise.xyz ends in '.xyz'; wanted"),
        (["--seed", "-1"], "--seed is -1"),
        (["--dtype", "int8"], "--dtype is 'int8'"),
        (["--cell", "minmax", "--gain", "2"], "has no mixings; leave out"),
        (["--length", "99999999"], "has 12000 steps; wanted 99999999"),
        (["--input", "absent.npy"], "--input absent.npy is no file; wanted"),
        (["--input", "noise.xyz"], "ends in '.xyz'"),
        (["--input", "noise.pt"], "numpy.save('noise.npy', torch.load('noise.pt').numpy()) converts a tensor"),
        (["--input", "broken.npz"], "not a readable .npz"),
        (["--input", "broken.wav"], "not a readable .wav"),
        (
            ["--input", "broken.csv"],
            "broken.csv is not a readable .csv file: line 3, column 2 is 'four'; wanted a number",
        ),
        (["--input", "english", "--standardise"], "--standardise is for numbers, and --input english is text"),
        (["--input", "holes.csv"], "holes.csv is nan at line 4, column 2"),
        (["--input", "words.npy"], "wanted (N,) or (N, channels) numbers"),
        (["--weights", "absent.npz"], "no weights file absent.npz"),
        (["--weights", "broken.npz"], "--weights: broken.npz is not a readable .npz"),
    ],
)
def test_bad_options_say_what_is_wrong(run, tmp_path, signal, arguments, words):
    for name in ("noise.xyz", "noise.pt", "broken.npz", "broken.wav"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    (tmp_path / "broken.csv").write_text("a,b\n1,2\n3,four\n")
    signal[3, 1] = np.nan
    write(tmp_path / "holes.csv", signal)
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    result = run("compare", *arguments, code=2)
    assert words in result.stderr
    assert result.stderr.startswith("recsolve: error: ")
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weights", "w.npz", "--units", "9"], "--weights brings its own cell"),
        (["--weights", "w.npz", "--cell", "lstm"], "--weights brings its own cell"),
        (["--cell", "minmax", "--mixing", "dense"], "leave out --mixing"),
        (["--heads", "2"], "belongs to --mixing heads"),
        (["--mixing", "heads", "--units", "6"], "--heads is 4; wanted a divisor of --units 6"),
        (["--layer", "1"], "of --weights, which is not given"),
    ],
)
def test_options_without_effect_are_refused(run, arguments, words):
    assert words in run("compare", *arguments, code=2).stderr


def test_layers_keys_and_heads(run, tmp_path):
    torch = pytest.importorskip("torch")
    model = torch.nn.ModuleDict({"a": torch.nn.RNN(1, 4, 2, nonlinearity="relu"), "b": torch.nn.GRU(1, 4)})
    np.savez(tmp_path / "w.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
    small = ["--length", "30", "--solvers", "newton", "--weights", "w.npz"]
    assert "choose one by keys= (--keys)" in run("compare", *small, code=2).stderr
    assert "pass --layer" in run("compare", *small, "--keys", "a.*", code=2).stderr
    assert "gru from" in run("compare", *small, "--keys", "b").stdout
    result = run("compare", *small, "--keys", "a.*", "--layer", "0", "--nonlinearity", "relu")
    assert "elman_relu from" in result.stdout
    run("compare", "--length", "30", "--units", "6", "--mixing", "heads", "--heads", "3", "--solvers", "newton")


def config_of(path):
    return json.loads((path / "compare.json").read_text())["config"]


def test_the_config_that_was_written_makes_the_comparison_anew(run, tmp_path):
    small = ("--cell", "minmax", "--length", "9", "--units", "2", "--tol", "1e-7", "--solvers", "sequential,jacobi")
    run("compare", *small, "--out", "one")
    run("compare", "--config", "one/compare.toml", "--out", "two")
    one, two = config_of(tmp_path / "one"), config_of(tmp_path / "two")
    assert one == two
    assert (one["cell"], one["units"], one["tol"], one["solvers"]) == ("minmax", 2, 1e-7, ["sequential", "jacobi"])
    assert (tmp_path / "one" / "compare.toml").read_text() == (tmp_path / "two" / "compare.toml").read_text()
    run("compare", "--config", "one/compare.toml", "--units", "3", "--solvers", "newton", "--out", "three")
    assert config_of(tmp_path / "three") == {**one, "units": 3, "solvers": ["newton"]}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cell": "lstm", "mixing": "heads", "heads": 2, "tol": 0.0, "maxiter": 0, "gain": 1e-5, "dtype": "float32"},
        {"weights": 'a "file"\\\n\x7f\N{HERB}\N{GRINNING FACE}.pt', "keys": "a.*", "layer": -1, "direction": "reverse"},
        {"system": "minmax", "settings": ("length=9", "seed=1"), "solvers": ("elk", "newton")},
        {"input": "x.csv", "standardise": True, "length": 7, "batch": 2},
    ],
)
def test_every_config_is_read_as_it_was_written(changes):
    config = CompareConfig(**changes)
    assert CompareConfig(**values_of(CompareConfig(), to_toml(config))) == config


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("unitz = 3", (), "the config has unknown ['unitz']; wanted some of cell, mixing, units"),
        ("units = 'three'", (), "units is 'three'; wanted int"),
        ("length = 'long'", (), "length is 'long'; wanted int"),
        ("units = ", (), "--config is no TOML"),
        ("units = 0", (), "--units is 0"),
        ("units = 5", ("--system", "minmax"), "leave out --units"),
        ("system = 'minmax'", ("--cell", "gru", "--units", "5"), "leave out --units"),
        ("standardise = true\ninput = 'english'", (), "--standardise is for numbers"),
    ],
)
def test_bad_configs_say_what_is_wrong(run, tmp_path, text, more, words):
    (tmp_path / "config.toml").write_text(text)
    assert words in run("compare", "--config", "config.toml", *more, code=2).stderr


def test_options_override_what_is_wrong_or_set_in_a_config(run, tmp_path):
    (tmp_path / "config.toml").write_text(
        "units = 0\nstandardise = true\nlength = 9\nsolvers = 'jacobi'\ninput = 'x.npy'"
    )
    np.save(tmp_path / "x.npy", np.ones(9))
    run("compare", "--config", "config.toml", "--units", "2", "--no-standardise", "--mixing", "diagonal")
    found = config_of(tmp_path / "recsolve-compare")
    assert (found["units"], found["standardise"], found["solvers"]) == (2, False, ["jacobi"])
    (tmp_path / "config.toml").write_text("system = 'minmax'\nsettings = ['length=9', 'units=4']\nsolvers = 'jacobi'")
    run("compare", "--config", "config.toml", "--set", "units=2", "--out", "system")
    assert config_of(tmp_path / "system")["settings"] == ["length=9", "units=4", "units=2"]  # the last one counts
