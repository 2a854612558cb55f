"""Ensembles: every member is what it is alone."""

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.mixings import Dense, Masked

E, T = 3, 40


def members(name, mixing, dtype=np.float64, masked=False):
    cells = [gallery.weighted(name, mixing, units=8, seed=seed, dtype=dtype) for seed in range(E)]
    if not masked:
        return cells
    masks = [np.random.default_rng(seed).random(cells[0].mixings["n"].weight.shape) < 0.5 for seed in range(E)]
    return [
        c.cell.with_weights(
            mixings={n: Masked(m, mask) for n, m in c.mixings.items()}, parameters=c.parameters, projection=c.projection
        )
        for c, mask in zip(cells, masks, strict=True)
    ]


CASES = [
    ("gru", "dense", False), ("lstm", "diagonal", False), ("cho_gru", "heads", False),
    ("gru", "dense", True), ("cho_gru", "diagonal", True),
]  # fmt: skip
COMPILED = CASES[:2]


@pytest.mark.parametrize(
    ("name", "mixing", "masked", "backend"), [(*c, "numpy") for c in CASES] + [(*c, "numba") for c in COMPILED]
)
def test_members_are_what_they_are_alone(name, mixing, masked, backend):
    cells = members(name, mixing, masked=masked)
    heads = cells[0].layout.lanes[0] if cells[0].layout.lanes else 1
    rng = np.random.default_rng(0)
    x, reset = rng.standard_normal((T, 2, 3)), rng.random((T, 2)) < 0.1
    with rs.backend(backend):
        together = rs.solve(rs.cells.ensemble(cells).recurrence(x, reset=reset), method="newton")
        assert together.trusted
        c = rng.standard_normal(together.output.shape)
        g = rs.adjoint(together, output=c)
        inputs = 0
        for e, cell in enumerate(cells):
            of = slice(e * heads, (e + 1) * heads) if cell.layout.lanes else e
            alone = rs.solve(cell.recurrence(x, reset=reset), method="newton")
            axis = (..., of, slice(None))
            np.testing.assert_allclose(together.states[axis], alone.states, atol=1e-12)
            own = rs.adjoint(alone, output=c[axis])
            inputs = inputs + own.inputs
            pairs = [(g.initial[axis], own.initial)]
            for kind in ("mixings", "parameters"):
                pairs += [(getattr(g, kind)[n][of], theirs) for n, theirs in getattr(own, kind).items()]
            for kind in ("weights", "biases"):
                pairs += [(g.projection[kind][n][of], theirs) for n, theirs in own.projection[kind].items()]
            for ours, theirs in pairs:
                assert ours.shape == theirs.shape
                np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(g.inputs, inputs, rtol=1e-9, atol=1e-10)


def test_drives_of_their_own_and_methods():
    cells = members("cho_gru", "dense")
    x = np.random.default_rng(0).standard_normal((E, T, 2, 3))
    drives = [cell.drive(one) for cell, one in zip(cells, x, strict=True)]
    rec = rs.cells.ensemble(cells).recurrence(drive={n: np.stack([d[n] for d in drives], axis=-2) for n in drives[0]})
    for method in ("sequential", "quasi_newton", "elk", "windowed"):
        sol = rs.solve(rec, method=method)
        for e, cell in enumerate(cells):
            alone = rs.solve(cell.recurrence(x[e]), method="sequential")
            np.testing.assert_allclose(sol.output[..., e, :], alone.output, atol=1e-12)
    single = rs.cells.ensemble(members("gru", "dense", np.float32))
    assert single.dtype == np.float32
    assert rs.solve(single.recurrence(np.ones((1, 3), np.float32))).output.shape == (1, E, 8)


def test_what_is_no_ensemble_is_refused():
    gru, wide = members("gru", "dense")[0], gallery.weighted("gru", "dense", units=4)
    low = rs.cells.Elman.with_weights(mixings={"h": rs.mixings.LowRank(np.ones((4, 1)), np.ones((4, 1)))})
    own = rs.cells.Elman.with_weights(mixings={"h": type("Own", (Dense,), {})(np.eye(3))})
    for error, message, cells in (
        (ValueError, "cells is empty", []),
        (TypeError, r"cells\[1\] is Cell", [gru, rs.cells.GRU]),
        (ValueError, r"cells\[1\] is .* wanted members alike", [gru, wide]),
        (ValueError, "wanted members alike", [gru, gallery.weighted("cho_gru", "dense", units=8)]),
        (ValueError, "minmax, which has no mixings", [gallery.weighted("minmax")]),
        (TypeError, "mixings of the members are LowRank", [low, low]),
        (TypeError, "mixings of the members are Own", [own]),
        (TypeError, "dtypes are mixed", [gru, gru.astype(np.float32)]),
    ):
        with pytest.raises(error, match=message):
            rs.cells.ensemble(cells)
