"""Train the networks of this folder, by plain loops on the CPU: ``python -m recsolve.studies.trained.train``.

With names of networks behind it, only these. It takes a minute each and writes NAME.safetensors beside this file: the
weights ``before.``, ``during.`` and ``after.`` training, each with the embedding of bytes where there is one. What it
prints is the loss and the share of right answers, in the end on streams that the network has not seen.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from recsolve.studies.trained.tasks import TASKS

FOLDER = Path(__file__).parent
UNITS = {"recall": 32, "parity": 32, "digits": 48, "english": 64}
CLASSES = {"recall": 8, "parity": 2, "digits": 10, "english": 128}
CHANNELS = {"recall": 9, "parity": 1, "digits": 2, "english": 16}
STEPS = {"recall": 1500, "parity": 1500, "digits": 3000, "english": 3000}
DURING = 6  # the share of the steps after which the weights during training are taken
LENGTH, BATCH = 150, 32


class Network:
    """A recurrent layer between an embedding, for bytes, and a linear layer that answers."""

    def __init__(self, kind: str, task: str):
        from torch import nn

        self.task = task
        layer = {"gru": nn.GRU, "lstm": nn.LSTM}[kind]
        self.layer = layer(CHANNELS[task], UNITS[task])
        self.embedding = nn.Embedding(128, CHANNELS[task]) if task == "english" else None
        self.answer = nn.Linear(UNITS[task], CLASSES[task])
        self.parameters = [p for module in (self.layer, self.embedding, self.answer) if module
                           for p in module.parameters()]  # fmt: skip

    def loss(self, rng: np.random.Generator, length: int = LENGTH) -> tuple[Any, float]:
        """Return the cross-entropy on new streams, and the share of right answers."""
        import torch

        inputs, answers = TASKS[self.task](length, BATCH, rng)
        x = torch.from_numpy(inputs)
        states, _ = self.layer(x if self.embedding is None else self.embedding(x.long()))
        asked = torch.from_numpy(answers).flatten()
        scores = self.answer(states).flatten(0, 1)
        right = (scores.argmax(-1) == asked)[asked >= 0].float().mean()
        return torch.nn.functional.cross_entropy(scores, asked, ignore_index=-1), float(right)

    def weights(self, stage: str) -> dict[str, Any]:
        """Return copies of the weights of the layer and the embedding, by name with the stage before it."""
        modules = {"layer": self.layer, "embedding": self.embedding}
        named = {f"{stage}.{part}.{name}": w for part, module in modules.items() if module
                 for name, w in module.state_dict().items()}  # fmt: skip
        return {name: w.numpy().copy() for name, w in named.items()}


def train(kind: str, task: str, seed: int = 0) -> dict[str, Any]:
    """Return the weights before, during and after training, by name."""
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network, rng = Network(kind, task), np.random.default_rng(seed)
    steps, found = STEPS[task], network.weights("before")
    optimizer = torch.optim.Adam(network.parameters, lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for step in range(steps):
        if step == steps // DURING:
            found |= network.weights("during")
        loss, right = network.loss(rng)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            sys.stdout.write(f"{task}-{kind} step {step}: loss {float(loss.detach()):.3f}, right {right:.3f}\n")
            sys.stdout.flush()
    with torch.no_grad():
        loss, right = network.loss(np.random.default_rng(10_000), 1000)
    sys.stdout.write(f"{task}-{kind} after {steps}: loss {float(loss):.3f}, right {right:.3f} over 1000 steps\n")
    return found | network.weights("after")


def main(names: list[str]) -> None:
    """Train some networks, or all, and write their weights."""
    from safetensors.numpy import save_file

    for name in names or [f"{task}-{kind}" for task in TASKS for kind in ("gru", "lstm")]:
        task, _, kind = name.partition("-")
        save_file(train(kind, task), FOLDER / f"{name}.safetensors")


if __name__ == "__main__":
    main(sys.argv[1:])
