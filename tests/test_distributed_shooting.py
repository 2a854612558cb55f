"""Solves of compiled loops over ranks: each as one solve of its own steps, and two messages."""

from contextlib import ExitStack
from unittest.mock import patch
from weakref import WeakKeyDictionary

import cuda_host
import gallery
import numpy as np
import pytest
from cuda_host import simulated
from ranks import over

import recsolve as rs
from recsolve.base.tolerance import Tolerance
from recsolve.distributed import backwards, exchange, shooting
from recsolve.distributed.ranks import ranks_of
from recsolve.kernels.gpu.judged import Report

needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")


def _arrays(length, bias, units=5, batch=(), dtype=np.float32):
    rng = np.random.default_rng(3)
    drive = {n: rng.standard_normal((length, *batch, units)).astype(dtype) for n in ("r", "z", "n")}
    drive["z"] += dtype(bias)
    return (
        drive,
        {n: (0.3 * rng.standard_normal(units)).astype(dtype) for n in ("r", "z", "n")},
        rng.random(length) < 0.002,
    )


def _gru(drive, weights, put=lambda x: x, **kwargs):
    mixings = {n: rs.mixings.Diagonal(put(w)) for n, w in weights.items()}
    cell = rs.cells.GRU.with_weights(mixings=mixings, parameters={"b_n": put(np.zeros_like(weights["r"]))})
    return cell.recurrence(drive=drive, **kwargs)


def _solved(group, method, length, bias, lengths=None, resets=False, **kwargs):
    drive, weights, reset = _arrays(length, bias)
    shared = {n: rs.distributed.shard(u, group, lengths=lengths) for n, u in drive.items()}
    reset = rs.distributed.shard(reset, group, lengths=lengths) if resets else None
    with rs.backend("numba"):
        rec, ranks = _gru(shared, weights, reset=reset), ranks_of(group)
        before = ranks.messages
        sol = rs.solve(rec, method=method, **kwargs)
        told = sol.way, sol.status, sol.nit, ranks.messages - before, sol.local.converged_prefix
        assert sol.residuals[-1] <= 2 * sol.tolerance.atol
        assert sol.exact_prefix is None  # nobody has counted
        assert sol.stats["rows"] >= rec.length
        return *told, sol.states.local, sol.final


def _close(rec, states, final):
    wanted = rs.solve(rec, method="sequential")
    assert np.abs(states - wanted.states).max() <= 2e-5
    np.testing.assert_allclose(final, wanted.final, atol=2e-5)


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize(("bias", "messages"), [(0, 2), (4, 4), (7, 4)])
def test_ranks_solve_their_steps_once_and_what_is_remembered_is_followed(bias, messages, resets):
    ranks = over(3, _solved, "windowed", 2400, bias, (600, 1200, 600), resets)
    for way, status, _, sent, prefix, _, _ in ranks:
        assert (way, status) == ("rounds", rs.Status.CONVERGED)
        assert sent <= messages if resets else sent == messages, sent
        assert prefix in (600, 1200)
    drive, weights, reset = _arrays(2400, bias)
    _close(_gru(drive, weights, reset=reset if resets else None), np.concatenate([r[5] for r in ranks]), ranks[0][6])


def _of_another_size(group, size):
    drive, weights, _ = _arrays(1200, 0)
    drive["n"] *= np.float32(size)
    with rs.backend("numba"):
        sol = rs.solve(_gru({n: rs.distributed.shard(u, group) for n, u in drive.items()}, weights), method="windowed")
    return sol.success, sol.tolerance.unit, sol.states.local


def test_states_of_another_size_are_tested_in_it():
    ranks = over(2, _of_another_size, 1e-9)
    drive, weights, _ = _arrays(1200, 0)
    drive["n"] *= np.float32(1e-9)
    wanted = rs.solve(_gru(drive, weights), method="sequential")
    assert ranks[0][:2] == ranks[1][:2]
    assert ranks[0][0]
    assert 1e-10 < ranks[0][1] < 1e-8
    np.testing.assert_allclose(np.concatenate([rank[2] for rank in ranks]), wanted.states, atol=2e-14)


def _on_device(group, method, length, bias):
    drive, weights, _ = _arrays(length, bias)
    with simulated.gpu() as put, rs.backend("cuda"):
        shared = {n: rs.distributed.shard(put(u), group) for n, u in drive.items()}
        ranks = ranks_of(group)
        before = ranks.messages
        sol = rs.solve(_gru(shared, weights, put), method=method)
        return sol.way, sol.status, sol.nit, ranks.messages - before, sol.states.local.get(), sol.final.get()


