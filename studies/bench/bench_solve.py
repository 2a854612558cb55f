"""Times and errors of solves compiled from cells, beside their alternatives, taken in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.math import sigmoid, tanh
from recsolve.mixings import Diagonal
from recsolve.recurrence.cell import Cell
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.engine import fused
from recsolve.studies.bench import by_hand
from recsolve.studies.bench.bench import BenchConfig
from recsolve.studies.timing import in_turns

_SCALE = 0.5  # of the weights
_TOLERANCE = 1e-6
_WINDOW = 8


@dataclass(frozen=True)
class SolveTiming:
    """One row of the table. Times are in seconds.

    Attributes
    ----------
    solve, shape : str
    median, lower, upper : float
        Median and quartiles, the result allocated afresh.
    reference : str
        The alternative that it is compared with.
    reference_median : float
    error, reference_error : float
        max |y - y64| over max |y64| against a loop in float64; NaN where the reference makes the same numbers.
    """

    solve: str
    shape: str
    median: float
    lower: float
    upper: float
    reference: str
    reference_median: float
    error: float
    reference_error: float

    @property
    def label(self) -> str:
        """The timed case in words."""
        return f"{self.solve}, {self.shape}"

    def row(self) -> dict[str, Any]:
        """Return the timing with its ratio; None where there is no number."""
        found = {**asdict(self), "reference_over_solve": self.reference_median / self.median}
        return {name: None if x != x else x for name, x in found.items()}


def bench_solve(config: BenchConfig) -> Iterator[SolveTiming]:
    """Time the solves, one after the other."""
    for race in _races(config, np.random.default_rng(config.seed)):
        with rs.backend("numba"):
            timings = list(race)
        yield from timings


def _races(config: BenchConfig, rng: np.random.Generator) -> Iterator[Iterator[SolveTiming]]:
    for order in ("(T, B, D)", "(B, T, D)"):
        for name in ("GRU", "LSTM"):
            yield _diagonal(name, order, config, rng)
    yield _lengths(config, rng)
    if find_spec("torch") is not None:
        for cell, B, D in (("GRU", 8, 256), ("GRU", 1, 16), ("GRU", 1, 32), ("GRU", 1, 64), ("LSTM", 8, 256)):
            yield _dense(cell, config.numbers >> 11, B, D, config, rng)


def _user(s: Any, W: Any, u: Any, p: Any) -> Any:
    """Return the GRU as a user writes it, in five lines."""
    reset = sigmoid(u.reset + W.reset(s.y))
    update = sigmoid(u.update + W.update(s.y))
    candidate = tanh(u.candidate + reset * (W.candidate(s.y) + p.bias))
    return update * s.y + (1 - update) * candidate


_NAMES = {"r": "reset", "z": "update", "n": "candidate", "b_n": "bias"}
USER = Cell(_user, state=("y",), output="y", name="user's GRU")


def _diagonal(name: str, order: str, config: BenchConfig, rng: np.random.Generator) -> Iterator[SolveTiming]:
    """Time solves of a cell without mixing between units: one after the other, Newton, adjoint, all of rs.solve."""
    T, B, D = config.numbers >> 11, 8, 256
    cell: Cell = getattr(rs.cells, name)
    loop, back = (getattr(by_hand, name.lower() + suffix) for suffix in ("", "_adjoint"))
    w = {n: _SCALE * rng.standard_normal(D, dtype=np.float32) for n in (*cell.mixings, *cell.parameters)}
    u = {n: _drive((T, B, D), order, rng) for n in cell.drives}
    rec = _recurrence(cell, u, w)
    loops = fused(rec)
    assert loops is not None
    shape, truth = f"T{T} B{B} D{D} {order}", loop(*_double(u, w))

    def walk(recurrence: CellRecurrence = rec) -> Array:
        states = recurrence.empty()
        recurrence.follow(states)
        return states

    def newton() -> Array:
        states = rec.empty()
        loops.newton(states, _WINDOW, (_TOLERANCE, 0.0))
        return states

    by_loop = _Reference("NumPy loop", lambda: loop(u, w))
    yield _race(f"{name} in order", shape, walk, by_loop, truth, config)
    if name == "GRU":
        user = _recurrence(USER, {_NAMES[n]: x for n, x in u.items()}, {_NAMES[n]: x for n, x in w.items()})
        built_in = _Reference("built-in GRU", walk)
        yield _race("user's GRU in order", shape, lambda: walk(user), built_in, truth, config)
    yield _race(
        f"{name}, all of rs.solve", shape, lambda: rs.solve(rec, method="sequential").states, by_loop, truth, config
    )
    yield _race(f"{name}, Newton to 1e-6", shape, newton, _Reference("in order", walk), truth, config)
    states, c = walk(), rng.standard_normal(rec.shape, dtype=np.float32)
    true_g = back(*_double(u, w), truth, c.astype(np.float64))[0]
    yield _race(
        f"{name} adjoint",
        shape,
        lambda: loops.adjoint(states, c)[0],
        _Reference("NumPy loop", lambda: back(u, w, states, c)[0]),
        true_g,
        config,
    )


def _drive(shape: tuple[int, int, int], order: str, rng: np.random.Generator) -> Array:
    T, B, D = shape
    if order == "(T, B, D)":
        return rng.standard_normal(shape, dtype=np.float32)
    return rng.standard_normal((B, T, D), dtype=np.float32).swapaxes(0, 1)


def _double(*named: dict[str, Array]) -> tuple[dict[str, Array], ...]:
    return tuple({n: x.astype(np.float64) for n, x in arrays.items()} for arrays in named)


def _recurrence(cell: Cell, u: dict[str, Array], w: dict[str, Array]) -> CellRecurrence:
    weighted = cell.with_weights(
        mixings={n: Diagonal(w[n]) for n in cell.mixings},
        parameters={n: w[n] for n in cell.parameters},
        hidden_size=next(iter(u.values())).shape[-1],
    )
    return weighted.recurrence(drive=u)


def _lengths(config: BenchConfig, rng: np.random.Generator) -> Iterator[SolveTiming]:
    """Time as many numbers at all lengths, beside the shortest one."""
    first: _Reference | None = None
    for T in (1 << p for p in range(8, config.numbers.bit_length(), 2)):
        D = config.numbers // T
        cell = rs.cells.GRU
        w = {n: _SCALE * rng.standard_normal(D, dtype=np.float32) for n in (*cell.mixings, *cell.parameters)}
        u = {n: rng.standard_normal((T, D), dtype=np.float32) for n in cell.drives}
        rec = _recurrence(cell, u, w)

        def walk(recurrence: CellRecurrence = rec) -> Array:
            states = recurrence.empty()
            recurrence.follow(states)
            return states

        first = first or _Reference("T256", walk)
        truth = by_hand.gru(*_double(u, w)) if T <= 1 << 16 else None
        yield _race("GRU in order", f"T{T} lanes {D}", walk, first, truth, config)


def _dense(name: str, T: int, B: int, D: int, config: BenchConfig, rng: np.random.Generator) -> Iterator[SolveTiming]:
    """Time the walk of a torch layer with its own weights, the drive given, beside torch with its input projected too.

    The input has one feature, so that projecting it costs torch next to nothing.
    """
    import torch

    from recsolve.kernels.cpu.threads import threads

    torch.manual_seed(config.seed)
    torch.set_num_threads(threads())
    module = getattr(torch.nn, name)(1, D)
    x = torch.from_numpy(rng.standard_normal((T, B, 1), dtype=np.float32))
    weighted = getattr(rs.cells, name).from_torch(module)
    rec = weighted.recurrence(drive=dict(weighted.drive(x.numpy())))

    def walk() -> Array:
        states = rec.empty()
        rec.follow(states)
        shown: Array = rec.output(states)
        return shown

    def torch_loop() -> Array:
        with torch.inference_mode():
            output: Array = module(x)[0].numpy()
        return output

    with torch.inference_mode():
        truth = module.double()(x.double())[0].numpy()
        module.float()
    yield _race(
        f"dense {name} in order",
        f"T{T} B{B} D{D}",
        walk,
        _Reference(f"torch.nn.{name}", torch_loop),
        truth,
        config,
    )


@dataclass(frozen=True)
class _Reference:
    name: str
    run: Callable[[], Array]


def _race(
    solve: str, shape: str, run: Callable[[], Array], reference: _Reference, truth: Array | None, config: BenchConfig
) -> SolveTiming:
    """Time both in turns, with their errors."""
    errors = [_error(run(), truth), _error(reference.run(), truth)]
    own, other = in_turns([run, reference.run], config.repeats)
    lower, middle, upper = np.quantile(own, (0.25, 0.5, 0.75))
    return SolveTiming(
        solve, shape, float(middle), float(lower), float(upper), reference.name, float(np.median(other)), *errors
    )


def _error(y: Array, truth: Array | None) -> float:
    if truth is None or truth.shape != y.shape:
        return float("nan")
    return float(np.abs(y - truth).max() / np.abs(truth).max())
