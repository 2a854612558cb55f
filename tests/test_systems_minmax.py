"""MinMax neurons: slopes of 0 and 1, words that are told apart, parity."""

import numpy as np
import pytest

import recsolve as rs
from recsolve.studies.systems import minmax
from recsolve.studies.systems.system import get


def test_rows_of_the_jacobian_of_a_matrix_have_at_most_one_1_and_products_of_them_too():
    rec = get("minmax_matrix").build(length=60, batch=3)
    J = rec.linearise(rs.solve(rec).states)[1].todense()
    assert set(np.unique(J)) == {0.0, 1.0}
    assert J.sum(axis=-1).max() == 1
    product = np.eye(J.shape[-1])
    for t in range(20):
        product = J[t] @ product
        assert np.abs(product).sum(axis=-1).max() in (0, 1)


@pytest.mark.parametrize("name", ["minmax", "minmax_matrix"])
def test_a_gradient_goes_to_the_one_number_that_the_state_is(name):
    """Every state of the loop is a copy of an input, or of h[0]: its derivative is 1 there and 0 elsewhere."""
    made = get(name)
    arrays = made.draw(made.configured(length=30, batch=1, units=3))
    rec = made.build(arrays)
    sol = rs.solve(rec)
    for unit in range(3):
        chosen = np.zeros_like(sol.states)
        chosen[-1, 0, unit] = 1
        g = rs.adjoint(sol, states=chosen)
        found = g.inputs if name == "minmax_matrix" else g.drive
        slopes = np.concatenate([np.ravel(found[key]) for key in arrays])
        values = np.concatenate([np.ravel(arrays[key]) for key in arrays])
        assert sorted(set(slopes)) == [0.0, 1.0]
        assert slopes.sum() == 1
        assert values[slopes == 1] == sol.states[-1, 0, unit]


def test_a_matrix_over_max_min_keeps_the_parity_of_all_bits():
    bits = np.random.default_rng(0).integers(0, 2, (300, 4))
    odd = np.zeros(4, int)
    expected = []
    for row in bits:
        odd = odd ^ row
        expected.append(odd)
    for ties in (0, 1, None):
        rec = minmax.parity(bits, ties)
        for method in ("sequential", "newton", "jacobi"):
            states = rs.solve(rec, method=method).states
            np.testing.assert_array_equal(states[..., 1], expected)
            np.testing.assert_array_equal(states[..., 0], 1 - np.array(expected))
        np.testing.assert_array_equal(minmax.scan_matrix(rec), states)


def test_ties_decide_between_a_few_iterations_and_all_of_them():
    bits = np.random.default_rng(1).integers(0, 2, 200)
    recs = [minmax.parity(bits, ties, (0.0, 1.0)) for ties in (0, 1)]
    counts = [rs.solve(rec, method="newton").nit for rec in recs]
    assert counts[0] > 190 > 10 > counts[1]
    assert rs.solve(minmax.parity(bits, 0), method="newton").nit == 1  # entries beyond the states never tie


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_letter_does_twice_what_it_does_once(depth):
    made = get("minmax_cascade")
    arrays = made.draw(made.configured(length=20, batch=16, depth=depth))
    arrays["u"] = np.broadcast_to(arrays["u"][:1], arrays["u"].shape).copy()
    states = rs.solve(made.build(arrays), method="sequential").states
    np.testing.assert_array_equal(states, np.broadcast_to(states[0], states.shape))
    np.testing.assert_allclose(made.scan(made.build(arrays)), states, atol=1e-13)