@needs_compiler
@pytest.mark.parametrize(("bias", "messages"), [(0, 2), (4, 3), (7, 3)])
def test_on_a_device_the_host_waits_for_one_message(bias, messages):
    ranks = over(2, _on_device, "auto", 1600, bias)
    for way, status, _, sent, _, _ in ranks:
        assert (way, status, sent) == ("rounds", rs.Status.CONVERGED, messages)
    drive, weights, _ = _arrays(1600, bias)
    _close(_gru(drive, weights), np.concatenate([r[4] for r in ranks]), ranks[0][5])


def _of_other_weights(group):
    drive, weights, _ = _arrays(1600, 0)
    with simulated.gpu() as put, rs.backend("cuda"):
        shared = {n: rs.distributed.shard(put(u), group) for n, u in drive.items()}
        other = {**weights, "r": weights["r"] * np.float32(1 + ranks_of(group).rank)}
        with pytest.raises(rs.distributed.RankError, match=r"do different things.* weights "):
            rs.solve(_gru(shared, other, put), method="auto")
        cell = _gru(shared, weights, put).cell
        rs.solve(cell.recurrence(drive=shared), method="auto")
        with patch("recsolve.distributed.solve.crc32", side_effect=AssertionError):
            return rs.solve(cell.recurrence(drive=shared), method="auto").success


@needs_compiler
def test_on_a_device_the_weights_of_a_cell_are_read_once_and_compared():
    assert over(2, _of_other_weights) == [True, True]


def _guessed_by_some(group, length):
    drive, weights, _ = _arrays(length, 0)
    with simulated.gpu() as put, rs.backend("cuda"):
        rec = _gru({n: rs.distributed.shard(put(u), group) for n, u in drive.items()}, weights, put)
        guess = None if ranks_of(group).rank else rs.distributed.shard(put(np.zeros((length, 5), np.float32)), group)
        sol = rs.solve(rec, method="windowed", guess=guess)
        return sol.way, sol.success, sol.states.local.get(), sol.final.get()


@needs_compiler
def test_ranks_of_which_some_give_a_guess_agree_on_another_way():
    """A rank that kernels solve whole and one that iterates do not know how well the other has done."""
    ranks = over(2, _guessed_by_some, 1600)
    assert [r[:2] for r in ranks] == [("turns", True)] * 2
    drive, weights, _ = _arrays(1600, 0)
    _close(_gru(drive, weights), np.concatenate([r[2] for r in ranks]), ranks[0][3])


def _written_to(group, length):
    drive, weights, _ = _arrays(length, 0)
    with simulated.gpu() as put, rs.backend("cuda"):
        shared = {n: rs.distributed.shard(put(u), group) for n, u in drive.items()}
        rec = _gru(shared, weights, put)
        for _ in range(2):  # with what is kept of the first time
            rs.solve(rec, method="auto")
        for x in (*(u.local for u in shared.values()), rec.cell.mixings["n"].weight):
            x *= np.float32(0.5)
        sol = rs.solve(rec, method="auto")
        return sol.way, sol.states.local.get(), sol.final.get()


@needs_compiler
def test_what_is_kept_from_solve_to_solve_sees_what_is_written_to_arrays():
    drive, weights, _ = _arrays(1600, 0)
    drive = {n: u * np.float32(0.5) for n, u in drive.items()}
    ranks = over(2, _written_to, 1600)
    assert {rank[0] for rank in ranks} == {"rounds"}
    _close(
        _gru(drive, {**weights, "n": weights["n"] * np.float32(0.5)}),
        np.concatenate([r[1] for r in ranks]),
        ranks[0][2],
    )


def _adjoints(put, rec, output, states, get):
    sol = rs.solve(rec, method="windowed")
    g = rs.adjoint(sol, output=output, final=put(np.ones(5, np.float32)))
    other = rs.adjoint(sol, states=states)
    drive = [x.local if isinstance(x, rs.distributed.Shard) else x for x in (g.drive.n, other.drive.z, g.states)]
    return [get(x) for x in (*drive, g.mixings.r, g.initial, other.mixings.z)]


