"""The main job: several solvers on a real recurrence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recsolve import Recurrence, WeightedCell, cells
from recsolve.base.arrays import Array
from recsolve.base.tolerance import Tolerance, tolerance_for
from recsolve.kernels.compile_clock import Stopwatch
from recsolve.mixings import MIXINGS
from recsolve.solvers import Method
from recsolve.studies.compare.network import DIRECTIONS, network
from recsolve.studies.compare.race import Entry, race
from recsolve.studies.draw.figures import convergence_figure
from recsolve.studies.groups import label, select
from recsolve.studies.problems.recordings import load_recording
from recsolve.studies.store.configs import configured
from recsolve.studies.store.files import finite_or_text, write_json
from recsolve.studies.store.provenance import provenance
from recsolve.studies.systems import system as systems

FORMAT = "recsolve-compare/1"
# One or two of each group, which are quick, and whose iterations do not hang on measured times as those of auto do.
DEFAULT_SOLVERS = (
    "sequential", "newton", "quasi_newton", "damped_newton", "jacobi", "gauss_seidel", "windowed"
)  # fmt: skip


@dataclass(frozen=True)
class CompareConfig:
    """Everything that a comparison depends on. Fields are the options of ``recsolve compare``.

    ``solvers`` may name groups, or all, and hold solver objects; it becomes a tuple of solvers.
    """

    cell: str = "gru"
    mixing: str | None = None  # None: dense and diagonal, side by side
    units: int = 64
    length: int | None = None
    batch: int = 1
    gain: float = 1.0
    input: str = "membrane"
    standardise: bool = False
    weights: str | None = None
    solvers: tuple[str | Method, ...] = DEFAULT_SOLVERS
    tol: float | None = None
    maxiter: int | None = None
    dtype: str = "float64"
    seed: int = 0
    heads: int | None = None
    keys: str | None = None
    layer: int | None = None
    direction: str | None = None
    nonlinearity: str = "tanh"
    system: str | None = None
    settings: tuple[str, ...] = ()  # changes of the config of a system

    def __post_init__(self) -> None:
        for name, value in (("units", self.units), ("batch", self.batch)):
            if value < 1:
                raise ValueError(f"--{name} is {value}; wanted at least 1")
        if not np.isfinite(self.gain):
            raise ValueError(f"--gain is {self.gain}; wanted a finite number")
        if self.length is not None and self.length < 1:
            raise ValueError(f"--length is {self.length}; wanted at least 1")
        if self.maxiter is not None and self.maxiter < 0:
            raise ValueError(f"--maxiter is {self.maxiter}; wanted at least 0")
        if self.tol is not None and not 0 <= self.tol < np.inf:
            raise ValueError(f"--tol is {self.tol}; wanted a finite number >= 0")
        if self.seed < 0:
            raise ValueError(f"--seed is {self.seed}; wanted at least 0")
        if self.direction not in (None, *DIRECTIONS):
            raise ValueError(f"--direction is {self.direction!r}; wanted {' or '.join(DIRECTIONS)}")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"--dtype is {self.dtype!r}; wanted float32 or float64")
        if self.mixing is not None and self.mixing not in MIXINGS:
            raise ValueError(f"--mixing is {self.mixing!r}; wanted one of {', '.join(MIXINGS)}")
        object.__setattr__(self, "solvers", select(self.solvers))
        if self.system is not None:
            self._check_system()
        elif self.settings:
            raise ValueError(f"--set {self.settings[0]} changes what --system is, which is not given")
        elif self.weights is None:
            self._check_cell()
        elif (self.cell, self.mixing, self.units, self.gain, self.seed, self.heads) != ("gru", None, 64, 1.0, 0, None):
            raise ValueError(
                "--weights brings its own cell; leave out --cell, --mixing, --heads, --units, --gain, --seed"
            )

    def _check_system(self) -> None:
        """Build it once: names, settings and sizes are checked there."""
        own = ("solvers", "tol", "maxiter", "system", "settings")
        others = [f.name for f in fields(self) if f.name not in own and getattr(self, f.name) != f.default]
        if others:
            raise ValueError(
                f"--system brings its own recurrence; leave out --{', --'.join(others)}, and write --set KEY=VALUE"
            )
        try:
            system_config(self)
        except ValueError as error:
            text = str(error)
            raise ValueError(f"--{text}" if text.startswith("system is") else text) from None

    def _check_cell(self) -> None:
        try:
            mixes = bool(cells.get(self.cell).mixings)
        except ValueError as error:  # "cell is ..."
            raise ValueError(f"--{error}") from None
        if (self.keys, self.layer, self.direction, self.nonlinearity) != (None, None, None, "tanh"):
            raise ValueError(
                "--keys, --layer, --direction and --nonlinearity say what to take of --weights, which is not given"
            )
        if not mixes and (self.mixing is not None or self.gain != 1.0):
            raise ValueError(f"--cell {self.cell} has no mixings; leave out --mixing and --gain")
        if self.heads is not None and self.mixing != "heads":
            raise ValueError(f"--heads is {self.heads}, which belongs to --mixing heads")
        heads = 4 if self.heads is None else self.heads
        if self.mixing == "heads" and (heads < 1 or self.units % heads):
            raise ValueError(f"--heads is {heads}; wanted a divisor of --units {self.units}")


@dataclass(frozen=True)
class Panel:
    """One recurrence of the comparison."""

    title: str
    recurrence: Recurrence
    tolerance: Tolerance


class Built(NamedTuple):
    """What is compared on: its name, steps (or nodes) and sequences, and the recurrences."""

    name: str
    steps: str
    sequences: int
    panels: list[Panel]


def system_config(config: CompareConfig) -> Any:
    """Return the config of a published system, with the settings that are asked for."""
    return configured(systems.get(str(config.system)).config, settings=config.settings)


def panels(config: CompareConfig) -> Built:
    """Build the recurrences to compare on: those of a system, or of cells on a recording, which is loaded."""
    if config.system is not None:
        system = systems.get(config.system)
        rec = system.build(**vars(system_config(config)))
        sequences = int(np.prod(rec.batch))
        panel = Panel(f"{config.system}, {system.structure}", rec, tolerance_for(rec, config.tol))
        return Built(system.title, extent(rec), sequences, [panel])
    recording = load_recording(
        config.input, length=config.length, batch=config.batch, dtype=config.dtype, standardise=config.standardise
    )
    found = []
    for title, cell, x in _weighted(config, recording.data):
        rec = cell.recurrence(x)
        found.append(Panel(title, rec, tolerance_for(rec, config.tol)))
    return Built(recording.name, extent(found[0].recurrence), config.batch, found)


def extent(rec: Recurrence) -> str:
    """Return how many steps a recurrence has, or how many nodes."""
    return f"{rec.length} steps" if rec.graph is None else f"{' x '.join(map(str, rec.graph.shape))} nodes"


def _weighted(config: CompareConfig, data: Array) -> Iterator[tuple[str, WeightedCell, Array]]:
    """Yield the title, the cell and its input, (T, B, channels), of every panel."""
    if config.weights is not None:
        yield network(config, data)
        return
    cell_type = cells.get(config.cell)
    if config.mixing is not None:
        mixings = [config.mixing]
    else:
        mixings = ["dense", "diagonal"] if cell_type.mixings else ["diagonal"]
    for mixing in mixings:
        cell = cell_type.random(
            input_size=data.shape[-1],
            hidden_size=config.units,
            mixing=mixing,
            heads=config.heads,
            gain=config.gain,
            rng=config.seed,
            dtype=np.dtype(config.dtype),
        )
        kind = f", {mixing} mixing" if cell_type.mixings else ""
        yield f"{config.cell}{kind}, {config.units} units", cell, data


@dataclass
class Comparison:
    """The entries computed so far; it can be stored at any time."""

    config: CompareConfig
    recording: str
    steps: str
    sequences: int
    dtype: str
    tolerances: dict[str, Tolerance]
    entries: dict[str, list[Entry]]
    complete: bool = False
    compile_seconds: float = 0.0  # what compilers took, which is in no time of an entry

    @property
    def seed(self) -> int:
        """The seed of weights and, of a system, of what drives it."""
        return self.config.seed if self.config.system is None else int(system_config(self.config).seed)

    def record(self) -> dict[str, Any]:
        """Return the stored form: plain JSON values."""
        kind = self.steps + (f", {self.sequences} sequences" if self.sequences > 1 else "")
        partial = "" if self.complete else " (partial: interrupted)"
        record = {
            "format": FORMAT,
            "title": f"{self.recording}: {kind}, {self.dtype}{partial}",
            "complete": self.complete,
            "compile_seconds": self.compile_seconds,
            "config": {**asdict(self.config), "solvers": [label(solver) for solver in self.config.solvers]},
            "provenance": provenance(),
            "panels": [
                {
                    "title": title,
                    "tolerance": self.tolerances[title].atol,
                    "test": str(self.tolerances[title]),
                    "entries": [asdict(entry) for entry in entries],
                }
                for title, entries in self.entries.items()
            ],
        }
        return finite_or_text(record)  # type: ignore[no-any-return]

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat row per panel and solver."""
        rows = [{"panel": title, **entry.row()} for title, entries in self.entries.items() for entry in entries]
        return finite_or_text(rows)  # type: ignore[no-any-return]

    def save(self, folder: Path) -> list[Path]:
        """Write the numbers, then the figure, and return the paths; what is incomplete replaces nothing complete."""
        folder.mkdir(parents=True, exist_ok=True)
        record, stem = self.record(), "compare" if self.complete else "compare-partial"
        written = [write_json(folder / f"{stem}.json", record)]
        return written + convergence_figure(record, folder, stem)


