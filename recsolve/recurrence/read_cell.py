"""A cell with weights of which a linear readout is shown, as of torch's LSTMs with ``proj_size``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

from recsolve.base.arrays import Array, matmul_last, namespace
from recsolve.base.links import Leaf
from recsolve.base.overriding import changed
from recsolve.recurrence.weighted_cell import WeightedCell


class ReadCell(WeightedCell):
    """A cell that shows R y where another one shows y; states, mixings and solves are those of the other one.

    Attributes
    ----------
    readout : array, shape (p, n)
        R, in the dtype of the weights.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> plain = rs.cells.LSTM.random(input_size=3, hidden_size=8, rng=0)
    >>> cell = ReadCell.of(plain, np.ones((2, 8)))
    >>> sol = rs.solve(cell.recurrence(np.ones((20, 3))))
    >>> sol.states.shape, sol.output.shape
    ((20, 2, 8), (20, 2))
    """

    compilable = True  # the readout is not within the recurrence
    readout: Array

    @classmethod
    def of(cls, cell: WeightedCell, readout: Array) -> Self:
        """Return a cell, which has no lanes, with a readout (p, n)."""
        made = object.__new__(cls)
        vars(made).update(vars(cell), readout=readout)
        return made

    def _weights(self) -> Iterator[tuple[str, Array]]:
        yield from super()._weights()
        yield "readout", self.readout

    def leaves(self) -> dict[Leaf, Array]:
        return {**super().leaves(), ("readout", None): self.readout}

    def pull_readout(self, output: Array, states: Array) -> Array:
        """Return the cotangent of R for one of the output at some states."""
        shown = super().output(states)
        return output.reshape(-1, len(self.readout)).T @ shown.reshape(-1, shown.shape[-1])

    def map(self, function: Callable[[Array], Array]) -> Self:
        return WeightedCell.map(changed(self, readout=function(self.readout)), function)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (int(self.readout.shape[0]),)

    def output(self, states: Array) -> Array:
        return matmul_last(super().output(states), self.readout)

    def pull_output(self, output: Array, states: Array) -> None:
        super().pull_output(matmul_last(output, self.readout.T), states)

    def _inverse(self) -> Array:
        xp = namespace(self.readout)
        rcond = max(self.readout.shape) * float(xp.finfo(self.readout.dtype).eps)
        return xp.linalg.pinv(self.readout, rcond=rcond)  # type: ignore[no-any-return]

    def pull_shown_by(self, shown: Array) -> Array:
        return matmul_last(shown, self._inverse().T)

    def shown_by(self, output: Array) -> Array:
        eps, inverse = float(namespace(output).finfo(output.dtype).eps), self._inverse()
        y = matmul_last(output, inverse)
        y = y + matmul_last(output - matmul_last(y, self.readout), inverse)  # what rounding has left of the first
        off = abs(output - matmul_last(y, self.readout))
        if output.size and float(off.max()) > 1e3 * eps * float(abs(output).max()):
            raise ValueError(
                f"the initial output is none that the readout {tuple(self.readout.shape)} (weight_hr) can give; wanted "
                "one that the network has shown, or zeros"
            )
        return y

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self.output_shape[0]} shown)"
