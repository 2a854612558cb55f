"""Write the elementwise stages of a traced cell for Numba, each a loop over all times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsolve.kernels.codegen.numba_elementwise import indented, names_called, row
from recsolve.symbolic.emit import leaves
from recsolve.symbolic.graph import Leaf, Node, reachable
from recsolve.symbolic.program import Program

_HEAD = '''"""The elementwise stages of a cell."""

from typing import NamedTuple

import numpy as np
from numpy import inf, nan

from recsolve.kernels.cpu.jit.decorators import compiled, inlined
from recsolve.kernels.cpu.jit.elementary import functions
from recsolve.kernels.cpu.jit.aliasing import get, pointers, put
from recsolve.kernels.cpu.placement.rows import FIRST, Y
from recsolve.kernels.cpu.jit.tasks import advance, begin


class Sizes(NamedTuple):
    steps: int
    groups: int
    inner: int
    width: int
    bundle: int
'''
_LOOP = """
@compiled
def {name}(inputs, results, where, by_time, g, first, last):
    given, made = pointers(inputs), pointers(results)
    at = np.empty((g.bundle, len(by_time)), np.int64)
    for task in range(first, last):
        count, n = begin(task, where, g, at)
        for _ in range(g.steps):
            for b in range(count):
                _{name}(given, made, at, b, n)
            advance(at, by_time, count, 1)
"""


@dataclass(frozen=True)
class Job:
    """One loop: the nodes that it computes, each once, and the leaves that it reads."""

    name: str
    nodes: tuple[Node, ...]
    leaves: tuple[Leaf, ...]


def jobs_of(program: Program, partials: bool) -> list[Job]:
    """Return the loops of the stages of a cell; leaves and constants need no loop."""
    jobs = []
    for i, stage in enumerate(program.stages):
        nodes = tuple(dict.fromkeys(node for node in stage.nodes(partials=partials) if node.arguments))
        jobs.append(Job(f"{'partials' if partials else 'values'}_{i}", nodes, tuple(leaves(nodes))))
    return jobs


def stages_module(jobs: Sequence[Job], dtype: Any) -> str:
    """Return the source of a module with a loop for every job that has something to compute."""
    used = [job for job in jobs if job.nodes]
    names = "\n".join(dict.fromkeys("\n".join(names_called(reachable(job.nodes)) for job in used).splitlines()))
    parts = [_HEAD, f"F = np.{np.dtype(dtype).name}", names]
    parts += [part for job in used for part in (_rows(job), _LOOP.format(name=job.name))]
    return "\n\n".join([*parts, ""])


def _rows(job: Job) -> str:
    """Return the function that computes a row of the results of a job."""
    places = ["Y", *(f"FIRST + {len(job.leaves) + number}" for number in range(len(job.nodes) - 1))]
    begin = [f"i{m}, o{m} = given[{m}], at[b, FIRST + {m}]" for m in range(len(job.leaves))]
    begin += [f"r{m}, q{m} = made[{m}], at[b, {place}]" for m, place in enumerate(places)]
    numbers = {leaf: m for m, leaf in enumerate(job.leaves)}

    def load(leaf: Leaf) -> str:
        return f"get(i{numbers[leaf]}, o{numbers[leaf]} + i)"

    def store(named: Sequence[str]) -> list[str]:
        return [f"put({m}, r{m}, q{m} + i, {result})" for m, result in enumerate(named)]

    lines = [*begin, *row(job.nodes, load, store)]
    return "\n".join(["@inlined", f"def _{job.name}(given, made, at, b, n):", *indented(lines)])
