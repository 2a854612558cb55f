"""``recsolve bench``: times of kernels, solves and training on this machine."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from recsolve.studies.command import completion, distributed_run
from recsolve.studies.command.shared import ERRORS, Json, check_output, fail, print_json
from recsolve.studies.draw import tables

bench = typer.Typer(no_args_is_help=True, help="Time kernels beside copies of the same bytes.")


@bench.callback()
def bench_options() -> None:
    """Time kernels beside copies of the same bytes."""


@bench.command()
def cpu(
    what: Annotated[
        str,
        typer.Option(
            help="What to time: scan, solve, graph, history or train.",
            autocompletion=completion.one_of(completion.timed("cpu")),
        ),
    ] = "scan",
    repeats: Annotated[int, typer.Option(help="Timed runs of each kernel.")] = 25,
    numbers: Annotated[int, typer.Option(help="T x batch x units, a power of two.")] = 1 << 22,
    as_json: Json = False,
) -> None:
    """Time compiled scans or solves on this machine: medians, quartiles, ratios in the same run, errors."""
    _bench("cpu", what, as_json, repeats=repeats, numbers=numbers)


@bench.command()
def gpu(
    what: Annotated[
        str,
        typer.Option(
            help="What to time: call, scan, solve, dense or train.",
            autocompletion=completion.one_of(completion.timed("gpu")),
        ),
    ] = "scan",
    repeats: Annotated[int, typer.Option(help="Timed runs of each kernel.")] = 10,
    shapes: Annotated[
        str | None, typer.Option(help="Of the board, with commas: S1, ..., S6, odd 1, ..., odd 4.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The diagonal scan, or the board of solves, alone.")] = False,
    as_json: Json = False,
) -> None:
    """Time public calls, scans, fused solves, or layers of torch on a GPU: ratios to a copy, errors beside them."""
    chosen: dict[str, Any] = {} if shapes is None else {"shapes": tuple(name.strip() for name in shapes.split(","))}
    _bench("gpu", what, as_json, repeats=repeats, quick=quick, **chosen)


@bench.command()
def train(
    device: Annotated[str, typer.Option(help="cpu or gpu.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Timed runs of each case.")] = 25,
    quick: Annotated[bool, typer.Option("--quick", help="One layer alone.")] = False,
    as_json: Json = False,
) -> None:
    """Time training: forward and backward of layers and models, beside torch's own and plain loops."""
    if device not in ("cpu", "gpu"):
        raise fail(ValueError(f"--device is {device!r}; wanted cpu or gpu"))
    _bench(device, "train", as_json, repeats=repeats, quick=quick)


@bench.command()
def distributed(
    ranks: Annotated[
        int | None,
        typer.Option(help="Start so many ranks on this host.", show_default="2, or torchrun's"),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(
            help="What to time; may be repeated: scan-forgets, gru-remembers, ...",
            show_default="all",
            autocompletion=completion.one_of(completion.shared_calls),
        ),
    ] = None,
    length: Annotated[int, typer.Option(help="Steps of all ranks, or of each; dense, train: 1/16.")] = 1 << 18,
    units: Annotated[int, typer.Option(help="Width of the state.")] = 64,
    batch: Annotated[int, typer.Option(help="Number of sequences.")] = 1,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where each rank has one.")] = "auto",
    repeats: Annotated[int, typer.Option(help="Timed runs of each.")] = 9,
    subsets: Annotated[
        str | None, typer.Option(help="Numbers of ranks to try, with commas.", show_default="all up to 8")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figure and the numbers.")] = Path("recsolve-bench"),
    as_json: Json = False,
) -> None:
    """Time calls whose steps are shared by ranks, beside one rank alone, and beside a model of their cost."""
    from recsolve.studies.bench.scaling import Scaling, subsets_of
    from recsolve.studies.bench.world import launched, size_of, start

    chosen: dict[str, Any] = {} if case is None else {"cases": tuple(dict.fromkeys(case))}
    began = time.time()
    try:
        config = Scaling(length=length, units=units, batch=batch, dtype=dtype, repeats=repeats, **chosen)
        size = size_of(ranks, device)
        run = partial(distributed_run.on_rank, config, device, subsets_of(subsets, size), out, as_json)
        check_output(out, *distributed_run.FILES)
        code = run(0, size, "") if launched() or size == 1 else start(size, run)
    except ERRORS as error:
        raise fail(error) from None
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":  # one says it, of those that a launcher has started
            kept = out / distributed_run.FILES[0]
            some = kept.exists() and kept.stat().st_mtime >= began  # else it is of an earlier run
            said = f"; what has been measured is in {out}" if some else " before anything was measured"
            print(f"recsolve: interrupted{said}", file=sys.stderr)
        code = 130
    if code:
        raise typer.Exit(code)


def _bench(machine: str, what: str, as_json: bool, **options: Any) -> None:
    """Take times one after the other, and print them."""
    from recsolve.studies.bench import board, get
    from recsolve.studies.store.provenance import provenance

    rows = []
    try:
        timed = get(machine, what)
        with tables.progress() as status:
            for row in timed.rows(board.Config(**options)):
                rows.append(row)
                status(timed.table.label(row))
    except ERRORS as error:
        raise fail(error) from None
    if as_json:
        print_json({**provenance(), "rows": rows})
    else:
        timed.table.show(rows)
