"""What a network is like for solvers at some moment of its training."""

from __future__ import annotations

from typing import Any

import numpy as np

import recsolve as rs
from recsolve.base.arrays import to_native
from recsolve.diagnosis.diagnose import leading_exponents


def probe(network: Any, inputs: Any, method: str = "newton", maxiter: int = 200) -> dict[str, float]:
    """Return how hard the recurrent layers of a network are on some inputs, of the layer that is hardest.

    Parameters
    ----------
    network : torch.nn.Module
        With layers of :mod:`recsolve.nn`, in ``network.layers``.
    inputs : tensor
    method : str
        The solver whose iterations are counted.
    maxiter : int
        Of a solve; one that has not converged by then counts as so many.

    Returns
    -------
    dict
        ``newton`` (iterations of the method), ``condition`` and ``exponent``, the largest Lyapunov exponent per step.
    """
    import torch

    layers = network.layers
    layers.seen = []
    try:
        with torch.no_grad():
            network.eval()(inputs)
        recurrences = [(solution.recurrence, solution) for _, _, solution in layers.seen]
    finally:
        layers.seen = None
    found = []
    for recurrence, solution in recurrences:
        again = rs.solve(recurrence, method=method, maxiter=maxiter)
        _, J = recurrence.linearise(to_native(solution.states, "states"))
        with np.errstate(all="ignore"):
            exponent = float(leading_exponents(recurrence, J, 1, np.random.default_rng(0))[0])
        found.append((float(again.nit), float(solution.condition), exponent))
    newton, condition, exponent = (max(column) for column in zip(*found, strict=True))
    return {"newton": newton, "condition": condition, "exponent": exponent}
