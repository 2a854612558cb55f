"""What a network is like for solvers at some moment of its training, and from moment to moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import recsolve as rs
from recsolve.analysis.exponents import lyapunov
from recsolve.base.arrays import to_native
from recsolve.studies.store.records import Row

PROBED = 256  # steps of a stream on which a network is looked at


def followed(trained: Any, every: int, look: Callable[[Any], Row]) -> Iterator[Row]:
    """Train to the end, and yield a row for every so many steps; looking takes no part in its ``seconds``.

    Parameters
    ----------
    trained : Run
    every : int
    look : callable
        ``look(trained)`` returns what is seen.
    """
    seconds = 0.0
    while True:
        if trained.step % every == 0:
            tokens = trained.config.length * trained.config.batch * trained.step
            yield look(trained) | {"step": trained.step, "seconds": seconds, "tokens": tokens}
        if trained.step == trained.config.steps:
            return
        began = time.perf_counter()
        trained.descend()
        _wait(trained.device)
        taken = time.perf_counter() - began
        seconds += taken if trained.step > 1 else 0.0  # the first step compiles


def _wait(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize()


def probe(network: Any, inputs: Any, methods: Sequence[str] = ("newton",), maxiter: int = 200) -> dict[str, float]:
    """Return how hard the recurrent layers of a network are on some inputs, of the layer that is hardest.

    Parameters
    ----------
    network : torch.nn.Module
        With layers of :mod:`recsolve.nn`, in ``network.layers``.
    inputs : tensor
    methods : sequence of str
        The solvers whose iterations are counted.
    maxiter : int
        Of a solve; one that has not converged by then counts as so many.

    Returns
    -------
    dict
        The iterations by method, ``condition`` and ``exponent``, the largest Lyapunov exponent per step.
    """
    import torch

    from recsolve.nn import watched

    with torch.no_grad(), watched(network.layers) as seen:
        network.eval()(inputs)
    found = []
    for one in seen:
        solved = [rs.solve(one.recurrence, method=m, maxiter=maxiter, fallback="sequential") for m in methods]
        exponent = lyapunov(one.recurrence, to_native(solved[0].states, "states"))
        found.append((*(float(s.nit) for s in solved), float(solved[0].condition), exponent))
    names = (*methods, "condition", "exponent")
    return {name: max(column) for name, column in zip(names, zip(*found, strict=True), strict=True)}
