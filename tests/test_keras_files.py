"""Layers of Keras files, in the places where Keras 2 and 3 put them, against its equations as a literal loop."""

import io
import json
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recsolve as rs
from recsolve.interop.contents import read_contents

GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}
SNAKE = {"SimpleRNN": "simple_rnn", "GRU": "gru", "LSTM": "lstm"}
PARTS = ("kernel", "recurrent_kernel", "bias", "peephole_kernel")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loop(kind, x, kernel, recurrent, bias=None, *, reset_after=True, activation="tanh"):
    """Return the outputs (T, B, n) of a layer as the documentation of Keras states them."""
    n = len(recurrent)
    b_x, b_h = (bias if np.ndim(bias) == 2 else (bias, 0)) if bias is not None else (0, 0)
    h = c = np.zeros((x.shape[1], n))
    shown = []
    for u in x:
        a = u @ kernel + b_x
        if kind == "SimpleRNN":
            a = a + h @ recurrent
            h = np.tanh(a) if activation == "tanh" else np.maximum(a, 0)
        elif kind == "LSTM":
            i, f, g, o = np.split(a + h @ recurrent, 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            inner = h @ recurrent + b_h
            z, r = (sigmoid(a[:, k * n : (k + 1) * n] + inner[:, k * n : (k + 1) * n]) for k in (0, 1))
            after = inner[:, 2 * n :] if reset_after else (r * h) @ recurrent[:, 2 * n :]
            candidate = np.tanh(a[:, 2 * n :] + (r * after if reset_after else after))
            h = z * h + (1 - z) * candidate
        shown.append(h)
    return np.array(shown)


def weights(kind, inputs=3, units=5, *, bias=True, reset_after=True, seed=0, dtype="float32"):
    draw, columns = np.random.default_rng(seed).standard_normal, GATES[kind] * units
    shape = (2, columns) if kind == "GRU" and reset_after else (columns,)
    found = [draw((inputs, columns)), 0.4 * draw((units, columns)), *([draw(shape)] if bias else [])]
    return [x.astype(dtype) for x in found]


def layer(kind, name, **config):
    return {"class_name": kind, "config": {"name": name, **config}}


def both_ways(kind, name, merge_mode="concat", **config):
    own = {"layer": layer(kind, "forward_" + name, **config), "merge_mode": merge_mode}
    return {"class_name": "Bidirectional", "config": {"name": name, **own}}


def sequential(*layers):
    return {"class_name": "Sequential", "config": {"name": "model", "layers": list(layers)}}


def paths_of(entry, style, place):
    """Return where each direction of a layer keeps its weights: the first part of their names."""
    kind, name = entry["class_name"], entry["config"]["name"]
    inner = entry["config"]["layer"]["class_name"] if kind == "Bidirectional" else kind
    if style == "new":
        ways = ["/forward_layer", "/backward_layer"] if kind == "Bidirectional" else [""]
        return [f"{place}{way}/cell/vars/" for way in ways]
    cell = f"{SNAKE.get(inner, 'cell')}_cell/" if style == "old" else ""
    ways = [f"forward_{name}/", f"backward_{name}/"] if kind == "Bidirectional" else [""]
    return [f"{name}/{name}/{way}{cell}" for way in ways]


def write(folder, suffix, style, entries):
    """Write a sequential model, layers with the weights of each direction."""
    config, arrays, used = sequential(*(entry for entry, _ in entries)), {}, {}
    for entry, each in entries:
        snake = {**SNAKE, "Bidirectional": "bidirectional", "Dropout": "dropout"}.get(entry["class_name"], "other")
        place = f"layers/{snake}" + (f"_{used[snake]}" if used.setdefault(snake, 0) else "")
        used[snake] += 1
        for path, own in zip(paths_of(entry, style, place), each, strict=False):
            for index, x in enumerate(own):
                arrays[path + (str(index) if style == "new" else PARTS[index] + ":0" * (style == "old"))] = x
    for part, x in (("kernel", np.ones((2, 2))), ("bias", np.ones(2))):
        arrays[f"layers/dense/vars/{int(part == 'bias')}" if style == "new" else f"dense/dense/{part}:0"] = x
    path = folder / f"model{suffix}"
    where = io.BytesIO() if suffix == ".keras" else path
    with h5py.File(where, "w") as file:
        root = "model_weights/" if suffix == ".h5" else ""
        for name, x in arrays.items():
            file[root + name] = x
        file["optimizer/vars/0"] = np.ones(3)
        if suffix == ".h5":
            file.attrs["model_config"] = json.dumps(config)
    if suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("model.weights.h5", where.getvalue())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("keras")


X = np.random.default_rng(9).standard_normal((7, 2, 3))
# A suffix, and how the names inside are made: Keras 3, TensorFlow's Keras 2, the first ones.
STYLES = [(".keras", "new"), (".weights.h5", "new"), (".h5", "old"), (".weights.h5", "old"), (".h5", "oldest")]
CASES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(sorted(GATES)),
        "bias": st.booleans(),
        "variant": st.booleans(),  # reset_after of a GRU, relu of a SimpleRNN
        "both": st.booleans(),
        "dtype": st.sampled_from(["float32", "float64", "float16"]),
        "style": st.sampled_from(STYLES),
    }
)


