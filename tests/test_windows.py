"""solve(every=L): windows of time one after the other are the whole, in less memory; and so are their gradients."""

import tracemalloc

import gallery
import numpy as np
import pytest
from test_readout import problem

import recsolve as rs
from recsolve.analysis.trust import EstimateInOrder, estimate

OVER_TIME, ADDED = ("states", "drive", "inputs"), ("parameters", "mixings", "projection")
EVERY = (1, 7, 20, 50)  # of 20 steps: each alone, some left over, all, more than there are


def leaves(tree):
    """The arrays of a gradient, whatever holds them."""
    if isinstance(tree, dict) or hasattr(tree, "items"):
        return [leaf for part in tree.values() for leaf in leaves(part)]
    return [np.asarray(tree)]


def gradients(found, wanted, atol):
    """Assert that all gradients that one has are those of the other, and that what one refuses the other does."""
    for name in ("initial", *OVER_TIME, *ADDED):
        try:
            expected = leaves(getattr(wanted, name))
        except (AttributeError, TypeError) as error:
            with pytest.raises(type(error)):
                getattr(found, name)
            continue
        for x, y in zip(leaves(getattr(found, name)), expected, strict=True):
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            np.testing.assert_allclose(x, y, atol=atol * max(1.0, np.abs(y).max(initial=0.0)), err_msg=name)


def compare(rec, every, *, method="newton", atol=1e-11, put=lambda x: x, parts=("states", "output", "final")):
    """Assert that the solve in windows is the solve of the whole; return both."""
    whole, kept = (rs.solve(rec, method=method, fallback="sequential", every=L) for L in (None, every))
    assert kept.success, kept.message
    T, rng = rec.length, np.random.default_rng(0)
    np.testing.assert_allclose(kept.output, whole.output, atol=atol)
    rows = np.minimum(np.arange(0, T, every) + every, T) - 1
    np.testing.assert_allclose(kept.ends, np.asarray(whole.states)[rows], atol=atol)
    np.testing.assert_allclose(kept.final, whole.final, atol=atol)
    shapes = {n: np.shape(getattr(whole, n)) for n in parts}
    cotangents = {n: put(rng.standard_normal(s).astype(rec.dtype)) for n, s in shapes.items()}
    gradients(*(rs.adjoint(sol, **cotangents) for sol in (kept, whole)), atol)
    return kept, whole


@pytest.mark.parametrize("cell", gallery.CELLS, ids="-".join)
def test_cells_in_windows_are_the_whole(cell):
    every = EVERY[gallery.CELLS.index(cell) % len(EVERY)]
    rng = np.random.default_rng(0)
    model = gallery.weighted(*cell, units=4, gain=1.5)
    initial, reset = rng.standard_normal((2, *model.layout.event)), rng.random((20, 2)) < 0.2
    with rs.backend("numpy"):
        for L in {7, every}:
            compare(model.recurrence(rng.standard_normal((20, 2, 3)), initial=initial, reset=reset), L)


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_named_states_and_readouts_in_windows_are_the_whole(every, batch):
    kept, whole = compare(problem(batch=batch), every, parts=("output", "final"))
    np.testing.assert_allclose(kept.named_final.S, whole.named_final.S, atol=1e-14)
    np.testing.assert_array_equal(kept.named_ends.m[-1], kept.named_final.m)
    by_name = {"S": np.ones_like(whole.named.S)}
    last = {"m": np.ones(batch)}
    gradients(*(rs.adjoint(sol, states=by_name, final=last) for sol in (kept, whole)), 1e-11)
    compare(gallery.memory(), 7 * every)


def test_drives_readouts_and_compiled_loops_in_windows_are_the_whole():
    rng = np.random.default_rng(1)
    cell = gallery.weighted("gru", "diagonal", units=4)
    x = rng.standard_normal((20, 2, 3))
    resets = {"none": None, "late": np.arange(20) == 17, "one": rng.random((20, 2)) < 0.2}
    for reset in resets.values():
        compare(cell.recurrence(x, reset=reset, initial=rng.standard_normal((2, 4))), 6)
    readout = lambda s, u, p: np.tanh(s.h).sum(axis=-1) * u.r[..., 0]  # noqa: E731
    compare(cell.recurrence(drive=cell.drive(x), readout=readout), 6)


