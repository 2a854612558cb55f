"""States of solvers are cut by what their fields declare."""

from dataclasses import dataclass

import numpy as np
import pytest

import recsolve as rs
from recsolve.jacobians import Diagonal
from recsolve.solvers import PerRow, PerSequence, State


@dataclass(frozen=True)
class Carried(State):
    rows: PerRow[np.ndarray]
    several: PerRow[tuple[np.ndarray, Diagonal | None]]
    weight: PerSequence[np.ndarray | None] = None
    note: object = 0


def carried(T, batch, **more):
    rows = np.arange(T * batch * 2.0).reshape(T, batch, 2)
    return Carried(rows, (rows, Diagonal(rows, rs.Layout(units=2))), **more)


@pytest.mark.parametrize("T", [1, 5])
def test_a_state_is_cut_by_what_its_fields_declare(T):
    """One step is also one row of a weight: only the declaration tells them apart."""
    state = carried(T, 3, weight=np.arange(3.0)[None], note=7)
    for index in ((slice(T // 2, None),), (slice(None), np.array([0, 2]))):
        part = state.part(index)
        np.testing.assert_array_equal(part.rows, state.rows[index])
        np.testing.assert_array_equal(part.several[1].data, state.rows[index])
        np.testing.assert_array_equal(part.weight, state.weight[(slice(None), *index[1:])])
        assert (part.note, carried(T, 3).part(index).weight) == (7, None)


@pytest.mark.parametrize(
    "note", [np.ones((5, 3)), (np.ones((5, 3)),), [np.ones(3)], carried(5, 3)], ids=["array", "tuple", "list", "state"]
)
def test_a_field_that_does_not_say_what_its_axes_are_is_refused(note):
    with pytest.raises(TypeError, match=r"Carried.note holds a .*; wanted PerRow"):
        carried(5, 3, note=note).part((slice(2, None),))
