"""Time against steps and batch: the loop, parallel solvers, backends and peers, and who wins where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.recurrence.torch_weights import cell_from_weights
from recsolve.studies.command.information import has_gpu
from recsolve.studies.compare.measure import cell_recurrence, distance, loop, measured, moved, timed
from recsolve.studies.draw.drawing import CONVERGED, chart, converged, legend, powers_of_two, solvers_of, times
from recsolve.studies.draw.style import line_arguments, plain_ticks
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import Dataset

PEERS = {"torch.nn.GRU": "torch"}  # what each needs
LOOP, CUDA = "sequential", "cuda"


@dataclass(frozen=True)
class Config:
    """GRUs on normal input, drive given; medians and quartiles of ``repeats`` runs, fewer after ``enough`` seconds."""

    mixings: tuple[str, ...] = ("diagonal", "dense")
    units: int = 16
    lengths: tuple[int, ...] = (64, 256, 1024, 2048)
    batches: tuple[int, ...] = (1, 4)
    backends: tuple[str, ...] = ("numpy", "numba", "cuda")  # of which those that this machine has
    peers: tuple[str, ...] = tuple(PEERS)
    solvers: tuple[str, ...] = (LOOP, "newton", "quasi_newton", "jacobi", "gauss_seidel", "multiple_shooting")
    dtype: str = "float32"
    repeats: int = 9
    enough: float = 0.15
    seed: int = 0


FULL = Config(
    units=64,
    lengths=tuple(2**p for p in range(6, 18)),
    batches=(1, 4, 16, 64),
    repeats=25,
    enough=10.0,
)
TINY = Config(units=4, lengths=(64, 256), batches=(1,), repeats=2, enough=0.02)


def grid(config: Config) -> Iterator[Point]:
    peers = tuple(peer for peer in config.peers if find_spec(PEERS[peer]))
    backends = tuple(backend for backend in config.backends if backend != CUDA or has_gpu())
    for mixing in config.mixings:
        yield from product(
            mixing=mixing, backend=backends + (peers if mixing == "dense" else ()), T=config.lengths,
            batch=config.batches, units=config.units, solvers=[*config.solvers], repeats=config.repeats,
            enough=config.enough, seed=config.seed, dtype=config.dtype,
        )  # fmt: skip


def run(
    *, mixing: str, backend: str, T: int, batch: int, units: int, solvers: list[str], repeats: int, enough: float,
    seed: int, dtype: str,
) -> list[Row]:  # fmt: skip
    weights, x = _weights(units, seed, dtype), _input(T, batch, seed, dtype)

    def recurrence(place: str) -> rs.Recurrence:
        if mixing == "dense":
            return cell_from_weights(rs.cells.GRU, weights, 0, False).to(place).recurrence(moved(x, place))
        return cell_recurrence("gru", mixing, units=units, T=T, seed=seed, dtype=dtype, batch=(batch,), place=place)

    rec = recurrence("numpy")
    truth = loop(rec)
    with rs.backend("numpy"):  # what every time is compared to
        plain = timed(lambda: rs.solve(rec, method=LOOP), repeats, enough)["seconds"]
    if backend in PEERS:
        return [{"numpy_loop": plain, **_torch(weights, x, truth, repeats, enough)}]
    if backend == CUDA:  # states are tested, and so waited for, before a solve returns
        rec, truth = recurrence("cupy"), moved(truth, "cupy")
    with rs.backend(backend):
        return [{"numpy_loop": plain, **_solver(rec, name, truth, repeats, enough)} for name in solvers]


def _solver(rec: rs.Recurrence, name: str, truth: Array, repeats: int, enough: float) -> Row:
    row = measured(rec, name, truth)
    if row["status"] != CONVERGED:
        return row  # its time is meaningless
    return {**row, **timed(lambda: rs.solve(rec, method=name), repeats, enough)}


def _torch(weights: dict[str, Array], x: Array, truth: Array, repeats: int, enough: float) -> Row:
    """Time torch's loop with the same weights, its input projection of four channels included, on 1 or all threads."""
    import torch

    from recsolve.kernels.cpu.threads import threads

    module = torch.nn.GRU(x.shape[-1], truth.shape[-1], dtype=getattr(torch, str(x.dtype)))
    module.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
    given, before, found = torch.from_numpy(x), torch.get_num_threads(), []

    def forward() -> Array:
        with torch.inference_mode():
            return np.asarray(module(given)[0])

    error = distance(forward(), truth)
    try:
        for count in {1, threads()}:  # small products are slower on several threads, large ones faster
            torch.set_num_threads(count)
            found.append(timed(forward, repeats, enough))
    finally:
        torch.set_num_threads(before)
    best = min(found, key=lambda row: float(row["seconds"]))
    return {"solver": "torch.nn.GRU", "status": CONVERGED, "error": error, **best}


