"""Lyapunov exponents along states."""

from __future__ import annotations

import numpy as np

from recsolve.base.arrays import Array, namespace, to_host
from recsolve.jacobians import Diagonal, Identity, Jacobian, Scalar, Zero
from recsolve.recurrence.base import Recurrence


def lyapunov(recurrence: Recurrence, states: Array, seed: int = 0) -> float:
    """Return the largest Lyapunov exponent per step along native states; -inf where perturbations vanish.

    Parameters
    ----------
    recurrence : Recurrence
    states : array, shape (T, *batch, *event)
    seed : int
        Of the direction that is followed.
    """
    _, J = recurrence.linearise(states)
    with np.errstate(all="ignore"):  # of saturated units, that of nothing is -inf
        return float(leading_exponents(recurrence, J, 1, np.random.default_rng(seed))[0])


def exponents_along(recurrence: Recurrence, states: Array, count: int, pilot: int) -> Array:
    """Return the leading Lyapunov exponents per step along the first native states.

    Parameters
    ----------
    recurrence : Recurrence
    states : array, shape (T, *batch, *event)
    count : int
        How many exponents.
    pilot : int
        How many steps.

    Returns
    -------
    array, shape (count,), float64

    Raises
    ------
    ValueError
        For fewer than 2 steps, no exponents, or an empty batch.
    """
    whole = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in (count, pilot))
    length = min(pilot, recurrence.length) if whole else 0
    if length < 2 or 0 in recurrence.shape or count < 1:
        raise ValueError(
            f"pilot is {pilot!r}, exponents {count!r} and the states have shape {recurrence.shape}; wanted 2 steps or "
            "more, 1 exponent or more, and no empty axis"
        )
    short = recurrence.window(0, length)
    _, J = short.linearise(states[:length])
    with np.errstate(all="ignore"):
        return leading_exponents(short, J, count, np.random.default_rng(0))


def leading_exponents(recurrence: Recurrence, J: Jacobian, count: int, generator: np.random.Generator) -> Array:
    """Return the leading Lyapunov exponents per step of products of Jacobians, averaged over the sequences.

    Parameters
    ----------
    recurrence : Recurrence
    J : Jacobian
        Along its trajectory.
    count : int
        How many; at most as many as a state has numbers.
    generator : Generator
        Of the first frame of vectors.

    Returns
    -------
    array, shape (count,), float64
        Largest first.

    Notes
    -----
    The QR method of Benettin et al. (1980); exact for diagonal structures.

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.analysis.exponents import leading_exponents
    >>> rec = rs.Recurrence.from_function(lambda h, u: 0.5 * h + u, inputs=np.ones((9, 1)), initial=np.zeros(1))
    >>> leading_exponents(rec, rec.linearise(rec.guess())[1], 1, np.random.default_rng(0)).round(3)
    array([-0.693])
    """
    count, starts = min(count, recurrence.layout.size), to_host(recurrence.starts)
    if type(J) in (Zero, Identity, Scalar, Diagonal):  # each unit by itself
        growth = np.log(abs(to_host(J.diagonal().data).astype(np.float64)).reshape(*starts.shape, -1))
        steps = np.maximum((~starts).sum(axis=0), 1)[..., None]
        exponents = np.where(starts[..., None], 0.0, growth).sum(axis=0) / steps
        leading = np.sort(exponents.reshape(-1, exponents.shape[-1]), axis=1)[:, ::-1][:, :count]
        return np.asarray(leading.mean(axis=0))
    return _by_frames(recurrence, J, count, starts, generator)


def _by_frames(short: Recurrence, J: Jacobian, count: int, starts: Array, generator: np.random.Generator) -> Array:
    """Return the exponents: push a frame of vectors along, and average the logarithms of the diagonals of R."""
    N, batch, event = short.layout.size, short.batch, short.layout.event
    frame, _ = np.linalg.qr(generator.standard_normal((*batch, N, count)))
    logs, steps = np.zeros((*batch, count)), np.zeros(batch)
    xp = namespace(short.initial)
    for t in range(short.length):
        columns = xp.asarray(np.moveaxis(frame, -1, 0).reshape(count, *batch, *event).astype(short.dtype))
        moved = np.stack([to_host(J[t].matvec(column)) for column in columns]).astype(np.float64)
        stretched = np.moveaxis(moved.reshape(count, *batch, N), 0, -1)
        goes_on = ~starts[t][..., None, None]  # a step that starts afresh shows no growth
        frame_next, R = np.linalg.qr(np.where(goes_on, stretched, frame))
        logs += np.where(goes_on[..., 0], np.log(abs(np.diagonal(R, axis1=-2, axis2=-1))), 0.0)
        steps += ~starts[t]
        frame = np.where(np.isfinite(frame_next), frame_next, frame)
    exponents = logs / np.maximum(steps, 1)[..., None]
    return np.asarray(np.sort(exponents.reshape(-1, count).mean(axis=0))[::-1])
