"""CUDA headers as one text that includes nothing, because CuPy keeps compiled modules by their text alone."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r'^#include "(.+)\.cuh"\n', re.MULTILINE)


@cache
def headers(*names: str, after: tuple[str, ...] = ()) -> str:
    """Return headers of ``kernels/cuda`` with all that they include, each once and after the headers that it includes.

    Parameters
    ----------
    *names : str
        Such as ``"scan/stream"``.
    after : tuple of str
        Headers that come before in the same text, which are not repeated.
    """
    there: dict[str, str] = {}
    for name in after:
        _collect(name, there)
    before = set(there)
    for name in names:
        _collect(name, there)
    return "\n".join(text for name, text in there.items() if name not in before)


def _collect(name: str, there: dict[str, str]) -> None:
    """Add a header to the collected ones, after those that it includes."""
    if name in there:
        return
    text = (files("recsolve.kernels") / "cuda" / f"{name}.cuh").read_text(encoding="utf-8")
    for included in _INCLUDE.findall(text):
        _collect(included, there)
    there[name] = _INCLUDE.sub("", text).replace("#pragma once\n", "")
