"""Faults of one rank over the public calls on shards: every other rank ends in time with an error that names it."""

import _thread
import importlib
import os
import pickle
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import ranks

import recsolve as rs
from recsolve.distributed.gathering import ranks_in_words
from recsolve.distributed.pinned import Pinned

pytest.importorskip("torch")
SIZE = 3
FAULTY = 1  # the rank
T, UNITS = 7, 2
pytestmark = pytest.mark.usefixtures("compile_nothing")


# The public calls, of which a rank may change arguments, and in the middle of which `within` is called ----------------


def shared(group, values, **how):
    return rs.distributed.shard(values, group, **how)


def scanned(group, *, monoid="affine", dtype=np.float64, lengths=None, within=None, **how):
    a = np.full((T, UNITS), 0.5, dtype)
    with _patched("recsolve.distributed.elements", "summarise", within):
        return rs.scan(monoid, tuple(shared(group, x, lengths=lengths) for x in (a, a)), **how).local


def solved(
    group, *, method="newton", kind="GRU", dtype=np.float64, lengths=None, within=None, values=None, seed=0,
    initial=None, **how,
):  # fmt: skip
    cell = getattr(rs.cells, kind).random(input_size=UNITS, hidden_size=UNITS, mixing="diagonal", rng=seed, dtype=dtype)
    x = np.ones((T, UNITS), dtype) if values is None else values
    with _patched("recsolve.distributed.task", "tolerance_of", within):
        rec = cell.recurrence(shared(group, x, lengths=lengths), initial=initial)
        return rs.solve(rec, method=method, **how)


def computed(group, *, within=None, jacobian=None, **how):
    def f(h, u):
        if within is not None:
            within()
        return np.tanh(0.5 * h + u)

    inputs = shared(group, np.linspace(-1, 1, T * UNITS).reshape(T, UNITS))
    how_made = {"initial": np.zeros(UNITS), "structure": "diagonal", "jacobian": jacobian}
    return rs.solve(rs.Recurrence.from_function(f, inputs=inputs, **how_made), **how)


def adjoined(group, *, within=None, cotangent="output", unconverged=False, lengths=None, **how):
    solution = solved(group, lengths=lengths, **how)
    given = {cotangent: getattr(solution, cotangent)} if cotangent else {}
    with _patched("recsolve.distributed.backwards", "cotangent_of", within):
        return rs.adjoint(solution, **given, unconverged=unconverged).initial


def layered(group, *, within=None):
    import torch

    layer = rs.nn.GRU(UNITS, UNITS, num_layers=2)
    calls = []

    def second():
        calls.append(1)
        if len(calls) == 2:
            within()

    with _patched("recsolve.nn.shared", "run_over_ranks", within and second):
        return layer(shared(group, torch.ones(T, 1, UNITS)))[1].shape


def gathered(group, *, dtype=np.float64, lengths=None, units=UNITS):
    return rs.distributed.gather(shared(group, np.ones((T, units), dtype), lengths=lengths))


def joined(group, *, dtype=np.float64, units=UNITS):
    return rs.distributed.from_local(np.ones((2, units), dtype), group).shape


@contextmanager
def _patched(module, name, before):
    """Call `before` whenever a function of recsolve is called."""
    module = importlib.import_module(module)
    function = getattr(module, name)

    def patched(*args, **kwargs):
        before()
        return function(*args, **kwargs)

    setattr(module, name, patched if before else function)
    try:
        yield
    finally:
        setattr(module, name, function)


def raises(error):
    def fault(*args):
        raise error

    return fault


def ahead(group, *, at=None, within=None, units=UNITS):
    """Begin a second message before the first is read, and send a third one; fail at one of them."""
    all_ranks, row = shared(group, np.ones(T)).timeline.ranks, np.ones(units)

    def comes_to(place):
        if at == place:
            within()

    with all_ranks.together("two messages ahead"):
        comes_to(0)
        first = all_ranks.begin([1.0], [row], more=True)
        comes_to(1)
        second = all_ranks.begin([2.0], [first.arrays[0].sum(axis=0)], brought=1)
        comes_to(2)
        (brought,) = second.told()[1]
        third = all_ranks.exchange([3.0])
        comes_to(3)
        told = first.numbers().sum() + second.numbers().sum() + third.numbers().sum()
        return brought.sum() / row.size, told


def described(group, *, within=None):
    """Make a call whose description fails."""
    axis = shared(group, np.ones(T)).timeline

    def call():
        if within is not None:
            within()
        return "a call"

    with axis.together(call):
        return axis.ranks.exchange([1.0]).numbers().sum()


