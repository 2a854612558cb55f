"""Just Read Twice (arXiv 2407.05483): do two sets share an element, asked of a recurrence that keeps few of them?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.draw.drawing import CONVERGED, band, listed
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

ORDERS = ("small, large", "large, small")
ONCE, TWICE = "once", "twice"
_LOOKS = series([f"{order}, read {times}" for times in (ONCE, TWICE) for order in ORDERS])


@dataclass(frozen=True)
class Config:
    """Sets of ``small`` and ``large`` of ``tokens`` tokens, of which one is in both, or none; memories of m tokens."""

    small: int = 4
    large: int = 32
    tokens: int = 256
    memories: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    trials: int = 400
    seeds: int = 3


TINY = Config(small=2, large=8, tokens=64, memories=(1, 2, 8), trials=100, seeds=2)
FULL = Config(small=8, large=256, tokens=4096, memories=tuple(2**k for k in range(9)), trials=1000, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        order=ORDERS, m=config.memories, seed=range(config.seeds), small=config.small, large=config.large,
        tokens=config.tokens, trials=config.trials, dtype="float64",
    )  # fmt: skip


def run(*, order: str, m: int, seed: int, small: int, large: int, tokens: int, trials: int, dtype: str) -> list[Row]:
    first, second, shared = sets(order, small, large, tokens, trials, seed)
    once = np.concatenate([first, second]).astype(dtype)
    is_second = np.arange(len(once)) >= len(first)
    rows = []
    for name, times in ((ONCE, 1), (TWICE, 2)):
        rec = reader(np.tile(once, (times, 1)), np.tile(is_second, times).astype(dtype), m, change=times == 2)
        found = rs.solve(rec, method="sequential").named_final["found"] > 0
        success = float((found == shared).mean())
        rows.append({"solver": name, "status": CONVERGED, "success": success, "small_set": small, "large_set": large})
    return rows


def sets(order: str, small: int, large: int, tokens: int, trials: int, seed: int) -> tuple[Array, Array, Array]:
    """Return the sets (size, trials) in the order in which they are read, and whether they share a token: half do."""
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.tile(np.arange(tokens)[:, None], (1, trials)), axis=0)[: small + large]
    shared = np.arange(trials) % 2 == 0
    few, many = drawn[:small], drawn[small:]
    which, (i, j) = shared.nonzero()[0], (rng.integers(n, size=trials)[shared] for n in (small, large))
    many[j, which] = few[i, which]
    return (few, many, shared) if order == ORDERS[0] else (many, few, shared)


def reader(tokens: Array, is_second: Array, m: int, change: bool) -> rs.Recurrence:
    """Return a memory of m tokens that stores the first set, or what fits of it, and compares the second with it.

    With ``change`` a set that turns out not to fit is forgotten when it ends: then the second one is stored, and the
    first compared with it when it comes again.
    """

    def read(s: Any, u: Any) -> Any:
        token, second = u["token"], u["is_second"] == 1
        overflows = second & (s.changed == 0) & (s.was_second == 0) & (s.count > m) & change
        changed = (s.changed == 1) | overflows
        slots, count = np.where(overflows[..., None], -1.0, s.slots), np.where(overflows, 0.0, s.count)
        known, stores = np.any(slots == token[..., None], axis=-1), changed == second
        new = stores & ~known
        return {
            "slots": np.where((np.arange(m) == count[..., None]) & new[..., None], token[..., None], slots),
            "count": count + new,
            "was_second": second * 1.0,
            "changed": changed * 1.0,
            "found": np.maximum(s.found, ~stores & known),
        }

    trials, numbers = tokens.shape[1], ("count", "was_second", "changed", "found")
    return rs.Recurrence.from_function(
        read,
        inputs={"token": tokens, "is_second": np.broadcast_to(is_second[:, None], tokens.shape)},
        state={"slots": ("m",), **dict.fromkeys(numbers, ())},
        initial={"slots": np.full((trials, m), -1.0), **{name: np.zeros(trials) for name in numbers}},
    )


def _success(data: Dataset, order: str, times: str) -> DataArray:
    return data["success"].sel(order=order, solver=times)


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for order in ORDERS:
        for times in (ONCE, TWICE):
            worst = _success(data, order, times).min("seed")
            needed = data["m"].values[worst.values == 1]
            found[f"{order}, {times}"] = int(needed[0]) if needed.size else 0
            found[f"{order}, {times}, least"] = float(worst[0])
    found["small"], found["large"] = int(data["small_set"].max()), int(data["large_set"].max())
    return found


def draw_success(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.4, 3.4))
    for name, look in _LOOKS.items():
        order, times = name.split(", read ")
        band(ax, data["m"].values, _success(data, order, times), "seed", name, **look)
    f = facts(data)
    for size in ("small", "large"):
        ax.axvline(f[size], color="0.4", linewidth=0.9, linestyle=":")
    ax.set_xscale("log", base=2)
    ax.set(xlabel="tokens that the memory holds (dotted: the sizes of the sets)", ylabel="share of right answers")
    outside_legend(figure, pyplot, _LOOKS.values())
    return figure


def says_success(data: Dataset) -> str:
    f = facts(data)
    small, large, *twice = (need for _, _, need in _needs(f))
    return (
        "Read once, what a memory has to hold depends on the order of the sets: to answer always whether they share "
        f"a token it takes {small} tokens if the small one comes first, and {large} if the large one does. Read "
        f"twice, it takes {listed([*dict.fromkeys(twice)])} in either order. A memory that not even the "
        "smaller one fits into gains nothing."
    )


def _needs(f: dict[str, Any]) -> list[tuple[str, str, str]]:
    pairs = [(order, times) for times in (ONCE, TWICE) for order in ORDERS]
    return [(order, times, str(f[f"{order}, {times}"] or "more")) for order, times in pairs]


def tables(data: Dataset) -> list[Table]:
    rows = [[order, times, needed] for order, times, needed in _needs(facts(data))]
    return [Table("Tokens that a memory has to hold for right answers always", ["order", "read", "tokens"], rows)]


STUDY = study_of(
    __name__,
    name="paper/jrt",
    question="Does reading twice make a small memory independent of the order of what it reads?",
    dims=("order", "m", "seed", "solver"),
    pictures=(Picture("success", draw_success, says_success),),
)
