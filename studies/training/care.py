"""Training runs that are kept, or brought back, where solves are short, by the options of :mod:`recsolve.nn`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from recsolve.base.arrays import Array
from recsolve.studies.training.config import TrainConfig
from recsolve.studies.training.train import TRAINING, Run


@dataclass(frozen=True)
class Care:
    """What is done so that solves stay short; None: not that.

    Attributes
    ----------
    exponent : float or None
        The Lyapunov exponent of the initialisation (:func:`recsolve.nn.init_lyapunov_`).
    weight, ceiling : float or None, float
        The weight of :func:`recsolve.nn.lyapunov_penalty` in the loss, and the exponent from which it costs something.
    norm : float or None
        The bound of :func:`recsolve.nn.clip_recurrent_` after every step.
    """

    exponent: float | None = None
    weight: float | None = None
    ceiling: float = -0.05
    norm: float | None = None


class CaredRun(Run):
    """A run in which recurrent weights begin ``gain`` times as large as they are drawn, with some care.

    Attributes
    ----------
    prepared : float
        Seconds that the initialisation took.
    """

    def __init__(self, config: TrainConfig, care: Care, gain: float = 1.0, device: str = "cpu"):
        import torch

        from recsolve.nn import exponents, init_lyapunov_

        super().__init__(config, device=device)
        self.care, self.prepared = care, 0.0
        layers = self.network.layers
        with torch.no_grad():
            for name, weights in layers.named_parameters():
                if ".mixing_" in name:
                    weights.mul_(gain)
        if care.exponent is not None:
            x = self._embedded(self.draw(TRAINING, 0)[0]).detach()
            exponents(layers, x)  # compiles
            began = time.perf_counter()
            init_lyapunov_(layers, x, care.exponent)
            self.prepared = time.perf_counter() - began

    def _embedded(self, inputs: Array) -> Any:
        import torch

        return self.network.embedding(torch.from_numpy(inputs).to(self.device))

    def loss(self, inputs: Array, answers: Array) -> tuple[Any, Any]:
        """Return the loss, in training with the penalty, and the share of right answers."""
        from recsolve.nn import lyapunov_penalty

        loss, right = super().loss(inputs, answers)
        if self.care.weight is not None and self.network.training:
            penalty = lyapunov_penalty(self.network.layers, self._embedded(inputs), ceiling=self.care.ceiling)
            loss = loss + self.care.weight * penalty
        return loss, right

    def descend(self) -> float:
        """Take one step of the optimiser, bound the recurrent weights if asked, and return the loss before it."""
        from recsolve.nn import clip_recurrent_

        loss = super().descend()
        if self.care.norm is not None:
            clip_recurrent_(self.network.layers, self.care.norm)
        return loss
