"""Options that keep training where solves are short: what each does to iterations, to the loss and to the seconds.

Dense layers learn from recurrent weights as they are drawn, and from larger ones, from which plain training leaves the
contractive region. The options are an initialisation with a given Lyapunov exponent, a penalty on the predicted one,
and recurrent weights clipped as in ParaRNN (Danieli et al., ICLR 2026, arXiv 2510.21450); that iterations grow as the
exponent passes 0 is a finding of Gonzalez et al. (arXiv 2508.16817).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product as pairs
from typing import TYPE_CHECKING, Any

from recsolve.studies.draw.drawing import times
from recsolve.studies.draw.series import legend_of
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.training.config import TrainConfig

if TYPE_CHECKING:
    from xarray import Dataset

PLAIN = "as it is"
CARES = (PLAIN, "initialised", "penalty", "clipped")
_LOOKS = {
    PLAIN: ("#000000", "-", "o"), "initialised": ("#E69F00", "--", "s"), "penalty": ("#CC79A7", ":", "^"),
    "clipped": ("#0072B2", "-.", "x"),
}  # fmt: skip
_NAMES = {"initialised": "the initialisation", "penalty": "the penalty", "clipped": "clipping"}


@dataclass(frozen=True)
class Config:
    """Networks of one layer, looked at every ``every`` steps; after ``limit`` iterations the loop completes a solve.

    ``gains`` are factors on the recurrent weights as drawn; ``exponent`` that of the initialisation, ``weight`` and
    ``ceiling`` of the penalty, ``norm`` the bound of clipping.
    """

    gains: tuple[float, ...] = (1.0, 4.0)
    cares: tuple[str, ...] = CARES
    task: str = "text"
    cell: str = "elman"
    exponent: float = -0.1
    weight: float = 1.0
    ceiling: float = -0.05
    norm: float = 1.0
    limit: int = 24
    units: int = 24
    length: int = 64
    batch: int = 8
    steps: int = 40
    every: int = 10
    rate: float = 1e-2
    seeds: int = 2
    device: str = "cpu"


FULL = Config(gains=(1.0, 2.0, 4.0, 6.0), units=128, length=512, batch=16, steps=600, every=60, seeds=3, device="cuda")
TINY = Config(gains=(6.0,), units=12, length=24, batch=2, steps=4, every=2, limit=12, seeds=1)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        gain=config.gains, care=config.cares, task=config.task, cell=config.cell, exponent=config.exponent,
        weight=config.weight, ceiling=config.ceiling, norm=config.norm, limit=config.limit, units=config.units,
        length=config.length, batch=config.batch, steps=config.steps, every=config.every, rate=config.rate,
        seed=range(config.seeds), device=config.device, dtype="float32",
    )  # fmt: skip


def run(
    *, gain: float, care: str, task: str, cell: str, exponent: float, weight: float, ceiling: float, norm: float,
    limit: int, units: int, length: int, batch: int, steps: int, every: int, rate: float, seed: int, device: str,
    dtype: str,
) -> list[Row]:  # fmt: skip
    from recsolve.studies.training.care import Care, CaredRun
    from recsolve.studies.training.probe import followed

    config = TrainConfig(
        task=task, cell=cell, mixing="dense", units=units, layers=1, norm=False, residual=False, length=length,
        batch=batch, steps=steps, rate=rate, method="newton", iterations=limit, save=0, report=steps, held_out=8,
        seed=seed,
    )  # fmt: skip
    given = {
        PLAIN: Care(), "initialised": Care(exponent=exponent), "penalty": Care(weight=weight, ceiling=ceiling),
        "clipped": Care(norm=norm),
    }  # fmt: skip
    with _one_thread():
        trained = CaredRun(config, given[care], gain, device)
        return [row | {"seconds": row["seconds"] + trained.prepared} for row in followed(trained, every, _looked_at)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch have one thread: several would wait for each other over so little work, longer than they work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _looked_at(trained: Any) -> Row:
    """Return how many solves the loop completed since the last look, the loss, and what solvers take."""
    import torch

    from recsolve.studies.training.modules import counted
    from recsolve.studies.training.probe import PROBED, probe
    from recsolve.studies.training.train import HELD_OUT

    done = counted(trained.network) if trained.step else {}
    row: Row = {"completed": done["completed"] / done["solves"]} if done else {}
    row |= trained.evaluate()
    x = torch.from_numpy(trained.draw(HELD_OUT, 1, batch=4)[0][:PROBED]).to(trained.device)
    row |= probe(trained.network, x, ("newton", "quasi_newton"))
    counted(trained.network)  # what looking took is not training's
    return row


def _begun(gain: float) -> str:
    return "weights as drawn" if gain == 1 else f"weights {gain:g} times as large"


def _gains(data: Dataset) -> list[float]:
    return [float(gain) for gain in data["gain"].values]


def _cares(data: Dataset) -> list[str]:
    return [str(care) for care in data["care"].values]


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    cares, gains, steps = _cares(data), _gains(data), data["step"].values
    for gain, care in pairs(gains, cares):
        runs, name = data.sel(gain=gain, care=care), f"{gain:g}.{care}"
        part, above = runs.mean("seed"), runs["exponent"].transpose("step", "seed").values > 0
        for what in ("newton", "quasi_newton", "exponent", "condition"):
            found[f"{name}.{what}"] = [float(x) for x in part[what].values]
        found[f"{name}.trained"] = float(part["newton"].values[1:].mean())
        found[f"{name}.outside"] = float(above[1:].mean())
        found[f"{name}.driven_out"] = int((~above[0] & above[-1]).sum())
        found[f"{name}.loss"] = float(part["held_out_loss"].values[-1])
        found[f"{name}.completed"] = float(part["completed"].mean())
        found[f"{name}.step"] = float(part["seconds"].values[-1] / max(int(steps[-1]) - 1, 1))
    options = [care for care in cares if care != PLAIN]
    found["shortest"] = min(options, key=lambda c: sum(found[f"{g:g}.{c}.trained"] for g in gains), default=None)
    found["hardest"] = max(gains, key=lambda g: found[f"{g:g}.{PLAIN}.trained"]) if PLAIN in cares else None
    return found


def _with(care: str) -> str:
    return f"with {_NAMES[care]}" if care in _NAMES else care


def _facts_of(found: dict[str, Any], gain: float, care: str) -> dict[str, Any]:
    start = f"{gain:g}.{care}."
    return {name.removeprefix(start): fact for name, fact in found.items() if name.startswith(start)}


def _panels(figure: Any, axes: Any, data: Dataset, shown: dict[str, str]) -> None:
    """Draw a row of panels for each gain, a line for each option; the last row has the labels."""
    for row, gain in zip(axes, _gains(data), strict=True):
        for ax, (name, title) in zip(row, shown.items(), strict=True):
            for care in _cares(data):
                part = data.sel(gain=gain, care=care).mean("seed")
                color, line, marker = _LOOKS[care]
                look = {"color": color, "linestyle": line, "marker": marker, "markersize": 5, "label": care}
                ax.plot(part["step"], part[name], **look)
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.set_title(_begun(gain), fontsize=9)
            ax.set_ylabel(title)
    for ax in axes[-1]:
        ax.set_xlabel("step of training")
    legend_of(figure, axes[0, 0])


def draw_region(pyplot: Any, data: Dataset) -> Any:
    shown = {
        "newton": "iterations of newton", "quasi_newton": "iterations of quasi_newton", "exponent": "exponent per step",
        "condition": "conditioning",
    }  # fmt: skip
    rows = len(_gains(data))
    figure, axes = pyplot.subplots(rows, 4, figsize=(11.6, 2.3 * rows + 0.4), sharex=True, sharey="col", squeeze=False)
    _panels(figure, axes, data, shown)
    for row in axes:
        for ax in row[:2]:
            ax.yaxis.get_major_locator().set_params(integer=True)
            ax.set_ylim(bottom=0)
        row[2].axhline(0, color="0.5", linewidth=0.8, linestyle="--", zorder=1)
        row[3].set_yscale("log")
    return figure


def says_region(data: Dataset) -> str:
    found = facts(data)
    gain, best = found["hardest"], found["shortest"]
    if gain is None or best is None:
        return "Nothing to compare."
    plain, mine = _facts_of(found, gain, PLAIN), _facts_of(found, gain, best)
    elsewhere = any(found[f"{g:g}.{care}.outside"] for g in _gains(data) if g != gain for care in _cares(data))
    others = " Other starts are left too." if elsewhere else " From other starts no network leaves it."
    outside = f"is outside of the contractive region at {100 * plain['outside']:.0f}% of the looks after the start"
    return (
        f"With {_begun(gain)} plain training {outside if plain['outside'] else 'stays in the contractive region'}. "
        f"Newton then takes {plain['trained']:.3g} iterations on average, and fewest {_with(best)}, "
        f"{mine['trained']:.3g}.{others if len(_gains(data)) > 1 else ''}"
    )


def draw_cost(pyplot: Any, data: Dataset) -> Any:
    shown = {
        "held_out_loss": "loss on held-out streams", "seconds": "seconds of training",
        "completed": "solves completed by the loop",
    }  # fmt: skip
    rows = len(_gains(data))
    figure, axes = pyplot.subplots(rows, 3, figsize=(9.6, 2.3 * rows + 0.4), sharex=True, sharey="col", squeeze=False)
    _panels(figure, axes, data, shown)
    for row in axes:
        row[2].set_ylim(-0.05, 1.05)
        row[2].yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f}%")
    return figure


def says_cost(data: Dataset) -> str:
    found = facts(data)
    gain, best = found["hardest"], found["shortest"]
    if gain is None or best is None:
        return "Nothing to compare."
    told = {care: _facts_of(found, gain, care) for care in _cares(data)}
    seconds = {care: f["step"] / told[PLAIN]["step"] for care, f in told.items() if care != PLAIN}
    dearest = max(seconds, key=lambda care: seconds[care])
    return (
        f"Solves stay shortest {_with(best)}: with {_begun(gain)} the loss ends at {told[best]['loss']:.2f} instead of "
        f"{told[PLAIN]['loss']:.2f}, in {times(seconds[best])} the seconds of plain training. The most seconds, "
        f"{times(seconds[dearest])}, are those {_with(dearest)}."
    )


def tables(data: Dataset) -> list[Table]:
    found, rows = facts(data), []
    for gain, care in pairs(_gains(data), _cares(data)):
        f = _facts_of(found, gain, care)
        rows.append(
            [_begun(gain), care, f"{f['trained']:.3g}", f"{f['exponent'][-1]:.3f}", f"{f['condition'][-1]:.3g}",
             f"{100 * f['completed']:.0f}%", str(f["driven_out"]), f"{f['loss']:.3f}", f"{1e3 * f['step']:.3g}"]
        )  # fmt: skip
    head = ["begun with", "care", "newton", "last exponent", "last conditioning", "completed", "driven out", "loss"]
    return [Table("What options keep, and cost", [*head, "ms a step"], rows)]


STUDY = study_of(
    __name__,
    name="spectral",
    question="Which options keep training where solves are short, and what do they cost in loss and seconds?",
    dims=("gain", "care", "seed", "step"),
    pictures=(Picture("region", draw_region, says_region), Picture("cost", draw_cost, says_cost)),
    alone=True,
)
