"""Recurrent nodes of ONNX models, against ONNX's reference evaluator."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recsolve as rs
from recsolve.interop.contents import read_contents

onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper  # noqa: E402 - it needs onnx
from onnx.reference import ReferenceEvaluator  # noqa: E402

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
WAYS = {"forward": 1, "reverse": 1, "bidirectional": 2}
NODES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["RNN", "GRU", "LSTM"]),
        "direction": st.sampled_from(sorted(WAYS)),
        "bias": st.booleans(),
        "variant": st.booleans(),  # relu of an RNN, linear_before_reset of a GRU
        "dtype": st.sampled_from(["float32", "float64", "float16", "bfloat16"]),
        "how": st.sampled_from(["initializers", "constants", "computed", "in a branch", "in a function"]),
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx")


def weights(kind, ways, inputs=3, units=5, bias=True, dtype="float32", seed=0):
    draw, rows = np.random.default_rng(seed).standard_normal, GATES[kind] * units
    found = {"W": draw((ways, rows, inputs)), "R": 0.4 * draw((ways, rows, units))}
    if bias:
        found["B"] = draw((ways, 2 * rows))
    kind = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16) if dtype == "bfloat16" else dtype
    return {name: x.astype(kind) for name, x in found.items()}


def settings_of(kind, ways, variant):
    if kind == "RNN" and variant:
        return {"activations": ["Relu"] * ways}
    return {"linear_before_reset": int(variant)} if kind == "GRU" else {}


def model(nodes, arrays, inputs=("X",), outputs=("Y",)):
    empty = helper.make_empty_tensor_value_info
    held = [numpy_helper.from_array(x, name) for name, x in arrays.items()]
    graph = helper.make_graph(nodes, "g", [empty(x) for x in inputs], [empty(y) for y in outputs], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def saved(folder, nodes, arrays, **names):
    path = folder / "model.onnx"
    onnx.save(model(nodes, arrays, **names), path)
    return path


def evaluated(kind, arrays, x, **settings):
    """Return the outputs of one forward direction, (T, B, n): the evaluator knows no other one, nor RNNs with relu."""
    if "activations" in settings:
        return rectified(x, arrays["W"][0], arrays["R"][0], arrays.get("B", np.zeros((1, 10)))[0])
    node = helper.make_node(kind, ["X", *arrays], ["Y"], hidden_size=arrays["R"].shape[-1], **settings)
    return ReferenceEvaluator(model([node], arrays)).run(None, {"X": x})[0][:, 0]


@settings(max_examples=60)
@given(NODES)
def test_every_node(folder, case):
    kind, direction, how = case["kind"], case["direction"], case["how"]
    ways = WAYS[direction]
    arrays = weights(kind, ways, bias=case["bias"], dtype=case["dtype"])
    said = {"hidden_size": 5, "direction": direction, **settings_of(kind, ways, case["variant"])}
    node = helper.make_node(kind, ["X", *arrays], ["Y"], name="/rnn/Node", **said)
    if how == "constants":
        made = [helper.make_node("Constant", [], [n], value=numpy_helper.from_array(x)) for n, x in arrays.items()]
        path = saved(folder, [*made, node], {})
    elif how == "computed":  # as exporters leave it that do not fold constants
        halves = {f"{n}{i}": half for n, x in arrays.items() for i, half in enumerate(np.array_split(x, 2, axis=1))}
        joined = [helper.make_node("Concat", [f"{n}0", f"{n}1"], [n], axis=1) for n in arrays]
        path = saved(folder, [*joined, node], halves)
    elif how == "in a branch":
        branch = model([node], {n: x for n, x in arrays.items() if n != "W"}, inputs=()).graph
        choice = helper.make_node(
            "If", ["c"], ["Y"], then_branch=branch, else_branch=helper.make_graph([], "e", [], [])
        )
        path = saved(folder, [choice], {"W": arrays["W"]}, inputs=("X", "c"))
    elif how == "in a function":
        opset = [helper.make_opsetid("", 17)]
        body = helper.make_function("own", "f", ["X", *arrays], ["Y"], [node], opset)
        whole = model([helper.make_node("f", ["X", *arrays], ["Y"], domain="own")], arrays)
        whole.functions.append(body)
        whole.opset_import.append(helper.make_opsetid("own", 1))
        path = folder / "model.onnx"
        onnx.save(whole, path)
    else:
        path = saved(folder, [node], arrays)
    dtype, tol = ("float64", 1e-12) if case["dtype"] == "float64" else ("float32", 1e-5)
    x = np.random.default_rng(1).standard_normal((7, 2, 3)).astype(dtype)
    for i, reverse in enumerate([False, True] if ways == 2 else [direction == "reverse"]):
        cell = rs.load(path, layer=0, reverse=reverse)
        assert cell.dtype == dtype
        sol = rs.solve(cell.recurrence(x[::-1] if reverse else x), method="sequential")
        one = {name: array[i : i + 1].astype(dtype) for name, array in arrays.items()}
        truth = evaluated(kind, one, x[::-1] if reverse else x, **settings_of(kind, 1, case["variant"]))
        np.testing.assert_allclose(sol.output, truth, rtol=0, atol=tol * max(1, abs(truth).max()))
    assert not read_contents(path).unused
    if direction != "reverse":
        assert rs.Layers.load(path).run(x, method="sequential")[0].shape == (7, 2, 5 * ways)


def rectified(x, W, R, b):
    h, shown = 0 * x[0] @ W.T, []
    for u in x:
        h = np.maximum(u @ W.T + h @ R.T + b[:5] + b[5:], 0)
        shown.append(h)
    return np.array(shown)


def between(ways):
    """Return the nodes that torch's exporter puts between two layers, and their constants."""
    if ways == 1:
        return [helper.make_node("Squeeze", ["Y0", "axes"], ["X1"])], {"axes": np.array([1])}
    nodes = [
        helper.make_node("Transpose", ["Y0"], ["moved"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["moved", "shape"], ["X1"]),
    ]
    return nodes, {"shape": np.array([0, 0, -1])}


def two(ways, middle, constants, above=5):
    direction = "bidirectional" if ways == 2 else "forward"
    lower = weights("LSTM", ways)
    upper = weights("LSTM", ways, inputs=ways * 5, units=above, seed=1)
    arrays = {**{n + "0": x for n, x in lower.items()}, **{n + "1": x for n, x in upper.items()}, **constants}
    nodes = [
        helper.make_node("LSTM", ["X", "W0", "R0", "B0"], ["Y0"], name="low", hidden_size=5, direction=direction),
        *middle,
        helper.make_node("LSTM", ["X1", "W1", "R1", "B1"], ["Y"], name="up", hidden_size=above, direction=direction),
    ]
    return nodes, arrays


@pytest.mark.parametrize("ways", [1, 2])
def test_layers_that_feed_each_other_are_one_stack(folder, ways):
    nodes, arrays = two(ways, *between(ways))
    path = saved(folder, nodes, arrays)
    layers = rs.Layers.load(path)
    assert [len(layer) for layer in layers.directions] == [ways, ways]
    y = x = np.random.default_rng(1).standard_normal((7, 2, 3)).astype("f4")
    for layer in "01":
        shown = []
        for i in range(ways):
            one = {name: arrays[name + layer][i : i + 1] for name in "WRB"}
            turn = slice(None, None, -1 if i else None)
            shown.append(evaluated("LSTM", one, y[turn])[turn])
        y = np.concatenate(shown, axis=-1)
    np.testing.assert_allclose(layers.run(x, method="sequential")[0], y, rtol=0, atol=1e-5)
    assert rs.load(path, keys="up", layer=0).input_size == 5 * ways


ASIDE = {
    "something between them": ([*between(1)[0][:0], helper.make_node("Squeeze", ["Y0", "axes"], ["s"]),
                               helper.make_node("Tanh", ["s"], ["X1"])], {"axes": np.array([1])}, 5),
    "time and batch change places": ([helper.make_node("Squeeze", ["Y0", "axes"], ["s"]),
                                     helper.make_node("Transpose", ["s"], ["X1"], perm=[1, 0, 2])],
                                    {"axes": np.array([1])}, 5),
    "another size": (*between(1), 4),
}  # fmt: skip


@pytest.mark.parametrize("name", ASIDE)
def test_layers_with_something_between_them_are_not(folder, name):
    middle, constants, above = ASIDE[name]
    path = saved(folder, *two(1, middle, constants, above))
    with pytest.raises(ValueError, match=r"several recurrent modules; choose one by keys= \(--keys\): 'low' .*, 'up'"):
        rs.Layers.load(path)
    assert rs.load(path, keys="low").input_size == 3


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("LSTM", {"clip": 3.0}, r"node has clip 3.0, which is not supported"),
        ("LSTM", {"input_forget": 1}, "node has input_forget 1"),
        ("LSTM", {"activations": ["HardSigmoid", "Tanh", "Tanh"]}, r"activations \['HardSigmoid'.*wanted \['Sigmoid'"),
        ("GRU", {"activations": ["Sigmoid", "Relu"]}, "activations"),
        ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.1]}, "activation_alpha"),
        ("GRU", {"direction": "sideways"}, "direction 'sideways'"),
        ("GRU", {"hidden_size": 4}, r"node/W has shape \(1, 15, 3\); wanted \(1, 12, input size\)"),
        ("GRU", {"domain": "com.microsoft"}, r"a node com.microsoft.GRU; wanted one of RNN, GRU, LSTM of ONNX"),
        ("DynamicQuantizeLSTM", {"domain": "com.microsoft"}, r"a node com.microsoft.DynamicQuantizeLSTM"),
    ],
)
def test_what_a_cell_does_not_have_is_refused_by_name(folder, kind, settings, words):
    arrays = weights(kind[-4:].removeprefix("e"), 1)
    node = helper.make_node(kind, ["X", *arrays], ["Y"], name="node", **{"hidden_size": 5, **settings})
    path = saved(folder, [node], arrays)
    with pytest.raises(ValueError, match=f"model.onnx: .*{words}"):
        rs.load(path)


