"""Training: forward and backward of recurrent layers, and whole models, beside torch's own and beside plain loops.

A step is the forward pass, a loss that weighs every output, and the backward pass to the input and all weights. The
plain loop is the same cell with the same weights, one step of torch after the other, as it is and with its step
compiled by ``torch.compile``. ``products`` is the time of the products of the input projection, forward and backward,
which are torch's own; the floor is a copy of the bytes that must move besides: forward the drives are read and the
states written, backward drives, states and cotangents are read and cotangents of the drives written. Errors are those
of the gradients against the loop in float64, relative to the largest entry of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from recsolve.studies.bench import table
from recsolve.studies.bench.board import Config
from recsolve.studies.bench.harness import Bench, Gpu, copies, ratio, relative_error
from recsolve.studies.bench.table import Row
from recsolve.studies.timing import in_turns
from recsolve.studies.training.config import TrainConfig

# Which drive makes a cell remember, and the bias of it with which it does.
MEMORY = {"pararnn_gru": ("z", -4.0), "pararnn_lstm": ("f", 4.0), "gru": ("z", 4.0), "lstm": ("f", 4.0)}
CALLS = 8  # after which a layer has found what is fast
_ENOUGH = 20.0  # seconds of one case


@dataclass(frozen=True)
class Case:
    """A layer that is timed."""

    cell: str
    mixing: str
    batch: int
    length: int
    units: int
    remembers: bool

    @property
    def words(self) -> str:
        return f"{self.cell}, {self.mixing}"


def cases(on_gpu: bool) -> list[Case]:
    """Return the layers that are timed on a machine, on data that forget and on data that remember."""
    if on_gpu:
        shapes = [("pararnn_gru", "diagonal", 8, 2048, 1024), ("pararnn_lstm", "diagonal", 8, 2048, 1024),
                  ("gru", "dense", 1, 16384, 256)]  # fmt: skip
    else:
        shapes = [("pararnn_gru", "diagonal", 8, 2048, 256), ("gru", "dense", 1, 2048, 64)]
    return [Case(*shape, remembers) for shape in shapes for remembers in (False, True)]


class Machine:
    """Where steps are timed: the CPU, or a GPU behind :class:`recsolve.studies.bench.harness.Gpu`."""

    def __init__(self, config: Config, gpu: Gpu | None):
        self.config, self.gpu = config, gpu
        self.device = "cpu" if gpu is None else gpu.torch

    def wait(self) -> None:
        if self.gpu is not None:
            self.gpu.wait()

    def medians(self, runs: list[Callable[[], Any]]) -> list[float]:
        """Return median times of calls, taken in turns."""
        seconds = in_turns(runs, max(self.config.repeats // 3, 1), _ENOUGH, settle=self.wait)
        return [float(x) for x in np.median(seconds, axis=1)]

    def floor(self, size: int) -> float:
        """Return how long a copy takes to read and write so many bytes in all."""
        if self.gpu is not None:
            return self.gpu.floor(size)
        return self.medians([copies(size)[0]])[0]


def _layers(case: Case, machine: Machine) -> dict[str, Any]:
    """Return the layer, its plain loop and torch's own, of the same weights where they have the same cell."""
    import torch

    from recsolve.nn import Recurrent
    from recsolve.studies.training.modules import Loop
    from recsolve.studies.training.networks import OF_TORCH

    torch.manual_seed(machine.config.seed)
    found: dict[str, Any] = {
        name: made(case.cell, case.units, case.units, mixing=case.mixing).to(machine.device)
        for name, made in (("recsolve", Recurrent), ("loop", Loop))
    }
    weights = found["recsolve"]._modules[f"{case.cell}_l0"]
    drive, bias = MEMORY[case.cell]
    if case.remembers:
        with torch.no_grad():
            place = weights.drives.index(drive) * case.units
            weights.bias_ih[place : place + case.units] = bias
    found["loop"].load_state_dict(found["recsolve"].state_dict())
    kind = OF_TORCH[case.cell.removeprefix("pararnn_")]
    found["torch"] = getattr(torch.nn, kind)(case.units, case.units).to(machine.device)
    return found


def _step(layer: Any, x: Any, weight: Any) -> Callable[[], Any]:
    """Return a function that takes a step of training without the optimiser, and returns the gradients."""
    import torch

    wanted = [x, *layer.parameters()]

    def step() -> Any:
        return torch.autograd.grad((layer(x)[0] * weight).sum(), wanted, allow_unused=True)

    return step


