"""Every elementary operation on every backend, over the whole range of floats: NaN, infinities, signs, and accuracy.

The registry of operations is that of :mod:`recsolve.symbolic.graph`, so a new one is tested the moment it is there. A
backend is NumPy itself, the functions of compiled loops, or the CUDA C++ built for the host.
"""

from functools import cache

import cuda_host
import numpy as np
import pytest
from cuda_host.solves import elementwise
from test_elementary import computed

import recsolve as rs
from recsolve import math
from recsolve.symbolic.dual import BINARY, UNARY, WINS, evaluate
from recsolve.symbolic.emit import OPERATORS

FLOATS = {"float32": np.float64, "float64": np.longdouble}  # and what judges them
ARITY = dict.fromkeys(UNARY, 1) | dict.fromkeys((*BINARY, *WINS), 2)
NAMED = sorted(set(ARITY) - set(OPERATORS))  # what is no operator of all three languages
ULPS = 5.0  # units in the last place of the truth, or of the larger operand where the sum of two may cancel
CANCELS = {"logaddexp"}
FLUSHED = {"sigmoid"}  # 0 on some backends where it is below the normal range
FLOOR = {("sigmoid", "cuda", "float32"): 0.125}  # of the truth whose units count: the hardware's 2^x


def hard(dtype):
    """Floats of all sizes, what is special, and the neighbours of where functions bend, overflow or vanish."""
    limits = np.finfo(dtype)
    top, bottom = np.log(limits.max), np.log(limits.smallest_subnormal)
    bends = [0.0, limits.smallest_subnormal, limits.tiny, limits.eps, 0.5, 1.0, 1.5, 2.0, 3.0, np.pi / 2, np.pi]
    bends += [top, top + np.log(dtype(2)), -np.log(limits.tiny), -bottom, 2.0**46, 1e14, 1e22, 2.0**limits.nmant]
    bends += [limits.max, limits.max / 2, limits.max**0.5, limits.tiny**0.5]
    sizes = np.array(bends, dtype)
    with np.errstate(over="ignore"):
        sizes = np.concatenate([sizes, np.nextafter(sizes, dtype(np.inf)), np.nextafter(sizes, dtype(0))])
    bits = np.random.default_rng(0).integers(0, np.iinfo(f"u{limits.bits // 8}").max, 200, f"u{limits.bits // 8}")
    return np.concatenate([sizes, -sizes, bits.view(dtype), dtype([np.inf, -np.inf, np.nan])]).astype(dtype)


def operands(name, dtype):
    x = hard(dtype)
    return [x] if ARITY[name] == 1 else [a.ravel() for a in np.meshgrid(x, x)]


def truth(name, arguments, wide):
    """Return the operation in wider arithmetic, which the small ones of these functions are written for."""
    x = [a.astype(wide) for a in arguments]
    if name == "sigmoid":
        e = np.exp(-np.abs(x[0]))
        return np.where(x[0] >= 0, 1, e) / (1 + e)
    if name == "softplus":
        return np.maximum(x[0], 0) + np.log1p(np.exp(-np.abs(x[0])))
    return evaluate(name, x)


@cache
def emitted(dtype):
    """Return the functions of full precision, all in one module: building it is what takes time."""
    return elementwise({name: ARITY[name] for name in NAMED}, dtype, "Full")


BACKENDS = {
    "numpy": lambda name, dtype: lambda *x: evaluate(name, x),
    "numba": lambda name, dtype: lambda *x: computed(name, *x),
    "cuda": lambda name, dtype: emitted(dtype)[name],
}


def test_the_registry_has_all_that_cells_are_written_with():
    made = {"clip", "where", "relu", "softmax", "logsumexp"}  # of others; the last two are for functions
    sums = {"total", "mean", "dot", "layer_norm", "rms_norm", "gather"}  # over units, which no compiled loop knows
    assert set(math.__all__) - made - sums <= set(ARITY)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMED)
def test_an_operation_is_right_everywhere(name, backend, dtype):
    if backend == "cuda" and cuda_host.compiler() is None:
        pytest.skip("needs g++")
    kind, wide = np.dtype(dtype).type, FLOATS[dtype]
    arguments = operands(name, kind)
    limits = np.finfo(kind)
    with np.errstate(all="ignore"):
        found = BACKENDS[backend](name, dtype)(*arguments)
        exact = truth(name, arguments, wide)
        rounded = exact.astype(kind)
    assert found.dtype == kind
    where = [a.tolist() for a in arguments]

    def agree(good, what):
        bad = np.flatnonzero(~good)
        assert not bad.size, (what, bad.size, [([w[i] for w in where], found[i], rounded[i]) for i in bad[:6]])

    agree(np.isnan(found) == np.isnan(rounded), "NaN")
    known = ~np.isnan(rounded)
    with np.errstate(all="ignore"):
        # At the threshold of overflow a result may fall on either side: infinity is the number that follows.
        edge = np.ldexp(wide(1), limits.maxexp)
        size = np.maximum(np.abs(exact), FLOOR.get((name, backend, dtype), 0))
        size = np.maximum(size, np.abs(np.maximum(*arguments))) if name in CANCELS else size
        powers = np.clip(np.frexp(size)[1] - 1, limits.minexp, limits.maxexp - 1)
        allowed = ULPS * np.ldexp(wide(1), powers - limits.nmant)
        allowed = np.maximum(allowed, limits.tiny) if name in FLUSHED else allowed
        error = np.abs(np.clip(found.astype(wide), -edge, edge) - np.clip(exact, -edge, edge))
    agree(~known | (error <= allowed), "accuracy")
    if name not in CANCELS | set(WINS):
        agree(~known | (np.signbit(found) == np.signbit(rounded)), "sign")


@pytest.mark.parametrize("mixing", ["diagonal", "dense"])
def test_a_row_with_a_far_angle_is_computed_again(mixing):
    """States, Jacobians and gradients of compiled loops, where some steps have one such lane, and some none."""

    def function(s, W, u, p):
        return 0.3 * math.sin(W.h(s.h) + u.h) + 0.2 * math.cos(u.h) * s.h

    cell = rs.Cell(function, state=("h",), output="h").random(input_size=1, hidden_size=5, mixing=mixing, rng=0)
    drive = np.random.default_rng(0).normal(size=(12, 5))
    drive[3, 2], drive[4, 4], drive[8, 0] = 1e15, -np.finfo(float).max, 3e200
    rec = cell.recurrence(drive={"h": drive})
    results = []
    for backend in ("numpy", "numba"):
        with rs.backend(backend):
            sol = rs.solve(rec, method="sequential")
            values, J = rec.linearise(sol.states)
            g = rs.adjoint(sol, states=np.ones_like(sol.states))
            results.append([sol.states, values, J.todense(), g.initial, g.drive.h, g.mixings.h])
    for reference, found in zip(*results, strict=True):
        assert np.isfinite(reference).all()
        np.testing.assert_allclose(found, reference, rtol=1e-13, atol=1e-15)
