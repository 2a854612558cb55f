"""What torch has saved, against torch."""

import argparse
import pickle
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recsolve as rs
from recsolve.interop.contents import read_contents

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402 - it needs torch

pytestmark = [  # TorchScript is deprecated, and what it says of traces is not asked here
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "torch.jit.TracerWarning", "UserWarning:torch.nn.modules.rnn")
]
DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.half, "bfloat16": torch.bfloat16}
MODULES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["RNN", "GRU", "LSTM", "projected LSTM"]),
        "num_layers": st.integers(1, 2),
        "bidirectional": st.booleans(),
        "bias": st.booleans(),
    }
)


def make(kind, **settings):
    torch.manual_seed(0)
    projected = {"proj_size": 4} if kind == "projected LSTM" else {}
    return getattr(torch.nn, kind.split()[-1])(3, 5, **projected, **settings).double()


class Model(torch.nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn, self.head = rnn, torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.rnn(x)[0]


def write(folder, module, suffix):
    path = folder / f"model.{suffix}"
    state = module.state_dict()
    if suffix == "npz":
        np.savez(path, **{name: x.numpy() for name, x in state.items()})
    elif suffix == "safetensors":
        save_file({name: x.contiguous() for name, x in state.items()}, path)
    elif suffix == "jit":
        torch.jit.save(torch.jit.script(module), path)
    else:
        torch.save({"nested": [{"state": state}], "epoch": 3, "schedule": None}, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def assert_equals(layers, module, x, hx=None, tol=1e-12):
    with torch.no_grad():
        y, final = module(x, hx)
    ours, ours_final = layers.run(x, hx, method="sequential")
    torch.testing.assert_close(ours, y, rtol=0, atol=tol)
    torch.testing.assert_close(ours_final, final, rtol=0, atol=tol)


@given(MODULES, st.sampled_from(sorted(DTYPES)), st.sampled_from(["pt", "ckpt", "safetensors", "npz", "jit"]))
def test_every_kind_of_file_and_number(folder, settings, dtype, suffix):
    if (suffix, dtype) == ("npz", "bfloat16"):  # NumPy has no such numbers
        return
    stored = make(**settings).to(DTYPES[dtype])
    path = write(folder, Model(stored), suffix)
    wide = stored.double() if dtype == "float64" else stored.float()
    layers = rs.Layers.load(path)
    assert layers.directions[0][0].dtype == ("float64" if dtype == "float64" else "float32")
    x = torch.randn(7, 2, 3, dtype=wide.weight_hh_l0.dtype)
    assert_equals(layers, wide, x, tol=1e-12 if dtype == "float64" else 1e-5)
    (found,) = read_contents(path).modules
    assert found.dtype == dtype


@given(MODULES)
def test_initial_states_also_of_projected_layers(settings):
    module = make(**settings)
    shown = module.proj_size or 5
    count = settings["num_layers"] * (1 + settings["bidirectional"])
    h, c = (torch.randn(count, 2, n, dtype=torch.float64) for n in (shown, 5))
    hx = (h, c) if "LSTM" in settings["kind"] else h
    assert_equals(rs.Layers.from_torch(module), module, torch.randn(7, 2, 3, dtype=torch.float64), hx)


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_that_is_not_there_has_none_below(layer):
    layers = rs.Layers.from_torch(make("GRU", num_layers=2))
    with pytest.raises(ValueError, match=f"layer is {layer}; wanted 0 to 1"):
        layers.below(layer, np.ones((7, 3)))


def test_an_initial_output_that_a_projection_cannot_give():
    module = make("projected LSTM")
    with torch.no_grad():
        module.weight_hr_l0[1] = module.weight_hr_l0[0]
    h, c = torch.randn(1, 4, dtype=torch.float64), torch.zeros(1, 5, dtype=torch.float64)
    layers, x = rs.Layers.from_torch(module), torch.randn(7, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"the initial output is none that the readout \(4, 5\)"):
        layers.run(x, (h, c))
    h[:, 1] = h[:, 0]
    assert_equals(layers, module, x, (h, c))


def test_a_projected_cell_casts_copies_and_has_gradients():
    module = make("projected LSTM")
    cell = rs.cells.LSTM.from_torch(module)
    assert cell.astype("float32").readout.dtype == np.float32
    cell = pickle.loads(pickle.dumps(cell))
    x = torch.randn(9, 2, 3, dtype=torch.float64)
    sol = rs.solve(cell.recurrence(x))
    assert sol.success
    weights = torch.randn(9, 2, 4, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (module(leaf)[0] * weights).sum().backward()
    ours = rs.adjoint(sol, output=weights)
    torch.testing.assert_close(ours.inputs, leaf.grad, rtol=0, atol=1e-13)
    assert "4 shown" in repr(cell)


@pytest.mark.parametrize(
    ("kind", "cell", "settings"),
    [
        ("RNNCell", "elman", {}),
        ("RNNCell", "elman_relu", {"nonlinearity": "relu"}),
        ("GRUCell", "gru", {}),
        ("GRUCell", "gru", {"bias": False}),
        ("LSTMCell", "lstm", {}),
    ],
)
def test_cells_of_one_step(folder, kind, cell, settings):
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(3, 5, **settings).double()
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    state, shown = None, []
    with torch.no_grad():
        for step in x:
            state = module(step, state)
            shown.append(state[0] if isinstance(state, tuple) else state)
    path = write(folder, torch.nn.ModuleDict({"step": module, "head": torch.nn.Linear(2, 2)}), "pt")
    nonlinearity = settings.get("nonlinearity", "tanh")
    for found in (rs.load(path, nonlinearity=nonlinearity), rs.cells.get(cell).from_torch(module)):
        assert found.cell.name == cell
        sol = rs.solve(found.recurrence(x), method="sequential")
        torch.testing.assert_close(sol.output, torch.stack(shown), rtol=0, atol=1e-13)
    with pytest.raises(TypeError, match=f"module is {kind}, which runs one step; recsolve.cells.{kind[:-4]}"):
        rs.run(module, x)


@pytest.mark.parametrize("change", ["missing", "left over", "shape", "dtype", "nan", "of a whole module"])
def test_a_key_of_a_cell_that_is_wrong_is_named(folder, change):
    state = torch.nn.GRUCell(3, 5).state_dict()
    path, name = folder / "cell.pt", "bias_hh"
    if change == "missing":
        del state[name]
    elif change == "left over":
        state["bias_hh_x"] = state[name]
    elif change == "of a whole module":
        state["bias_hh_l0"] = state[name]
    else:
        state[name] = {"shape": state[name][1:], "dtype": state[name].double(), "nan": state[name] / 0}[change]
    torch.save(state, path)
    with pytest.raises(TypeError if change == "dtype" else ValueError, match=f"cell.pt: .*{name}"):
        rs.load(path)


def test_keys_choose_a_module(folder):
    gru, lstm = make("GRU", bidirectional=True), make("LSTM")
    model = torch.nn.ModuleDict({"encoder": torch.nn.ModuleDict({"rnn": gru}), "decoder": lstm})
    path = folder / "two.safetensors"
    save_file(model.state_dict(), path)
    for keys in ("encoder.rnn.*", "encoder.rnn", "encoder", "*rnn.*", ["enc*", "nothing"], "nothing, encoder"):
        assert_equals(rs.Layers.load(path, keys=keys), gru, torch.randn(7, 2, 3, dtype=torch.float64))
    assert rs.load(path, keys="decoder.*").cell.name == "lstm"
    assert rs.load(path, keys="encoder.*_reverse", reverse=True).cell.name == "gru"
    with pytest.raises(ValueError, match=r"choose one by keys= \(--keys\): 'decoder' \(.*, 'encoder.rnn' "):
        rs.load(path)
    with pytest.raises(ValueError, match="a reverse direction alone"):
        rs.Layers.load(path, keys="encoder.*_reverse")
    with pytest.raises(ValueError, match="bias_hh_l0, bias_hh_l0_reverse missing"):
        rs.load(path, keys="encoder.rnn.weight_*,encoder.rnn.bias_ih*", layer=0)
    with pytest.raises(
        ValueError, match=r"has no key that matches 'absent.\*'; found decoder.bias_hh_l0, .* and 6 more"
    ):
        rs.load(path, keys="absent.*")
    with pytest.raises(TypeError, match="keys has a int"):
        rs.load(path, keys=[3])


@pytest.mark.parametrize("prefixes", [("", "inner."), ("a.", "a.inner."), ("a/", "b/"), ("a_", "b_"), ("a.b.", "a.c.")])
def test_the_message_names_patterns_that_choose_one(folder, prefixes):
    modules = [make("GRU"), make("LSTM")]
    named = [{p + n: x.numpy() for n, x in m.state_dict().items()} for p, m in zip(prefixes, modules, strict=True)]
    path = folder / "named.npz"
    np.savez(path, **named[0], **named[1])
    with pytest.raises(ValueError, match="choose one by keys=") as caught:
        rs.load(path)
    patterns = re.findall(r"'(\S+)' \(", str(caught.value))
    assert [rs.load(path, keys=pattern).cell.name for pattern in patterns] == ["gru", "lstm"]


def test_what_else_is_in_a_file_is_no_obstacle(folder):
    path = folder / "much.safetensors"
    others = {"head.a": torch.ones(3).to(torch.float8_e4m3fn), "head.b": torch.ones(2, dtype=torch.int64)}
    save_file({**{f"rnn.{name}": x for name, x in make("GRU").state_dict().items()}, **others}, path)
    assert rs.load(path).hidden_size == 5
    assert set(read_contents(path).unused) == {"head.a", "head.b"}
    save_file({"rnn.weight_hh_l0": others["head.a"].reshape(3, 1), "rnn.weight_ih_l0": torch.ones(3, 2)}, path)
    with pytest.raises(TypeError, match="weight_hh_l0 is F8_E4M3"):
        rs.load(path)


def test_numbers_of_numpy_and_arguments_beside_the_weights_are_read(folder):
    path = folder / "trained.pth"
    kept = {"loss": np.float64(0.5), "curve": np.ones(3), "arguments": argparse.Namespace(units=5)}
    torch.save({"model": make("GRU").state_dict(), **kept}, path)
    assert rs.load(path).hidden_size == 5
    assert set(read_contents(path).unused) == set(kept)
    torch.save({"model": make("GRU").state_dict(), "make": make}, path)
    with pytest.raises(ValueError, match=r"pickles objects \(.*make\)"):
        rs.load(path)


def test_pickled_modules_and_damaged_files_say_what_to_do(folder, monkeypatch):
    path = folder / "wrong.pt"
    torch.save(make("GRU"), path)
    with pytest.raises(
        ValueError, match=r"wrong.pt pickles objects \(torch.nn.modules.rnn.GRU\).*module.state_dict\(\), 'wrong.saf"
    ):
        rs.load(path)
    for content in (b"nothing of the kind" * 9, path.read_bytes()[:400]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"wrong.pt is not a readable file of torch: ."):
            rs.load(path)
    torch.save([torch.ones(2), {"a": 3}], path)
    with pytest.raises(ValueError, match=r"found 0 \(2,\) float32, 1.a \(\) int"):
        rs.load(path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ImportError,
        match=r"wrong.pt needs torch: pip install 'recsolve\[torch\]'.*torch.load\('wrong.pt'\), 'wrong.safetensors'",
    ):
        rs.load(path)
    with pytest.raises(TypeError, match=r"module is int; wanted an instance of torch\.nn\.RNN"):  # not: no module torch
        rs.run(3, np.ones((5, 3)))


class GRU(torch.nn.GRU):
    """A class with torch's name that computes something else."""

    def forward(self, x):
        return super().forward(2 * x)


def test_scripted_modules_run_and_others_are_refused():
    x = torch.randn(7, 2, 3)
    module = torch.nn.GRU(3, 5, num_layers=2)
    with torch.no_grad():
        y = module(x)[0]
    assert torch.allclose(rs.run(torch.jit.script(module), x)[0], y, atol=1e-6)
    with pytest.raises(ValueError, match=r"overrides forward; wanted a plain torch.nn.RNN, GRU or LSTM"):
        rs.run(torch.jit.script(Renamed(3, 5)), x)
    with pytest.raises(ValueError, match="overrides forward; wanted a plain GRU"):
        rs.run(GRU(3, 5), x)
    for other in (torch.jit.trace(module, x), torch.jit.script(Model(module))):
        with pytest.raises(TypeError, match="TorchScript that was traced, or holds more"):
            rs.run(other, x)


class Renamed(torch.nn.Module):
    """What a script says of itself is not enough: it has torch's attributes and weights, and another forward."""

    def __init__(self, *sizes):
        super().__init__()
        inner = torch.nn.GRU(*sizes)
        self.mode, self.dropout, self.batch_first = inner.mode, inner.dropout, inner.batch_first
        for name, weight in inner.named_parameters():
            self.register_parameter(name, weight)

    def forward(self, x):
        return torch.tanh(x @ self.weight_ih_l0.T)
