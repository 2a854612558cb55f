"""Pictures of what has been solved: what they show, whom they leave alone, and what they refuse."""

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

import recsolve as rs
from recsolve.analysis.distance import distance
from recsolve.plot.axes import scale_iterations
from recsolve.plot.curves import Curve, convergence
from recsolve.plot.drawn import PLOTS
from recsolve.plot.style import look_of

T = 40


@pytest.fixture(autouse=True)
def close():
    yield
    pyplot.close("all")


def recurrence(cell="GRU", length=T, batch=(), seed=0, **settings):
    x = np.random.default_rng(seed).standard_normal((length, *batch, 3))
    return getattr(rs.cells, cell).random(input_size=3, hidden_size=5, rng=0, **settings).recurrence(x)


def chaotic(length=T):
    u = 0.1 * np.ones((length, 1))
    return rs.Recurrence.from_function(lambda h, u: 4 * np.sin(h) + u, inputs=u, initial=np.ones(1))


def named():
    """A memory and a scalar, named by the user as our own dimensions are."""

    def step(s, u):
        return {"time": 0.5 * s.time + u, "C": 0.5 * s.C + s.time[..., None, None]}

    return rs.Recurrence.from_function(
        step, inputs=np.ones((T,)), initial={"time": np.zeros(()), "C": np.zeros((2, 3))},
        state={"time": (), "C": ("unit", "batch")},
    )  # fmt: skip


def discrete():
    u = np.arange(T, dtype=np.int64)[:, None] % 3
    return rs.Recurrence.from_function(lambda h, u: h ^ u, inputs=u, initial=np.zeros(1, np.int64), structure="none")


def traced(rec, method="newton", **settings):
    return rs.solve(rec, method=method, options={"trace": "states"}, **settings)


@pytest.fixture(scope="module")
def solved():
    return traced(recurrence(batch=(2,)))


@pytest.fixture(scope="module")
def diagnosis():
    return rs.diagnose(recurrence(), methods=["newton", "jacobi", "quasi_newton"])


def curves_of(ax):
    return [line for line in ax.get_lines() if len(line.get_xdata()) and line.get_transform() == ax.transData]


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def drawn(solution, diagnosis, ax=None):
    """Yield each plot by name."""
    for name, (draw, _) in PLOTS.items():
        yield name, draw(diagnosis if name == "prediction" else solution, ax)


# What all plots have in common -----------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["default", "ggplot"])
def test_settings_of_matplotlib_stay_as_the_user_has_them(style, solved, diagnosis):
    with matplotlib.style.context(style):
        before = dict(matplotlib.rcParams)
        for name, ax in drawn(solved, diagnosis):
            assert dict(matplotlib.rcParams) == before, name
            assert ax.figure.get_layout_engine() is not None, name  # the house style held while it was drawn
        mine = pyplot.subplots()[1]
        assert mine.spines["top"].get_visible() == before["axes.spines.top"]


