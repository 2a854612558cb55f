"""Solves over ranks that a device is asked for before anything is looked at: what has changed since decides."""

from unittest.mock import patch

import cuda_host
import numpy as np
import pytest
from cuda_host import simulated
from ranks import over

import recsolve as rs
from recsolve.distributed.ahead import Ahead
from recsolve.distributed.begun import Begun
from recsolve.distributed.own_steps import OwnSteps
from recsolve.distributed.ranks import ranks_of
from recsolve.recurrence.fused_engine import FusedEngine

pytestmark = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
T, N = 600, 3


class Made:
    """A recurrence of which anything may be changed, of a function that reads a number that is not its argument."""

    def __init__(self, put, group=None):
        rng, self.put, self.factor = np.random.default_rng(0), put, [0.9]
        self.u = put(rng.standard_normal((T, N)).astype(np.float32))
        weights = rs.mixings.Diagonal(put(rng.uniform(0.1, 0.5, N).astype(np.float32)))
        cell = rs.Cell(self.function, state=("h",), output="h")
        self.cell = cell.with_weights(mixings={"w": weights}, parameters={"b": put(np.full(N, 0.1, np.float32))})
        shard = rs.distributed.from_local(self.u, group)
        self.rec = self.cell.recurrence(drive={"u": shard}, initial=put(np.full(N, 0.2, np.float32)))

    def function(self, s, W, u, p):
        return rs.math.tanh(rs.math.maximum(W.w(s.h), 0) * self.factor[0] + u.u + p.b)

    def solved(self, **how):
        sol = rs.solve(self.rec, **{"method": "auto", **how})
        assert sol.success
        stats = {name: x for name, x in sol.stats.items() if "seconds" not in name}
        return sol.states.local.get(), sol.final.get(), sol.way, sol.nit, stats, sol.ranks, str(sol.tolerance)


def _drive(made):
    made.u[5:] *= np.float32(0.5)


def _weight_written(made):
    made.cell.mixings["w"].weight[...] *= np.float32(0.5)


def _weight(made):
    weight = made.cell.mixings["w"].weight * np.float32(0.5)
    made.cell.mixings["w"] = rs.mixings.Diagonal(weight)


def _masked(made):
    weight = made.cell.mixings["w"]
    made.cell.mixings["w"] = rs.mixings.Masked(weight, made.put(np.array([True, False, True])))


def _parameter(made):
    made.cell.parameters["b"] = made.put(np.full(N, 0.3, np.float32))


def _function(made):
    made.factor[0] = 0.4


def _nothing(made):
    pass


def _initial(made):
    made.rec.initial = made.put(np.full(N, 0.7, np.float32))


def _ties(made):
    made.rec.ties = {**made.rec.ties, "maximum": 0.0}


def _patched(made):
    made.rec.output = lambda states: states


def _patched_mixing(made):
    weight = made.cell.mixings["w"].weight
    made.cell.mixings["w"].matvec = lambda x: weight * x / 2


class _Halved(rs.mixings.Diagonal):
    def matvec(self, x):
        return super().matvec(x) / 2


def _mixing_of_another_class(made):
    made.cell.mixings["w"] = _Halved(made.cell.mixings["w"].weight)


def _noting(launched):
    def ask(engine, tolerance, start=None, ask=FusedEngine.ask):
        launched.append("again" if start is not None else "whole")
        return ask(engine, tolerance, start)

    return patch.object(FusedEngine, "ask", ask)


def _same(found, wanted):
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(x, y)


