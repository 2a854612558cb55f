"""What results say of themselves: summaries, tables in notebooks, Datasets, comparisons."""

from html.parser import HTMLParser

import numpy as np
import pytest
import xarray
from matplotlib import pyplot
from test_plots import T, chaotic, curves_of, discrete, grid, named, recurrence, texts, traced

import recsolve as rs
from recsolve.base.report import as_html, as_text
from recsolve.studies.compare import compare as command
from recsolve.studies.compare import comparison


def shown():
    return rs.Recurrence.from_function(
        lambda h, u: 0.5 * h + u, inputs=np.ones((T, 2)), initial=np.zeros(2), readout=lambda h, u: h[..., :1] ** 2
    )


def layers(lengths=None):
    cells = [[rs.cells.GRU.random(input_size=n, hidden_size=4, rng=n)] for n in (3, 4)]
    return rs.Layers(cells).solve(np.ones((T, 2, 3)), lengths=lengths)


SOLUTIONS = {
    "cell": lambda: rs.solve(recurrence()),
    "two batch axes": lambda: rs.solve(recurrence("LSTM", batch=(2, 3))),
    "heads": lambda: rs.solve(
        rs.cells.LSTM.random(input_size=3, hidden_size=6, mixing="heads", heads=2, rng=0).recurrence(np.ones((T, 3)))
    ),
    "trace": lambda: traced(recurrence(batch=(2,)), "jacobi", maxiter=3),
    "completed": lambda: traced(recurrence(), "jacobi", maxiter=3, fallback="sequential"),
    "named as ours": lambda: rs.solve(named()),
    "graph": lambda: traced(grid()),
    "readout": lambda: rs.solve(shown()),
    "discrete": lambda: rs.solve(discrete(), method="jacobi"),
    "no steps": lambda: rs.solve(recurrence(length=0)),
    "one step": lambda: traced(recurrence(length=1)),
    "no sequences": lambda: rs.solve(recurrence(batch=(0,))),
    "chaos": lambda: rs.solve(chaotic(), maxiter=3),
    "windows": lambda: rs.solve(recurrence(batch=(2,)), every=16),
    "windows with readout": lambda: rs.solve(shown(), every=16),
    "windows of named states": lambda: rs.solve(named(), every=16),
    "windows without steps": lambda: rs.solve(recurrence("LSTM", length=0, batch=(2,)), every=16),
}
LAYERS = {"layers": layers, "layers of lengths": lambda: layers([T, 3])}


@pytest.fixture(autouse=True)
def close():
    yield
    pyplot.close("all")


