"""Numbers that a function sees beside its arguments, and functions that are none."""

import gallery
import numpy as np
import pytest
from closures import closures
from test_exact_types import BACKENDS, T, drives, weight_of

import recsolve as rs
from recsolve.math import tanh
from recsolve.mixings import MIXINGS
from recsolve.recurrence.compilation import traced_of


def closed_over(place, kind):
    function, change = closures(0.5)[place]
    cell = rs.Cell(function, state=("x",), output="x")
    weighted = cell.with_weights(mixings={"h": MIXINGS[kind](weight_of(kind))})
    return weighted.recurrence(drive={"u0": drives(rs.cells.Elman, kind)["h"]}), change


@pytest.mark.parametrize("kind", MIXINGS)
@pytest.mark.parametrize("place", list(closures(0.5)))
def test_numbers_that_a_cell_closes_over_are_part_of_its_program(place, kind):
    rec, change = closed_over(place, kind)
    found = []
    for value in (0.5, 0.25, 0.5):
        change(value)
        with rs.backend("numba"):
            found.append(traced_of(rec))
            assert traced_of(rec) is found[-1]
    prints = [traced.program.fingerprint for traced in found]
    assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize(("place", "kind"), [("closure cell", "diagonal"), ("attribute", "dense")])
def test_numbers_that_a_cell_closes_over_are_part_of_what_is_compiled(place, kind):
    rec, change = closed_over(place, kind)
    states = np.random.default_rng(0).standard_normal(rec.shape)
    for value in (0.5, 0.25, 0.5):
        change(value)
        with rs.backend("numpy"):
            wanted, (F, J) = gallery.loop(rec), rec.linearise(states)
        with rs.backend("numba"):
            assert rec.compiled
            np.testing.assert_allclose(rs.solve(rec, method="sequential").states, wanted, rtol=1e-12, atol=1e-12)
            G, K = rec.linearise(states)
            np.testing.assert_allclose(rec.evaluate(states), F, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(G, F, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(K.matvec(states), J.matvec(states), rtol=1e-12, atol=1e-12)


def draws():
    rng, count = np.random.default_rng(0), iter(range(10**9))

    def counter():
        return 1.0 + 1e-3 * (next(count) % 7)

    return {"random": lambda: 1 + 1e-3 * rng.standard_normal(), "counter": counter}


@pytest.mark.parametrize("kind", ["random", "counter"])
def test_a_cell_that_is_no_function_is_refused_where_it_is_defined(kind):
    draw = draws()[kind]
    with pytest.raises(ValueError, match="noisy is not a function: called again with the same arguments"):
        rs.Cell(lambda s, W, u, p: tanh(s.h + u.h) * draw(), state=("h",), output="h", name="noisy")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["random", "counter"])
def test_what_becomes_no_function_is_refused_where_it_is_solved(kind, backend):
    draw, on = draws()[kind], []
    cell = rs.Cell(lambda s, W, u, p: tanh(s.h + u.h) * (draw() if on else 0.9), state=("h",), output="h", name="noisy")
    weighted = cell.with_weights(hidden_size=2)
    recs = [weighted.recurrence(drive={"h": np.ones((T, 2))})]
    recs.append(
        gallery.function(lambda h, u: np.tanh(h + u) * (draw() if on else 0.9), np.ones((T, 2)))
    )  # fmt: skip
    with rs.backend(backend):
        for rec in recs:
            on.clear()
            assert rs.solve(rec).success
            on.append(1)
            for method in ("sequential", "newton", "jacobi"):
                with pytest.raises(ValueError, match="is not a function: called again"):
                    rs.solve(rec, method=method)


def test_a_cell_that_asks_for_the_shape_of_what_it_gets_is_not_believed():
    """Traced on numbers without axes it is another function: the first solve compares it with arrays."""
    cell = rs.Cell(lambda s, W, u, p: 0.5 * s.h + u.h * (1 + np.ndim(s.h)), state=("h",), output="h")
    rec = cell.with_weights(hidden_size=2).recurrence(drive={"h": np.ones((T, 2))})
    with rs.backend("numba"):
        assert not rs.solve(rec, method="newton").success
        assert not rs.solve(rec, method="newton").success
