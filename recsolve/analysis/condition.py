"""How much a residual may be amplified: the conditioning of the bidiagonal system.

The error e of a trajectory with residual r obeys e[t] = J[t] e[t-1] + r[t] to first order, so max|e| <= kappa max|r|
with kappa the infinity norm of the inverse of the bidiagonal matrix with unit diagonal and -J[t] below it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsolve.base.arrays import Array, namespace, to_host
from recsolve.jacobians import Diagonal, Identity, Jacobian, Scalar, Zero
from recsolve.kernels.affine_scan import affine_scan, reverse_solve
from recsolve.recurrence.base import Recurrence

DIAGONAL = (Zero, Identity, Scalar, Diagonal)
_STEPS = 5  # Higham: more than this many steps of the estimator are almost never needed


def condition(recurrence: Recurrence, states: Array) -> float:
    """Return kappa at a trajectory, the largest over the sequences; inf when products of Jacobians overflow.

    Exact for diagonal structures along time, by the scan kappa[t] = 1 + |J[t]| kappa[t-1]; otherwise, as on graphs,
    where paths may cancel, an estimate from a few forward and reverse scans, a lower bound rarely off by more than a
    factor of 3.

    Parameters
    ----------
    recurrence : Recurrence
    states : array, shape (T, *batch, *event)
        Native.

    Returns
    -------
    float
        At least 1.

    Raises
    ------
    TypeError
        As :meth:`recsolve.Recurrence.linearise`.

    Notes
    -----
    The estimate is that of Hager (1984) and Higham (1988).

    Examples
    --------
    >>> import numpy as np, recsolve as rs
    >>> from recsolve.analysis.condition import condition
    >>> rec = rs.Recurrence.from_function(
    ...     lambda h, u: 0.5 * h + u, inputs=np.ones((3, 1)), initial=np.zeros(1), structure="diagonal")
    >>> condition(rec, np.ones((3, 1)))
    1.75
    """
    if not states.size:
        return 1.0
    _, J = recurrence.linearise(states)
    with np.errstate(all="ignore"):
        kappa = _exact(recurrence, J) if type(J) in DIAGONAL else _estimate(recurrence, J)
    return kappa if np.isfinite(kappa) else float("inf")


def _exact(recurrence: Recurrence, J: Jacobian) -> float:
    return float(to_host(growth(J, recurrence.over_event(recurrence.starts)).max()))


def growth(J: Jacobian, cut: Array | None, before: Array | None = None) -> Array:
    """Return kappa[t] = 1 + |J[t]| kappa[t-1] of a diagonal structure, (T, *batch, *event); it is 1 at cuts.

    Parameters
    ----------
    J : Jacobian
        In one of the structures ``DIAGONAL``.
    cut : array of bool or None
        Steps that do not see the one before, broadcasting over the event.
    before : array, shape (*batch, *event), optional
        kappa before the first step.
    """
    magnitudes = abs(J.diagonal().data)
    ones = namespace(magnitudes).ones_like(magnitudes)
    return affine_scan(Diagonal(magnitudes, J.layout), ones, initial=before, reset=cut)


def _estimate(recurrence: Recurrence, J: Jacobian) -> float:
    cut = recurrence.over_event(recurrence.starts)
    return inverse_norm(
        lambda c: affine_scan(J, c, reset=cut), lambda c: reverse_solve(J, cut, c), recurrence.initial,
        recurrence.length, len(recurrence.batch),
    )  # fmt: skip


def inverse_norm(
    forward: Callable[[Array], Array], backward: Callable[[Array], Array], like: Array, length: int, batch_axes: int
) -> float:
    """Return an estimate of the infinity norm of the inverse of a system, the largest over its sequences.

    Parameters
    ----------
    forward, backward : callable
        Products of the inverse, and of its transpose, with arrays (T, *batch, ...).
    like : array, shape (*batch, ...)
        Of the kind and dtype of these arrays, and of their shape without time.
    length : int
        T.
    batch_axes : int
        How many axes of ``like`` are those of the sequences.

    Returns
    -------
    float
        A lower bound, rarely off by more than a factor of 3: the 1-norm of the transpose, by Hager and Higham.
    """
    xp, dtype, shape = namespace(like), like.dtype, (length, *like.shape)
    count = length * int(np.prod(like.shape[batch_axes:]))
    axes = (0, *range(1 + batch_axes, len(shape)))
    x = xp.full(shape, 1.0 / count, dtype=dtype)
    y = backward(x)
    best = abs(y).sum(axis=axes)
    for _ in range(_STEPS):
        sign = xp.where(y >= 0, y.dtype.type(1), y.dtype.type(-1))
        z = forward(sign)
        x = _one_hot_at_largest(z, batch_axes)
        y = backward(x)
        improved = abs(y).sum(axis=axes)
        if not (improved > best).any():
            break
        best = xp.maximum(best, improved)
    # Higham's second start, for the matrices that fool the first.
    ramp = xp.linspace(1.0, 2.0, count, dtype=dtype) * (1 - 2 * (xp.arange(count) % 2))
    ramp = ramp.reshape(length, *(1,) * batch_axes, *like.shape[batch_axes:])
    other = abs(backward(xp.broadcast_to(ramp, shape).astype(dtype))).sum(axis=axes)
    return float(to_host(xp.maximum(best, 2.0 * other / (3.0 * count)).max()))


def _one_hot_at_largest(z: Array, batch_axes: int) -> Array:
    """Return, per sequence, the unit vector of the largest entry of |z|."""
    xp = namespace(z)
    batch = z.shape[1 : 1 + batch_axes]
    moved = xp.moveaxis(z, 0, batch_axes)  # (*batch, T, *event)
    flat = abs(moved).reshape(int(np.prod(batch)), -1)
    hot = xp.zeros_like(flat)
    hot[xp.arange(flat.shape[0]), flat.argmax(axis=1)] = 1
    return xp.moveaxis(hot.reshape(moved.shape), batch_axes, 0)  # type: ignore[no-any-return]