def nameless(group, *, within=None):
    """Fail in a call before its first message, and in the description that the others are to be told."""
    axis = shared(group, np.ones(T)).timeline

    def call():
        if within is not None:
            raise OSError("of the description")
        return "a call"

    with axis.together(call):
        if within is not None:
            within()
        return axis.ranks.exchange([1.0]).numbers().sum()


# What one rank does, as against what the others do: the calls, and what their errors say -----------------------------

SCANNED = [scanned, {}]
DIFFER = [  # the faulty rank's call, the others' call, what is said of both
    (
        [scanned, {"monoid": "max_plus"}],
        [scanned, {"monoid": "min_plus"}],
        ["ranks 0, 2 call recsolve.scan('min_plus'", "rank 1 calls recsolve.scan('max_plus'"],
    ),
    ([scanned, {"reverse": True}], SCANNED, ["reverse=True", "reverse=False"]),
    ([scanned, {"dtype": np.float32}], SCANNED, ["float32", "float64"]),
    ([scanned, {"dtype": np.complex64}], SCANNED, ["complex64", "float64"]),
    ([scanned, {"lengths": [1, 4, 2]}], SCANNED, ["(1, 4, 2)", "(3, 2, 2)"]),
    ([solved, {"method": "quasi_newton"}], [solved, {}], ["method='newton'", "method='quasi_newton'"]),
    ([solved, {"tol": 1e-3}], [solved, {}], ["tol=0.001"]),
    ([solved, {"maxiter": 3}], [solved, {}], ["maxiter=3"]),
    ([solved, {"fallback": "sequential"}], [solved, {}], ["fallback='sequential'"]),
    ([solved, {"options": {"pin": False}}], [solved, {}], ["pin: False"]),
    ([solved, {"dtype": np.float32}], [solved, {}], ["float32", "float64"]),
    ([solved, {"seed": 1}], [solved, {}], ["weights and initial"]),
    ([solved, {"initial": np.full(UNITS, 0.5)}], [solved, {}], ["weights and initial"]),
    ([solved, {"kind": "LSTM"}], [solved, {}], ["gru", "lstm"]),
    ([solved, {"kind": "MGU"}], [solved, {}], ["gru", "mgu"]),
    ([solved, {"lengths": [1, 4, 2]}], [solved, {}], ["(1, 4, 2)", "(3, 2, 2)"]),
    ([computed, {}], [solved, {}], ["solve of f", "solve of gru"]),
    ([computed, {}], SCANNED, ["recsolve.solve", "recsolve.scan"]),
    ([adjoined, {"cotangent": "final"}], [adjoined, {}], ["with final", "with output"]),
    ([gathered, {}], SCANNED, ["recsolve.distributed.gather", "recsolve.scan"]),
    ([gathered, {"dtype": np.float32}], [gathered, {}], ["float32", "float64"]),
    ([gathered, {"units": 3}], [gathered, {}], ["(3, 3)", "(3, 2)"]),
    ([gathered, {"lengths": [1, 4, 2]}], [gathered, {}], ["(1, 4, 2)", "(3, 2, 2)"]),
    (SCANNED, [ahead, {}], ["recsolve.scan", "two messages ahead"]),
    ([ahead, {"units": 1 << 15}], [ahead, {}], ["two messages ahead"]),
    ([ahead, {}], [ahead, {"units": 1 << 15}], ["two messages ahead"]),
    ([joined, {"dtype": np.float32}], [joined, {}], ["float32", "float64"]),
    ([joined, {"units": 3}], [joined, {}], ["('steps', 3)", "('steps', 2)"]),
]
FAIL = [  # the faulty rank's call, the others' call, the error of the faulty rank
    ([scanned, {"within": raises(MemoryError("no room"))}], SCANNED, ("MemoryError", "no room")),
    ([scanned, {"within": raises(KeyboardInterrupt())}], SCANNED, ("KeyboardInterrupt", "")),
    ([scanned, {"within": raises(rs.distributed.RankError("elsewhere"))}], SCANNED, ("RankError", "elsewhere")),
    ([scanned, {"initial": np.ones(5)}], SCANNED, ("ValueError", "initial")),
    ([scanned, {"axis": 1}], SCANNED, ("ValueError", "axis is 1")),
    ([computed, {"within": raises(ArithmeticError("of f"))}], [computed, {}], ("ArithmeticError", "of f")),
    ([computed, {"within": raises(MemoryError())}], [computed, {}], ("MemoryError", "")),
    ([computed, {"within": raises(KeyboardInterrupt())}], [computed, {}], ("KeyboardInterrupt", "")),
    ([computed, {"callback": raises(ValueError())}], [computed, {}], ("ValueError", "callback")),
    ([computed, {"method": "nothing"}], [computed, {}], ("ValueError", "nothing")),
    ([computed, {"maxiter": -1}], [computed, {}], ("ValueError", "maxiter")),
    ([computed, {"every": 2}], [computed, {}], ("ValueError", "every")),
    ([computed, {"guess": np.ones(5)}], [computed, {}], ("ValueError", "guess")),
    ([computed, {"jacobian": raises(OSError("of the Jacobian"))}], [computed, {}], ("OSError", "of the Jacobian")),
    ([solved, {"within": raises(MemoryError())}], [solved, {}], ("MemoryError", "")),
    ([adjoined, {"within": raises(MemoryError())}], [adjoined, {}], ("MemoryError", "")),
    ([adjoined, {"within": raises(KeyboardInterrupt())}], [adjoined, {}], ("KeyboardInterrupt", "")),
    ([layered, {"within": raises(MemoryError())}], [layered, {}], ("MemoryError", "")),
    *(([ahead, {"within": raises(MemoryError()), "at": i}], [ahead, {}], ("MemoryError", "")) for i in range(3)),
    ([ahead, {"within": raises(KeyboardInterrupt()), "at": 1}], [ahead, {}], ("KeyboardInterrupt", "")),
    ([described, {"within": raises(MemoryError("of weights"))}], [described, {}], ("MemoryError", "of weights")),
    ([nameless, {"within": raises(MemoryError("of the call"))}], [nameless, {}], ("MemoryError", "of the call")),
    ([adjoined, {"cotangent": None}], [adjoined, {}], ("ValueError", "no cotangent")),
]


