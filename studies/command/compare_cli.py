"""``recsolve compare``: race solvers on one recurrence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from recsolve.studies.command import completion
from recsolve.studies.command.completion import one_of, some_of
from recsolve.studies.command.shared import ERRORS, Json, check_output, fail, print_json, text_of
from recsolve.studies.draw import tables

if TYPE_CHECKING:
    from recsolve.studies.compare.compare import CompareConfig


def compare(
    context: typer.Context,
    cell: Annotated[
        str, typer.Option(help="A cell; `recsolve cells` lists them.", autocompletion=one_of(completion.cells))
    ] = "gru",
    mixing: Annotated[
        str | None,
        typer.Option(
            help="dense, diagonal or heads.",
            show_default="dense and diagonal",
            autocompletion=one_of(completion.mixings),
        ),
    ] = None,
    units: Annotated[int, typer.Option(help="Width of the state.")] = 64,
    length: Annotated[int | None, typer.Option(help="Steps T.", show_default="1024, or all there is")] = None,
    batch: Annotated[int, typer.Option(help="Number of sequences, cut one after the other.")] = 1,
    gain: Annotated[float, typer.Option(help="Factor on the recurrent weights.")] = 1.0,
    input: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="membrane, eeg, english, or a FILE (.npy, .npz, .csv, .wav, .txt), taken raw.",
            autocompletion=one_of(completion.recordings),
        ),
    ] = "membrane",
    standardise: Annotated[
        bool,
        typer.Option("--standardise/--no-standardise", help="Give each channel of --input mean 0 and deviation 1."),
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A trained network, instead of --cell: see `recsolve weights FILE`."),
    ] = None,
    solvers: Annotated[
        str | None,
        typer.Option(
            help="Solvers or groups, with commas, or all: 'globalised,jacobi'.",
            show_default="some of each",
            autocompletion=some_of(completion.solvers_and_groups),
        ),
    ] = None,
    tol: Annotated[
        float | None,
        typer.Option(help="Tolerance of the residual, per entry.", show_default="4 eps, more for wide cells"),
    ] = None,
    maxiter: Annotated[int | None, typer.Option(help="Iteration limit.", show_default="T + 2")] = None,
    dtype: Annotated[
        str, typer.Option(help="float32 or float64.", autocompletion=one_of(lambda: ("float32", "float64")))
    ] = "float64",
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
    heads: Annotated[int | None, typer.Option(help="Heads of --mixing heads.", show_default="4")] = None,
    keys: Annotated[str | None, typer.Option(help="Which module of --weights, as in 'encoder.rnn.*'.")] = None,
    layer: Annotated[int | None, typer.Option(help="Which layer of --weights; those below feed it.")] = None,
    direction: Annotated[str | None, typer.Option(help="Of a layer of --weights: forward or reverse.")] = None,
    nonlinearity: Annotated[str, typer.Option(help="Of an RNN in --weights: tanh or relu.")] = "tanh",
    system: Annotated[
        str | None,
        typer.Option(
            help="A published system, instead of --cell: `recsolve systems list`.",
            autocompletion=one_of(completion.systems),
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the config of --system; TOML values.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The compare.toml of a comparison, or one with such values; options win."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figure and the numbers.")] = Path("recsolve-compare"),
    as_json: Json = False,
) -> None:
    """Race solvers on one recurrence: a table, a convergence plot and the numbers."""
    try:
        wanted = _config(context, text_of(config))
        for stem in ("compare", "compare-partial"):
            check_output(out, *(f"{stem}.{kind}" for kind in ("json", "toml", "png", "pdf")))
        result = _run(wanted)
    except ERRORS as error:
        raise fail(error) from None
    if result is None:
        print("recsolve: interrupted before the first solver was done", file=sys.stderr)
        raise typer.Exit(130)
    # The table comes before the files: a full disk must not lose what has been computed.
    if as_json:
        print_json(result.rows())
    else:
        tables.show_comparison(result)
    try:
        written = _save(result, out)
    except OSError as error:
        raise fail(OSError(f"--out {out}: {error}; the rows above are complete")) from None
    console = Console(stderr=as_json, soft_wrap=True, highlight=False)
    console.print("wrote " + ", ".join(str(path) for path in written), markup=False)
    if not result.complete:
        print("recsolve: interrupted; the solvers listed above are stored", file=sys.stderr)
        raise typer.Exit(130)


def _config(context: typer.Context, toml: str) -> CompareConfig:
    """Return the values of a file, replaced by those of the options that are given; settings go on from its own."""
    from recsolve.studies.compare.compare import CompareConfig
    from recsolve.studies.store.configs import values_of

    default = CompareConfig()
    values = values_of(default, toml)
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and hasattr(default, name):
            values[name] = (*values.get(name, ()), *value) if name == "settings" else value
    if isinstance(values.get("solvers"), str):
        values["solvers"] = tuple(name.strip() for name in values["solvers"].split(","))
    return CompareConfig(**values)


def _run(config: CompareConfig) -> Any:
    """Run a comparison with a progress line on a terminal; an interrupt keeps what has been computed."""
    from recsolve.studies.compare.compare import compare as run_compare

    result = None
    with tables.progress() as status:
        tick: Callable[[str, str, int], None] = lambda panel, solver, k: status(f"{panel}: {solver}, iteration {k}")  # noqa: E731
        try:
            for result in run_compare(config, tick):  # noqa: B007 - the last one is wanted
                pass
        except KeyboardInterrupt:
            pass
    return result


def _save(result: Any, out: Path) -> list[Path]:
    """Write a comparison, and beside its numbers the config that makes them anew; return the paths."""
    from recsolve.studies.store.configs import to_toml
    from recsolve.studies.store.files import replace_into_place

    numbers, *figures = result.save(out)
    config = numbers.with_suffix(".toml")
    with replace_into_place(config) as part:
        part.write_text(to_toml(result.config), encoding="utf-8")
    return [numbers, config, *figures]