def test_what_a_backend_sets_when_it_is_loaded_stays(tmp_path):
    """As in notebooks, whose backend turns interactive mode on with the first figure."""
    (tmp_path / "mine.py").write_text(
        "import matplotlib\nfrom matplotlib.backends.backend_agg import *\nmatplotlib.interactive(True)\n"
    )
    code = "import numpy as np, recsolve as rs, matplotlib\n"
    code += "rec = rs.Recurrence.from_function(lambda h, u: h / 2 + u, inputs=np.ones((9, 1)), initial=np.zeros(1))\n"
    code += "rs.solve(rec).plot(); print(matplotlib.is_interactive())"
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "MPLBACKEND": "module://mine", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_axes_are_taken_and_returned(solved, diagnosis):
    mine = pyplot.subplots()[1]
    count = len(pyplot.get_fignums())
    for name, ax in drawn(solved, diagnosis, mine):
        assert ax is mine, name
    assert len(pyplot.get_fignums()) == count
    for name, ax in drawn(solved, diagnosis):
        assert ax.figure is not mine.figure, name
        assert ax.get_xlabel(), name
        assert ax.get_ylabel() or name == "prediction", name
        ax.figure.canvas.draw()


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize(
    ("ax", "error", "said"),
    [
        (lambda: pyplot.figure(), TypeError, "ax is Figure; wanted one Axes of matplotlib"),
        (lambda: pyplot.subplots(2)[1], TypeError, "ax is ndarray; wanted one Axes"),
        (
            lambda: pyplot.subplots(subplot_kw={"projection": "polar"})[1],
            ValueError,
            "ax is a polar Axes; wanted",
        ),
    ],
)
def test_axes_of_a_wrong_kind_are_named(name, ax, error, said, solved, diagnosis):
    draw, _ = PLOTS[name]
    with pytest.raises(error, match=said):
        draw(diagnosis if name == "prediction" else solved, ax())


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("wrong", [3, np.ones(3), rs.Solution, None], ids=str)
def test_what_cannot_be_drawn_is_named_and_makes_no_figure(name, wrong):
    draw, _ = PLOTS[name]
    seen = wrong.__name__ if isinstance(wrong, type) else type(wrong).__name__
    with pytest.raises(TypeError, match=rf"^(sol|diagnosis) is {seen}; wanted a "):
        draw(wrong)
    assert not pyplot.get_fignums()


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (lambda s: rs.plot.convergence([s, 3]), TypeError, r"sol\[1\] is int; wanted a Solution"),
        (lambda s: rs.plot.convergence({"a": s, "b": s.trace}), TypeError, r"sol\['b'\] is Trace; wanted a Solution"),
        (lambda s: rs.plot.convergence([]), ValueError, "sol is an empty list"),
        (lambda s: rs.plot.convergence({}), ValueError, "sol is an empty dict"),
        (lambda s: rs.plot.convergence(s, reference=np.ones(3)), ValueError, r"reference has shape \(3,\); wanted \("),
        (lambda s: rs.plot.convergence(s, reference="loop"), TypeError, "reference"),
        (lambda s: rs.plot.residual_map(rs.solve(s.recurrence)), ValueError, r"no trace.*options=\{'trace': True\}"),
        (lambda s: rs.plot.residual_map(s, sequence=2), ValueError, "sequence is 2; wanted an index into 2"),
        (lambda s: rs.plot.residual_map(s, sequence=(0, 0)), ValueError, r"sequence is \(0, 0\); wanted an index"),
        (lambda s: rs.plot.trajectory(s, sequence=-1), ValueError, "sequence is -1; wanted an index into 2"),
        (lambda s: rs.plot.trajectory(s, units=[5]), ValueError, "units is 5; wanted an index into 5, counted from 0"),
        (lambda s: rs.plot.trajectory(s, units=2), TypeError, "units is int; wanted a sequence of indices"),
        (lambda s: rs.plot.trajectory(s, units=[1.5]), ValueError, "units is 1.5"),
        (lambda s: rs.plot.trajectory(s, component="c"), ValueError, r"component is 'c'; wanted one of \('h',\)"),
        (lambda s: rs.plot.spectrum(s, exponents=0), ValueError, "exponents 0 .* 1 exponent or more"),
        (lambda s: rs.plot.spectrum(s, pilot=1.5), ValueError, "pilot is 1.5"),
        (lambda s: s.plot("prediction"), ValueError, "kind is 'prediction'; wanted one of convergence, resid"),
        (lambda s: rs.plot.prediction(s), TypeError, "diagnosis is Solution; wanted a Diagnosis"),
    ],
)  # fmt: skip
def test_bad_input_is_named(wrong, error, said, solved):
    with pytest.raises(error, match=said):
        wrong(solved)


def test_what_has_no_exponents_says_why(diagnosis):
    with pytest.raises(ValueError, match="exponents is 3; wanted None for a Diagnosis, which has its own"):
        rs.plot.spectrum(diagnosis, exponents=3)
    with pytest.raises(ValueError, match="discrete states have no derivative"):
        rs.plot.spectrum(rs.solve(discrete(), method="jacobi"))
    with pytest.raises(ValueError, match="a graph has no single direction of time"):
        rs.plot.spectrum(rs.solve(grid()))