def compare(config: CompareConfig, tick: Callable[[str, str, int], None] | None = None) -> Iterator[Comparison]:
    """Run a comparison, yielding it after every solver.

    Parameters
    ----------
    config : CompareConfig
    tick : callable, optional
        ``tick(panel, solver, iteration)`` after every iterate.

    Yields
    ------
    Comparison
        The same object each time, with one more entry; the last one is ``complete``.
    """
    watch = Stopwatch()
    name, steps, sequences, built = panels(config)
    tolerances = {panel.title: panel.tolerance for panel in built}
    entries_by_title: dict[str, list[Entry]] = {panel.title: [] for panel in built}
    dtype = str(built[0].recurrence.dtype)
    result = Comparison(config, name, steps, sequences, dtype, tolerances, entries_by_title)
    for number, panel in enumerate(built):

        def report(solver: str, iteration: int, title: str = panel.title) -> None:
            if tick is not None:
                tick(title, solver, iteration)

        last = number == len(built) - 1
        entries = race(panel.recurrence, config.solvers, tol=config.tol, maxiter=config.maxiter, tick=report)
        for entry in entries:
            result.entries[panel.title].append(entry)
            result.compile_seconds = watch.compile_seconds
            result.complete = last and len(result.entries[panel.title]) == len(config.solvers)
            yield result
