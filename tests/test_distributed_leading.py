"""Affine scans over ranks that forget: one message, and a proof that holds exactly where rows may stand.

The reference is the loop. Ranks are threads that take turns, which a device of one's own
or a simulated one can serve too, and in a few tests processes.
"""

import gc
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from threading import Barrier, Lock, Thread

import cuda_host
import numpy as np
import pytest
import ranks
from cuda_host import simulated
from test_distributed_scans import Case, over

import recsolve as rs
from recsolve.base.arrays import kind_of, namespace, to_host
from recsolve.base.overriding import changed
from recsolve.base.shard import Timeline
from recsolve.distributed import carries, leading
from recsolve.distributed.elements import Elements
from recsolve.distributed.exchange import Sent
from recsolve.distributed.messages import layout_of, views
from recsolve.jacobians import Diagonal, Jacobian, Scalar
from recsolve.kernels.monoids import MONOIDS

T, EVENLY = 6000, {2: (3000, 3000), 3: (1500, 2001, 2499), 4: (1500,) * 4}
pytestmark = pytest.mark.usefixtures("compile_nothing")


# Ranks that are threads -------------------------------------------------------------------------------------------


class _Meeting:
    """Where ranks meet; one of them runs at a time."""

    def __init__(self, size, on_device):
        self.size, self.on_device, self.sent = size, on_device, {}
        self.turn, self.barrier = Lock(), Barrier(size, timeout=60)

    @contextmanager
    def waiting(self):
        self.turn.release()
        try:
            self.barrier.wait()
        finally:
            self.turn.acquire()
        yield


class _Rank:
    """What scans need of :class:`recsolve.distributed.ranks.Ranks`: messages as they lie on a device."""

    def __init__(self, meeting, rank):
        self.rank = rank
        self.come(meeting)

    def come(self, meeting):
        self.meeting, self.on_device, self.messages, self.over = meeting, meeting.on_device, 0, False
        return self

    def begin(self, numbers=(), arrays=(), brought=0):
        assert not self.over
        self.messages += 1
        sent, numbers = self.meeting.sent, np.asarray(numbers, float)
        sent[self.rank] = numbers, arrays
        with self.meeting.waiting():
            layout = layout_of(numbers, arrays)
            rows = np.zeros((self.meeting.size, layout.length), np.uint8)
            for rank, (_, own) in sent.items():
                assert [(x.dtype, x.shape) for x in own] == [(x.dtype, x.shape) for x in arrays]
                for x, there in zip(own, views(rows, numbers, arrays), strict=True):
                    there[rank] = to_host(x)
            rows = namespace(arrays[0]).asarray(rows)
            told = np.array([sent[rank][0] for rank in range(self.meeting.size)])
        with self.meeting.waiting():  # nobody goes on before all have read
            found = views(rows, numbers, arrays)
            return Sent(found, lambda: (told, [to_host(x) for x in found[:brought]]))

    def exchange(self, numbers, arrays):
        return self.begin(numbers, arrays)

    def closed(self):
        self.over = True