@pytest.mark.parametrize("case", SOLUTIONS)
def test_a_dataset_holds_what_the_solution_does_and_survives_a_file(case, tmp_path):
    sol = SOLUTIONS[case]()
    data = sol.to_xarray()
    data.to_netcdf(tmp_path / "sol.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "sol.nc", engine="h5netcdf") as read:
        xarray.testing.assert_identical(read.load(), data)
        assert all(read[name].dtype == data[name].dtype for name in data)
    assert data.attrs["status"] == sol.status
    assert data.attrs["message"] == sol.message
    assert (data.attrs["nit"], data.attrs["method"]) == (sol.nit, sol.solver.name)
    assert bool(data.attrs["success"]) is sol.success
    assert np.array_equal(data["residuals"], sol.residuals, equal_nan=True)
    if isinstance(sol, rs.WindowsSolution):
        assert np.array_equal(data["output"], sol.output)
        ends = sol.named_ends if "named" in case else {"h": sol.ends} if len(sol.ends) else sol.named_final
        assert all(np.array_equal(data[f"ends_{name}"], part.reshape(-1, *data[f"ends_{name}"].shape[1:]))
                   for name, part in ends.items())  # fmt: skip
        return
    parts = sol.named.items() if sol.recurrence.layout.components > 1 or "named" in case else [("h", sol.states)]
    for name, part in parts:
        found = data["time_" if name == "time" else name]
        assert np.array_equal(found, part)
        assert found.dims[0] == ("node_0" if case == "graph" else "time")
    assert np.array_equal(data["converged"], sol.converged_rows)
    if sol.trace is not None:
        rows = data["row_residual"][: sol.nit + 1].values
        assert np.array_equal(rows, sol.trace.residual)
        assert np.isnan(data["row_residual"][sol.nit + 1 :]).all()


def test_dimensions_have_the_names_of_what_they_are():
    dims = {case: {name: x.dims for name, x in SOLUTIONS[case]().to_xarray().items()} for case in SOLUTIONS}
    assert dims["two batch axes"]["c"] == ("time", "batch_0", "batch_1", "unit")
    assert dims["heads"]["h"] == ("time", "lane", "unit")
    assert dims["named as ours"]["C"] == ("time", "unit", "batch_")
    assert dims["graph"]["h"] == ("node_0", "node_1", "unit")
    assert dims["readout"]["output"] == ("time", "shown")
    assert dims["windows"]["ends_h"] == ("window", "batch", "unit")


def test_axes_of_components_have_names_of_their_own():
    def step(s, u):
        return {"k": 0.5 * s.k + u, "C": 0.5 * s.C + u[..., None, None]}

    rec = rs.Recurrence.from_function(
        step, inputs=np.ones(T), initial={"k": np.zeros(()), "C": np.zeros((2, 2))}, state={"k": (), "C": ("k", "k")}
    )
    assert rs.solve(rec).to_xarray()["C"].dims == ("time", "k_", "k__2")  # beside the component k


@pytest.mark.parametrize(
    "names", [("unit", "lane"), ("lane_0", "unit_"), ("batch", "batch_0"), ("time", "time_"), ("output", "iterations")]
)
def test_components_that_are_called_as_dimensions_are_all_there(names):
    """A variable of the name of a dimension would be its coordinate, one of the name of another takes its place."""

    def step(s, u):
        return {names[0]: 0.5 * s[names[0]] + u, names[1]: 0.5 * s[names[1]] + u[..., 0]}

    rec = rs.Recurrence.from_function(
        step, inputs=np.ones((T, 2, 3, 4)), initial={names[0]: np.zeros((2, 3, 4)), names[1]: np.zeros((2, 3))},
        state={names[0]: (names[1],), names[1]: ()},
    )  # fmt: skip
    cell = rs.Cell(  # whose components have no axes with names
        lambda s, W, u, p: (np.tanh(W.a(s[names[0]]) + u.x), s[names[1]]), state=names, output=names[0], name="own"
    ).random(input_size=3, hidden_size=4, rng=0)
    for sol in (rs.solve(rec), rs.solve(cell.recurrence(np.ones((T, 2, 3, 3))))):
        found = [x for name, x in sol.to_xarray().data_vars.items() if x.dims[:3] == ("time", "batch_0", "batch_1")]
        for part, x in zip(sol.named.values(), found, strict=False):
            assert np.array_equal(part, x)


# Text and HTML ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*SOLUTIONS, *LAYERS])
def test_a_summary_fits_80_columns_and_says_whether_to_trust(case):
    sol = (SOLUTIONS | LAYERS)[case]()
    short = repr(sol)
    assert "ask " in short  # nothing is computed to print it
    text = sol.summary()
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for part in (f"trusted: {sol.trusted}", "error: about", "kappa", sol.message):
        assert part in words
    assert text.splitlines()[0] == short.splitlines()[0] == type(sol).__name__


def test_a_summary_counts_sequences_and_numbers_that_are_none():
    x = np.ones((T, 2, 3))
    x[7, 1] = np.nan
    text = " ".join(rs.solve(rs.cells.GRU.random(input_size=3, hidden_size=5, rng=0).recurrence(x)).summary().split())
    assert "1 of 2 sequences at all steps" in text
    assert f"{5 * (T - 7)} of {10 * T} are inf or NaN" in text


class Page(HTMLParser):
    """The text of a table, and whether its tags are closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.tags = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)
        assert not {"src", "href", "onclick"} & {name for name, _ in attrs}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


PAGES = {
    "cell": (SOLUTIONS["cell"], "|r| <= "),
    "windows": (SOLUTIONS["windows"], "rows within tolerance"),
    "layers": (layers, "Layers("),
    "diagnosis": (lambda: rs.diagnose(recurrence(), methods=["newton"]), "newton 4"),
    "comparison": (
        lambda: rs.compare(recurrence(), ["newton", "jacobi"], maxiter=2),
        "the iteration limit was reached",
    ),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_notebook_shows_a_table_without_anything_from_elsewhere(name):
    make, said = PAGES[name]
    result = make()
    page = Page(result._repr_html_())
    assert page.open == []
    assert said in " ".join(page.text)
    assert set(page.tags) <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert name == "diagnosis" or "trusted" not in vars(result)


def test_what_users_name_is_no_markup():
    hostile = "<script>alert(1)</script>&amp;"
    assert Page(as_html(hostile, {hostile: hostile})).tags.count("script") == 0
    assert [text for text in Page(as_html("a", {"b": hostile})).text if "script" in text] == [hostile]
    assert as_text("a", {}) == "a"
    assert max(map(len, as_text("a", {"b": "c" * 200}, 80).splitlines())) == 80


# Comparisons -----------------------------------------------------------------------------------------------------


def test_a_comparison_has_the_numbers_of_the_solves():
    rec = recurrence()
    found = rs.compare(rec, ["sequential", "newton", "jacobi"], maxiter=4)
    truth = rs.solve(rec, method="sequential").states
    for entry, row in zip(found.entries, found.records(), strict=True):
        sol = rs.solve(rec, method=entry.solver, maxiter=4)
        assert (row["status"], row["iterations"], row["residual"]) == (sol.status, sol.nit, sol.residuals[-1])
        assert row["error"] == abs(sol.states - truth).max()
        assert row["seconds"] > 0
        assert "residuals" not in row
    assert found.complete
    text = str(found)
    for word in ("sequential", "newton", "jacobi", "vs loop", "maxiter", "jacobi: maxiter: the iteration limit"):
        assert word in text
    assert "partial" not in text


def test_a_comparison_is_text_in_notebooks_too(monkeypatch, capsys):
    found = rs.compare(recurrence(), "newton")
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert "newton" in repr(found)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("output", [None, type("Output", (), {"write": lambda self, text: None})()])
def test_a_comparison_is_text_where_there_is_no_output(monkeypatch, output):
    found = rs.compare(recurrence(), "newton")
    monkeypatch.setattr("sys.stdout", output)
    assert "newton" in repr(found)


def test_a_comparison_draws_residuals_and_errors():
    found = rs.compare(recurrence(), ["sequential", "newton", "jacobi"])
    ax = found.plot()
    assert [text.split(":")[0] for text in texts(ax)] == ["newton", "jacobi", "pale"]
    assert len(curves_of(ax)) == 4
    assert found.plot("convergence", pyplot.subplots()[1]).get_xlabel() == "iteration"
    with pytest.raises(ValueError, match="reference is given; wanted None, for a Comparison knows its errors"):
        rs.plot.convergence(found, reference=np.ones(3))
    with pytest.raises(ValueError, match="kind is 'trajectory'; wanted one of convergence for a Comparison"):
        found.plot("trajectory")


def test_a_comparison_without_curves_is_drawn():
    assert rs.compare(recurrence(), "sequential").plot().texts[0].get_text() == "no method that iterates"


def test_methods_are_names_groups_and_solver_objects():
    rec = recurrence()
    solvers = ["newton", rs.solvers.Windowed(window=9)]
    assert [entry.solver for entry in rs.compare(rec, solvers).entries] == ["newton", "windowed(window=9)"]
    assert [entry.solver for entry in rs.compare(rec, "newton").entries] == ["newton"]
    assert [entry.solver for entry in rs.compare(rec, rs.solvers.Newton()).entries] == ["newton"]
    assert len(rs.compare(rec, ["fixed point"]).entries) > 2


@pytest.mark.parametrize("grad", [False, True])
def test_tensors_are_compared(grad):
    torch = pytest.importorskip("torch")
    u = torch.ones(T, 2, dtype=torch.float64, requires_grad=grad)
    rec = rs.Recurrence.from_function(
        lambda h, u: np.tanh(0.5 * h) + u, inputs=u, initial=torch.zeros(2, dtype=torch.float64), structure="diagonal"
    )
    assert [entry.status for entry in rs.compare(rec, ["sequential", "newton"]).entries] == ["converged"] * 2


@pytest.mark.parametrize(("length", "batch"), [(0, ()), (1, ()), (3, (0,))])
def test_nothing_or_little_is_compared(length, batch):
    found = rs.compare(recurrence(length=length, batch=batch), ["sequential", "newton"])
    assert [entry.status for entry in found.entries] == ["converged"] * 2
    assert str(found)
    assert found.plot().get_xlabel() == "iteration"


def test_what_does_not_apply_or_fails_is_an_entry():
    found = rs.compare(discrete(), ["newton", "jacobi"])
    assert [entry.status for entry in found.entries] == ["inapplicable", "converged"]
    assert "n/a" in str(found)
    assert [text.split(":")[0] for text in texts(found.plot())] == ["jacobi", "pale"]


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda rec: rs.compare(3), TypeError, "recurrence is int; wanted a Recurrence"),
        (lambda rec: rs.compare(rec, ["newtn"]), ValueError, r"methods has unknown \['newtn'\]; wanted some of seq"),
        (lambda rec: rs.compare(rec, []), ValueError, "methods is empty; wanted some of"),
        (lambda rec: rs.compare(rec, [3]), TypeError, "methods has int; wanted names of solvers"),
        (lambda rec: rs.compare(rec, 3), TypeError, "methods is int; wanted names of solvers"),
        (lambda rec: rs.compare(rec, maxiter=-1), ValueError, "maxiter is -1"),
        (lambda rec: rs.compare(rec, tol=-1.0), ValueError, "tol is -1.0"),
        (lambda rec: rs.compare(rec, tol="small"), ValueError, "tol is 'small'"),
    ],
)
def test_bad_input_of_a_comparison_is_named(call, error, said):
    with pytest.raises(error, match=said):
        call(recurrence())


def test_the_command_is_the_same_race(monkeypatch):
    raced, race = [], comparison.race
    monkeypatch.setattr(
        comparison, "race", lambda rec, solvers, **rest: raced.append(rec) or race(rec, solvers, **rest)
    )
    config = command.CompareConfig(units=4, length=40, mixing="dense", solvers=("newton", "jacobi"))
    *_, result = command.compare(config)
    (panel,) = result.panels
    again = rs.compare(raced[0], ["newton", "jacobi"])
    assert len(raced) == 2
    for a, b in zip(panel.entries, again.entries, strict=True):
        assert (a.solver, a.residuals, a.errors) == (b.solver, b.residuals, b.errors)


def test_a_partial_comparison_says_so_wherever_it_is_shown(tmp_path):
    config = command.CompareConfig(units=4, length=40, solvers=("newton", "jacobi"))
    result = next(command.compare(config))
    assert not result.complete
    assert result.record()["title"].endswith("(partial: 1 of 4 solves)")
    panel = result.panels[0]
    assert "partial: 1 have run" in str(panel)
    assert "partial" in panel._repr_html_()
    assert panel.plot().get_legend().get_title().get_text() == "partial: not all have run"
    assert [path.name for path in result.save(tmp_path)][:2] == ["compare-partial.json", "compare-partial.png"]