def _gradients(group, length, bias, lengths, gpu):
    drive, weights, _ = _arrays(length, bias)
    c = np.random.default_rng(5).standard_normal((length, 5)).astype(np.float32)

    def at(put, get):
        shared = {n: rs.distributed.shard(put(u), group, lengths=lengths) for n, u in drive.items()}
        ranks = ranks_of(group)
        rec, given = _gru(shared, weights, put), rs.distributed.shard(put(c), group, lengths=lengths)
        kept = given.local.copy()
        rs.solve(rec, method="windowed")
        before = ranks.messages
        rs.adjoint(rs.solve(rec, method="windowed"), states=given, final=put(np.ones(5, np.float32)))
        sent = ranks.messages - before
        assert (given.local == kept).all()
        return sent, _adjoints(put, rec, given, given, get)

    if not gpu:
        with rs.backend("numba"):
            return at(lambda x: x, lambda x: x)
    with simulated.gpu() as put, rs.backend("cuda"):
        return at(put, lambda x: x.get())


@pytest.mark.parametrize(
    ("gpu", "bias"),
    [(False, 0), pytest.param(True, 0, marks=needs_compiler), pytest.param(True, 7, marks=needs_compiler)],
)
def test_gradients_are_those_of_one_device(bias, gpu):
    lengths = (600, 700, 700)
    ranks = over(3, _gradients, 2000, bias, lengths, gpu)
    drive, weights, _ = _arrays(2000, bias)
    c = np.random.default_rng(5).standard_normal((2000, 5)).astype(np.float32)
    wanted = _adjoints(lambda x: x, _gru(drive, weights), c, c, lambda x: x)
    for i, x in enumerate(wanted):
        found = np.concatenate([r[1][i] for r in ranks]) if i < 3 else ranks[0][1][i]
        np.testing.assert_allclose(found, x, rtol=2e-4, atol=2e-5 * np.abs(x).max(), err_msg=str(i))
    if bias == 0:  # solves with two messages each, and gradients with one and a sum
        assert {r[0] for r in ranks} == {4}


def _again(group, length, bias, shares):
    """The messages of some adjoints, each with what comes in guessed from few steps at first."""
    drive, weights, _ = _arrays(length, bias)
    c = np.random.default_rng(5).standard_normal((length, 5)).astype(np.float32)
    few = patch.multiple(backwards, _FEWEST=16, _SHARES=shares, _MOST=16, _A_WHILE=2)
    known = patch.object(backwards.Enough, "_KNOWN", WeakKeyDictionary())
    with few, known, simulated.gpu() as put, rs.backend("cuda"):
        shared = {n: rs.distributed.shard(put(u), group) for n, u in drive.items()}
        sol, ranks, found = rs.solve(_gru(shared, weights, put), method="windowed"), ranks_of(group), []
        for _ in range(6):
            before = ranks.messages
            g = rs.adjoint(sol, output=rs.distributed.shard(put(c), group))
            found.append((ranks.messages - before, g.states.local.get(), g.mixings.r.get()))
        return found


@needs_compiler
# Of 800 steps of a rank 16, 50 and 200 are too few, and 400 are enough.
@pytest.mark.parametrize(
    ("shares", "sufficed"), [((2,), [0, 1, 1, 0, 1, 1]), ((16, 4), [0] * 6), ((64, 16, 2), [0, 0, 1, 1, 0, 1])]
)
def test_a_cell_that_remembers_more_than_a_few_steps_is_asked_for_more_from_then_on(shares, sufficed):
    ranks = over(2, _again, 1600, 3, shares)
    drive, weights, _ = _arrays(1600, 3)
    c = np.random.default_rng(5).standard_normal((1600, 5)).astype(np.float32)
    wanted = rs.adjoint(rs.solve(_gru(drive, weights), method="windowed"), output=c)
    for call in range(6):
        found = np.concatenate([r[call][1] for r in ranks])
        np.testing.assert_allclose(found, wanted.states, rtol=2e-4, atol=2e-5 * np.abs(wanted.states).max())
        np.testing.assert_allclose(ranks[0][call][2], wanted.mixings.r, rtol=2e-4)
        assert {r[call][0] == 2 for r in ranks} == {bool(sufficed[call])}


@pytest.mark.parametrize("size", [np.inf, np.nan])
def test_an_adjoint_that_is_not_finite_excuses_nothing(size):
    left, before = np.full((2, 3), 1e-7, np.float32), np.full((2, 3), -2, np.float32)
    assert backwards._is_little(left, before)
    before[1, 1] = size
    assert not backwards._is_little(left, before)
    left[1, 1] = 0
    assert backwards._is_little(left, before)
    left[0, 0] = size
    assert not backwards._is_little(left, before)


