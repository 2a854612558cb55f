"""``recsolve bench``: times of kernels, solves and training on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from recsolve.studies.command import completion
from recsolve.studies.command.shared import ERRORS, Json, fail, print_json
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
