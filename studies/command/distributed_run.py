"""What every rank does for ``recsolve bench distributed``: all take times, the first one prints and writes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsolve.studies.command.shared import ERRORS, fail, print_json, show_notices
from recsolve.studies.command.streams import patient
from recsolve.studies.draw import tables
from recsolve.studies.store.files import finite_or_text, write_json
from recsolve.studies.store.provenance import provenance

if TYPE_CHECKING:
    from recsolve.studies.bench.scaling import Scaling
    from recsolve.studies.bench.world import World

_STEM = "distributed"
FILES = tuple(f"{_STEM}.{kind}" for kind in ("json", "png", "pdf"))


def on_rank(
    config: Scaling, device: str, subsets: tuple[int, ...], out: Path, as_json: bool, rank: int, size: int, store: str
) -> int:
    """Take all times as one of the ranks, and return the exit code.

    ``store`` is the file by which ranks meet whose processes were started for this. Without it the process is the
    command's own: the only rank, or one that a launcher has started.
    """
    from torch.distributed import DistError

    from recsolve.distributed import RankError
    from recsolve.studies.bench.world import joined

    if store:
        show_notices()
        sys.stdout, sys.stderr = patient(sys.stdout), patient(sys.stderr)
    try:
        with joined(device, subsets, rank, size, store) as world:
            rank = world.rank
            _take(config, world, subsets, out, as_json)
    except (*ERRORS, RankError, DistError) as error:
        fail(RuntimeError(f"rank {rank}: {error}") if size > 1 else error)
        return 2
    return 0


def _take(config: Scaling, world: World, subsets: tuple[int, ...], out: Path, as_json: bool) -> None:
    """Take the times, keeping each as soon as it is there, and show them at the end."""
    from recsolve.studies.bench.scaling import measure

    if world.rank:
        for _ in measure(config, world, subsets):
            pass
        return
    where, record, said = provenance(), dict[str, Any](), 0
    out.mkdir(parents=True, exist_ok=True)
    with tables.progress() as status:
        for found in measure(config, world, subsets):
            record = {**where, **found}
            write_json(out / FILES[0], finite_or_text(record))
            for row in record["rows"][said:]:
                _say(row, status)
            said = len(record["rows"])
    _show(record, out, as_json)


def _say(row: dict[str, Any], status: Any) -> None:
    """Say what has been measured: in the line of progress of a terminal, else in a line of its own."""
    text = (
        f"{row['what']}, {row['memory']}: {row['scaling']} scaling on {row['ranks']}, "
        f"{tables.three(1e3 * row['median'])} ms, {tables.three(row['speed'])}x"
    )
    status(text)
    if not sys.stderr.isatty():
        print(f"recsolve: {text}", file=sys.stderr)


def _show(record: dict[str, Any], out: Path, as_json: bool) -> None:
    """Print a table or JSON, and draw the picture."""
    from recsolve.studies.bench.distributed import TABLE, show_more
    from recsolve.studies.draw.scaling import scaling_figure

    if as_json:
        print_json(record)
    else:
        TABLE.show(record["rows"])
        show_more(record)
    paths = [out / FILES[0], *scaling_figure(record, out, _STEM)]
    print("wrote " + ", ".join(map(str, paths)), file=sys.stderr if as_json else sys.stdout)
