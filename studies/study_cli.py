"""``recsolve study`` and ``recsolve report``: run sweeps, draw them, write them up."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from recsolve.studies import tables

if TYPE_CHECKING:
    from recsolve.studies.registry import Study
    from recsolve.studies.sweep import Sweep, Tick

study = typer.Typer(no_args_is_help=True, help="Run studies: sweeps that are stored, resumed and drawn.")

Out = Annotated[Path, typer.Option(help="Folder of records, figures and the report.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A study; `recsolve study list` lists them.")]
Quick = Annotated[bool, typer.Option("--quick/--full", help="The small config (default), or the large one.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the config; TOML values.")
]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="TOML with values of the config.")]
Workers = Annotated[int, typer.Option(help="Processes that run side by side.")]
Cluster = Annotated[str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler instead: tcp://host:port.")]
Retry = Annotated[bool, typer.Option("--retry", help="Run again what failed before.")]
_OUT = Path("recsolve-studies")
_ERRORS = (ValueError, TypeError, ImportError, OSError)


def fail(error: Exception) -> typer.Exit:
    print(f"recsolve: error: {error}", file=sys.stderr)
    return typer.Exit(2)


@study.callback()
def options() -> None:
    """Run studies: sweeps that are stored, resumed and drawn."""
    logging.basicConfig(level=logging.WARNING, format="recsolve: %(message)s")


@study.command("list")
def list_studies() -> None:
    """List the studies and what they ask."""
    from recsolve.studies.registry import CATALOGUE, get

    found = [get(name) for name in CATALOGUE]
    tables.show_rows("studies", ("study", "runs --quick", "--full", "question"), [
        (s.name, len(list(s.grid(s.quick))), len(list(s.grid(s.full))), s.question) for s in found
    ])  # fmt: skip


@study.command()
def show(name: Name, quick: Quick = True, out: Out = _OUT) -> None:
    """Show a study: question, config, what is stored, what was found."""
    from recsolve.studies.records import key
    from recsolve.studies.configs import to_toml
    from recsolve.studies.registry import get
    from recsolve.studies.sweep import Place

    try:
        chosen = get(name)
        config, place = chosen.quick if quick else chosen.full, Place(out, name)
        names = [key(name, chosen.version, point) for point in chosen.grid(config)]
        there = sum(place.records.path(record).is_file() for record in names)
        print(f"{name}: {chosen.question}\n\n{to_toml(config)}\n{there} of {len(names)} runs stored in {place.folder}")
        if place.data.is_file():
            data = place.read()
            for picture in chosen.pictures:
                print(f"\n{picture.name}: {picture.says(data)}")
    except _ERRORS as error:
        raise fail(error) from None


@study.command()
def run(
    name: Name,
    quick: Quick = True,
    settings: Settings = None,
    config: Config = None,
    workers: Workers = 2,
    cluster: Cluster = None,
    retry: Retry = False,
    out: Out = _OUT,
) -> None:
    """Run what is not stored yet, then draw. Interrupt it at any time; run it again to go on."""
    from recsolve.studies.registry import configured, get
    from recsolve.studies.sweep import Place, plot, sweep

    try:
        chosen = get(name)
        toml = config.read_text(encoding="utf-8") if config is not None else ""
        wanted = configured(chosen.quick if quick else chosen.full, toml, settings or ())
        place = Place(out, name)
        with bar(name) as tick:
            state = sweep(chosen, wanted, place, workers=workers, cluster=cluster, retry=retry, tick=tick)
        paths = plot(chosen, place)
    except KeyboardInterrupt:
        print(f"recsolve: interrupted; what is stored in {out / name} will be reused", file=sys.stderr)
        raise typer.Exit(130) from None
    except _ERRORS as error:
        raise fail(error) from None
    report_on(chosen, state)
    print("wrote " + ", ".join(str(path) for path in (place.data, *paths)))


@study.command("plot")
def plot_study(name: Name, out: Out = _OUT) -> None:
    """Draw the pictures of a study again, from what is stored."""
    from recsolve.studies.registry import get
    from recsolve.studies.sweep import Place, plot

    try:
        paths = plot(get(name), Place(out, name))
    except _ERRORS as error:
        raise fail(error) from None
    print("wrote " + ", ".join(map(str, paths)))


@study.command()
def clean(name: Name, out: Out = _OUT) -> None:
    """Delete the records, the Dataset and the figures of a study."""
    from recsolve.studies.drawing import FORMATS
    from recsolve.studies.registry import get
    from recsolve.studies.sweep import Place

    try:
        chosen, place = get(name), Place(out, name)
        count = place.records.clear()
        drawn = [place.folder / f"{picture.name}.{suffix}" for picture in chosen.pictures for suffix in FORMATS]
        for path in (place.data, place.folder / "captions.json", *drawn):
            path.unlink(missing_ok=True)
    except _ERRORS as error:
        raise fail(error) from None
    print(f"deleted {count} records of {name}")


def report(
    quick: Quick = True,
    only: Annotated[str | None, typer.Option(help="Studies, with commas; default: all.")] = None,
    settings: Settings = None,
    workers: Workers = 2,
    cluster: Cluster = None,
    out: Out = _OUT,
) -> None:
    """Run all studies and write a self-contained HTML report. What is stored is reused."""
    from recsolve.studies.registry import CATALOGUE, configured, get
    from recsolve.studies.report import write_report
    from recsolve.studies.sweep import Place, plot, sweep

    try:
        chosen = [get(name.strip()) for name in (only.split(",") if only else CATALOGUE)]
        for one in chosen:
            wanted, place = configured(one.quick if quick else one.full, "", settings or ()), Place(out, one.name)
            with bar(one.name) as tick:
                state = sweep(one, wanted, place, workers=workers, cluster=cluster, tick=tick)
            plot(one, place)
            report_on(one, state)
        path = write_report(chosen, out)
    except KeyboardInterrupt:
        print(f"recsolve: interrupted; what is stored in {out} will be reused", file=sys.stderr)
        raise typer.Exit(130) from None
    except _ERRORS as error:
        raise fail(error) from None
    print(f"wrote {path}")


def report_on(chosen: Study, state: Sweep) -> None:
    """Print how a sweep went, and the errors of runs that failed."""
    print(f"{chosen.name}: {len(state.points)} runs, {state.reused} of them stored before, {state.failed} failed")
    failed = [record for record in state.records.values() if record.status != "done"]
    for record in failed[:5]:
        print(f"  {dict(record.point)}: {record.error}", file=sys.stderr)
    if len(failed) > 5:
        print(f"  and {len(failed) - 5} more; --retry runs them again", file=sys.stderr)


@contextmanager
def bar(name: str) -> Iterator[Tick]:
    """Yield a function that shows how far a sweep is: a bar with rate and remaining time on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda state: None
        return
    columns: list[Any] = [
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TextColumn("left"), TimeRemainingColumn(),
    ]  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=None, rate="")

        def tick(state: Sweep) -> None:
            done = len(state.records) - state.reused
            speed = progress.tasks[0].speed if done else None
            rate = "" if speed is None else f"{speed:.3g} runs/s"
            progress.update(task, total=len(state.points) - state.reused, completed=done, rate=rate)

        yield tick
