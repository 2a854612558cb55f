"""What the kernels for ranks do, built by g++."""

import cuda_host
import numpy as np
import pytest

from recsolve.kernels.gpu.message import Packing

needs_compiler = pytest.mark.skipif(cuda_host.compiler() is None, reason="needs g++")


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
    packing = Packing(words, places[:-1], sizes, cuda_host.Host())
    for _ in range(2):  # the same layout is used again
        packing.words[:] = rng.integers(-(2**60), 2**60, words)
        out = np.full(places[-1] // 8 + 2, -1, np.int64)
        packing(out.ctypes.data, arrays)
        assert (out[:words] == packing.words).all()
        rest = out.view(np.uint8)
        for x, place in zip(arrays, places, strict=False):
            assert rest[place : place + x.nbytes].tobytes() == x.tobytes()
        assert (out[places[-1] // 8 :] == -1).all()
        arrays = [x[::-1].copy() for x in arrays]