def test_resets_of_a_window_go_back_to_where_those_of_the_whole_do():
    rec = problem().window(2, 18, initial={"S": np.ones((2, 3, 2)), "m": np.ones(2)})
    assert rec.restart is not rec.initial
    compare(rec, 4, parts=("output",))


@pytest.mark.parametrize("method", sorted(rs.solvers.REGISTRY))
def test_every_solver_solves_windows_and_solves_them_again_alike(method):
    rec = gallery.recurrence("elman", "diagonal", T=40)
    with rs.backend("numpy"):
        sol = rs.solve(rec, method=method, fallback="sequential", every=16)
        assert sol.success
        assert sol.solver.name == method
        np.testing.assert_allclose(sol.output, gallery.loop(rec), atol=1e-12)
        for index, end in enumerate(sol.ends):
            again = sol.again(index)
            np.testing.assert_array_equal(again.final, end)
            np.testing.assert_array_equal(again.output, sol.output[16 * index : 16 * (index + 1)])


@pytest.mark.parametrize("T", [0, 1])
@pytest.mark.parametrize("dtype", gallery.DTYPES)
def test_short_ones(T, dtype):
    for rec in problem(T=T, dtype=dtype), gallery.recurrence("lstm", "dense", T=T, dtype=dtype):
        kept, _ = compare(rec, 4, parts=("output",), atol=1e-6)
        assert len(kept.ends) == T
        assert kept.trusted
        assert kept.converged_prefix == T


def test_no_sequences():
    kept, _ = compare(gallery.recurrence("gru", "dense", T=10, batch=(0,)), 4)
    assert kept.output.shape == (10, 0, 8)


def test_output_lies_in_memory_as_that_of_the_whole():
    x = np.random.default_rng(0).standard_normal((2, 30, 3)).swapaxes(0, 1)
    rec = gallery.weighted("gru", "dense").recurrence(x)
    kept, whole = (rs.solve(rec, every=L) for L in (7, None))
    assert kept.output.strides == whole.output.strides


def test_tensors_stay_tensors():
    torch = pytest.importorskip("torch")
    kept, _ = compare(problem(kind=torch.as_tensor), 6, put=torch.as_tensor, parts=("output", "final"))
    g = rs.adjoint(kept, output=torch.ones_like(kept.output))
    assert all(isinstance(x, torch.Tensor) for x in (kept.ends, kept.final, g.inputs["k"], g.initial.m, g.parameters.b))


def test_tokens_are_kept_too():
    E = np.random.default_rng(0).standard_normal((5, 3))
    rec = rs.Recurrence.from_function(
        lambda h, u, p: (2 * h + u) % 5, inputs=np.arange(20)[:, None], initial=np.zeros(1, int), structure="none",
        parameters={"E": E}, readout=lambda h, u, p: p.E[h[..., 0]],
    )  # fmt: skip
    kept, whole = (rs.solve(rec, method="jacobi", every=L) for L in (6, None))
    np.testing.assert_array_equal(kept.output, whole.output)
    assert kept.ends.dtype == whole.states.dtype
    assert (kept.trusted, kept.error_estimate, kept.message) == (True, 0.0, kept.message)


def gated(T, d=16, batch=()):
    """Gated linear attention with states of d x d."""
    rng = np.random.default_rng(0)
    inputs = {"a": rng.random((T, *batch, d)), **{n: rng.standard_normal((T, *batch, d)) for n in "kvq"}}

    def f(s, u):
        return {"S": u["a"][..., :, None] * s.S + u["k"][..., :, None] * u["v"][..., None, :]}

    return rs.Recurrence.from_function(
        f, inputs=inputs, state={"S": ("k", "v")}, initial={"S": np.zeros((*batch, d, d))}, structure="diagonal",
        readout=lambda s, u: np.einsum("...kv,...k->...v", s.S, u["q"]),
    )  # fmt: skip


def peak(call):
    tracemalloc.start()
    try:
        kept = call()
        return tracemalloc.get_traced_memory()[1], kept
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", ["sequential", "newton"])
def test_memory_is_that_of_a_window(method):
    rec = gated(2048)
    states = 8 * int(np.prod(rec.shape))
    with rs.backend("numpy"):
        rs.solve(gated(64), method=method, every=16)  # what is imported on first use is none of it
        most, sol = peak(lambda: rs.solve(rec, method=method, every=16))
        assert most < 0.4 * states < peak(lambda: rs.solve(rec, method=method))[0] / 5
        most, _ = peak(lambda: rs.adjoint(sol, output=sol.output).inputs)
    assert most < 0.9 * states  # of the whole 18 times as much; the gradients of inputs alone are a quarter