def _weights(units: int, seed: int, dtype: str) -> dict[str, Array]:
    """Return weights as torch draws and names them."""
    rng, bound = np.random.default_rng(seed), units**-0.5
    shapes: dict[str, tuple[int, ...]] = {"weight_ih_l0": (3 * units, 4), "weight_hh_l0": (3 * units, units)}
    shapes |= dict.fromkeys(("bias_ih_l0", "bias_hh_l0"), (3 * units,))
    return {name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()}


def _input(T: int, batch: int, seed: int, dtype: str) -> Array:
    return np.random.default_rng(seed + 1).standard_normal((T, batch, 4)).astype(dtype)


def _seconds(data: Dataset, mixing: str, backend: str) -> Any:
    """Return times (solver, T, batch), NaN where the solve did not converge."""
    return converged(data, "seconds").sel(mixing=mixing, backend=backend).transpose("solver", "T", "batch")


def _relative(data: Dataset, mixing: str, backend: str) -> Array:
    """Return the time of a backend's fastest parallel solver over that of what one would run else, (batch, T).

    That is the fastest loop that was timed, of any backend or peer: a slow loop of one's own is no yardstick.
    """
    parallel = [s for s in solvers_of(data) if s != LOOP and s not in PEERS]
    best = _seconds(data, mixing, backend).sel(solver=parallel).min("solver")
    return np.asarray((best / _loop(data, mixing)).transpose("batch", "T").values)


def _loop(data: Dataset, mixing: str) -> Any:
    """Return the time of the fastest loop (T, batch)."""
    loops = [s for s in solvers_of(data) if s == LOOP or s in PEERS]
    return converged(data, "seconds").sel(mixing=mixing, solver=loops).min(("backend", "solver"))


def _backends(data: Dataset) -> list[str]:
    return [str(b) for b in data["backend"].values if b not in PEERS]


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"worst_error": float(converged(data, "error").max())}
    T = data["T"].values
    for mixing in (str(m) for m in data["mixing"].values):
        for backend in _backends(data):
            relative, seconds = _relative(data, mixing, backend), _seconds(data, mixing, backend)
            wins = np.flatnonzero(relative[0] < 1)
            last = seconds.isel(T=-1, batch=0).drop_sel(solver=[LOOP])
            fast = last.solver.values[int(np.nanargmin(last.values))]
            loops = converged(data, "numpy_loop").sel(mixing=mixing, backend=backend, solver=LOOP)
            found[f"{mixing}, {backend}"] = {
                "break_even": int(T[wins[0]]) if wins.size else None,
                "best": float(np.nanmin(relative)),
                "fastest_parallel": str(fast),
                "at_last": float(relative[0, -1]),
                "loop_over_numpy": float((seconds.sel(solver=LOOP) / loops).isel(T=-1, batch=0)),
            }
    return found


def _panels(f: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: found for name, found in f.items() if name != "worst_error"}


def draw_times(pyplot: Any, data: Dataset) -> Any:
    panels = [(m, b) for m in map(str, data["mixing"].values) for b in _backends(data)]
    batches = [int(b) for b in data["batch"].values]
    size = (2.9 * len(batches) + 1.9, 2.2 * len(panels) + 0.5)
    figure, axes = pyplot.subplots(len(panels), len(batches), figsize=size, sharex=True, sharey=True, squeeze=False)
    for row, (mixing, backend) in zip(axes, panels, strict=True):
        for ax, batch in zip(row, batches, strict=True):
            for solver in solvers_of(data):
                _line(ax, data.sel(mixing=mixing, batch=batch, backend=solver if solver in PEERS else backend), solver)
            ax.set(xscale="log", yscale="log", title=f"{mixing}, {backend}, batch {batch}")
            powers_of_two(ax.xaxis, data["T"].values)
        row[0].set_ylabel("seconds")
    for ax in axes[-1]:
        ax.set_xlabel("steps T")
    legend(figure, pyplot, solvers_of(data))
    return figure


def _line(axes: Any, data: Dataset, solver: str) -> None:
    part, style = data.sel(solver=solver), line_arguments(solver)
    middle, low, high = (converged(part, name).values for name in ("seconds", "seconds_low", "seconds_high"))
    axes.plot(data["T"].values, middle, **style)
    axes.fill_between(data["T"].values, low, high, color=style["color"], alpha=0.2, linewidth=0)


