"""Random expressions: nodes against arrays to the last bit, and both against finite differences."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_dialect import numpy_function

import recsolve as rs
from recsolve.base.ties import check_ties, ties_in_force
from recsolve.math import sigmoid, softplus
from recsolve.symbolic import dual, emit
from recsolve.symbolic.dual import ONE, Dual, value_of
from recsolve.symbolic.graph import Graph

FUNCTIONS = {"sigmoid": sigmoid, "softplus": softplus}
PLAIN = {"negative", "positive", "absolute", "tanh", "sigmoid", "softplus", "add", "subtract", "multiply"} | set(
    dual.WINS
)
POSITIVE = {"log", "log1p", "sqrt", "reciprocal"}
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 700.0, -1e300, np.inf, -np.inf, np.nan])
LEAVES = ("x", "y", "u")

numbers = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2, 3]).map(lambda value: ("number", value))
leaves = st.one_of(st.sampled_from(LEAVES).map(lambda name: ("leaf", name)), numbers)


def larger(trees):
    """Expressions with one more operation."""
    comparisons = st.sampled_from(["greater", "greater_equal", "less", "less_equal", "equal", "not_equal"])
    return st.one_of(
        st.tuples(st.sampled_from(sorted(dual.UNARY)), trees),
        st.tuples(st.sampled_from(sorted([*dual.BINARY, *dual.WINS])), trees, trees),
        st.tuples(st.just("where"), comparisons, trees, trees, trees, trees),
        st.tuples(st.just("neither"), comparisons, trees, trees, trees, trees),
        st.tuples(st.just("raised"), trees, st.sampled_from([0, 1, 3, 0.5, -2.0])),
    )


trees = st.recursive(leaves, larger, max_leaves=10)


def evaluated(tree, values):
    """Evaluate a tree; arguments of functions with poles, or that grow fast, are led into a safe domain first."""
    name, *rest = tree
    if name == "leaf":
        return values[rest[0]]
    if name == "number":
        return rest[0]
    if name == "raised":
        return (1.5 + np.tanh(evaluated(rest[0], values))) ** rest[1]
    if name in ("where", "neither"):
        a, b, c, d = (evaluated(part, values) for part in rest[1:])
        holds = getattr(np, rest[0])(a, b)
        return np.where(holds, c, d) if name == "where" else np.where(~(holds | np.isnan(a)), c, d)
    args = [evaluated(part, values) for part in rest]
    if name not in PLAIN:
        args = [np.tanh(arg) for arg in args]
    if name in POSITIVE or name == "power":
        args[0] = 1.5 + args[0]
    if name in ("divide", "arctan2"):
        args[1] = 2.0 + args[1]
    return (FUNCTIONS.get(name) or getattr(np, name))(*args)


def traced(tree, ties):
    """Return the nodes of a tree over the duals x, y and the constant u: its value, and its partials by leaf."""
    graph = Graph()
    nodes = {name: graph.leaf("component", name) for name in LEAVES}
    with ties_in_force(check_ties(ties)), np.errstate(all="ignore"):
        out = evaluated(tree, nodes | {name: Dual(nodes[name], {name: ONE}) for name in "xy"})
    partials = out.partials if isinstance(out, Dual) else {}
    return graph.number(value_of(out)), {leaf: graph.number(partial) for leaf, partial in partials.items()}


def emitted(tree, ties, arrays):
    value, partials = traced(tree, ties)
    outputs = [value, *partials.values()]
    with np.errstate(all="ignore"):
        results = numpy_function(outputs)(np.float64, *[arrays[leaf.name] for leaf in emit.leaves(outputs)])
    full = [np.broadcast_to(result, arrays["x"].shape) for result in results]
    return full[0], dict(zip(partials, full[1:], strict=True))


@settings(max_examples=300)
@given(trees, st.sampled_from([0.0, 0.5, 1.0]))
def test_nodes_follow_arrays_on_special_values(tree, ties):
    grid = (a.ravel() for a in np.meshgrid(SPECIAL, SPECIAL, SPECIAL))
    arrays = dict(zip(LEAVES, grid, strict=True))
    value, partials = emitted(tree, ties, arrays)
    with ties_in_force(check_ties(ties)), np.errstate(all="ignore"):
        out = evaluated(tree, arrays | {name: Dual(arrays[name], {name: ONE}) for name in "xy"})
    np.testing.assert_array_equal(value, np.broadcast_to(value_of(out), value.shape))
    wanted = out.partials if isinstance(out, Dual) else {}
    assert partials.keys() == wanted.keys()
    for leaf in partials:
        np.testing.assert_array_equal(partials[leaf], np.broadcast_to(wanted[leaf], value.shape))


@settings(max_examples=300)
@given(trees)
def test_partials_are_those_of_finite_differences(tree):
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(-1.5, 1.5, 40) for name in LEAVES}
    value, partials = emitted(tree, None, arrays)

    def slope(leaf, h):
        with np.errstate(all="ignore"):
            up, down = (evaluated(tree, arrays | {leaf: arrays[leaf] + step}) for step in (h, -h))
        return np.broadcast_to((up - down) / (2 * h), value.shape)

    for leaf, partial in partials.items():
        coarse, fine = slope(leaf, 2e-5), slope(leaf, 1e-5)
        size = 1 + np.abs(value) + np.abs(fine)
        smooth = np.abs(coarse - fine) <= 1e-6 * size  # no kink or step near
        assert smooth.mean() > 0.8
        np.testing.assert_array_less(np.abs(partial - fine)[smooth], (1e-5 * size)[smooth])


@settings(max_examples=12)
@given(trees, trees)
def test_compiled_loops_follow_arrays(first, second):
    """Numba's loops against duals of arrays; steps may fall on either side where two sides round apart."""

    def random_cell(s, W, u, p):
        values = {"x": s.x, "y": s.y, "u": u.u}
        return evaluated(first, values) + 0 * s.x, evaluated(second, values) + 0 * s.y

    cell = rs.Cell(random_cell, state=("x", "y"), output="x").with_weights(hidden_size=40)
    rng = np.random.default_rng(0)
    rec = cell.recurrence(drive={"u": rng.uniform(-1.5, 1.5, (3, 40))})
    previous = rng.uniform(-1.5, 1.5, rec.shape)
    found = {}
    for backend in ("numpy", "numba"):
        with rs.backend(backend):
            values, jacobian = rec.bind().differentiate(previous)
            found[backend] = np.concatenate([values.ravel(), jacobian.data.ravel()])
    a, b = found.values()
    known = np.isfinite(a)
    assert (known == np.isfinite(b)).mean() > 0.98
    close = np.abs(a - b)[known] <= 1e-11 * (1 + np.abs(a[known]))
    assert close.mean() > 0.98