def failing(**given):
    return rs.solve(gallery.recurrence("gru", "dense", T=60, gain=2.0), method="jacobi", maxiter=3, every=16, **given)


def test_a_window_that_does_not_converge_says_so():
    sol = failing()
    assert (sol.success, sol.status) == (False, "maxiter")
    assert sol.message.startswith("window 0 of 4, steps 0 to 15 (counted from 0): maxiter: ")
    assert "the windows after it follow from its last state" in sol.message
    assert sol.converged_prefix == sol.windows[0].converged_prefix < 16
    assert sol.nit == sum(w.nit for w in sol.windows) == 12
    assert sol.residuals.shape == (4,)
    assert not sol.trusted
    with pytest.raises(ValueError, match="solution is maxiter"):
        rs.adjoint(sol, output=sol.output)
    g = rs.adjoint(sol, output=sol.output, unconverged=True)
    assert np.isfinite(g.inputs).all()


def test_the_loop_completes_the_windows_that_need_it():
    sol = failing(fallback="sequential")
    assert sol.success
    assert "window meets its test (4 in all); 4 of them were completed by the sequential loop" in sol.message
    assert sol.stats["completed_from"] == sol.windows[0].stats["completed_from"]
    assert sol.stats["rows"] == sum(w.stats["rows"] for w in sol.windows)
    np.testing.assert_allclose(sol.output, gallery.loop(sol.recurrence), atol=1e-12)
    with pytest.raises(rs.ConvergenceError) as caught:
        failing(fallback="raise")
    assert caught.value.__notes__ == ["in window 0 of 4, steps 0 to 15"]
    assert len(caught.value.solution.states) == 16


def test_what_is_not_finite_ends_in_its_sequence():
    rec = gallery.recurrence("gru", "dense", T=60)
    rec.drive.r[30, 0] = np.nan
    kept, whole = (rs.solve(rec, every=L) for L in (16, None))
    assert (kept.status, kept.converged_prefix) == (whole.status, whole.converged_prefix) == ("nonfinite", 30)
    assert kept.message.startswith("window 1 of 4, steps 16 to 31 (counted from 0): nonfinite: the drive is inf")
    np.testing.assert_allclose(kept.output, whole.output, atol=1e-12)  # NaN where it is NaN
    assert np.isfinite(kept.output[:, 1]).all()


@pytest.mark.parametrize("rule", [1e9, np.full(60, 1e9), lambda problem, iterate: np.ones(iterate.leading.shape, bool)])
def test_rows_of_windows_are_accepted(rule):
    rec = gallery.recurrence("gru", "dense", T=60)
    sol = rs.solve(rec, method="jacobi", every=16, options={"accept": rule})
    assert (sol.status, sol.success, sol.nit) == ("accepted", False, 0)


def test_the_first_failure_counts_before_what_was_accepted():
    limits = np.zeros(60)
    limits[:16] = 1e9
    rec = gallery.recurrence("gru", "dense", T=60)
    sol = rs.solve(rec, method="jacobi", maxiter=2, every=16, options={"accept": limits})
    assert [w.status.value for w in sol.windows] == ["accepted", "maxiter", "maxiter", "maxiter"]
    assert sol.status == "maxiter"
    assert sol.message.startswith("window 1 of 4")


def test_all_windows_are_tested_as_the_whole_is():
    u = np.zeros((90, 2))
    rec = rs.Recurrence.from_function(lambda h, u: 0.3 * h + u, inputs=u, initial=np.ones(2), structure="diagonal")
    kept, whole = (rs.solve(rec, method="jacobi", every=L) for L in (30, None))
    assert {w.tolerance for w in kept.windows} == {whole.tolerance}


