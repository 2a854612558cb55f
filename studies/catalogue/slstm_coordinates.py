"""sLSTM (Beck et al., arXiv 2405.04517; FlashRNN, arXiv 2412.07752): the same network in other coordinates.

The state c, n and m of its paper gives the output sigmoid(o) c / n. With r = c / n and l = log n - m gone into it,

    w = sigmoid(g_i - log sigmoid(g_f) - l),  r' = (1 - w) r + w tanh(g_z),  l' = log(e^(l + log sigmoid(g_f)) + e^g_i),

it is a gated network whose gate is a ratio of what is written to all that is kept: no quotient, and nothing overflows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.analysis.distance import distance
from recsolve.math import exp, logaddexp, sigmoid, softplus, tanh
from recsolve.studies.compare.measure import measured
from recsolve.studies.draw.drawing import band, converged, powers_of_two
from recsolve.studies.draw.series import outside_legend, series
from recsolve.studies.draw.style import line_arguments
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import flash
from recsolve.studies.systems.system import Arrays

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

STABILISED, FROM_ZERO = "(c, n, m), m from -inf", "(c, n, m), m from 0"
PLAIN, RATIO = "(c, n), no maximum", "(c / n, log n)"
SOLVERS = ("newton", "jacobi")


@dataclass(frozen=True)
class Config:
    """``biases`` of the forget gate: 1 forgets, 4 remembers."""

    lengths: tuple[int, ...] = (32, 64, 128, 256)
    biases: tuple[float, ...] = (1.0, 4.0)
    gain: float = 1.0
    heads: int = 2
    units: int = 4
    seeds: int = 3


TINY = Config(lengths=(24, 96), biases=(4.0,), units=2, seeds=2)
FULL = Config(lengths=(64, 128, 256, 512, 1024, 2048), biases=(1.0, 2.5, 4.0, 6.0), heads=4, units=16, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    """Yield every length and bias."""
    yield from product(
        T=config.lengths, bias=config.biases, seed=range(config.seeds), gain=config.gain, heads=config.heads,
        units=config.units, dtype="float64",
    )  # fmt: skip


def plain(s: Any, W: Any, u: Any, p: Any) -> Any:
    """The step of an sLSTM as it is defined, without a maximum."""
    write, keep = exp(W.i(s.y) + u.i), sigmoid(W.f(s.y) + u.f)
    c, n = keep * s.c + write * tanh(W.z(s.y) + u.z), keep * s.n + write
    return sigmoid(W.o(s.y) + u.o) * c / n, c, n


def ratio(s: Any, W: Any, u: Any, p: Any) -> Any:
    """The step of an sLSTM in r = c / n and l = log n."""
    i, kept = W.i(s.y) + u.i, s.l - softplus(-(W.f(s.y) + u.f))
    w = sigmoid(i - kept)
    r = (1 - w) * s.r + w * tanh(W.z(s.y) + u.z)
    return sigmoid(W.o(s.y) + u.o) * r, r, logaddexp(i, kept)


_PLAIN = rs.Cell(plain, state=("y", "c", "n"), output="y")
_RATIO = rs.Cell(ratio, state=("y", "r", "l"), output="y")
FORMS: dict[str, Callable[[Arrays], rs.Recurrence]] = {
    STABILISED: flash.slstm,
    FROM_ZERO: lambda arrays: flash.made(rs.cells.SLSTM, "ifzo", arrays, m=0.0),
    PLAIN: lambda arrays: flash.made(_PLAIN, "ifzo", arrays),
    RATIO: lambda arrays: flash.made(_RATIO, "ifzo", arrays, l=-np.inf),
}


def run(*, T: int, bias: float, seed: int, gain: float, heads: int, units: int, dtype: str) -> list[Row]:
    """Return iterations of all forms, and how far their outputs are from those of the first."""
    config = flash.Config(T, 1, heads, units, gain, bias, seed, dtype)
    arrays, rows, y = flash.draw(config), [], None
    for form, make in FORMS.items():
        rec = make(arrays)
        truth = rs.solve(rec, method="sequential")
        y = truth.output if y is None else y
        apart = distance(truth.output, y)
        rows += [{"form": form, "apart": apart, **measured(rec, solver, truth.states)} for solver in SOLVERS]
    return rows


def _counts(data: Dataset, form: str, bias: float, solver: str) -> DataArray:
    return converged(data.sel(form=form, bias=bias, solver=solver), "iterations").transpose("T", "seed")


def facts(data: Dataset) -> dict[str, Any]:
    """Return median iterations of all forms, from the shortest to the longest."""
    found: dict[str, Any] = {name: [float(x) for x in data[name].values] for name in ("T", "bias")}
    for form in FORMS:
        for bias in found["bias"]:
            for solver in SOLVERS:
                middle = _counts(data, form, bias, solver).median("seed", skipna=False)
                found[f"{form}.{bias:g}.{solver}"] = [float(n) for n in middle]
    return {**found, "apart": float(data["apart"].max())}


def draw(pyplot: Any, data: Dataset) -> Any:
    """Draw iterations of Newton's method against length, and those of Jacobi's in the last form."""
    biases, T, looks = data["bias"].values, data["T"].values, series(FORMS)
    size = (3.4 * len(biases) + 2.6, 3.5)
    figure, axes = pyplot.subplots(1, len(biases), figsize=size, sharey=True, squeeze=False)
    jacobi = {**line_arguments("jacobi"), "label": f"jacobi, in {RATIO}"}
    for ax, bias in zip(axes[0], biases, strict=True):
        for form, look in looks.items():
            band(ax, T, _counts(data, form, bias, "newton"), "seed", form, **look)
        band(ax, T, _counts(data, RATIO, bias, "jacobi"), "seed", "jacobi", **jacobi)
        ax.set(xscale="log", yscale="log", xlabel="T", title=f"bias {bias:g} of the forget gate")
        powers_of_two(ax.xaxis, T)
    axes[0, 0].set_ylabel("iterations of Newton, Jacobi")
    outside_legend(figure, pyplot, [*looks.values(), jacobi])
    return figure


def says(data: Dataset) -> str:
    """Say what coordinates do."""
    f = facts(data)
    most = {form: max(f[f"{form}.{bias:g}.newton"][-1] for bias in f["bias"]) for form in (RATIO, STABILISED)}
    return (
        f"Newton's iterations depend on the coordinates of one and the same network: at T = {f['T'][-1]:.0f} they are "
        f"at most {most[RATIO]:.0f} in {RATIO}, and up to {most[STABILISED]:.0f} in those of the paper, though "
        f"outputs differ by at most {f['apart']:.0e}. A quotient of c and n that are wrong misleads Newton, and a "
        "weight that is a ratio does not; to Jacobi it is all the same."
    )


def tables(data: Dataset) -> list[Table]:
    """Return medians by form, bias and length."""
    f = facts(data)
    rows = [
        [form, f"{bias:g}", *(f"{n:.0f}" for n in f[f"{form}.{bias:g}.newton"])] for form in FORMS for bias in f["bias"]
    ]
    return [Table("Median iterations of Newton", ["state", "bias", *(f"T = {T:.0f}" for T in f["T"])], rows)]


STUDY = study_of(
    __name__,
    name="slstm",
    question="What do the coordinates of an sLSTM's state cost a solver?",
    dims=("T", "bias", "seed", "form", "solver"),
    pictures=(Picture("counts", draw, says),),
)