def _leaks(a, b, put=lambda x: x):
    cell = rs.Cell(lambda s, W, u, p: W.w(u.a * s.h) + u.b, state=("h",), output="h")
    return cell.with_weights(mixings={"w": rs.mixings.Diagonal(put(np.ones(3, np.float32)))}).recurrence(
        drive={"a": a, "b": b}
    )


def _swelling(group, a, b, c):
    with simulated.gpu() as put, rs.backend("cuda"):
        a, b, c = (rs.distributed.shard(put(x), group) for x in (a, b, c))
        sol, ranks = rs.solve(_leaks(a, b, put), method="windowed"), ranks_of(group)
        before = ranks.messages
        g = rs.adjoint(sol, output=c)
        return ranks.messages - before, *(x.get() for x in (g.states.local, g.drive.a.local, g.initial))


@needs_compiler
@pytest.mark.parametrize(
    ("forgets", "swells", "until", "messages"),
    [(0.92, 1.02, 600, 2), (0.92, 1.02, 0, 4), (0.99, 1.02, 600, 4), (0.93, 1.08, 145, 4)],
)
def test_what_is_forgotten_before_it_swells_changes_nothing(forgets, swells, until, messages):
    rng, T = np.random.default_rng(7), 1200
    a, b, c = (rng.uniform(*span, (T, 3)).astype(np.float32) for span in ((0.9, 1.0), (-1, 1), (-1, 1)))
    a[344:600], a[50:344] = forgets, swells  # what comes back into the first rank, and then grows
    c[until:600] = 0
    wanted = rs.adjoint(rs.solve(_leaks(a, b), method="sequential"), output=c)
    ranks = over(2, _swelling, a, b, c)
    assert {rank[0] for rank in ranks} == {messages}
    for i, x in ((1, wanted.states), (2, wanted.drive.a)):
        np.testing.assert_allclose(
            np.concatenate([rank[i] for rank in ranks]), x, rtol=1e-4, atol=1e-5 * np.abs(x).max()
        )
    np.testing.assert_allclose(ranks[0][3], wanted.initial, rtol=1e-4)


def _dense(put, length, group=None, bias=0):
    rec = gallery.recurrence("gru", "dense", T=length, batch=(2,), units=8, dtype=np.float32)
    drive = {n: u + np.float32(bias * (n == "z")) for n, u in rec.drive.items()}
    drive = {n: put(u) if group is None else rs.distributed.shard(put(u), group) for n, u in drive.items()}
    return rec.cell.map(put).recurrence(drive=drive)


def _swept(group, length, method):
    with simulated.gpu() as put, rs.backend("cuda"):
        rec, ranks = _dense(put, length, group), ranks_of(group)
        before = ranks.messages
        sol = rs.solve(rec, method=method)
        return sol.way, sol.status, sol.local.converged_rows.all(), ranks.messages - before, sol.states.local.get()


@needs_compiler
@pytest.mark.parametrize("method", ["quasi_newton", "jacobi", "newton"])
def test_sweeps_of_coupled_units_are_those_of_the_own_steps(method):
    wanted = rs.solve(_dense(lambda x: x, 1100), method="sequential")
    ranks = over(2, _swept, 1100, method)
    for way, status, met, sent, _ in ranks:
        assert (way, status, met, sent) == ("rounds", rs.Status.CONVERGED, True, 2)
    assert np.abs(np.concatenate([r[4] for r in ranks]) - wanted.states).max() <= 2e-5


def _remembering(group, length, bias, method):
    with simulated.gpu() as put, rs.backend("cuda"):
        rec, ranks = _dense(put, length, group, bias), ranks_of(group)
        before = ranks.messages
        sol = rs.solve(rec, method=method)
        assert (sol.way, sol.status) == ("rounds", rs.Status.CONVERGED)
        own = sol.local
        # What a message has brought is what the driver would find.
        again = rs.solve(own.recurrence, method="newton", guess=own.states)
        assert abs(own.residuals[-1] - abs(again.residuals[0])) <= own.tolerance.atol
        assert bool(own.converged_rows.all())
        assert own.converged_prefix == rec.length
        return ranks.messages - before, sol.states.local.get(), sol.final.get()


