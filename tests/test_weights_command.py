"""`recsolve weights FILE`, and a layer of a network in a comparison."""

import json

import numpy as np
import pytest

import recsolve as rs
from recsolve.interop.contents import KINDS
from recsolve.studies.compare.compare import CompareConfig, panels
from recsolve.studies.draw import tables
from recsolve.studies.problems.recordings import load_recording

torch = pytest.importorskip("torch")


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    encoder = torch.nn.LSTM(2, 6, 2, bidirectional=True, proj_size=4)
    step, head = torch.nn.GRUCell(3, 5, bias=False).double(), torch.nn.Linear(3, 3)
    model = torch.nn.ModuleDict({"encoder": encoder, "step": step, "head": head})
    state = model.state_dict()
    state["broken.weight_ih_l0"] = torch.ones(4, 2)
    path = tmp_path / "model.pt"
    torch.save({"epoch": 3, "state": state}, path)
    return path


def test_a_file_is_listed(run, file):
    text = run("weights", str(file)).stdout
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["module"] == ["cell", "layers", "directions", "input", "units", "output", "bias", "dtype"]
    assert rows["state.encoder"] == ["lstm", "2", "both", "2", "6", "4", "yes", "float32"]
    assert rows["state.step"] == ["gru", "1", "forward", "3", "5", "5", "no", "float64"]
    assert "state.broken cannot be used: no weight_hh_l0 of a torch RNN, GRU or LSTM; found ['weight_ih_l0']" in text
    assert "not recurrent, not used (3):" in text
    assert rows["state.head.weight"] == ["(3,", "3)", "float32"]
    assert rows["epoch"] == ["()", "int"]
    assert max(map(len, text.splitlines())) <= 120


def test_json_lists_every_key_once(run, file):
    found = json.loads(run("weights", str(file), "--json").stdout)
    assert [module["name"] for module in found["modules"]] == ["state.broken", "state.encoder", "state.step"]
    keys = [key for module in found["modules"] for key in module["keys"]] + list(found["unused"])
    stored = torch.load(file)
    assert sorted(keys) == sorted(["epoch", *(f"state.{name}" for name in stored["state"])])
    for keys in ("state.step.*, epoch", "state.step, epoch", "state.step., epoch"):  # a prefix, with its dot or without
        some = json.loads(run("weights", str(file), "--json", "--keys", keys).stdout)
        assert [module["name"] for module in some["modules"]] == ["state.step"]
        assert some["unused"] == {"epoch": {"shape": [], "dtype": "int"}}


def test_files_without_recurrent_layers_and_with_many_keys(run, tmp_path):
    np.savez(tmp_path / "much.npz", **{f"a{i}": np.ones(2) for i in range(2 * tables._UNUSED)})
    text = run("weights", "much.npz").stdout
    assert "much.npz holds no recurrent layer" in text
    assert "and 20 more (--json lists all)" in text
    assert len(json.loads(run("weights", "much.npz", "--json").stdout)["unused"]) == 40
    for name, words in (("absent.pt", "no weights file absent.pt"), ("much.xyz", "ends in '.xyz'; wanted weights as")):
        (tmp_path / "much.xyz").write_bytes(b"")
        result = run("weights", name, code=2)
        assert words in result.stderr
        assert result.stderr.startswith("recsolve: error: ")


@pytest.mark.parametrize("direction", [None, "forward", "reverse"])
@pytest.mark.parametrize("layer", [0, 1])
def test_the_layers_below_feed_a_layer(file, signal, tmp_path, layer, direction):
    recording = tmp_path / "signal.npy"
    np.save(recording, signal)
    config = CompareConfig(
        weights=str(file), keys="state.encoder", layer=layer, direction=direction, input=str(recording), batch=2,
        length=30, solvers=("newton",),
    )  # fmt: skip
    (panel,) = panels(config).panels
    found = load_recording(str(recording), length=30, batch=2, dtype="float64", standardise=False)
    reverse = direction == "reverse"
    assert panel.title == f"lstm from model.pt, layer {layer}{', reverse' if reverse else ''}, 6 units"
    state = torch.load(file)["state"]
    module = torch.nn.LSTM(2, 6, layer + 1, bidirectional=True, proj_size=4).double()
    module.load_state_dict({name: state[f"encoder.{name}"] for name in module.state_dict()})
    with torch.no_grad():
        y = module(torch.from_numpy(found.data.copy()))[0][..., slice(4, 8) if reverse else slice(4)]
    ours = rs.solve(panel.recurrence, method="sequential").output
    np.testing.assert_allclose(ours[::-1] if reverse else ours, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "choose one by keys= (--keys): 'state.broken' (state.broken.weight_ih_l0), 'state.encoder'"),
        (["--keys", "state.encoder"], "4 layers and directions (0, 0 reverse, 1, 1 reverse); pass --layer (and --dir"),
        (["--keys", "state.encoder", "--layer", "2"], "holds 4 layers and directions (0, 0 reverse, 1, 1 reverse)"),
        (
            ["--keys", "state.encoder", "--layer", "-1", "--direction", "reverse"],
            "of them, not --layer -1 --direction rev",
        ),
        (["--keys", "nothing.*"], "model.pt has no key that matches 'nothing.*'; found "),
        (["--keys", "state.step", "--direction", "reverse"], "holds 1 layer (0); pass --layer"),
        (["--keys", "state.encoder", "--layer", "1"], "wants 2 channels, --input membrane has 1; pass one that fits"),
        (["--keys", "state.encoder", "--direction", "up"], "--direction is 'up'; wanted forward or reverse"),
        (["--keys", "state.broken"], "--weights: model.pt: state.broken: no weight_hh_l0"),
    ],
)
def test_wrong_choices_say_what_there_is(run, file, arguments, words):
    result = run("compare", "--weights", "model.pt", "--length", "30", *arguments, code=2)
    assert words in result.stderr


@pytest.mark.parametrize("ending", KINDS)
def test_empty_files_hold_nothing(tmp_path, ending):
    path = tmp_path / f"model{ending}"
    path.touch()
    with pytest.raises(ValueError, match=rf"model{ending} is empty; wanted weights"):
        rs.load(path)