@pytest.mark.parametrize("change", ["nan", "mixed", "shape", "missing", "input", "peepholes"])
def test_weights_that_are_wrong_are_named(folder, change):
    arrays, names = weights("LSTM", 1), ["X", "W", "R", "B"]
    error, words = ValueError, {
        "nan": "node/R has 1 of 100 numbers that are NaN",
        "mixed": "dtypes are mixed: node/W is float32, node/R is float64",
        "shape": r"node/B has shape \(1, 39\)",
        "missing": "node/R missing",
        "input": "node: R is computed from R, which is no constant of the model",
        "peepholes": "node has peepholes",
    }[change]  # fmt: skip
    if change == "nan":
        arrays["R"][0, 3, 2] = np.nan
    elif change == "mixed":
        arrays["R"], error = arrays["R"].astype("f8"), TypeError
    elif change == "shape":
        arrays["B"] = arrays["B"][:, 1:]
    elif change == "missing":
        names[2] = ""
    elif change == "input":
        del arrays["R"]
    else:
        names += ["", "", "", "P"]
        arrays["P"] = np.ones((1, 15), "f4")
    node = helper.make_node("LSTM", names, ["Y"], name="node", hidden_size=5)
    path = saved(folder, [node], arrays, inputs=("X", "R") if change == "input" else ("X",))
    with pytest.raises(error, match=f"model.onnx: {words}"):
        rs.load(path)


def test_files_that_are_no_models(folder, monkeypatch):
    path = folder / "model.onnx"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"model.onnx is not a readable .onnx file"):
        rs.load(path)
    saved(folder, [helper.make_node("Relu", ["X"], ["Y"])], {"w": np.ones(3, "f2")})
    with pytest.raises(ValueError, match=r"holds no recurrent layer .* found w \(3,\) float16"):
        rs.load(path)
    assert not read_contents(path).modules
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r"model.onnx needs onnx: pip install 'recsolve\[onnx\]'"):
        rs.load(path)
