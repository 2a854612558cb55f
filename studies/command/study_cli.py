"""``recsolve study`` and ``recsolve report``: run sweeps, draw them, write them up."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsolve.studies.command import completion
from recsolve.studies.command.completion import one_of, some_of
from recsolve.studies.command.progress import progress_of
from recsolve.studies.command.shared import ERRORS, Config, Json, Settings, check_output, fail, print_json, text_of
from recsolve.studies.draw import tables

if TYPE_CHECKING:
    from recsolve.studies.registry import Study
    from recsolve.studies.sweep import Place

study = typer.Typer(no_args_is_help=True, help="Run studies: sweeps that are stored, resumed and drawn.")

Out = Annotated[Path, typer.Option(help="Folder of records, figures and the report.")]
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A study; `recsolve study list` lists them.", autocompletion=one_of(completion.studies)
    ),
]
Full = Annotated[bool, typer.Option("--full", help="The large config.")]
Quick = Annotated[bool, typer.Option("--quick", help="The small config of a minute, which is the default.")]
Tiny = Annotated[bool, typer.Option("--tiny", help="A config of seconds, which shows that it works.")]
Workers = Annotated[int, typer.Option(help="Processes side by side.", show_default="one a core")]
Cluster = Annotated[str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler instead: tcp://host:port.")]
Retry = Annotated[bool, typer.Option("--retry", help="Run again what failed before.")]
_OUT, _CORES = Path("recsolve-studies"), os.cpu_count() or 1


@contextmanager
def _errors_in_one_line(out: Path) -> Iterator[None]:
    """Turn errors and interrupts into a line and an exit status."""
    try:
        if out.exists() and not out.is_dir():
            raise ValueError(f"--out {out} is a file; wanted a folder")
        yield
    except KeyboardInterrupt:
        print(f"recsolve: interrupted; what is stored in {out} will be reused", file=sys.stderr)
        raise typer.Exit(130) from None
    except ERRORS as error:
        raise fail(error) from None


def _check_places(studies: Sequence[Study], out: Path) -> None:
    """Refuse what could not be written when the first run is done."""
    from recsolve.studies.sweep import Place

    for one in studies:
        place = Place(out, one.name)
        check_output(place.folder, *place.files_of(one))
        check_output(place.records.folder)


def _size(full: bool, quick: bool, tiny: bool) -> str:
    given = [size for size, wanted in (("full", full), ("quick", quick), ("tiny", tiny)) if wanted]
    if len(given) > 1:
        raise ValueError(f"--{' and --'.join(given)} are both given; wanted one of them")
    return given[0] if given else "quick"


@study.callback()
def options() -> None:
    """Run studies: sweeps that are stored, resumed and drawn."""


@study.command("list")
def list_studies(as_json: Json = False) -> None:
    """List the studies, their numbers of runs, and what they ask."""
    from recsolve.studies.registry import CATALOGUE, get
    from recsolve.studies.store.configs import SIZES

    found = [get(name) for name in CATALOGUE]
    runs = {s.name: {size: len(list(s.grid(getattr(s, size)))) for size in SIZES} for s in found}
    if as_json:
        print_json([{"name": s.name, "question": s.question, "runs": runs[s.name]} for s in found])
        return
    rows = [(s.name, *runs[s.name].values(), s.question) for s in found]
    tables.show_rows("studies, and how many runs each config has", ("study", *SIZES, "question"), rows)


@study.command()
def show(
    name: Name,
    full: Full = False,
    quick: Quick = False,
    tiny: Tiny = False,
    out: Out = _OUT,
    as_json: Json = False,
) -> None:
    """Show a study: question, config, what is stored, what was found."""
    from recsolve.studies.registry import get
    from recsolve.studies.store.configs import to_toml
    from recsolve.studies.store.records import key
    from recsolve.studies.sweep import Place, captions_of

    with _errors_in_one_line(out):
        chosen, place = get(name), Place(out, name)
        config = getattr(chosen, _size(full, quick, tiny))
        names = [key(name, chosen.version, point) for point in chosen.grid(config)]
        there = sum(place.records.path(record).is_file() for record in names)
        captions = captions_of(chosen, place.read()) if place.data.is_file() else {}
    if as_json:
        where = {"runs": len(names), "stored": there, "folder": str(place.folder)}
        print_json({"name": name, "question": chosen.question, "config": asdict(config), **where, "captions": captions})
        return
    print(f"{name}: {chosen.question}\n\n{to_toml(config)}\n{there} of {len(names)} runs stored in {place.folder}")
    _print_captions(captions)


@study.command()
def run(
    name: Name,
    full: Full = False,
    quick: Quick = False,
    tiny: Tiny = False,
    settings: Settings = None,
    config: Config = None,
    workers: Workers = _CORES,
    cluster: Cluster = None,
    retry: Retry = False,
    out: Out = _OUT,
) -> None:
    """Run what is not stored yet, draw, and say what was found. Interrupt it at any time; run it again to go on."""
    from recsolve.studies.registry import get
    from recsolve.studies.store.configs import configured
    from recsolve.studies.sweep import Place, captions_of

    with _errors_in_one_line(out):
        chosen = get(name)
        wanted = configured(getattr(chosen, _size(full, quick, tiny)), text_of(config), settings or ())
        _check_places([chosen], out)
        failed = _run(chosen, wanted, out, workers=workers, cluster=cluster, retry=retry)
        _print_captions(captions_of(chosen, Place(out, name).read()))
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


def _print_captions(captions: Mapping[str, str]) -> None:
    """Print what each picture shows."""
    for picture, caption in captions.items():
        print(f"\n{picture}: {caption}")


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
        chosen = get(name)
        _check_places([chosen], out)
        _draw(chosen, Place(out, name))


@study.command()
def clean(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    out: Out = _OUT,
) -> None:
    """Delete the records, the Dataset and the figures of a study."""
    from recsolve.studies.registry import get
    from recsolve.studies.sweep import Place

    with _errors_in_one_line(out):
        place = Place(out, get(name).name)
        count = len(place.files())
        if count and not yes:
            _confirm(f"{count} file{'s' * (count > 1)} of {name} in {place.folder}")
        print(f"deleted {place.clear()} files of {name}")


def _confirm(what: str) -> None:
    """Ask before something is deleted; who cannot be asked says it with the command."""
    if not _can_be_asked():
        raise ValueError(f"{what} would be deleted, and nobody can be asked here; --yes deletes them")
    if not typer.confirm(f"Delete {what}?", err=True):
        print("recsolve: nothing is deleted", file=sys.stderr)
        raise typer.Exit(1)


def _can_be_asked() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def report(
    full: Full = False,
    quick: Quick = False,
    tiny: Tiny = False,
    only: Annotated[
        str | None,
        typer.Option(help="Studies, with commas.", show_default="all", autocompletion=some_of(completion.studies)),
    ] = None,
    stored: Annotated[bool, typer.Option("--stored", help="Run nothing: write up what is stored.")] = False,
    workers: Workers = _CORES,
    cluster: Cluster = None,
    out: Out = _OUT,
) -> None:
    """Run all studies and write a self-contained HTML report. What is stored is reused."""
    from recsolve.studies.registry import CATALOGUE, get
    from recsolve.studies.report import REPORT, write_report
    from recsolve.studies.sweep import Place

    problems: dict[str, str] = {}
    failed = 0
    with _errors_in_one_line(out):
        size = _size(full, quick, tiny)
        chosen = [get(name.strip()) for name in (only.split(",") if only else CATALOGUE)]
        if stored:
            chosen = _stored(chosen, out)
        _check_places(chosen, out)
        check_output(out, REPORT)
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
