"""Public calls whose steps ranks share, and the same calls on one device: scans, solves, gradients, training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from zlib import crc32

import numpy as np

import recsolve as rs
from recsolve.base.arrays import Array, from_native, kind_of, namespace, to_native
from recsolve.base.shard import Shard
from recsolve.kernels.backends import summarise
from recsolve.kernels.monoids import MONOIDS
from recsolve.studies.bench.weighted import recurrence, weights

_BLOCK = 4096  # steps that are drawn together
_CALLS = 3  # after which a layer has found what is fast
REMEMBERS = 6.0  # the bias of the update gate with which a GRU remembers for about 400 steps


@dataclass(frozen=True)
class Data:
    """Random arrays of some steps, the same numbers however steps are shared.

    Attributes
    ----------
    steps : range
        Of all steps, those that are held here.
    total : int
        All steps.
    batch, units : int
    dtype : str
    device : str
    seed : int
    over : callable
        Makes a shard of an array of these steps; or returns the array, where they are all.
    """

    steps: range
    total: int
    batch: int
    units: int
    dtype: str
    device: str
    seed: int
    over: Callable[[Any], Any]

    def tensor(self, name: str) -> Any:
        """Return a tensor of normal numbers, (own steps, batch, units)."""
        import torch

        dtype = getattr(torch, self.dtype)
        out = torch.empty((len(self.steps), self.batch, self.units), dtype=dtype, device=self.device)
        start, stop = self.steps.start, self.steps.stop
        for block in range(start // _BLOCK, -(-stop // _BLOCK)):
            random = torch.Generator(self.device).manual_seed(crc32(f"{self.seed} {name} {block}".encode()))
            drawn = torch.randn(_BLOCK, self.batch, self.units, generator=random, dtype=dtype, device=self.device)
            first, last = max(start, block * _BLOCK), min(stop, (block + 1) * _BLOCK)
            out[first - start : last - start] = drawn[first - block * _BLOCK : last - block * _BLOCK]
        return out

    def normal(self, name: str) -> Array:
        """Return the same as a native array."""
        return to_native(self.tensor(name), name)

    def here(self, x: Array) -> Array:
        """Return a NumPy array in the dtype and on the device of these."""
        import torch

        return to_native(torch.as_tensor(x, dtype=getattr(torch, self.dtype), device=self.device), "x")


@dataclass(frozen=True)
class Call:
    """A call that is timed.

    Attributes
    ----------
    run : callable
    answer : callable
        Returns of a result the arrays and shards that are compared.
    sweeping : callable or None
        The same by sweeps over all ranks, whether or not they forget.
    own : callable or None
        What one of several ranks does, where one that is alone does less.
    """

    run: Callable[[], Any]
    answer: Callable[[Any], list[Any]]
    sweeping: Callable[[], Any] | None = None
    own: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Case:
    """What is timed: in words, what the data remember, and how a call is made of them."""

    words: str
    memory: str
    make: Callable[[Data], Call]
    part: int = 1  # of the steps asked for one in so many is taken, where each costs more


def _scan(data: Data, forgets: bool) -> Call:
    """Return the affine scan of multipliers in (-1, 1), or of some whose product over all steps is more than 1/e."""
    a, b = data.normal("a"), data.normal("b")
    xp = namespace(a)
    a = xp.tanh(a) if forgets else 1 - xp.tanh(abs(a)) / max(data.total, 1)
    elements, affine = (data.over(a), data.over(b)), MONOIDS["affine"]

    def run() -> Any:
        return rs.scan("affine", elements)

    def composing() -> Any:
        summarise(affine, affine.prepare((a, b)))
        return run()

    return Call(run, lambda y: [y], own=None if forgets else composing)


def _gru(data: Data, bias: float) -> Any:
    cell, rng = rs.cells.GRU, np.random.default_rng(data.seed)
    u = {name: data.normal(name) for name in cell.drives}
    u["z"] += bias
    w = {name: data.here(x) for name, x in weights(cell, data.units, rng).items()}
    return recurrence(cell, {name: data.over(x) for name, x in u.items()}, w)


def _solve(data: Data, bias: float) -> Call:
    rec = _gru(data, bias)
    return _solving(rec, "auto")


def _solving(rec: Any, method: str) -> Call:
    def sweeping() -> Any:
        from recsolve.distributed.ahead import Ahead
        from recsolve.distributed.sweeps import solve_by_sweeps
        from recsolve.distributed.task import Task
        from recsolve.solve import split_options

        driver, found = split_options("newton" if method == "auto" else method, None)
        solver: Any = found
        task = Task(rec, solver, driver, {"tol": None, "maxiter": None}, None, Ahead(rec))
        with rec.timeline.ranks.together(f"sweeps of {method}"):
            return solve_by_sweeps(task, solver, rec.length + 2, int(driver["patience"]))

    return Call(lambda: rs.solve(rec, method=method), lambda sol: [sol.states], sweeping)


def _adjoint(data: Data, bias: float) -> Call:
    solution = rs.solve(_gru(data, bias), method="auto")
    cotangent = data.over(data.normal("cotangent"))

    def gradients() -> list[Any]:
        g = rs.adjoint(solution, states=cotangent)
        return [*g.drive.values(), *g.mixings.values(), *g.parameters.values(), g.initial]

    return Call(gradients, lambda found: found)


def _dense(data: Data) -> Call:
    """Return the GRU of torch with its own random weights, by sweeps; the input is projected before."""
    import torch

    torch.manual_seed(data.seed)
    module = torch.nn.GRU(data.units, data.units, dtype=getattr(torch, data.dtype)).to(data.device)
    cell: Any = rs.cells.GRU.from_torch(module)
    drive = cell.drive(data.tensor("x"))
    rec = cell.recurrence(drive={name: data.over(x) for name, x in drive.items()})
    return _solving(rec, "quasi_newton")


def _train(data: Data) -> Call:
    """Return the step of a layer: forward, a loss of all outputs, backward, the sum of gradients over ranks."""
    import torch
    import torch.distributed as dist

    torch.manual_seed(data.seed)
    layer = rs.nn.GRU(data.units, data.units).to(data.device, getattr(torch, data.dtype))
    x, weight = data.over(data.tensor("x")), data.tensor("weight")

    def step() -> list[Any]:
        layer.zero_grad()
        y = layer(x)[0]
        own = y.local if isinstance(y, Shard) else y
        (own * weight).sum().backward()
        found = torch.cat([p.grad.reshape(-1) for p in layer.parameters()])
        if isinstance(y, Shard):
            dist.all_reduce(found, group=y.timeline.ranks.group)
        return [found]

    for _ in range(_CALLS):
        step()
    return Call(step, lambda found: found)


CASES: Mapping[str, Case] = {
    "scan-forgets": Case("affine scan", "forgets", partial(_scan, forgets=True)),
    "scan-keeps": Case("affine scan", "forgets nothing", partial(_scan, forgets=False)),
    "gru-forgets": Case("diagonal GRU, solve", "forgets", partial(_solve, bias=0.0)),
    "gru-remembers": Case("diagonal GRU, solve", "remembers", partial(_solve, bias=REMEMBERS)),
    "adjoint-forgets": Case("diagonal GRU, adjoint", "forgets", partial(_adjoint, bias=0.0)),
    "adjoint-remembers": Case("diagonal GRU, adjoint", "remembers", partial(_adjoint, bias=REMEMBERS)),
    "dense": Case("dense GRU, quasi_newton", "forgets", _dense, part=16),
    "train": Case("dense GRU, training step", "forgets", _train, part=16),
}


def largest_error(world: Any, group: Any, found: list[Any], truth: list[Any] | None) -> float | None:
    """Return the largest error of what ranks have found together, relative to the largest number of each array.

    Parameters
    ----------
    world : World
    group : ProcessGroup
    found : list of array and Shard
    truth : list of array or None
        On rank 0 the same on one device; None where it has no room there.

    Returns
    -------
    float or None
    """
    import torch
    import torch.distributed as dist

    if not world.told(group, truth is not None)[0]:
        return None
    errors = [0.0]
    for i, x in enumerate(found):
        own = _tensor(x.local if isinstance(x, Shard) else x)
        exact = torch.empty_like(own)
        for rank in range(dist.get_world_size(group)):
            if world.rank == 0:
                assert truth is not None
                part = _tensor(truth[i])
                if isinstance(x, Shard):
                    start = sum(x.timeline.lengths[:rank])
                    part = part[start : start + x.timeline.lengths[rank]]
                if rank == 0:
                    exact.copy_(part)
                elif part.numel():
                    dist.send(part.contiguous(), rank, group=group)
            elif rank == world.rank and exact.numel():
                dist.recv(exact, 0, group=group)
        wrong, size = (float(y.abs().max()) if y.numel() else 0.0 for y in (own - exact, exact))
        wrongs, sizes = np.array(world.told(group, (wrong, size))).T
        largest = float(np.max(sizes))
        errors.append(float(np.max(wrongs)) / (largest or 1.0))
    return float(np.max(errors))


def _tensor(x: Any) -> Any:
    return (x if kind_of(x) == "torch" else from_native(x, "torch")).detach().contiguous()
