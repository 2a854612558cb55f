"""Cells against torch and against their equations written out."""

import gallery
import numpy as np
import pytest

import recsolve as rs

torch = pytest.importorskip("torch")

MODULES = {
    "elman": lambda **k: torch.nn.RNN(**k, nonlinearity="tanh"),
    "elman_relu": lambda **k: torch.nn.RNN(**k, nonlinearity="relu"),
    "gru": lambda **k: torch.nn.GRU(**k),
    "lstm": lambda **k: torch.nn.LSTM(**k),
}
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.sample(every=2)
@pytest.mark.parametrize("method", sorted(rs.solvers.REGISTRY))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", sorted(MODULES))
def test_from_torch(name, bias, dtype, method):
    torch.manual_seed(0)
    module = MODULES[name](input_size=3, hidden_size=8, bias=bias, num_layers=2, bidirectional=True).to(dtype)
    x = torch.randn(50, 4, 3, dtype=dtype)
    with torch.no_grad():
        first = MODULES[name](input_size=3, hidden_size=8, bias=bias).to(dtype)
        reverse = MODULES[name](input_size=3, hidden_size=8, bias=bias).to(dtype)
        for parameter, value in first.named_parameters():
            value.copy_(getattr(module, parameter))
        for parameter, value in reverse.named_parameters():
            value.copy_(getattr(module, f"{parameter}_reverse"))
        forward, backward = first(x)[0], reverse(x)[0]
    cell = rs.cells.get(name).from_torch(module)
    # Methods that converge linearly stop anywhere below the tolerance: the oracle is held to 1e-6, they to 2 eps.
    tol = 2 * torch.finfo(dtype).eps
    sol = rs.solve(cell.recurrence(x), method=method, tol=tol)
    assert sol.success
    assert isinstance(sol.output, torch.Tensor)
    assert sol.output.dtype == dtype
    assert float((sol.output - forward).abs().max()) <= TOLERANCE[dtype]
    cell = rs.cells.get(name).from_torch(module, layer=0, reverse=True)
    sol = rs.solve(cell.recurrence(x), method=method, tol=tol)
    assert float((sol.output - backward).abs().max()) <= TOLERANCE[dtype]


OTHERS = ("cho_gru", "pararnn_gru", "pararnn_lstm", "minmax", "mgu", "leaky", "slstm")


def written_out(name, cell, x, state):
    """One step of each cell in plain NumPy, from the papers' equations; W.name(v) is the mixing."""
    W, p = cell.mixings, cell.parameters
    u = {k: w @ x + cell.projection.biases[k] for k, w in cell.projection.weights.items()}
    M = {k: (lambda v, k=k: W[k].dense() @ v) for k in W}
    if name == "cho_gru":
        (h,) = state
        r, z = sigmoid(M["r"](h) + u["r"]), sigmoid(M["z"](h) + u["z"])
        return (z * h + (1 - z) * np.tanh(M["n"](r * h) + u["n"]),)
    if name == "pararnn_gru":
        (h,) = state
        z, r = sigmoid(M["z"](h) + u["z"]), sigmoid(M["r"](h) + u["r"])
        return ((1 - z) * h + z * np.tanh(M["n"](h) * r + u["n"]),)
    if name == "pararnn_lstm":
        h, c = state
        f = sigmoid(M["f"](h) + p["c_f"] * c + u["f"])
        new = f * c + (1 - f) * np.tanh(M["g"](h) + u["g"])
        return sigmoid(M["o"](h) + p["c_o"] * new + u["o"]) * np.tanh(new), new
    if name == "mgu":
        (h,) = state
        f = sigmoid(M["f"](h) + u["f"])
        return ((1 - f) * h + f * np.tanh(M["h"](f * h) + u["h"]),)
    if name == "leaky":
        (h,) = state
        tau = 1 + np.exp(-p["rate"])
        return ((1 - 1 / tau) * h + np.tanh(M["h"](h) + u["h"]) / tau,)
    if name == "slstm":  # without the stabiliser
        y, c, n, m = state
        i, f = np.exp(M["i"](y) + u["i"]), sigmoid(M["f"](y) + u["f"])
        c, n = f * c + i * np.tanh(M["z"](y) + u["z"]), f * n + i
        return sigmoid(M["o"](y) + u["o"]) * c / n, c, n, m
    (m,) = state
    return (np.where(np.minimum(u["r"], m) > u["s"], np.minimum(u["r"], m), u["s"]),)


@pytest.mark.parametrize("mixing", ["dense", "diagonal"])
@pytest.mark.parametrize("name", OTHERS)
def test_the_others_against_their_equations(name, mixing):
    cell = gallery.weighted(name, mixing, units=6)
    x = np.random.default_rng(0).standard_normal((40, 3))
    sol = rs.solve(cell.recurrence(x))
    state = tuple(np.zeros(6) for _ in cell.cell.state)
    for t in range(40):
        state = written_out(name, cell, x[t], state)
        np.testing.assert_allclose(sol.output[t], state[0], atol=1e-13)


