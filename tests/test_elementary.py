"""The elementary functions of compiled loops: accuracy against more digits, special values against NumPy, vectors."""

import platform
import re
import subprocess
import sys
from functools import cache

import llvmlite.binding
import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsolve.kernels.cpu.jit.elementary import functions
from recsolve.symbolic.emit import OPERATORS
from recsolve.symbolic.graph import OPERATIONS

FLOATS = (np.float32, np.float64)
CONDITIONS = ("isnan", "isfinite", "isinf", "is_far")
BINARY = ("power", "logaddexp", "arctan2", "hypot", "minimum", "maximum")
# The table of recsolve.kernels.cpu.jit.elementary: units in the last place for float32 and float64.
BOUNDS = {
    "exp": (1.0, 1.0),
    "expm1": (1.6, 2.0),
    "tanh": (2.6, 2.7),
    "sigmoid": (2.5, 2.3),
    "sinh": (2.3, 2.5),
    "cosh": (1.5, 1.5),
    "log": (0.9, 0.9),
    "log1p": (1.5, 1.5),
    "softplus": (1.8, 1.8),
    "logaddexp": (3.3, 3.3),
    "sin": (0.51, 0.9),
    "cos": (0.51, 0.9),
    "tan": (0.51, 2.4),
    "arctan": (2.0, 2.0),
    "arctan2": (2.0, 2.0),
    "power": (0.51, 1.3),
    "hypot": (1.2, 1.2),
    "sqrt": (0.5, 0.5),
    "square": (0.5, 0.5),
    "reciprocal": (0.5, 0.5),
}
EXACT = ("positive", "absolute", "sign", "floor", "ceil", "rint", "trunc", "minimum", "maximum", *CONDITIONS[:3])
MANY = 1 << 15
ANGLES = ("sin", "cos", "tan")
NEAR = tuple(f"near_{name}" for name in ANGLES)  # what loops that become vectors call up to where is_far begins
MORE_DIGITS = np.finfo(np.longdouble).nmant >= 63
CASES = [pytest.param(name, dtype, id=f"{name}-{dtype.__name__}") for name in (*BOUNDS, *EXACT) for dtype in FLOATS]


@cache
def loop(name, dtype):
    """Return a loop over contiguous arrays, compiled as generated ones are."""
    function = functions(dtype)[name]

    def unary(x, out):
        for i in range(out.size):
            out[i] = function(x[i])

    def binary(x, y, out):
        for i in range(out.size):
            out[i] = function(x[i], y[i])

    compiled = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})(binary if name in BINARY else unary)
    array = numba.from_dtype(np.dtype(dtype))[::1]
    out = numba.boolean[::1] if name in CONDITIONS else array
    compiled.compile((array,) * (2 if name in BINARY else 1) + (out,))
    compiled.disable_compile()
    return compiled


def computed(name, *arguments):
    arguments = [np.ascontiguousarray(x) for x in np.broadcast_arrays(*arguments)]
    out = np.empty(arguments[0].shape, bool if name in CONDITIONS else arguments[0].dtype)
    loop(name, arguments[0].dtype.type)(*arguments, out)
    return out


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def true(name, *arguments):
    """Return the values for arguments of any dtype, from its functions."""
    own = {"sigmoid": sigmoid, "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))}
    with np.errstate(all="ignore"):
        return own.get(name, getattr(np, name, None))(*arguments)


def everywhere(dtype, seed):
    """Return floats with bits at random: all exponents, NaN and infinities among them."""
    kind = np.dtype(f"u{np.dtype(dtype).itemsize}")
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max, MANY, kind, endpoint=True).view(dtype)


def samples(name, dtype):
    """Yield arguments over the whole range and where functions are hard."""
    random = np.random.default_rng(3)
    widest = 1.2 * float(np.log(np.finfo(dtype).max))
    if name not in BINARY:
        yield (everywhere(dtype, 1),)
        for width in (0.8, 2.0, 20.0, widest, 1e5, 1e9):
            yield (random.uniform(-width, width, MANY).astype(dtype),)
        yield (np.exp(random.uniform(-30, 6, MANY)).astype(dtype),)
        yield ((random.integers(-(1 << 40), 1 << 40, MANY) * (np.longdouble(np.pi) / 2)).astype(dtype),)
        return
    yield everywhere(dtype, 1), everywhere(dtype, 2)
    yield tuple(random.normal(0, 30, (2, MANY)).astype(dtype))
    yield tuple(np.exp(random.uniform(-3, 3, (2, MANY))).astype(dtype))
    yield tuple(random.integers(0, 50, (2, MANY)).astype(dtype) * np.finfo(dtype).smallest_subnormal)
    yield tuple(random.uniform(0.1, 1, (2, MANY)).astype(dtype) * np.finfo(dtype).max)
    for base in (np.abs(everywhere(dtype, 4)), (1 + 10 ** random.uniform(-7, 0, MANY)).astype(dtype)):
        with np.errstate(all="ignore"):  # exponents that take the power over the range
            yield base, (random.uniform(-widest, widest, MANY) / np.log(base.astype(float))).astype(dtype)


