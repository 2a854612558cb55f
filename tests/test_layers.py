"""rs.run, Layers and load against torch."""

import copy
import itertools
import pickle

import numpy as np
import pytest

import recsolve as rs
from recsolve.interop import torch_run
from recsolve.recurrence.engine import Engine, Verdict

torch = pytest.importorskip("torch")

KINDS = {
    "RNN": lambda **k: torch.nn.RNN(**k),
    "ReLU": lambda **k: torch.nn.RNN(**k, nonlinearity="relu"),
    "GRU": lambda **k: torch.nn.GRU(**k),
    "LSTM": lambda **k: torch.nn.LSTM(**k),
}
CASES = list(itertools.product(KINDS, (1, 2), (False, True), (False, True)))


def make(kind, layers=2, bidirectional=True, batch_first=False, dtype=torch.float64):
    torch.manual_seed(1)
    return KINDS[kind](
        input_size=3, hidden_size=5, num_layers=layers, bidirectional=bidirectional, batch_first=batch_first
    ).to(dtype)


def parts(value):
    return value if isinstance(value, tuple) else (value,)


def assert_same(ours, theirs, tol):
    for a, b in zip(parts(ours), parts(theirs), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert float((a - b).abs().max()) <= tol


@pytest.mark.parametrize(("kind", "layers", "bidirectional", "batch_first"), CASES)
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_run_equals_torch(kind, layers, bidirectional, batch_first, dtype, tol):
    module = make(kind, layers, bidirectional, batch_first, dtype)
    x = torch.randn((4, 40, 3) if batch_first else (40, 4, 3), dtype=dtype)
    count = layers * (1 + bidirectional)
    start = tuple(torch.randn(count, 4, 5, dtype=dtype) for _ in range(2 if kind == "LSTM" else 1))
    for hx in (None, start if kind == "LSTM" else start[0]):
        with torch.no_grad():
            y, final = module(x, hx)
        ours, ours_final = rs.run(module, x, hx, method="newton")
        assert_same(ours, y, tol)
        assert_same(ours_final, final, tol)


@pytest.mark.parametrize("method", sorted(rs.solvers.REGISTRY))
def test_every_method_and_unbatched_input(method):
    module = make("LSTM")
    x = torch.randn(30, 3, dtype=torch.float64)
    with torch.no_grad():
        y, final = module(x)
    ours, ours_final = rs.run(module, x, method=method)
    assert_same(ours, y, 1e-12)
    assert_same(ours_final, final, 1e-12)


def test_an_unconverged_method_is_completed_or_raises():
    module = make("GRU")
    x = torch.randn(60, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        y, _ = module(x)
    assert_same(rs.run(module, x, method="jacobi", maxiter=2)[0], y, 1e-12)
    with pytest.raises(rs.ConvergenceError) as caught:
        rs.run(module, x, method="jacobi", maxiter=2, fallback="raise")
    assert caught.value.solution.status == "maxiter"
    with pytest.raises(ValueError, match="run returns no status"):
        rs.run(module, x, fallback="none")
    result = rs.Layers.from_torch(module).solve(x, method="jacobi", maxiter=2)
    assert not result.success
    assert len(result.solutions) == 4


def test_numpy_in_numpy_out():
    module = make("GRU", layers=1, bidirectional=False)
    x = np.random.default_rng(0).standard_normal((20, 2, 3))
    y, final = rs.run(module, x)
    assert isinstance(y, np.ndarray)
    np.testing.assert_array_equal(y[-1], final[0])


def halved(module):
    module.weight_hh_l0.data.mul_(0.5)  # which no version of a tensor tells of


def trained(module):
    with torch.no_grad():
        module.bias_ih_l0.add_(0.25)


def loaded(module):
    module.load_state_dict({name: w + 0.125 for name, w in module.state_dict().items()})


def replaced(module):
    module.weight_ih_l0 = torch.nn.Parameter(module.weight_ih_l0.detach() * 2)


def in_float32(module):
    module.float()


def turned(module):
    module.batch_first = True


@pytest.mark.parametrize("change", [halved, trained, loaded, replaced, in_float32, turned])
def test_weights_are_taken_again_only_where_they_have_changed(change):
    module, x = make("GRU", layers=1), torch.randn(9, 4, 3, dtype=torch.float64)
    first = torch_run._layers_of(module)
    assert torch_run._layers_of(module) is first
    change(module)
    x = x.to(module.weight_ih_l0.dtype)
    assert_same(rs.run(module, x)[0], module(x)[0], 1e-6 if change is in_float32 else 1e-13)
    assert torch_run._layers_of(module) is not first


@pytest.fixture(params=["npz", "safetensors"])
def save(request, tmp_path):
    def write(state):
        path = tmp_path / f"weights.{request.param}"
        if request.param == "npz":
            np.savez(path, **{name: value.numpy() for name, value in state.items()})
        else:
            from safetensors.torch import save_file

            save_file({name: value.contiguous() for name, value in state.items()}, path)
        return path

    return write


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_load_one_layer(kind, save):
    module = make(kind, layers=1, bidirectional=False, dtype=torch.float32)
    x = torch.randn(30, 2, 3)
    cell = rs.load(save(module.state_dict()), nonlinearity="relu" if kind == "ReLU" else "tanh")
    with torch.no_grad():
        y = module(x)[0]
    assert_same(rs.solve(cell.recurrence(x)).output, y, 1e-6)


def test_load_all_layers_inside_a_larger_model(save):
    module = make("LSTM", batch_first=True)
    model = torch.nn.ModuleDict({"encoder": module, "head": torch.nn.Linear(10, 2)})
    path = save(model.state_dict())
    x = torch.randn(2, 30, 3, dtype=torch.float64)
    with torch.no_grad():
        y, final = module(x)
    ours, ours_final = rs.Layers.load(path, batch_first=True).run(x)
    assert_same(ours, y, 1e-12)
    assert_same(ours_final, final, 1e-12)
    with pytest.raises(ValueError, match=r"4 layers and directions.*Layers.load"):
        rs.load(path)
    cell = rs.load(path, layer=0, reverse=True)
    assert cell.input_size == 3
    with pytest.raises(ValueError, match="layer 7"):
        rs.load(path, layer=7)


def test_files_that_cannot_be_read(tmp_path, save):
    with pytest.raises(FileNotFoundError, match="no weights file"):
        rs.load(tmp_path / "absent.npz")
    for suffix in ("npz", "safetensors"):
        path = tmp_path / f"corrupt.{suffix}"
        path.write_bytes(b"not weights at all")
        with pytest.raises(ValueError, match=f"not a readable .{suffix}"):
            rs.load(path)
    path = tmp_path / "weights.xyz"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"ends in '.xyz'; wanted weights as one of .npz, .safetensors, .pt"):
        rs.load(path)
    with pytest.raises(ValueError, match=r"no recurrent layer .*bias \(2,\) float32"):
        rs.load(save(torch.nn.Linear(2, 2).state_dict()))
    two = torch.nn.ModuleDict({"a": make("GRU"), "b": make("GRU")})
    with pytest.raises(ValueError, match=r"choose one by keys= .*'a' .*'b' "):
        rs.load(save(two.state_dict()))


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: rs.run(torch.nn.Linear(2, 2), torch.ones(3, 2)), TypeError, "module is Linear"),
        (lambda: rs.run(torch.nn.GRU(3, 5, 2, dropout=0.5), torch.ones(4, 3)), ValueError, r"module.eval\(\)"),
        (lambda: rs.run(torch.nn.GRU(3, 5), torch.ones(4, 3, 2, 1)), ValueError, "x has shape"),
        (lambda: rs.run(torch.nn.GRU(3, 5), torch.ones(4, 2)), ValueError, r"x has shape \(4, 2\); wanted"),
        (lambda: rs.run(torch.nn.GRU(3, 5), torch.ones(4, 3).double()), TypeError, "dtypes are mixed"),
        (lambda: rs.run(torch.nn.GRU(3, 5), torch.ones(4, 3, requires_grad=True)), TypeError, r"x.detach\(\)"),
        (lambda: rs.run(torch.nn.GRU(3, 5), torch.ones(4, 3), torch.ones(2, 5)), ValueError, r"hx\[0\] has shape"),
        (lambda: rs.run(torch.nn.LSTM(3, 5), torch.ones(4, 3), torch.ones(1, 5)), ValueError, "hx has 1 parts"),
        (lambda: rs.run(torch.nn.GRU(3, 5), torch.ones(4, 3), np.ones((1, 5), "f4")), TypeError, "kinds are mixed"),
        (lambda: rs.cells.LSTM.from_torch(torch.nn.GRU(3, 5)), TypeError, "lstm wants 'LSTM'"),
        (lambda: rs.cells.MinMax.from_torch(torch.nn.GRU(3, 5)), TypeError, "minmax has no torch module"),
        (lambda: rs.cells.GRU.from_torch(torch.nn.GRU(3, 5), layer=1), ValueError, "layer 1 is not there"),
        (lambda: rs.cells.GRU.from_torch(torch.nn.GRU(3, 5), reverse=True), ValueError, "reverse"),
    ],
)
def test_bad_input(build, error, words):
    with pytest.raises(error, match=words):
        build()


