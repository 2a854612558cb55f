"""Tasks that need no download: streams of inputs with the right answer at every step at which one is asked for.

Streams are drawn without end, and those that are held out never repeat what training has seen: other stretches of the
text, other images, other random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import permutations

import numpy as np

from recsolve.base.arrays import Array

HELD_OUT = 0.1  # the share of a text, or of images, that training does not see
NONE = -1  # the answer where none is asked for
_SYMBOLS, _COPIED = 8, 8  # of the selective copy: how many there are, and how many are to be copied


@dataclass(frozen=True)
class Stream:
    """What is drawn: T steps of ``batch`` streams.

    Attributes
    ----------
    length, batch : int
    memory : int
        How many steps a task asks to remember, where that can be chosen.
    held_out : bool
        Whether it is drawn from what training does not see.
    rng : Generator
    """

    length: int
    batch: int
    memory: int
    held_out: bool
    rng: np.random.Generator


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes
    ----------
    draw : callable
        ``draw(stream)`` returns inputs, (T, batch) tokens or (T, batch, channels) numbers, and answers (T, batch),
        classes, ``NONE`` where nothing is asked.
    inputs : int
        The number of tokens, or of channels.
    classes : int
    tokens : bool
        Whether inputs are tokens.
    asks : str
        What is asked, in a sentence.
    """

    draw: Callable[[Stream], tuple[Array, Array]]
    inputs: int
    classes: int
    tokens: bool
    asks: str


@cache
def _text() -> Array:
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics)).encode("ascii", "replace")
    return np.frombuffer(text, np.uint8).astype(np.int64)


def text(stream: Stream) -> tuple[Array, Array]:
    """Bytes of the documentation of Python's standard library; the answer is the next one."""
    whole = _text()
    cut = round(len(whole) * (1 - HELD_OUT))
    part = whole[cut:] if stream.held_out else whole[:cut]
    if stream.length + 1 > len(part):
        raise ValueError(f"length is {stream.length}; wanted less than {len(part)}, which the text has")
    starts = stream.rng.integers(0, len(part) - stream.length, stream.batch)
    pieces = part[starts[None] + np.arange(stream.length + 1)[:, None]]
    return pieces[:-1], pieces[1:]


def parity(stream: Stream) -> tuple[Array, Array]:
    """Random bits; the answer is whether the number of ones among the last ``memory`` of them is odd."""
    bits = _bits(stream)
    ones = np.cumsum(np.concatenate([np.zeros((1, stream.batch), np.int64), bits]), axis=0)
    return bits, _asked_from(stream, (ones[stream.memory :] - ones[: -stream.memory]) % 2)


def match(stream: Stream) -> tuple[Array, Array]:
    """Random bits; the answer is whether this one is the same as that of ``memory - 1`` steps ago."""
    bits = _bits(stream)
    same = bits[stream.memory - 1 :] == bits[: stream.length - stream.memory + 1]
    return bits, _asked_from(stream, same.astype(np.int64))


def _bits(stream: Stream) -> Array:
    if not 1 < stream.memory <= stream.length:
        raise ValueError(f"memory is {stream.memory}; wanted 2 or more, and at most the length {stream.length}")
    return stream.rng.integers(0, 2, (stream.length, stream.batch))


def _asked_from(stream: Stream, answers: Array) -> Array:
    before = np.full((stream.length - len(answers), stream.batch), NONE)
    return np.concatenate([before, answers])


@cache
def _group(things: int) -> tuple[Array, Array]:
    """Return the products of all permutations of some things by place, and the swap and the cycle that make them."""
    members = np.array(sorted(permutations(range(things))))
    places = {tuple(p): i for i, p in enumerate(members.tolist())}
    products = np.array([[places[tuple(p[q])] for q in members] for p in members])
    swap, cycle = (1, 0, *range(2, things)), (*range(1, things), 0)
    return products, np.array([places[swap], places[cycle]])


def words(stream: Stream, things: int) -> tuple[Array, Array]:
    """A swap or a cycle of some things at every step; the answer is where they are: the word problem of S_n."""
    products, generators = _group(things)
    tokens = stream.rng.integers(0, 2, (stream.length, stream.batch))
    answers, state = np.empty_like(tokens), np.zeros(stream.batch, np.int64)
    for t, step in enumerate(generators[tokens]):
        answers[t] = state = products[step, state]
    return tokens, answers


def copy(stream: Stream) -> tuple[Array, Array]:
    """Eight symbols at random times among blanks; in the last eight steps they are asked for in their order."""
    if stream.length < 2 * _COPIED:
        raise ValueError(f"length is {stream.length}; wanted {2 * _COPIED} or more for the copy of {_COPIED} symbols")
    blank, mark, before = _SYMBOLS, _SYMBOLS + 1, stream.length - _COPIED
    shown = stream.rng.integers(0, _SYMBOLS, (_COPIED, stream.batch))
    order = stream.rng.random((before, stream.batch)).argsort(axis=0)[:_COPIED]
    tokens = np.full((stream.length, stream.batch), blank)
    np.put_along_axis(tokens, np.sort(order, axis=0), shown, axis=0)
    tokens[before:] = mark
    answers = np.full_like(tokens, NONE)
    answers[before:] = shown
    return tokens, answers


@cache
def _images() -> tuple[Array, Array]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("the task digits needs scikit-learn: pip install 'recsolve[train]'") from None
    found = load_digits()
    return found.images.reshape(-1, 64) / 16.0, found.target.astype(np.int64)


def digits(stream: Stream) -> tuple[Array, Array]:
    """Images of digits, eight by eight, pixel by pixel, one after the other; asked for at the last pixel of each."""
    pixels = 64
    if stream.length < pixels:
        raise ValueError(f"length is {stream.length}; wanted {pixels} or more, the pixels of an image")
    images, classes = _images()
    cut = round(len(images) * (1 - HELD_OUT))
    count = -(-stream.length // pixels)
    chosen = stream.rng.integers(*((cut, len(images)) if stream.held_out else (0, cut)), (count, stream.batch))
    shown = images[chosen].swapaxes(1, 2).reshape(count * pixels, stream.batch)
    first = np.broadcast_to(np.arange(len(shown))[:, None] % pixels == 0, shown.shape)
    answers = np.full((count, pixels, stream.batch), NONE)
    answers[:, -1] = classes[chosen]
    inputs = np.stack([shown, first], axis=-1).astype(np.float32)
    return inputs[: stream.length], answers.reshape(-1, stream.batch)[: stream.length]


TASKS: dict[str, Task] = {
    "text": Task(text, 128, 128, True, "the next byte of English"),
    "parity": Task(parity, 2, 2, True, "the parity of the last N bits"),
    "match": Task(match, 2, 2, True, "whether this bit is that of N - 1 steps ago (delayed match to sample)"),
    "s3": Task(partial(words, things=3), 2, 6, True, "where three things are after swaps and cycles (S3)"),
    "s5": Task(partial(words, things=5), 2, 120, True, "where five things are after swaps and cycles (S5)"),
    "copy": Task(copy, _SYMBOLS + 2, _SYMBOLS, True, "the eight symbols among blanks, in order"),
    "digits": Task(digits, 2, 10, False, "the digit whose pixels have been seen"),
}


def get(name: str) -> Task:
    """Return a task by its name.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.
    """
    if name not in TASKS:
        raise ValueError(f"task is {name!r}; wanted one of {', '.join(TASKS)}")
    return TASKS[name]
