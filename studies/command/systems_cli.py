"""``recsolve systems``: the recurrences of published systems, listed, shown and solved."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsolve.solvers import REGISTRY
from recsolve.studies.command import completion
from recsolve.studies.command.completion import one_of
from recsolve.studies.command.shared import ERRORS, Json, Settings, fail, print_json
from recsolve.studies.draw import tables

if TYPE_CHECKING:
    from recsolve.studies.systems.system import System

_NAMED = 6  # as many solvers are listed by name

systems = typer.Typer(no_args_is_help=True, help="Show and solve the recurrences of published systems.")

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A system; `recsolve systems list` lists them.", autocompletion=one_of(completion.systems)
    ),
]


@systems.callback()
def options() -> None:
    """Show and solve the recurrences of published systems."""


@systems.command("list")
def list_systems(as_json: Json = False) -> None:
    """List the systems: paper, structure of the Jacobian, solvers that apply, exact scan, study."""
    from recsolve.studies.systems.system import CATALOGUE, get

    known = [get(name) for name in CATALOGUE]
    if as_json:
        print_json([_record(one) for one in known])
        return
    head = ("system", "paper", "Jacobian", "solvers", "exact scan", "study")
    scans = {one.name: "no" if one.scan is None else "yes" for one in known}
    tables.show_rows(
        "systems",
        head,
        [(s.name, s.title, s.structure, _solvers(s), scans[s.name], s.study or "-") for s in known],
    )


def _solvers(one: System) -> str:
    """Say which solvers apply; of many how many, so that columns stay wide enough for words."""
    found = one.which_solvers()
    return found if found.count(",") < _NAMED else f"{len(one.solvers)} of {len(REGISTRY)}"


def _record(one: System) -> dict[str, Any]:
    """Return what the listing says of a system, as plain JSON values."""
    names = ("name", "title", "cite", "structure", "solvers", "study")
    return {**{name: getattr(one, name) for name in names}, "scan": one.scan is not None}


@systems.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show the equations of a system, its config, and what to run."""
    from recsolve.studies.store.configs import to_toml
    from recsolve.studies.systems.system import get

    try:
        one = get(name)
    except ValueError as error:
        raise fail(error) from None
    if as_json:
        print_json({**_record(one), "equations": one.text, "config": asdict(one.config)})
        return
    print(f"{one.name} ({one.cite})\n\n{one.text}\n")
    print(f"Jacobian: {one.structure}.\nSolvers that apply: {one.which_solvers()}.")
    if one.scan is not None:
        print("Scans alone give the exact solution.")
    print(f"\nConfig, which --set changes:\n{to_toml(one.config)}")
    print(f"recsolve systems solve {name}\nrecsolve compare --system {name}")
    if one.study is not None:
        print(f"recsolve study run {one.study}")


@systems.command()
def solve(
    name: Name,
    method: Annotated[
        str | None,
        typer.Option(
            help="A solver; `recsolve solvers` lists them.",
            show_default="newton, or jacobi",
            autocompletion=one_of(completion.solvers),
        ),
    ] = None,
    tol: Annotated[float | None, typer.Option(help="Tolerance of the residual, per entry.")] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Solve a system once, and say how it went: against its loop, and against its scan where it has one."""
    from recsolve.studies.systems.solved import solved

    try:
        found = solved(name, method, tol, settings or ())
    except ERRORS as error:
        raise fail(error) from None
    if as_json:
        print_json(found)
        return
    texts: list[tuple[Any, ...]] = [(key, f"{x:.3g}" if isinstance(x, float) else x) for key, x in found.items()]
    tables.show_rows(name, ("what", "found"), texts)
