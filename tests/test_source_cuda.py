"""The CUDA C++ of traced cells: its elementary functions, and random expressions against NumPy, built by g++."""

import ctypes

import cuda_host
import numpy as np
import pytest
from cuda_host.solves import TYPES, elementwise
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_dialect import numpy_function
from test_tracing_fuzz import LEAVES, SPECIAL, traced, trees

from recsolve.kernels.codegen.cuda_elementwise import module, statements
from recsolve.symbolic import emit

pytestmark = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")


def floats(rng):
    """Floats of all sizes, dense where functions bend, and what is special."""
    sizes = np.exp2(rng.uniform(-149, 127, 20_000)) * rng.choice([-1, 1], 20_000)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 88.8, -88.8, 104.0, 1e30])
    return np.concatenate([sizes, rng.uniform(-12, 12, 40_000), rng.uniform(-1, 1, 20_000), special]).astype("f4")


def ulps(found, exact, floor):
    """Errors in units in the last place of the exact values, or of ``floor`` where these are smaller."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))
    known = np.isfinite(exact)
    np.testing.assert_array_equal(found[~known & ~np.isnan(exact)], exact[~known & ~np.isnan(exact)])
    unit = np.spacing(np.maximum(np.abs(exact[known]), floor).astype("f4")).astype("f8")
    return np.abs(found[known] - exact[known]) / unit


def test_tanh_and_sigmoid_of_full_precision():
    """With functions of the hardware that are as wrong as they may be."""
    x = floats(np.random.default_rng(0))
    f = elementwise({"tanh": 1, "sigmoid": 1, "softplus": 1, "logaddexp": 2}, "float32", "Full")
    wide = x.astype("f8")
    with np.errstate(all="ignore"):
        assert ulps(f["tanh"](x), np.tanh(wide), 0).max() < 3.5
        assert ulps(f["sigmoid"](x), 1 / (1 + np.exp(-wide)), 0.125).max() < 5
        assert ulps(f["softplus"](x), np.logaddexp(wide, 0), 0).max() < 3
        y = np.random.default_rng(1).permutation(x)
        exact = np.logaddexp(wide, y.astype("f8"))
        size = np.maximum(*(np.where(np.isfinite(a), np.abs(a), 0) for a in (x, y)))
        assert ulps(f["logaddexp"](x, y), exact, size[np.isfinite(exact)]).max() < 4


def test_rough_functions_are_near():
    x = np.linspace(-15, 15, 10_001, dtype="f4")
    f = elementwise({"tanh": 1, "sigmoid": 1, "exp": 1, "reciprocal": 1}, "float32", "Rough")
    np.testing.assert_allclose(f["tanh"](x), np.tanh(x), rtol=2e-3)
    np.testing.assert_allclose(f["sigmoid"](x), 1 / (1 + np.exp(-x)), atol=1e-3)
    np.testing.assert_allclose(f["exp"](x), np.exp(x), rtol=1e-5)
    x = np.array([np.inf, -np.inf, np.nan], "f4")
    np.testing.assert_array_equal(f["tanh"](x), [1, -1, np.nan])
    np.testing.assert_array_equal(f["sigmoid"](x), [1, 0, np.nan])


def compiled(expressions, dtype):
    """Return a function of arrays x, y, u that evaluates expressions, each with what it shares with its partials."""
    T = TYPES[dtype]
    loops = []
    for number, outputs in enumerate(expressions):
        written, named = statements(outputs)
        loads = "".join(f"const T s_{name} = a[{i}][i]; (void)s_{name}; " for i, name in enumerate(LEAVES))
        stores = "".join(f"z[{i}][i] = {result}; " for i, result in enumerate(named))
        loops.append(
            f'extern "C" void f_{number}(const {T}* const* a, {T}* const* z, long long n) {{\n'
            f"    using namespace recsolve;\n    using T = {T};\n    using M = Full<T>;\n    (void)sizeof(M);\n"
            f"    for (long long i = 0; i < n; ++i) {{ {loads}{' '.join(written)} {stores}}}\n}}"
        )
    return cuda_host.load("\n".join([module("", kernels=False), *loops]))


def run(library, number, arrays, count, dtype):
    with np.errstate(over="ignore"):
        given = [np.ascontiguousarray(arrays[name], dtype) for name in LEAVES]
    out = [np.empty_like(given[0]) for _ in range(count)]
    pointers = [(ctypes.c_void_p * len(xs))(*(x.ctypes.data for x in xs)) for xs in (given, out)]
    getattr(library, f"f_{number}")(*pointers, ctypes.c_longlong(given[0].size))
    return out


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=3)
@given(st.lists(st.tuples(trees, st.sampled_from([0.0, 0.5, 1.0])), min_size=20, max_size=20))
def test_random_expressions(dtype, drawn):
    """Values and partials against NumPy; a step may fall on either side where the two round apart."""
    outputs = [[value, *partials.values()] for value, partials in (traced(tree, ties) for tree, ties in drawn)]
    library = compiled(outputs, dtype)
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(-1.5, 1.5, 400).astype(dtype) for name in LEAVES}
    grids = dict(zip(LEAVES, (a.ravel() for a in np.meshgrid(SPECIAL, SPECIAL, SPECIAL)), strict=True))
    bound = {"float32": 2e-3, "float64": 1e-11}[dtype]
    for number, nodes in enumerate(outputs):
        names = [leaf.name for leaf in emit.leaves(nodes)]
        with np.errstate(all="ignore"):
            wide = numpy_function(nodes)(np.float64, *[arrays[name].astype("f8") for name in names])
        for found, exact in zip(run(library, number, arrays, len(nodes), dtype), wide, strict=True):
            exact = np.broadcast_to(exact, found.shape)
            known = np.isfinite(exact)
            assert (known == np.isfinite(found)).mean() > 0.95
            near = np.abs(found - exact)[known] <= bound * (1 + np.abs(exact[known]))
            assert near.mean() > 0.95
        for found in run(library, number, grids, len(nodes), dtype)[:1]:  # NaN goes through what it goes through
            with np.errstate(all="ignore"):
                exact = numpy_function(nodes)(np.dtype(dtype).type, *[grids[n].astype(dtype) for n in names])[0]
            assert (np.isnan(found) == np.isnan(np.broadcast_to(exact, found.shape))).mean() > 0.95


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_minima_and_choices_are_those_of_numpy(dtype):
    tree = ("where", "greater", ("leaf", "x"), ("number", 0.0), ("maximum", ("leaf", "x"), ("leaf", "y")),
            ("minimum", ("leaf", "y"), ("leaf", "u")))  # fmt: skip
    for ties in (0.0, 0.5, 1.0):
        value, partials = traced(tree, ties)
        outputs = [value, *partials.values()]
        grid = dict(zip(LEAVES, (a.ravel() for a in np.meshgrid(SPECIAL, SPECIAL, SPECIAL)), strict=True))
        with np.errstate(all="ignore"):
            arrays = {name: x.astype(dtype) for name, x in grid.items()}
            names = [leaf.name for leaf in emit.leaves(outputs)]
            exact = numpy_function(outputs)(np.dtype(dtype).type, *[arrays[name] for name in names])
        for found, wanted in zip(run(compiled([outputs], dtype), 0, arrays, len(outputs), dtype), exact, strict=True):
            np.testing.assert_array_equal(found, np.broadcast_to(wanted, found.shape))


def test_a_product_in_a_sum_is_fused_wherever_it_occurs():
    tree = ("add", ("multiply", ("leaf", "x"), ("leaf", "y")), ("leaf", "u"))
    value, partials = traced(tree, None)
    product = next(node for node in value.arguments if node.operation == "multiply")
    alone, together = statements([value])[0], statements([value, *partials.values(), product])[0]
    assert alone == ["const T t0 = multiply_add(s_x, s_y, s_u);"]
    assert any("multiply_add(s_x, s_y, s_u)" in line for line in together)
    assert any("s_x * s_y" in line for line in together)
