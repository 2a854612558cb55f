"""Run the points of a study: side by side, resumable, every outcome a record."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsolve.studies.draw.drawing import FORMATS, save
from recsolve.studies.notices import told, with_notices
from recsolve.studies.registry import Study
from recsolve.studies.store import gather
from recsolve.studies.store.configs import to_toml
from recsolve.studies.store.files import finite_or_text, write_json
from recsolve.studies.store.provenance import provenance
from recsolve.studies.store.records import Point, Record, Records, Row, key

if TYPE_CHECKING:
    from xarray import Dataset

PATIENCE = 10.0  # seconds in which a scheduler must answer
Tick = Callable[["Sweep"], None]
_CAPTIONS = "captions.json"


@dataclass
class Sweep:
    """How far a sweep is.

    Attributes
    ----------
    study : Study
    config : dataclass instance
    points : list of mapping
    records : dict of Record
        Those that are there, by name.
    reused, failed : int
        How many were there before; how many (of all) hold an exception.
    """

    study: Study
    config: Any
    points: list[Point]
    records: dict[str, Record] = field(default_factory=dict)
    reused: int = 0

    @property
    def failed(self) -> int:
        return sum(record.status != "done" for record in self.records.values())

    @property
    def complete(self) -> bool:
        return len(self.records) == len(self.points)

    def dataset(self) -> Dataset:
        """Return the records that exist as a Dataset, in the order of the grid."""
        study = self.study
        names = [key(study.name, study.version, point) for point in self.points]
        found = [self.records[name] for name in names if name in self.records]
        return gather.gather(
            found,
            study.dims,
            study.curves,
            study=study.name,
            version=study.version,
            config=to_toml(self.config),
            runs=len(self.points),
            done=len(found) - self.failed,
            failed=self.failed,
            seconds=sum(record.seconds for record in found),
            provenance=_distinct([record.provenance for record in found]),
        )


class Place:
    """The folder of one study: its records, Dataset, captions and figures."""

    def __init__(self, root: Path, study: str):
        self.study = study
        self.folder = root / study
        self.records = Records(self.folder / "records")
        self.data = self.folder / "data.nc"

    def read(self) -> Dataset:
        """Read the Dataset.

        Raises
        ------
        FileNotFoundError
            When the study has not been run.
        ValueError
            When the file cannot be read.
        """
        if not self.data.is_file():
            raise FileNotFoundError(f"no results in {self.data}; run it first: recsolve study run {self.study}")
        return gather.read(self.data)

    def files_of(self, study: Study) -> list[str]:
        """Return the names of the files that are written when a study has run."""
        return [self.data.name, _CAPTIONS, *(f"{p.name}.{suffix}" for p in study.pictures for suffix in FORMATS)]

    def files(self) -> list[Path]:
        """Return all that is stored."""
        own = [*(f"*.{suffix}" for suffix in FORMATS), self.data.name, _CAPTIONS, ".*.part"]
        return [path for pattern in own for path in self.folder.glob(pattern)] + self.records.files()

    def clear(self) -> int:
        """Delete all that was stored, and return how many files these were."""
        files = self.files()
        for path in files:
            path.unlink()
        for folder in (self.records.folder, self.folder):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        return len(files)


def sweep(
    study: Study,
    config: Any,
    place: Place,
    *,
    workers: int = 2,
    cluster: str | None = None,
    retry: bool = False,
    tick: Tick = lambda sweep: None,
) -> Sweep:
    """Run what of a study's grid is not stored yet.

    Every record is stored as its run ends, so an interrupted sweep loses at most the runs under way; the Dataset is
    written at the end, and when the sweep is interrupted.

    Parameters
    ----------
    study : Study
    config : dataclass instance
    place : Place
    workers : int
        Processes (joblib's loky) that run points side by side; timed studies run one point at a time, here or there.
    cluster : str, optional
        Address of a Dask scheduler, ``tcp://host:port``, whose workers run the points instead.
    retry : bool
        Whether runs that failed before are run again.
    tick : callable
        ``tick(sweep)`` at the start and after every record.

    Returns
    -------
    Sweep

    Raises
    ------
    ValueError
        For fewer than one worker, or an empty grid.
    ImportError
        For a cluster without Dask; the message names the extra.
    OSError
        When records cannot be stored, or a worker process dies; records already stored stay.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; wanted 1 or more")
    points = {key(study.name, study.version, point): point for point in study.grid(config)}
    if not points:
        raise ValueError(f"the grid of {study.name} is empty; wanted a config with one point or more")
    state = Sweep(study, config, list(points.values()))
    for name in points:
        record = place.records.load(name)
        if record is not None and not (retry and record.status != "done"):
            state.records[name] = record
    state.reused = len(state.records)
    tick(state)
    missing = [point for name, point in points.items() if name not in state.records]
    try:
        for record in _run_all(study, missing, 1 if study.alone else workers, cluster):
            place.records.save(record)
            state.records[record.key] = record
            tick(state)
    finally:
        if state.records:
            gather.write(state.dataset(), place.data)
    return state


def _run_all(study: Study, points: list[Point], workers: int, cluster: str | None) -> Iterator[Record]:
    """Yield records as the runs end."""
    if not points:
        return
    if cluster is None and (workers == 1 or len(points) == 1):
        yield from (run_point(study.name, study.version, study.run, point) for point in points)
        return
    from joblib import Parallel, delayed

    with _backend(workers, cluster, len(points)) as arguments:
        # One point a task: a batch would be lost as a whole when the sweep is interrupted. In the order of the grid
        # nothing could be stored before the first point, which may be the longest, has ended.
        parallel = Parallel(batch_size=1, return_as="generator_unordered", **arguments)
        try:
            tasks = (delayed(with_notices)(run_point, study.name, study.version, study.run, point) for point in points)
            yield from told(parallel(tasks))
        except BrokenProcessPool as error:
            raise OSError(
                f"a worker process of {study.name} died, perhaps for want of memory: run it again with fewer --workers "
                "(what is stored is reused)"
            ) from error


@contextmanager
def _backend(workers: int, cluster: str | None, count: int) -> Iterator[dict[str, Any]]:
    """Yield the arguments of joblib.Parallel for local processes or a Dask cluster."""
    from joblib import parallel_config

    if cluster is None:
        yield {"backend": "loky", "n_jobs": min(workers, count)}
        return
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise ImportError("--cluster needs Dask: pip install 'recsolve[cluster]'") from error
    with ExitStack() as stack:
        try:
            client = stack.enter_context(Client(cluster, timeout=PATIENCE))
        except (OSError, ValueError) as error:
            raise OSError(f"--cluster {cluster}: no Dask scheduler answers there ({error})") from None
        client.wait_for_workers(1, timeout=60)
        stack.enter_context(parallel_config(backend="dask", wait_for_workers_timeout=60))
        yield {"n_jobs": 1 if workers == 1 else -1}


def run_point(study: str, version: int, run: Callable[..., list[Row]], point: Point) -> Record:
    """Run one point and return its record; an exception becomes a failed one."""
    began = time.perf_counter()
    rows: list[Row] = []
    status, error = "done", ""
    try:
        rows = finite_or_text(run(**point))
        json.dumps(rows)  # a value that cannot be stored fails here, and does not fail the sweep
    except Exception as raised:
        rows, last = [], traceback.extract_tb(raised.__traceback__)[-1]
        status, error = "failed", f"{type(raised).__name__}: {raised} ({Path(last.filename).name}:{last.lineno})"
    seconds = time.perf_counter() - began
    return Record(study, version, dict(point), status, error, rows, seconds, {**_where(), "time": _now()})


@cache
def _where() -> dict[str, Any]:
    """Return the provenance of numbers made in this process."""
    from recsolve.kernels.backends import VARIABLE
    from recsolve.kernels.cpu.threads import threads

    return {**provenance(), "backend": os.environ.get(VARIABLE, "auto"), "threads": threads()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _distinct(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the different provenances, times left out but for the first and last."""
    times = sorted(str(p.get("time")) for p in found)
    kinds: list[dict[str, Any]] = []
    for p in found:
        kind = {name: value for name, value in p.items() if name != "time"}
        if kind not in kinds:
            kinds.append(kind)
    return [{**kind, "from": times[0], "to": times[-1]} for kind in kinds]


def captions_of(study: Study, data: Dataset) -> dict[str, str]:
    """Return what each picture says of the stored Dataset; ValueError as in :func:`plot`."""
    with _enough(study, data):
        return {picture.name: picture.says(data) for picture in study.pictures}


@contextmanager
def _enough(study: Study, data: Dataset) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, ArithmeticError, TypeError) as error:
        state = f"{data.attrs['done']} of {data.attrs['runs']} runs are done, {data.attrs['failed']} failed"
        raise ValueError(f"{study.name} cannot be drawn: {state} ({type(error).__name__}: {error})") from error


def plot(study: Study, place: Place, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Draw the pictures of a study from its stored Dataset.

    Raises
    ------
    ValueError
        When what is stored is too little to say anything, as when all runs have failed.
    """
    data = place.read()
    captions = captions_of(study, data)
    with _enough(study, data):
        paths = [path for picture in study.pictures for path in save(picture, data, place.folder, formats)]
        found = study.facts(data)
    write_json(place.folder / _CAPTIONS, finite_or_text({"captions": captions, "facts": found}))
    return paths
