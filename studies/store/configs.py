"""The configs of studies: frozen dataclasses, changed by TOML and by ``key=value``."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from shlex import quote
from typing import Any

SIZES = ("tiny", "quick", "full")  # the configs that every study has


def configured(config: Any, toml: str = "", settings: Iterable[str] = ()) -> Any:
    """Return a config with values from TOML text and from ``key=value`` settings, the latter winning.

    Values are TOML; a setting that is not is taken as text, and a lone value serves where several are wanted.

    Raises
    ------
    ValueError
        For unknown keys and values of another type; the message names the key.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Config:
    ...     lengths: tuple[int, ...] = (64, 128)
    ...     seed: int = 0
    >>> configured(Config(), settings=["lengths=[8, 16]", "seed=3"])
    Config(lengths=(8, 16), seed=3)
    """
    return replace(config, **values_of(config, toml, settings))


def values_of(config: Any, toml: str = "", settings: Iterable[str] = ()) -> dict[str, Any]:
    """Return what TOML text and settings change of a config, by name; errors are those of :func:`configured`."""
    try:
        values = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"--config is no TOML: {error}") from None
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign:
            raise ValueError(f"--set is {setting!r}; wanted key=value")
        values[name.strip()] = _value(text)
    known = {f.name: _example(f.type, getattr(config, f.name)) for f in fields(config)}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ValueError(f"the config has unknown {unknown}; wanted some of {', '.join(known)}")
    return {name: _like(known[name], value, name) for name, value in values.items()}


_EXAMPLES = {"str | None": "text", "int | None": 1, "float | None": 0.5, "tuple[str, ...]": ("text",)}


def _example(kind: Any, value: Any) -> Any:
    """Return a value of the type that a field has, where its own does not show it."""
    return _EXAMPLES.get(kind, value) if value is None or value == () else value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _like(old: Any, new: Any, name: str) -> Any:
    """Return a value as the type that the config has there."""
    if isinstance(old, tuple):
        items = new if isinstance(new, list) else [new]
        if not items:
            raise ValueError(f"{name} is empty; wanted one value or more")
        return tuple(_like(old[0], item, name) for item in items)
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if isinstance(new, float) and not math.isfinite(new):
        raise ValueError(f"{name} is {new}; wanted a finite number")
    if type(new) is not type(old):
        raise ValueError(f"{name} is {new!r}; wanted {type(old).__name__}, as {old!r}")
    return new


def to_toml(config: Any) -> str:
    """Return a config as TOML that :func:`configured` reads back; what is not given is left out."""
    values = {name: value for name, value in asdict(config).items() if value is not None and value != ()}
    return "".join(f"{name} = {_toml(value)}\n" for name, value in values.items())


def arguments(toml: str, stock: Mapping[str, Any]) -> str:
    """Return the arguments of the command line that give a config: the nearest of some configs by size, and changes.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Config:
    ...     lengths: tuple[int, ...] = (64, 128)
    ...     seed: int = 0
    >>> arguments(to_toml(Config(seed=3)), {"quick": Config(), "full": Config((1024,))})
    '--quick --set seed=3'
    """
    changes = {
        size: [line for line in toml.splitlines() if line not in to_toml(config).splitlines()]
        for size, config in stock.items()
    }
    nearest = min(changes, key=lambda size: len(changes[size]))
    settings = (quote("=".join(line.split(" = ", 1))) for line in changes[nearest])
    return " ".join([f"--{nearest}", *(f"--set {setting}" for setting in settings)])


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    # A JSON text is a TOML text, but for halves of letters and for one letter that TOML wants written out.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)
