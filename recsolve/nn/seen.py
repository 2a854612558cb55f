"""The solves of a layer, for those who look at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from recsolve.interop.autograd import CellSpec
from recsolve.interop.autograd_ops import recurrence_of
from recsolve.recurrence.base import Recurrence


class Seen(NamedTuple):
    """A solve of a layer in one direction, as :func:`watched` collects it.

    Attributes
    ----------
    spec : CellSpec
    tensors : dict of tensors
        What the solve was made of, with the names of :func:`recsolve.interop.autograd.solve_cell`.
    states : tensor, shape (T, B, *event)
        Without a graph, in the order of time of the direction.
    """

    spec: CellSpec
    tensors: dict[str, Any]
    states: Any

    @property
    def recurrence(self) -> Recurrence:
        """What was solved."""
        return recurrence_of(self.spec, list(self.tensors), list(self.tensors.values()))


def check_layer(layer: Any) -> None:
    """Raise TypeError for what is no layer of this package."""
    if not hasattr(layer, "seen"):
        raise TypeError(f"layer is {type(layer).__name__}; wanted one of recsolve.nn")


@contextmanager
def watched(layer: Any, *, still: bool = True) -> Iterator[list[Seen]]:
    """Collect what a layer solves while it is called.

    Parameters
    ----------
    layer : GRU, LSTM, RNN or Recurrent
    still : bool
        Whether dropout is left out. Windows (``every``) are.

    Yields
    ------
    list of Seen
        One for each layer and direction of every call, in torch's order.

    Raises
    ------
    TypeError
        For what is no layer of this package.

    Examples
    --------
    >>> import torch, recsolve as rs
    >>> layer = rs.nn.GRU(3, 8, num_layers=2)
    >>> with rs.nn.watched(layer) as seen:
    ...     _ = layer(torch.ones(50, 4, 3))
    >>> [rs.diagnose(solve.recurrence, methods=["newton"]).pilot for solve in seen], seen[1].states.shape
    ([50, 50], torch.Size([50, 4, 8]))
    """
    check_layer(layer)
    layer.seen, modes = [], [(module, module.training) for module in layer.modules()]
    if still:
        layer.eval()
    try:
        yield layer.seen
    finally:
        layer.seen = None
        for module, training in modes:  # some within may be in another mode than the layer
            module.training = training
