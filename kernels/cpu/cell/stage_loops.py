"""The elementwise stages of cells with mixings that couple units, compiled and run for all times at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil
from typing import Any

from recsolve.base.arrays import Array
from recsolve.kernels.codegen.numba_stages import jobs_of, stages_module
from recsolve.kernels.cpu.jit import module_cache
from recsolve.kernels.cpu.placement.rows import SPREAD, Rows, States, Y
from recsolve.kernels.cpu.threads import spread, threads
from recsolve.kernels.registry import TracedCell, register
from recsolve.symbolic.graph import Leaf
from recsolve.symbolic.program import Program

LEAST = 16  # lanes of a row that is read in place: to copy short rows takes longer than what is done with them


class FusedStages:
    """The compiled stages of one cell and dtype.

    Parameters
    ----------
    program : Program
    dtype : dtype
    """

    def __init__(self, program: Program, dtype: Any):
        self.program = program
        self.jobs = {partials: jobs_of(program, partials) for partials in (False, True)}
        source = stages_module([job for jobs in self.jobs.values() for job in jobs], dtype)
        self.loops: Any = module_cache.load(source, f"{program.name} stages")

    def run(self, stage: int, partials: bool, known: Mapping[Leaf, Array], results: Sequence[Array]) -> None:
        """Fill ``results`` with the nodes of a job, in their order.

        Parameters
        ----------
        stage : int
        partials : bool
            Whether the job has the partials too.
        known : mapping
            Leaf to array; those that the job reads broadcast to the shape of the results.
        results : sequence of array
            (T, *batch, *lanes, n), all of one shape.
        """
        job = self.jobs[partials][stage]
        if not results or not results[0].size:
            return
        first, *others = results
        rows = Rows(first.shape, {Y: States(first, (), True)}, [known[leaf] for leaf in job.leaves], others, LEAST)
        workers = threads() if first.size >= SPREAD else 1
        width, bundle = rows.tile(workers)
        g = self.loops.Sizes(len(first), rows.groups, rows.inner, width, bundle)
        loop = getattr(self.loops, job.name)
        made = (rows.bases[Y], *rows.gradients)
        tasks = ceil(rows.groups / bundle) * ceil(rows.inner / width)
        spread(partial(loop, rows.inputs, made, rows.where, rows.by_time, g), tasks, workers)
        rows.finish()


@register("stages", "numba")
def stages(traced: TracedCell, dtype: Any) -> FusedStages:
    """Return the stages of a cell."""
    return FusedStages(traced.program, dtype)
