"""Universal Transformer that halts (Dehghani et al., arXiv 1807.03819): how deep positions go, and what it saves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import measured
from recsolve.studies.draw.drawing import converged, span
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import universal

if TYPE_CHECKING:
    from xarray import Dataset

BITS, DIFFERENT = "bits", "all different"
TOKENS = {BITS: "two kinds of tokens, as for a parity", DIFFERENT: "all tokens different, as for a copy"}
SOLVERS = ("newton", "jacobi")


@dataclass(frozen=True)
class Config:
    """``biases`` of the unit that halts: the smaller, the deeper; weights are not trained."""

    biases: tuple[float, ...] = (-3.0, -1.5, 0.0)
    positions: int = 8
    width: int = 8
    depth: int = 96
    seeds: int = 6


TINY = Config(biases=(-3.0, 0.0), positions=4, width=6, depth=48, seeds=2)
FULL = Config(biases=(-6.0, -4.5, -3.0, -1.5, 0.0), positions=32, width=16, depth=1024, seeds=20)


def grid(config: Config) -> Iterator[Point]:
    """Yield both kinds of tokens at all biases."""
    yield from product(
        tokens=tuple(TOKENS), bias=config.biases, seed=range(config.seeds), positions=config.positions,
        width=config.width, depth=config.depth, dtype="float64",
    )  # fmt: skip


def run(*, tokens: str, bias: float, seed: int, positions: int, width: int, depth: int, dtype: str) -> list[Row]:
    """Return the depth at which positions halt, and iterations over depth."""
    sizes = {"positions": positions, "width": width, "hidden": 2 * width}
    config = universal.Config(length=depth, bias=bias, seed=seed, dtype=dtype, **sizes)
    arrays = dict(universal.draw(config))
    if tokens == BITS:
        arrays["H"] = arrays["H"][:, np.random.default_rng(seed).integers(0, 2, positions)]
    rec = universal.act(arrays)
    truth = rs.solve(rec, method="sequential")
    halts = [float(n) for n in _halts(truth.named["c"][:, 0])]
    return [{"halts": halts, "depth": depth, **measured(rec, solver, truth.states)} for solver in SOLVERS]


def _halts(c: Array) -> Array:
    """Return after how many steps the total of each position is 1, NaN where that is not seen."""
    steps = (c < 1).sum(axis=0) + 1.0
    return np.where(c[-1] < 1, np.nan, steps)


def _depths(data: Dataset, tokens: str, bias: float) -> Array:
    """Return halting depths by seed and position."""
    part = data["halts"].sel(tokens=tokens, bias=bias, solver="newton")
    return np.asarray(part.transpose("seed", "position"))


def _counts(data: Dataset, tokens: str, solver: str) -> tuple[Array, Array]:
    """Return the depth of the last to halt, and iterations, for every bias and seed where all halt."""
    part = converged(data.sel(tokens=tokens, solver=solver), "iterations").transpose("bias", "seed")
    last = np.array([_depths(data, tokens, b).max(axis=1) for b in part["bias"].values])
    known = np.isfinite(last) & np.isfinite(part.values)
    return last[known], part.values[known]


def constant(bias: float) -> float:
    """Return after how many steps a position halts whose chance is sigmoid(bias) at all of them."""
    return float(np.floor((1 - universal.EPSILON) * (1 + np.exp(-bias)))) + 1


def facts(data: Dataset) -> dict[str, Any]:
    """Return depths, the share of the work of all positions that those which run do, and iterations."""
    biases, depth = [float(b) for b in data["bias"].values], float(data["depth"].max())
    found: dict[str, Any] = {"biases": biases, "constant": [constant(b) for b in biases], "depth": int(depth)}
    for tokens in TOKENS:
        depths = [_depths(data, tokens, b) for b in biases]
        run = [np.where(np.isfinite(n), n, depth) for n in depths]
        found[f"{tokens}.mean"] = [float(n.mean()) for n in run]
        found[f"{tokens}.range"] = [[float(n.min()), float(n.max())] for n in run]
        found[f"{tokens}.work"] = [float((n.mean(axis=1) / n.max(axis=1)).mean()) for n in run]
        found[f"{tokens}.halted"] = [float(np.isfinite(n).mean()) for n in depths]
        last, counts = zip(*(_counts(data, tokens, solver) for solver in SOLVERS), strict=True)
        found[f"{tokens}.last"] = [float(last[0].min()), float(last[0].max())]
        found |= {f"{tokens}.{s}": [float(n.min()), float(n.max())] for s, n in zip(SOLVERS, counts, strict=True)}
    pairs = [np.stack([_depths(data, tokens, b) for tokens in TOKENS]) for b in biases]
    near = [(abs(n[0] - n[1]) <= 1)[np.isfinite(n).all(axis=0)] for n in pairs]
    return {**found, "alike": float(np.concatenate(near).mean())}


def draw(pyplot: Any, data: Dataset) -> Any:
    """Draw histograms of the halting depths, one for every bias, and iterations against the depth of the last."""
    biases, looks = data["bias"].values, series(TOKENS.values())
    panels, ratios = len(biases) + 1, [1.0] * len(biases) + [1.4]
    figure, axes = pyplot.subplots(1, panels, figsize=(2.2 * panels + 3.9, 3.4), width_ratios=ratios)
    for ax, bias in zip(axes, biases[::-1], strict=False):
        both = [_depths(data, tokens, bias) for tokens in TOKENS]
        edges = _edges(max(np.nanmax(n) for n in both))
        for tokens, depths in zip(TOKENS, both, strict=True):
            look = looks[TOKENS[tokens]]
            share, _ = np.histogram(depths[np.isfinite(depths)], edges)
            ax.stairs(100 * share / depths.size, edges, color=look["color"], linestyle=look["linestyle"], linewidth=1.4)
        ax.axvline(constant(bias), color="0.4", linewidth=0.9, linestyle=":")
        ax.set(title=f"bias {bias:g}", xlabel="steps until halted", ylim=(0, None))
    for ax in axes[:-1]:
        ax.set_ylabel("positions, %")
    for tokens, name in TOKENS.items():
        for solver in SOLVERS:
            last, counts = _counts(data, tokens, solver)
            mark = {**line_arguments(solver), "linestyle": "none", "color": looks[name]["color"]}
            axes[-1].plot(last, counts, **mark, fillstyle="full" if tokens == DIFFERENT else "none")
    reach = np.array(axes[-1].get_xlim())
    axes[-1].set(xscale="log", yscale="log", xlabel="steps until all have halted", ylabel="iterations over depth")
    axes[-1].plot(np.clip(reach, 1, None), np.clip(reach, 1, None), color="0.5", linewidth=0.8, linestyle="--")
    dotted = {"color": "0.4", "linewidth": 0.9, "linestyle": ":", "label": "at a constant chance"}
    equal = {"color": "0.5", "linewidth": 0.8, "linestyle": "--", "label": "as many iterations as steps"}
    marks = [{**line_arguments(s), "color": "0.3", "linestyle": "none", "label": s} for s in SOLVERS]
    outside_legend(figure, pyplot, [*({**look, "marker": ""} for look in looks.values()), dotted, *marks, equal])
    return figure


def _edges(last: float) -> Array:
    """Return edges of bins of whole numbers, at most a dozen."""
    step = max(1, int(np.ceil(last / 12)))
    return np.arange(0, last + step + 1, step) + 0.5


def says(data: Dataset) -> str:
    """Say what freezing positions saves whom."""
    f, both = facts(data), tuple(TOKENS)
    work = span(round(100 * share) for tokens in both for share in f[f"{tokens}.work"])
    newton, jacobi = (max(f[f"{tokens}.{solver}"][1] for tokens in both) for solver in SOLVERS)
    return (
        f"Until the last position has halted {work} % run on average, which is what is left to do when the others are "
        f"left out. To Jacobi over depth halting is no help: it takes up to {jacobi:.0f} sweeps of a depth of "
        f"{f['depth']}, since what has halted is copied, a memory that is never lost. Newton takes at most "
        f"{newton:.0f}."
    )


def tables(data: Dataset) -> list[Table]:
    """Return depths by bias."""
    f = facts(data)
    rows = [
        [f"{b:g}", f"{f['constant'][i]:.0f}", *(f"{f[f'{t}.mean'][i]:.1f}, {f[f'{t}.work'][i]:.0%}" for t in TOKENS)]
        for i, b in enumerate(f["biases"])
    ]
    return [Table("Steps until halted, mean, and share of the work", ["bias", "at a constant chance", *TOKENS], rows)]


STUDY = study_of(
    __name__,
    name="act",
    question="How deep do positions go before they halt, and what does it save to leave them out from then on?",
    dims=("tokens", "bias", "seed", "solver"),
    curves={"halts": ("position",)},
    pictures=(Picture("halting", draw, says),),
)
