"""check_structure finds wrong declarations and names the right one."""

import gallery
import numpy as np
import pytest
from test_laws import STRUCTURES, affine

import recsolve as rs

W = np.random.default_rng(0).standard_normal((4, 4))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_true_declarations_hold_and_the_smallest_is_found(structure):
    report = rs.check_structure(affine(structure, seed=1))
    assert report, report
    assert report.found == structure


FLAT = ("zero", "identity", "scalar", "diagonal", "dense")  # those whose events are (n,)


@pytest.mark.parametrize("declared", FLAT)
@pytest.mark.parametrize("true", FLAT)
def test_wrong_declarations_are_found(true, declared):
    rec = affine(true, seed=1)
    wrong = rs.Recurrence.from_function(rec.f, inputs=rec.inputs[0], initial=rec.initial, structure=declared)
    contained = true == declared or (FLAT.index(true) < FLAT.index(declared) and declared != "identity")
    report = rs.check_structure(wrong)
    assert report.ok == contained
    assert report.found == true
    if not contained:
        assert f"declare structure={true!r}" in str(report)


def test_a_wrong_given_jacobian_is_found():
    def f(h, u):
        return np.tanh(h) + u

    for factor, ok in ((1.0, True), (1.1, False)):
        rec = rs.Recurrence.from_function(
            f,
            inputs=np.ones((9, 4)),
            initial=np.zeros(4),
            structure="diagonal",
            jacobian=lambda h, u, factor=factor: factor * (1 - np.tanh(h) ** 2),
        )
        assert rs.check_structure(rec).ok == ok


@pytest.mark.parametrize("axis", [0, 1])
def test_mixing_times_or_sequences_is_found(axis):
    rec = rs.Recurrence.from_function(
        lambda h, u: 0.1 * h.mean(axis=axis, keepdims=True) + 0 * h + u,
        inputs=np.ones((9, 3, 4)),
        initial=np.zeros((3, 4)),
    )
    report = rs.check_structure(rec)
    assert not report
    assert "mixes times or sequences" in report.message


@pytest.mark.parametrize("cell", gallery.CELLS, ids="-".join)
def test_the_cells_own_structures_are_true(cell):
    report = rs.check_structure(gallery.recurrence(*cell, T=5))
    if cell[0] == "slstm":  # it divides by a state, which is near 0 in some random ones: differences are rough there
        assert report.found == report.declared
        assert report.error < 1e-5
    else:
        assert report


def test_edges():
    assert rs.check_structure(affine("dense", 0, T=0))
    assert rs.check_structure(affine("dense", 0, T=1))
    with pytest.raises(ValueError, match="samples is 0"):
        rs.check_structure(affine("dense", 0), samples=0)
    with pytest.raises(ValueError, match="states has shape"):
        rs.check_structure(affine("dense", 0), states=np.ones(3))
    rec = affine("dense", 0)
    assert rs.check_structure(rec, states=gallery.loop(rec))