def in_turn(group, table):
    """Return what each call of a table gives or raises here; between them a call of all ranks must succeed."""
    import torch.distributed as dist

    rank, found = dist.get_rank(group), []
    for own, others, _ in globals()[table]:
        call, how = own if rank == FAULTY else others
        try:
            found.append(("", repr(call(group, **how)), ()))
        except BaseException as error:
            found.append((type(error).__name__, str(error), getattr(error, "ranks", None)))
        np.testing.assert_array_equal(gathered(group), 1)
    return found


def behind(group):
    """Fail on one rank once the others have all that they need, and go on: all ranks, then each with another call."""
    all_ranks, found = shared(group, np.ones(T)).timeline.ranks, []
    for number in range(5 - (all_ranks.rank == FAULTY)):
        try:
            with all_ranks.together("a call"):
                told = all_ranks.exchange([float(number)]).numbers()[:, 0]
                if number == 1 and all_ranks.rank == FAULTY:
                    raise MemoryError("of what was told")
                all_ranks.closed()
                found.append(told.tolist())
        except (MemoryError, rs.distributed.RankError) as error:
            found.append(str(error))
    return found


def test_a_rank_that_fails_a_call_behind_the_others_is_not_taken_for_one_that_is_not():
    check_behind([end.value for end in ranks.lost(SIZE, behind)])


def check_behind(values):
    for rank, (first, second, *later) in enumerate(values):
        assert first == [0.0] * SIZE
        if rank == FAULTY:
            assert second == "of what was told"
        else:
            assert second == [1.0] * SIZE
            told = later.pop(0)
            assert "failed on rank 1: MemoryError: of what was told" in told
        assert len(later) == 2
        for told in later:
            assert "ranks 0, 2 call a call" in told, told
            assert "rank 1 calls a call" in told
            assert "make a new process group" in told


def test_a_message_may_follow_before_the_first_is_read():
    assert ranks.over(SIZE, ahead) == [(SIZE * SIZE, 6.0 * SIZE)] * SIZE


def waited_for(group, place):
    """Fail at a place on one rank, while the others take longer to their second message than it waits for others."""
    all_ranks = shared(group, np.ones(T)).timeline.ranks
    faulty = all_ranks.rank == FAULTY
    gathered(group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_ranks, "grace", 0.5)
        with pytest.raises(MemoryError if faulty else rs.distributed.RankError) as found:
            ahead(group, at=place if faulty else 1, within=raises(MemoryError("no room")) if faulty else sleeps)
    ahead(group)
    return str(found.value)


def sleeps():
    time.sleep(1)


@pytest.mark.parametrize("place", [0, 1])
def test_those_who_have_said_that_they_go_on_are_waited_for(place):
    for found in ranks.over(SIZE, waited_for, place):
        assert "no room" in found


