"""Real recordings to drive a recurrence: three that come with matplotlib and Python, and the user's own files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.arrays import Array


@dataclass(frozen=True)
class Recording:
    """A recording cut into sequences.

    Attributes
    ----------
    name : str
        What it is, for titles.
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
    "eeg": ("EEG, 4 channels", _eeg),
    "english": ("English text of the Python documentation", _english),
}
SUFFIXES = (".npy", ".npz", ".csv", ".wav", ".txt")


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
    available = len(content) // batch
    steps = min(1024, available) if length is None else length
    if steps < 1 or steps > available:
        raise ValueError(
            f"input {source} has {len(content)} steps; wanted {max(steps, 1) * batch} for "
            f"--length {steps} x --batch {batch}"
        )
    used = content[: steps * batch]
    numbers = _one_hot(used) if isinstance(used, str) else _standardise(used, source)
    cut = numbers.reshape(batch, steps, -1).astype(dtype)
    return Recording(name, cut.swapaxes(0, 1))


def _read(path: Path) -> Array | str:
    if not path.is_file():
        raise FileNotFoundError(
            f"no input file {path}; wanted a file ending in {', '.join(SUFFIXES)}, or one of {', '.join(BUILT_IN)}"
        )
    readers = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv, ".wav": _read_wav, ".txt": _read_txt}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"input {path} ends in {path.suffix!r}; wanted one of {', '.join(SUFFIXES)}")
    try:
        content = reader(path)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"input {path} is not a readable {path.suffix} file: {error}") from error
    if not isinstance(content, str) and (content.ndim not in (1, 2) or content.dtype.kind not in "fiub"):
        raise ValueError(
            f"input {path} has shape {content.shape} of {content.dtype}; wanted (N,) or (N, channels) numbers"
        )
    return content


def _read_npy(path: Path) -> Array:
    return np.asarray(np.load(path, allow_pickle=False))


def _read_npz(path: Path) -> Array:
    with np.load(path, allow_pickle=False) as archive:
        if len(archive.files) != 1:
            raise ValueError(f"it holds {archive.files}; wanted exactly one array")
        return np.asarray(archive[archive.files[0]])


def _read_csv(path: Path) -> Array:
    with path.open() as file:
        first = file.readline().strip().split(",")
    try:
        [float(cell) for cell in first]
    except ValueError:
        return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    return np.loadtxt(path, delimiter=",", ndmin=2)


def _read_wav(path: Path) -> Array:
    from scipy.io import wavfile

    _, samples = wavfile.read(path)
    return np.asarray(samples)


def _read_txt(path: Path) -> Array | str:
    text = path.read_text(encoding="utf-8")
    try:
        return np.array([[float(word) for word in line.split()] for line in text.splitlines() if line.strip()])
    except ValueError:
        return text


def _one_hot(text: str) -> Array:
    codes = np.array([ord(character) for character in text])
    return (codes[:, None] == np.unique(codes)).astype(np.float64)  # type: ignore[no-any-return]


def _standardise(numbers: Array, source: str) -> Array:
    columns = numbers.reshape(len(numbers), -1).astype(np.float64)
    bad = np.argwhere(~np.isfinite(columns))
    if len(bad):
        row, channel = (int(i) for i in bad[0])
        raise ValueError(
            f"input {source} is {columns[row, channel]} at row {row}, channel {channel} ({len(bad)} such values); "
            "wanted finite numbers"
        )
    spread = columns.std(axis=0)
    return (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0)  # type: ignore[no-any-return]