def ulps(result, truth, scale):
    """Return errors in units in the last place of ``scale``; infinity counts as the number after the largest."""
    limits = np.finfo(result.dtype)
    wide = truth.dtype.type
    top = np.ldexp(wide(1), limits.maxexp)
    result = np.clip(result.astype(wide), -top, top)
    exponents = np.clip(np.frexp(scale)[1] - 1, limits.minexp, limits.maxexp - 1)
    errors = np.abs(result - np.clip(truth, -top, top)) / np.ldexp(wide(1), exponents - limits.nmant)
    return np.where(np.isnan(result) & np.isnan(truth), 0, np.where(np.isnan(errors), np.inf, errors))


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_operation_is_there(dtype):
    missing = OPERATIONS - {"where"} - OPERATORS.keys() - functions(dtype).keys()
    assert not missing
    assert set(functions(dtype)) == {*BOUNDS, *EXACT, *NEAR, "is_far"}
    assert functions(np.dtype(dtype)) is functions(dtype)


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="float16"):
        functions(np.float16)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", BOUNDS)
def test_errors_stay_within_their_bounds(name, dtype):
    if dtype is np.float64 and not MORE_DIGITS:
        pytest.skip("no type with more digits than float64 here")
    wide = np.float64 if dtype is np.float32 else np.longdouble
    for arguments in samples(name, dtype):
        with np.errstate(all="ignore"):
            result, truth = computed(name, *arguments), true(name, *(x.astype(wide) for x in arguments))
            scale = np.abs(truth)
            if name == "logaddexp":
                scale = np.maximum(scale, np.abs(np.maximum(*arguments)))
            errors = ulps(result, truth, scale)
        worst = np.argmax(errors)
        assert errors[worst] <= BOUNDS[name][FLOATS.index(dtype)], [x[worst] for x in arguments]
        signs = np.signbit(result) == np.signbit(truth)
        assert (signs | np.isnan(truth) | (name == "logaddexp")).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", EXACT)
def test_what_needs_no_rounding_is_exact(name, dtype):
    for arguments in samples(name, dtype):
        assert np.array_equal(computed(name, *arguments), true(name, *arguments), equal_nan=name not in CONDITIONS)


def special(dtype):
    limits = np.finfo(dtype)
    sizes = [0, limits.smallest_subnormal, limits.tiny, limits.eps, 0.5, 1, 1.5, 2, 3, 4, 1e5, limits.max, np.inf]
    return np.array([*sizes, *(-size for size in map(float, sizes)), np.nan]).astype(dtype)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_special_values_are_those_of_numpy(name, dtype):
    x = special(dtype)
    arguments = [a.ravel() for a in np.meshgrid(x, x)] if name in BINARY else [x]
    result, reference = computed(name, *arguments), true(name, *arguments)
    edges = ~np.isfinite(reference) | (reference == 0)
    assert np.array_equal(result[edges], reference[edges], equal_nan=name not in CONDITIONS)
    assert np.allclose(result[~edges], reference[~edges], rtol=8 * np.finfo(dtype).eps, atol=0)
    if name not in (*CONDITIONS, "minimum", "maximum"):
        signed = ~np.isnan(reference)
        assert np.array_equal(np.signbit(result)[signed], np.signbit(reference)[signed])


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_tail_of_the_sigmoid_is_that_of_the_exponential(dtype):
    last = np.log(float(np.finfo(dtype).smallest_subnormal))
    x = np.linspace(last, last / 2, 1000).astype(dtype)
    assert (computed("sigmoid", x) > 0).all()
    assert np.array_equal(computed("sigmoid", x), computed("exp", x))
    assert computed("sigmoid", np.array([-np.inf, np.inf], dtype)).tolist() == [0, 1]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["exp", "expm1", "tanh", "sigmoid", "softplus", "log", "log1p", "arctan", "sinh"])
