"""The board: shapes, lengths and memories that are timed, and which of them a command asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from recsolve.base.arrays import Array

Shape = tuple[int, int, int]  # batch, steps, units
BOARD: dict[str, Shape] = {
    "S1": (8, 512, 1024),
    "S2": (8, 2048, 1024),
    "S3": (8, 16384, 1024),
    "S4": (1, 16384, 256),
    "S5": (1, 131072, 256),
    "S6": (32, 2048, 2048),
    "odd 1": (1, 1_000_003, 64),
    "odd 2": (4, 5000, 768),
    "odd 3": (3, 7001, 640),
    "odd 4": (1, 3_000_017, 48),
}
MULTIPLIERS: dict[str, Callable[[Array], Array | float]] = {  # of scans, from uniform numbers in (-1, 1)
    "uniform": lambda x: x,  # forgotten in a few steps
    "1 - 10^U(-4,-1)": lambda x: 1 - 10 ** (1.5 * x - 2.5),  # as in trained linear recurrences
    "all 1": lambda x: 1.0,  # nothing is forgotten
}


@dataclass(frozen=True)
class Config:
    """What to time.

    Attributes
    ----------
    repeats : int
        Timed runs of each case, or of a graph of launches.
    numbers : int
        On the CPU, T x batch x units of every shape.
    shapes : tuple of str
        On a GPU, names of the board.
    quick : bool
        On a GPU, the diagonal scan, or the board of solves, alone.
    seed : int
    """

    repeats: int = 25
    numbers: int = 1 << 22
    shapes: tuple[str, ...] = tuple(BOARD)
    quick: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}; wanted 1 or more")
        if self.numbers < 1 << 12 or self.numbers & (self.numbers - 1):
            raise ValueError(f"numbers is {self.numbers}; wanted a power of two, 4096 or more")
        if unknown := [name for name in self.shapes if name not in BOARD]:
            raise ValueError(f"shapes has {', '.join(unknown)}; wanted some of {', '.join(BOARD)}")

    @property
    def shape(self) -> Shape:
        """The shape of the CPU: S2 in a quarter of the units, by default."""
        return 8, self.numbers >> 11, 256


def lengths(longest: int) -> list[int]:
    """Return every second power of two from 256 on."""
    return [1 << p for p in range(8, longest.bit_length(), 2)]
