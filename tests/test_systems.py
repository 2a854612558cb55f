"""Published systems against their oracles, with every solver that applies."""

from dataclasses import fields

import gallery
import numpy as np
import pytest
from oracles import ORACLES

import recsolve as rs
from recsolve.analysis.distance import distance
from recsolve.base.arrays import is_discrete
from recsolve.solvers.registry import applicable
from recsolve.studies.systems.system import CATALOGUE, get

SHORT, FEW = 40, 24  # steps of the loop, and of all solvers
EXACT = {"minmax", "minmax_matrix", "htm_permanence"}  # what scans without rounding


def test_every_system_is_described_and_has_an_oracle():
    assert CATALOGUE.keys() == ORACLES.keys()
    for name in CATALOGUE:
        found = get(name)
        assert {"length", "seed"} <= {f.name for f in fields(found.config)}
        assert found.text.startswith(f"{found.title}: ") or found.title in found.text
        assert found.cite in found.text.replace("\n", " ") or found.cite.split(", ")[-1] in found.text
        assert found.name == name


def drawn(name, dtype="float64", length=SHORT):
    """Arrays of a short instance."""
    made = get(name)
    return made.draw(made.configured(length=length, **({"dtype": dtype} if hasattr(made.config, "dtype") else {})))


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_loop_is_the_papers(name):
    for dtype, tol in (("float64", 1e-13), ("float32", 1e-5)):
        arrays = drawn(name, dtype)
        sol = rs.solve(get(name).build(arrays), method="sequential")
        expected = ORACLES[name](arrays)
        assert sol.success
        assert sol.states.dtype == expected.dtype
        real = not is_discrete(expected.dtype)
        assert not real or expected.dtype == dtype
        np.testing.assert_allclose(sol.states, expected, rtol=tol if real else 0, atol=tol if real else 0)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_solver_gives_it_or_says_that_it_does_not_apply(name):
    arrays = drawn(name, length=FEW)
    rec, expected = get(name).build(arrays), ORACLES[name](arrays)
    assert "sequential" in get(name).solvers == applicable(rec)
    for method in rs.solvers.REGISTRY:
        if method not in get(name).solvers:
            with pytest.raises(TypeError, match=f"method is '{method}'.*; wanted one of .*sequential.*, since "):
                rs.solve(rec, method=method)
            continue
        sol = rs.solve(rec, method=method)
        assert sol.success, (method, sol.message)
        gap = distance(sol.states, expected)
        assert gap <= (0 if is_discrete(rec.dtype) else gallery.bound(sol)), method


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


@pytest.mark.parametrize("name", CATALOGUE)
def test_sizes_that_are_none_are_named(name):
    for size, value in vars(get(name).config).items():
        if type(value) is int and value > 0:
            least = 0 if size in ("length", "seed") else 1
            with pytest.raises(ValueError, match=f"^{size} is {least - 1}; wanted at least {least}"):
                get(name).build(**{size: least - 1})
