"""Every key of a checkpoint is used, or refused by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recsolve as rs

torch = pytest.importorskip("torch")

MODULES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["RNN", "GRU", "LSTM"]),
        "num_layers": st.integers(1, 3),
        "bidirectional": st.booleans(),
        "bias": st.booleans(),
    }
)


def make(kind, input_size=3, hidden_size=5, **settings):
    torch.manual_seed(0)
    return getattr(torch.nn, kind)(input_size=input_size, hidden_size=hidden_size, **settings).double()


def arrays(module, prefix=""):
    return {prefix + name: x.numpy().copy() for name, x in module.state_dict().items()}


def written(folder, state):
    path = folder / "weights.npz"
    np.savez(path, **state)
    return path


def assert_equals(path, module):
    x = torch.randn(7, 2, module.input_size, dtype=torch.float64)
    with torch.no_grad():
        y, _ = module(x)
    assert torch.allclose(rs.Layers.load(path).run(x)[0], y, rtol=0, atol=1e-13)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


RENAMED = {
    "longer": lambda name: name + "x",
    "of another module": lambda name: "other." + name,
    "of a layer far up": lambda name: name.replace("_l", "_l7"),
    "of no known part": lambda name: name.replace("_ih", "_iih").replace("_hh", "_hhh"),
}
RESHAPED = {
    "transposed, or with an axis more": lambda x: x.T if x.ndim == 2 and x.shape[0] != x.shape[1] else x[None],
    "flat, or a number": lambda x: x.ravel() if x.ndim == 2 else x[0],
    "a row less": lambda x: x[:-1],
    "a row more": lambda x: np.concatenate([x, x[:1]]),
    "empty": lambda x: x[:0],
}


@given(settings=MODULES, prefix=st.sampled_from(["", "encoder.gru."]), change=st.data())
def test_a_changed_key_is_named(folder, settings, prefix, change):
    module = make(**settings)
    state = arrays(module, prefix)
    assert_equals(written(folder, state), module)
    name = change.draw(st.sampled_from(sorted(state)))
    bare = name.removeprefix(prefix)
    how = change.draw(st.sampled_from(["removed", *RENAMED, *RESHAPED]))
    x = state.pop(name)
    if how in RENAMED:
        state[RENAMED[how](name)] = x
    elif how in RESHAPED:
        state[name] = RESHAPED[how](x)
    path = written(folder, state)
    for load in (rs.Layers.load, lambda path: rs.load(path, layer=0)):
        with pytest.raises(ValueError, match=bare):
            load(path)


@given(settings=MODULES, change=st.data())
def test_a_changed_number_or_dtype_is_named(folder, settings, change):
    state = arrays(make(**settings))
    name = change.draw(st.sampled_from(sorted(state)))
    value = change.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    good = state[name]
    state[name] = good.copy()
    state[name].flat[-1] = value
    with pytest.raises(ValueError, match=rf"weights.npz: {name} has 1 of {good.size} numbers that are NaN or inf"):
        rs.Layers.load(written(folder, state))
    for dtype in (np.float32, np.float16, np.int64):
        state[name] = good.astype(dtype)
        with pytest.raises(TypeError, match=rf"weights.npz: .*{name}.* {np.dtype(dtype)}"):
            rs.Layers.load(written(folder, state))


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_what_is_left_when_whole_groups_go_is_a_smaller_module(folder, kind):
    module = make(kind, num_layers=2, bidirectional=True)
    state = arrays(module)
    for words, smaller in (
        (("bias",), make(kind, num_layers=2, bidirectional=True, bias=False)),
        (("_l1",), make(kind, bidirectional=True)),
        (("_l1", "_reverse", "bias"), make(kind, bias=False)),
    ):
        left = {name: x for name, x in state.items() if not any(word in name for word in words)}
        smaller.load_state_dict({name: torch.from_numpy(x) for name, x in left.items()})
        assert_equals(written(folder, left), smaller)


def test_a_bias_alone_is_refused(folder):
    for gone, kept in (("bias_ih_l0", "bias_hh_l0"), ("bias_hh_l0", "bias_ih_l0")):
        module = make("GRU")
        state = arrays(module)
        del state[gone]
        assert kept in state
        with pytest.raises(ValueError, match=f"{gone} missing"):
            rs.load(written(folder, state))
        delattr(module, gone)
        for take in (rs.cells.GRU.from_torch, rs.Layers.from_torch):
            with pytest.raises(ValueError, match=f"{gone} missing"):
                take(module)


def test_what_else_the_file_holds(folder):
    state = arrays(make("GRU"))
    with pytest.raises(ValueError, match="epoch left over"):
        rs.load(written(folder, {**state, "epoch": np.array(3)}))
    encoder = {"encoder." + name: x for name, x in state.items()}
    assert rs.load(written(folder, {**encoder, "head.weight": np.ones(3)})).hidden_size == 5
    both = written(folder, {**encoder, "decoder.bias_ih_l0": np.ones(15)})
    with pytest.raises(ValueError, match=r"choose one by keys= .*'decoder' \(decoder.*, 'encoder' "):
        rs.load(both)
    assert rs.load(both, keys="encoder.*").hidden_size == 5
    with pytest.raises(ValueError, match="pass layer="):
        rs.load(written(folder, arrays(make("GRU", num_layers=2, bidirectional=True))), reverse=True)


def test_layers_that_share_a_weight_are_all_taken():
    module = make("GRU", input_size=5, num_layers=2)
    module.weight_hh_l1 = module.weight_hh_l0
    x = torch.randn(7, 2, 5, dtype=torch.float64)
    with torch.no_grad():
        y, _ = module(x)
    assert torch.allclose(rs.run(module, x)[0], y, rtol=0, atol=1e-13)


def test_a_member_of_a_file_that_is_damaged_is_named(folder):
    path = folder / "damaged.npz"
    np.savez_compressed(path, **arrays(make("GRU")))
    data = bytearray(path.read_bytes())
    at = data.find(b"weight_ih_l0.npy") + 40
    data[at : at + 20] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"not a readable .npz file: weight_ih_l0"):
        rs.load(path)