def says_times(data: Dataset) -> str:
    panels = _panels(facts(data))
    early = {name: found["break_even"] for name, found in panels.items() if found["break_even"] is not None}
    best = min(panels, key=lambda name: panels[name]["at_last"])
    wins = "No parallel solver takes less time than the fastest loop there is"
    if early:
        first = min(early, key=early.__getitem__)
        wins = f"A parallel solver first takes less time than the fastest loop at T = {early[first]} ({first})"
    loop = min(panels, key=lambda name: panels[name]["loop_over_numpy"])
    return (
        f"{wins}, for one sequence; at T = {int(data['T'][-1])} the best of them is {panels[best]['fastest_parallel']} "
        f"({best}), which takes {times(panels[best]['at_last'])} its time. To compile the loop gains most: it takes "
        f"{times(panels[loop]['loop_over_numpy'])} the time of the plain one in NumPy ({loop})."
    )


def draw_break_even(pyplot: Any, data: Dataset) -> Any:
    mixings, backends = [str(m) for m in data["mixing"].values], _backends(data)
    lengths, batches = [f"{T:g}" for T in data["T"].values], [f"{b:g}" for b in data["batch"].values]
    size = (0.62 * len(lengths) * len(backends) + 2.2, (0.45 * len(batches) + 0.75) * len(mixings) + 0.4)
    figure, axes = pyplot.subplots(len(mixings), len(backends), figsize=size, sharex=True, sharey=True, squeeze=False)
    ratios = {(m, b): _relative(data, m, b) for m in mixings for b in backends}
    reach = 1.05 * max(float(np.nanmax(np.maximum(r, 1 / r))) for r in ratios.values())
    norm = pyplot.matplotlib.colors.LogNorm(1 / reach, reach)  # break-even in the middle, and no colour saturates
    for row, mixing in zip(axes, mixings, strict=True):
        for ax, backend in zip(row, backends, strict=True):
            image = chart(ax, lengths, batches, ratios[mixing, backend], "{:.2g}", norm=norm)
            _border(ax, ratios[mixing, backend] < 1)
            ax.set_title(f"{mixing}, {backend}", fontsize=9)
    figure.supxlabel("steps T", fontsize=9)
    figure.supylabel("batch", fontsize=9)
    bar = figure.colorbar(image, ax=axes, label="time of the fastest parallel solver\n/ time of the fastest loop")
    plain_ticks(bar.ax.yaxis)
    return figure


def _border(axes: Any, wins: Array) -> None:
    """Draw the line between cells where a parallel solver wins and cells where the loop does."""
    for i, j in np.ndindex(*wins.shape):
        if j + 1 < wins.shape[1] and wins[i, j] != wins[i, j + 1]:
            axes.plot([j + 0.5] * 2, [i - 0.5, i + 0.5], color="#D55E00", linewidth=3)
        if i + 1 < wins.shape[0] and wins[i, j] != wins[i + 1, j]:
            axes.plot([j - 0.5, j + 0.5], [i + 0.5] * 2, color="#D55E00", linewidth=3)


def says_break_even(data: Dataset) -> str:
    panels = _panels(facts(data))
    best, worst = (pick(panels, key=lambda name: panels[name]["best"]) for pick in (min, max))
    return (
        "Below 1 the fastest parallel solver of a backend takes less time than what one would run else, the fastest "
        f"loop of any backend; the thick line is break-even, where there is one. At best it takes "
        f"{times(panels[best]['best'])} ({best}) and {times(panels[worst]['best'])} ({worst}) that time."
    )


def tables(data: Dataset) -> list[Table]:
    T, batch = int(data["T"][-1]), int(data["batch"][-1])
    part = data.sel(T=T, batch=batch).stack(case=("mixing", "backend", "solver"))
    rows = []
    for case in part["case"].values:
        seconds, plain, error = (
            float(converged(part, name).sel(case=case)) for name in ("seconds", "numpy_loop", "error")
        )
        if np.isfinite(seconds):
            rows.append([*case, f"{1e3 * seconds:.3g}", f"{1e3 * plain:.3g}", f"{seconds / plain:.2g}", f"{error:.0e}"])
    head = ["mixing", "backend", "solver", "ms", "NumPy loop, same run, ms", "over NumPy's loop", "error"]
    return [Table(f"Times at T = {T}, batch {batch}", head, rows)]


STUDY = study_of(
    __name__,
    name="speed",
    question="From which length and batch on is a parallel solver faster than the loop, on which backend?",
    dims=("mixing", "backend", "T", "batch", "solver"),
    pictures=(Picture("times", draw_times, says_times), Picture("break_even", draw_break_even, says_break_even)),
    alone=True,
)
