"""Structures and constants that kernels share with Python, read from the CUDA headers that describe them."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np

from recsolve.kernels.codegen.cuda_headers import headers

_TYPES: dict[str, Any] = {"long long": np.int64, "double": np.float64}
_CONSTANT = re.compile(r"^constexpr int (\w+) = (\d+);", re.MULTILINE)
_ENUM = re.compile(r"^enum \w* ?\{(.*)\};", re.MULTILINE)
_FIELD = r"(\w+)(?:\[(at_least_one<)?(?:\w+::)?(\w+)>?\])?"
_LINE = re.compile(rf"\s*(long long|double|View)\s+({_FIELD}(?:,\s*{_FIELD})*)")


@cache
def constants(header: str) -> dict[str, int]:
    """Return the integers that a header and those it includes name: literal ones, and enumerators.

    Examples
    --------
    >>> from recsolve.kernels.codegen.cuda_structures import constants
    >>> constants("common/view")
    {'AXES': 6, 'LANES': 32}
    """
    text = headers(header)
    found = {name: int(value) for name, value in _CONSTANT.findall(text)}
    for entries in _ENUM.findall(text):
        value = -1
        for entry in entries.split(","):
            name, _, given = entry.partition("=")
            found[name.strip()] = value = int(given) if given else value + 1
    return found


@cache
def structure(header: str, name: str, **counts: int) -> np.dtype[Any]:
    """Return a structure of a header, all of whose fields are 64 bits wide or views.

    Parameters
    ----------
    header, name : str
    **counts : int
        What the structure's template parameter is asked for: ``DRIVES=3`` for ``View drives[Cell::DRIVES]``.

    Raises
    ------
    KeyError
        For a count that neither the header nor the caller knows.
    ValueError
        For a structure that is not there, or a field of another type.
    """
    found = re.search(rf"struct {name} \{{\n(.*?)\n\}};", headers(header), re.DOTALL)
    if found is None:
        raise ValueError(f"{header}.cuh has no structure {name}")
    known, fields = {**constants(header), **counts}, []
    for line in re.sub("//.*", "", found[1]).split(";")[:-1]:
        declared = _LINE.fullmatch(line)
        if declared is None:
            raise ValueError(f"{name} of {header}.cuh has {line.strip()!r}; wanted fields of long long, double or View")
        kind = VIEW if declared[1] == "View" else _TYPES[declared[1]]
        for field, least, count in re.findall(_FIELD, declared[2]):
            fields.append((field, kind, (max(known[count], int(bool(least))),)) if count else (field, kind))
    return np.dtype(fields)


def fields_at(described: np.dtype[Any]) -> dict[str, int]:
    """Return where the fields of a structure begin, in words of 64 bits, as it is seen as integers."""
    return {name: place[1] // 8 for name, place in (described.fields or {}).items()}


VIEW = structure("common/view", "View")
