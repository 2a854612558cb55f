"""``recsolve study`` and ``recsolve report``: run sweeps, draw them, write them up."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsolve.studies.command.progress import progress_of
from recsolve.studies.draw import tables

if TYPE_CHECKING:
    from recsolve.studies.registry import Study
    from recsolve.studies.sweep import Place

study = typer.Typer(no_args_is_help=True, help="Run studies: sweeps that are stored, resumed and drawn.")

Out = Annotated[Path, typer.Option(help="Folder of records, figures and the report.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A study; `recsolve study list` lists them.")]
Full = Annotated[bool, typer.Option("--full/--quick", help="The large config, or the small one of a minute.")]
Tiny = Annotated[bool, typer.Option("--tiny", help="A config of seconds, which shows that it works.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the config; TOML values.")
]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="TOML with values of the config.")]
Workers = Annotated[int, typer.Option(help="Processes side by side.", show_default="one a core")]
Cluster = Annotated[str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler instead: tcp://host:port.")]
Retry = Annotated[bool, typer.Option("--retry", help="Run again what failed before.")]
_OUT, _CORES = Path("recsolve-studies"), os.cpu_count() or 1
_ERRORS = (ValueError, TypeError, ImportError, OSError)


def fail(error: Exception) -> typer.Exit:
    """Print an error in one line, and return the exit to raise."""
    print(f"recsolve: error: {error}", file=sys.stderr)
    return typer.Exit(2)


@contextmanager
def _errors_in_one_line(out: Path) -> Iterator[None]:
    """Turn errors and interrupts into a line and an exit status; notices of the library go to standard error."""
    logging.basicConfig(level=logging.WARNING, format="recsolve: %(message)s")
    try:
        if out.exists() and not out.is_dir():
            raise ValueError(f"--out {out} is a file; wanted a folder")
        yield
    except KeyboardInterrupt:
        print(f"recsolve: interrupted; what is stored in {out} will be reused", file=sys.stderr)
        raise typer.Exit(130) from None
    except _ERRORS as error:
        raise fail(error) from None


def text_of(config: Path) -> str:
    try:
        return config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {config} cannot be read ({error}); wanted a TOML file") from None


def _size(full: bool, tiny: bool) -> str:
    if full and tiny:
        raise ValueError("--full and --tiny are both given; wanted one of them")
    return "tiny" if tiny else "full" if full else "quick"


@study.callback()
def options() -> None:
    """Run studies: sweeps that are stored, resumed and drawn."""


@study.command("list")
def list_studies() -> None:
    """List the studies, their numbers of runs, and what they ask."""
    from recsolve.studies.registry import CATALOGUE, get
    from recsolve.studies.store.configs import SIZES

    found = [get(name) for name in CATALOGUE]
    rows = [(s.name, *(len(list(s.grid(getattr(s, size)))) for size in SIZES), s.question) for s in found]
    tables.show_rows("studies", ("study", *(f"runs --{size}" for size in SIZES), "question"), rows)


@study.command()
def show(name: Name, full: Full = False, tiny: Tiny = False, out: Out = _OUT) -> None:
    """Show a study: question, config, what is stored, what was found."""
    from recsolve.studies.registry import get
    from recsolve.studies.store.configs import to_toml
    from recsolve.studies.store.records import key
    from recsolve.studies.sweep import Place, captions_of

    with _errors_in_one_line(out):
        chosen, place = get(name), Place(out, name)
        config = getattr(chosen, _size(full, tiny))
        names = [key(name, chosen.version, point) for point in chosen.grid(config)]
        there = sum(place.records.path(record).is_file() for record in names)
        print(f"{name}: {chosen.question}\n\n{to_toml(config)}\n{there} of {len(names)} runs stored in {place.folder}")
        if place.data.is_file():
            for picture, caption in captions_of(chosen, place.read()).items():
                print(f"\n{picture}: {caption}")


@study.command()
def run(
    name: Name,
    full: Full = False,
    tiny: Tiny = False,
    settings: Settings = None,
    config: Config = None,
    workers: Workers = _CORES,
    cluster: Cluster = None,
    retry: Retry = False,
    out: Out = _OUT,
) -> None:
    """Run what is not stored yet, then draw. Interrupt it at any time; run it again to go on."""
    from recsolve.studies.registry import get
    from recsolve.studies.store.configs import configured

    with _errors_in_one_line(out):
        chosen = get(name)
        toml = text_of(config) if config is not None else ""
        wanted = configured(getattr(chosen, _size(full, tiny)), toml, settings or ())
        failed = _run(chosen, wanted, out, workers=workers, cluster=cluster, retry=retry)
    if failed:
        raise typer.Exit(1)


def _run(chosen: Study, config: Any, out: Path, **how: Any) -> int:
    """Run and draw a study, say how it went, and return how many runs failed."""
    from recsolve.studies.sweep import Place, sweep

    place = Place(out, chosen.name)
    with progress_of(chosen.name) as tick:
        state = sweep(chosen, config, place, tick=tick, **how)
    print(f"{chosen.name}: {len(state.points)} runs, {state.reused} of them stored before, {state.failed} failed")
    failures = [record for record in state.records.values() if record.status != "done"]
    for record in failures[:5]:
        print(f"  {dict(record.point)}: {record.error}", file=sys.stderr)
    if failures:
        more = f"and {len(failures) - 5} more; " if len(failures) > 5 else ""
        print(f"  {more}recsolve study run {chosen.name} --retry runs them again", file=sys.stderr)
    _draw(chosen, place)
    return len(failures)


def _draw(chosen: Study, place: Place) -> None:
    from recsolve.studies.sweep import plot

    plot(chosen, place)
    print(f"wrote {place.folder}: data.nc and, as PNG, PDF and SVG, {', '.join(p.name for p in chosen.pictures)}")


@study.command("plot")
def plot_study(name: Name, out: Out = _OUT) -> None:
    """Draw the pictures of a study again, from what is stored."""
    from recsolve.studies.registry import get
    from recsolve.studies.sweep import Place

    with _errors_in_one_line(out):
        _draw(get(name), Place(out, name))


@study.command()
def clean(name: Name, out: Out = _OUT) -> None:
    """Delete the records, the Dataset and the figures of a study."""
    from recsolve.studies.registry import get
    from recsolve.studies.sweep import Place

    with _errors_in_one_line(out):
        print(f"deleted {Place(out, get(name).name).clear()} files of {name}")


def report(
    full: Full = False,
    tiny: Tiny = False,
    only: Annotated[str | None, typer.Option(help="Studies, with commas.", show_default="all")] = None,
    stored: Annotated[bool, typer.Option("--stored", help="Run nothing: write up what is stored.")] = False,
    workers: Workers = _CORES,
    cluster: Cluster = None,
    out: Out = _OUT,
) -> None:
    """Run all studies and write a self-contained HTML report. What is stored is reused."""
    from recsolve.studies.registry import CATALOGUE, get
    from recsolve.studies.report import write_report
    from recsolve.studies.sweep import Place

    problems: dict[str, str] = {}
    failed = 0
    with _errors_in_one_line(out):
        size = _size(full, tiny)
        chosen = [get(name.strip()) for name in (only.split(",") if only else CATALOGUE)]
        if stored:
            chosen = _stored(chosen, out)
        for one in chosen:
            try:
                if stored:
                    _draw(one, Place(out, one.name))
                    continue
                failed += _run(one, getattr(one, size), out, workers=workers, cluster=cluster)
            except ValueError as error:  # one study that cannot be drawn keeps no other from being read
                problems[one.name] = str(error)
                print(f"recsolve: error: {error}", file=sys.stderr)
        print(f"wrote {write_report(chosen, out, problems)}")
    if failed or problems:
        raise typer.Exit(1)


def _stored(chosen: list[Study], out: Path) -> list[Study]:
    """Return the studies that have results, and say which have none; ValueError when all are without."""
    from recsolve.studies.sweep import Place

    found = [one for one in chosen if Place(out, one.name).data.is_file()]
    absent = ", ".join(one.name for one in chosen if one not in found)
    if not found:
        raise ValueError(f"--stored finds no results of {absent} in {out}; run a study first: recsolve study run NAME")
    if absent:
        print(f"not stored, and left out of the report: {absent}")
    return found
