"""Time constants under a curriculum: do they grow with the memory that is asked for, and what does that cost a solver?

Leaky units with trained time constants learn N-parity or N-delayed match to sample for N = 2, 3, ...: with one head
that always asks for the present N, or with a head for every N so far (Khajehabdollahi et al., arXiv 2309.12927, who
find that with one head the constants grow with N, and with many they stay small and the weights carry the memory).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recsolve.studies.draw.series import legend_of
from recsolve.studies.draw.style import integer_ticks
from recsolve.studies.registry import Picture, Table, study_of
from recsolve.studies.store.records import Point, Row, product

if TYPE_CHECKING:
    from xarray import Dataset

CURRICULA = ("one head", "many heads")
LEARNED = 0.98  # the share of right answers at which N grows


@dataclass(frozen=True)
class Config:
    """N grows from 2 to ``largest``, after ``steps`` steps at most; time constants begin at ``tau`` steps."""

    tasks: tuple[str, ...] = ("parity", "match")
    units: int = 48
    largest: int = 5
    steps: int = 150
    length: int = 40
    batch: int = 32
    rate: float = 1e-2
    tau: float = 1.2
    seeds: int = 1
    device: str = "cpu"


FULL = Config(units=128, largest=16, steps=1500, length=80, batch=64, rate=3e-3, seeds=2, device="cuda")
TINY = Config(tasks=("parity",), units=12, largest=3, steps=8, length=20, batch=8)


def grid(config: Config) -> Iterator[Point]:
    yield from product(
        task=config.tasks, curriculum=CURRICULA, units=config.units, largest=config.largest, steps=config.steps,
        length=config.length, batch=config.batch, rate=config.rate, tau=config.tau, seed=range(config.seeds),
        device=config.device, dtype="float32",
    )  # fmt: skip


def run(
    *, task: str, curriculum: str, units: int, largest: int, steps: int, length: int, batch: int, rate: float,
    tau: float, seed: int, device: str, dtype: str,
) -> list[Row]:  # fmt: skip
    learner = _Learner(task, curriculum == "many heads", units, length, batch, rate, tau, seed, device)
    return [learner.learn(memory, steps) for memory in range(2, largest + 1)]


class _Learner:
    """Leaky units, a head for each N, and an optimiser of both."""

    def __init__(
        self,
        task: str,
        many: bool,
        units: int,
        length: int,
        batch: int,
        rate: float,
        tau: float,
        seed: int,
        device: str,
    ):
        import torch

        from recsolve.nn import Recurrent
        from recsolve.studies.training import tasks

        torch.manual_seed(seed)
        self.torch, self.task, self.many, self.device = torch, tasks.get(task), many, torch.device(device)
        self.length, self.batch, self.rate, self.seed, self.drawn = length, batch, rate, seed, 0
        self.layers = Recurrent("leaky", 1, units, mixing="dense").to(self.device)
        self.heads: dict[int, Any] = {}
        (self.rates,) = (x for name, x in self.layers.named_parameters() if name.endswith("parameter_rate"))
        with torch.no_grad():
            self.rates.fill_(-float(np.log(tau - 1)))  # 1 / sigmoid(rate) = tau

    def learn(self, memory: int, steps: int) -> Row:
        """Train for one N until it is learned, and return what came of it."""
        head = self.torch.nn.Linear(self.layers.hidden_size, 2).to(self.device)
        self.heads = {**self.heads, memory: head} if self.many else {memory: head}
        weights = [*self.layers.parameters(), *(p for h in self.heads.values() for p in h.parameters())]
        optimizer = self.torch.optim.Adam(weights, lr=self.rate)
        right, taken = 0.0, 0
        while taken < steps and right < LEARNED:
            taken += 1
            loss, right = self._loss()
            optimizer.zero_grad()
            loss.backward()
            self.torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
        return {"memory": memory, "steps": taken, "right": right, **self._looked_at(memory)}

    def _draw(self, memory: int) -> tuple[Any, Any]:
        from recsolve.studies.training.tasks import Stream

        self.drawn += 1
        rng = np.random.default_rng((self.seed, self.drawn))
        bits, answers = self.task.draw(Stream(self.length, self.batch, memory, False, rng))
        return bits, answers

    def _loss(self) -> tuple[Any, float]:
        """Return the loss of all heads on one stream of bits, and the smallest share of right answers."""
        from recsolve.studies.training.tasks import NONE

        total, state = 0.0, self.drawn
        shares: list[float] = []
        for memory, head in self.heads.items():
            self.drawn = state  # the same bits, and another question
            bits, answers = self._draw(memory)
            if not shares:
                states = self._states(bits)
            scores = head(states).flatten(0, 1)
            asked = self.torch.from_numpy(answers).to(self.device).flatten()
            total = total + self.torch.nn.functional.cross_entropy(scores, asked, ignore_index=NONE)
            chosen = asked != NONE
            shares.append(float((scores.argmax(-1) == asked)[chosen].float().mean()))
        return total / len(self.heads), min(shares)

    def _states(self, bits: Any) -> Any:
        x = self.torch.from_numpy(2.0 * bits[..., None] - 1.0).to(self.device, self.torch.float32)
        return self.layers(x)[0]

    def _looked_at(self, memory: int) -> Row:
        from recsolve.studies.training.probe import probe

        constants = 1 + np.exp(-self.rates.detach().cpu().numpy().astype(float))
        x = self.torch.from_numpy(2.0 * self._draw(memory)[0][:, :2, None] - 1.0).to(self.device, self.torch.float32)
        return {
            "tau": float(constants.mean()), "tau_largest": float(constants.max()), **probe(_Alone(self.layers), x)
        }  # fmt: skip


class _Alone:
    """Layers without what comes before and after them, as :func:`probe` takes them."""

    def __init__(self, layers: Any):
        self.layers = layers

    def eval(self) -> Any:
        return self.layers.eval()


def _curve(data: Dataset, name: str, task: str, curriculum: str) -> Any:
    return data[name].sel(task=task, curriculum=curriculum).mean("seed")


def _tasks(data: Dataset) -> list[str]:
    return [str(task) for task in data["task"].values]


def facts(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {"largest": int(data["memory"].max())}
    for task in _tasks(data):
        for curriculum in CURRICULA:
            name = f"{task}.{curriculum}"
            for what in ("tau", "newton", "exponent", "right", "steps"):
                found[f"{name}.{what}"] = [float(x) for x in _curve(data, what, task, curriculum).values]
            learned = data["memory"].values[_curve(data, "right", task, curriculum).values >= LEARNED]
            found[f"{name}.learned"] = int(learned.max()) if len(learned) else 1
    return found


_LOOKS = {"one head": ("#0072B2", "-", "o"), "many heads": ("#D55E00", "--", "s")}


def draw_constants(pyplot: Any, data: Dataset) -> Any:
    tasks = _tasks(data)
    shown = {"tau": "mean time constant, steps", "steps": "steps to learn N", "newton": "iterations of newton"}
    size = (9.6, 2.5 * len(tasks) + 0.4)
    figure, axes = pyplot.subplots(len(tasks), len(shown), figsize=size, sharex=True, sharey="col", squeeze=False)
    for row, task in zip(axes, tasks, strict=True):
        for ax, (name, label) in zip(row, shown.items(), strict=True):
            for curriculum in CURRICULA:
                color, line, marker = _LOOKS[curriculum]
                look = {"color": color, "linestyle": line, "marker": marker, "label": curriculum}
                ax.plot(data["memory"], _curve(data, name, task, curriculum), **look)
            ax.set(title=task, ylabel=label)
            ax.set_xticks([int(x) for x in data["memory"].values][:: max(len(data["memory"]) // 6, 1)])
    for ax in axes[:, -1]:
        integer_ticks(ax.yaxis)
    for ax in axes[-1]:
        ax.set_xlabel("N, steps to remember")
    legend_of(figure, axes[0, 0])
    return figure


def says_constants(data: Dataset) -> str:
    f, tasks = facts(data), _tasks(data)
    grown = {
        curriculum: all(f[f"{task}.{curriculum}.tau"][-1] > f[f"{task}.{curriculum}.tau"][0] for task in tasks)
        for curriculum in CURRICULA
    }
    held = grown["one head"] and not grown["many heads"]
    with_heads = " and ".join(c for c in CURRICULA if grown[c]) or "neither"
    most = max(f[f"{task}.{curriculum}.learned"] for task in tasks for curriculum in CURRICULA)
    newton = {c: max(f[f"{task}.{c}.newton"][-1] for task in tasks) for c in CURRICULA}
    return (
        f"Published is that time constants grow with N with one head and stay small with many; here "
        f"{'that holds' if held else f'they grow with {with_heads}'}, up to the N = {most} that was learned. Newton's "
        f"iterations are then {' and '.join(f'{n:g} ({c})' for c, n in newton.items())} at most, over the tasks."
    )


def tables(data: Dataset) -> list[Table]:
    f = facts(data)
    rows = [
        [task, curriculum, str(f[f"{task}.{curriculum}.learned"]), f"{f[f'{task}.{curriculum}.tau'][-1]:.3f}",
         f"{f[f'{task}.{curriculum}.newton'][-1]:g}", f"{f[f'{task}.{curriculum}.exponent'][-1]:.3f}"]
        for task in _tasks(data) for curriculum in CURRICULA
    ]  # fmt: skip
    head = ["task", "curriculum", "largest N learned", "mean time constant", "iterations of newton", "exponent"]
    return [Table(f"After the last N, {f['largest']}", head, rows)]


STUDY = study_of(
    __name__,
    name="curriculum",
    question="Do trained time constants grow with the memory that is asked for, and what does that cost a solver?",
    dims=("task", "curriculum", "seed", "memory"),
    pictures=(Picture("constants", draw_constants, says_constants),),
)