@settings(max_examples=60)
@given(CASES)
def test_every_layer(folder, case):
    kind, (suffix, style) = case["kind"], case["style"]
    said = {"LSTM": {}, "GRU": {"reset_after": case["variant"]}}.get(kind)
    if said is None:
        said = {"activation": "relu" if case["variant"] else "tanh"}
    known = suffix != ".weights.h5"
    count = 1 + case["both"]
    after = said.get("reset_after", True)
    each = [weights(kind, bias=case["bias"], reset_after=after, seed=i, dtype=case["dtype"]) for i in range(count)]
    path = write(folder, suffix, style, [((both_ways if case["both"] else layer)(kind, "mine", **said), each)])
    if kind == "GRU" and not case["bias"] and not known:
        with pytest.raises(ValueError, match="a GRU without bias, and the file does not say reset_after"):
            rs.load(path, layer=0)
        return
    nonlinearity = said.get("activation", "tanh") if not known else "tanh"
    layers = rs.Layers.load(path, nonlinearity=nonlinearity)
    narrow = case["dtype"] != "float64"
    x = X.astype("f4") if narrow else X
    shown = []
    for i, own in enumerate(each):
        turn = slice(None, None, -1 if i else None)
        shown.append(loop(kind, x[turn], *own, **said)[turn])
    truth = np.concatenate(shown, axis=-1)
    ours = layers.run(x, method="sequential")[0]
    assert ours.dtype == x.dtype
    np.testing.assert_allclose(ours, truth, rtol=0, atol=(3e-5 if narrow else 1e-12) * max(1, abs(truth).max()))
    (found,) = read_contents(path).modules
    assert (found.dtype, found.name) == (case["dtype"], "mine" if known or style != "new" else found.name)
    assert [key for key in read_contents(path).unused if "dense" not in key] == []


@pytest.mark.parametrize(("suffix", "style"), [(".keras", "new"), (".h5", "old")])
def test_layers_that_feed_each_other_are_one_stack(folder, suffix, style):
    below, above = weights("LSTM"), weights("LSTM", inputs=5, seed=1)
    dropout = (layer("Dropout", "drop", rate=0.5), [])
    path = write(folder, suffix, style, [(layer("LSTM", "a"), [below]), dropout, (layer("LSTM", "b"), [above])])
    truth = loop("LSTM", loop("LSTM", X, *below), *above)
    ours = rs.Layers.load(path).run(X.astype("f4"), method="sequential")[0]
    np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-5)
    assert rs.load(path, keys="b").input_size == 5
    dense = (layer("Dense", "dense", activation="tanh"), [])
    path = write(folder, suffix, style, [(layer("LSTM", "a"), [below]), dense, (layer("LSTM", "b"), [above])])
    with pytest.raises(ValueError, match=r"choose one by keys= \(--keys\): 'a' .*, 'b' "):
        rs.Layers.load(path)


