"""Scans of factored Jacobians by sweeps: they agree with the loop, or find nothing."""

import numpy as np
import pytest
from test_scan_numba import AFFINE, close, loop
from test_scan_numba_dense import FACTORED, factored, masks

import recsolve as rs
from recsolve.jacobians.factored import Call, Factored
from recsolve.kernels.gpu.scan.factored_sweeps import most_sweeps, sweep_factored


def relative(y, wanted):
    """The largest error in the size of the largest number of its step."""
    axes = tuple(range(1, y.ndim))
    return float((abs(y - wanted).max(axis=axes) / abs(wanted).max(axis=axes)).max())


@pytest.mark.parametrize(("place", "layout"), list(enumerate(FACTORED)))
def test_sweeps_agree_with_the_loop(place, layout):
    dtype = np.float64 if place % 2 else np.float32
    for T, batch in [(33, (2,)), (33, ()), (2, (1,))]:
        rng = np.random.default_rng(T)
        A, b = factored(T, layout, batch, dtype)
        start = rng.standard_normal(b.shape[1:]).astype(dtype)
        for J in (A, A.transpose()):
            for reset in masks(b, rng):
                for initial in (None, start):
                    y = sweep_factored(J, b, initial=initial, reset=reset, most=60)
                    assert y is not None
                    assert y.dtype == dtype
                    close(y, loop(AFFINE, (J, b), initial, reset))


def test_what_decays_is_right_for_its_size():
    """The adjoint of a loss of the last step falls by orders of magnitude, and early steps count as late ones do."""
    A, b = factored(60, rs.Layout(units=9), ())
    A, b[1:] = A.scale(0.6), 0
    wanted = loop(AFFINE, (A, b))
    assert abs(wanted[-1]).max() < 1e-8
    assert relative(sweep_factored(A, b, most=60), wanted) < 1e-12


def test_sweeps_that_do_not_converge_find_nothing_soon(monkeypatch):
    n = 12
    rng = np.random.default_rng(0)
    W = rs.mixings.Dense(rng.standard_normal((n, n)))
    ones = np.ones((400, n))
    A = Factored([Call(W, {0: ones})], [{1: 0.9 * ones}], rs.Layout(units=n), (400,))
    products = []
    matvec = Factored.matvec
    monkeypatch.setattr(Factored, "matvec", lambda self, v: products.append(1) or matvec(self, v))
    with np.errstate(all="ignore"):
        assert sweep_factored(A, rng.standard_normal((400, n)), most=300) is None
    assert len(products) < 10
    assert sweep_factored(A, rng.standard_normal((400, n)), most=7) is None  # too few for a try


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_not_finite_is_left_to_the_walk_at_once(bad, monkeypatch):
    A, b = factored(33, rs.Layout(units=9))
    b[7, 0, 2] = bad
    products, matvec = [], Factored.matvec
    monkeypatch.setattr(Factored, "matvec", lambda self, v: products.append(1) or matvec(self, v))
    with np.errstate(all="ignore"):
        assert sweep_factored(A, b, most=60) is None
    assert len(products) == 1


def test_sweeps_are_tried_where_few_sequences_are_long():
    def most(T, batch, n, depth=1, dtype=np.float32):
        ones = np.broadcast_to(dtype(1), (T, batch, n))
        W = rs.mixings.Dense(np.broadcast_to(np.float32(1), (n, n)))
        calls = [Call(W, {i: ones}) for i in range(depth)]
        return most_sweeps(Factored(calls, [{depth: ones}], rs.Layout(units=n), (T, batch)), ones)

    assert most(16384, 1, 256) > 12
    assert most(512, 1, 256) == 0
    assert most(2048, 64, 1024) < 8
    assert most(16384, 1, 256, dtype=np.float16) == 0  # which is scanned in float32
    assert most(16384, 1, 256, depth=3) == 0  # whose blocks would take a matrix for every step
