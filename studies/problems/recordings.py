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


@dataclass(frozen=True)
class Recording:
    """A recording cut into sequences.

    Attributes
    ----------
    name : str
        What it is and how it was read, for titles.
    data : array, shape (T, B, channels)
        Numbers standardised per channel, or one-hot characters; a view of (B, T, channels) memory.
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


def load_recording(source: str, *, length: int | None, batch: int, dtype: Any) -> Recording:
    """Load a recording and cut ``batch`` consecutive sequences of ``length`` from its start.

    Parameters
    ----------
    source : str
        "membrane", "eeg", "english", or a file: .npy and .npz (N,) or (N, channels), .csv (one row a step, a header
        row allowed), .wav, .txt (numbers as numpy.savetxt writes them, else text, one-hot per character).
    length : int or None
        Steps per sequence; None takes 1024, or all there is if that is less.
    batch : int
        Number of sequences.
    dtype : dtype
        float32 or float64.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When a file cannot be read, is too short, or holds NaN or inf.
    """
    if source in BUILT_IN:
        name, read = BUILT_IN[source]
        content = read()
    else:
        path = Path(source)
        name, content = path.name, _read(path)
    if len(content) == 0:
        raise ValueError(f"--input {source} is empty; wanted at least one step")
    available = len(content) // batch
    steps = min(1024, available) if length is None else length
    if steps < 1 or steps > available:
        raise ValueError(
            f"--input {source} has {len(content)} steps; wanted {max(steps, 1) * batch} for "
            f"--length {max(steps, 1)} x --batch {batch}"
        )
    used = content[: steps * batch]
    numbers = _one_hot(used) if isinstance(used, str) else _standardise(used, source)
    cut = numbers.reshape(batch, steps, -1).astype(dtype)
    channels = f"{cut.shape[-1]} {'characters' if isinstance(used, str) else 'channel'}"
    plural = "s" * (cut.shape[-1] > 1 and not isinstance(used, str))
    return Recording(f"{name} ({channels}{plural})", cut.swapaxes(0, 1))


def _read(path: Path) -> Array | str:
    if not path.is_file():
        raise FileNotFoundError(
            f"--input {path} is no file; wanted a file ending in {', '.join(READERS)}, or one of {', '.join(BUILT_IN)}"
        )
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"--input {path} ends in {path.suffix!r}; wanted one of {', '.join(READERS)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a truncated file is an error, not a note
            content = reader(path)
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, Warning) as error:
        raise ValueError(f"--input {path} is not a readable {path.suffix} file: {error}") from error
    if not isinstance(content, str) and (content.ndim not in (1, 2) or content.dtype.kind not in "fiub"):
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


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _read_csv(path: Path) -> Array:
    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if lines and ";" in lines[0] and "," not in lines[0]:
        raise ValueError("its columns are separated by semicolons; wanted commas")
    header = bool(lines) and not any(_is_number(cell) for cell in lines[0].split(","))
    return _rows([line.split(",") for line in lines[header:]])


def _rows(rows: list[list[str]]) -> Array:
    """Return numbers from words, naming the first row that does not fit."""
    for index, row in enumerate(rows):
        if len(row) != len(rows[0]) or not all(map(_is_number, row)):
            raise ValueError(f"row {index} is {','.join(row)[:60]!r}; wanted {len(rows[0])} numbers")
    return np.array(rows, dtype=np.float64)


def _read_wav(path: Path) -> Array:
    from scipy.io import wavfile

    _, samples = wavfile.read(path)
    return np.asarray(samples)


def _read_txt(path: Path) -> Array | str:
    """Return numbers if the file is nearly all numbers, else its text."""
    text = path.read_text(encoding="utf-8-sig")
    rows = [line.replace(",", " ").split() for line in text.splitlines() if line.strip() and line[0] != "#"]
    words = [word for row in rows for word in row]
    if words and sum(map(_is_number, words)) >= 0.9 * len(words):
        return _rows(rows)
    return text


READERS: dict[str, Callable[[Path], Array | str]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".wav": _read_wav,
    ".txt": _read_txt,
}


def _one_hot(text: str) -> Array:
    codes = np.array([ord(character) for character in text])
    return (codes[:, None] == np.unique(codes)).astype(np.float64)  # type: ignore[no-any-return]


def _standardise(numbers: Array, source: str) -> Array:
    """Return every channel with mean 0 and deviation 1; a constant channel becomes 0."""
    columns = numbers.reshape(len(numbers), -1).astype(np.float64)
    bad = np.argwhere(~np.isfinite(columns))
    if len(bad):
        row, channel = (int(i) for i in bad[0])
        raise ValueError(
            f"--input {source} is {columns[row, channel]} at row {row}, channel {channel} ({len(bad)} such values); "
            "wanted finite numbers"
        )
    size = abs(columns).max(axis=0)
    scaled = columns / np.where(size > 0, size, 1.0)  # so that no square overflows
    centred = scaled - scaled.mean(axis=0)
    spread = centred.std(axis=0)
    constant = spread <= 1e-12
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, spread))