class Slow:
    """What makes one way of a run slower than the other, by its name."""

    def __init__(self, monkeypatch, **seconds):
        self.calls = []
        monkeypatch.setattr(torch_run, "has_own_loop", lambda x: True)
        monkeypatch.setattr(torch_run, "_timed", self.timed)
        self.seconds = seconds

    def timed(self, call):
        found = call()
        name = "loop" if isinstance(found, tuple) else found.solutions[0].solver.name
        self.calls.append(name)
        return found, self.seconds.get(name, 0.1)


@pytest.fixture
def swept(monkeypatch):
    """Engines that sweep on the CPU: each gives the loop's states."""

    def solve(self, way, tolerance, window=256):
        return Verdict(Engine(self.recurrence).walk(), 3, 0.0, counts={"nfev": 4}) if way == "sweeps" else None

    monkeypatch.setattr(Engine, "solve", solve)


@pytest.mark.parametrize("fastest", ["sweeps", "walk", "loop"])
def test_auto_runs_the_fastest_way(fastest, monkeypatch, swept):
    monkeypatch.setattr(Engine, "compiled", True)
    slow = Slow(monkeypatch, **{"loop": 1.0, "sweeps": 1.0, "walk": 1.0, fastest: 0.5})
    module = torch.nn.LSTM(3, 5, num_layers=2)
    x, hx = torch.randn(20, 2, 3), (torch.randn(2, 2, 5), torch.randn(2, 2, 5))
    y, (h, c) = module(x, hx)
    for _ in range(10):
        result = rs.run(module, x, hx, method="auto")
        ours, (hn, cn) = result
        assert torch.allclose(ours, y, atol=1e-5)
        assert torch.allclose(hn, h, atol=1e-5)
        assert torch.allclose(cn, c, atol=1e-5)
        assert not ours.requires_grad
        assert slow.calls[-1] in result.how
    assert slow.calls[:6] == ["sweeps", "walk", "loop"] * 2
    assert set(slow.calls[6:]) == {fastest}
    slow.seconds[fastest] = 3.0  # the data remember longer: one call loses, and no other
    for _ in range(3):
        rs.run(module, x, hx, method="auto")
    assert fastest == "loop" or fastest not in slow.calls[-2:]