def _time(case: Case, machine: Machine) -> Row:
    import torch

    layers = _layers(case, machine)
    x = torch.randn(case.length, case.batch, case.units, device=machine.device, requires_grad=True)
    weight = torch.randn_like(x)
    steps = {name: _step(layer, x, weight) for name, layer in layers.items()}
    layers["compiled"] = _compiled(layers["loop"])
    steps["compiled loop"] = _step(layers["compiled"], x, weight)
    for _ in range(CALLS):
        found = steps["recsolve"]()
    states = case.length * case.batch * case.units * x.element_size()
    drives = len(layers["recsolve"]._modules[f"{case.cell}_l0"].drives)
    projection = torch.nn.Linear(case.units, drives * case.units, device=machine.device)
    spread = torch.randn(case.length, case.batch, drives * case.units, device=machine.device)
    steps["products"] = lambda: torch.autograd.grad(projection(x), [x, *projection.parameters()], spread)
    times = dict(zip(steps, machine.medians(list(steps.values())), strict=True))
    components = 2 if "lstm" in case.cell else 1
    floor = machine.floor((3 * drives + 2 * components + 1) * states)
    truth = _truth(layers["loop"], x, weight)
    counters = layers["recsolve"].counters
    errors = [relative_error(a.double(), b) for a, b in zip(found, truth, strict=True) if b is not None]
    return {
        "what": case.words, "shape": f"B{case.batch} T{case.length} D{case.units}",
        "memory": "remembers" if case.remembers else "forgets",
        **{name.replace(" ", "_"): seconds for name, seconds in times.items()}, "floor": floor,
        "over_floor": ratio(times["recsolve"], floor + times["products"]),
        "over_torch": ratio(times["torch"], times["recsolve"]),
        "over_loop": ratio(min(times["loop"], times["compiled loop"]), times["recsolve"]),
        "iterations": counters.worst, "completed": counters.completed,
        "error": max(e for e in errors if e is not None), "tokens": None,
    }  # fmt: skip


def _compiled(loop: Any) -> Any:
    """Return the plain loop with its step compiled."""
    import copy

    import torch

    compiled = copy.deepcopy(loop)
    compiled.step = torch.compile(loop.step)
    return compiled


def _truth(loop: Any, x: Any, weight: Any) -> Any:
    """Return the gradients of the plain loop in float64."""
    import copy

    exact = x.detach().double().requires_grad_()
    return _step(copy.deepcopy(loop).double(), exact, weight.double())()


def _models(machine: Machine) -> Iterator[Row]:
    """Time steps of whole models on bytes of English, with cells of ours and with torch's."""
    from recsolve.studies.training.train import Run

    wide = machine.gpu is not None
    base = TrainConfig(
        task="text", units=512 if wide else 64, layers=4, length=4096 if wide else 512, batch=8, steps=10_000
    )
    configs = {
        "model, pararnn_gru": base,
        "model, gru of torch": replace(base, layer="torch", cell="gru", mixing="dense"),
    }
    runs = {name: Run(config, device=machine.device) for name, config in configs.items()}
    times = machine.medians([run.descend for run in runs.values()])
    for name, seconds in zip(runs, times, strict=True):
        shape = f"B{base.batch} T{base.length} D{base.units}, 4 layers"
        blank = dict.fromkeys(("compiled_loop", "loop", "products", "floor", "over_floor", "over_loop", "error"))
        ours = name != "model, gru of torch"
        yield {
            "what": name, "shape": shape, "memory": "", **blank, "recsolve": times[0] if ours else None,
            "torch": times[1], "over_torch": ratio(times[1], seconds), "iterations": None, "completed": None,
            "tokens": base.length * base.batch / seconds,
        }  # fmt: skip


def rows(config: Config, gpu: Gpu | None = None) -> Iterator[Row]:
    """Time layers and models, one after the other; on the CPU without ``gpu``.

    Raises
    ------
    ImportError
        Without torch.
    """
    if find_spec("torch") is None:
        raise ImportError("times of training need torch: pip install 'recsolve[train]'")
    machine = Machine(config, gpu)
    for case in cases(gpu is not None)[: 1 if config.quick else None]:
        yield _time(case, machine)
    if not config.quick:
        yield from _models(machine)


def rows_on_gpu(config: Config) -> Iterator[Row]:
    """Time layers and models on a GPU; ImportError without CuPy."""
    yield from rows(config, Gpu(config.repeats))


_TABLE = table.Table(
    "forward and backward, float32",
    (
        table.text("what"),
        table.text("shape"),
        table.text("memory"),
        table.number("recsolve ms", "recsolve", 1e3),
        table.number("torch ms", "torch", 1e3),
        table.number("loop ms", "loop", 1e3),
        table.number("compiled ms", "compiled_loop", 1e3),
        table.number("products ms", "products", 1e3),
        table.number("floor ms", "floor", 1e3),
        table.times("of floor", "over_floor"),
        table.times("torch's", "over_torch"),
        table.times("loop's", "over_loop"),
        table.error("error", "error"),
        table.number("tokens/s", "tokens"),
    ),
    "of floor: over the floor and the products; torch's, loop's: time of torch's layer (cuDNN on a GPU), and of the "
    "faster of both loops, over that of recsolve; error: of gradients, against the loop in float64.",
)
BENCHES = {"cpu": Bench(rows, _TABLE), "gpu": Bench(rows_on_gpu, _TABLE)}