def test_memory_to_which_a_message_may_still_come_is_kept(monkeypatch):
    """Of a message that is given up, which the device may write later."""
    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(empty_pinned=np.empty))
    pinned = Pinned()
    for size in (8, 9000):
        room = pinned.take(size)
        assert len(room) >= size
        kept = weakref.ref(room)
        del room
        assert kept() is not None


def test_calls_that_differ_end_on_all_ranks():
    for rank, found in enumerate(ranks.over(SIZE, in_turn, "DIFFER")):
        check_differ(rank, found)


def check_differ(rank, found):
    for (kind, text, named), (*_, said) in zip(found, DIFFER, strict=True):
        assert kind == "RankError", (rank, text, said)
        assert all(part in text for part in said), text
        assert named == (tuple({0, 1, 2} - {FAULTY}) if rank == FAULTY else (FAULTY,))


@pytest.mark.parametrize(
    ("named", "words"),
    [((3,), "rank 3"), ((0, 2), "ranks 0, 2"), ((*range(21), 22, 30, 31), "ranks 0 to 20, 22, 30, 31")],
)
def test_many_ranks_are_named_in_few_words(named, words):
    assert ranks_in_words(named) == words


def test_what_fails_on_one_rank_ends_all_with_its_reason():
    for rank, found in enumerate(ranks.over(SIZE, in_turn, "FAIL")):
        check_fail(rank, found)


def check_fail(rank, found):
    for (kind, text, named), (*_, (error, said)) in zip(found, FAIL, strict=True):
        if rank == FAULTY:
            assert kind == error
            assert said in text
        else:
            assert kind == "RankError", text
            assert f"rank {FAULTY}: {error}" in text
            assert said in text
            assert named == (FAULTY,)


# Ranks that leave for good: each fault in a call of its own processes, all of them at once ---------------------------


def kills():
    os.kill(os.getpid(), signal.SIGKILL)


def hangs():
    time.sleep(4)  # longer than the others wait


def leaves():
    sys.exit(3)


LOST = [  # what is called, where the fault is, the fault, what the others' error says of the rank
    (call, place, fault, said)
    for call in (scanned, computed, adjoined)
    for place, fault, said in [
        ("before", kills, "rank 1 did not come"),
        ("within", kills, "rank 1 did not come"),
        ("before", hangs, "(nothing came within 1 s)"),
        ("within", hangs, "(nothing came within 1 s)"),
        ("before", leaves, "rank 1 did not come"),
        ("within", leaves, "rank 1: SystemExit: 3"),
    ]
]


def left(group, index):
    """Make a call in which a rank is lost, and another one; return the error of the first."""
    import torch.distributed as dist

    from recsolve.distributed.ranks import Ranks

    Ranks.grace = 1.5
    call, place, fault, _ = LOST[index]
    faulty = dist.get_rank(group) == FAULTY
    gathered(group)
    rs.distributed.shard(np.ones(T), group, timeout=1)
    if faulty and place == "before":
        fault()
    with pytest.raises(rs.distributed.RankError) as first:
        call(group, within=fault if faulty and place == "within" else None)
    if fault is kills:
        with pytest.raises(rs.distributed.RankError, match="make a new process group"):
            call(group)
        call(dist.new_group([0, 2], use_local_synchronization=True))
    return str(first.value), first.value.ranks


def test_a_rank_that_is_lost_is_named_in_time():
    with ThreadPoolExecutor(len(LOST)) as threads:
        ended = list(threads.map(lambda index: ranks.lost(SIZE, left, index, timeout=40), range(len(LOST))))
    for (call, place, fault, said), ends in zip(LOST, ended, strict=True):
        name = f"{call.__name__} {place} {fault.__name__}"
        assert ends[FAULTY].code == {kills: -signal.SIGKILL, hangs: None, leaves: 3}[fault], name
        assert all(end.seconds < 20 for end in ends), name
        if fault is hangs:  # it comes late, and is not left waiting
            assert ends[FAULTY].returned, (name, ends[FAULTY])
        for end in (ends[0], ends[2]):
            assert end.returned, (name, end)
            text, named = end.value
            assert said in text, (name, text)
            assert named == (FAULTY,), name


def late(group):
    import torch.distributed as dist

    x = shared(group, np.ones(T), timeout=1)
    if dist.get_rank(group) == FAULTY:
        time.sleep(3)  # longer than the others wait, but not than they ask who is there
    with pytest.raises(rs.distributed.RankError) as error:
        rs.distributed.gather(x)
    return str(error.value), error.value.ranks


def test_a_rank_that_comes_too_late_is_named():
    check_late([end.value for end in ranks.lost(SIZE, late)])


