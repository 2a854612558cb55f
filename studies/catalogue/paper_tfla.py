"""Exponential and sigmoid input gates (mLSTM and mLSTMsig, arXiv 2503.14376): range, precision and cost in float32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.studies.compare.measure import distance, loop, timed
from recsolve.studies.draw.drawing import CONVERGED, band, converged, times
from recsolve.studies.draw.series import ending, outside_legend, series
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product
from recsolve.studies.systems import mlstm
from recsolve.studies.systems.system import get

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

EXP, NAIVE, SIGMOID = "exponential, stabilised", "exponential, as it stands", "sigmoid"
_LOOKS = series((EXP, NAIVE, SIGMOID))


@dataclass(frozen=True)
class Config:
    """Input gates with a deviation of ``spreads``, in float32; scans are timed."""

    length: int = 512
    spreads: tuple[float, ...] = (1.0, 3.0, 10.0, 20.0, 30.0, 50.0, 100.0, 300.0)
    heads: int = 2
    repeats: int = 5
    enough: float = 0.1
    seeds: int = 3


TINY = Config(length=64, spreads=(1.0, 10.0, 100.0), repeats=2, enough=0.02, seeds=2)
FULL = Config(length=4096, heads=8, repeats=15, enough=2.0, seeds=10)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        spread=config.spreads, seed=range(config.seeds), length=config.length, heads=config.heads,
        repeats=config.repeats, enough=config.enough, dtype="float32",
    )  # fmt: skip


def run(*, spread: float, seed: int, length: int, heads: int, repeats: int, enough: float, dtype: str) -> list[Row]:
    config = mlstm.Config(length=length, batch=1, heads=heads, spread=spread, seed=seed, dtype=dtype)
    rows = []
    for form, name, scan in (
        (EXP, "mlstm", mlstm.scan),
        (NAIVE, "mlstm", unstabilised),
        (SIGMOID, "mlstm_sig", mlstm.scan),
    ):
        system = get(name)
        arrays = system.draw(config)
        exact = system.build({key: x.astype(np.float64) for key, x in arrays.items()})
        y, rec = exact.output(loop(exact)), system.build(arrays)
        with np.errstate(all="ignore"):
            x = rec.output(scan(rec))
            seconds = timed(partial(scan, rec), repeats, enough)
        status = CONVERGED if np.isfinite(x).all() else "nonfinite"
        rows.append({"solver": form, "status": status, "error": distance(x, y), **seconds})
    return rows


def unstabilised(rec: rs.Recurrence) -> Array:
    """Return the states of an mLSTM, m = 0, from the affine scans of its definition without a running maximum."""
    u = rec.contain(rec.inputs)  # type: ignore[attr-defined]
    k, v = u["k"], u["v"]
    written = np.concatenate([k, mlstm.outer(k, v).reshape(*k.shape[:-1], -1)], axis=-1)
    n_and_C = rs.scan("affine", (np.exp(u["log_f"])[..., None], np.exp(u["i"])[..., None] * written))
    return np.concatenate([np.zeros_like(n_and_C[..., :1]), n_and_C], axis=-1)


def _errors(data: Dataset, form: str) -> DataArray:
    return converged(data.sel(solver=form), "error")


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    seconds = data["seconds"].median()
    for form in _LOOKS:
        errors = _errors(data, form)
        whole = errors.notnull().all("seed").values
        found[f"{form}.error"] = float(errors.max())
        found[f"{form}.ends"] = float(data["spread"].values[~whole][0]) if not whole.all() else 0.0
        found[f"{form}.seconds"] = float(data["seconds"].sel(solver=form).median() / seconds)
        sizes = errors.median("seed").values[whole]
        found[f"{form}.growth"] = float(sizes.max() / sizes[0])
    return found


def draw_errors(pyplot: Any, data: Dataset) -> Any:
    figure, ax = pyplot.subplots(figsize=(6.4, 3.4))
    for form, look in _LOOKS.items():
        errors = _errors(data, form)
        band(ax, data["spread"].values, errors, "seed", form, **look)
        ending(ax, data["spread"].values, errors.median("seed", skipna=False), "overflows")
    ax.set(xscale="log", yscale="log", xlabel="deviation of the input gate", ylabel="error of y, float32")
    outside_legend(figure, pyplot, _LOOKS.values())
    return figure


def says_errors(data: Dataset) -> str:
    f = facts(data)
    return (
        f"Without a running maximum the mLSTM leaves float32 where input gates have a deviation of "
        f"{f[f'{NAIVE}.ends']:g}. With it nothing overflows, but digits are lost as gates spread: the error grows "
        f"{f[f'{EXP}.growth']:.0f} times, while sigmoid gates stay at {f[f'{SIGMOID}.error']:.0e}. The scan with a "
        f"maximum takes {times(f[f'{EXP}.seconds'] / f[f'{SIGMOID}.seconds'])} the time of the affine one of sigmoids."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [form, f"{f[f'{form}.error']:.1e}", f"{f[f'{form}.ends']:g}" if f[f"{form}.ends"] else "-"] for form in _LOOKS
    ]
    return [Table("Input gates in float32", ["gate", "largest error", "not finite from a deviation of"], rows)]


STUDY = study_of(
    __name__,
    name="paper/tfla",
    question="What do exponential input gates cost beside sigmoid ones, in range, precision and time?",
    dims=("spread", "seed", "solver"),
    pictures=(Picture("errors", draw_errors, says_errors),),
    alone=True,
)