@given(st.floats(-100, 100, width=32))
def test_functions_rise_to_within_their_errors(name, dtype, start):
    x = np.array([start]).astype(dtype)
    x = x + np.abs(x) * np.linspace(0, 1e-3, 100).astype(dtype)
    y = computed(name, x)
    y = y[~np.isnan(y) & np.isfinite(y)]
    slack = 2 * max(BOUNDS[name]) * np.spacing(np.abs(y[:-1]))
    assert (np.diff(y) >= -slack).all()


@pytest.mark.parametrize("dtype", FLOATS)
@given(st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=40))
def test_identities_hold(dtype, values):
    x = np.array(values, dtype)
    eps = np.finfo(dtype).eps
    near = {"rtol": 8 * eps, "atol": 0}
    for name in ("tanh", "sinh", "arctan", "sin", "tan"):
        assert np.array_equal(computed(name, -x), -computed(name, x))
    for name in ("cosh", "cos"):
        assert np.array_equal(computed(name, -x), computed(name, x))
    assert np.allclose(computed("sin", x) ** 2 + computed("cos", x) ** 2, 1, **near)
    assert np.allclose(computed("log", computed("exp", x)), x, rtol=4 * eps, atol=2 * eps)
    assert np.allclose(computed("log1p", computed("expm1", np.abs(x))), np.abs(x), **near)
    assert np.array_equal(computed("logaddexp", x, dtype(0)), computed("logaddexp", dtype(0), x))
    assert np.array_equal(computed("power", x, dtype(2)), x * x)


def test_results_do_not_depend_on_the_place_in_the_loop():
    x = np.random.default_rng(0).normal(0, 3, 67).astype(np.float32)
    for name in ("exp", "tanh", "sigmoid", "log1p", "sin", "arctan"):
        assert np.array_equal(computed(name, x)[5:], computed(name, x[5:]), equal_nan=True)


def fuses():
    features = llvmlite.binding.get_host_cpu_features()
    return platform.machine() not in ("x86_64", "AMD64") or features.get("fma", False)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_loops_become_vectors(name, dtype):
    if name in (*ANGLES, "power") and not fuses():
        pytest.skip("no fused multiplication here")
    compiled = loop(f"near_{name}" if name in ANGLES else name, dtype)
    (signature,) = compiled.signatures
    body = compiled.inspect_llvm(signature).partition("define")[2].partition("\n}")[0]
    kind = "float" if dtype is np.float32 else "double"
    moved = rf"(load|store) <\d+ x {kind}>"
    assert re.search(moved, body)
    called = set(re.findall(r"call [^@\n]*@\"?([\w.]+)", body))
    assert all(function.startswith("llvm.") for function in called), called
    # What LLVM has no instruction for becomes a call of the C library only when it is written out.
    assembly = compiled.inspect_asm(signature)
    named = {"exp", "expm1", "log", "log1p", "tanh", "sin", "cos", "tan", "sinh", "cosh", "atan", "atan2"}
    named |= {"pow", "fma", "sqrt", "floor", "ceil", "rint", "trunc", "hypot", "copysign"}
    assert not named & {word.removesuffix("f") for word in re.findall(r"[$@ \t](\w+)", assembly)}


CALL = """
import sys
import numpy as np
sys.path.insert(0, {folder!r})
from generated import loop
x = np.linspace(-3, 3, 1000, dtype=np.float32)
y = np.empty_like(x)
loop(x, y)
assert np.allclose(y, np.tanh(x) * np.exp(x) + np.abs(x) ** x + np.sin(x), rtol=1e-5)
print(sum(loop.stats.cache_hits.values()))
"""
GENERATED = """
import numba
import numpy as np
from recsolve.kernels.cpu.jit.elementary import functions
table = functions(np.float32)
tanh, exp, power, sin, absolute = (table[name] for name in ("tanh", "exp", "power", "sin", "absolute"))

@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def loop(x, y):
    for i in range(x.size):
        y[i] = tanh(x[i]) * exp(x[i]) + power(absolute(x[i]), x[i]) + sin(x[i])
"""


def test_a_cached_loop_is_loaded_by_a_second_process(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    (tmp_path / "generated.py").write_text(GENERATED)
    source = CALL.format(folder=str(tmp_path))
    runs = [subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True) for _ in "12"]
    assert [int(run.stdout) for run in runs] == [0, 1]
