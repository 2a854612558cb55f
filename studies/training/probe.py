"""What a network is like for solvers at some moment of its training."""

from __future__ import annotations

from typing import Any

import recsolve as rs
from recsolve.analysis.exponents import lyapunov
from recsolve.base.arrays import to_native


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

    from recsolve.nn import watched

    with torch.no_grad(), watched(network.layers) as seen:
        network.eval()(inputs)
    found = []
    for one in seen:
        solution = rs.solve(one.recurrence, method=method, maxiter=maxiter, fallback="sequential")
        exponent = lyapunov(one.recurrence, to_native(solution.states, "states"))
        found.append((float(solution.nit), float(solution.condition), exponent))
    newton, condition, exponent = (max(column) for column in zip(*found, strict=True))
    return {"newton": newton, "condition": condition, "exponent": exponent}
