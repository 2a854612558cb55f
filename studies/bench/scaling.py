"""How calls over ranks scale: times, messages, iterations and errors of each, beside the same call on one device.

Strong scaling shares the steps of one sequence, weak scaling gives every rank as many. Every time stands beside that of
one rank alone, which makes the plain call on the same host, in turns, while the others wait. What is predicted is in
:mod:`recsolve.studies.bench.cost`. This module needs torch alone: times can be taken where there is no command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.studies.bench.cost import RANKS, Cost, Link
from recsolve.studies.bench.harness import quartiles
from recsolve.studies.bench.shared_calls import CASES, Call, Data, largest_error
from recsolve.studies.bench.world import World, described, links

if TYPE_CHECKING:
    from recsolve.studies.bench.table import Row

_ALL = 8  # ranks up to which every number of them is tried


@dataclass(frozen=True)
class Scaling:
    """What is timed.

    Attributes
    ----------
    cases : tuple of str
    length : int
        Steps of all ranks together in strong scaling, and of each in weak scaling; a sixteenth where units couple.
    units, batch : int
    dtype : str
    repeats : int
        Timed runs of each.
    seed : int
    """

    cases: tuple[str, ...] = tuple(CASES)
    length: int = 1 << 18
    units: int = 64
    batch: int = 1
    dtype: str = "float32"
    repeats: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("length", "units", "batch", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; wanted 1 or more")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"--dtype is {self.dtype!r}; wanted float32 or float64")
        if unknown := [name for name in self.cases if name not in CASES]:
            raise ValueError(f"--case is {', '.join(unknown)}; wanted some of {', '.join(CASES)}")

    def steps(self, name: str) -> int:
        """Return the steps of a case."""
        return max(self.length // CASES[name].part, 1)

    def data(self, steps: range, total: int, device: str, group: Any = None) -> Data:
        """Return the data of some steps: shards of a group, or plain arrays without one."""
        over: Callable[[Any], Any] = lambda x: x  # noqa: E731
        if group is not None:
            from recsolve.distributed import from_local

            over = lambda x: from_local(x, group)  # noqa: E731
        return Data(steps, total, self.batch, self.units, self.dtype, device, self.seed, over)


def subsets_of(text: str | None, ranks: int) -> tuple[int, ...]:
    """Return the numbers of ranks to try: those of a text with commas, or all of few and powers of two of many.

    Raises
    ------
    ValueError
        For what is no number from 1 to ``ranks``.
    """
    if text is None:
        few = range(1, min(ranks, _ALL) + 1)
        return tuple(sorted({*few, ranks, *(1 << k for k in range(ranks.bit_length()))}))
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1 or found[-1] > ranks:
        raise ValueError(f"--subsets is {text!r}; wanted numbers of ranks from 1 to {ranks}, with commas")
    return tuple(found)


def measure(config: Scaling, world: World, subsets: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Take all times, on all ranks together.

    Parameters
    ----------
    config : Scaling
    world : World
    subsets : tuple of int
        How many of the first ranks share the steps.

    Yields
    ------
    dict
        On rank 0 the record of all that has been measured so far, after each time; on others what is of no use.
    """
    measured = links(world, subsets)
    record: dict[str, Any] = {
        "config": asdict(config), "subsets": list(subsets), "ranks": world.size, "on": described(world),
        "links": [asdict(link) for link in measured], "rows": [], "predictions": [], "complete": False,
    }  # fmt: skip
    yield record
    for name in config.cases:
        for p in subsets:
            for scaling in ("strong", "weak") if p > 1 else ("strong",):
                world.wait()
                if p in world.groups:
                    record["rows"].append(_row(config, name, scaling, p, world, measured))
                    yield record
        world.wait()
        if world.rank == 0:
            record["predictions"] += _predictions(config, name, world, subsets, record)
    record["complete"] = True
    yield record


