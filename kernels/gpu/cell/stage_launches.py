"""The elementwise stages of cells as CUDA kernels, one launch per stage for all times.

Cells whose mixings are all diagonal are one stage (:class:`ElementwiseCuda`). Others have several, around matrix
products (:class:`StagesCuda`, in the place of :class:`recsolve.kernels.cpu.cell.stage_loops.FusedStages` for arrays
on a GPU).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod
from typing import Any, TypeAlias

import numpy as np

from recsolve.base.arrays import Array, address
from recsolve.kernels.codegen.cuda_elementwise import OPTIONS, rows_text, stages_text
from recsolve.kernels.codegen.cuda_stages import stage_structure
from recsolve.kernels.codegen.cuda_structures import constants, structure
from recsolve.kernels.codegen.numba_elementwise import inputs_of
from recsolve.kernels.codegen.numba_stages import Job, jobs_of
from recsolve.kernels.gpu.device import Launch, Machine, on
from recsolve.kernels.gpu.scan.variants import STORAGE
from recsolve.kernels.gpu.views import AXES, Strides, aligned, distances, merge, places, stretched, strides_of
from recsolve.kernels.registry import TracedCell, register
from recsolve.symbolic.emit import leaves
from recsolve.symbolic.graph import Leaf, Node
from recsolve.symbolic.program import Program

# A structure, an array (T, *axes) with further axes for components, and which these are.
View: TypeAlias = tuple[Any, Array, tuple[int, ...]]

Lies: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], int]  # shape, strides and bytes of a number

THREADS = constants("stage/each")["THREADS"]  # of a block
REPORT = constants("stage/sweep")["REPORTED"]  # integers
_WAVES = 16  # blocks of a multiprocessor, so that none waits long for the last one


def spread_over(steps: int, lanes: int, processors: int) -> tuple[int, int]:
    """Return how many pieces the times of a lane are cut into, and how many blocks take them all."""
    chunks = min(max(processors * _WAVES * THREADS // lanes, 1), steps)
    return chunks, ceil(lanes * chunks / THREADS)


def launch(code: str, kernel: str, problem: Array) -> Launch:
    """Return the launch of a stage, or of what belongs to a sweep."""
    return Launch(code, kernel, OPTIONS, int(problem[0]["blocks"]), THREADS, 4 * REPORT, problem)


def fill_lanes(p: Any, shape: Sequence[int], processors: int) -> None:
    """Put the sizes of arrays (T, *axes) into a structure, and how they are spread over threads."""
    p["steps"], p["lanes"], p["sizes"] = shape[0], prod(shape[1:]), 1
    p["chunks"], p["blocks"] = spread_over(shape[0], prod(shape[1:]), processors)


def view_all(p: Any, views: Sequence[View], like: Array) -> None:
    """Put arrays into their views; the lanes are those of ``like`` (T, *axes).

    Raises
    ------
    ValueError
        When arrays have too many axes that cannot be merged.
    """
    strides = [strides_of(x, components) for _, x, components in views]
    _fill_strides(p, [view for view, *_ in views], strides, strides_of(like), like.shape)
    for view, x, _ in views:
        view["at"] = address(x)


def _fill_strides(
    p: Any, views: Sequence[Any], strides: Sequence[Strides], like: Strides, shape: Sequence[int]
) -> None:
    merged, runs = merge(shape[1:], [like.lanes, *(s.lanes for s in strides)])
    if len(merged) > AXES:
        raise ValueError(f"arrays have {len(merged)} axes that cannot be merged; wanted at most {AXES}")
    p["sizes"][: len(merged)] = merged
    for view, s, run in zip(views, strides, runs[1:], strict=True):
        view["time"], view["row"], view["column"] = s.time, s.row, s.column
        view["lane"][: len(run)] = run


def run_stage(machine: Machine, code: str, name: str, inputs: Sequence[Array], results: Sequence[Array]) -> None:
    """Fill ``results`` (T, *axes), all of one shape and dtype, from ``inputs`` that broadcast to it, by one launch."""
    like = results[0]
    if not like.size:
        return
    arrays = [*map(aligned, inputs), *results]
    lie = tuple((x.shape, x.strides, x.itemsize) for x in arrays)
    laid, places = _laid(len(inputs), len(results), like.shape, lie, machine.processors)
    filled = laid.copy()
    filled.view(np.int64)[places] = [*map(address, arrays)]
    kernel = f"recsolve::each<recsolve::{name}, {STORAGE[like.dtype.name].stored}>"
    machine.launch(launch(code, kernel, filled))


@lru_cache(maxsize=512)
def _laid(
    given: int, made: int, shape: tuple[int, ...], lie: tuple[Lies, ...], processors: int
) -> tuple[Array, list[int]]:
    """Return the structure of a stage, and which of its words are addresses."""
    kind = structure("stage/each", "Elementwise", IN=given, OUT=made)
    filled = np.zeros(1, kind)
    p = filled[0]
    fill_lanes(p, shape, processors)
    strides = [distances(shape, stretched(own, steps, shape), size) for own, steps, size in lie]
    _fill_strides(p, [*p["in"], *p["out"]], strides, strides[given], shape)
    at = places("stage/each", "Elementwise", IN=given, OUT=made)
    return filled, [*at["in"], *at["out"]]


def _run_job(own: Machine | None, code: str, job: Job, known: Mapping[Leaf, Array], results: Sequence[Array]) -> None:
    """Fill ``results`` with the nodes of a job, if it has any, from what its leaves are known to be."""
    if results:
        with on(results[0], own) as machine:
            run_stage(machine, code, job.name, [known[leaf] for leaf in job.leaves], results)


class StagesCuda:
    """The stages of one cell.

    Parameters
    ----------
    program : Program
    machine : Machine, optional
        By default the device of the arrays, on its current stream.
    """

    def __init__(self, program: Program, machine: Machine | None = None):
        self.program, self._machine = program, machine
        self.jobs = {partials: jobs_of(program, partials) for partials in (False, True)}
        used = [job for jobs in self.jobs.values() for job in jobs if job.nodes]
        self.code = stages_text([stage_structure(job) for job in used], "stage")

    def run(self, stage: int, partials: bool, known: Mapping[Leaf, Array], results: Sequence[Array]) -> None:
        """Fill ``results`` with the nodes of a job, as the stages on the CPU do."""
        _run_job(self._machine, self.code, self.jobs[partials][stage], known, results)


class ElementwiseCuda:
    """f and its Jacobian at all times, for a cell whose mixings are all diagonal.

    States are (T, *batch, [k], *lanes, n), inputs broadcast to (T, *batch, *lanes, n) and come in the order of
    :func:`recsolve.kernels.codegen.numba_elementwise.inputs_of`.

    Parameters
    ----------
    program : Program
    machine : Machine, optional
        By default the device of the arrays, on its current stream.
    """

    def __init__(self, program: Program, machine: Machine | None = None):
        self._machine, self.components = machine, len(program.components)
        graph = program.stages[0].outputs[0].value.graph
        values = [output.value for output in program.stages[0].outputs]
        block = [graph.number(0.0 if entry is None else entry) for row in program.jacobian for entry in row]
        leaves = tuple(Leaf("component", name) for name in program.components) + tuple(inputs_of(program))
        jobs = [Job("values", tuple(values), leaves), Job("partials", tuple(values + block), leaves)]
        structures = tuple(stage_structure(job) for job in jobs)
        self._counts = [{"IN": len(job.leaves), "OUT": len(job.nodes)} for job in jobs]
        self.code, self.rows_code = stages_text(structures, "stage"), rows_text("test", structures)

    def evaluate(self, inputs: Sequence[Array], previous: Array, values: Array, batch: int) -> None:
        """Fill ``values`` with f of the states ``previous`` at all t; ``batch`` is the number of batch axes."""
        self._run("values", inputs, previous, batch, self.parts(values, batch))

    def linearise(self, inputs: Sequence[Array], previous: Array, values: Array, J: Array, batch: int) -> None:
        """Fill ``values`` with f of the states, and J (T, *batch, [k, k], *lanes, n) with its Jacobian."""
        self._run("partials", inputs, previous, batch, [*self.parts(values, batch), *self.entries(J, batch)])

    def counts(self, jacobian: bool) -> dict[str, int]:
        """Return how many inputs and results a function has: that of f, or with its Jacobian."""
        return self._counts[jacobian]

    def _run(self, name: str, inputs: Sequence[Array], previous: Array, batch: int, results: list[Array]) -> None:
        with on(results[0], self._machine) as machine:
            run_stage(machine, self.code, name, [*self.parts(previous, batch), *inputs], results)

    def entries(self, J: Array, batch: int) -> list[Array]:
        """Return the entries of a Jacobian (T, *batch, [k, k], *lanes, n), row by row."""
        return [x for row in self.parts(J, batch) for x in self.parts(row, batch)]

    def parts(self, x: Array, batch: int) -> list[Array]:
        """Return the components of states, or the rows of a Jacobian."""
        before: Any = (slice(None),) * (1 + batch)
        return [x] if self.components == 1 else [x[(*before, i)] for i in range(self.components)]


class PullCuda:
    """The way back of one step at all times, as one stage: from cotangents of the new state to what it is computed of.

    Parameters
    ----------
    back : mapping of Leaf to Node
        From :func:`recsolve.symbolic.tracing.trace_pullback`.
    machine : Machine, optional
        By default the device of the arrays, on its current stream.
    """

    def __init__(self, back: Mapping[Leaf, Node], machine: Machine | None = None):
        self._machine = machine
        self.back = {leaf: node for leaf, node in back.items() if leaf.kind != "component"}
        nodes = tuple(dict.fromkeys(node for node in self.back.values() if node.arguments))
        self.job = Job("pull", nodes, tuple(leaves(nodes)))
        self.code = stages_text([stage_structure(self.job)], "stage") if nodes else ""

    def run(self, known: Mapping[Leaf, Array], results: Sequence[Array]) -> None:
        """Fill ``results`` (T, *batch, *lanes, n) with the nodes of the job."""
        _run_job(self._machine, self.code, self.job, known, results)


@register("pull", "cuda")
def pull(traced: TracedCell, dtype: Any) -> PullCuda:
    """Return the way back of a step of a cell, which takes any dtype."""
    return PullCuda(traced.back)


@register("stages", "cuda")
def stages(traced: TracedCell, dtype: Any) -> StagesCuda:
    """Return the stages of a cell, which take any dtype."""
    return StagesCuda(traced.program)


@dataclass(frozen=True)
class AtOnceCuda:
    """f at all t of one recurrence, in the place of :class:`recsolve.kernels.cpu.cell.fused_loops.AtOnce` on a GPU."""

    kernels: ElementwiseCuda
    inputs: Sequence[Array]
    batch: int

    def evaluate(self, previous: Array, values: Array) -> None:
        """Fill ``values`` with f of the states ``previous``."""
        self.kernels.evaluate(self.inputs, previous, values, self.batch)

    def linearise(self, previous: Array, values: Array, J: Array) -> None:
        """Fill ``values`` with f of the states, and J (T, *batch, [k, k], *lanes, n) with its Jacobian."""
        self.kernels.linearise(self.inputs, previous, values, J, self.batch)
