"""HTM sequence memory: cells that predict, in columns that are driven.

N columns of M cells; W_t are the columns that the input drives. D are the synapses of the segments of a cell, each with
a permanence p, of which those above 1/2 are connected (Cui, Ahmad and Hawkins, arXiv 1512.05463):

memory:      a_t[i, j] = 1 where i is in W_t, and cell j of it was predicted or none of its cells was (it bursts)
             pi_t[i, j] = 1 where a segment of (i, j) has more than theta connected synapses to cells active in a_t
permanence:  p_t = clip(p_{t-1} + delta_t, 0, 1), where delta_t is p+ for synapses from active cells and -p- for others
             of segments that predicted rightly, and -p-- for all of those that predicted wrongly

With frozen permanences the memory is a recurrence of bools, a_t from pi(a_{t-1}): it has no derivative, and equality is
the test. A word is told from another by its beginning: a letter that both have drives the same columns in both, but
other cells in them. What no segment has learned bursts, whatever was before, so that sweeps need not be many more than
steps between two novelties. Given what was predicted, permanences are saturating adders. Their scan is exact here,
since all steps are multiples of a power of two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.systems.system import Arrays, Draw, system_of

CONNECTED = 0.5
GROWTH, DECAY, PENALTY = 2.0**-4, 2.0**-5, 2.0**-7  # p+, p- and p--


@dataclass(frozen=True)
class Config:
    """``words`` that differ in first and last letters alone are read in random order; ``novel`` letters are noise."""

    length: int = 400
    batch: int = 2
    columns: int = 48
    cells: int = 4
    driven: int = 6
    letters: int = 10
    words: int = 3
    word: int = 6
    theta: int = 3
    novel: float = 0.05
    seed: int = 0


def draw(config: Config) -> Arrays:
    rng, reads = np.random.default_rng(config.seed), (config.length, config.batch)
    middle = rng.integers(0, config.letters, config.word)
    words = np.broadcast_to(middle, (config.words, config.word)).copy()
    words[:, 0], words[:, -1] = (
        rng.permutation(config.letters)[np.arange(config.words) % config.letters] for _ in "XY"
    )
    alphabet = rng.permuted(np.arange(config.columns)[None].repeat(config.letters, 0), axis=1)[:, : config.driven]
    text = words[rng.integers(0, config.words, reads)].swapaxes(1, 2).reshape(-1, config.batch)[: config.length]
    noise = rng.permuted(np.arange(config.columns) + np.zeros((*reads, 1), int), axis=-1)[..., : config.driven]
    read = np.where(rng.random((*reads, 1)) < config.novel, noise, alphabet[text])
    columns = (read[..., None] == np.arange(config.columns)).any(axis=-2)
    return {"columns": columns, "theta": np.array(config.theta), **learned(alphabet[words], config)}


def learned(words: Array, config: Config) -> Arrays:
    """Return segments that have learned words, which are the columns of their letters, (words, letters, driven).

    A letter of a word has a cell in each of its columns, and this cell a segment that sees the cells of the letter
    before. ``source`` and ``permanence`` are (columns, cells, segments, driven).
    """
    rng = np.random.default_rng(config.seed)
    segments: dict[tuple[int, int], list[Array]] = {}
    for word in words:
        before = None
        for letter in word:
            chosen = rng.integers(0, config.cells, letter.shape)
            if before is not None:
                for column, cell in zip(letter, chosen, strict=True):
                    segments.setdefault((column, cell), []).append(before)
            before = letter * config.cells + chosen
    most = max(map(len, segments.values()), default=1)
    source = np.zeros((config.columns, config.cells, most, words.shape[-1]), int)
    permanence = np.zeros(source.shape)
    for at, sources in segments.items():
        source[at][: len(sources)], permanence[at][: len(sources)] = sources, 0.75
    return {"source": source, "permanence": permanence}


@dataclass(frozen=True, eq=False)
class Memory:
    """The step of the memory, of states (..., columns cells)."""

    source: Array
    permanence: Array
    theta: Array

    def __call__(self, active: Array, columns: Array) -> Array:
        predicted = self.predicted(active)
        bursts = ~predicted.any(axis=-1, keepdims=True)
        return (columns[..., None] & (predicted | bursts)).reshape(active.shape)

    def predicted(self, active: Array) -> Array:
        """Return pi, (..., columns, cells)."""
        seen = active[..., self.source] & (self.permanence > CONNECTED)
        found: Array = (seen.sum(axis=-1) > self.theta).any(axis=-1)
        return found


def memory(arrays: Arrays) -> rs.Recurrence:
    columns, segments = arrays["columns"], {name: x for name, x in arrays.items() if name != "columns"}
    initial = np.zeros((*columns.shape[1:-1], int(np.prod(arrays["source"].shape[:2]))), bool)
    return rs.Recurrence.from_function(Memory(**segments), inputs=columns, initial=initial, structure="none")


@dataclass(frozen=True)
class Permanence:
    """How often a segment predicts rightly, wrongly, and how many of its synapses see an active cell then."""

    length: int = 4096
    batch: int = 2
    segments: int = 8
    synapses: int = 16
    right: float = 0.3
    wrong: float = 0.2
    active: float = 0.4
    seed: int = 0
    dtype: str = "float64"


def draw_permanence(config: Permanence) -> Arrays:
    random, leading = Draw(config.seed, config.dtype), (config.length, config.batch, config.segments)
    happens = random.uniform(0, 1, *leading)
    return {
        "right": happens < config.right,
        "wrong": happens > 1 - config.wrong,
        "active": random.uniform(0, 1, *leading, config.synapses) < config.active,
        "initial": np.full((config.batch, config.segments * config.synapses), CONNECTED, config.dtype),
    }


def permanence(arrays: Arrays) -> rs.Recurrence:
    right, wrong, active, initial = (arrays[name] for name in ("right", "wrong", "active", "initial"))
    delta = np.where(right[..., None], np.where(active, GROWTH, -DECAY), -PENALTY * wrong[..., None])
    delta = delta.reshape(*delta.shape[:2], -1).astype(initial.dtype)
    return rs.Recurrence.from_function(_clipped, inputs=delta, initial=initial, structure="diagonal")


def _clipped(p: Array, delta: Array) -> Array:
    return np.clip(p + delta, 0, 1)  # type: ignore[no-any-return]


def scan(recurrence: rs.Recurrence) -> Array:
    (delta,) = recurrence.inputs  # type: ignore[attr-defined]
    found: Array = rs.scan("saturating_add", (delta, 0.0, 1.0), initial=recurrence.initial)
    return found


_PAPER = {"title": "HTM sequence memory", "cite": "Cui, Ahmad and Hawkins, arXiv 1512.05463"}
SYSTEMS = (
    system_of(__name__, name="htm_memory", make=memory, structure="none: bools", study="htm_words", **_PAPER),
    system_of(
        __name__,
        name="htm_permanence",
        config=Permanence(),
        draw=draw_permanence,
        make=permanence,
        scan=scan,
        structure="diagonal, 0 or 1",
        **_PAPER,
    ),
)
