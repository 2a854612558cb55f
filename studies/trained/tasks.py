"""Four tasks that ask for memory: streams of inputs with the right answer at every step, without end.

Each function returns ``inputs``, (T, batch, channels) in float32 or (T, batch) bytes, and ``answers``, (T, batch)
classes, -1 where nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsolve.base.arrays import Array

# Digits on five rows of three pixels, read from the top left.
_FONT = (
    "111101101101111", "010110010010111", "111001111100111", "111001011001111", "101101111001001",
    "111100111001111", "111100111101111", "111001010010010", "111101111101111", "111101111001111",
)  # fmt: skip
_ROWS, _COLUMNS = 6, 4  # of the image in which a digit is shown


def recall(T: int, batch: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """One of eight symbols in every step; the answer is the last one that came with the mark, one in thirty."""
    symbols, marked = rng.integers(0, 8, (T, batch)), rng.random((T, batch)) < 1 / 30
    marked[0] = True
    at = np.maximum.accumulate(np.where(marked, np.arange(T)[:, None], 0), axis=0)
    inputs = np.concatenate([np.eye(8)[symbols], marked[..., None]], axis=-1)
    return inputs.astype(np.float32), np.take_along_axis(symbols, at, axis=0)


def parity(T: int, batch: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Zeros, and ones in one of eight steps; the answer is whether the number of ones so far is odd."""
    bits = rng.random((T, batch)) < 1 / 8
    return bits[..., None].astype(np.float32), np.cumsum(bits, axis=0) % 2


def digits(T: int, batch: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Images of digits pixel by pixel, shifted and noisy; asked for in its last row and the next image."""
    size = _ROWS * _COLUMNS
    count = -(-T // size)
    classes, place = rng.integers(0, 10, (count, batch)), rng.integers(0, 2, (2, count, batch))
    font = np.array([list(map(int, digit)) for digit in _FONT], float).reshape(10, 5, 3)
    images = 0.1 * rng.standard_normal((count, batch, _ROWS, _COLUMNS))
    for index in np.ndindex(count, batch):
        y, x = place[0][index], place[1][index]
        images[index][y : y + 5, x : x + 3] += font[classes[index]]
    pixels = images.reshape(count, batch, size).swapaxes(1, 2).reshape(-1, batch)[:T]
    now = np.arange(T) % size
    begins = np.broadcast_to(now[:, None] == 0, pixels.shape)
    shown = classes.repeat(size, axis=0)[:T]
    before = np.concatenate([np.full((size, batch), -1), shown])[:T]
    answers = np.where((now < size - _COLUMNS)[:, None], before, shown)
    return np.stack([pixels, begins], axis=-1).astype(np.float32), answers


def english(T: int, batch: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Bytes of the documentation of Python's standard library; the answer is the next one."""
    from pydoc_data.topics import topics

    text = np.frombuffer("\n".join(topics[name] for name in sorted(topics)).encode("ascii", "replace"), np.uint8)
    at = rng.integers(0, len(text) - T - 1, batch)[None] + np.arange(T + 1)[:, None]
    pieces = np.minimum(text[at], 127)
    return pieces[:-1], pieces[1:].astype(np.int64)


TASKS: dict[str, Callable[[int, int, np.random.Generator], tuple[Array, Array]]] = {
    "recall": recall,
    "parity": parity,
    "digits": digits,
    "english": english,
}