def test_layers_of_a_functional_model_are_followed(folder):
    path = write(folder, ".keras", "new", [(layer("GRU", n), [weights("GRU", 5, seed=i)]) for i, n in enumerate("abc")])
    with zipfile.ZipFile(path) as archive:
        config, held = json.loads(archive.read("config.json")), archive.read("model.weights.h5")
    a, b, c = config["config"]["layers"]
    config["class_name"] = "Functional"
    tensor = {"class_name": "__keras_tensor__", "config": {"shape": [None, None, 5], "keras_history": ["c", 0, 0]}}
    a["inbound_nodes"] = [{"args": [tensor], "kwargs": {"mask": None}}]  # as Keras 3 has it: c feeds a
    b["inbound_nodes"] = [[["a", 0, 0, {}]]]  # as Keras 2 has it
    c["inbound_nodes"] = []
    config["config"]["layers"] = [c, a, b]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", held)
    (found,) = read_contents(path).modules
    assert found.name == "c"
    assert found.summary()["layers"] == 3


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (layer("LSTM", "mine", recurrent_activation="hard_sigmoid"), "mine has recurrent_activation 'hard_sigmoid'"),
        (layer("LSTM", "mine", activation="relu"), "mine has activation 'relu'; wanted 'tanh'"),
        (layer("LSTM", "mine", go_backwards=True), "mine has go_backwards True; wanted False, and Bidirectional"),
        (layer("CuDNNLSTM", "mine"), "mine is a layer CuDNNLSTM; wanted one of SimpleRNN, GRU, LSTM"),
        (layer("GRU", "mine"), r"mine.*recurrent_kernel.* has shape \(5, 20\)"),
        (both_ways("LSTM", "mine", merge_mode="sum"), "mine has merge_mode 'sum'; wanted 'concat'"),
    ],
)
def test_what_a_cell_does_not_have_is_refused_by_name(folder, entry, words):
    path = write(folder, ".h5", "old", [(entry, [weights("LSTM")] * 2)])
    with pytest.raises(ValueError, match=f"model.h5: {words}"):
        rs.load(path, layer=0)


@pytest.mark.parametrize(("suffix", "style"), STYLES)
def test_a_direction_that_is_missing_is_named(folder, suffix, style):
    path = write(folder, suffix, style, [(both_ways("LSTM", "mine"), [weights("LSTM")])])
    if suffix == ".weights.h5":  # which does not say that there should be two
        assert rs.load(path).hidden_size == 5
        return
    with pytest.raises(ValueError, match=r"mine.* has weights of forward; wanted forward and backward"):
        rs.load(path)


def test_cells_in_layers_of_their_own(folder):
    def cell(kind):
        return {"class_name": kind, "config": {"name": "c"}}

    one, own = layer("RNN", "one", cell=cell("LSTMCell")), weights("LSTM")
    two = layer("RNN", "two", cell={"class_name": "StackedRNNCells", "config": {"cells": [cell("GRUCell")] * 2}})
    path = folder / "cells.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(sequential(one, two))
        for place in ("one/one/lstm_cell", "two/two/cells/lstm_cell", "two/two/cells/lstm_cell_1"):
            for part, x in zip(PARTS, own, strict=False):
                file[f"model_weights/{place}/{part}:0"] = x
    y = rs.Layers.load(path, keys="one").run(X.astype("f4"), method="sequential")[0]
    np.testing.assert_allclose(y, loop("LSTM", X, *own), rtol=0, atol=1e-5)
    found = read_contents(path, "two*").modules
    assert len(found) == 2
    assert all("two is a layer RNN; wanted one of" in str(module.fault) for module in found)


@pytest.mark.parametrize(("suffix", "style"), STYLES)
@pytest.mark.parametrize("change", ["nan", "mixed", "shape", "missing", "left over"])
def test_weights_that_are_wrong_are_named(folder, suffix, style, change):
    own, name = weights("LSTM"), "1" if style == "new" else "recurrent_kernel"
    words = rf"{name}.* has 1 of 100 numbers that are NaN"
    if change == "nan":
        own[1][3, 2] = np.nan
    elif change == "mixed":
        own[1], words = own[1].astype("f8"), f"dtypes are mixed: .*float32, .*{name}.* is float64"
    elif change == "shape":
        own[2], words = own[2][1:], rf"{'2' if style == 'new' else 'bias'}.* has shape \(19,\); wanted \(20,\)"
    elif change == "left over":
        own, words = [*own, own[2]], f"{'3' if style == 'new' else 'peephole_kernel'}(:0)? left over"
    else:
        own, words = own[:1], "recurrent_kernel missing beside .*(0|kernel)"
    path = write(folder, suffix, style, [(layer("LSTM", "mine"), [own])])
    if (change, style) == ("missing", "oldest"):  # as a dense layer looks
        words = "holds no recurrent layer"
    with pytest.raises(TypeError if change == "mixed" else ValueError, match=f"model{suffix}.*{words}"):
        rs.load(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_files_that_are_none_of_keras(folder, suffix):
    path = folder / f"wrong{suffix}"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=f"wrong{suffix} is not a readable .* file of Keras"):
        rs.load(path)


def test_a_dense_model_holds_no_recurrent_layer(folder):
    path = write(folder, ".keras", "new", [])
    with pytest.raises(ValueError, match=r"holds no recurrent layer .* found layers/dense/vars/0 \(2, 2\) float64"):
        rs.load(path)
