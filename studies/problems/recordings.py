"""Real recordings to drive a recurrence: three that come with matplotlib and Python, and the user's own files."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.problems.csv_files import Table, is_number, read_table, table_of, text_of
from recsolve.studies.problems.wav_files import read_wav


@dataclass(frozen=True)
class Recording:
    """A recording cut into sequences.

    Attributes
    ----------
    name : str
        What it is and how it was read, for titles.
    data : array, shape (T, B, channels)
        Numbers, or one-hot characters; a view of (B, T, channels) memory.
    """

    name: str
    data: Array


def _sample(name: str) -> Path:
    from matplotlib import cbook

    return Path(str(cbook.get_sample_data(name, asfileobj=False)))


def _membrane() -> Array:
    return np.fromfile(_sample("membrane.dat"), np.float32).astype(np.float64)


def _eeg() -> Array:
    return np.fromfile(_sample("eeg.dat"), np.float64).reshape(-1, 4)


def _english() -> str:
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


BUILT_IN: dict[str, tuple[str, Callable[[], Array | str]]] = {
    "membrane": ("membrane potential of a neuron", _membrane),
    "eeg": ("EEG", _eeg),
    "english": ("English text of the Python documentation", _english),
}


def load_recording(source: str, *, length: int | None, batch: int, dtype: Any, standardise: bool = False) -> Recording:
    """Load a recording and cut ``batch`` consecutive sequences of ``length`` from its start.

    Parameters
    ----------
    source : str
        "membrane", "eeg", "english", or a file: .npy and .npz (N,) or (N, channels), .csv (one row a step: see
        :func:`recsolve.studies.problems.csv_files.read_table`), .wav (integers as fractions of full scale), .txt (a
        table of numbers, else text, one-hot per character).
    length : int or None
        Steps per sequence; None takes 1024, or all there is if that is less.
    batch : int
        Number of sequences.
    dtype : dtype
        float32 or float64.
    standardise : bool
        Whether channels of a file get mean 0 and deviation 1. Those that come with the package always do.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When a file cannot be read, is too short, or holds NaN or inf; and for text that is to be standardised.
    """
    content: Array | Table | str
    if source in BUILT_IN:
        name, read = BUILT_IN[source]
        content, standardise = read(), standardise or source != "english"
    else:
        path = Path(source)
        name, content = path.name, _read(path)
    table = content if isinstance(content, Table) else None
    used = _cut(content if table is None else table.numbers, source, length, batch)
    if isinstance(used, str):
        if standardise:
            raise ValueError(f"--standardise is for numbers, and --input {source} is text")
        columns, unit = _one_hot(used), "characters, one-hot"
    else:
        columns = used.reshape(len(used), -1).astype(np.float64)
        _refuse_nonfinite(columns, np.float64 if standardise else dtype, source, table)
        unit = f"channel{'s' * (columns.shape[1] != 1)}, {'standardised' if standardise else 'raw'}"
        columns = _standardised(columns) if standardise else columns
    note = f", {table.note}" if table and table.note else ""
    data = columns.reshape(batch, -1, columns.shape[1]).astype(dtype).swapaxes(0, 1)
    return Recording(f"{name} ({data.shape[-1]} {unit}{note})", data)


def _cut(content: Any, source: str, length: int | None, batch: int) -> Any:
    """Return the steps that are used."""
    if len(content) == 0:
        raise ValueError(f"--input {source} is empty; wanted at least one step")
    available = len(content) // batch
    steps = min(1024, available) if length is None else length
    if steps < 1 or steps > available:
        raise ValueError(
            f"--input {source} has {len(content)} steps; wanted {max(steps, 1) * batch} for "
            f"--length {max(steps, 1)} x --batch {batch}"
        )
    return content[: steps * batch]


def _read(path: Path) -> Array | Table | str:
    if not path.is_file():
        raise FileNotFoundError(
            f"--input {path} is no file; wanted a file ending in {', '.join(READERS)}, or one of {', '.join(BUILT_IN)}"
        )
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        tensor = path.suffix.lower() in (".pt", ".pth")
        convert = f": numpy.save({path.stem + '.npy'!r}, torch.load({path.name!r}).numpy()) converts a tensor" * tensor
        raise ValueError(f"--input {path} ends in {path.suffix!r}; wanted one of {', '.join(READERS)}{convert}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a truncated file is an error, not a note
            content = reader(path)
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, Warning) as error:
        raise ValueError(f"--input {path} is not a readable {path.suffix} file: {error}") from error
    if isinstance(content, np.ndarray) and (content.ndim not in (1, 2) or content.dtype.kind not in "fiub"):
        raise ValueError(
            f"--input {path} has shape {content.shape} of {content.dtype}; wanted (N,) or (N, channels) numbers"
        )
    return content


def _read_npy(path: Path) -> Array:
    return np.asarray(np.load(path, allow_pickle=False))


def _read_npz(path: Path) -> Array:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive of arrays (numpy.savez makes one)")
    with np.load(path, allow_pickle=False) as archive:
        if len(archive.files) != 1:
            raise ValueError(f"it holds {archive.files}; wanted exactly one array")
        return np.asarray(archive[archive.files[0]])


def _read_txt(path: Path) -> Table | str:
    """Return numbers if the file is nearly all numbers, else its text."""
    text = text_of(path)
    rows = [
        line.replace(",", " ").replace(";", " ").split() for line in text.splitlines() if line[:1] not in ("#", "%")
    ]
    words = [word for row in rows for word in row]
    if words and sum(map(is_number, words)) >= 0.9 * len(words):
        return table_of(text)
    return text


READERS: dict[str, Callable[[Path], Array | Table | str]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": read_table,
    ".wav": read_wav,
    ".txt": _read_txt,
}


def _one_hot(text: str) -> Array:
    codes = np.array([ord(character) for character in text])
    return (codes[:, None] == np.unique(codes)).astype(np.float64)  # type: ignore[no-any-return]


def _refuse_nonfinite(columns: Array, dtype: Any, source: str, table: Table | None) -> None:
    """Say where the first number is that is NaN or inf, or becomes inf in the dtype of the solves."""
    with np.errstate(over="ignore"):
        bad = np.argwhere(~np.isfinite(columns.astype(dtype)))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        place = f"line {table.lines[row]}, column {column + 1}" if table else f"row {row}, channel {column}"
        raise ValueError(
            f"--input {source} is {columns[row, column]} at {place} ({len(bad)} such values); wanted finite numbers"
            f"{f' of {np.dtype(dtype)}' if np.isfinite(columns[row, column]) else ''}"
        )


def _standardised(columns: Array) -> Array:
    """Return every channel with mean 0 and deviation 1; a constant channel becomes 0."""
    size = abs(columns).max(axis=0)
    scaled = columns / np.where(size > 0, size, 1.0)  # so that no square overflows
    centred = scaled - scaled.mean(axis=0)
    spread = centred.std(axis=0)
    constant = spread <= 1e-12
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, spread))
