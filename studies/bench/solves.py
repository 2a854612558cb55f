"""Solves compiled from cells on the CPU, beside what one would run instead, with the errors of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array
from recsolve.base.tolerance import Tolerance
from recsolve.kernels.cpu.threads import threads
from recsolve.math import sigmoid, tanh
from recsolve.recurrence.cell import Cell
from recsolve.studies.bench import by_hand, table
from recsolve.studies.bench.board import Config, lengths
from recsolve.studies.bench.harness import Bench, quartiles, relative_error
from recsolve.studies.bench.table import Row
from recsolve.studies.bench.weighted import Arrays, recurrence, weights
from recsolve.studies.timing import in_turns

_TOLERANCE = 1e-6
_WINDOW = 8
_LOOP_STEPS = 1 << 16  # beyond these no loop by hand is waited for
_LAYERS = (("GRU", 8, 256), ("GRU", 1, 16), ("GRU", 1, 32), ("GRU", 1, 64), ("LSTM", 8, 256))  # with batch and units


def _user(s: Any, W: Any, u: Any, p: Any) -> Any:
    """Return the GRU as a user writes it, in five lines."""
    reset = sigmoid(u.reset + W.reset(s.y))
    update = sigmoid(u.update + W.update(s.y))
    candidate = tanh(u.candidate + reset * (W.candidate(s.y) + p.bias))
    return update * s.y + (1 - update) * candidate


_NAMES = {"r": "reset", "z": "update", "n": "candidate", "b_n": "bias"}
USER = Cell(_user, state=("y",), output="y", name="user's GRU")


@dataclass(frozen=True)
class Race:
    """A solve, what it is compared with, and the truth about both, if there is one."""

    solve: str
    shape: str
    run: Callable[[], Array]
    reference: str
    run_reference: Callable[[], Array]
    truth: Array | None

    def row(self, config: Config) -> Row:
        """Time both in turns."""
        error, reference_error = (relative_error(run(), self.truth) for run in (self.run, self.run_reference))
        own, other = in_turns([self.run, self.run_reference], config.repeats)
        found, median = quartiles(own), float(np.median(other))
        return {
            "solve": self.solve, "shape": self.shape, **found, "reference": self.reference, "reference_median": median,
            "error": error, "reference_error": reference_error, "reference_over_solve": median / found["median"],
        }  # fmt: skip


def rows(config: Config) -> Iterator[Row]:
    """Time the solves, one after the other."""
    races = _races(config, np.random.default_rng(config.seed))
    while True:
        with rs.backend("numba"):  # not around the yield: whoever takes the rows has a backend of their own
            row = next((race.row(config) for race in races), None)
        if row is None:
            return
        yield row


def _races(config: Config, rng: np.random.Generator) -> Iterator[Race]:
    for by_batch in (False, True):
        for name in ("GRU", "LSTM"):
            yield from _diagonal(name, by_batch, config, rng)
    yield from _lengths(config, rng)
    if find_spec("torch") is not None:
        for name, B, D in _LAYERS:
            yield _dense(name, (B, config.shape[1], D), config, rng)


def _diagonal(name: str, by_batch: bool, config: Config, rng: np.random.Generator) -> Iterator[Race]:
    """Yield solves of a cell without mixing between units: one after the other, Newton, adjoint, all of rs.solve."""
    B, T, D = config.shape
    cell: Cell = getattr(rs.cells, name)
    loop, back = (getattr(by_hand, name.lower() + suffix) for suffix in ("", "_adjoint"))
    w = weights(cell, D, rng)
    u = {n: laid(lambda s: rng.standard_normal(s, dtype=np.float32), (T, B, D), by_batch) for n in cell.drives}
    rec = recurrence(cell, u, w)
    engine = rec.bind()
    tolerance = Tolerance(_TOLERANCE, 0.0)
    shape, truth = f"T{T} B{B} D{D} {'(B, T, D)' if by_batch else '(T, B, D)'}", loop(*_double(u, w))

    def newton() -> Array:
        found = engine.solve("windows", tolerance, _WINDOW)
        assert found is not None
        return found.states

    def race(what: str, run: Callable[[], Array], reference: str, other: Callable[[], Array], exact: Array) -> Race:
        return Race(what, shape, run, reference, other, exact)

    walk, by_loop = rec.bind().walk, ("NumPy loop", lambda: loop(u, w))
    yield race(f"{name} in order", walk, *by_loop, truth)
    if name == "GRU":
        user = recurrence(USER, *({_NAMES[n]: x for n, x in named.items()} for named in (u, w)))
        yield race("user's GRU in order", user.bind().walk, "built-in GRU", walk, truth)
    yield race(f"{name}, all of rs.solve", lambda: rs.solve(rec, method="sequential").states, *by_loop, truth)
    yield race(f"{name}, Newton to 1e-6", newton, "in order", walk, truth)
    states, c = walk(), rng.standard_normal(rec.shape, dtype=np.float32)
    true_g = back(*_double(u, w), truth, c.astype(np.float64))[0]

    def adjoint() -> Array:
        found = engine.adjoint(states, c)
        assert found is not None
        return found[0]

    by_hand_too = ("NumPy loop", lambda: back(u, w, states, c)[0])
    yield race(f"{name} adjoint", adjoint, *by_hand_too, true_g)


def laid(make: Callable[[tuple[int, ...]], Array], shape: tuple[int, ...], by_batch: bool) -> Array:
    """Return an array (T, B, ...), whose memory is (B, T, ...) if that is wanted."""
    return make((shape[1], shape[0], *shape[2:])).swapaxes(0, 1) if by_batch else make(shape)


def _double(*named: Arrays) -> tuple[Arrays, ...]:
    return tuple({n: x.astype(np.float64) for n, x in arrays.items()} for arrays in named)


def _lengths(config: Config, rng: np.random.Generator) -> Iterator[Race]:
    """Yield as many numbers at all lengths, beside the shortest one."""
    first: Callable[[], Array] | None = None
    for T in lengths(config.numbers):
        D, cell = config.numbers // T, rs.cells.GRU
        w, u = weights(cell, D, rng), {n: rng.standard_normal((T, D), dtype=np.float32) for n in cell.drives}
        walk = recurrence(cell, u, w).bind().walk
        first = first or walk
        truth = by_hand.gru(*_double(u, w)) if T <= _LOOP_STEPS else None
        yield Race("GRU in order", f"T{T} lanes {D}", walk, "T256", first, truth)


def _dense(name: str, shape: tuple[int, int, int], config: Config, rng: np.random.Generator) -> Race:
    """Return the walk of a torch layer with its own weights, the drive given, beside torch that projects its input too.

    The input has one feature, so that projecting it costs torch next to nothing.
    """
    import torch

    B, T, D = shape
    torch.manual_seed(config.seed)
    torch.set_num_threads(threads())
    module = getattr(torch.nn, name)(1, D)
    x = torch.from_numpy(rng.standard_normal((T, B, 1), dtype=np.float32))
    weighted = getattr(rs.cells, name).from_torch(module)
    rec = weighted.recurrence(drive=dict(weighted.drive(x.numpy())))
    walk = rec.bind().walk

    def shown() -> Array:
        states: Array = rec.output(walk())
        return states

    def torch_loop() -> Array:
        with torch.inference_mode():
            output: Array = module(x)[0].numpy()
        return output

    with torch.inference_mode():
        truth = module.double()(x.double())[0].numpy()
        module.float()
    return Race(f"dense {name} in order", f"T{T} B{B} D{D}", shown, f"torch.nn.{name}", torch_loop, truth)


_TABLE = table.Table(
    "solves, float32",
    (
        table.text("solve"),
        table.text("shape"),
        *table.middle(),
        table.text("reference", "beside"),
        table.number("its ms", "reference_median", 1e3),
        table.times("ratio", "reference_over_solve"),
        table.error("error", "error"),
        table.error("its error", "reference_error"),
    ),
    "ratio: its ms over ms. error: against a loop in float64, relative to max |h|.",
)
BENCHES = {"cpu": Bench(rows, _TABLE)}
