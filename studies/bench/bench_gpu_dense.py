"""Times of torch's own GRU and LSTM layers solved by sweeps on the GPU, beside cuDNN, which steps through time.

All times are from the call to the result on the device, medians. Errors are against cuDNN in float64, relative to the
largest output. ``sweeps`` has its drive given; ``run`` is all of ``recsolve.run`` with the weights taken from the
module, the input projected, and the states tested once more by the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.studies.timing import in_turns

BOARD = {"long": (1, 16384, 256), "wide": (8, 2048, 1024)}  # batch, steps, units and inputs
CELLS = ("GRU", "LSTM")
WEIGHTS = ("default", "gain 1.5", "trained")
_DELAY, _SHOWN = 5, 8  # the training task of the weights: recall this many inputs after this delay in steps


@dataclass(frozen=True)
class DenseBenchConfig:
    """The settings of the benchmark.

    Attributes
    ----------
    repeats : int
    cells, shapes, weights : tuple of str
        ``default`` are torch's own, uniform up to 1 / sqrt(units); a gain multiplies the recurrent ones.
    training : int
        Steps of training for ``trained``.
    seed : int
    """

    repeats: int = 9
    cells: tuple[str, ...] = CELLS
    shapes: tuple[str, ...] = tuple(BOARD)
    weights: tuple[str, ...] = WEIGHTS
    training: int = 150
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}; wanted 1 or more")
        for name, known in (("cells", CELLS), ("shapes", tuple(BOARD)), ("weights", WEIGHTS)):
            if unknown := [one for one in getattr(self, name) if one not in known]:
                raise ValueError(f"{name} has {', '.join(unknown)}; wanted some of {', '.join(known)}")


@dataclass(frozen=True)
class DenseTiming:
    """One row of the table. Times are in seconds.

    Attributes
    ----------
    cell, shape, weights : str
    cudnn, cudnn_tf32 : float
        torch's layer with float32 products, and with TF32 allowed.
    sweeps, run : float
        NaN where the sweeps gave no states.
    iterations : int
    residual : float
        max |f(h[t-1]) - h[t]| of what ``run`` returns, in float32.
    status : str
    error, cudnn_error, cudnn_tf32_error : float
    """

    cell: str
    shape: str
    weights: str
    cudnn: float
    cudnn_tf32: float
    sweeps: float
    run: float
    iterations: int
    residual: float
    status: str
    error: float
    cudnn_error: float
    cudnn_tf32_error: float

    @property
    def label(self) -> str:
        """The timed case in words."""
        return f"{self.cell}, {self.shape}, {self.weights}"

    def row(self) -> dict[str, Any]:
        """Return the timing with its ratios; None where there is no number."""
        found = {**asdict(self), "cudnn_over_run": self.cudnn / self.run, "cudnn_over_sweeps": self.cudnn / self.sweeps}
        return {name: None if x != x else x for name, x in found.items()}

    def __str__(self) -> str:
        cudnn, tf32, sweeps, run = (f"{1e3 * x:.2f} ms" for x in (self.cudnn, self.cudnn_tf32, self.sweeps, self.run))
        return (
            f"{self.cell} {self.shape} {self.weights}: cuDNN {cudnn} (TF32 {tf32}), "
            f"sweeps {sweeps} ({self.cudnn / self.sweeps:.1f}x), run {run} ({self.cudnn / self.run:.1f}x), "
            f"{self.iterations} iterations, {self.status}, residual {self.residual:.1e}, "
            f"error {self.error:.1e} (cuDNN {self.cudnn_error:.1e}, TF32 {self.cudnn_tf32_error:.1e})"
        )


def rows(config: DenseBenchConfig) -> Iterator[DenseTiming]:
    """Time the layers, one after the other.

    Raises
    ------
    ImportError
        Without CuPy and torch.
    """
    if find_spec("cupy") is None or find_spec("torch") is None:
        raise ImportError("dense solves on a GPU need CuPy and torch: pip install 'recsolve[cuda13]' torch")
    for shape in config.shapes:
        for cell in config.cells:
            for weights in config.weights:
                yield _time(cell, shape, weights, config)


def _time(cell: str, shape: str, weights: str, config: DenseBenchConfig) -> DenseTiming:
    import torch

    B, T, D = BOARD[shape]
    torch.manual_seed(config.seed)
    module = _module(cell, D, weights, config)
    x = torch.randn(T, B, D, device="cuda")

    def cudnn() -> Any:
        with torch.inference_mode():
            return module(x)[0]

    with torch.inference_mode():
        truth = module.double()(x.double())[0]
    module.float()
    times, errors = {}, {}
    for allowed in (False, True):
        with _tf32(allowed):
            errors[allowed] = _error(cudnn(), truth)
            times[allowed] = seconds(cudnn, max(config.repeats // 3, 1))
    layers = rs.Layers.from_torch(module)
    solution = layers.solve(x, method="quasi_newton", maxiter=500).solutions[0]
    rec: Any = solution.recurrence
    tol = solution.tolerance.atol, solution.tolerance.rtol
    swept = rec.sweep(tol) is not None
    return DenseTiming(
        cell=cell,
        shape=f"B{B} T{T} D{D}",
        weights=weights,
        cudnn=times[False],
        cudnn_tf32=times[True],
        sweeps=seconds(lambda: rec.sweep(tol), config.repeats) if swept else float("nan"),
        run=seconds(lambda: rs.run(module, x, method="quasi_newton"), config.repeats) if swept else float("nan"),
        iterations=solution.nit,
        residual=solution.residuals[-1],
        status=str(solution.status),
        error=_error(torch.as_tensor(solution.output), truth),
        cudnn_error=errors[False],
        cudnn_tf32_error=errors[True],
    )


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a call to its result on the device."""
    from cupy.cuda.runtime import deviceSynchronize

    return float(np.median(in_turns([run], repeats, settle=deviceSynchronize)))


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


def _error(y: Any, truth: Any) -> float:
    return float((y.double() - truth).abs().max() / truth.abs().max())


def _module(cell: str, units: int, weights: str, config: DenseBenchConfig) -> Any:
    """Return a layer of torch's on the device."""
    import torch

    module = getattr(torch.nn, cell)(units, units).cuda()
    if weights.startswith("gain"):
        with torch.no_grad():
            module.weight_hh_l0.mul_(float(weights.split()[1]))
    if weights == "trained":
        _train(module, units, config.training)
    return module.eval()


def _train(module: Any, units: int, steps: int) -> None:
    """Train a layer to recall what it was given some steps before."""
    import torch

    head = torch.nn.Linear(units, _SHOWN).cuda()
    optimiser = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(steps):
        x = torch.randn(64, 32, units, device="cuda")
        wanted = x[:-_DELAY, :, :_SHOWN]
        loss = (head(module(x)[0])[_DELAY:] - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