def test_guesses_are_cut():
    rec = problem()
    sol = rs.solve(rec)
    named = {name: np.array(x) for name, x in sol.named.items()}
    for guess in sol, sol.states, named, lambda window: sol.states[:4] if window.length == 4 else sol.states:
        assert rs.solve(rec, guess=guess, every=rec.length).nit == 0
    for guess in sol, sol.states, named:
        assert rs.solve(rec, guess=guess, every=6).nit == 0
    assert rs.solve(rec, guess=0.0, every=6).success
    assert rs.solve(rec, guess="coarse", every=6).success
    with pytest.raises(ValueError, match=r"guess has shape \(6, 2, 7\); wanted \(20, 2, 7\)"):
        rs.solve(rec, guess=sol.states[:6], every=6)
    with pytest.raises(ValueError, match=r"guess\['m'\] has shape \(6, 2\); wanted \(20, 2\)"):
        rs.solve(rec, guess={"m": named["m"][:6]}, every=6)


@pytest.mark.parametrize("dtype", gallery.DTYPES)
@pytest.mark.parametrize("make", ["cell", "function", "expanding"])
def test_errors_are_carried_from_window_to_window(make, dtype):
    """Off by 0.01, so that first and second corrections are seen, and they are those of the whole."""
    rng = np.random.default_rng(0)
    reset = rng.random((60, 2)) < 0.05
    rec = {
        "cell": lambda: gallery.recurrence("lstm", "dense", dtype=dtype, gain=2.0, reset=reset),
        "function": lambda: problem(T=60, dtype=dtype),
        "expanding": lambda: gallery.sine(1.6, T=60, dtype=dtype),
    }[make]()
    states = (gallery.loop(rec) + 0.01 * rng.standard_normal(rec.shape)).astype(dtype)
    wanted, running = estimate(rec, states), EstimateInOrder(rec)
    for start in range(0, 60, 7):
        stop = min(start + 7, 60)
        running.add(rec.between(start, stop, states), states[start:stop])
    found = running.estimate
    assert found.error == pytest.approx(wanted.error, rel=1e-4)
    assert found.relative == pytest.approx(wanted.relative, rel=1e-4)
    assert found.linear == wanted.linear


@pytest.mark.parametrize("rec", [problem(), gallery.recurrence("gru", "dense"), gallery.sine(0.9, T=90)])
def test_trust_is_that_of_the_whole(rec):
    kept, whole = (rs.solve(rec, every=L) for L in (25, None))
    assert kept.trusted
    assert whole.trusted
    assert whole.error_estimate / 5 < kept.error_estimate < 5 * whole.error_estimate


def test_conditioning_is_carried_from_window_to_window():
    rec = gallery.sine(2.5, T=90, dtype=np.float64)
    kept, whole = (rs.solve(rec, method="sequential", every=L) for L in (7, None))
    assert kept.condition == pytest.approx(whole.condition, rel=1e-6)
    assert kept.condition > 1e6
    assert np.isnan(rs.solve(gallery.recurrence("gru", "dense"), every=25).condition)


def test_chaos_is_not_trusted_although_each_window_is():
    rec = gallery.sine(3.0, T=90)
    kept, whole = (rs.solve(rec, method="sequential", every=L) for L in (5, None))
    assert kept.success
    assert all(kept.again(i).trusted for i in range(len(kept.windows)))
    assert not kept.trusted
    assert not whole.trusted
    assert "but it is not trusted: states may be off by" in kept.message


def test_a_false_structure_is_neither_trusted_nor_differentiated():
    u = np.random.default_rng(0).random((30, 3))
    rec = gallery.function(lambda h, u: 0.9 * np.sin(h + h[..., ::-1]) + u, u, structure="diagonal")
    sol = rs.solve(rec, method="jacobi", every=8)
    assert sol.success
    assert not sol.trusted
    assert np.isnan(sol.error_estimate)
    assert "not trusted: the declared structure or jacobian is not the derivative" in sol.message
    with pytest.raises(ValueError, match="at the solution"):
        rs.adjoint(sol, output=sol.output)


def test_what_a_gradient_is_refused_for_is_said_when_it_is_read():
    class Own(rs.mixings.Dense):
        def matvec(self, x):
            return x @ self.weight.T

    cell = rs.cells.Elman.with_weights(mixings={"h": Own(0.3 * np.eye(3))})
    sol = rs.solve(cell.recurrence(drive={"h": np.ones((20, 3))}), every=6)
    g = rs.adjoint(sol, final=np.ones(3))
    assert g.drive.h.shape == (20, 3)
    with pytest.raises(TypeError, match="weight_cotangent"):
        g.mixings  # noqa: B018
    with pytest.raises(AttributeError, match="given drives, not an input"):
        g.inputs  # noqa: B018


