"""The command line. Heavy imports happen inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console

from recsolve.studies.command import study_cli, systems_cli, train_cli
from recsolve.studies.draw import tables

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


_fail = study_cli.fail


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


@app.command()
def compare(
    cell: Annotated[str, typer.Option(help="A cell; `recsolve cells` lists them.")] = "gru",
    mixing: Annotated[
        str | None, typer.Option(help="dense, diagonal or heads.", show_default="dense and diagonal")
    ] = None,
    units: Annotated[int, typer.Option(help="Width of the state.")] = 64,
    length: Annotated[int | None, typer.Option(help="Steps T.", show_default="1024, or all there is")] = None,
    batch: Annotated[int, typer.Option(help="Number of sequences, cut one after the other.")] = 1,
    gain: Annotated[float, typer.Option(help="Factor on the recurrent weights.")] = 1.0,
    input: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="membrane, eeg, english, or a FILE (.npy, .npz, .csv, .wav, .txt), taken raw."
        ),
    ] = "membrane",
    standardise: Annotated[
        bool, typer.Option("--standardise", help="Give each channel of --input mean 0 and deviation 1.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A trained network, instead of --cell: see `recsolve weights FILE`."),
    ] = None,
    solvers: Annotated[
        str | None,
        typer.Option(help="Solvers or groups, with commas, or all: 'globalised,jacobi'.", show_default="some of each"),
    ] = None,
    tol: Annotated[
        float | None,
        typer.Option(help="Tolerance of the residual, per entry.", show_default="4 eps, more for wide cells"),
    ] = None,
    maxiter: Annotated[int | None, typer.Option(help="Iteration limit.", show_default="T + 2")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float64",
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
    heads: Annotated[int | None, typer.Option(help="Heads of --mixing heads.", show_default="4")] = None,
    keys: Annotated[str | None, typer.Option(help="Which module of --weights, as in 'encoder.rnn.*'.")] = None,
    layer: Annotated[int | None, typer.Option(help="Which layer of --weights; those below feed it.")] = None,
    direction: Annotated[str | None, typer.Option(help="Of a layer of --weights: forward or reverse.")] = None,
    nonlinearity: Annotated[str, typer.Option(help="Of an RNN in --weights: tanh or relu.")] = "tanh",
    system: Annotated[
        str | None, typer.Option(help="A published system, instead of --cell: `recsolve systems list`.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the config of --system; TOML values.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figure and the numbers.")] = Path("recsolve-compare"),
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable rows, not a table.")] = False,
) -> None:
    """Race solvers on one recurrence: a table, a convergence plot and the numbers."""
    from recsolve.studies.compare.compare import DEFAULT_SOLVERS, CompareConfig

    names = DEFAULT_SOLVERS if solvers is None else tuple(name.strip() for name in solvers.split(","))
    try:
        config = CompareConfig(
            cell=cell, mixing=mixing, units=units, length=length, batch=batch, gain=gain, input=input,
            standardise=standardise, weights=weights,
            solvers=names, tol=tol, maxiter=maxiter, dtype=dtype, seed=seed, heads=heads, keys=keys, layer=layer,
            direction=direction, nonlinearity=nonlinearity, system=system, settings=tuple(settings or ()),
        )  # fmt: skip
        result = _run(config)
    except (ValueError, TypeError, ImportError, OSError, MemoryError, ArithmeticError) as error:
        raise _fail(error) from None
    if result is None:
        print("recsolve: interrupted before the first solver was done", file=sys.stderr)
        raise typer.Exit(130)
    # The table comes before the files: a full disk must not lose what has been computed.
    if as_json:
        print(json.dumps(result.rows(), indent=1, allow_nan=False))
    else:
        tables.show_comparison(result)
    try:
        written = result.save(out)
    except OSError as error:
        raise _fail(OSError(f"--out {out}: {error}; the rows above are complete")) from None
    console = Console(stderr=as_json, soft_wrap=True, highlight=False)
    console.print("wrote " + ", ".join(str(path) for path in written), markup=False)
    if not result.complete:
        print("recsolve: interrupted; the solvers listed above are stored", file=sys.stderr)
        raise typer.Exit(130)


def _run(config: Any) -> Any:
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


@app.command()
def weights(
    file: Annotated[Path, typer.Argument(help="A network of torch, ONNX or Keras.")],
    keys: Annotated[str | None, typer.Option(help="List only these, as in 'encoder.rnn.*'.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the recurrent layers of a file of weights, and what else it holds."""
    from recsolve.interop.contents import read_contents

    try:
        contents = read_contents(file, keys)
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise _fail(error) from None
    if as_json:
        print(json.dumps(contents.record(), indent=1))
    else:
        tables.show_weights(contents)


@app.command()
def cells() -> None:
    """List the built-in cells: components, mixings, structure of the Jacobian, source."""
    tables.show_cells()


