"""Walks on the GPU of cells with mixings that couple units, compiled whole from the function of the cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recsolve.base.arrays import Array
from recsolve.kernels.codegen.cuda_walk import walk_cell
from recsolve.kernels.gpu.block_walk import Given, planned, text, walk
from recsolve.kernels.gpu.device import Machine, on
from recsolve.kernels.registry import TracedCell, register
from recsolve.kernels.starts import Starts
from recsolve.symbolic.program import Program


class MixingWalkCuda:
    """The compiled walk of one cell, in the place of :class:`recsolve.kernels.cpu.cell.mixing.FusedMixing` on a GPU.

    States are (T, *batch, [k], *lanes, n), inputs broadcast to (T, *batch, *lanes, n) and come in the order of
    :func:`recsolve.kernels.codegen.numba_elementwise.inputs_of`.

    Parameters
    ----------
    program : Program
        With mixings of the kinds ``"dense"`` and ``"heads"``, and ``"diagonal"`` ones beside them.
    machine : Machine, optional
        By default the device of the arrays, on its current stream.
    """

    def __init__(self, program: Program, machine: Machine | None = None):
        self.cell, self.drives, self._machine = walk_cell(program), len(program.drives), machine
        self.code = text(self.cell)

    def takes(self, states: Array, batch: int) -> bool:
        """Return whether there is a walk for states (T, *batch, [k], *lanes, n) of this shape and dtype."""
        with on(states, self._machine) as machine:
            return planned(self.cell, states, batch, False, machine) is not None

    def walk(
        self, inputs: Sequence[Array], mixings: Mapping[str, Array], states: Array, batch: int, starts: Starts
    ) -> None:
        """Fill ``states`` one step after the other.

        Parameters
        ----------
        inputs : sequence of array
        mixings : mapping of array
            The matrices (*lanes, n, n) of those that couple units.
        states : array
            The result.
        batch : int
            The number of batch axes.
        starts : Starts

        Raises
        ------
        ValueError
            For states that :meth:`takes` would have declined.
        """
        if not states.size:
            return
        begin, cut = {"initial": starts.initial[None], "restart": starts.restart[None]}, None
        if starts.reset is not None:
            apart = (1,) * (states.ndim - (self.cell.components > 1) - starts.reset.ndim)
            cut = starts.reset.astype(states.dtype).reshape(*starts.reset.shape, *apart)
        matrices = [mixings[name] for name in self.cell.mixings]
        given = Given(inputs[: self.drives], inputs[self.drives :], states, matrices, batch, begin, cut)
        with on(states, self._machine) as machine:
            if not walk(self.cell, self.code, given, machine):
                raise ValueError(f"states have shape {states.shape} and dtype {states.dtype}; no kernel walks these")


@register("walk", "cuda")
def walk_on_gpu(traced: TracedCell, dtype: Any) -> MixingWalkCuda:
    """Return the walk of a cell, which takes any dtype."""
    return MixingWalkCuda(traced.program)
