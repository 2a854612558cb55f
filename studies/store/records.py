"""Records: one JSON file a run, named by the hash of what was run, whole or not there."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from recsolve.studies.store.files import finite_or_text, write_json

FORMAT = "recsolve-record/1"
Point = Mapping[str, Any]
Row = dict[str, Any]
_log = logging.getLogger("recsolve.studies")


@dataclass(frozen=True)
class Record:
    """The outcome of one run.

    Attributes
    ----------
    study : str
    version : int
        Of the study: numbers of another version mean something else.
    point : mapping
        The arguments of the run, plain JSON values: the run is a function of them alone.
    status : {"done", "failed"}
    error : str
        The exception of a failed run, else empty.
    rows : list of dict
        The numbers that the run measured; coordinates that the point does not give are among the values.
    seconds : float
        Wall time.
    provenance : dict
        Versions, machine, backend, commit and time.
    """

    study: str
    version: int
    point: Point
    status: str
    error: str
    rows: list[Row]
    seconds: float
    provenance: dict[str, Any]

    @property
    def key(self) -> str:
        return key(self.study, self.version, self.point)


def key(study: str, version: int, point: Point) -> str:
    """Return the name of a run: a hash of the study, its version and the point.

    Examples
    --------
    >>> key("demo", 1, {"T": 8, "seed": 0}) == key("demo", 1, {"seed": 0, "T": 8})
    True
    """
    canonical = json.dumps([study, version, dict(point)], sort_keys=True, allow_nan=False, separators=(",", ":"))
    return sha256(canonical.encode()).hexdigest()[:20]


def product(**axes: Any) -> Iterator[Point]:
    """Yield the points of a grid, the last axis fastest: tuples and ranges are axes, all else is the same everywhere.

    Examples
    --------
    >>> [*product(T=(8, 16), seed=range(2), solvers=["newton"])][2]
    {'T': 16, 'seed': 0, 'solvers': ['newton']}
    """
    values = (x if isinstance(x, (tuple, range)) else (x,) for x in axes.values())
    return (dict(zip(axes, point, strict=True)) for point in itertools.product(*values))


class Records:
    """The records of one study, a file each.

    Parameters
    ----------
    folder : Path
        Made when the first record is stored.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def save(self, record: Record) -> Path:
        """Store a record in one step; one of the same run is replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return write_json(self.path(record.key), finite_or_text({"format": FORMAT, **asdict(record)}))

    def load(self, name: str) -> Record | None:
        """Return a stored record, or None. A file that is no record is reported and set aside as ``*.corrupt``."""
        path = self.path(name)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            record = Record(**content)
            if record.key != name:
                raise ValueError(f"it holds the run {record.key}")
            return record
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            aside = path.with_suffix(".json.corrupt")
            path.replace(aside)
            _log.warning("record %s cannot be read (%s); set aside as %s, will be run again", path, error, aside.name)
            return None

    def files(self) -> list[Path]:
        """Return the records, those set aside and those half written."""
        return [path for pattern in ("*.json", "*.json.corrupt", ".*.part") for path in self.folder.glob(pattern)]
