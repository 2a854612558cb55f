"""Training in parallel over time: what it costs and learns, where it leaves the region of short solves, and shortcuts.

Cells, sizes and the fixed number of three Newton iterations are those of ParaRNN (Danieli et al., ICLR 2026, arXiv
2510.21450); the affine recurrence is the real form of the LRU (Orvieto et al., arXiv 2303.06349); the question of the
region is that of Gonzalez et al. (arXiv 2508.16817). All networks have about the same number of parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.studies.draw.drawing import listed, times
from recsolve.studies.draw.series import legend_of
from recsolve.studies.draw.style import integer_ticks
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.training.config import TrainConfig

if TYPE_CHECKING:
    from xarray import Dataset

# What is trained, by name: changes of the config.
KINDS: dict[str, dict[str, Any]] = {
    "diagonal GRU": {"cell": "pararnn_gru"},
    "diagonal LSTM": {"cell": "pararnn_lstm"},
    "three iterations": {"cell": "pararnn_gru", "method": "newton", "iterations": 3, "on_failure": "warn"},
    "plain loop": {"cell": "pararnn_gru", "layer": "loop"},
    "dense GRU": {"cell": "gru", "mixing": "dense"},
    "dense, three iterations": {
        "cell": "gru",
        "mixing": "dense",
        "method": "newton",
        "iterations": 3,
        "on_failure": "warn",
    },
    "GRU of torch": {"cell": "gru", "mixing": "dense", "layer": "torch"},
    "affine": {"cell": "affine"},
}
_LOOKS = {
    "diagonal GRU": ("#0072B2", "-", "o"), "diagonal LSTM": ("#009E73", "--", "s"),
    "three iterations": ("#E69F00", ":", "x"),
    "plain loop": ("#56B4E9", (0, (6, 2)), "d"), "dense GRU": ("#D55E00", "-.", "^"),
    "dense, three iterations": ("#661100", (0, (1, 2)), "1"),
    "GRU of torch": ("#000000", "-", "v"), "affine": ("#CC79A7", (0, (3, 1, 1, 1)), "P"),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Networks of about ``parameters`` weights, trained on a task; looked at every ``every`` steps."""

    kinds: tuple[str, ...] = tuple(KINDS)
    task: str = "text"
    parameters: int = 40_000
    layers: int = 2
    length: int = 256
    batch: int = 8
    steps: int = 80
    every: int = 20
    rate: float = 5e-3
    seeds: int = 1
    device: str = "cpu"


FULL = Config(
    parameters=3_000_000, layers=4, length=1024, batch=16, steps=600, every=60, rate=2e-3, device="cuda",
    kinds=tuple(kind for kind in KINDS if kind != "plain loop"),
)  # fmt: skip
TINY = Config(
    kinds=("diagonal GRU", "three iterations", "plain loop", "GRU of torch"), task="parity", parameters=600, layers=1,
    length=32, batch=4, steps=6, every=2,
)  # fmt: skip


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        kind=config.kinds, task=config.task, parameters=config.parameters, layers=config.layers, length=config.length,
        batch=config.batch, steps=config.steps, every=config.every, rate=config.rate, seed=range(config.seeds),
        device=config.device, dtype="float32",
    )  # fmt: skip