@app.command()
def solvers() -> None:
    """List the solvers by group: which matrix stands in for the Jacobian, what is guaranteed, source."""
    tables.show_solvers()


@app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    warm: Annotated[bool, typer.Option("--warm", help="Compile the loops of all built-in cells ahead.")] = False,
) -> None:
    """Show versions, the machine and the backends found."""
    from recsolve.studies.command.information import information

    if warm:
        _warm()
    found = information()
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        tables.show_information(found)


def _warm() -> None:
    """Compile ahead, with a line on what is being compiled."""
    from recsolve.studies.command.warm import warm

    try:
        with tables.progress() as status:
            for part in warm():
                status(part and f"compiling {part}")
    except (ImportError, OSError) as error:
        raise _fail(error) from None


app.add_typer(study_cli.study, name="study")
app.command()(study_cli.report)
app.command()(train_cli.train)
app.add_typer(systems_cli.systems, name="systems")

bench = typer.Typer(no_args_is_help=True, help="Time kernels beside copies of the same bytes.")
app.add_typer(bench, name="bench")


@bench.callback()
def bench_options() -> None:
    """Time kernels beside copies of the same bytes."""


@bench.command()
def cpu(
    what: Annotated[str, typer.Option(help="What to time: scan, solve, graph, history or train.")] = "scan",
    repeats: Annotated[int, typer.Option(help="Timed runs of each kernel.")] = 25,
    numbers: Annotated[int, typer.Option(help="T x batch x units, a power of two.")] = 1 << 22,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable rows, not a table.")] = False,
) -> None:
    """Time compiled scans or solves on this machine: medians, quartiles, ratios in the same run, errors."""
    _bench("cpu", what, as_json, repeats=repeats, numbers=numbers)


@bench.command()
def gpu(
    what: Annotated[str, typer.Option(help="What to time: call, scan, solve, dense or train.")] = "scan",
    repeats: Annotated[int, typer.Option(help="Timed runs of each kernel.")] = 10,
    shapes: Annotated[
        str | None, typer.Option(help="Of the board, with commas: S1, ..., S6, odd 1, ..., odd 4.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The diagonal scan, or the board of solves, alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable rows, not a table.")] = False,
) -> None:
    """Time public calls, scans, fused solves, or layers of torch on a GPU: ratios to a copy, errors beside them."""
    chosen: dict[str, Any] = {} if shapes is None else {"shapes": tuple(name.strip() for name in shapes.split(","))}
    _bench("gpu", what, as_json, repeats=repeats, quick=quick, **chosen)


@bench.command()
def train(
    device: Annotated[str, typer.Option(help="cpu or gpu.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Timed runs of each case.")] = 25,
    quick: Annotated[bool, typer.Option("--quick", help="One layer alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable rows, not a table.")] = False,
) -> None:
    """Time training: forward and backward of layers and models, beside torch's own and plain loops."""
    if device not in ("cpu", "gpu"):
        raise _fail(ValueError(f"--device is {device!r}; wanted cpu or gpu"))
    _bench(device, "train", as_json, repeats=repeats, quick=quick)


def _bench(machine: str, what: str, as_json: bool, **options: Any) -> None:
    """Take times one after the other, and print them."""
    from recsolve.studies.bench import board, get
    from recsolve.studies.store.files import finite_or_text
    from recsolve.studies.store.provenance import provenance

    rows = []
    try:
        timed = get(machine, what)
        with tables.progress() as status:
            for row in timed.rows(board.Config(**options)):
                rows.append(row)
                status(timed.table.label(row))
    except (ValueError, ImportError) as error:
        raise _fail(error) from None
    if as_json:
        print(json.dumps({**provenance(), "rows": finite_or_text(rows)}, indent=1, allow_nan=False))
    else:
        timed.table.show(rows)


class _Output(FileIO):
    """An output that goes on as if nothing had happened when the reader of a pipe leaves, as ``head`` does."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            _discard(self.fileno())
            return len(data)


def _discard(number: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _output(stream: TextIO | None) -> TextIO:
    """Return an output that nobody needs to read: one that was closed before the start leads nowhere."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, TextIOWrapper):
        return stream
    stream.reconfigure(errors="replace")  # authors' names where the output knows ASCII only
    if stream.isatty():
        return stream
    pipe = BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
    return TextIOWrapper(pipe, encoding=stream.encoding, errors="replace", line_buffering=True)


def main() -> None:
    """Run the command line; an interrupt or a full output ends it in one line."""
    sys.stdout, sys.stderr = _output(sys.stdout), _output(sys.stderr)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # a fault found here would end in a traceback later
    except KeyboardInterrupt:
        print("recsolve: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        print(f"recsolve: error: {error}", file=sys.stderr)
        _discard(1)
        sys.exit(1)