def graph():
    return rs.Recurrence.from_graph(
        lambda h, u: 0.5 * h[0] + u, rs.graphs.grid((3, 3)), inputs=np.ones((3, 3, 2)), initial=np.zeros(2)
    )


def history():
    return rs.Recurrence.from_history(lambda y, u: u + 0.1 * (np.cumsum(y, axis=0) - y), inputs=np.ones((9, 2)))


@pytest.mark.parametrize(
    ("make", "given", "error", "words"),
    [
        (problem, {"every": 0}, ValueError, "every is 0; wanted an integer >= 1"),
        (problem, {"every": 2.5}, ValueError, "every is 2.5"),
        (graph, {"every": 2}, TypeError, "nodes of a graph see others before them"),
        (history, {"every": 2}, TypeError, "rows of a history see all before them"),
        (problem, {"every": 2, "callback": print}, ValueError, "callback and every are both given"),
        (problem, {"every": 2, "options": {"trace": True}}, ValueError, "trace and every are both given"),
        (problem, {"every": 2, "options": {"patient": 1}}, ValueError, "patient"),
        (problem, {"every": 2, "fallback": "loop"}, ValueError, "fallback is 'loop'"),
        (lambda: 3, {"every": 2}, TypeError, "recurrence is int"),
    ],
)
def test_bad_arguments(make, given, error, words):
    with pytest.raises(error, match=words):
        rs.solve(make(), **given)


def test_bad_cotangents():
    sol = rs.solve(problem(), every=6)
    for given, error, words in [
        ({}, ValueError, "no cotangent is given"),
        ({"output": np.ones((6, 2, 2))}, ValueError, r"output has shape \(6, 2, 2\); wanted \(20, 2, 2\)"),
        ({"output": np.ones((20, 2, 2), "f4")}, TypeError, "output has dtype float32"),
        ({"states": {"m": np.ones((6, 2))}}, ValueError, r"states\['m'\] has shape \(6, 2\); wanted \(20, 2\)"),
        ({"states": {"m": np.ones((20, 3))}}, ValueError, r"states\['m'\] has shape \(20, 3\); wanted \(20, 2\)"),
        ({"final": {"x": np.ones(2)}}, ValueError, "final has 'x'"),
    ]:
        with pytest.raises(error, match=words):
            rs.adjoint(sol, **given)
    rec = gallery.recurrence("lstm", "dense")
    for whole in rs.solve(rec), rs.solve(rec, every=6):  # of which the output is no state
        with pytest.raises(TypeError, match=r"output is dict[;,].* wanted an array of"):
            rs.adjoint(whole, output={"h": np.ones(whole.output.shape)})
    with pytest.raises(TypeError, match=r"solution is WindowsSolution; wanted a Solution.*solve without it"):
        rs.tangent(sol, initial={"m": np.ones(2)})
    for index in 4, -1, 1.0:
        with pytest.raises(ValueError, match=f"index is {index}; wanted an integer 0 <= index < 4"):
            sol.again(index)
    for other in sol, object():
        with pytest.raises(TypeError, match=f"guess is {type(other).__name__}, .* wanted an array of float32"):
            rs.solve(problem(), guess=other, every=6)


@pytest.mark.gpu
def test_windows_on_a_gpu_are_those_of_the_host():
    import cupy

    here = rs.solve(gallery.memory(), every=24)
    there = rs.solve(gallery.memory(cupy.asarray), every=24)
    assert there.success
    wanted, g = (rs.adjoint(sol, output=sol.output) for sol in (here, there))
    pairs = [(there.output, here.output), (there.ends, here.ends), (g.initial.C, wanted.initial.C)]
    for found, known in [*pairs, (g.inputs, wanted.inputs), (g.parameters.W, wanted.parameters.W)]:
        np.testing.assert_allclose(found.get(), known, atol=1e-10)
    host = gallery.recurrence("gru", "diagonal", T=300, reset=np.arange(300) % 90 == 40)
    rec = host.cell.to("cupy").recurrence(cupy.asarray(host.x), reset=cupy.asarray(host.reset))
    wanted, g = (rs.adjoint(s, output=s.output) for s in (rs.solve(host), rs.solve(rec, every=64)))
    for name in ("inputs", "initial"):
        np.testing.assert_allclose(getattr(g, name).get(), getattr(wanted, name), atol=1e-10)
