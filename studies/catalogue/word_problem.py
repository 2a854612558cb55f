"""Words longer than those of training: which recurrent cells track the arrangement of a few things.

At every step a swap or a cycle of n things is done, and the network says where they are: the word problem of S_n. For
S5 no fixed number of layers of affine diagonal recurrences can do it at every length, and a nonlinear recurrence can in
one (Merrill, Petty and Sabharwal, ICML 2024, arXiv 2404.08819). All networks have one recurrent layer of equal width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsolve.studies.draw.drawing import listed, powers_of_two
from recsolve.studies.draw.series import legend_of
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import Dataset

KINDS: dict[str, dict[str, Any]] = {
    "affine": {"cell": "affine"},
    "diagonal GRU": {"cell": "pararnn_gru"},
    "GRU with heads": {"cell": "gru", "mixing": "heads"},
    "sLSTM with heads": {"cell": "slstm", "mixing": "heads"},
    "dense GRU": {"cell": "gru", "mixing": "dense"},
    "MinMax": {"cell": "minmax"},
}
_LOOKS = {
    "affine": ("#CC79A7", (0, (3, 1, 1, 1)), "P"), "diagonal GRU": ("#0072B2", "-", "o"),
    "GRU with heads": ("#E69F00", ":", "x"), "sLSTM with heads": ("#009E73", "--", "s"),
    "dense GRU": ("#D55E00", "-.", "^"), "MinMax": ("#000000", (0, (6, 2)), "d"),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Words of ``length`` letters in training, and of that times each of ``longer`` afterwards."""

    kinds: tuple[str, ...] = tuple(KINDS)
    task: str = "s3"
    units: int = 32
    length: int = 16
    longer: tuple[int, ...] = (1, 2, 4, 8, 16)
    batch: int = 32
    steps: int = 250
    rate: float = 1e-2
    seeds: int = 1
    device: str = "cpu"


FULL = Config(task="s5", units=128, length=32, batch=128, steps=3000, rate=3e-3, device="cuda")
TINY = Config(kinds=("affine", "dense GRU"), units=24, length=8, longer=(1, 4), steps=120, rate=2e-2)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        kind=config.kinds, task=config.task, units=config.units, length=config.length, longer=[*config.longer],
        batch=config.batch, steps=config.steps, rate=config.rate, seed=range(config.seeds), device=config.device,
        dtype="float32",
    )  # fmt: skip


def run(
    *, kind: str, task: str, units: int, length: int, longer: list[int], batch: int, steps: int, rate: float, seed: int,
    device: str, dtype: str,
) -> list[Row]:  # fmt: skip
    from recsolve.studies.training.config import TrainConfig
    from recsolve.studies.training.train import Run

    config = TrainConfig(
        task=task, units=units, layers=1, residual=False, length=length, batch=batch, steps=steps, rate=rate, seed=seed,
        save=0, report=max(steps, 1), held_out=64, **KINDS[kind],
    )  # fmt: skip
    trained = Run(config, device=device)
    for _ in trained.rows():
        pass
    return [{"times": times, **trained.evaluate(times * length)} for times in longer]


def _kinds(data: Dataset) -> list[str]:
    return [str(kind) for kind in data["kind"].values]


def facts(data: Dataset) -> dict[str, Any]:
    right = data["held_out_right"].max("seed")  # what a cell can learn is what the best of its seeds has learned
    found = {kind: [float(x) for x in right.sel(kind=kind).values] for kind in _kinds(data)}
    return {**found, "times": [int(x) for x in data["times"].values]}


def draw_lengths(pyplot: Any, data: Dataset) -> Any:
    f = facts(data)
    figure, ax = pyplot.subplots(figsize=(6.2, 3.2))
    for kind in _kinds(data):
        color, line, marker = _LOOKS[kind]
        ax.plot(f["times"], f[kind], color=color, linestyle=line, marker=marker, label=kind)
    ax.set(xscale="log", xlabel="length of words, over that of training", ylabel="right answers", ylim=(0, 1.04))
    powers_of_two(ax.xaxis, f["times"])
    legend_of(figure, ax)
    return figure


def says_lengths(data: Dataset) -> str:
    f, kinds = facts(data), _kinds(data)
    kept = [kind for kind in kinds if f[kind][0] > 0.95 and f[kind][-1] > 0.95]
    lost = [kind for kind in kinds if f[kind][0] > 0.95 >= f[kind][-1]]
    never = [f"{kind} ({f[kind][0]:.0%})" for kind in kinds if f[kind][0] <= 0.95]
    return (
        f"Words of training, and those {f['times'][-1]} times as long, are followed by {listed(kept)}; words of "
        f"training alone by {listed(lost)}. Neither is learned by {listed(never)}."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [[kind, *(f"{x:.1%}" for x in f[kind])] for kind in _kinds(data)]
    return [Table("Right answers by length", ["cell", *(f"{t} times" for t in f["times"])], rows)]


STUDY = study_of(
    __name__,
    name="word_problem",
    question="Which recurrent cells follow words that are longer than those of training?",
    dims=("kind", "seed", "times"),
    pictures=(Picture("lengths", draw_lengths, says_lengths),),
)
