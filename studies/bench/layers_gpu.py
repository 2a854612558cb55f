"""torch's own GRU and LSTM layers, solved by sweeps on the GPU beside cuDNN, which takes step after step.

All times are from the call to the result on the device, medians. Errors are against cuDNN in float64, relative to the
largest output. ``sweeps`` has its drive given; ``run`` is all of ``recsolve.run`` with the weights taken from the
module, the input projected, and the states tested once more by the driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import Any

import recsolve as rs
from recsolve.studies.bench import table
from recsolve.studies.bench.board import BOARD, Config
from recsolve.studies.bench.harness import Bench, Gpu, ratio, relative_error
from recsolve.studies.bench.table import Row

SHAPES = ("S4", "S2")  # a long one, and a wide one
CELLS = ("GRU", "LSTM")
GAINS = {"default": 1.0, "gain 1.5": 1.5, "trained": 1.0}  # on recurrent weights of torch's, up to 1 / sqrt(units)
_TRAINING = 150  # steps
_TRIALS = 8  # calls after which auto has made its choice
_DELAY, _SHOWN = 5, 8  # of the task that weights are trained on: recall so many inputs of so many steps before


def rows(config: Config, gpu: Gpu | None = None) -> Iterator[Row]:
    """Time the layers, one after the other.

    Raises
    ------
    ImportError
        Without CuPy and torch.
    ValueError
        Where none of the shapes is one on which layers are timed.
    """
    if not (shapes := [shape for shape in SHAPES if shape in config.shapes]):
        raise ValueError(f"shapes has {', '.join(config.shapes)}; layers are timed on {' and '.join(SHAPES)}")
    if find_spec("torch") is None:
        raise ImportError("layers of torch on a GPU need CuPy and torch: pip install 'recsolve[cuda13]' torch")
    gpu = gpu or Gpu(config.repeats)
    for shape, cell, weights in product(shapes, CELLS, GAINS):
        yield _time(cell, shape, weights, gpu, config)


def _time(cell: str, shape: str, weights: str, gpu: Gpu, config: Config) -> Row:
    import torch

    B, T, D = BOARD[shape]
    torch.manual_seed(config.seed)
    module = _module(cell, D, weights, gpu)
    x = torch.randn(T, B, D, device=gpu.torch)

    def cudnn() -> Any:
        with torch.inference_mode():
            return module(x)[0]

    with torch.inference_mode():
        truth = module.double()(x.double())[0]
    module.float()
    times, errors = {}, {}
    for allowed in (False, True):
        with _tf32(allowed):
            errors[allowed] = relative_error(cudnn(), truth)
            times[allowed] = gpu.call([cudnn], max(config.repeats // 3, 1))
    solution = rs.Layers.from_torch(module).solve(x, method="quasi_newton", maxiter=500).solutions[0]
    rec: Any = solution.recurrence
    sweep = partial(rec.bind().solve, "sweeps", solution.tolerance)
    swept = sweep() is not None
    sweeps = gpu.call([sweep]) if swept else None
    run = gpu.call([lambda: rs.run(module, x, method="quasi_newton")]) if swept else None
    with _tf32(False):
        taken = [rs.run(module, x, method="auto") for _ in range(_TRIALS)][-1]
        auto = gpu.call([lambda: rs.run(module, x, method="auto")])
    return {
        "cell": cell, "shape": f"B{B} T{T} D{D}", "weights": weights, "cudnn": times[False], "cudnn_tf32": times[True],
        "sweeps": sweeps, "run": run, "iterations": solution.nit, "residual": solution.residuals[-1],
        "status": str(solution.status), "error": relative_error(torch.as_tensor(solution.output), truth),
        "cudnn_error": errors[False], "cudnn_tf32_error": errors[True],
        "auto": auto, "cudnn_over_auto": ratio(times[False], auto), "how": taken.how.partition(":")[0],
        "auto_error": relative_error(taken[0], truth),
        "cudnn_over_run": ratio(times[False], run), "cudnn_over_sweeps": ratio(times[False], sweeps),
    }  # fmt: skip


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Let cuDNN use TF32, or not."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _module(cell: str, units: int, weights: str, gpu: Gpu) -> Any:
    """Return a layer of torch's on the device."""
    import torch

    module = getattr(torch.nn, cell)(units, units).to(gpu.torch)
    with torch.no_grad():
        module.weight_hh_l0.mul_(GAINS[weights])
    if weights == "trained":
        _train(module, units, gpu)
    return module.eval()


def _train(module: Any, units: int, gpu: Gpu) -> None:
    """Train a layer to recall what it was given some steps before."""
    import torch

    head = torch.nn.Linear(units, _SHOWN).to(gpu.torch)
    optimiser = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(_TRAINING):
        x = torch.randn(64, 32, units, device=gpu.torch)
        wanted = x[:-_DELAY, :, :_SHOWN]
        loss = (head(module(x)[0])[_DELAY:] - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


_TABLE = table.Table(
    "layers of torch, float32",
    (
        table.text("cell", "layer"),
        table.text("shape"),
        table.text("weights"),
        table.number("cuDNN ms", "cudnn", 1e3),
        table.number("TF32 ms", "cudnn_tf32", 1e3),
        table.number("sweeps ms", "sweeps", 1e3),
        table.number("run ms", "run", 1e3),
        table.number("auto ms", "auto", 1e3),
        table.times("ratio", "cudnn_over_auto"),
        table.some("iterations", "iterations"),
        table.error("error", "auto_error"),
        table.error("cuDNN's", "cudnn_error"),
        table.error("TF32's", "cudnn_tf32_error"),
        table.text("how", "auto took"),
    ),
    "run, auto: all of recsolve.run(method='quasi_newton') and 'auto'; sweeps: with the drive given; ratio: cuDNN's "
    "float32 time over that of auto. error: of auto, against cuDNN in float64, relative to the largest output.",
)
BENCHES = {"gpu": Bench(rows, _TABLE)}