def test_every_cell_has_an_oracle():
    covered = set(MODULES) | set(OTHERS)
    assert covered == set(rs.cells.REGISTRY)


def test_diagonal_gru_is_pararnns_with_z_negated():
    torch_form = gallery.weighted("gru", "diagonal")
    zero = {"b_n": np.zeros(8)}
    Projection = rs.Projection

    def negate(name, value):
        return -value if name == "z" else value

    plain = torch_form.cell.with_weights(mixings=torch_form.mixings, parameters=zero, projection=torch_form.projection)
    W, P = torch_form.mixings, torch_form.projection
    theirs = rs.cells.ParaRNNGRU.with_weights(
        mixings={n: rs.mixings.Diagonal(negate(n, m.weight)) for n, m in W.items()},
        projection=Projection(
            {n: negate(n, w) for n, w in P.weights.items()}, {n: negate(n, b) for n, b in P.biases.items()}
        ),
    )
    x = np.random.default_rng(0).standard_normal((60, 3))
    a, b = (rs.solve(cell.recurrence(x)).states for cell in (plain, theirs))
    np.testing.assert_allclose(a, b, atol=1e-14)


def test_heads_are_independent_dense_cells():
    cell = gallery.weighted("gru", "heads", units=8)
    x = np.random.default_rng(0).standard_normal((30, 2, 3))
    whole = rs.solve(cell.recurrence(x))
    assert whole.states.shape == (30, 2, 4, 2)
    for head in range(4):
        one = cell.cell.with_weights(
            mixings={n: rs.mixings.Dense(m.weight[head]) for n, m in cell.mixings.items()},
            parameters={n: p[head] for n, p in cell.parameters.items()},
            projection=rs.Projection(
                {n: w[head] for n, w in cell.projection.weights.items()},
                {n: b[head] for n, b in cell.projection.biases.items()},
            ),
        )
        np.testing.assert_allclose(rs.solve(one.recurrence(x)).states, whole.states[:, :, head], atol=1e-14)


def test_given_drives_equal_the_projection_and_may_broadcast():
    cell = gallery.weighted("lstm", "dense")
    x = np.random.default_rng(0).standard_normal((20, 2, 3))
    by_input = rs.solve(cell.recurrence(x))
    by_drive = rs.solve(cell.recurrence(drive=cell.drive(x)))
    np.testing.assert_array_equal(by_input.states, by_drive.states)
    drive = {name: np.ones((20, 1, 1)) for name in cell.cell.drives} | {"f": np.ones((20, 5, 8))}
    assert rs.solve(cell.recurrence(drive=drive)).states.shape == (20, 5, 2, 8)


def test_initial_state_by_name_equals_the_array():
    cell = gallery.weighted("lstm", "dense")
    rng = np.random.default_rng(0)
    x, h, c = rng.standard_normal((20, 2, 3)), rng.standard_normal((2, 8)), rng.standard_normal((2, 8))
    named = rs.solve(cell.recurrence(x, initial={"c": c, "h": h}))
    array = rs.solve(cell.recurrence(x, initial=np.stack([h, c], axis=1)))
    np.testing.assert_array_equal(named.states, array.states)
    np.testing.assert_array_equal(named.output, named.states[:, :, 0])


def test_random_is_seeded_scaled_by_gain_and_typed():
    make = rs.cells.GRU.random
    a, b = (make(input_size=3, hidden_size=4, rng=7) for _ in range(2))
    np.testing.assert_array_equal(a.mixings["r"].weight, b.mixings["r"].weight)
    twice = make(input_size=3, hidden_size=4, rng=7, gain=2.0)
    np.testing.assert_allclose(twice.mixings["n"].weight, 2 * a.mixings["n"].weight)
    np.testing.assert_array_equal(twice.projection.matrix, a.projection.matrix)
    assert np.abs(a.mixings["r"].weight).max() <= 0.5
    assert make(input_size=3, hidden_size=4, dtype=np.float32).dtype == np.float32
    assert a.astype(np.float32).dtype == np.float32
    assert a.input_size == 3


def test_packed_sequences_equal_separate_ones():
    cell = gallery.weighted("gru", "dense")
    x = np.random.default_rng(0).standard_normal((30, 3))
    packed = rs.solve(cell.recurrence(x, reset=rs.packed_resets([12, 1, 17]))).states
    start = 0
    for size in (12, 1, 17):
        alone = rs.solve(cell.recurrence(x[start : start + size])).states
        np.testing.assert_allclose(packed[start : start + size], alone, atol=1e-14)
        start += size


def test_weights_are_copied_from_the_module():
    module = torch.nn.GRU(3, 4)
    cell = rs.cells.GRU.from_torch(module)
    before = cell.mixings["r"].weight.copy()
    with torch.no_grad():
        module.weight_hh_l0.zero_()
    np.testing.assert_array_equal(cell.mixings["r"].weight, before)
