"""The training loop: draw, predict, go down, log; stop at any time and go on bit for bit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.base.arrays import Array
from recsolve.studies.store.configs import configured, to_toml
from recsolve.studies.store.files import finite_or_text, replace_into_place
from recsolve.studies.training import checkpoint, tasks
from recsolve.studies.training.config import TrainConfig

Row = dict[str, Any]
FILES = _CONFIG, _LOG, _CHECKPOINT = "config.toml", "log.jsonl", "checkpoint.safetensors"  # of a run
TRAINING, HELD_OUT, _DROPOUT = 0, 1, 2  # what random numbers are drawn for


def _device(name: str) -> Any:
    import torch

    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ValueError(f"device is {name!r}; wanted cpu, cuda, or cuda:0 and so on")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {name!r}, but torch sees no GPU here; wanted cpu")
    return torch.device(name)


class Run:
    """A training run in a folder: ``config.toml``, ``log.jsonl``, a line per report, and ``checkpoint.safetensors``.

    Parameters
    ----------
    config : TrainConfig
    folder : Path, optional
        Default: nothing is written.
    device : str

    Raises
    ------
    ValueError
        When the folder holds a run of another config, or a checkpoint that cannot be read.
    ImportError
        Without torch; the message names the extra.

    Examples
    --------
    >>> from recsolve.studies.training.config import TrainConfig
    >>> from recsolve.studies.training.train import Run
    >>> run = Run(TrainConfig(task="parity", units=8, layers=1, length=16, batch=2, steps=2, report=1))
    >>> [row["step"] for row in run.rows()]
    [1, 2]
    """

    def __init__(self, config: TrainConfig, folder: Path | None = None, device: str = "cpu"):
        try:
            import torch
        except ImportError:
            raise ImportError("training needs torch: pip install 'recsolve[train]'") from None
        from recsolve.studies.training.modules import Network

        self.config, self.folder, self.device, self.step = config, folder, _device(device), 0
        self._losses: list[float] = []  # since the last line of the log
        self._whole = True  # whether weights and state of the optimiser are those after ``step`` steps
        self.task = tasks.get(config.task)
        torch.manual_seed(config.seed)
        self.network = Network(config).to(self.device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.0, weight_decay=config.decay)
        if folder is not None:
            self._open(folder)

    def _open(self, folder: Path) -> None:
        """Take up the run of a folder, or begin one there."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _CHECKPOINT
        if path.is_file():
            found = checkpoint.read(path)
            # A run may be made longer or speak more often; all that its numbers depend on is as it was.
            stored = replace(
                configured(TrainConfig(), found.config), steps=self.config.steps, report=self.config.report,
                save=self.config.save, evaluate=self.config.evaluate, held_out=self.config.held_out,
            )  # fmt: skip
            if stored != self.config:
                differing = sorted(set(to_toml(self.config).splitlines()) - set(to_toml(stored).splitlines()))
                raise ValueError(
                    f"{folder} holds a run of another config, without {', '.join(differing)}; wanted an empty folder"
                )
            checkpoint.restore(found, self.network, self.optimizer, path)
            self.step, self._losses = found.step, found.losses
        with replace_into_place(folder / _CONFIG) as part:
            part.write_text(to_toml(self.config), encoding="utf-8")
        kept = [row for row in self.log() if row["step"] <= self.step]
        with replace_into_place(folder / _LOG) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def log(self) -> list[Row]:
        """Return the lines of the log that there are."""
        path = None if self.folder is None else self.folder / _LOG
        if path is None or not path.is_file():
            return []
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:  # the last one, of a run that was killed while it wrote
                break
        return rows

    def rows(self, tick: Callable[[int, float], None] = lambda step, loss: None) -> Iterator[Row]:
        """Train, and yield what is logged; when it is left early, what is done is stored.

        Parameters
        ----------
        tick : callable
            ``tick(step, loss)`` after every step.
        """
        config, began, here = self.config, time.perf_counter(), self.step
        try:
            while self.step < config.steps:
                loss = self.descend()
                tick(self.step, loss)
                last = self.step == config.steps
                if last or self.step % config.report == 0:
                    seconds = time.perf_counter() - began
                    row = self._row(self.step - here, seconds)
                    if last or (config.evaluate and self.step % config.evaluate == 0):
                        row |= self.evaluate()
                    self._write(row)
                    yield row
                    began, here = time.perf_counter(), self.step
                if not last and config.save and self.step % config.save == 0:
                    self._save()
        finally:
            if self._whole:
                self._save()

    def descend(self) -> float:
        """Take one step of the optimiser, and return the loss before it."""
        import torch

        config = self.config
        torch.manual_seed(int(np.random.SeedSequence((config.seed, _DROPOUT, self.step)).generate_state(1)[0]))
        self.network.train()
        self.optimizer.zero_grad()
        loss, _ = self.loss(*self.draw(TRAINING, self.step))
        loss.backward()
        if config.clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        found = float(loss.detach())
        if not np.isfinite(found):
            raise ArithmeticError(f"the loss of step {self.step + 1} is {found}; lower rate, or set clip")
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate(self.step)
        self._whole = False
        self.optimizer.step()
        self.step, self._whole = self.step + 1, True
        self._losses.append(found)
        return found

    def draw(
        self, purpose: int, number: int, length: int | None = None, batch: int | None = None
    ) -> tuple[Array, Array]:
        """Return streams: what they are depends on the seed, the purpose and the number alone."""
        config = self.config
        rng = np.random.default_rng(np.random.SeedSequence((config.seed, purpose, number)))
        length, batch = length or config.length, batch or config.batch
        return self.task.draw(tasks.Stream(length, batch, config.memory, purpose == HELD_OUT, rng))

    def loss(self, inputs: Array, answers: Array) -> tuple[Any, Any]:
        """Return the mean cross-entropy, and the share of right answers, where answers are asked for."""
        import torch

        given = torch.from_numpy(np.ascontiguousarray(inputs)).to(self.device)
        asked = torch.from_numpy(np.ascontiguousarray(answers)).to(self.device).flatten()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            scores = self.network(given).flatten(0, 1)
        chosen = asked != tasks.NONE
        right = (scores.argmax(-1) == asked)[chosen].float().mean()
        return torch.nn.functional.cross_entropy(scores.float(), asked, ignore_index=tasks.NONE), right

    def evaluate(self, length: int | None = None) -> Row:
        """Return the loss and the share of right answers on streams that training has not seen.

        Parameters
        ----------
        length : int, optional
            Steps of the streams; default: as in training.
        """
        import torch

        self.network.eval()
        with torch.no_grad():
            loss, right = self.loss(*self.draw(HELD_OUT, 0, length, self.config.held_out))
        return {"held_out_loss": float(loss), "held_out_right": float(right)}

    def _row(self, steps: int, seconds: float) -> Row:
        """Return a line of the log, of steps that took some time; the loss is that of all since the last line."""
        loss, self._losses = float(np.mean(self._losses)), []
        tokens = self.config.length * self.config.batch * steps
        return {
            "step": self.step, "loss": loss, "seconds": seconds, "tokens_per_second": tokens / seconds
        } | self._counted()  # fmt: skip

    def _counted(self) -> Row:
        from recsolve.studies.training.modules import counted

        return counted(self.network)

    def _write(self, row: Row) -> None:
        if self.folder is not None:
            with open(self.folder / _LOG, "a", encoding="utf-8") as file:
                file.write(json.dumps(finite_or_text(row)) + "\n")

    def _save(self) -> None:
        if self.folder is not None:
            checkpoint.save(
                self.folder / _CHECKPOINT, self.network, self.optimizer, self.step, self._losses,
                self.config,
            )  # fmt: skip
