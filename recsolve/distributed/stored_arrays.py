"""Arrays on disk that are read and written a window of time at a time, never as a whole."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.base.arrays import Array, kind_of

_PLACES, _ROWS, _NUMBERS = 16, 64, 1 << 16  # of a digest: where it looks, and at how much there


@dataclass(frozen=True)
class NpyFile:
    """A .npy file as an array that takes slices along time; each opens it, reads or writes those rows, and closes it.

    Unlike pages of a mapped file, rows that have been read do not count as memory of the process, and a disk that is
    full or fails raises OSError where a mapped page ends the process.

    Attributes
    ----------
    path : Path
    shape : tuple of int
    stored : dtype
        As in the file, perhaps of another byte order than ``dtype``.
    offset : int
        Where the numbers begin.
    """

    path: Path
    shape: tuple[int, ...]
    stored: np.dtype[Any]
    offset: int

    @classmethod
    def opened(cls, path: Any, name: str) -> Any:
        """Return the array in a file; OSError and ValueError say what is wrong with the argument ``name``."""
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise type(error)(error.errno, f"{name} cannot be read: {error.strerror or error}", str(path)) from error
        except (ValueError, EOFError) as error:
            raise ValueError(f"{name} is {path}, which is no whole .npy file of numbers: {error}") from error
        if not isinstance(found, np.memmap):
            raise ValueError(f"{name} is {path}; wanted a .npy file, of one array")
        if not found.flags.c_contiguous:
            return found  # its columns lie together, so that rows are read from all over the file
        return cls(Path(path).absolute(), found.shape, found.dtype, found.offset)

    @classmethod
    def made(cls, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NpyFile:
        """Make a file with room for all rows, so that a disk without it is found out now.

        Raises
        ------
        OSError
            Where there is not so much room; the file is gone then.
        """
        try:
            with open(path, "wb") as file:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                found = cls(path.absolute(), shape, dtype, file.tell())
                file.flush()
                if found.nbytes:
                    _reserve(file.fileno(), found.offset + found.nbytes)
                os.fsync(file.fileno())
        except OSError as error:
            path.unlink(missing_ok=True)
            free = shutil.disk_usage(path.absolute().parent).free / 1e9
            size = prod(shape) * dtype.itemsize / 1e9
            text = f"out takes {size:.3g} GB, of which {free:.3g} are free: {error.strerror or error}"
            raise type(error)(error.errno, text, str(path)) from error
        return found

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.newbyteorder("=")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.stored.itemsize

    def _at(self, steps: slice) -> tuple[int, int]:
        """Return how many numbers some rows have, and where in the file they begin."""
        row = prod(self.shape[1:])
        start, stop, _ = steps.indices(self.shape[0])
        return (stop - start) * row, self.offset + start * row * self.stored.itemsize

    def __getitem__(self, steps: slice) -> Array:
        count, at = self._at(steps)
        with open(self.path, "rb") as file:
            file.seek(at)
            rows = np.fromfile(file, self.stored, count)
        if rows.size < count:
            raise OSError(f"{self.path} ends within steps {steps.start} to {steps.stop - 1}; it was longer before")
        return rows.reshape((steps.stop - steps.start, *self.shape[1:])).astype(self.dtype, copy=False)

    def __setitem__(self, steps: slice, rows: Array) -> None:
        """Write rows, which are on the disk when this returns."""
        _, at = self._at(steps)
        left = np.ascontiguousarray(rows, self.stored).reshape(-1).view(np.uint8)
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(at)
            while left.size:
                left = left[file.write(left.data) or 0 :]
            os.fsync(file.fileno())


def _reserve(file: int, size: int) -> None:
    """Reserve room on the disk where system and file system can, else set the size alone."""
    try:
        os.posix_fallocate(file, 0, size)
    except AttributeError:
        os.ftruncate(file, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        os.ftruncate(file, size)


def opened(x: Any, name: str) -> Any:
    """Return what reads like an array along time, of a path or an array on disk; x itself if it does already.

    Raises
    ------
    TypeError, ValueError, OSError
        For anything else; the message has ``name``.
    """
    if isinstance(x, (str, os.PathLike)):
        x = NpyFile.opened(x, name)
    known = all(hasattr(x, part) for part in ("shape", "dtype", "__getitem__"))
    if not known or isinstance(x, np.generic) or kind_of(x) != "numpy":
        raise TypeError(
            f"{name} is {type(x).__name__}; wanted the path of a .npy file, or an array on disk with shape, dtype and "
            "slices along time: np.memmap, h5py.Dataset, zarr.Array, xarray.DataArray; rs.solve and rs.scan take others"
        )
    if not len(x.shape):
        raise ValueError(f"{name} has shape (); wanted time as its first axis")
    if np.dtype(x.dtype).hasobject:
        raise TypeError(f"{name} has dtype {x.dtype}; wanted numbers")
    return x


def rows_of(x: Any, steps: slice, name: str) -> Array:
    """Return some rows as an array in memory of their own.

    Raises
    ------
    OSError
        Where they cannot be read; the message has ``name`` and the steps.
    """
    try:
        rows = x[steps]
        rows = np.array(rows) if isinstance(rows, np.memmap) else np.asarray(rows)
    except OSError as error:
        error.add_note(f"while steps {steps.start} to {steps.stop - 1} of {name} were read")
        raise
    wanted = (steps.stop - steps.start, *x.shape[1:])
    if rows.shape != wanted:
        raise ValueError(f"{name}[{steps.start}:{steps.stop}] has shape {rows.shape}; wanted {wanted}")
    return rows


def sample_of(x: Any, name: str, every: int) -> Array:
    """Return every so-many-th row, which are few, each read alone."""
    rows = [rows_of(x, slice(t, t + 1), name) for t in range(0, x.shape[0], every)]
    return np.concatenate(rows) if rows else rows_of(x, slice(0, 0), name)


def digest_of(x: Any, name: str) -> str:
    """Return a digest of the shape and dtype of an array and of numbers at 16 places, the first and last included."""
    T, width = x.shape[0], max(prod(x.shape[1:]), 1)
    rows = min(max(_NUMBERS // width, 1), _ROWS, T)
    starts = sorted({int(at) for at in np.linspace(0, T - rows, _PLACES)}) if rows else []
    return digest(*(rows_of(x, slice(at, at + rows), name) for at in starts))


def sizes_of(x: Array) -> list[float]:
    """Return the mean size of every row of an array of any dtype."""
    with np.errstate(all="ignore"):
        sizes = np.abs(x.astype(complex if x.dtype.kind == "c" else float))
        return [float(row.mean()) if row.size else 0.0 for row in sizes]


def digest(*arrays: Array) -> str:
    """Return a digest of arrays: their shapes, dtypes and numbers."""
    found = sha256()
    for x in arrays:
        found.update(f"{x.shape} {x.dtype.str}".encode())
        found.update(np.ascontiguousarray(x).tobytes())
    return f"sha256 {found.hexdigest()[:32]}"


def _same_file(one: Any, other: Any) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


@dataclass(frozen=True)
class Target:
    """Where rows are written: a .npy file, made or found again, or an array on disk of the user's.

    Attributes
    ----------
    out : path or array
        As the user gave it.
    shape : tuple of int
    dtype : dtype
    """

    out: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return str(self.out) if self.is_path else type(self.out).__name__

    @property
    def is_path(self) -> bool:
        """Whether the file is made here."""
        return isinstance(self.out, (str, os.PathLike))

    def check(self, inputs: list[Any]) -> None:
        """Raise TypeError or ValueError for an ``out`` that cannot take the rows."""
        if self.is_path:
            if Path(self.out).suffix != ".npy":
                raise ValueError(f"out is {self.out}; wanted a name that ends in .npy, or an array on disk")
            if not Path(self.out).absolute().parent.is_dir():
                raise FileNotFoundError(f"no folder {Path(self.out).absolute().parent} for out, {Path(self.out).name}")
            for x in inputs:
                file = getattr(x, "path", getattr(x, "filename", None))  # of a .npy file, or a mapped one
                if isinstance(file, (str, os.PathLike)) and _same_file(file, self.out):
                    raise ValueError(f"out is {self.out}, which is an input; wanted another file")
            return
        opened(self.out, "out")
        if type(self.out).__module__.partition(".")[0] == "xarray" or not hasattr(self.out, "__setitem__"):
            raise TypeError(
                f"out is {type(self.out).__name__}, which is not written through to a disk; wanted the array that lies "
                "there, as h5py or zarr opens it, or the path of a .npy file"
            )
        if tuple(self.out.shape) != self.shape or np.dtype(self.out.dtype) != self.dtype:
            raise ValueError(
                f"out has shape {tuple(self.out.shape)} and dtype {self.out.dtype}; wanted {self.shape} and "
                f"{self.dtype}"
            )

    def ready(self, again: bool) -> Any:
        """Return what takes rows: a new file, or where rows are kept ``again`` the one that has some of them."""
        if not self.is_path:
            return self.out
        if not again:
            return NpyFile.made(Path(self.out), self.shape, self.dtype)
        found = NpyFile.opened(self.out, "out")
        if found.shape != self.shape or found.dtype != self.dtype:
            raise ValueError(
                f"out is {self.out} of shape {found.shape} and {found.dtype}; the run that goes on wrote {self.shape} "
                f"and {self.dtype}; pass resume=False to begin again, or another out"
            )
        return found

    def array(self) -> Any:
        """Return what was written as an array: a file mapped into memory, read-only."""
        return np.load(self.out, mmap_mode="r") if self.is_path else self.out


def flush(target: Any) -> None:
    """Have what was assigned on the disk, as far as the library of the array lets us."""
    if callable(found := getattr(target, "flush", None)):  # of a NpyFile it is there already
        found()