def in_threads(case, put=None, backend="numpy", known=None):
    """Return the whole rows of a case, and how many messages they took on every rank; with ``put`` as on a device.

    ``known`` are ranks by number, which expect what they have found before.
    """
    size = len(case.lengths)
    meeting, found, counts, failed = _Meeting(size, put is not None), [None] * size, [0] * size, []
    put = put or (lambda x: x)

    def run(rank):
        meeting.turn.acquire()
        try:
            own_rank = _Rank(meeting, rank) if known is None else known[rank].come(meeting)
            axis = Timeline(own_rank, case.lengths)
            own, way = slice(axis.start, axis.stop), slice(None, None, -1 if case.reverse else 1)
            elements = case.op.take(case.op.prepare(tuple([_put(e, put)[own] for e in case.elements])), way)
            initial, mask = case.initial, case.reset
            initial = None if initial is None else put(np.broadcast_to(initial, elements[1].shape[1:]))
            mask = None if mask is None else put(mask[own])[way]
            given = Elements(case.op, elements, initial, mask, axis.reversed() if case.reverse else axis)
            with np.errstate(all="ignore"), rs.backend(backend):
                y = leading.scan_over_ranks(given, last=True)
            assert kind_of(y) == kind_of(elements[1])
            assert axis.ranks.over or not leading._provable(given)
            found[rank], counts[rank] = to_host(y)[way], axis.ranks.messages
        except BaseException as error:
            failed.append(error)
            meeting.barrier.abort()
        finally:
            meeting.turn.release()

    threads = [Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    assert len(set(counts)) == 1, counts
    return np.concatenate(found), counts[0]


def _put(e, put):
    return changed(e, data=put(e.data)) if isinstance(e, Jacobian) else put(e)


def stepped(case, A, b):
    """The rows, step after step."""
    wide = np.result_type(b.dtype, np.float64)
    y, row = np.empty(b.shape, wide), np.zeros(b.shape[1:], wide) if case.initial is None else case.initial
    mask = np.zeros(b.shape, bool) if case.reset is None else case.reset
    a = np.broadcast_to(A.diagonal().data, b.shape)
    for t in range(len(b))[:: -1 if case.reverse else 1]:
        y[t] = row = np.where(mask[t], 0, a[t].astype(wide) * row) + b[t]
    return y


def judged(case, y, count, wanted):
    """Check rows by those of the loop in wider numbers: what steps round by is a share of S, and goes on as S does."""
    with np.errstate(all="ignore"):
        eps, (A, b) = np.finfo(y.dtype).eps, case.op.prepare(case.elements)
        reference = stepped(case, A, b)
        sizes, start = (A._mapped(abs), abs(b)), None if case.initial is None else abs(case.initial)
        S = case.scan(sizes, initial=start).astype(float)
        bound = replace(case, initial=None).scan((changed(sizes[0], data=sizes[0].data.astype(float)), 8 * eps * S))
    finite = np.isfinite(reference)
    assert (y.dtype, y.shape) == (b.dtype, b.shape)
    np.testing.assert_array_equal(y[~finite], reference[~finite])
    off = abs(y[finite] - reference[finite])
    assert (off <= bound[finite]).all(), (case.lengths, case.reverse, off.max())
    assert count == wanted, (case.lengths, count)


# Data -------------------------------------------------------------------------------------------------------------


def forgetting(rng, dtype=np.float64, batch=(), scalar=False):
    shape = (T, *batch, 2)
    b = rng.standard_normal(shape).astype(dtype)
    A = (rng.choice([-1, 1], shape) * rng.uniform(0.8, 0.85, shape)).astype(dtype)
    if b.dtype.kind == "c":
        b, A = b + 1j * rng.standard_normal(shape), A * np.exp(1j * rng.uniform(0, 6, shape))
    A = Scalar(A[..., 0].astype(dtype), rs.Layout(units=2)) if scalar else A.astype(dtype)
    return A, b.astype(dtype)


def plain(rng):
    """What forgets, in every dtype, structure and way to share it that one message is enough for."""
    ways = (*EVENLY.values(), (0, 3000, 0, 3000), (3000, 7, 2993, 0), (1000, 0, 5000))
    for turn, (dtype, batch, scalar) in enumerate(
        product((np.float64, np.float32, np.complex64), ((), (3,), (2, 1)), (False, True))
    ):
        A, b = forgetting(rng, dtype, batch, scalar)
        for way in (turn, turn + 3):
            reverse, start = bool(rng.integers(2)), b[0] if rng.integers(2) else None
            yield Case("affine", (A, b), ways[way % 6], start, reverse=reverse)
    A, b = forgetting(rng)
    yield Case("affine", (A, b), EVENLY[3], b[0], reset=rng.random((T, 2)) < 0.01)
    yield Case("affine", (np.full((T, 1), 0.5), b), EVENLY[3], 7.0)
    yield Case("affine", (A[:, :0], b[:, :0]), EVENLY[3])
    yield Case("affine", (A[:, 0], b[:, 0]), EVENLY[3], b[0, 0])


# What ranks hold, and how many messages it takes on four of 1500 steps.
def hard(rng):
    A, b = forgetting(rng)
    start, end, second = np.arange(T) % 1500 < 300, np.arange(T) == 1499, np.arange(T) // 1500 == 1

    def put(x, value, where):
        return np.where(where[:, None], value, x)

    ends = put(b, 0.0, end)
    yield "some remember", (put(A, 0.9999, second), b), 1
    yield "all remember", (put(A, 0.9999, second | ~second), b), 1
    yield "nothing comes for a while", (A, put(b, 0.0, start & second)), 1
    yield "nothing comes for most of a while", (A, put(b, 0.0, (np.arange(T) % 1500 > 50) & start & second)), 1
    yield "nothing comes, ever, in one unit", (A, b * [0.0, 1.0]), 1
    yield "expands later", (put(A, 1.02, second & ~start & (np.arange(T) % 1500 < 900)), b), 1
    yield "remembers first, expands later", (put(A, 1.02, second & (np.arange(T) % 1500 < 900)), b), 1
    yield "large", (A, put(b, 1e8, end)), 2
    yield "huge", (A, put(b, 1e30, end)), 2
    yield "huge, and expands later", (put(A, 1.05, second & ~start & (np.arange(T) % 1500 < 900)), put(b, 1e30, end)), 2
    kept = put(A, 1.0, second & ~start)
    yield "large, and kept", (kept, put(b, 1e24, end)), 2
    yield "large, and kept by the next too", (put(kept, 0.9999, np.arange(T) // 1500 == 2), put(b, 1e24, end)), 2
    yield "huge, twice", (A, put(b, 1e30, np.arange(T) % 1500 == 1499)), 3
    yield "NaN", (A, ends + np.where(end, np.nan, 0)[:, None]), 3
    yield "inf", (A, ends + np.where(end, np.inf, 0)[:, None]), 3
    yield "inf in the first steps", (A, put(b, np.inf, np.arange(T) == 1600)), 3
    yield "overflows in the first steps", (put(A, 1e200, (np.arange(T) >= 1600) & (np.arange(T) < 1604)), b), 3


HARD = [name for name, *_ in hard(np.random.default_rng(0))]


def test_ranks_that_forget_take_one_message():
    for case in plain(np.random.default_rng(0)):
        judged(case, *in_threads(case), 1)


@pytest.mark.parametrize("name", HARD)
def test_rows_stand_where_it_is_proven_and_are_put_right_elsewhere(name):
    for reverse in (False, True):
        rng = np.random.default_rng(1)
        elements, wanted = next((elements, count) for found, elements, count in hard(rng) if found == name)
        way = slice(None, None, -1 if reverse else 1)
        case = Case("affine", tuple(e[way] for e in elements), (1500,) * 4, elements[1][9], reverse=reverse)
        judged(case, *in_threads(case), wanted)


def test_matrices_may_have_fewer_bits_than_vectors():
    """As Jacobians have beside residuals that are computed in more; some ranks compose them."""
    A, b = next(elements for name, elements, _ in hard(np.random.default_rng(0)) if name == "some remember")
    A = Diagonal(A.astype(np.float32), rs.Layout(units=2))
    y, count = in_threads(Case("affine", (A, b), (1500,) * 4))
    assert count == 1
    wanted = stepped(Case("affine", (A, b), (T,)), A, b)
    assert abs(y - wanted).max() <= 1500 * np.finfo(np.float32).eps * abs(wanted).max()  # products of float32


def test_a_composed_element_that_overflows_is_put_right_beside_ranks_that_lead():
    A, b = forgetting(np.random.default_rng(0))
    A[1499], b[1499:3000], A[1500:2988] = 1e-300, 0, 1
    A[2988:3000] = np.where(np.arange(12) % 4 < 2, 1e200, 1e-200)[:, None]
    case = Case("affine", (A, b), (1500,) * 4)
    for put in (None, lambda x: x):
        y, count = in_threads(case, put)
        np.testing.assert_allclose(y, stepped(case, Diagonal(A, rs.Layout(units=2)), b), rtol=1e-12, atol=1e-13)
        assert (y[2988:3000] != 0).all()
        assert count == 2


def test_what_has_underflowed_is_not_taken_for_forgotten():
    """A product of the first steps that underflows on the way, and does not vanish."""
    A, b = np.ones((T, 2)), np.ones((T, 2))
    A[:4], b[:4] = [[1e-170], [1e-170], [1e170], [1e170]], 0
    axis = Timeline(_Rank(_Meeting(2, False), 1), (0, T))
    for matrix, forgets in ((A, False), (np.where(np.arange(T)[:, None] == 9, 0, A), True)):
        given = Elements(MONOIDS["affine"], (Diagonal(matrix, rs.Layout(units=2)), b), None, None, axis)
        assert leading._shown(given).forgets() == forgets


def test_no_later_number_changes_a_bit_and_results_are_the_same_again():
    rng = np.random.default_rng(0)
    A, b = forgetting(rng)
    huge, kept, silent, broken = b.copy(), A.copy(), b.copy(), b.copy()
    huge[4400:4500], kept[3000:4500], silent[3000:4500], broken[4100] = 1e30, 0.9999, 0, np.nan
    case, rows = Case("affine", (A, b), (1500,) * 4, b[0]), []
    for elements in ((A, b), (A, b), (A, huge), (kept, b), (A, silent), (A, broken)):
        for put in (None, lambda x: x):
            rows.append(in_threads(replace(case, elements=elements), put)[0])
    for place, y in enumerate(rows):
        same = T if place < 4 else 3000
        np.testing.assert_array_equal(y[:same], rows[0][:same])
        assert same == T or not np.array_equal(y[same:], rows[0][same:])


def pulled(group, A, b, start, lengths):
    """Return the gradients of a scan of shards, and how many messages they take."""
    shards = [rs.distributed.shard(x, group, lengths=lengths) for x in (A, b)]
    y = rs.scan("affine", tuple(shards), initial=start)
    known = y.timeline.ranks
    before = known.messages
    g = rs.scan_adjoint("affine", tuple(shards), y, shards[1], initial=start)
    return *(e.local for e in g.elements), g.initial, known.messages - before


@pytest.mark.parametrize("size", [2, 3, 4])
def test_processes_take_one_message_for_scans_and_one_for_what_comes_back(size):
    rng = np.random.default_rng(size)
    A, b = forgetting(rng)
    case = Case("affine", (A, b), EVENLY[size], b[0])
    (first, second), counts = over(size, [case, case])
    np.testing.assert_array_equal(first, second)
    judged(case, first, counts[0], 1)
    *found, counts = zip(*ranks.over(size, pulled, A, b, b[0], EVENLY[size]), strict=True)
    wanted = rs.scan_adjoint("affine", (A, b), rs.scan("affine", (A, b), initial=b[0]), b, initial=b[0])
    for g, parts in zip(wanted.elements, found, strict=False):
        np.testing.assert_allclose(np.concatenate(parts), g, rtol=1e-12, atol=1e-12)
    for start in found[2]:
        np.testing.assert_allclose(start, wanted.initial, rtol=1e-12, atol=1e-12)
    assert set(counts) == {3}  # the rows before, the cotangents, the sum for the initial state


def failing(group, A, b, fault):
    """Return how a scan ends of which one rank fails as it looks at its first steps, or runs; then all go on."""
    import torch.distributed as dist

    shards = [rs.distributed.shard(x, group) for x in (A, b)]

    def fails(*args, **kwargs):
        raise MemoryError("no room")

    with pytest.MonkeyPatch.context() as patch:  # ranks are kept for other tests
        if dist.get_rank(group) == 1:
            patch.setattr(f"recsolve.distributed.{fault}", fails)
        try:
            rs.scan("affine", tuple(shards))
            found = None
        except Exception as error:
            found = type(error).__name__, str(error)
    rs.distributed.gather(rs.scan("affine", tuple(shards)))
    return found


@pytest.mark.parametrize("fault", ["leading._shown", "elements.Elements.run"])
def test_a_rank_that_fails_before_its_message_ends_all(fault):
    found = ranks.over(3, failing, *forgetting(np.random.default_rng(0)), fault)
    assert found[1] == ("MemoryError", "no room")
    for kind, text in (found[0], found[2]):
        assert kind == "RankError"
        assert "no room" in text


def cases_on_a_device(rng, dtype):
    """What a device is asked for ahead, right or wrong: kernels take the one, and arrays the other."""
    for name, (A, b), count in hard(rng):
        if dtype == np.float64 or name in ("some remember", "expands later", "NaN"):
            yield Case("affine", (A.astype(dtype), b.astype(dtype)), (1500,) * 4, b[9].astype(dtype)), count
    A, b = forgetting(rng, dtype)
    yield Case("affine", (A, b), EVENLY[3], reverse=True), 1
    yield Case("affine", forgetting(rng, dtype, scalar=True), EVENLY[2]), 1
    yield Case("affine", (A, b), (3000, 0, 3000), b[0]), 1
    yield Case("affine", (np.full((T, 1), 0.5, dtype), b), EVENLY[2]), 1
    yield Case("affine", (A, b), EVENLY[2], reset=rng.random((T, 2)) < 0.01), 1


def test_what_is_asked_for_before_the_message_is_read_is_put_right():
    for case, count in cases_on_a_device(np.random.default_rng(2), np.float64):
        judged(case, *in_threads(case, lambda x: x), count)


def test_where_nothing_is_proven_a_second_message_compares(monkeypatch):
    """As on the way back of solves, of which no rows can be taken anew."""
    monkeypatch.setattr(leading, "_provable", lambda given: False)
    for put in (None, lambda x: x):
        for case, _ in cases_on_a_device(np.random.default_rng(2), np.float64):
            y, found = in_threads(case, put)
            judged(case, y, found, found)
    assert found == 2  # where all forget


@pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_find_and_prove_the_same(dtype, monkeypatch):
    monkeypatch.setattr(leading, "Soon", _There)
    monkeypatch.setattr(carries, "Soon", _There)
    with simulated.gpu() as put:
        for case, count in cases_on_a_device(np.random.default_rng(2), dtype):
            judged(case, *in_threads(case, put, "cuda"), count)
        monkeypatch.setattr(leading, "_provable", lambda given: False)
        case = replace(case, reset=None)
        judged(case, *in_threads(case, put, "cuda"), 2)


@pytest.fixture(params=["arrays", "kernels"])
def device(request, monkeypatch):
    """How ranks run that have to wait for what their first steps show: of arrays, and of a simulated GPU."""
    monkeypatch.setattr(leading, "Soon", _There)
    monkeypatch.setattr(carries, "Soon", _There)
    if request.param == "arrays":
        yield {"put": lambda x: x}
    elif cuda_host.compiler() is None:
        pytest.skip("needs g++")
    else:
        with simulated.gpu() as put:
            yield {"put": put, "backend": "cuda"}


@pytest.mark.parametrize("expected", [False, True])
def test_what_is_expected_of_a_rank_changes_nothing(device, expected, monkeypatch):
    rng = np.random.default_rng(3)
    given = {name: elements for name, elements, _ in hard(rng)}
    names = ("some remember", "all remember", "large", "NaN", "nothing comes, ever, in one unit")
    elements = [forgetting(rng), *(given[name] for name in names), forgetting(rng, np.float32, (2,))]
    for A, b in elements:
        for reverse in (False, True):
            case = Case("affine", (A, b), (3000, 7, 2993, 0) if reverse else (1500,) * 4, b[9], reverse=reverse)
            with monkeypatch.context() as patch:
                patch.setattr(leading, "_found_last", lambda given: ({}, None))
                wanted, count = in_threads(case, **device)
                patch.setattr(leading, "_found_last", lambda given: ({None: expected}, None))
                found, again = in_threads(case, **device)
            np.testing.assert_array_equal(found, wanted)
            assert again == count


def test_a_rank_expects_what_it_found_in_the_last_call_of_a_kind(device, monkeypatch):
    """What is done for the message of a rank: once where it finds that, twice where it does not."""
    size, done, begun = 2, [], leading._leading

    def leads(given, shown):
        done.append((given.timeline.ranks.rank, shown is not None))
        return begun(given, shown)

    monkeypatch.setattr(leading, "_leading", leads)
    rng = np.random.default_rng(4)
    A, b = forgetting(rng)
    kept, wide = np.where(np.arange(2) == 1, 0.9999, A), np.concatenate([A, A], axis=1)
    forgets, remembers = (A, b), (kept, b)
    other = wide, np.concatenate([b, b], axis=1)
    calls = [
        (forgets, [True]), (forgets, [True]), (remembers, [True, False]), (remembers, [False]),
        (forgets, [False, True]), (remembers, [True, False]), (other, [True]),
        (forgets, [False, True]), (other, [True]),
    ]  # fmt: skip
    known = {rank: _Rank(_Meeting(size, True), rank) for rank in range(size)}
    for elements, wanted in calls:
        case = Case("affine", elements, EVENLY[size], elements[1][0])
        single = in_threads(case, **device)
        done.clear()
        y, count = in_threads(case, **device, known=known)
        for rank in range(size):
            assert [forgot for own, forgot in done if own == rank] == wanted
        np.testing.assert_array_equal(y, single[0])
        judged(case, y, count, 1)
        assert single[1] == 1


def test_what_is_done_in_vain_may_fail(device, monkeypatch):
    A, b = next(elements for name, elements, _ in hard(np.random.default_rng(0)) if name == "all remember")
    case = Case("affine", (A, b), (1500,) * 4)
    wanted = in_threads(case, **device)
    begun = leading._leading

    def leads(given, shown):
        if shown is not None:
            raise MemoryError("no room")
        return begun(given, shown)

    monkeypatch.setattr(leading, "_leading", leads)
    monkeypatch.setattr(leading, "_found_last", lambda given: ({None: True}, None))
    y, count = in_threads(case, **device)
    np.testing.assert_array_equal(y, wanted[0])
    assert count == wanted[1] == 1
    with pytest.raises(MemoryError):
        in_threads(Case("affine", forgetting(np.random.default_rng(0)), (1500,) * 4), **device)


def test_kinds_of_calls_are_forgotten_with_the_ranks_and_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(leading, "_KINDS", 3)
    before = len(leading._FOUND)
    known = {rank: _Rank(_Meeting(2, False), rank) for rank in range(2)}
    rng = np.random.default_rng(0)
    for width in range(1, 6):
        elements = [rng.uniform(0, 0.5, (T, width)), rng.uniform(1, 2, (T, width))]
        in_threads(Case("affine", tuple(elements), EVENLY[2]), known=known)
        assert all(len(leading._FOUND[known[rank]]) <= 3 for rank in range(2))
    del known
    gc.collect()
    assert len(leading._FOUND) <= before


class _There:
    waits = True

    def __init__(self, x):
        self.x = x

    def read(self):
        return to_host(self.x)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_on_a_gpu_it_is_the_same(dtype):
    import cupy

    for case, count in cases_on_a_device(np.random.default_rng(2), dtype):
        judged(case, *in_threads(case, cupy.asarray, "cuda"), count)
