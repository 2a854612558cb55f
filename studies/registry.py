"""What a study is, and which there are."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from recsolve.studies.records import Point, Row

if TYPE_CHECKING:
    from xarray import Dataset

# Modules of recsolve.studies.catalogue by the name of the study, in the order of the report.
CATALOGUE: dict[str, str] = {
    "convergence": "convergence",
    "lyapunov": "lyapunov",
    "iterations_vs_length": "iterations_vs_length",
    "stability_map": "stability_map",
    "minmax": "minmax",
    "mixing_ladder": "mixing_ladder",
    "initial_guess": "initial_guess",
    "work_precision": "work_precision",
    "precision": "precision",
    "langevin_lorenz": "langevin_lorenz",
    "speed": "speed",
    "paper/pararnn": "paper_pararnn",
    "paper/deer": "paper_deer",
    "paper/elk": "paper_elk",
}


@dataclass(frozen=True)
class Picture:
    """A figure, and the sentence under it; both know the stored numbers and nothing else.

    Attributes
    ----------
    name : str
        Of its files.
    draw : callable
        ``draw(pyplot, data)`` returns a matplotlib Figure.
    says : callable
        ``says(data)`` returns what the figure shows, in words computed from the data.
    """

    name: str
    draw: Callable[[Any, Dataset], Any]
    says: Callable[[Dataset], str]


@dataclass(frozen=True)
class Table:
    """A table of the report, of texts."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question, and all that answers it: a pure function of a frozen config.

    Attributes
    ----------
    name, question : str
    version : int
        To be raised when what a run measures changes: older records then no longer count.
    quick, full : dataclass instance
        The configs of ``--quick`` and ``--full``, of one frozen type.
    grid : callable
        ``grid(config)`` returns the points to run, mappings of JSON values.
    run : callable
        ``run(**point)`` returns tidy rows. It may be called in another process, on another machine.
    dims : tuple of str
        Which names in points and rows are coordinates; all others are measured.
    curves : mapping
        For measured lists the names of their axes: ``{"errors": ("iteration",)}``.
    facts : callable
        ``facts(data)`` returns what the study found as numbers by name: sentences quote them, tests assert them.
    pictures : tuple of Picture
    tables : callable
        ``tables(data)`` returns tables for the report.
    alone : bool
        Whether runs are timed, and so go one at a time whatever the number of workers.
    """

    name: str
    question: str
    version: int = 1
    quick: Any
    full: Any
    grid: Callable[[Any], Iterable[Point]]
    run: Callable[..., list[Row]]
    dims: tuple[str, ...]
    curves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    facts: Callable[[Dataset], dict[str, Any]]
    pictures: tuple[Picture, ...]
    tables: Callable[[Dataset], list[Table]] = lambda data: []
    alone: bool = False


def get(name: str) -> Study:
    """Return a study by its name.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.
    """
    if name not in CATALOGUE:
        raise ValueError(f"study is {name!r}; wanted one of {', '.join(CATALOGUE)}")
    study: Study = import_module(f"recsolve.studies.catalogue.{CATALOGUE[name]}").STUDY
    return study


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
    try:
        values = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"--config is no TOML: {error}") from None
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign:
            raise ValueError(f"--set is {setting!r}; wanted key=value")
        values[name.strip()] = _value(text)
    known = {f.name: getattr(config, f.name) for f in fields(config)}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ValueError(f"the config has unknown {unknown}; wanted some of {', '.join(known)}")
    return replace(config, **{name: _like(known[name], value, name) for name, value in values.items()})


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
    if type(new) is not type(old):
        raise ValueError(f"{name} is {new!r}; wanted {type(old).__name__}, as {old!r}")
    return new


def to_toml(config: Any) -> str:
    """Return a config as TOML that :func:`configured` reads back."""
    return "".join(f"{name} = {_toml(value)}\n" for name, value in asdict(config).items())


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)