def test_auto_takes_the_module_unless_another_way_is_clearly_faster(monkeypatch, swept):
    slow = Slow(monkeypatch, loop=1.0, sweeps=0.97)
    module, x = torch.nn.GRU(3, 5), torch.randn(20, 2, 3)
    for _ in range(8):
        rs.run(module, x, method="auto")
    assert slow.calls[-3:] == ["loop"] * 3


def test_auto_runs_the_module_where_sweeps_do_not_converge(monkeypatch):
    slow = Slow(monkeypatch, loop=1.0, sweeps=0.1)
    monkeypatch.setattr(Engine, "solve", lambda self, way, tolerance, window=256: None)
    module, x = torch.nn.GRU(3, 5, bidirectional=True), torch.randn(20, 2, 3)
    for _ in range(6):
        result = rs.run(module, x, method="auto")
        assert torch.equal(result[0], module(x)[0])
        assert "do not converge" in result.how
    assert slow.calls.count("sweeps") == slow.calls.count("walk") == 1


@pytest.mark.parametrize("kind", ["add_", "fused", "data", "parameter"])
def test_weights_are_those_of_the_module_now(kind):
    module, x = torch.nn.GRU(3, 5), torch.randn(20, 2, 3)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.5, fused=True)
    module(x)[0].sum().backward()
    rs.run(module, x)
    with torch.no_grad():
        if kind == "add_":
            module.weight_hh_l0.add_(0.1)
        elif kind == "fused":  # it writes into parameters without counting that
            optimizer.step()
        elif kind == "data":
            module.weight_hh_l0.data.mul_(2)
        else:
            module.weight_hh_l0 = torch.nn.Parameter(module.weight_hh_l0 * 2)
    assert torch.allclose(rs.run(module, x)[0], module(x)[0], atol=1e-5)


def test_the_result_of_a_run_is_a_pair_that_can_be_copied():
    result = rs.run(torch.nn.GRU(3, 5), torch.randn(20, 2, 3))
    for again in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert len(again) == 2
        assert torch.equal(again[0], result[0])
        assert again.how == result.how == "recsolve, newton"


def test_wrong_arguments_of_auto_are_refused_whichever_way_is_next(monkeypatch, swept):
    Slow(monkeypatch, loop=1.0, sweeps=1.0)
    module = torch.nn.GRU(3, 5)
    for _ in range(4):
        rs.run(module, torch.randn(20, 2, 3), method="auto")
        with pytest.raises(ValueError, match="hx"):
            rs.run(module, torch.randn(20, 2, 3), torch.randn(2, 2, 5), method="auto")
