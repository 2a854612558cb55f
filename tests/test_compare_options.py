"""Options of the comparison that are wrong, without effect, or belong together."""

import numpy as np
import pytest
from test_recordings import write


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
    for name in ("noise.xyz", "broken.npz", "broken.wav"):
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
