"""The CUDA C++ of the scans: its text, and the variants of the templates that are compiled.

The text is one string without inclusions, because CuPy caches compiled modules by their text alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple, TypeAlias

_FILES = ("device", "numbers", "problem", "maps")
_WALKING, _TILED = ("walk",), ("tile", "look_back")
OPTIONS = ("-std=c++17",)
LANES = 32  # of a tile at most, as in cuda/tile.cuh

Regime: TypeAlias = Literal["registers", "staged", "tiny", "chained"]
REGIMES: tuple[Regime, ...] = ("registers", "staged", "tiny", "chained")
WALKS: tuple[Regime, ...] = ("registers", "staged")


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


@dataclass(frozen=True)
class Variant:
    """One instance of a kernel.

    Attributes
    ----------
    regime : str
        ``registers`` and ``staged`` walk a thread for each lane, ``tiny`` and ``chained`` go by tiles.
    monoid : {"affine", "clamp"}
    parts : int
        Numbers of a state in one lane.
    dtype : str
        In which elements and results are stored.
    cut : bool
        Whether a walk looks up resets (tiles always can).
    threads, run, batch : int
        Threads of a block; steps of a thread in a tile; tiles that a thread looks up at once.
    """

    regime: Regime
    monoid: str
    parts: int
    dtype: str
    cut: bool
    threads: int
    run: int = 0
    batch: int = 0

    @property
    def storage(self) -> Storage:
        """How numbers are stored."""
        return STORAGE[self.dtype]

    @property
    def numbers(self) -> int:
        """Numbers of one element: the matrix and the vector."""
        return self.parts * self.parts + self.parts

    @property
    def map(self) -> str:
        """The C++ type of the maps."""
        inner = f"{self.storage.number}, {self.parts}" if self.monoid == "affine" else self.storage.number
        return f"recsolve::{self.monoid.capitalize()}<{inner}>"

    @property
    def ahead(self) -> tuple[int, int]:
        """Steps of a piece, and pieces, that a walk holds: about 64 registers, or 1 KiB on its way."""
        if self.regime == "registers":
            return _floor(64 * 4 // (self.numbers * max(self.storage.bytes, 4)), 16), 1
        return _floor(64 // (self.numbers * self.storage.bytes), 8), 17

    @property
    def under_way(self) -> int:
        """Bytes that a thread of a walk has asked for ahead."""
        piece, pieces = self.ahead
        return piece * max(pieces - 1, 1) * self.numbers * self.storage.bytes

    @property
    def expression(self) -> str:
        """The C++ name of the kernel."""
        types = f"{self.map}, {self.storage.stored}"
        if self.regime in WALKS:
            piece, pieces = self.ahead
            sizes = f"{self.threads}, {piece}, {pieces}" if self.regime == "staged" else f"{piece}"
            cut = "true" if self.cut else "false"
            return f"recsolve::walk<{types}, recsolve::{self.regime.capitalize()}<{types}, {cut}, {sizes}>>"
        batch = f", {self.batch}" if self.regime == "chained" else ""
        return f"recsolve::{self.regime}<{types}, {self.threads}, {self.run}{batch}>"

    def shared(self, width: int = 0, pitch: int = 0, cut: bool = False) -> int:
        """Return the bytes of shared memory of a block; tiles have so many lanes, steps at such a distance."""
        own, number = self.storage.bytes, self.storage.number_bytes
        if self.regime == "registers":
            return 0
        if self.regime == "staged":
            piece, pieces = self.ahead
            return piece * pieces * (self.numbers * own + 4 * self.cut) * self.threads
        plane = self.span(width) * pitch + self.threads
        maps = (self.numbers + 1) * self.threads * (1 + self.batch) * number
        rest = 4 * LANES * 8 + 16 + 2 * self.parts * LANES * number
        return rest + maps + self.numbers * plane * own + cut * plane

    def span(self, width: int) -> int:
        """Return the steps of a tile of so many lanes."""
        return self.threads * self.run // width


def variant(regime: Regime, monoid: str, parts: int, dtype: str, cut: bool) -> Variant:
    """Return the variant that serves a scan best."""
    if regime in WALKS:
        return Variant(regime, monoid, parts, dtype, cut, threads=32 if regime == "staged" else 64)
    numbers, storage = parts * parts + parts, STORAGE[dtype]
    threads = 256 if (numbers + 1) * storage.number_bytes <= 128 else 128
    run = _floor(192 // (numbers * storage.bytes), 16)  # 32 to 48 KiB a tile
    batch = 0 if regime == "tiny" else 2 if parts == 1 else 1
    return Variant(regime, monoid, parts, dtype, False, threads, run, batch)


def variants() -> list[Variant]:
    """Return all variants that scans ask for."""
    maps = [("affine", 1), ("affine", 2), ("affine", 3), ("affine", 4), ("clamp", 1)]
    found = []
    for regime in REGIMES:
        for dtype, storage in STORAGE.items():
            if regime == "staged" and storage.bytes < 4:
                continue
            for monoid, parts in maps:
                found += [variant(regime, monoid, parts, dtype, cut) for cut in (False, True)[: 1 + (regime in WALKS)]]
    return found


def _floor(n: int, most: int) -> int:
    """Return the largest power of two that is at most ``n`` and ``most``, and at least 1."""
    return 1 << (max(min(n, most), 1).bit_length() - 1)


@cache
def text(regime: Regime | None = None) -> str:
    """Return the source of the kernels of a regime, or of all."""
    names = _FILES + (_WALKING if regime is None or regime in WALKS else ()) + (() if regime in WALKS else _TILED)
    folder = files("recsolve.kernels") / "cuda"
    found = ((folder / f"{name}.cuh").read_text(encoding="utf-8") for name in names)
    return "\n".join(part.replace("#pragma once\n", "") for part in found)
