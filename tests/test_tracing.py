"""A traced cell computes what the arrays do, derivatives included; what cannot be traced is named with its line."""

import subprocess
import sys

import gallery
import numpy as np
import pytest
from numpy_dialect import numpy_function

import recsolve as rs
from recsolve.base.ties import check_ties, ties_in_force
from recsolve.jacobians import Block, Diagonal, Zero
from recsolve.math import clip, maximum, minimum, relu, sigmoid, softplus, tanh, where
from recsolve.symbolic import dual, emit
from recsolve.symbolic.dual import ONE, Dual
from recsolve.symbolic.graph import Graph
from recsolve.symbolic.tracing import trace_cell

TIES = [0.0, 0.5, 1.0]


def kinds(cell):
    return {name: mixing.name for name, mixing in cell.mixings.items()}


def evaluated(program, rec, previous):
    """Run the emitted stages and the mixings between them; return one (value, partials) per output of each stage."""
    cell = rec.cell
    arrays = {f"s_{n}": rec.layout.component(previous, i) for i, n in enumerate(program.components)}
    arrays |= {f"u_{n}": u for n, u in rec.drive.items()} | {f"p_{n}": p for n, p in cell.parameters.items()}
    arrays |= {f"W_{n}": m.weight for n, m in cell.mixings.items()}
    stages = []
    for stage in program.stages:
        needed = [arrays[emit.variable(leaf)] for leaf in emit.leaves(stage.nodes())]
        with np.errstate(all="ignore"):
            results = numpy_function(stage.nodes())(previous.dtype.type, *needed)
        results = iter([np.broadcast_to(r, arrays[f"s_{program.components[0]}"].shape) for r in results])
        values = [next(results) for _ in stage.outputs]
        partials = [{leaf: next(results) for leaf in output.partials} for output in stage.outputs]
        for call, value in zip(stage.calls, values, strict=False):
            with np.errstate(all="ignore"):
                arrays[emit.variable(call.result.content)] = cell.mixings[call.mixing](value)
        stages.append(list(zip(values, partials, strict=True)))
    return stages


def assert_same(actual, wanted, tight):
    assert actual.dtype == wanted.dtype
    np.testing.assert_allclose(actual, wanted, rtol=tight, atol=tight / 10)


def assert_same_partials(actual, wanted, tight):
    assert actual.keys() == wanted.keys()
    for leaf in actual:
        assert_same(actual[leaf], wanted[leaf], tight)


def check(rec, previous):
    """Hold the emitted code of a recurrence of a cell against its arrays."""
    program = trace_cell(rec.cell.cell, kinds(rec.cell), rec.ties)
    tight = 1e-14 if previous.dtype == np.float64 else 1e-6
    stages = evaluated(program, rec, previous)
    with np.errstate(all="ignore"):
        values, jacobian = rec.differentiate(previous)
        applied = rec.apply(previous)
    for i, (value, _) in enumerate(stages[-1]):
        assert_same(value, rec.layout.component(applied, i), tight)
        assert_same(value, rec.layout.component(values, i), tight)
    if isinstance(jacobian, Zero):
        assert not any(partials for _, partials in stages[-1])
    elif isinstance(jacobian, Diagonal):
        assert_same(stages[0][0][1][0], jacobian.data, tight)
    elif isinstance(jacobian, Block):
        for i, (_, partials) in enumerate(stages[0]):
            for j in range(rec.layout.components):
                entry = jacobian._entry(i, j)
                assert_same(partials.get(j, np.zeros_like(entry)), entry, tight)
    else:
        numbered = [
            (call.number, partials)
            for stage, outputs in zip(program.stages, stages, strict=True)
            for call, (_, partials) in zip(stage.calls, outputs, strict=False)
            if call.number is not None
        ]
        inputs = dict(numbered)
        assert sorted(inputs) == [rec.layout.components + i for i in range(len(jacobian.calls))]
        for i, call in enumerate(jacobian.calls):
            assert_same_partials(inputs[rec.layout.components + i], call.partials, tight)
        for (_, partials), wanted in zip(stages[-1], jacobian.outputs, strict=True):
            assert_same_partials(partials, wanted, tight)
    return program


