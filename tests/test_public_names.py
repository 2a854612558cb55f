"""What ``dir``, completion and ``import *`` show of a room is its public names, and nothing that it uses itself."""

import inspect
from importlib import import_module
from importlib.util import find_spec

import pytest

import recsolve as rs

ROOMS = [rs, *(room for name in dir(rs) if inspect.ismodule(room := getattr(rs, name)))]
ROOMS += [import_module(f"recsolve.{name}") for name in ("kernels", "recurrence")]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_a_room_shows_its_public_names_alone(room):
    assert len(set(room.__all__)) == len(room.__all__)
    assert dir(room) == sorted({*room.__all__, *(["nn"] if room is rs and find_spec("torch") else [])})
    names = {}
    exec(f"from {room.__name__} import *", names)
    assert {*room.__all__} == names.keys() - {"__builtins__"}
    for name in room.__all__:
        value = names[name]
        if inspect.ismodule(value):
            assert value.__name__.startswith("recsolve"), name
        else:
            assert getattr(value, "__module__", "") not in ("typing", "collections.abc", "pathlib"), name


def test_every_solver_and_cell_is_a_public_name():
    assert {cell.__name__ for cell in rs.solvers.REGISTRY.values()} <= {*rs.solvers.__all__}
    shown = {id(getattr(rs.cells, name)) for name in rs.cells.__all__}
    assert {id(cell) for cell in rs.cells.REGISTRY.values()} <= shown


def test_what_is_not_shown_is_imported_as_before():
    for name in ("analysis.condition", "solvers.newton", "cells.gru", "mixings.patterns", "kernels.monoids"):
        assert name.split(".")[-1] not in dir(import_module("recsolve"))
        assert import_module(f"recsolve.{name}") is not None
