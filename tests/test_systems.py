"""Published systems against their oracles, with every solver that applies."""

from dataclasses import fields

import gallery
import numpy as np
import pytest
from oracles import ORACLES

import recsolve as rs
from recsolve.studies.systems.system import CATALOGUE, get

SHORT = 40
EXACT = {"minmax", "minmax_matrix"}  # what scans without rounding


def test_every_system_is_described_and_has_an_oracle():
    assert CATALOGUE.keys() == ORACLES.keys()
    for name in CATALOGUE:
        found = get(name)
        assert {"length", "seed", "dtype"} <= {f.name for f in fields(found.config)}
        assert found.text.startswith(f"{found.title}: ") or found.title in found.text
        assert found.cite in found.text.replace("\n", " ") or found.cite.split(", ")[-1] in found.text
        assert found.name == name


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_loop_is_the_papers(name):
    for dtype, tol in (("float64", 1e-13), ("float32", 1e-5)):
        made = get(name)
        arrays = made.draw(type(made.config)(length=SHORT, dtype=dtype))
        sol = rs.solve(made.build(arrays), method="sequential")
        expected = ORACLES[name](arrays)
        assert sol.success
        assert sol.states.dtype == dtype == expected.dtype
        np.testing.assert_allclose(sol.states, expected, rtol=tol, atol=tol)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_solver_gives_it(name):
    rec = get(name).build(length=SHORT)
    for method in rs.solvers.REGISTRY:
        sol = rs.solve(rec, method=method)
        assert sol.success, (method, sol.message)
        expected = ORACLES[name](get(name).draw(type(get(name).config)(length=SHORT)))
        gap = abs(sol.states - expected)[np.isfinite(expected)]
        assert gap.max() <= gallery.bound(sol), method


@pytest.mark.parametrize("name", [name for name in CATALOGUE if get(name).scan])
def test_the_scan_gives_it_without_iterating(name):
    rec = get(name).build()
    found, expected = get(name).scan(rec), rs.solve(rec, method="sequential").states
    if name in EXACT:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="system is 'mambo'; wanted one of pararnn_gru"):
        get("mambo")
    made = get("pararnn_gru")
    arrays = made.draw(made.config)
    with pytest.raises(ValueError, match="arrays and length are given"):
        made.build(arrays, length=3)
    with pytest.raises(ValueError, match=r"arrays has names \['A'\]; wanted \['A', 'B', 'C', 'b', 'x'\]"):
        made.build({"A": arrays["A"]})
    with pytest.raises(TypeError, match="units_"):
        made.build(units_=3)
