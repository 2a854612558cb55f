"""``rs.save`` and ``rs.load``: plain data come back bit for bit, files that are not whole are refused."""

import copy
import json
import os
import pickle
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import test_mixings
import test_ragged_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from test_pickling import same

import recsolve as rs
from recsolve import mixings
from recsolve.interop.records import Writer
from recsolve.recurrence.read_cell import ReadCell

DTYPES = (np.float32, np.float64)


def five_lines(s, W, u, p):
    f = rs.math.sigmoid(W.f(s.h) + u.f * p.scale)
    return (1 - f) * s.h + f * np.tanh(u.h), s.c + f


OWN = rs.Cell(five_lines, state=("h", "c"), output="h", cite="of a test")


@cache
def cells(dtype):
    """Return cells of every definition and mixing, by name, with the function that they are loaded with."""
    found = {}
    for name, cell in rs.cells.REGISTRY.items():
        for mixing in ("dense", "diagonal", "heads"):
            made = cell.random(input_size=3, hidden_size=8, mixing=mixing, rng=0, dtype=dtype)
            found[f"{name} {mixing}"] = made, None
    for name, mixing in test_mixings.made(dtype).items():
        found[f"elman {name}"] = rs.cells.Elman.with_weights(mixings={"h": mixing}), None
    for name, cell in test_ragged_cells.CELLS.items():
        found[name] = test_ragged_cells.weighted(name, dtype), cell.function
    lstm, gru = found["lstm dense"][0], found["gru dense"][0]
    own = OWN.random(input_size=3, hidden_size=8, mixing="heads", heads=2, rng=0, dtype=dtype)
    return found | {
        "own": (own, five_lines),
        "shown": (ReadCell.of(lstm, np.ones((2, 8), dtype)), None),
        "holding": (rs.cells.holding(gru), None),
        "own, holding": (rs.cells.holding(own), five_lines),
        "ensemble": (rs.cells.ensemble([gru, gru.map(np.negative)]), None),
        "without weights": (rs.cells.MinMax.with_weights(hidden_size=np.int64(5)), None),
    }


@cache
def objects(dtype):
    """Return all that files hold, by name."""
    found = dict(cells(dtype))
    one, two = (rs.cells.LSTM.random(input_size=n, hidden_size=4, rng=n, dtype=dtype) for n in (3, 8))
    found |= {f"mixing: {name}": (mixing, None) for name, mixing in test_mixings.made(dtype).items()}
    return found | {
        "layers": (rs.Layers([[one, one], [two, two]], batch_first=True), None),
        "projection": (one.projection, None),
        "masked twice": (mixings.Masked(test_mixings.made(dtype)["masked dense"], np.tri(6, dtype=bool)), None),
        "masked, mapped": (test_mixings.made(dtype)["masked heads"].map(lambda w: 2 * w), None),
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "saved.safetensors"


def alike(x, y):
    """Whether two objects are of one class, and one record and arrays bit for bit."""
    one, two = Writer(), Writer()
    records = one.record(x), two.record(y)
    return type(x) is type(y) and records[0] == records[1] and same(one.arrays, two.arrays)


@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_comes_back_bit_for_bit(path, dtype):
    for name, (x, function) in objects(dtype).items():
        rs.save(x, path)
        y = rs.load(path, function=function)
        assert alike(x, y), name
        if isinstance(x, rs.WeightedCell):
            assert (y.cell is x.cell) == (x.cell in rs.cells.REGISTRY.values()), name
            assert repr(x) == repr(y), name
        if isinstance(x, rs.mixings.Mixing):
            v = np.random.default_rng(0).standard_normal((5, *x.lanes, x.units)).astype(dtype)
            assert same(x(v), y(v)), name


def test_what_is_loaded_solves_and_differentiates_alike(path):
    rng = np.random.default_rng(0)
    for name in ("gru dense", "lstm heads", "own", "elman masked dense", "elman sparse", "memory", "shown"):
        cell, function = cells(np.float64)[name]
        rs.save(cell, path)
        other = rs.load(path, function=function)
        if cell.projection is None:
            given = {"drive": {"h": rng.standard_normal((20, *cell.layout.event))}}
        else:
            given = {"x": rng.standard_normal((20, 2, 3))}
        one, two = (rs.solve(c.recurrence(**given), method="newton") for c in (cell, other))
        assert one.success, name
        assert same(one.states, two.states), name
        assert same(rs.adjoint(one, output=one.output).initial, rs.adjoint(two, output=two.output).initial), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_and_every_order_of_memory(path, dtype):
    numbers = np.array([-0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).smallest_subnormal, 1 / 3], dtype)
    bits = numbers.copy()
    bits.view(f"u{bits.itemsize}")[3] |= 5  # a NaN with a payload
    square = np.resize(bits, (6, 6))
    ways = [square.copy(), np.asfortranarray(square), square[::-1, ::-1], np.repeat(square, 2, 0)[::2]]
    ways += [np.broadcast_to(bits, (6, 6)), square.T]
    for weight in ways:
        weight.flags.writeable = False
        rs.save(mixings.Dense(weight), path)
        assert same(rs.load(path).weight, weight.copy())
        assert rs.load(path).weight.flags.writeable