def hard(cell, ties=None, dtype=np.float64):
    """A recurrence and states for it with exact ties, NaN, infinities and numbers that saturate."""
    rng = np.random.default_rng(0)
    event = (*cell.layout.lanes, cell.layout.units)
    drive = {name: rng.standard_normal((14, 2, *event)).astype(dtype) for name in cell.cell.drives}
    previous = rng.standard_normal((14, 2, *cell.layout.event)).astype(dtype)
    for u in drive.values():
        u[:3] = 0.0
        u[5, 0, ..., 0] = np.nan
        u[6], u[7] = np.inf, -np.inf
    previous[:3] = 0.0
    previous[8, 0, ..., 1] = np.nan
    previous[9], previous[10], previous[11], previous[12] = np.inf, -np.inf, 1000.0, -1000.0
    return cell.recurrence(drive=drive, ties=ties), previous


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("dtype", gallery.DTYPES)
@pytest.mark.parametrize(("name", "mixing"), gallery.CELLS)
def test_every_cell_as_its_arrays(name, mixing, dtype, ties):
    rec, previous = hard(gallery.weighted(name, mixing, dtype=dtype), ties, dtype)
    program = check(rec, previous)
    coupled = bool(rec.cell.mixings) and mixing != "diagonal"
    assert program.elementwise is not coupled
    assert len(program.stages) == 1 + coupled + (coupled and name == "cho_gru")
    if not coupled:
        states = np.random.default_rng(0).standard_normal(rec.shape).astype(dtype)
        with np.errstate(all="ignore"):
            J = np.asarray(rec.differentiate(np.abs(states))[1].block().data)
        for i, row in enumerate(program.jacobian):
            for j, entry in enumerate(row):
                part = J if len(row) == 1 else np.moveaxis(J, (1 + len(rec.batch), 2 + len(rec.batch)), (0, 1))[i, j]
                assert entry is not None or (name == "slstm" and not part.any())
    else:
        with pytest.raises(ValueError, match=mixing):
            _ = program.jacobian


@pytest.mark.parametrize(
    ("name", "values", "all_"),
    [("gru", 15, 32), ("lstm", 17, 42), ("pararnn_gru", 14, 31), ("pararnn_lstm", 19, 51), ("minmax", 2, 6)],
)
def test_the_number_of_operations(name, values, all_):
    program = trace_cell(rs.cells.get(name))
    assert (program.operations(partials=False).total(), program.operations().total()) == (values, all_)
    assert f"stage 0: {all_} operations, {values} of them" in str(program)
    for function in ("sigmoid", "tanh"):  # what is slow is computed once, for value and derivative
        assert program.operations()[function] == program.operations(partials=False)[function]


def test_a_derivative_shares_what_the_value_computed():
    x = Graph().leaf("component", "x")
    for f in (sigmoid, np.tanh, np.exp, np.sqrt):
        out = f(Dual(x, {0: ONE}))
        assert out.value is f(x)
    s = sigmoid(x)
    assert sigmoid(Dual(x, {0: ONE})).partials[0] is s * (1 - s)
    assert np.tanh(Dual(x, {0: ONE})).partials[0] is 1 - np.tanh(x) * np.tanh(x)
    assert (x + s) * 2 is 2 * (s + x)


