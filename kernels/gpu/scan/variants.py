"""The CUDA C++ of the scans: its text, and the variants of the templates that are compiled.

The text is one string without inclusions, because CuPy caches compiled modules by their text alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, NamedTuple, TypeAlias

from recsolve.base.arrays import Array
from recsolve.kernels.codegen.cuda_headers import headers
from recsolve.kernels.gpu.device import SHARED, Launch
from recsolve.kernels.gpu.scan.maps import headers_of, map_type
from recsolve.kernels.gpu.views import INPUTS, LANES
from recsolve.kernels.monoids.cuda_map import MapType

_HEADERS = {"walks": "scan/stream", "tiles": "scan/look_back", "summary": "scan/summary", "dense": "scan/dense"}
OPTIONS = ("-std=c++17",)
WIDTHS = (1, 2, 4, 8, 16, 32)  # lanes of tiles
_OFFSETS = 8 * (len(INPUTS) + 2)  # bytes: where a lane of a tile is in each array
_LINE = 128  # bytes, of memory
TILES = 3  # of a multiprocessor, at a time
_RING = 64 << 10  # bytes of pieces of time in shared memory, roughly
_LIGHT = 3  # weight of maps of single numbers
_THREADS = {_LIGHT: 256, 7: 128, 13: 128, 21: 64}  # of a block with a tile, for maps of at most such a weight
_LONGEST = 21  # vectors of a run at most, in a program of bounded length
_TILES = 177 << 10  # bytes of the numbers of all tiles of a multiprocessor, roughly
_WINDOWS = 2  # that a block looks back over, of as many tiles as it has threads for

Regime: TypeAlias = Literal["registers", "streamed", "tiny", "chained", "summary", "dense"]
REGIMES: tuple[Regime, ...] = ("registers", "streamed", "tiny", "chained")
WALKS: tuple[Regime, ...] = ("registers", "streamed")
Order: TypeAlias = Literal["across", "along"]


class Storage(NamedTuple):
    """A type in which numbers are stored, the type of the arithmetic, and the bytes of both."""

    stored: str
    number: str
    bytes: int
    number_bytes: int


STORAGE = {
    "float32": Storage("float", "float", 4, 4),
    "float64": Storage("double", "double", 8, 8),
    "float16": Storage("recsolve::Half", "float", 2, 4),
    "bfloat16": Storage("recsolve::Bfloat", "float", 2, 4),
}
INTEGERS = {
    "uint8": Storage("unsigned char", "int", 1, 4),
    "int32": Storage("int", "int", 4, 4),
    "int64": Storage("long long", "int", 8, 4),
}


@dataclass(frozen=True)
class Variant:
    """One instance of a kernel.

    Attributes
    ----------
    regime : str
        ``registers`` and ``streamed`` walk a thread for each lane, ``tiny`` and ``chained`` go by tiles, and so does
        ``summary``, which only composes; ``dense`` walks a thread for each row of a matrix.
    monoid : str
        The name of a map, as in :func:`recsolve.kernels.gpu.scan.maps.cuda_map`.
    parts : int
        Numbers of a state in one lane.
    dtype : str
        In which elements and results are stored.
    cut : bool
        Whether resets are looked up.
    threads : int
        Of a block; of those, a warp walks in a stream.
    run : int
        Steps of a thread in a tile, of a piece in a walk.
    batch : int
        Windows of look-back, pieces of a stream.
    vector : int
        Contiguous numbers that are copied at once: lanes, or times in the order ``along``.
    order : {"across", "along"}
        Whether lanes or times of all arrays are nearer; with vectors of 1 ``across`` is for either.
    """

    regime: Regime
    monoid: str
    parts: int
    dtype: str
    cut: bool
    threads: int
    run: int
    batch: int = 0
    vector: int = 1
    order: Order = "across"

    @property
    def storage(self) -> Storage:
        """How numbers are stored."""
        return (STORAGE | INTEGERS)[self.dtype]

    @property
    def maps(self) -> MapType:
        """The C++ type of the maps, and their sizes."""
        return map_type(self.monoid, self.parts, self.storage.number)

    @property
    def numbers(self) -> int:
        """Numbers of one element: the matrix and the vectors."""
        return self.maps.numbers

    @property
    def lanes(self) -> int:
        """Lanes of a block of a walk."""
        if self.regime == "registers":
            return self.threads
        # Memory is slow with less than a line of it at once.
        return 2 * LANES if self.order == "across" and self.storage.bytes == 2 else LANES

    @property
    def under_way(self) -> int:
        """Bytes of a lane that a walk has asked for ahead."""
        pieces = 1 if self.regime == "registers" else self.batch - 2
        return self.run * pieces * self.numbers * self.storage.bytes

    @property
    def expression(self) -> str:
        """The C++ name of the kernel."""
        types = f"{self.maps.name}, {self.storage.stored}"
        cut = "true" if self.cut else "false"
        order = f"recsolve::{self.order.capitalize()}<{self.lanes}, {self.run}, {self.vector}>"
        along = "true" if self.order == "along" else "false"
        tile = f"{cut}, {self.threads}, {self.run}, {self.abreast}, {self.vector}, {along}, {self.blocks}"
        sizes = {
            "registers": f"{cut}, {self.run}",
            "streamed": f"{cut}, {self.threads - self.lanes}, {self.batch}, {order}",
            "tiny": tile,
            "summary": tile,
            "dense": f"{cut}, {self.run}, {self.vector}",
            "chained": f"{tile}, {self.batch}",
        }
        return f"recsolve::{self.regime}<{types}, {sizes[self.regime]}>"

    def shared(self, width: int = 0, pitch: int = 0) -> int:
        """Return the bytes of shared memory of a block; tiles have so many lanes, steps at such a distance."""
        own, number, size, cut = self.storage.bytes, self.storage.number_bytes, self.maps.size, self.cut
        if self.regime == "registers":
            return 0
        if self.regime == "streamed":
            across = self.run * (self.lanes + (self.vector == 1))
            plane = self.lanes * (self.run + self.vector) if self.order == "along" else across
            cuts = 4 * cut * self.run * (self.lanes + 1)
            return _OFFSETS * self.lanes + self.batch * (self.numbers * own * plane + cuts)
        along = self.threads * (self.run + self.vector)
        plane = along if self.order == "along" else self.span(width) * pitch
        states = (2 * self.parts + self.threads // LANES * (size + self.parts + 1)) * LANES
        maps = size * (LANES if self.regime == "summary" else self.batch * self.threads)
        return (_OFFSETS + 4) * LANES + (states + maps) * number + (self.numbers * own + cut) * plane

    def launch(self, blocks: int, shared: int, problem: Array) -> Launch:
        """Return a launch."""
        return Launch(text(self.regime, self.monoid), self.expression, OPTIONS, blocks, self.threads, shared, problem)

    @property
    def abreast(self) -> int:
        """Lanes of a thread with a part of a tile."""
        return self.vector if self.order == "across" and self.light else 1

    @property
    def blocks(self) -> int:
        """Blocks that a multiprocessor is to hold, which bounds registers; 1 where maps are heavy."""
        numbers = self.threads * self.run * self.abreast * self.numbers * self.storage.bytes
        held = self.regime == "summary" and (self.vector * self.storage.bytes < 4 or self.run >= 2 * LANES)
        if not self.light or held:  # numbers that are read one by one wait in registers, and so do long runs
            return 1
        return max(min(_TILES // numbers, TILES), 1)

    @property
    def light(self) -> bool:
        """Whether a composed map is few numbers."""
        return self.maps.weight <= _LIGHT

    @property
    def window(self) -> int:
        """Tiles before one lane that a block of one lane can ask for at once."""
        return self.threads * self.batch

    def span(self, width: int) -> int:
        """Return the steps of a tile of so many lanes."""
        return self.threads * self.run * self.abreast // width


def vectors(dtype: str) -> tuple[int, ...]:
    """Return how many contiguous numbers of a type can be copied at once, the most first."""
    own = (STORAGE | INTEGERS)[dtype].bytes
    if own == 1:  # images of finite maps, of which those of one state lie apart
        return (1,)
    return tuple(count for count in (16 // own, 4 // own, 1) if count)[: 3 if own == 2 else 2]


def variant(
    regime: Regime, monoid: str, parts: int, dtype: str, cut: bool, vector: int = 1, order: Order = "across"
) -> Variant:
    """Return the variant that serves a scan best, ``vector`` numbers being copied at once."""
    storage = (STORAGE | INTEGERS)[dtype]
    _, numbers, _, weight = map_type(monoid, parts, storage.number)
    if regime == "registers":  # about 64 of them
        run = power_below(64 * 4 // (numbers * max(storage.bytes, 4)), 16)
        return Variant(regime, monoid, parts, dtype, cut, 64, run)
    if regime == "streamed":
        return _stream(Variant(regime, monoid, parts, dtype, cut, 0, 0, 0, vector, order=order))
    light = weight <= _LIGHT
    threads = next(_THREADS[most] for most in sorted(_THREADS) if weight <= most)
    windows = 0 if regime in ("tiny", "summary") else _WINDOWS if light and storage.number_bytes == 4 else 1
    return Variant(
        regime, monoid, parts, dtype, cut, threads, 0, windows, vector if light or order == "across" else 1, order
    )


def _stream(v: Variant) -> Variant:
    """Return a stream with its pieces and threads: long pieces, of which a thread moves no more than a few groups."""
    step = v.numbers * v.storage.bytes
    most = 128 if v.numbers <= _LIGHT else 256 if v.numbers <= 6 else 512
    longest = 32
    if v.order == "along":  # lines of memory from each lane, as far as pieces of that size fit
        most, longest = 1024, 2 * _LINE // v.storage.bytes
    at_once = v.vector * v.storage.bytes
    copiers = 256 if at_once <= 4 else 128
    groups = 4 if at_once >= 4 else 2 if v.order == "across" else 1  # what is not copied at once waits in registers
    run = max(power_below(most // step, min(longest, groups * copiers * v.vector // v.lanes)), v.vector)
    copiers = max(LANES, min(run * v.lanes // v.vector, copiers))
    pieces = max(4, min(_RING // (step * run * v.lanes), 8))
    return replace(v, threads=v.lanes + copiers, run=run, batch=pieces)


def fitted(v: Variant, width: int, room: int = SHARED, tiles: int = TILES) -> Variant:
    """Return a variant of tiles of so many lanes, with runs so long that a multiprocessor holds so many tiles.

    There is ``room`` for a block's shared memory.

    Vectors must not be wider than a tile, or a lane must be alone. An odd number of them lies from run to run (along a
    lane with the gap), so that these begin on different banks.
    """
    if v.vector == 1 or (v.vector > width if v.order == "across" else width > 1):
        v = replace(v, vector=1, order="across")
    least, a_step = (replace(v, run=run).shared(width, pitch_of(width, by_time=v.vector == 1)) for run in (0, 1))
    vectors = min(_TILES // tiles, room - least) // ((a_step - least) * (v.vector if v.order == "along" else 1))
    vectors = max(1, min(vectors - 1 + vectors % 2, _LONGEST))
    return replace(v, run=(vectors - 1) * v.vector if v.order == "along" else vectors)


def pitch_of(width: int, by_time: bool) -> int:
    """Return the distance of steps in a tile: where times are nearer they then fall on different banks."""
    return width + 1 if by_time and width >= 8 else width


AFFINE_AND_CLAMP = (("affine", 1), ("affine", 2), ("affine", 3), ("affine", 4), ("clamp", 1))


def variants(
    maps: Sequence[tuple[str, int]] = AFFINE_AND_CLAMP,
    dtypes: Iterable[str] = tuple(STORAGE),
    regimes: Sequence[Regime] = REGIMES,
) -> list[Variant]:
    """Return all variants that scans of maps of so many parts, stored as ``dtypes``, ask for."""
    found = []
    for regime in regimes:
        for dtype in dtypes:
            for monoid, parts in maps:
                for vector in (1,) if regime == "registers" else vectors(dtype):
                    orders: tuple[Order, ...] = ("across",) if regime == "registers" else ("across", "along")
                    for cut, order in product((False, True), orders):
                        v = variant(regime, monoid, parts, dtype, cut, vector, order)
                        found += [v] if regime in WALKS else [fitted(v, width) for width in WIDTHS]
    return list(dict.fromkeys(found))


def power_below(n: int, most: int) -> int:
    """Return the largest power of two that is at most ``n`` and ``most``, and at least 1."""
    return 1 << (max(min(n, most), 1).bit_length() - 1)


def text(regime: Regime | None = None, *monoids: str) -> str:
    """Return the source of the kernels of a regime for some maps, or of all."""
    kind = "walks" if regime in WALKS else regime if regime in _HEADERS else "tiles"
    return headers(*headers_of(*monoids), *([_HEADERS[kind]] if regime else _HEADERS.values()))
