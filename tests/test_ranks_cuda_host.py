"""What the kernels for ranks do, built by g++."""

import cuda_host
import numpy as np
import pytest

import recsolve as rs
from recsolve.kernels.gpu.message import Packing
from recsolve.kernels.gpu.ranks import (
    added,
    agreed,
    folded,
    joined,
    mended,
    met_and_near,
    probed,
    summed,
    taken,
)


class Counting(cuda_host.Host):
    """A machine that counts launches, for what a host is slow at."""

    launches = 0

    def launch(self, launch):
        self.launches += 1
        super().launch(launch)


needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")


def forgets_by(least, A, b, machine):
    """Whether all steps forget what comes in."""
    return probed(A, b, len(b), least, machine)[1]()


@needs_compiler
@pytest.mark.parametrize(("words", "count"), [(4, 0), (7, 3), (45, 60)])
def test_a_message_holds_the_words_and_every_array_at_its_place(words, count):
    rng = np.random.default_rng(0)
    kinds = (np.float32, np.uint8, np.float64, bool, np.complex128, np.float16)
    arrays = [rng.integers(0, 2, rng.integers(0, 700)).astype(kinds[i % len(kinds)]) for i in range(count)]
    arrays += [np.arange(1, 9001, dtype=np.uint8)[3:]] * bool(count)  # whose address is no multiple of 16
    sizes = [x.nbytes for x in arrays]
    places = [-(-8 * words // 16) * 16]
    for nbytes in sizes:
        places.append(places[-1] + -(-nbytes // 16) * 16)
    machine = Counting()
    packing = Packing(words, places[:-1], sizes, machine)
    for _ in range(2):  # the same layout is used again
        packing.words[:] = rng.integers(-(2**60), 2**60, words)
        out = np.full(places[-1] // 8 + 2, -1, np.int64)
        before = machine.launches
        packing(out.ctypes.data, arrays)
        assert machine.launches - before == (1 if words <= 20 and len(arrays) <= 24 else 3)
        assert (out[:words] == packing.words).all()
        rest = out.view(np.uint8)
        for x, place in zip(arrays, places, strict=False):
            assert rest[place : place + x.nbytes].tobytes() == x.tobytes()
        assert (out[places[-1] // 8 :] == -1).all()
        arrays = [x[::-1].copy() for x in arrays]


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("T", "shape"), [(256, (3, 37)), (1, (32,)), (61, (1,)), (256, (70,))])
def test_the_first_steps_show_what_they_leave_at_most_and_what_they_sum_up(dtype, T, shape):
    rng, machine, eps = np.random.default_rng(T), cuda_host.Host(), np.finfo(dtype).eps
    A = (rng.choice([-1, 1], (T, *shape)) * rng.uniform(0.96, 1, (T, *shape))).astype(dtype)
    b = rng.standard_normal((T, *shape)).astype(dtype)
    first = (slice(None), *(slice(1) for _ in shape))
    repeated = [np.broadcast_to(x, A.shape) for x in (A[first], A[:1], A[first][:1])]  # over units, times and both
    for matrix, vector in ((A, b), (A[::-1], b[::-1]), *((x, b) for x in repeated)):
        assert taken(matrix, b.dtype, shape, repeats=True)
        product = abs(np.prod(matrix.astype(float), axis=0))
        wanted = rs.scan("affine", (abs(matrix), abs(vector)), initial=np.zeros(shape, dtype))[-1]
        share = float((product * np.maximum(abs(vector).max(axis=0), wanted) / wanted).max())
        (left, size), forgets = probed(matrix, vector, T, 1.01 * share, machine)
        assert forgets()
        np.testing.assert_allclose(left, product, rtol=1000 * eps)
        np.testing.assert_allclose(size, wanted, rtol=1000 * eps)
        assert not forgets_by(0.99 * share, matrix, vector, machine)
    for place, value in (((0,) * A.ndim, np.nan), ((T - 1, *(n - 1 for n in shape)), np.inf)):
        for given in (A, b):
            other = given.copy()
            other[place] = value
            pair = (other, b) if given is A else (A, other)
            assert not forgets_by(np.inf, *pair, machine)
    nothing = b.copy()
    nothing[..., -1] = 0
    assert not forgets_by(1e30, A, nothing, machine)
    longer = [np.concatenate([x, np.full_like(x, np.nan)]) for x in (A, b)]  # of which only the first ones count
    for once, twice in zip(probed(A, b, T, 1.0, machine), probed(*longer, T, 1.0, machine), strict=True):
        assert once() == twice() if callable(once) else (once == twice).all()


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("T", "shape"), [(256, (3, 37)), (1, (32,)), (61, (1,)), (16, (300,))])
def test_the_first_steps_are_taken_once_more_one_after_the_other(dtype, T, shape):
    rng = np.random.default_rng(T)
    A, b = (rng.uniform(-1, 1, (T, *shape)).astype(dtype) for _ in "Ab")
    comes, once = (
        rng.standard_normal(shape).astype(dtype),
        np.broadcast_to(A[(slice(None), *[slice(1)] * len(shape))], A.shape),
    )
    for matrix, vector in ((A, b), (A[::-1], b[::-1]), (once, b)):
        rows = np.full((T + 2, *shape), 7, dtype)
        mended(rows[1:], matrix, vector, T, comes, cuda_host.Host())
        wanted = [comes]
        for t in range(T):
            wanted.append(matrix[t] * wanted[-1] + vector[t])
        assert (rows[1:-1] == wanted[1:]).all()
        assert (rows[[0, -1]] == 7).all()


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_that_underflows_on_the_way_is_left(dtype):
    A, b, small = np.ones((256, 3), dtype), np.ones((256, 3), dtype), np.finfo(dtype).tiny ** 0.6
    A[10:12], A[200:202], b[:202] = small, 1 / small, 0
    least = float(np.finfo(dtype).eps)
    assert not forgets_by(least, A, b, cuda_host.Host())
    A[100] = 0  # what is left then is what underflow could have taken away at most
    A[200:202] = 1
    (left, _), forgets = probed(A, b, len(b), least, cuda_host.Host())
    assert forgets()
    assert (left > 0).all()
    assert (left <= 256 * np.finfo(dtype).tiny).all()


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("backwards", [False, True])
def test_what_comes_into_ranks_is_folded_to_the_bits_of_arrays(dtype, backwards):
    rng, machine, ranks, shape = np.random.default_rng(0), cuda_host.Host(), 5, (3, 90)
    rows = rng.standard_normal((ranks, 4, *shape)).astype(dtype)  # as they lie in messages: far from each other
    cuts = np.zeros((ranks, 4 * rows[0, 0].nbytes), np.uint8)
    cuts[:, : rows[0, 0].size] = rng.random((ranks, rows[0, 0].size)) < 0.3
    cut = cuts.view(bool)[:, : rows[0, 0].size].reshape(ranks, *shape)
    order = slice(None, None, -1) if backwards else slice(None)
    A, b, after, cut = (x[order] for x in (rows[:, 0], rows[:, 1], rows[:, 2], cut))
    first = rng.standard_normal(shape).astype(dtype)
    expected = [first]
    for rank in range(ranks - 1):
        expected.append(np.where(cut[rank], after[rank], A[rank] * expected[-1] + b[rank]))
    states, holds = folded(first, A, b, after, cut, ranks - 1, 0.0, machine)
    assert states.tobytes() == np.array(expected).tobytes()
    assert holds.shape == (2, ranks - 1, 2)
    assert holds[0].all()


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_told_holds_where_nothing_has_overflowed_and_next_to_nothing_is_left(dtype):
    rng, machine, units, last, least = np.random.default_rng(0), cuda_host.Host(), 300, np.finfo(dtype).max, 0.125
    first, rows = rng.standard_normal(units).astype(dtype), np.ones((3, 4, units), dtype)
    left, size, after = rows[:, 0], rows[:, 1], rows[:, 2]
    cut = rows[:, 3].view(bool)[:, :units]

    def told(place, x, a, s, comes_out=1.0, known=True):
        left[...], size[...], after[...], cut[...] = 1e-3, 1.0, 1.0, known
        start = first.copy()
        start[place], left[0, place], size[0, place], after[0, place] = x, a, s, comes_out
        holds = folded(start, left, size, after, cut, 3, least, machine)[1].all(axis=-1)
        assert holds[:, 1:].all() or not known or not np.isfinite(comes_out)
        return tuple(map(bool, holds[:, 0]))

    for place in (0, 299):
        assert told(place, 8.0, 0.5, 32.0) == (True, True)
        assert told(place, -8.0, 0.5, 31.9) == (True, False)
        assert told(place, 0.0, 0.5, 0.0) == (True, True)
        for x, a, s in ((np.nan, 0, 1), (np.inf, 0, 1), (1, np.nan, 1), (1, 0, np.nan), (1, 0, np.inf), (0, np.inf, 1)):
            assert told(place, x, a, s) == (True, False), (x, a, s)
        assert told(place, 1.0, 0.0, 1.0, np.inf) == (False, True)
        assert told(place, np.inf, 0.0, 1.0, np.inf) == (True, False)
        assert told(place, np.inf, 0.0, 1.0, np.nan) == (False, False)
        assert told(place, np.nan, 0.0, 1.0, np.nan) == (True, False)
        assert told(place, last, 2.0, 1.0, known=False) == (False, False)


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_came_out_agrees_with_what_was_said_up_to_a_share_of_its_size(dtype):
    rng, machine = np.random.default_rng(0), cuda_host.Host()
    end = rng.standard_normal((3, 200)).astype(dtype)
    size = abs(end)
    assert agreed(end, end, 0 * size, 0.0, machine)
    for place, said, wide, holds in [
        (0, 1.01, -1.0, True), (7, 1.05, -1.0, False), (7, 1.05, -np.inf, False),
        (0, 1.01, 1.0, True), (599, 1.05, 1.0, False), (7, 1.05, 10.0, True), (7, 1.05, np.inf, False),
        (599, 1.05, np.nan, False), (300, np.nan, 1e9, False), (300, np.inf, 1e9, False),
    ]:  # fmt: skip
        other, sizes = end.copy(), size.copy()
        other.flat[place] *= dtype(said)
        sizes.flat[place] *= dtype(wide)
        assert bool(agreed(end, other, sizes, 0.02, machine)) == holds
        assert bool(agreed(other, end, sizes, 0.02, machine)) == holds
    end[0, 3], end[1, 4] = np.nan, np.inf
    assert agreed(end, end.copy(), size, 0.0, machine)
    assert agreed(end[:0], end[:0], end[:0], 0.0, machine)


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mixed", [0, 1, 64])
def test_steps_taken_anew_take_the_place_of_others_and_become_them_at_the_end(dtype, mixed):
    rng = np.random.default_rng(0)
    there, found = rng.standard_normal((2, 100, 3, 7)).astype(dtype)
    expected = found.copy()
    weights = np.arange(mixed, 0, -1, dtype=dtype)[:, None, None] / dtype(mixed + 1)
    last = there[100 - mixed :]
    expected[100 - mixed :] = last + weights * (found[100 - mixed :] - last)
    joined(there, found, mixed, cuda_host.Host())
    assert there.tobytes() == expected.tobytes()


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_meet_where_all_do_and_are_as_near_as_the_farthest(dtype):
    machine, near = cuda_host.Host(), np.random.default_rng(0).random(700).astype(dtype)
    for count, place in [(0, None), (1, None), (700, None), (700, 699), (700, 0), (257, 256)]:
        met = np.ones(count, bool)
        if place is not None:
            met[place] = False
        every, most = met_and_near(met, near[:count], machine)
        assert bool(every) == (place is None)
        assert most == near[:count].max(initial=0)
    near[300] = np.nan
    assert np.isnan(met_and_near(met, near[100:357], machine)[1])


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_over_messages_are_added_up_in_the_order_of_ranks(dtype):
    rng, machine, ranks = np.random.default_rng(0), cuda_host.Host(), 3
    rows = rng.standard_normal((ranks, 500)).astype(dtype)
    first, second, third = rows[:, 4:10].reshape(ranks, 2, 3), rows[:, 12:412], rows[:, 412]
    found = summed([first, second, third], machine)
    for x, own in zip((first, second, third), found, strict=True):
        assert own.shape == x.shape[1:]
        assert own.tobytes() == (x[0] + x[1] + x[2]).tobytes()
    assert summed([first, second.astype(np.float16)], machine) is None
    assert summed([first, second.copy()], machine) is None
    assert summed([second, first], machine) is None


@needs_compiler
@pytest.mark.parametrize("count", [0, 1, 5, 16, 17, 40])
def test_pairs_are_added_up_in_one_launch_for_several(count):
    rng, machine, narrow, wide = np.random.default_rng(count), Counting(), np.float32, np.float64
    shapes = [tuple(rng.integers(0, 30, rng.integers(1, 4))) for _ in range(count)] + [(70, 1, 9001), (3, 2)]
    there, more = (
        [rng.standard_normal(shape).astype((narrow, wide)[i % 3 == 1]) for i, shape in enumerate(shapes)]
        for _ in range(2)
    )
    wanted, kept = [x + y for x, y in zip(there, more, strict=True)], [x.copy() for x in more]
    assert added(list(zip(there, more, strict=True)), machine)
    for found, x in zip((*there, *more), (*wanted, *kept), strict=True):
        assert found.tobytes() == x.tobytes()
    assert machine.launches == -(-len(shapes) // 16)


@needs_compiler
def test_pairs_of_other_numbers_or_with_gaps_are_left_alone():
    machine, x = Counting(), np.ones((4, 6), np.float32)
    for there, more in [
        (x, x.astype(np.float64)), (x, x[:3]), (x[:, ::2], x[:, ::2]), (x.T, x.T), (x.astype(np.float16),) * 2,
        (x.astype(complex),) * 2, (x.astype(int),) * 2,
    ]:  # fmt: skip
        assert not added([(x, x.copy()), (there, more)], machine)
    assert (x == 1).all()
    assert not machine.launches