@needs_compiler
@pytest.mark.parametrize(("length", "bias"), [(1300, 3), (1300, 6), (4200, 5)])
def test_coupled_units_that_remember_are_followed_until_they_meet_what_is_there(length, bias):
    wanted = rs.solve(_dense(lambda x: x, length, bias=bias), method="sequential")
    ranks = over(2, _remembering, length, bias, "quasi_newton")
    assert {r[0] for r in ranks} == {3}
    assert np.abs(np.concatenate([r[1] for r in ranks]) - wanted.states).max() <= 5e-5
    np.testing.assert_allclose(ranks[0][2], wanted.final, atol=5e-5)


def _waits(group, length, method):
    """What the host reads of a device once the own steps are solved, beside messages, and what is launched by then."""
    seen = []

    def noted(kind, name, of=None):
        old = getattr(of or kind, name)

        def call(*arguments, **keywords):
            seen.append(name)
            return old(*arguments, **keywords)

        return patch.object(kind, name, call, create=True)

    def sent_off(*arguments, send=exchange.Exchange._sent_off):
        count = len(seen)
        found = send(*arguments)
        seen[count:] = ["message"]
        return found

    def shot(task, shot=shooting._shot):
        found = shot(task)
        seen.clear()
        return found

    with ExitStack() as stack:
        put = stack.enter_context(simulated.gpu())
        stack.enter_context(rs.backend("cuda"))
        rec = _dense(put, length, group)
        rs.solve(rec, method=method)
        for name in ("__bool__", "__float__", "__int__", "tolist", "item"):
            stack.enter_context(noted(simulated.DeviceArray, name, np.ndarray))
        for kind, names in (
            (simulated.DeviceArray, ["get"]), (cuda_host._Reader, ["read"]), (cuda_host.Host, ["brought", "launch"]),
        ):  # fmt: skip
            for name in names:
                stack.enter_context(noted(kind, name))
        stack.enter_context(patch.object(exchange.Exchange, "_sent_off", sent_off))
        stack.enter_context(patch.object(shooting, "_shot", shot))
        rs.solve(rec, method=method)
        return seen


@needs_compiler
@pytest.mark.parametrize("method", ["quasi_newton", "jacobi"])
def test_once_coupled_units_are_solved_the_host_waits_for_one_message(method):
    ranks = over(2, _waits, 1100, method)
    for seen, launches in zip(ranks, (2, 5), strict=True):  # the walk, the join, F, the test of all, and its report
        assert seen == ["message", *["launch"] * launches, "message"], seen


@needs_compiler
@pytest.mark.parametrize("lost", [None, 0.0, np.nan])
def test_a_report_that_is_not_waited_for_is_that_of_a_test(lost):
    """On the host and on a device, where other ranks look at it."""

    def found(put, get):
        rec = _dense(put, 40)
        states = rs.solve(rec, method="sequential").states
        if lost is not None:
            states[7, 1, 3] = lost
        problem = rs.solvers.Problem(rec, Tolerance(1e-5, 1e-5), pin=True, jacobian=False)
        values = problem.engine.evaluate(states)
        judged = problem.judge(states, values)
        report, finish = problem.judge_unread(states, values)
        told = get(report).tolist()
        iterate = finish(told)
        for name in ("worst", "done", "progress", "converged_times"):
            np.testing.assert_array_equal(getattr(iterate, name), getattr(judged, name))
        assert (iterate.converged == judged.converged).all()
        report = Report(*told)
        np.testing.assert_array_equal(report.worst, judged.worst)
        assert (report.failed == 0, 40 - report.unconverged) == (judged.done, judged.converged_times)
        return report.failed, report.unconverged

    with simulated.gpu() as put, rs.backend("cuda"):
        ours = found(put, lambda x: x.get())
    assert ours == found(lambda x: x, lambda x: x)
    assert ours == ((0, 0) if lost is None else (2, 33))


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["quasi_newton", "jacobi"])
def test_on_a_gpu_a_message_brings_the_test_of_coupled_units(method):
    import cupy
    import torch.distributed as dist

    wanted = rs.solve(_dense(lambda x: x, 1100), method="sequential")
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for _ in range(2):  # with what is kept of the first time
            sol = rs.solve(_dense(cupy.asarray, 1100, dist.group.WORLD), method=method)
            assert (sol.way, sol.status) == ("rounds", rs.Status.CONVERGED)
            assert bool(sol.local.converged_rows.all())
            assert sol.residuals[-1] == float(abs(sol.local._iterate.residual).max())
            assert np.abs(sol.states.local.get() - wanted.states).max() <= 2e-5
    finally:
        dist.destroy_process_group()
