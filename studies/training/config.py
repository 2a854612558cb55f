"""What a training run is: a frozen config, read from TOML and from options, stored with everything that it makes."""

from __future__ import annotations

from dataclasses import dataclass

from recsolve.studies.training import networks, tasks

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainConfig:
    """A run of ``recsolve train``.

    Attributes
    ----------
    task : str
        One of :data:`recsolve.studies.training.tasks.TASKS`.
    memory : int
        N of the tasks that ask for the last N inputs.
    layer : str
        What the recurrent layers are: ``"recsolve"``, ``"torch"`` (its own module, cuDNN on a GPU) or ``"loop"`` (the
        same cell with the same weights, one step of torch after the other).
    cell, mixing : str
        A built-in cell, or ``"affine"``, a linear recurrence with a decay per unit; how its units are coupled.
    units, layers, heads : int
        Width of everything, number of recurrent layers, heads of the mixing ``"heads"``.
    norm, residual : bool
        Whether a normalisation comes before each layer, and its input is added to its output.
    dropout : float
        Of the outputs of all layers but the last.
    method : str
        How recurrences are solved.
    tol : float
        Tolerance of the residual; 0: the default of the dtype.
    iterations : int
        Most iterations of a solve; 0: the default. With ``on_failure = "warn"`` what they give is taken as it is.
    on_failure : str
        What happens to a solve that is not met: ``"loop"``, ``"raise"`` or ``"warn"``.
    length, batch, steps : int
        Steps of time, streams side by side, and steps of the optimiser.
    rate, warmup, decay, clip : float
        Highest learning rate of AdamW, the share of the steps in which it rises, weight decay, and the largest norm of
        the gradient; 0 turns one off.
    report, save, evaluate : int
        Steps between lines of the log, checkpoints and evaluations on held-out streams; 0: at the end alone.
    held_out : int
        Streams of an evaluation.
    precision : str
        ``"float32"``, or ``"bfloat16"`` by autocast.
    seed : int
    """

    task: str = "text"
    memory: int = 8
    layer: str = "recsolve"
    cell: str = "pararnn_gru"
    mixing: str = "diagonal"
    units: int = 128
    layers: int = 2
    heads: int = 4
    norm: bool = True
    residual: bool = True
    dropout: float = 0.0
    method: str = "auto"
    tol: float = 0.0
    iterations: int = 0
    on_failure: str = "loop"
    length: int = 256
    batch: int = 16
    steps: int = 200
    rate: float = 3e-3
    warmup: float = 0.1
    decay: float = 0.0
    clip: float = 1.0
    report: int = 20
    save: int = 100
    evaluate: int = 0
    held_out: int = 16
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        tasks.get(self.task)
        for name in ("length", "batch", "units", "layers", "heads", "report", "held_out", "memory"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted 1 or more")
        for name in ("steps", "save", "evaluate", "iterations", "tol", "rate", "decay", "clip", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted 0 or more")
        for name in ("dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted at least 0 and less than 1")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; wanted {' or '.join(PRECISIONS)}")
        networks.check(self)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step: it rises in a line, then falls as a cosine to a tenth."""
        from math import cos, pi

        rising = self.warmup * self.steps
        if step < rising:
            return self.rate * (step + 1) / (rising + 1)
        done = (step - rising) / max(self.steps - rising, 1)
        return self.rate * (0.1 + 0.45 * (1 + cos(pi * min(done, 1.0))))