def test_simplification_is_exact():
    graph = Graph()
    x, y = graph.leaf("component", "x"), graph.leaf("drive", "y")
    c = x > y
    for simpler, same in [
        (x * 1, x), (x / 1, x), (x + 0, x), (x - 0, x), (-1 * (-x), x), (+x, x), (-1 * x, -x), (x / -1, -x),
        (x + -y, x - y), (-x + y, y - x), (x - -y, x + y), (-x * y, -(x * y)), (-x * -y, x * y), (-x / y, -(x / y)),
        (x**1, x), (x**2, x * x), (x**0, graph.node(1.0)), (x**-1, 1 / x), (np.square(x), x * x),
        (np.reciprocal(x), 1 / x), (where(c, x, x), x), (where(~c, x, y), where(c, y, x)), (~~c, c), (c & c, c),
        (where(c, 1.0, 0.0) != 0, c), (where(True, x, y), x), (maximum(x, x), x), (graph.node(2) * 3, graph.node(6)),
    ]:  # fmt: skip
        assert simpler is same
    for kept in (x * 0, x - x, x / x, 0 / x, 0 - x, x**0.5):  # NaN and -0.0 tell them apart
        assert kept.arguments
    assert (~c) is not (x <= y)
    assert graph.node(0.0) is not graph.node(-0.0)
    assert graph.node(np.nan) is graph.node(np.float32(np.nan))
    assert graph.node(True) is not graph.node(1.0)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("name", sorted([*dual.UNARY, *dual.BINARY, *dual.WINS]))
def test_every_operation(name, ties):
    function = {"sigmoid": sigmoid, "softplus": softplus}.get(name) or getattr(np, name)
    grid = np.array([0.0, -0.0, 1.0, -1.0, 2.5, -0.3, 1e300, np.inf, -np.inf, np.nan])
    x, y = (a.ravel() for a in np.meshgrid(grid, grid))
    graph = Graph()
    nodes = [Dual(graph.leaf("component", n), {i: ONE}) for i, n in enumerate("xy")]
    arity = 1 if name in dual.UNARY else 2
    with ties_in_force(check_ties(ties)), np.errstate(all="ignore"):
        traced, wanted = function(*nodes[:arity]), function(*[Dual(x, {0: ONE}), Dual(y, {1: ONE})][:arity])
        results = [graph.number(n) for n in (traced.value, *traced.partials.values())]
        arrays = [{"x": x, "y": y}[leaf.name] for leaf in emit.leaves(results)]
        for got, array in zip(
            numpy_function(results)(np.float64, *arrays), (wanted.value, *wanted.partials.values()), strict=True
        ):
            np.testing.assert_allclose(np.broadcast_to(got, x.shape), np.broadcast_to(array, x.shape), rtol=1e-14)


def rules(s, W, u, p):
    """What users write, conditions above all."""
    h = W.h(s.h) + u.h * 2 + np.float32(0.5)
    inside = (h > -1) & ~(h >= p.top) | np.isnan(h)
    g = np.where(inside, np.clip(h, -0.5, p.top), relu(-h) ** 2)
    return (s.c > 0) * np.abs(g) ** 1.5 + np.zeros_like(h), minimum(s.c, g) + np.logaddexp(s.c, 0.0) ** 3 + 2**h


def steps(s, W, u, p):
    """Steps have no slope, a Python flag chooses at tracing, and a mixing of a drive depends on no state."""
    flag = u.h.ndim >= 0
    return sigmoid(W.h(u.h) + where(flag, W.h(np.tanh(s.h)), 0.0)) + np.sign(s.h) + np.floor(s.c) * p.a, clip(
        s.c, max=1.0
    ) - np.full_like(s.c, 0.25)


def triangular(s, W, u, p):
    return sigmoid(u.h) * s.c, u.h * s.c + np.sign(s.h)


def constant(s, W, u, p):
    return tanh(u.h), 0.0 * u.h


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("mixing", ["diagonal", "dense", "heads"])
@pytest.mark.parametrize("function", [rules, steps, triangular, constant])
def test_the_cells_of_users(function, mixing, ties):
    cell = rs.Cell(function, state=("h", "c"), output="h").random(input_size=2, hidden_size=8, mixing=mixing, rng=0)
    check(*hard(cell, ties))