def test_each_result_draws_itself(solved, diagnosis):
    assert solved.plot().get_xlabel() == "iteration"
    assert diagnosis.plot().get_xlabel() == f"predicted iterations for T = {T}"
    assert diagnosis.plot("spectrum").get_ylabel() == "Lyapunov exponent (1 / step)"
    assert rs.solve(recurrence(), every=16).plot().get_xlabel() == "step t"
    mine = pyplot.subplots()[1]
    assert solved.plot("trajectory", mine, units=[1]) is mine
    with pytest.raises(ValueError, match="kind is 'convergence'; wanted one of trajectory for a WindowsSolution"):
        rs.solve(recurrence(), every=16).plot("convergence")


def test_looks_of_many_series_differ():
    looks = [look_of(i) for i in range(16)]
    assert len({(look["color"], look["marker"], str(look["linestyle"])) for look in looks}) == 16
    assert len({look["marker"] for look in looks[:8]}) == 8  # in grey too


# Convergence -----------------------------------------------------------------------------------------------------


def test_the_residual_of_every_iterate_is_drawn(solved):
    (line,) = curves_of(rs.plot.convergence(solved))
    floor = 0.2 * np.finfo(float).eps
    assert line.get_xdata().tolist() == [*range(solved.nit + 1)]
    assert np.array_equal(line.get_ydata(), np.maximum(solved.residuals, floor))


def test_the_legend_says_how_each_solve_ended():
    rec = recurrence()
    cut = rs.solve(rec, method="jacobi", maxiter=1)
    ax = rs.plot.convergence([rs.solve(rec), cut])
    assert texts(ax) == [f"newton: converged, {rs.solve(rec).nit} iterations", "jacobi: maxiter, 1 iteration"]
    assert texts(rs.plot.convergence({"mine": cut}))[0].startswith("mine: maxiter")
    assert [text.split(":")[0] for text in texts(rs.plot.convergence([cut, cut]))] == ["jacobi (1)", "jacobi (2)"]


def test_each_tolerance_is_drawn_once_and_the_floor_too():
    rec = recurrence()
    ax = rs.plot.convergence([rs.solve(rec, tol=1e-9), rs.solve(rec, tol=1e-9), rs.solve(rec, tol=1e-6)])
    assert sorted(text.get_text() for text in ax.texts) == ["0 to rounding", "tolerance", "tolerance"]


def test_what_compiled_loops_kept_is_drawn_where_it_belongs():
    curve = Curve("windowed", "windowed", "converged", 7, 7, np.array([1e-9]), np.empty(0), 1e-8, 1e-17)
    holder = type("Holder", (), {"_curves": lambda self, reference: [curve]})()
    (line,) = curves_of(convergence(holder))
    assert line.get_xdata().tolist() == [7]


def test_a_completion_follows_the_last_iterate():
    sol = rs.solve(recurrence(), method="jacobi", maxiter=2, fallback="sequential")
    (line,) = curves_of(sol.plot())
    assert line.get_xdata().tolist() == [0, 1, 2, 3]
    sol.residuals = sol.residuals[2:]  # as of compiled loops, which keep the last
    (line,) = curves_of(sol.plot())
    assert line.get_xdata().tolist() == [2, 3]


