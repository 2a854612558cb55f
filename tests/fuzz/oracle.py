"""The truth: literal loops over t, derivatives by differences in extended precision, and what they amplify."""

from __future__ import annotations

import numpy as np

from .trees import LONG

_MOST_TERMS = 5e7  # beyond so many products of Jacobians a question is not asked


def loop(model, drive, initial, starts, dtype=LONG):
    """Return the states (T, *batch, k, *lanes, n) of h[t] = f(h[t-1], u[t]), one step after the other, in ``dtype``.

    Parameters
    ----------
    drive : dict of array
        (T, *batch, *lanes, n) each, or what broadcasts to it.
    initial : array
        (*batch, k, *lanes, n).
    starts : array of bool
        (T, *batch): steps that begin from ``initial``.
    """
    first = np.asarray(initial).astype(dtype)
    states = np.empty((len(starts), *first.shape), dtype)
    state = first
    over = starts.reshape(starts.shape + (1,) * (first.ndim - starts.ndim + 1))
    with np.errstate(all="ignore"):
        for t in range(len(starts)):
            state = np.where(over[t], first, state)
            state = model.step(state, {n: u[t] for n, u in drive.items()}, dtype)
            states[t] = state
    return states


def previous_of(states, initial, starts):
    """Return h[t-1] for every t."""
    before = np.concatenate([initial[None].astype(states.dtype), states[:-1]]) if len(states) else states
    over = starts.reshape(starts.shape + (1,) * (states.ndim - starts.ndim))
    return np.where(over, initial.astype(states.dtype), before)


def jacobian(model, before, drive):
    """Return |larger one-sided difference|-signed Jacobians (T, *batch, groups, m, m) in extended precision.

    Where units do not couple, a group is a unit with its components, else all numbers of a state. At a kink the
    difference of the larger slope is taken, for what is amplified is at most that.
    """
    k, event = model.components, (*model.lanes, model.units)
    x = before.astype(LONG)
    leading = x.shape[: x.ndim - 1 - len(event)]
    h = LONG(1e-9) * (1 + np.abs(x).max(axis=tuple(range(len(leading), x.ndim)), keepdims=True, initial=0))
    with np.errstate(all="ignore"):
        base = model.step(x, drive, LONG)

        def column(direction):
            up = (model.step(x + h * direction, drive, LONG) - base) / h
            down = (base - model.step(x - h * direction, drive, LONG)) / h
            return np.where(np.abs(up) >= np.abs(down), up, down)

        size = int(np.prod(event))
        if model.elementwise:
            columns = []
            for j in range(k):
                direction = np.zeros((k, *event))
                direction[j] = 1
                columns.append(column(direction).reshape(*leading, k, size))
            return np.moveaxis(np.stack(columns, axis=-1), -2, -3).astype(np.float64)  # (..., size, k, k)
        eye = np.eye(k * size).reshape(k * size, k, *event)
        columns = [column(direction).reshape(*leading, k * size) for direction in eye]
    return np.stack(columns, axis=-1)[..., None, :, :].astype(np.float64)


def grouped(x, model):
    """Return states (..., k, *lanes, n) in the groups of :func:`jacobian`, (..., groups, m)."""
    event = 1 + len(model.lanes) + 1
    flat = x.reshape(*x.shape[: x.ndim - event], model.components, -1)
    return np.moveaxis(flat, -1, -2) if model.elementwise else flat.reshape(*flat.shape[:-2], 1, -1)


def amplified(J, defects, starts):
    """Return what defects of at most so much in every step may grow to, to first order; None if it costs too much.

    That is E[t] = sum over s of |J[t] ... J[s+1]| defect[s], the sum of absolute values of products, not of bounds.

    Parameters
    ----------
    J : array, shape (T, *batch, groups, m, m)
    defects : array, shape (T, *batch, groups, m, c)
        Any number c of kinds of defects.
    starts : array of bool, shape (T, *batch)
    """
    T, m = J.shape[0], J.shape[-1]
    keep = np.where(starts, 0.0, 1.0).reshape(*starts.shape, 1, 1, 1)
    with np.errstate(all="ignore"):
        if m == 1:
            total, E = np.zeros_like(defects), np.zeros(defects.shape[1:])
            for t in range(T):
                E = np.where(keep[t] > 0, np.abs(J[t]) * E, 0) + defects[t]
                total[t] = E
            return total
        total, spent = np.zeros_like(defects), 0.0
        P, D = np.zeros((0, *J.shape[1:])), np.zeros((0, *defects.shape[1:]))
        for t in range(T):
            step = np.where(keep[t] > 0, J[t], 0.0)
            P = np.concatenate([step @ P, np.broadcast_to(np.eye(m), (1, *J.shape[1:]))])
            D = np.concatenate([D, defects[t : t + 1]])
            total[t] = (np.abs(P) @ D).sum(axis=0)
            spent += P.size * m
            if spent > _MOST_TERMS:
                return None
            if t % 32 == 31:
                alive = ~(np.abs(P).max(axis=tuple(range(1, P.ndim)), initial=0) < 1e-17)
                P, D = P[alive], D[alive]
    return total