def _row(config: Scaling, name: str, scaling: str, p: int, world: World, links: list[Link]) -> Row:
    """Time a case on p ranks, beside rank 0 alone, and beside the work of one share, which predicts it."""
    case, group, first = CASES[name], world.groups[p], world.rank == 0
    share = p if scaling == "weak" else 1
    total = config.steps(name) * share
    alone, truth = _alone(config, name, total, world) if first else (None, None)
    world.wait(group)
    call = case.make(config.data(_own_steps(total, p, world.rank), total, world.device, group))
    found, messages, size = _counted(call.run, group)
    row: Row = {
        "case": name, "what": case.words, "memory": case.memory, "scaling": scaling, "ranks": p, "steps": total,
        "error": largest_error(world, group, call.answer(found), truth), "messages": messages, "message_bytes": size,
        "iterations": getattr(found, "nit", None), "way": getattr(found, "way", None),
    }  # fmt: skip
    del found, truth
    longest = -(-total // p)
    own, parts = _own(config, name, longest, row["way"] == "sweeps", p > 1, world) if first else (None, 1)
    before = (None if alone is None else alone.run, own)
    *others, times = world.in_turns(group, before, call.run, config.repeats)
    base, work = (float(np.median(seconds)) for seconds in others)
    known = quartiles(times)
    cost = _cost(row, {longest: work / parts}, links, world)
    predicted = cost.seconds(p, total) if first else float("nan")
    return row | known | {
        "alone": base, "speed": share * base / known["median"], "own": work / parts, "predicted": predicted,
        "predicted_over_measured": predicted / known["median"],
    }  # fmt: skip


def _own(
    config: Scaling, name: str, length: int, sweep: bool, several: bool, world: World
) -> tuple[Callable[[], Any], int]:
    """Return what rank 0 does of a case alone, through shards of a group of one, and how many sweeps that is.

    ``several`` says whether it is to be what one of several ranks does.
    """
    group = world.groups[1]
    call = CASES[name].make(config.data(range(length), length, world.device, group))
    if not sweep or call.sweeping is None:
        return (call.own if several else None) or call.run, 1
    return call.sweeping, max(_counted(call.sweeping, group)[1] - 1, 1)


def _cost(found: Row, own: dict[int, float], links: list[Link], world: World) -> Cost:
    """Return the cost of a call that sends such messages, and does its work as often as these say."""
    rounds = {"sweeps": (found["iterations"] or 0) + 1, "turns": found["ranks"]}.get(found["way"], 1)
    return Cost(own, links, world.device == "cpu", found["messages"], found["message_bytes"], rounds)


def _alone(config: Scaling, name: str, total: int, world: World) -> tuple[Call, list[Any] | None]:
    """Return the plain call on the steps of one rank, and its answer on all steps; None where they have no room."""
    make = CASES[name].make
    length = config.steps(name)
    call = make(config.data(range(length), length, world.device))
    if total == length:
        return call, call.answer(call.run())
    try:
        whole = make(config.data(range(total), total, world.device))
        return call, whole.answer(whole.run())
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return call, None
        raise


def _own_steps(total: int, ranks: int, rank: int) -> range:
    from recsolve.distributed import spans

    lengths = spans(total, ranks)
    return range(sum(lengths[:rank]), sum(lengths[: rank + 1]))


def _counted(run: Callable[[], Any], group: Any) -> tuple[Any, int, float]:
    """Return the result of a call, its messages, and how many bytes a rank sends with each."""
    from recsolve.distributed.ranks import ranks_of

    ranks = ranks_of(group)
    messages, sent = ranks.messages, ranks.sent
    found = run()
    messages, sent = ranks.messages - messages, ranks.sent - sent
    return found, messages, sent / max(messages, 1)


def _predictions(
    config: Scaling, name: str, world: World, subsets: tuple[int, ...], record: dict[str, Any]
) -> list[Row]:
    """Return what a case is predicted to take on few and on many ranks, with the messages of the most measured."""
    steps, links = config.steps(name), [Link(**link) for link in record["links"]]
    lengths = sorted({-(-steps // p) for p in (*subsets, *(RANKS if links else ()))})
    plain = CASES[name].make(config.data(range(steps), steps, world.device)).run
    known: dict[tuple[bool, bool], dict[int, float]] = {}
    base, found = float("nan"), []
    for scaling in ("strong", "weak"):
        measured = [row for row in record["rows"] if row["case"] == name and row["scaling"] == scaling]
        if not measured:
            continue
        last = max(measured, key=lambda row: int(row["ranks"]))
        for p in RANKS if links else (1,):  # what a message takes is not known otherwise
            row = last | {"ranks": p} | ({"way": None} if p == 1 else {})  # one rank solves its steps itself
            kind = row["way"] == "sweeps", p > 1
            if kind not in known:
                known[kind] = {}
                for length in lengths if p > 1 else [steps]:
                    own, parts = _own(config, name, length, *kind, world)
                    alone, work, _ = world.in_turns(world.groups[1], (plain, own), int, config.repeats)
                    known[kind][length] = float(np.median(work)) / parts
                base = float(np.median(alone))
            share = p if scaling == "weak" else 1
            seconds = _cost(row, known[kind], links, world).seconds(p, steps * share)
            speed = share * base / seconds
            found.append({"case": name, "scaling": scaling, "ranks": p, "seconds": seconds, "speed": speed})
    return found