def test_numbers_that_are_not_finite_leave_a_gap():
    u = np.ones((T, 1))
    u[20] = np.nan
    rec = rs.Recurrence.from_function(lambda h, u: np.sin(h) + u, inputs=u, initial=np.zeros(1))
    sol = rs.solve(rec)
    (line,) = curves_of(sol.plot())
    assert sol.status == "nonfinite"
    assert np.isnan(line.get_ydata()[-1])
    assert "nonfinite" in texts(sol.plot())[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_errors_are_those_of_every_iterate_that_was_kept(dtype):
    rec = (
        recurrence(dtype=dtype)
        if dtype == "float64"
        else rs.cells.GRU.random(input_size=3, hidden_size=5, rng=0, dtype=np.float32).recurrence(
            np.ones((T, 3), np.float32)
        )
    )
    sol, truth = traced(rec), rs.solve(rec, method="sequential")
    assert len(sol.trace.iterates) == sol.nit + 1
    assert np.array_equal(sol.trace.iterates[-1], sol.states)
    ax = rs.plot.convergence(sol, reference=truth.states.astype(np.float64))
    _, errors = curves_of(ax)
    wanted = [distance(h, truth.states.astype(np.float64)) for h in sol.trace.iterates]
    assert np.array_equal(errors.get_ydata(), np.maximum(wanted, 0.2 * np.finfo(dtype).eps))
    assert "pale: error" in texts(ax)
    _, last = curves_of(rs.plot.convergence(rs.solve(rec), reference=truth))
    assert last.get_xdata().tolist() == [sol.nit]


def test_names_that_begin_with_an_underscore_are_in_legends():
    cell = rs.Cell(lambda s, W, u, p: np.tanh(W.h(s._a) + u.x), state=("_a",), output="_a", name="own")
    sol = rs.solve(cell.random(input_size=3, hidden_size=2, rng=0).recurrence(np.ones((T, 3))))
    for ax, names in (
        (sol.plot("trajectory"), ["_a[0]", "_a[1]"]),
        (rs.plot.convergence({"_mine": sol, "other": sol}), ["_mine", "other"]),
    ):
        found = [text.get_text().split(":")[0].strip("\u200b") for text in ax.get_legend().get_texts()]
        assert found == names


def test_a_trace_without_states_keeps_none():
    sol = rs.solve(recurrence(), options={"trace": True})
    assert sol.trace.iterates == ()
    with pytest.raises(ValueError, match="trace is 'all'; wanted True or False, or 'states'"):
        rs.solve(recurrence(), options={"trace": "all"})


@pytest.mark.parametrize("last", [0, 1, 4, 20, 21, 150, 2000])
def test_each_iteration_up_to_nine_has_a_tick(last):
    figure, ax = pyplot.subplots()
    ax.plot(np.arange(last + 1), np.geomspace(1, 1e-12, last + 1))
    scale_iterations(np.array([[ax]]))
    figure.canvas.draw()
    low, high = ax.get_xlim()
    major, minor = ({x for x in ax.get_xticks(minor=minor) if low <= x <= high} for minor in (False, True))
    assert all(tick == round(tick) for tick in major | minor)
    assert {*range(min(last, 9) + 1)} <= major | minor


def test_axes_that_share_their_iterations_show_the_longest_curve():
    _, axes = pyplot.subplots(2, 1, sharex=True, squeeze=False)
    for ax, n in zip(axes.flat, (100, 5), strict=True):
        ax.plot(np.arange(n + 1), np.geomspace(1, 1e-9, n + 1))
    scale_iterations(axes)
    assert axes[1, 0].get_xlim()[1] > 100


# Maps ------------------------------------------------------------------------------------------------------------


def mesh_of(ax):
    return ax.collections[0]


def test_a_map_shows_the_largest_residual_of_each_step(solved):
    floor = 0.2 * np.finfo(float).eps
    shown = mesh_of(rs.plot.residual_map(solved)).get_array()
    assert np.array_equal(shown, np.maximum(solved.trace.residual.max(axis=2), floor))
    one = mesh_of(rs.plot.residual_map(solved, sequence=1)).get_array()
    assert np.array_equal(one, np.maximum(solved.trace.residual[:, :, 1], floor))


def test_a_map_of_many_steps_keeps_the_largest():
    sol = traced(recurrence(length=1500), "jacobi")
    shown = mesh_of(rs.plot.residual_map(sol)).get_array()
    assert shown.shape == (sol.nit + 1, 512)
    assert shown.max() == sol.trace.residual.max()
    assert np.array_equal(shown.max(axis=1), np.maximum(sol.trace.residual.max(axis=1), 0.2 * np.finfo(float).eps))


def test_what_a_window_has_not_come_to_is_left_out():
    sol = traced(recurrence(), rs.solvers.Windowed(window=10))
    shown = mesh_of(rs.plot.residual_map(sol)).get_array()
    assert shown.mask[0, 10:].all()
    assert not shown.mask[0, :10].any()


@pytest.mark.parametrize("length", [0, 1, 2])
def test_short_recurrences_are_drawn(length):
    rec = recurrence(length=length)
    sol = traced(rec)
    for draw in (rs.plot.convergence, rs.plot.residual_map, rs.plot.trajectory):
        ax = draw(sol)
        ax.figure.canvas.draw()
        if length == 0 and draw is not rs.plot.convergence:
            assert ax.texts[0].get_text() == "no steps"
    if length == 1:
        corners = mesh_of(rs.plot.residual_map(sol)).get_coordinates()
        assert np.ptp(corners[..., 0]) == 1  # a cell of no width would not be seen


# Trajectories ----------------------------------------------------------------------------------------------------


def lines_of(ax):
    return {line.get_label(): line.get_ydata() for line in ax.get_lines()}


def test_components_and_units_are_drawn_by_name():
    sol = rs.solve(recurrence("LSTM", batch=(2,)))
    lines = lines_of(sol.plot("trajectory", sequence=1))
    assert [*lines] == ["h[0]", "h[1]", "h[3]", "h[4]", "c[0]", "c[1]", "c[3]", "c[4]"]
    for name, y in lines.items():
        assert np.array_equal(y, sol.named[name[0]][:, 1, int(name[2])])
    ax = sol.plot("trajectory", component="c", units=[2])
    assert np.array_equal(lines_of(ax)["c[2]"], sol.named.c[:, 0, 2])
    assert ax.get_ylabel() == "state c"
    assert "(1 of 5 numbers; sequence 0)" in ax.get_title()


def test_named_states_and_lanes_are_drawn():
    sol = rs.solve(named())
    lines = lines_of(rs.plot.trajectory(sol, component="C", units=[(1, 2), (0, 0)]))
    assert np.array_equal(lines["C[1, 2]"], sol.named.C[:, 1, 2])
    assert "time" in lines_of(rs.plot.trajectory(sol))
    heads = rs.solve(
        rs.cells.GRU.random(input_size=3, hidden_size=6, mixing="heads", heads=2, rng=0).recurrence(np.ones((T, 3)))
    )
    assert np.array_equal(lines_of(heads.plot("trajectory", units=[(1, 2)]))["h[1, 2]"], heads.states[:, 1, 2])


def test_steps_that_are_not_solved_are_shaded():
    sol = rs.solve(chaotic(), maxiter=3)
    (shade,) = rs.plot.trajectory(sol).collections
    edges = [path.get_extents().intervalx.tolist() for path in shade.get_paths()]
    assert edges == [[sol.converged_prefix - 0.5, T - 0.5]]
    assert not rs.plot.trajectory(rs.solve(recurrence())).collections


def test_a_batch_without_sequences_is_said_to_be_empty():
    sol = rs.solve(recurrence(batch=(0,)))
    assert rs.plot.trajectory(sol).texts[0].get_text() == "no sequences"
    with pytest.raises(ValueError, match="sequence is 0; wanted an index into 0"):
        rs.plot.trajectory(sol, sequence=0)


def test_windows_and_layers_show_their_output():
    rec = recurrence()
    kept = rs.solve(rec, every=16)
    assert np.array_equal(lines_of(kept.plot())["output[2]"], kept.output[:, 2])
    cells = [[rs.cells.GRU.random(input_size=n, hidden_size=4, rng=n)] for n in (3, 4)]
    stack = rs.Layers(cells).solve(np.ones((T, 2, 3)))
    assert np.array_equal(lines_of(stack.plot("trajectory", sequence=1))["output[3]"], stack.output[:, 1, 3])
    assert [text.split(":")[0] for text in texts(stack.plot())] == ["layer 0, newton", "layer 1, newton"]
    assert len(curves_of(rs.plot.convergence(stack, reference=stack))) == 4
    with pytest.raises(ValueError, match="reference is ndarray; wanted a list of 2"):
        rs.plot.convergence(stack, reference=np.ones(3))


def grid():
    return rs.Recurrence.from_graph(
        lambda h, u: 0.4 * h[0] + 0.3 * h[1] + u, rs.graphs.grid((3, 4)), inputs=np.ones((3, 4, 1)), initial=np.zeros(1)
    )


def test_nodes_of_a_graph_are_drawn_as_the_user_lays_them_out():
    sol = traced(grid())
    ax = rs.plot.trajectory(sol)
    assert ax.get_xlabel() == "node"
    assert np.array_equal(lines_of(ax)["h[0]"], sol.states.ravel())
    assert rs.plot.residual_map(sol).get_xlabel().startswith("node, in the order of levels")


# Exponents and predictions ---------------------------------------------------------------------------------------


def test_exponents_of_a_diagnosis_and_of_a_solution_agree(diagnosis):
    rec = recurrence()
    of_both = [
        np.concatenate([line.get_ydata() for line in curves_of(ax)])
        for ax in (rs.plot.spectrum(diagnosis), rs.plot.spectrum(rs.solve(rec)))
    ]
    assert np.array_equal(of_both[0], diagnosis.lyapunov)
    assert np.allclose(*of_both, rtol=1e-6)


def test_exponents_above_zero_have_another_marker():
    (line,) = curves_of(rs.plot.spectrum(rs.solve(chaotic()), exponents=1))
    assert line.get_marker() == "^"
    assert line.get_ydata()[0] > 0
    flat = rs.Recurrence.from_function(lambda h, u: 0 * h + u, inputs=np.ones((T, 1)), initial=np.zeros(1))
    assert rs.plot.spectrum(rs.solve(flat), exponents=1).texts[-1].get_text() == "−∞"


def test_predictions_are_sorted(diagnosis):
    ax = rs.plot.prediction(diagnosis)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == sorted(diagnosis.predicted, key=diagnosis.predicted.get)
    assert [text.get_text() for text in ax.texts][:-1] == [str(diagnosis.predicted[name]) for name in labels]
    empty = rs.diagnose(recurrence(), methods=[])
    assert rs.plot.prediction(empty).texts[0].get_text() == "no method was predicted"


# Tensors ---------------------------------------------------------------------------------------------------------


def check_kind(as_kind):
    u = np.random.default_rng(0).standard_normal((T, 2, 3))
    sols = []
    for made in (np.asarray, as_kind):
        rec = rs.Recurrence.from_function(
            lambda h, u: np.tanh(0.5 * h) + u, inputs=made(u), initial=made(np.zeros((2, 3))), structure="diagonal"
        )
        sols.append(traced(rec))
    host, sol = sols
    for name, (draw, _) in PLOTS.items():
        if name != "prediction":
            for a, b in zip(draw(sol).get_lines(), draw(host).get_lines(), strict=True):
                assert name != "trajectory" or np.allclose(a.get_ydata(), b.get_ydata(), rtol=0, atol=1e-12)
    for truth in (host, sol):
        assert len(curves_of(rs.plot.convergence(sol, reference=truth))) == 2
    assert np.allclose(sol.to_xarray()["h"], host.to_xarray()["h"], rtol=0, atol=1e-12)
    assert "trusted" in sol.summary()


@pytest.mark.parametrize("grad", [False, True])
def test_tensors_are_drawn(grad):
    torch = pytest.importorskip("torch")
    check_kind(lambda x: torch.tensor(x, requires_grad=grad))


@pytest.mark.gpu
def test_cupy_arrays_are_drawn():
    import cupy

    check_kind(cupy.asarray)


@pytest.mark.gpu
def test_cuda_tensors_are_drawn():
    torch = pytest.importorskip("torch")
    check_kind(lambda x: torch.tensor(x, device="cuda"))