def test_weights_of_tensors_are_saved_without_their_graph(path):
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(3, 8, proj_size=2)
    cell = rs.cells.LSTM.from_torch(module)
    rs.save(cell, path)
    assert alike(rs.load(path), cell)
    weight = torch.rand(4, 4, requires_grad=True)
    rs.save(mixings.Dense(weight), path)
    assert same(rs.load(path).weight, weight.detach().numpy())


@pytest.mark.gpu
def test_weights_on_a_gpu_are_saved_from_the_host(path):
    cupy = pytest.importorskip("cupy")
    for name, (x, function) in objects(np.float32).items():
        if hasattr(x, "map"):
            rs.save(x.map(cupy.asarray), path)
            assert alike(rs.load(path, function=function), x), name


def test_the_metadata_say_what_the_file_is(path):
    rs.save(cells(np.float32)["lstm heads"][0], path)
    with safe_open(path, "numpy") as file:
        said = file.metadata()
    assert {n: said[n] for n in said if n != "record"} == {
        "format": "recsolve", "format_version": "1", "recsolve_version": rs.__version__, "object": "WeightedCell",
        "dtype": "float32",
    }  # fmt: skip
    record = json.loads(said["record"])
    assert record["cell"] == {"name": "lstm", "state": ["h", "c"], "output": "h"}
    assert record["mixings"]["i"] == {"kind": "heads"}
    rs.save(cells(np.float32)["own"][0], path)
    with safe_open(path, "numpy") as file:
        assert json.loads(file.metadata()["record"])["cell"]["function"] == f"{__name__}:five_lines"


