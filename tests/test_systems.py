"""Published systems against their oracles, with every solver that applies."""

from dataclasses import fields

import gallery
import numpy as np
import pytest
from oracles import ORACLES

import recsolve as rs
from recsolve.solvers.registry import applicable
from recsolve.studies.systems.system import CATALOGUE, get

SHORT = 40
EXACT = {"minmax"}  # what scans without rounding, beside states that are no real numbers
FLOATS = {"float64": 1e-13, "float32": 1e-5}


def drawn(name, **changes):
    made = get(name)
    return made.draw(type(made.config)(**{**vars(made.config), **changes}))


def discrete(states):
    return states.dtype.kind not in "fc"


def test_every_system_is_described_and_has_an_oracle():
    assert CATALOGUE.keys() == ORACLES.keys()
    for name in CATALOGUE:
        found = get(name)
        assert {"length", "seed"} <= {f.name for f in fields(found.config)}
        assert found.text.startswith(f"{found.title}: ") or found.title in found.text
        assert found.cite in found.text.replace("\n", " ") or found.cite.split(", ")[-1] in found.text
        assert found.name == name


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_loop_is_the_papers(name):
    for dtype in FLOATS:
        arrays = drawn(name, length=SHORT, **({"dtype": dtype} if hasattr(get(name).config, "dtype") else {}))
        sol = rs.solve(get(name).build(arrays), method="sequential")
        expected = ORACLES[name](arrays)
        assert sol.success
        assert sol.states.dtype == expected.dtype
        assert discrete(expected) or expected.dtype == dtype
        if discrete(expected):
            np.testing.assert_array_equal(sol.states, expected)
        else:
            np.testing.assert_allclose(sol.states, expected, rtol=FLOATS[dtype], atol=FLOATS[dtype])


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_solver_that_applies_gives_it_and_the_others_say_so(name):
    rec, expected = get(name).build(length=SHORT), ORACLES[name](drawn(name, length=SHORT))
    known = applicable(rec)
    assert {"sequential", "jacobi", "windowed"} <= set(known)
    for method in rs.solvers.REGISTRY:
        if method not in known:
            with pytest.raises(TypeError, match=f"method is '{method}'.*; wanted one of"):
                rs.solve(rec, method=method)
            continue
        sol = rs.solve(rec, method=method)
        assert sol.success, (method, sol.message)
        if discrete(expected):
            np.testing.assert_array_equal(sol.states, expected, err_msg=method)
        else:
            gap = abs(sol.states - expected)[np.isfinite(expected)]
            assert gap.max() <= gallery.bound(sol), method


@pytest.mark.parametrize("name", [name for name in CATALOGUE if get(name).scan])
def test_the_scan_gives_it_without_iterating(name):
    rec = get(name).build()
    found, expected = get(name).scan(rec), rs.solve(rec, method="sequential").states
    if name in EXACT or discrete(expected):
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