def test_the_structure_of_a_program():
    program = trace_cell(rs.Cell(triangular, state=("h", "c"), output="h"))
    assert [[entry is None for entry in row] for row in program.jacobian] == [[True, False], [True, False]]
    program = trace_cell(rs.Cell(steps, state=("h", "c"), output="h"), "dense")
    assert [(call.mixing, call.number, call.level) for call in program.calls] == [("h", None, 0), ("h", 2, 0)]
    assert (program.drives, program.parameters, program.mixings) == (("h",), ("a",), {"h": "dense"})
    program = trace_cell(rs.cells.ChoGRU, {"r": "diagonal", "z": "dense", "n": "heads"})
    assert [[call.mixing for call in stage.calls] for stage in program.stages] == [["z", "n"], []]
    assert "\n  heads m.1 = W.n(t6)\n  d input of m.0 / d s.h = 1.0\n  d input of m.1 / d s.h = t8\n" in str(program)
    with pytest.raises(ValueError, match="wanted"):
        trace_cell(rs.cells.GRU, {"r": "dense"})


def test_fingerprints():
    cells = {(name, mixing): trace_cell(rs.cells.get(name), mixing).fingerprint for name, mixing in gallery.CELLS}
    assert len(set(cells.values())) == len(cells)
    assert len({trace_cell(rs.cells.MinMax, ties=share).fingerprint for share in TIES}) == len(TIES)
    code = (
        "import recsolve as rs; from recsolve.symbolic.tracing import trace_cell;"
        f"print([trace_cell(rs.cells.get(n), m).fingerprint for n, m in {list(cells)!r}])"
    )
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        assert done.stdout.strip() == str(list(cells.values()))


def helper(x):
    return x if x > 0 else 0.1 * x  # the line


UNTRACEABLE = [
    (lambda s, W, u, p: u.h + (s.h if s.h > 0 else -s.h), "where"),
    (lambda s, W, u, p: u.h + max(s.h, 0.0), "maximum"),
    (lambda s, W, u, p: u.h + (1.0 if u.h > 0 and s.h > 0 else 0.0), "where"),
    (lambda s, W, u, p: u.h + sum(x for x in s.h), "loop"),
    (lambda s, W, u, p: u.h + np.sum(s.h), "numpy.sum"),
    (lambda s, W, u, p: u.h + s.h.sum(), ".sum"),
    (lambda s, W, u, p: u.h + s.h[..., 0], "indexing"),
    (lambda s, W, u, p: u.h[..., :1] + s.h, "indexing"),
    (lambda s, W, u, p: np.fmax(u.h, 0) + s.h, "numpy.fmax"),
    (lambda s, W, u, p: np.add.reduce(u.h) + s.h, "numpy.add.reduce"),
    (lambda s, W, u, p: u.h + np.asarray(s.h), "plain array"),
    (lambda s, W, u, p: u.h + s.h * np.array([1.0]), "parameter"),
    (lambda s, W, u, p: u.h + ((s.h > 0) + (u.h > 0)), "conditions"),
    (lambda s, W, u, p: u.h + s.h / s.h.shape[-1], "index"),
]


@pytest.mark.parametrize(("function", "words"), UNTRACEABLE)
def test_what_cannot_be_traced_is_named_with_its_line(function, words):
    cell = rs.Cell(function, state=("h",), output="h", name="mine")
    with pytest.raises(TypeError, match=words) as caught:
        trace_cell(cell)
    place = f"mine cannot be traced at line {function.__code__.co_firstlineno} of {__file__}, `(lambda s, W, u, p:"
    assert str(caught.value).startswith(place)


def test_the_line_is_that_of_a_helper_where_one_is_called():
    cell = rs.Cell(lambda s, W, u, p: helper(s.h) + u.h, state=("h",), output="h")
    with pytest.raises(TypeError, match=r"`return x if x > 0 else 0\.1 \* x  # the line`.*where\(condition, a, b\)"):
        trace_cell(cell)


def test_nodes_never_change_and_stay_in_their_graph():
    x, other = Graph().leaf("component", "x"), Graph().leaf("component", "x")
    with pytest.raises(AttributeError, match="changed"):
        x.index = 3
    with pytest.raises(TypeError, match="another graph"):
        _ = x + other