def test_code_is_neither_saved_nor_run(path, tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    rs.save(OWN.random(input_size=3, hidden_size=8, rng=0), path)
    change(path, lambda record: record["cell"].update(function="evil:f"))
    code = f"import recsolve as rs\ntry: rs.load({str(path)!r})\nexcept ValueError as e: print(e)"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "of the function evil:f, and no code is run because a file names it; pass function=" in done.stdout


class Positive(mixings.Dense):
    def matvec(self, x):
        return x @ np.exp(self.weight).T


def patched():
    mixing = mixings.Dense(np.eye(3))
    mixing.matvec = lambda x: 2 * x
    return mixing


REFUSED = {
    "a number": (lambda: 3.0, "x is or holds float; wanted"),
    "a definition": (lambda: rs.cells.GRU, "x is or holds Cell; wanted a cell with its weights"),
    "a mixing of a class": (lambda: Positive(np.eye(3)), "the mixing is Positive; files hold mixings of the classes"),
    "in a cell": (lambda: rs.cells.Elman.with_weights(mixings={"h": Positive(np.eye(3))}), "mixings.h is Positive"),
    "within": (lambda: mixings.Masked(Positive(np.eye(3)), np.eye(3) > 0), "within is Positive"),
    "patched": (patched, "the mixing is Dense; files hold"),
    "by step": (lambda: mixings.Gather.by_step(np.zeros((5, 3), int), np.zeros(0)), "the mixing is Gather"),
    "a subclass": (lambda: type("Mine", (rs.WeightedCell,), {})(rs.cells.Elman, {"h": mixings.Diagonal(np.ones(3))},
                                                                {}, None, None), "x is or holds Mine; wanted"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_plain_data_is_refused(path, what):
    make, message = REFUSED[what]
    with pytest.raises(TypeError, match=message):
        rs.save(make(), path)
    assert not path.exists()


def test_paths_are_looked_at(tmp_path):
    cell = rs.cells.GRU.random(input_size=3, hidden_size=8, rng=0)
    with pytest.raises(ValueError, match=r"path is .*cell.npz; wanted a name that ends in .safetensors"):
        rs.save(cell, tmp_path / "cell.npz")
    with pytest.raises(FileNotFoundError, match=r"no folder .*none for cell.safetensors"):
        rs.save(cell, tmp_path / "none" / "cell.safetensors")
    with pytest.raises(TypeError, match="path is int"):
        rs.save(cell, 3)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OSError, match=r"folder\.safetensors"):
        rs.save(cell, tmp_path / "folder.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.safetensors"]


def test_a_file_is_replaced_when_the_new_one_is_whole(path, monkeypatch):
    small, large = (rs.cells.GRU.random(input_size=3, hidden_size=n, rng=0) for n in (4, 16))
    rs.save(small, path)
    loaded = rs.load(path)
    link = path.with_name("link.safetensors")
    link.symlink_to(path)

    def cut_off(arrays, part, said):
        save_file(arrays, part, said)
        with open(part, "r+b") as file:
            file.truncate(100)
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.numpy.save_file", cut_off)
        with pytest.raises(OSError, match="no space left"):
            rs.save(large, link)
    assert alike(rs.load(path), small)
    assert {p.name for p in path.parent.iterdir()} == {path.name, link.name}
    rs.save(large, link)
    assert alike(rs.load(path), large)
    assert link.is_symlink()
    assert alike(loaded, small)  # it holds no view of the file


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_who_may_read_files_may_read_this_one(path):
    plain = path.with_name("plain")
    plain.touch()
    rs.save(GRU, path)
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o664)
    rs.save(GRU, path)
    assert path.stat().st_mode & 0o777 == 0o664


def change(path, edit=lambda record: None, *, arrays=lambda held: None, **said):
    """Write a file anew with another record, other arrays or other metadata."""
    with safe_open(path, "numpy") as file:
        before = file.metadata()
    record, held = json.loads(before["record"]), load_file(path)
    edit(record)
    arrays(held)
    save_file(held, path, {**before, "record": json.dumps(record), **said})


GRU = rs.cells.GRU.random(input_size=3, hidden_size=4, rng=0)
DAMAGE = {
    "newer": (lambda p: change(p, format_version="2", recsolve_version="9.1"),
              r"has version 2 of the format, written by recsolve 9.1; .* reads versions up to 1: update it"),
    "no version": (lambda p: change(p, format_version="x"), "has version x of the format"),
    "no record": (lambda p: change(p, record=""), "cannot be loaded"),
    "another format": (lambda p: change(p, format="else"), "holds no recurrent layer"),
    "missing array": (lambda p: change(p, arrays=lambda held: held.pop("parameters.b_n")),
                      "array parameters.b_n is missing"),
    "extra array": (lambda p: change(p, arrays=lambda held: held.update(more=np.ones(3))),
                    r"arrays \['more'\] belong to nothing"),
    "other shape": (lambda p: change(p, arrays=lambda held: held.update({"mixings.r.weight": np.ones((3, 3))})),
                    "cannot be loaded: sizes of gru"),
    "other dtype": (lambda p: change(p, arrays=lambda held: held.update({"mixings.r.weight": np.ones((4, 4), "f2")})),
                    "cannot be loaded: weight has dtype float16"),
    "unknown cell": (lambda p: change(p, lambda r: r["cell"].update(name="gruu")), "the cell gruu .* is not built in"),
    "other components": (lambda p: change(p, lambda r: r["cell"].update(state=["h", "c"])), "is not built in"),
    "unknown mixing": (lambda p: change(p, lambda r: r["mixings"]["r"].update(kind="magic")),
                       "kind of a mixing is 'magic'; wanted one of diagonal, dense"),
    "unknown object": (lambda p: change(p, lambda r: r.update(object="Solution")), "object is 'Solution'; wanted one"),
    "another object": (lambda p: change(p, lambda r: r.update(object="RaggedCell")), "object is RaggedCell, and its"),
    "missing entry": (lambda p: change(p, lambda r: r.pop("hidden_size")), "hidden_size is missing"),
    "wrong entry": (lambda p: change(p, lambda r: r.update(mixings=[1])), "mixings is .* of another kind"),
    "nested without end": (lambda p: change(p, record="[" * 100_000), "cannot be loaded"),
    "truncated": (lambda p: os.truncate(p, p.stat().st_size - 8), "is not a readable .safetensors file"),
    "cut in the header": (lambda p: os.truncate(p, 50), "is not a readable .safetensors file"),
    "empty": (lambda p: os.truncate(p, 0), "is empty"),
    "no safetensors": (lambda p: p.write_bytes(pickle.dumps({})), "is not a readable .safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_file_that_is_not_whole_is_refused(path, what):
    damage, message = DAMAGE[what]
    rs.save(GRU, path)
    damage(path)
    with pytest.raises(ValueError, match=message) as caught:
        rs.load(path)
    assert str(path) in str(caught.value)


def places(x, at=()):
    """Return the ways to all entries of a record."""
    inner = x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list) else ()
    return [*([at] if at else []), *(way for key, value in inner for way in places(value, (*at, key)))]


def spoil(record, way, value):
    for key in way[:-1]:
        record = record[key]
    record[way[-1]] = value


JUNK = st.sampled_from([None, True, -1, 0, 2, 10**30, 0.5, "", "h", "diagonal", [], [3], ["h"], {}, {"h": 1}])


@settings(max_examples=60)
@given(st.sampled_from(["own", "memory", "shown", "elman periodic conv", "elman low rank", "elman sparse",
                        "elman masked heads", "own, holding", "layers"]), st.data())  # fmt: skip
def test_a_record_that_was_changed_is_refused_or_is_of_the_same_arrays(tmp_path_factory, name, data):
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    x, function = objects(np.float64)[name]
    rs.save(x, path)
    arrays = load_file(path)
    change(path, lambda r: spoil(r, data.draw(st.sampled_from(places(copy.deepcopy(r)))), data.draw(JUNK)))
    try:
        found = rs.load(path, function=function)
    except ValueError as error:
        if str(path) not in str(error):
            raise
    else:
        writer = Writer()
        writer.record(found)
        assert same(dict(sorted(writer.arrays.items())), dict(sorted(arrays.items())))


def test_a_rank_that_is_no_whole_number_is_refused(path):
    rs.save(mixings.LowRank(np.ones((4, 2)), np.ones((4, 2))), path)
    change(path, lambda r: r.update(rank=1.5))
    with pytest.raises(ValueError, match="cannot be loaded"):
        rs.load(path)


def test_indices_that_name_no_unit_are_refused(path):
    for name, key in (("sparse", "indices"), ("gather", "index"), ("permutation", "index")):
        rs.save(test_mixings.made()[name], path)
        change(path, arrays=lambda held, key=key: held[key].__setitem__(0, 99))
        with pytest.raises(ValueError, match="cannot be loaded"):
            rs.load(path)


def test_arguments_that_belong_to_other_files_are_refused(path, tmp_path):
    rs.save(GRU, path)
    for more in ({"layer": 0}, {"keys": "rnn.*"}, {"reverse": True}, {"nonlinearity": "relu"}):
        with pytest.raises(ValueError, match=r"was written by recsolve\.save; leave out keys, layer, reverse"):
            rs.load(path, **more)
    with pytest.raises(ValueError, match=r"function is given, and .* holds no cell of a function; leave it out"):
        rs.load(path, function=five_lines)
    with pytest.raises(TypeError, match="function is int"):
        rs.load(path, function=3)
    with pytest.raises(ValueError, match=r"was written by recsolve.save; .* \(recsolve.load reads it\)"):
        rs.Layers.load(path)
    with pytest.raises(FileNotFoundError, match="no weights file"):
        rs.load(tmp_path / "none.safetensors", function=five_lines)
    np.savez(tmp_path / "torch.npz", weight_ih_l0=np.ones((24, 3)), weight_hh_l0=np.ones((24, 8)))
    with pytest.raises(ValueError, match=r"function is given, and .* was not written by recsolve.save"):
        rs.load(tmp_path / "torch.npz", function=five_lines)


def test_another_function_is_refused_where_it_does_not_fit(path):
    rs.save(OWN.random(input_size=3, hidden_size=8, rng=0), path)
    with pytest.raises(ValueError, match=r"mixings of five_lines has names \('f',\); wanted \('h',\)"):
        rs.load(path, function=lambda s, W, u, p: (W.h(s.h) + u.f + u.h * p.scale, s.c))
