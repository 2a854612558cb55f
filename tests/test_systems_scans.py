"""Published systems that exact scans solve: their outputs against other forms of the same, and their gradients."""

import numpy as np
import pytest
from oracles import attention_rnn, convs5, jrt, mlstm
from scipy.signal import cont2discrete, fftconvolve, lfilter

import recsolve as rs
from recsolve.recurrence.ragged_recurrence import RaggedRecurrence
from recsolve.studies import registry
from recsolve.studies.systems import gla, lssl
from recsolve.studies.systems import mlstm as systems_mlstm
from recsolve.studies.systems.system import get

SHORT = 60
EPS = np.finfo(float).eps
LINEAR = ("mlstm_sig", "quasi_lstm", "gla", "jrt", "lssl", "convs5")
WINDOWED = ("fsmn", "pgn")
DIFFERENTIATED = ("attention_rnn", "mlstm", *LINEAR, *WINDOWED)


def test_the_studies_of_these_systems_are_there():
    studies = {name: get(name).study for name in DIFFERENTIATED}
    assert {study for study in studies.values() if study} <= registry.CATALOGUE.keys()
    assert all(studies.values())


def drawn(name, **changes):
    made = get(name)
    return made.draw(type(made.config)(**{"length": SHORT, **changes}))


def shown(name, arrays, method="sequential"):
    sol = rs.solve(get(name).build(arrays), method=method)
    assert sol.success
    return sol.output


