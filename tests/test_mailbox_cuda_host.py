"""Messages by boxes in memory that all ranks write to, built by g++: ranks are threads here."""

from threading import Thread

import cuda_host
import numpy as np
import pytest

from recsolve.kernels.gpu.mailbox import BOX, PEERS, ROOM, Post

needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")
_WAIT = 60.0


def exchanging(rank, boxes, layout, messages, given_up, found, patience=_WAIT):
    """Send messages one after the other, and append what has come of each: its rows, and what the host was told."""
    words, sizes, row, told_row = layout
    places = [*np.cumsum([-(-8 * words // 16) * 16, *(-(-nbytes // 16) * 16 for nbytes in sizes)])]
    post = Post(rank, boxes, given_up.ctypes.data, words, places[:-1], sizes, cuda_host.Host(workers=len(boxes)))
    for number, (head, arrays) in enumerate(messages, start=1):
        rows = np.full((len(boxes), row), 255, np.uint8)
        told, seen = np.full((len(boxes), told_row), 255, np.uint8), np.zeros(len(boxes), np.int64)
        post.words[:] = head
        begins = [x.ctypes.data for x in arrays]
        post(number, begins, rows.ctypes.data, row, told.ctypes.data, told_row, seen.ctypes.data, patience)
        found.append((rows, told, seen.tolist(), places))


@needs_compiler
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_rank_gets_the_rows_of_all_in_every_message(size):
    rng = np.random.default_rng(size)
    sizes = [40, 0, 33, 2000]
    layout = 7, sizes, 4096, 56
    boxes = [np.zeros(BOX, np.uint8) for _ in range(size)]
    sent = [
        [(rng.integers(-9, 9, 7), [rng.integers(0, 256, n).astype(np.uint8) for n in sizes]) for _ in range(9)]
        for _ in range(size)
    ]
    found, given_up = [[] for _ in range(size)], np.zeros(1, np.int64)
    at = [box.ctypes.data for box in boxes]
    threads = [Thread(target=exchanging, args=(r, at, layout, sent[r], given_up, found[r])) for r in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_WAIT)
        assert not thread.is_alive()
    for mine in found:
        for number, (rows, told, seen, places) in enumerate(mine, start=1):
            assert seen == [number] * size
            for other in range(size):
                words, arrays = sent[other][number - 1]
                assert rows[other, :56].tobytes() == told[other].tobytes() == words.tobytes()
                for x, place in zip(arrays, places, strict=False):
                    assert rows[other, place : place + len(x)].tobytes() == x.tobytes()


@needs_compiler
def test_a_rank_that_gives_up_leaves_and_says_nothing_of_those_who_have_not_come():
    boxes, given_up, found = [np.zeros(BOX, np.uint8) for _ in range(2)], np.zeros(1, np.int64), []
    at = [box.ctypes.data for box in boxes]
    layout = 4, [], 64, 32
    sent, flags = [(np.arange(4), [])], [box.view(np.int64)[PEERS * ROOM // 8 :: ROOM // 8] for box in boxes]
    waiting = Thread(target=exchanging, args=(0, at, layout, sent, given_up, found))
    waiting.start()
    while not flags[1][0]:  # it has sent its row
        assert waiting.is_alive()
    given_up[0] = 1
    waiting.join(_WAIT)
    ((rows, told, seen, _),) = found
    assert seen == [1, 0]  # its own row has come
    assert (rows[1] == 255).all()
    assert (told[1] == 255).all()
    assert flags[1][0] == 0
    late = []  # who does not find the first one any more, and waits until time is over
    exchanging(1, at, layout, sent, np.zeros(1, np.int64), late, 0.1)
    assert late[0][2] == [0, 1]


def test_a_box_is_memory_of_its_own():
    assert BOX == 2 * PEERS * ROOM
    assert BOX % (2 << 20) == 0  # of which CUDA makes allocations: of a part of one others would see the beginning