def _alike(found, wanted):
    """What is measured decides how these are solved."""
    for x, y in zip(found[:2], wanted[:2], strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


CHANGES = [
    *((change, {}, _same) for change in (_drive, _weight_written, _weight, _masked, _parameter, _function)),
    *((change, {}, _same) for change in (_initial, _ties, _nothing)),
    *((change, {}, _alike) for change in (_patched, _patched_mixing, _mixing_of_another_class)),
    *((_nothing, how, _same) for how in (
        {"tol": 1e-3}, {"options": {"atol": 1e-4}}, {"method": "windowed"}, {"method": "newton"},
        {"method": rs.solvers.Windowed(window=32)}, {"options": {"pin": False}}, {"maxiter": 50},
    )),
    (_nothing, {"method": "sequential"}, _alike), (_nothing, {"backend": "numpy"}, _alike),
]  # fmt: skip


@pytest.mark.parametrize(("change", "how", "agree"), CHANGES)
@pytest.mark.parametrize("before", [1, 2, 4])
def test_what_has_changed_between_two_solves_gives_what_another_recurrence_gives(change, how, agree, before):
    how, launched = dict(how), []
    backend = how.pop("backend", "cuda")
    with simulated.gpu() as put, rs.distributed.alone():
        with rs.backend("cuda"):
            made, other = Made(put), Made(put)
            with _noting(launched):
                for _ in range(before):
                    made.solved()
            assert launched == ["whole"] * before  # whoever asked first, each was asked for once
        change(made)
        change(other)
        with rs.backend(backend):
            agree(made.solved(**how), other.solved(**how))
        with rs.backend("cuda"):  # and as it was before
            agree(made.solved(), other.solved())


def test_what_was_asked_for_twice_is_asked_for_before_anything_is_looked_at():
    with simulated.gpu() as put, rs.backend("cuda"), rs.distributed.alone():
        made, asked = Made(put), []
        for _ in range(4):
            with patch("recsolve.distributed.solve.split_options", side_effect=ZeroDivisionError):
                launched = []
                with _noting(launched), pytest.raises(ZeroDivisionError):
                    rs.solve(made.rec, method="auto")
            asked.append(len(launched))
            made.solved(), made.solved()
        assert asked == [0, 1, 1, 1]  # after a launch that was for nothing it takes two solves again


@pytest.mark.parametrize(
    "wrong",
    [
        {"tol": -1.0}, {"tol": np.ones(3)}, {"method": "nothing"}, {"maxiter": -1}, {"fallback": "no"}, {"every": 3},
        {"callback": print}, {"options": {"unknown": 1}}, {"options": 3}, {"guess": np.ones(7)},
    ],
)  # fmt: skip
def test_a_wrong_argument_raises_what_it_does_in_a_first_solve(wrong):
    with simulated.gpu() as put, rs.backend("cuda"), rs.distributed.alone():
        told = []
        for solves in (0, 3):
            made = Made(put)
            for _ in range(solves):
                good = made.solved()
            with pytest.raises(Exception) as found:
                rs.solve(made.rec, **{"method": "auto", **wrong})
            told.append((found.type, str(found.value)))
        assert told[0] == told[1]
        _same(made.solved(), good)


def test_states_that_nobody_has_asked_for_are_gone_before_others_are_made():
    with simulated.gpu() as put, rs.backend("cuda"), rs.distributed.alone():
        made, alive = Made(put), []
        for _ in range(3):
            made.solved()

        def ask(engine, tolerance, start=None, ask=FusedEngine.ask):
            alive.append(entered[-1]._asked)
            return ask(engine, tolerance, start)

        entered = []

        def enter(self, enter=Ahead.__enter__):
            entered.append(self)
            return enter(self)

        _weight(made)
        with patch.object(Ahead, "__enter__", enter), patch.object(FusedEngine, "ask", ask):
            made.solved()
        assert alive == [None, None]
        assert entered[-1]._asked is None


def test_a_launch_that_fails_is_raised_where_it_is_asked_for():
    with simulated.gpu() as put, rs.backend("cuda"), rs.distributed.alone():
        made = Made(put)
        for _ in range(3):
            good = made.solved()
        with patch.object(FusedEngine, "ask", side_effect=MemoryError("no room")) as asked:
            with pytest.raises(MemoryError, match="no room"):
                made.solved()
            assert asked.call_count == 2
        _same(made.solved(), good)


def _changed_on_one(group):
    """Solves of two ranks, of which one gives a wrong argument, and one has nothing left to ask for at once."""
    with simulated.gpu() as put, rs.backend("cuda"):
        made, last = Made(put, group), ranks_of(group).rank == 1
        found = [made.solved()[0] for _ in range(3)]
        with pytest.raises(ValueError if last else rs.distributed.RankError, match="maxiter"):
            rs.solve(made.rec, method="auto", maxiter=-1 if last else None)
        if last:
            Ahead._KNOWN.clear()
        return [*found, made.solved()[0], made.solved()[0]]


def test_ranks_of_which_one_asks_for_something_else_go_on():
    for found in over(2, _changed_on_one):
        for x in found[1:]:
            np.testing.assert_array_equal(x, found[0])


# The way back --------------------------------------------------------------------------------------------------------


def _gradients(made, sol, **given):
    g = rs.adjoint(sol, **given)
    drive = g.drive.u.local, g.states.local
    return [x.get() for x in (*drive, g.mixings.w, g.parameters.b, g.initial)]


def _other_weight_only(made):
    made.cell.mixings["w"] = rs.mixings.Diagonal(made.cell.mixings["w"].weight.copy())


@pytest.mark.parametrize(
    "change", [_nothing, _weight_written, _weight, _other_weight_only, _parameter, _function, _ties, _patched_mixing]
)
@pytest.mark.parametrize("names", [("states",), ("output",), ("final",), ("states", "output"), ("output", "final")])
def test_gradients_of_what_has_changed_since_the_solve_are_those_that_nothing_was_asked_for_ahead(change, names):
    found = []
    for ahead in (True, False):
        with simulated.gpu() as put, rs.backend("cuda"), rs.distributed.alone():
            made = Made(put)
            sol = rs.solve(made.rec, method="auto")
            change(made)
            c = np.random.default_rng(1).standard_normal((T, N)).astype(np.float32)
            given = {name: put(c[0]) if name == "final" else rs.distributed.from_local(put(c)) for name in names}
            kept = [getattr(x, "local", x).copy() for x in given.values()]
            with patch.object(Begun, "taken", Begun.taken if ahead else lambda begun, *_: begun.drop()):
                found.append(_gradients(made, sol, **given))
            assert all((getattr(x, "local", x) == y).all() for x, y in zip(given.values(), kept, strict=True))
    for x, y in zip(*found, strict=True):
        np.testing.assert_array_equal(x, y)


def _other_drive(made):
    """Another drive in place of the one that has been solved."""
    made.rec.drive = {"u": made.put(np.full((T, N), -3, np.float32))}


@pytest.mark.parametrize("name", ["states", "final"])
def test_gradients_are_those_of_what_was_solved_though_another_drive_is_there(name):
    found = []
    for change in (_nothing, _other_drive):
        with simulated.gpu() as put, rs.backend("cuda"), rs.distributed.alone():
            made = Made(put)
            sol = rs.solve(made.rec, method="auto")
            assert OwnSteps.of(made.rec).holds(sol.local.recurrence)  # then nothing is made anew
            change(made)
            c = np.ones((T, N), np.float32)
            given = put(c[0]) if name == "final" else rs.distributed.from_local(put(c))
            found.append(_gradients(made, sol, **{name: given}))
    for x, y in zip(*found, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_way_back_is_asked_for_once_and_before_anything_is_looked_at():
    with simulated.gpu() as put, rs.backend("cuda"), rs.distributed.alone():
        made, asked = Made(put), []
        sol, c = rs.solve(made.rec, method="auto"), rs.distributed.from_local(put(np.ones((T, N), np.float32)))

        def adjoint(engine, *given, adjoint=FusedEngine.adjoint):
            asked.append(given)
            return adjoint(engine, *given)

        with patch.object(FusedEngine, "adjoint", adjoint):
            rs.adjoint(sol, output=c)
            assert len(asked) == 1
            made = []
            with (
                patch("recsolve.distributed.adjoint.check_given", side_effect=ZeroDivisionError),
                patch.object(
                    Begun,
                    "__exit__",
                    lambda begun, *error, leave=Begun.__exit__: made.append(begun) or leave(begun, *error),
                ),
            ):
                with pytest.raises(ZeroDivisionError):
                    rs.adjoint(sol, output=c)
            assert len(asked) == 2
            assert made[0]._found is None  # which the traceback would hold


def test_a_way_back_that_nobody_has_asked_for_is_gone_before_another_is_begun():
    with simulated.gpu() as put, rs.backend("cuda"), rs.distributed.alone():
        made, alive, begun = Made(put), [], []
        sol, c = rs.solve(made.rec, method="auto"), rs.distributed.from_local(put(np.ones((T, N), np.float32)))
        _weight(made)

        def adjoint(engine, *given, adjoint=FusedEngine.adjoint):
            alive.extend(one._found for one in begun)
            return adjoint(engine, *given)

        def enter(self, enter=Begun.__enter__):
            enter(self)
            assert self._found is not None
            begun.append(self)
            return self

        with patch.object(FusedEngine, "adjoint", adjoint), patch.object(Begun, "__enter__", enter):
            rs.adjoint(sol, states=c)
        assert alive == [None]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({}, ValueError), ({"states": np.ones(3)}, TypeError), ({"output": "shape"}, ValueError),
        ({"states": "dtype"}, TypeError), ({"states": "given", "clamp": 1.0}, ValueError), ({"final": 3}, TypeError),
    ],
)  # fmt: skip
def test_a_wrong_cotangent_raises_what_it_does_without_that(wrong, kind):
    with simulated.gpu() as put, rs.backend("cuda"), rs.distributed.alone():
        sol = rs.solve(Made(put).rec, method="auto")
        given = {
            "shape": np.ones((T, N + 1), np.float32), "dtype": np.ones((T, N)), "given": np.ones((T, N), np.float32),
        }  # fmt: skip
        told = []
        for ahead in (True, False):
            arguments = {
                name: rs.distributed.from_local(put(given[x])) if isinstance(x, str) else x for name, x in wrong.items()
            }
            with (
                patch.object(Begun, "taken", Begun.taken if ahead else lambda begun, *_: begun.drop()),
                pytest.raises(kind) as found,
            ):
                rs.adjoint(sol, **arguments)
            told.append(str(found.value))
        assert told[0] == told[1]
