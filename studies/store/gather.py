"""Records gathered into an xarray Dataset, which plots read, and its NetCDF file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.store.files import replace_into_place
from recsolve.studies.store.records import Record, Row

if TYPE_CHECKING:
    from xarray import Dataset

FAILED = "failed"  # the status of rows whose run raised


def tidy(records: Iterable[Record], dims: tuple[str, ...]) -> list[Row]:
    """Return the rows of records with the coordinates of their points; a failed run gives one row without numbers."""
    rows = []
    for record in records:
        found = record.rows if record.status == "done" else [{"status": FAILED, "error_message": record.error}]
        at = {name: value for name, value in record.point.items() if name in dims}
        rows += [{**at, **row} for row in found]
    return rows


def gather(
    records: Iterable[Record], dims: tuple[str, ...], curves: Mapping[str, tuple[str, ...]], **attributes: Any
) -> Dataset:
    """Return tidy rows as a Dataset.

    Parameters
    ----------
    records : iterable of Record
    dims : tuple of str
        The coordinates. Texts are kept in order of appearance, numbers sorted.
    curves : mapping
        Axes of variables that are lists; shorter ones are filled up with NaN.
    **attributes
        Stored as JSON texts, among ``attrs``.

    Returns
    -------
    Dataset
        Numbers are float64, NaN where there was no run; texts are empty there. A failed run has the status "failed" at
        its point (everywhere, along coordinates that only rows have) and NaN as its numbers.
    """
    from xarray import Dataset

    rows = tidy(records, dims)
    coordinates = {dim: _values(row[dim] for row in rows if dim in row) for dim in dims}
    place = {dim: {value: i for i, value in enumerate(values)} for dim, values in coordinates.items()}
    names = dict.fromkeys(name for row in rows for name in row if name not in dims)
    shape = tuple(len(values) for values in coordinates.values())
    variables: dict[str, tuple[tuple[str, ...], Array]] = {}
    for name in names:
        measured = [(row[name], _index(row, place)) for row in rows if name in row]
        extra = curves.get(name, ())
        variables[name] = (dims + extra, _filled(measured, shape, len(extra)))
    _align(variables, len(dims))
    texts = {name: json.dumps(value) for name, value in attributes.items()}
    return Dataset(variables, coords=coordinates, attrs=texts)


def _values(found: Iterable[Any]) -> list[Any]:
    values = list(dict.fromkeys(found))
    return values if any(isinstance(value, str) for value in values) else sorted(values)


def _index(row: Row, place: dict[str, dict[Any, int]]) -> tuple[Any, ...]:
    """Return where a row belongs; one that lacks a coordinate belongs everywhere along it."""
    return tuple(places[row[dim]] if dim in row else slice(None) for dim, places in place.items())


def _filled(measured: list[tuple[Any, tuple[Any, ...]]], shape: tuple[int, ...], extra: int) -> Array:
    """Return one variable over all coordinates."""
    if all(isinstance(value, str) for value, _ in measured) and not extra and not all(map(_number, measured)):
        texts = np.full(shape, "", dtype=object)
        for value, index in measured:
            texts[index] = value
        return texts
    arrays = [(np.asarray(value, dtype=np.float64), index) for value, index in measured]
    sizes = tuple(np.max([array.shape for array, _ in arrays], axis=0)) if extra else ()
    numbers = np.full((*shape, *sizes), np.nan)
    for array, index in arrays:
        numbers[(*index, *(slice(n) for n in array.shape))] = array
    return numbers


def _number(item: tuple[Any, Any]) -> bool:
    """Return whether a text is a number that JSON has no sign for."""
    return item[0] in ("nan", "inf", "-inf")


def _align(variables: dict[str, tuple[tuple[str, ...], Array]], leading: int) -> None:
    """Fill variables that share an axis of curves up to one length."""
    longest: dict[str, int] = {}
    for dims, array in variables.values():
        for dim, size in zip(dims[leading:], array.shape[leading:], strict=True):
            longest[dim] = max(longest.get(dim, 0), size)
    for name, (dims, array) in variables.items():
        pad = [(0, 0)] * leading + [
            (0, longest[dim] - size) for dim, size in zip(dims[leading:], array.shape[leading:], strict=True)
        ]
        if any(after for _, after in pad):
            variables[name] = (dims, np.pad(array, pad, constant_values=np.nan))


def write(data: Dataset, path: Path) -> Path:
    """Write a Dataset as NetCDF 4, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_into_place(path) as part:
        packed = {name: {"zlib": True} for name, values in data.data_vars.items() if values.dtype.kind == "f"}
        data.to_netcdf(part, engine="h5netcdf", encoding=packed)  # curves are mostly NaN
    return path


def read(path: Path) -> Dataset:
    """Read a Dataset whole.

    Raises
    ------
    ValueError
        When the file cannot be read.
    """
    from xarray import load_dataset

    try:
        data: Dataset = load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); run the study again, its records are reused") from None
    return data