def run(
    *, kind: str, task: str, parameters: int, layers: int, length: int, batch: int, steps: int, every: int, rate: float,
    seed: int, device: str, dtype: str,
) -> list[Row]:  # fmt: skip
    from recsolve.nn import ConvergenceWarning
    from recsolve.studies.training.probe import followed
    from recsolve.studies.training.train import Run

    base = TrainConfig(
        task=task, memory=4, layers=layers, length=length, batch=batch, steps=steps, rate=rate, seed=seed, save=0,
        report=steps, **KINDS[kind],
    )  # fmt: skip
    config = _of_size(base, parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        trained = Run(config, device=device)
        return list(followed(trained, every, _looked_at))


def _of_size(config: TrainConfig, parameters: int) -> TrainConfig:
    """Return the config with the width that gives the number of parameters nearest to the wished one."""
    from recsolve.studies.training.modules import Network

    def count(units: int) -> int:
        return sum(p.numel() for p in Network(replace(config, units=units)).parameters())

    low, high = 8, 16
    while count(high) < parameters:
        low, high = high, 2 * high
    while high - low > 8:
        middle = (low + high) // 16 * 8
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    return replace(config, units=min((low, high), key=lambda units: abs(count(units) - parameters)))


def _looked_at(trained: Any) -> Row:
    """Return what a network predicts at one moment, and what it is like for solvers."""
    from recsolve.studies.training.probe import PROBED, probe
    from recsolve.studies.training.train import HELD_OUT

    row: Row = {**trained.evaluate(), "units": trained.config.units}
    row["weights"] = sum(p.numel() for p in trained.network.parameters())
    if trained.config.layer == "recsolve":
        import torch

        inputs, answers = trained.draw(HELD_OUT, 1, batch=min(trained.config.batch, 2))
        row |= probe(trained.network, torch.from_numpy(inputs[:PROBED]).to(trained.device))
        if trained.config.iterations:
            row["gradient_error"] = _gradient_error(trained, inputs, answers)
    return row


def _gradient_error(trained: Any, inputs: Any, answers: Any) -> float:
    """Return how far the gradient of solves that are cut short is from that of solves that converge, relatively."""
    import torch

    settings, found = trained.network.layers.solving, []
    try:
        for solving in (settings, replace(settings, maxiter=None, on_failure="loop")):
            trained.network.layers.solving = solving
            loss, _ = trained.loss(inputs, answers)
            gradients = torch.autograd.grad(loss, list(trained.network.parameters()))
            found.append(torch.cat([g.flatten() for g in gradients]))
    finally:
        trained.network.layers.solving = settings
    short, whole = found
    return float((short - whole).norm() / whole.norm())


def _kinds(data: Dataset) -> list[str]:
    return [str(kind) for kind in data["kind"].values]


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    mean = data.mean("seed")
    for kind in _kinds(data):
        part = mean.sel(kind=kind).dropna("step", subset=["held_out_loss"])
        seconds = part["seconds"].values
        found[f"{kind}.loss"] = float(part["held_out_loss"].values[-1])
        found[f"{kind}.best"] = float(part["held_out_loss"].values.min())
        found[f"{kind}.step"] = float(seconds[-1] / max(int(part["step"].values[-1]) - 1, 1))
        found[f"{kind}.weights"] = int(part["weights"].values[-1])
        if np.isfinite(part["newton"].values).any():
            for name in ("newton", "condition", "exponent"):
                found[f"{kind}.{name}"] = [float(x) for x in part[name].values]
            beyond = part["step"].values[part["exponent"].values > 0]
            found[f"{kind}.leaves"] = int(beyond[0]) if len(beyond) else None
        if "gradient_error" in part and np.isfinite(part["gradient_error"].values).any():
            found[f"{kind}.gradient_error"] = [float(x) for x in part["gradient_error"].values]
    return found


def draw_loss(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 2, figsize=(8.4, 3.2), sharey=True)
    for kind in _kinds(data):
        part = data.sel(kind=kind).mean("seed")
        color, line, marker = _LOOKS[kind]
        look = {"color": color, "linestyle": line, "marker": marker, "markersize": 4, "label": kind}
        axes[0].plot(part["tokens"] / 1e3, part["held_out_loss"], **look)
        shown = part["seconds"] > 0
        axes[1].plot(part["seconds"].where(shown), part["held_out_loss"], **look)
    axes[0].set(xlabel="thousands of tokens", ylabel="loss on held-out streams", yscale="log")
    axes[1].set(xlabel="seconds of training", xscale="log")
    legend_of(figure, axes[0])
    return figure


def says_loss(data: Dataset) -> str:
    f, kinds = facts(data), _kinds(data)
    best = min(kinds, key=lambda kind: f[f"{kind}.loss"])
    text = f"After equal tokens the lowest loss is that of {best}, {f[f'{best}.loss']:.3f}. "
    against = [k for k in ("plain loop", "GRU of torch") if k in kinds and "diagonal GRU" in kinds]
    ratios = [f"{times(f['diagonal GRU.step'] / f[f'{k}.step'])} that of the {k}" for k in against]
    return text + f"The time of a step of the diagonal GRU is {listed(ratios)}." * bool(ratios)


def draw_region(pyplot: Any, data: Dataset) -> Any:
    figure, axes = pyplot.subplots(1, 3, figsize=(9.6, 3.0), sharex=True)
    titles = {"newton": "iterations of newton", "condition": "conditioning", "exponent": "Lyapunov exponent per step"}
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for kind in _kinds(data):
            values = data[name].sel(kind=kind).mean("seed")
            if np.isfinite(values.values).any():
                color, line, marker = _LOOKS[kind]
                ax.plot(data["step"], values, color=color, linestyle=line, marker=marker, markersize=4, label=kind)
        ax.set(xlabel="step of training", ylabel=title)
    integer_ticks(axes[0].yaxis)
    axes[1].set_yscale("log")
    axes[2].axhline(0, color="0.5", linewidth=0.8, linestyle="--", zorder=1)
    legend_of(figure, axes[0])
    return figure


def says_region(data: Dataset) -> str:
    f = facts(data)
    kinds = [kind for kind in _kinds(data) if f"{kind}.newton" in f]
    left = [kind for kind in kinds if f[f"{kind}.leaves"] is not None]
    region = (
        f"{listed(left)} leave the contractive region" if left else "Training leaves the contractive region nowhere"
    )
    grown = max(kinds, key=lambda kind: f[f"{kind}.newton"][-1])
    first, last = f[f"{grown}.newton"][0], f[f"{grown}.newton"][-1]
    wrong = [x for kind in _kinds(data) for x in f.get(f"{kind}.gradient_error", ())]
    short = f" Solves cut after three iterations have gradients wrong by at most {max(wrong):.1g} of their norm."
    return (
        f"{region}: Newton's iterations end at {last:g} at most, from {first:g} at the first step ({grown})."
        f"{short if wrong else ''}"
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [kind, f"{f[f'{kind}.weights']:,}", f"{f[f'{kind}.loss']:.4f}", f"{1e3 * f[f'{kind}.step']:.3g}"]
        for kind in _kinds(data)
    ]
    return [Table("Networks after equal tokens", ["network", "parameters", "held-out loss", "ms a step"], rows)]


STUDY = study_of(
    __name__,
    name="training",
    question="What does training in parallel over time cost and learn, and does it leave the region of short solves?",
    dims=("kind", "seed", "step"),
    pictures=(Picture("loss", draw_loss, says_loss), Picture("region", draw_region, says_region)),
    alone=True,
)
