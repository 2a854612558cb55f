"""The command line. Heavy imports happen inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from recsolve.studies.command import bench_cli, completion, study_cli, systems_cli, train_cli
from recsolve.studies.command.compare_cli import compare
from recsolve.studies.command.shared import ERRORS, Json, fail, print_json, show_notices
from recsolve.studies.command.streams import discard, patient
from recsolve.studies.draw import tables

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from recsolve import __version__

        print(f"recsolve {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Solve nonlinear recurrences in parallel over time, and compare the solvers that do it."""
    show_notices()


app.command()(compare)


@app.command()
def weights(
    file: Annotated[Path, typer.Argument(help="A network of torch, ONNX or Keras.")],
    keys: Annotated[str | None, typer.Option(help="List only these, as in 'encoder.rnn.*'.")] = None,
    as_json: Json = False,
) -> None:
    """List the recurrent layers of a file of weights, and what else it holds."""
    from recsolve.interop.contents import read_contents

    try:
        contents = read_contents(file, keys)
    except ERRORS as error:
        raise fail(error) from None
    if as_json:
        print_json(contents.record())
    else:
        tables.show_weights(contents)


@app.command()
def cells(as_json: Json = False) -> None:
    """List the built-in cells: components, mixings, structure of the Jacobian, source."""
    if as_json:
        print_json(tables.cell_rows())
    else:
        tables.show_cells()


@app.command()
def solvers(as_json: Json = False) -> None:
    """List the solvers by group: which matrix stands in for the Jacobian, what is guaranteed, source."""
    if as_json:
        print_json(tables.solver_rows())
    else:
        tables.show_solvers()


@app.command()
def info(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CELL]...",
            help="With --warm: these cells, or all.",
            show_default="elman, gru and lstm",
            autocompletion=completion.one_of(lambda: [*completion.cells(), "all"]),
        ),
    ] = None,
    warm: Annotated[bool, typer.Option("--warm", help="Compile the loops of built-in cells ahead.")] = False,
    as_json: Json = False,
) -> None:
    """Show versions, the machine, and what a solve would use here: backend, threads, cache, GPU."""
    from recsolve.studies.command.information import information
    from recsolve.studies.command.warm import warm as compile_ahead

    try:
        if what and not warm:
            raise ValueError(f"{', '.join(what)} says what --warm compiles, which is not given")
        if warm:
            compile_ahead(what or ())
        found = information()
    except ERRORS as error:
        raise fail(error) from None
    if as_json:
        print_json(found)
    else:
        tables.show_information(found)


app.add_typer(study_cli.study, name="study")
app.command()(study_cli.report)
app.command()(train_cli.train)
app.add_typer(systems_cli.systems, name="systems")
app.add_typer(bench_cli.bench, name="bench")


def main() -> None:
    """Run the command line; an interrupt or a full output ends it in one line."""
    sys.stdout, sys.stderr = patient(sys.stdout), patient(sys.stderr)
    try:
        try:
            app(prog_name="recsolve")
        finally:
            sys.stdout.flush()  # a fault found here would end in a traceback later
    except KeyboardInterrupt:
        print("recsolve: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        print(f"recsolve: error: {error}", file=sys.stderr)
        discard(1)
        sys.exit(1)