@pytest.mark.parametrize("method", ["sequential", "newton"])
@pytest.mark.parametrize("gain", [1.0, 1000.0])
def test_attention_is_the_causal_softmax_whatever_the_scores(gain, method):
    arrays = drawn("attention_rnn", gain=gain)
    expected = attention_rnn.causal_softmax(arrays)
    assert (abs(arrays["k"] @ arrays["q"]).max() > 3000) == (gain > 1)
    np.testing.assert_allclose(shown("attention_rnn", arrays, method), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_the_mlstm_is_its_quadratic_form_without_a_stabiliser(spread):
    arrays = drawn("mlstm", spread=spread, batch=1, heads=2)
    expected = mlstm.quadratic(arrays, exponential=True)
    np.testing.assert_allclose(shown("mlstm", arrays), expected, rtol=1e-9, atol=1e-11)


def test_the_mlstm_of_sigmoids_is_its_quadratic_form():
    arrays = drawn("mlstm_sig", batch=1, heads=2)
    expected = mlstm.quadratic(arrays, exponential=False)
    np.testing.assert_allclose(shown("mlstm_sig", arrays), expected, rtol=1e-9, atol=1e-11)


def test_the_stabiliser_of_the_mlstm_cancels_in_what_is_shown():
    rec = get("mlstm").build(drawn("mlstm"))
    sol = rs.solve(rec, method="sequential")
    from_zero = rec.cell.recurrence(drive=rec.drive, readout=systems_mlstm.normalised)
    other = rs.solve(from_zero, method="sequential")
    assert abs(other.named.m - sol.named.m).max() > 0.1
    np.testing.assert_allclose(other.output, sol.output, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [1, 16, 100])
def test_chunks_of_matrix_products_are_gated_linear_attention(size):
    arrays = drawn("gla")
    np.testing.assert_allclose(gla.chunked(arrays, size), shown("gla", arrays), rtol=1e-10, atol=1e-12)


def test_gated_linear_attention_without_decay_is_linear_attention():
    arrays = {**drawn("gla"), "alpha": np.ones_like(drawn("gla")["alpha"])}
    scores = np.einsum("tbhk,sbhk->bhts", arrays["q"], arrays["k"]) * np.tri(SHORT)
    expected = np.einsum("bhts,sbhv->tbhv", scores, arrays["v"])
    np.testing.assert_allclose(shown("gla", arrays), expected, rtol=1e-10, atol=1e-12)


def test_jrt_is_attention_with_the_weights_of_a_second_order_expansion():
    arrays = drawn("jrt")
    np.testing.assert_allclose(shown("jrt", arrays), jrt.quadratic(arrays), rtol=1e-11, atol=1e-12)


def test_jrt_with_the_same_keys_is_linear_attention_that_reads_twice():
    arrays = drawn("jrt", prompt=SHORT)
    same = {**arrays, "k_e": arrays["k"], "v_e": arrays["v"]}
    twice = {name: np.concatenate([arrays[name]] * 2) for name in "qkv"}
    once = {**twice, "k_e": arrays["k_e"][:0], "v_e": arrays["v_e"][:0]}
    np.testing.assert_allclose(shown("jrt", same), shown("jrt", once)[SHORT:], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_lssl_is_scipys_discrete_system_and_a_convolution(alpha):
    arrays = drawn("lssl", alpha=alpha, longest=1e-2)
    A, B = lssl.legs(32)
    for feature, delta in enumerate(np.geomspace(1e-3, 1e-2, len(arrays["D"]))):
        C, D, u = arrays["C"][feature], arrays["D"][feature], arrays["u"][..., feature]
        Ad, Bd, *_ = cont2discrete((A, B[:, None], C[None], np.zeros((1, 1))), delta, method="gbt", alpha=alpha)
        np.testing.assert_allclose(arrays["A"][feature], Ad, rtol=1e-9, atol=1e-12)
        kernel = [(C @ np.linalg.matrix_power(Ad, i) @ Bd).item() for i in range(SHORT)]
        expected = fftconvolve(u, np.array(kernel)[:, None], axes=0)[:SHORT] + D * u
        np.testing.assert_allclose(shown("lssl", arrays)[..., feature], expected, rtol=1e-8, atol=1e-10)


def test_legs_cannot_be_diagonalised():
    condition = {N: np.linalg.cond(np.linalg.eig(lssl.legs(N)[0])[1]) for N in (4, 32)}
    assert condition[4] < 1e4
    assert condition[32] > 1e16


def test_convs5_is_scipys_filters_and_correlations():
    arrays = drawn("convs5")
    np.testing.assert_allclose(shown("convs5", arrays), convs5.filtered(arrays), rtol=1e-10, atol=1e-12)


def test_heads_of_one_matrix_are_sequences_of_a_batch():
    arrays = drawn("mh_lstm")
    rec = get("mh_lstm").build(arrays)
    mixings = {gate: rs.mixings.SharedHead(m.weight, heads=4) for gate, m in rec.cell.mixings.items()}
    shared = rs.cells.LSTM.with_weights(mixings=mixings).recurrence(drive=dict(rec.drive))
    states = rs.solve(shared, method="newton").states
    np.testing.assert_allclose(states.swapaxes(2, 3), rs.solve(rec, method="newton").states, rtol=1e-11, atol=1e-12)


def test_a_quasi_lstm_with_a_constant_gate_is_a_filter():
    arrays = drawn("quasi_lstm")
    arrays["W"][0] = 0
    f, iz, o = get("quasi_lstm").build(arrays).inputs
    for unit in range(f.shape[-1]):
        c = lfilter([1], [1, -f[0, 0, unit]], iz[..., unit], axis=0)
        np.testing.assert_allclose(shown("quasi_lstm", arrays)[..., unit], o[..., unit] * np.tanh(c), rtol=1e-12)


def test_fsmn_adds_a_convolution_to_its_input():
    arrays = drawn("fsmn")
    p = np.maximum(arrays["u"] @ arrays["W_l"].T + arrays["b"], 0) @ arrays["W_p"].T
    reach = len(arrays["a"]) // 2
    taps = arrays["a"] + (np.arange(len(arrays["a"])) == reach)[:, None]
    filtered = [np.convolve(p[:, 0, n], taps[::-1, n])[reach:-reach] for n in range(p.shape[-1])]
    np.testing.assert_allclose(shown("fsmn", arrays)[:, 0], arrays["u"][:, 0] + np.stack(filtered, axis=-1), atol=1e-12)


@pytest.mark.parametrize("method", ["newton", "picard", "quasi_newton"])
def test_a_running_sum_is_solved_by_the_identity(method):
    sol = rs.solve(get("jrt").build(drawn("jrt")), method=method)
    assert sol.trusted
    assert sol.nit <= 2


def test_the_second_iteration_on_a_long_sum_mends_rounding_alone():
    """A scan adds up in another order than the loop, by more than the test allows where sums are long."""
    rec = get("jrt").build()
    truth = rs.solve(rec, method="sequential").states
    once = rs.solve(rec, method="newton", maxiter=1)
    assert abs(once.states - truth).max() < 8 * np.finfo(float).eps * abs(truth).max()
    assert once.residuals[-1] < np.finfo(float).eps * abs(truth).max() < 1e-10 * once.residuals[0]


@pytest.mark.parametrize("name", LINEAR)
def test_newton_takes_one_iteration_on_what_is_affine(name):
    # Corrections may be larger than the states that they lead to: then another iteration takes their rounding away.
    sol = rs.solve(get(name).build(drawn(name)), method="newton")
    assert sol.trusted
    assert sol.nit <= 2
    assert sol.residuals[1] <= 8 * EPS * (1 + abs(sol.states).max())


@pytest.mark.parametrize("method", ["newton", "jacobi", "picard", "quasi_newton", "sequential"])
@pytest.mark.parametrize("name", WINDOWED)
def test_what_has_no_recurrence_is_solved_by_one_evaluation(name, method):
    sol = rs.solve(get(name).build(drawn(name)), method=method)
    assert (sol.nit, sol.residuals[-1]) == (0, 0)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradients_of_what_is_shown_are_those_of_differences(name):
    rec = get(name).build(drawn(name, length=12))
    rng = np.random.default_rng(0)
    sol = rs.solve(rec, method="newton")
    weights = rng.standard_normal(sol.output.shape)
    g = rs.adjoint(sol, output=weights)
    inputs = rec.contain(list(rec.inputs))
    pulled = g.drive if isinstance(rec, RaggedRecurrence) else g.inputs
    found = {**(pulled if isinstance(inputs, dict) else {"u": pulled}), **dict(g.parameters or {})}
    given = {**(inputs if isinstance(inputs, dict) else {"u": inputs}), **dict(rec.parameters)}
    assert found.keys() == given.keys()
    for key, array in given.items():
        direction = rng.standard_normal(array.shape)

        def value(step, key=key, array=array, direction=direction):
            changed = {**given, key: array + step * direction}
            into = {k: changed[k] for k in inputs} if isinstance(inputs, dict) else changed["u"]
            other = rs.Recurrence.from_function(
                rec.f,
                inputs=into,
                initial=rec.initial if rec.state is None else rec.named(rec.initial),
                state=None if rec.state is None else rec.state.axes,
                parameters={k: changed[k] for k in rec.parameters} if rec.takes_parameters else None,
                structure=rec.declaration,
                readout=rec.readout,
            )
            return float((weights * rs.solve(other, method="sequential").output).sum())

        slope = (value(1e-6) - value(-1e-6)) / 2e-6
        assert float((found[key] * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-6), key


@pytest.mark.parametrize("name", [*DIFFERENTIATED, "mh_lstm", "convlstm"])
def test_what_is_shown_of_float32_is_float32(name):
    single, double = (drawn(name, length=20, dtype=dtype) for dtype in ("float32", "float64"))
    assert {array.dtype.name for array in single.values()} == {"float32"}
    y = shown(name, single)
    assert y.dtype == "float32"
    np.testing.assert_allclose(
        y, shown(name, {key: x.astype(float) for key, x in single.items()}), rtol=1e-3, atol=1e-4
    )
    assert shown(name, double).dtype == "float64"
