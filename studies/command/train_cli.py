"""``recsolve train``: train a network with recurrent layers, watch it, stop it, go on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from recsolve.base.progress import bar_of
from recsolve.studies.command import completion
from recsolve.studies.command.shared import ERRORS, Config, Settings, check_output, fail, text_of

if TYPE_CHECKING:
    from recsolve.studies.training.config import TrainConfig


def train(
    task: Annotated[
        str | None,
        typer.Argument(
            help="text, parity, match, s3, s5, copy or digits.", autocompletion=completion.one_of(completion.tasks)
        ),
    ] = None,
    config: Config = None,
    settings: Settings = None,
    out: Annotated[Path, typer.Option(help="Folder of config, log and checkpoint; a run there goes on.")] = Path(
        "recsolve-train"
    ),
    device: Annotated[str, typer.Option(help="cpu, or cuda.")] = "cpu",
    show: Annotated[bool, typer.Option("--show", help="Print the config as TOML, and train nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines of the log as JSON.")] = False,
) -> None:
    """Train recurrent layers in parallel over time. Interrupt it at any time; run it again to go on."""
    from recsolve.studies.store.configs import configured, to_toml
    from recsolve.studies.training.config import TrainConfig
    from recsolve.studies.training.train import FILES

    try:
        chosen = [*([] if task is None else [f"task={task}"]), *(settings or ())]
        wanted = configured(TrainConfig(), text_of(config), chosen)
        if show:
            print(to_toml(wanted), end="")
            return
        check_output(out, *FILES)
        _train(wanted, out, device, as_json)
    except KeyboardInterrupt:
        print(f"recsolve: interrupted; the same command goes on from {out}", file=sys.stderr)
        raise typer.Exit(130) from None
    except (*ERRORS, RuntimeError) as error:
        raise fail(error) from None


def _train(config: TrainConfig, out: Path, device: str, as_json: bool) -> None:
    from recsolve.studies.training.train import FILES, Run

    run = Run(config, out, device)
    if run.step:
        print(f"{out} has {run.step} of {config.steps} steps", file=sys.stderr)
    say = _as_json if as_json else _as_text
    with bar_of("step") as bar:

        def tick(step: int, loss: float) -> None:
            if bar is not None:
                bar(step, config.steps, f"loss {loss:.4f}")

        for row in run.rows(tick):
            say(row)
    if not as_json:
        print(f"wrote {out}: {', '.join(FILES)}")


def _as_json(row: dict[str, Any]) -> None:
    from recsolve.studies.store.files import finite_or_text

    print(json.dumps(finite_or_text(row), allow_nan=False), flush=True)


def _as_text(row: dict[str, Any]) -> None:
    """Print a line of the log for people."""
    parts = [f"step {row['step']}", f"loss {row['loss']:.4f}", f"{row['tokens_per_second']:,.0f} tokens/s"]
    if row.get("solves"):
        parts.append(f"{row['iterations'] / row['solves']:.1f} iterations a solve")
        parts.append(f"{row['completed']} of {row['solves']} completed by the loop")
    if "held_out_loss" in row:
        parts.append(f"held out: loss {row['held_out_loss']:.4f}, right {row['held_out_right']:.1%}")
    Console(soft_wrap=True, highlight=False).print(", ".join(parts), markup=False)