def check_late(values):
    for rank, (text, named) in enumerate(values):
        assert named == (() if rank == FAULTY else (FAULTY,))
        wanted = (
            "perhaps it is this one" if rank == FAULTY else "rank 1 came too late to message 0 (nothing came within"
        )
        assert wanted in text


def amid(group, fault):
    """Fail on one rank in the middle of a message."""
    import torch.distributed as dist

    from recsolve.distributed.ranks import Ranks

    rank, sent = dist.get_rank(group), Ranks._started
    gathered(group)
    if fault == "interrupt":  # while it waits
        if rank == FAULTY:
            threading.Timer(0.3, _thread.interrupt_main).start()
        elif rank == 0:
            time.sleep(1)
    elif rank == FAULTY:  # between the parts of a long one

        def starts(self, packed, patience):
            if len(packed) > 10_000:
                raise MemoryError("of the rest")
            return sent(self, packed, patience)

        Ranks._started = starts
    return gathered(group, units=3000)


@pytest.mark.parametrize("fault", ["interrupt", "rest"])
def test_a_rank_that_fails_in_the_middle_of_a_message_is_named_with_its_reason(fault):
    check_amid(ranks.lost(SIZE, amid, fault), fault)


def check_amid(ends, fault):
    error = {"interrupt": "KeyboardInterrupt", "rest": "MemoryError: of the rest"}[fault]
    assert ends[FAULTY].error == error.partition(":")[0]
    for end in (ends[0], ends[2]):
        assert end.error == "RankError"
        assert f"rank 1: {error}" in end.text
        assert end.seconds < 20


class Unreadable:
    """An array on disk that cannot be read."""

    shape = (T, UNITS)

    def __getitem__(self, steps):
        raise OSError("no such file")


def missed(group, fault):
    """Fail on one rank where no other waits for it; it does not come to their next call."""
    import torch.distributed as dist

    faulty = dist.get_rank(group) == FAULTY
    if fault == "at the end":
        with _patched("recsolve.distributed.elements", "scan", raises(MemoryError("of the rows")) if faulty else None):
            scanned(group)
    elif faulty and fault == "at the data":
        shared(group, Unreadable())
    elif faulty:
        solved(group, values=np.ones((T, 5)))
    shared(group, np.ones(T), timeout=1)
    return gathered(group)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("at the end", "MemoryError: of the rows"),
        ("alone", "ValueError: x "),
        ("at the data", "OSError: no such file"),
    ],
)
def test_what_failed_while_no_other_waited_is_told_in_the_next_call(fault, error):
    ends = ranks.lost(SIZE, missed, fault)
    assert ends[FAULTY].error == error.partition(":")[0]
    for end in (ends[0], ends[2]):
        assert end.error == "RankError"
        assert f"rank 1: {error}" in end.text


def foreign(group):
    x = pickle.loads(pickle.dumps(shared(group, np.full((T, UNITS), 0.5))))
    with pytest.raises(RuntimeError, match="the shard comes from another process"):
        rs.scan("affine", (x, x))
    return scanned(group).sum()


def test_a_shard_of_another_process_is_refused():
    assert sum(ranks.over(SIZE, foreign)) > 0


# Numbers that are no fault of a rank ---------------------------------------------------------------------------------


def with_nan(group, length, where, method):
    x = np.ones((length, UNITS))
    x[where] = np.nan
    solution = solved(group, values=x, method=method)
    with pytest.raises(ValueError, match="nonfinite"):
        rs.adjoint(solution, final=solution.final)
    told = str(solution.status), solution.converged_prefix, solution.message, solution.success
    return told, rs.distributed.gather(solution.states)


@pytest.mark.parametrize(("length", "where"), [(T, 0), (T, 4), (T, T - 1), (3600, 1700)])  # long ones solve in rounds
@pytest.mark.parametrize("method", ["auto", "newton", "sequential", "jacobi"])
def test_nan_in_the_data_of_a_rank_is_a_status_of_all(length, where, method):
    found = ranks.over(SIZE, with_nan, length, where, method)
    x = np.ones((length, UNITS))
    x[where] = np.nan
    cell = rs.cells.GRU.random(input_size=UNITS, hidden_size=UNITS, mixing="diagonal", rng=0)
    alone = rs.solve(cell.recurrence(x), method=method)
    for told, states in found:
        assert told == found[0][0]
        assert told[:2] == ("nonfinite", where) == (str(alone.status), alone.converged_prefix)
        assert "ended as converged" not in told[2]
        np.testing.assert_allclose(states[:where], alone.states[:where], rtol=1e-12)
        np.testing.assert_array_equal(np.isnan(states), np.isnan(alone.states))
