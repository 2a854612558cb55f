"""Scans of every monoid and structure against literal loops, and data that do not fit their layout."""

from __future__ import annotations

import monoid_gallery as gallery
import numpy as np
from gallery import structure

import recsolve as rs
from recsolve import jacobians as rj
from recsolve.kernels.monoids.monoid import MONOIDS

from . import judge
from .judge import require, unexpected, unwritten
from .problems import ordered
from .trees import LONG


def act(name, e, y):
    """Return the map of one step applied to a state, as docs/scans.md writes it; by the monoid if it is not there."""
    if name == "affine":
        return e[0] * y + e[1]
    if name == "clamp":
        return np.maximum(np.minimum(e[0], y), e[1])
    if name == "addition":
        return y + e[0]
    if name == "saturating_add":
        return np.maximum(np.minimum(y + e[0], e[2]), e[1])
    if name == "max_min":
        return np.maximum(e[1], np.minimum(e[0], y))
    if name == "max_plus":
        return np.maximum(e[1], e[0] + y)
    if name == "min_plus":
        return np.minimum(e[1], e[0] + y)
    if name == "logsumexp":
        m = np.maximum(e[0], y[..., 0])
        return np.stack([m, y[..., 1] * np.exp(y[..., 0] - m) + e[1] * np.exp(e[0] - m)], axis=-1)
    if name == "moebius":
        return (e[0] * y + e[1]) / (e[2] * y + e[3])
    if name == "finite_map":
        return np.take_along_axis(e[0], y[..., None], axis=-1)[..., 0]
    if name != "riccati":
        return MONOIDS[name].act(tuple(e), y)
    A, C, B = e  # by an adjugate: LAPACK has no extended precision
    m = A.shape[-1]
    inner = np.eye(m) + product(y, B)
    if m == 1:
        inverse = 1 / inner
    else:
        a, b, c, d = inner[..., 0, 0], inner[..., 0, 1], inner[..., 1, 0], inner[..., 1, 1]
        rows = [np.stack([d, -b], -1), np.stack([-c, a], -1)]
        inverse = np.stack(rows, -2) / (a * d - b * c)[..., None, None]
    return product(product(A, product(inverse, y)), A.swapaxes(-1, -2)) + C


def product(X, Y):
    return (X[..., :, :, None] * Y[..., None, :, :]).sum(axis=-2)


def walked(name, elements, initial, reset, reverse):
    """Return the literal loop in extended precision; a cut step acts on ``initial`` or forgets."""
    exact = name == "finite_map"
    e = elements if exact else [x.astype(LONG) for x in elements]
    start = None if initial is None else initial if exact else initial.astype(LONG)
    ys, y, T = {}, start, len(e[0])
    for t in range(T)[::-1] if reverse else range(T):
        one = [x[t] for x in e]
        forgot = act(name, one, start) if name in gallery.RESTARTING else MONOIDS[name].constant(tuple(one), None)
        new = forgot if y is None else act(name, one, y)
        if reset is not None:
            cut = reset[t].reshape(reset[t].shape + (1,) * (new.ndim - reset.ndim + 1))
            new = np.where(cut, forgot, new)
        ys[t] = y = new
    like = np.empty((0, *np.shape(start)))
    return np.stack([ys[t] for t in range(T)]) if T else like


def scan(rng, compiled, backend):
    """Every monoid, both directions, resets, initial states, memory orders, every backend."""
    name, dtype = str(rng.choice(list(MONOIDS))), rng.choice([np.float32, np.float64])
    T, shape = int(rng.choice([1, 2, 31, 33, 97, 257])), ((), (3,), (2, 3), (0,))[rng.integers(4)]
    size = 4 if name == "finite_map" else int(rng.integers(1, 3))
    elements = gallery.elements(name, T, shape, rng, dtype, size, whole=True)
    if name != "riccati" and name != "finite_map":
        elements = tuple(ordered(rng, x) for x in elements)
    initial = gallery.state(name, elements, rng) if name in gallery.RESTARTING or rng.random() < 0.5 else None
    reset = rng.random(T) < 0.1 if rng.random() < 0.4 else None
    reverse = bool(rng.random() < 0.5)
    where = backend or ("numba" if compiled else "numpy")
    with rs.backend(where), unwritten(*elements, initial), unexpected(f"scan({name}) on {where}"):
        got = rs.scan(name, elements, initial=initial, reset=reset, reverse=reverse)
    with np.errstate(all="ignore"):
        wanted = walked(name, elements, initial, reset, reverse)
    judge.COUNTS["scans"] += 1
    require(got.shape == wanted.shape, "wrong answer", f"{name}: shape {got.shape}, wanted {wanted.shape}")
    if not got.size:
        return
    if name in gallery.EXACT or name in ("addition", "saturating_add", "max_plus", "min_plus"):
        require(np.array_equal(got, wanted.astype(got.dtype)), "wrong answer", f"{name} on {where} is not the loop's")
        return
    eps, size = float(np.finfo(dtype).eps), 1 + np.abs(wanted).max(axis=0, keepdims=True)
    gap = np.abs(got - wanted) / size
    require((gap <= 100 * T * eps).all(), "wrong answer", f"{name} on {where}: relative gap {float(gap.max()):.2e}")


def literal(J, layout, v):
    """Return J v of one step by its definition, (*batch, *event)."""
    data = J.data.astype(LONG) if hasattr(J.data, "astype") else J.data
    if isinstance(J, rj.Scalar):
        return data.reshape(data.shape + (1,) * len(layout.event)) * v
    if isinstance(J, rj.Diagonal):
        return data * v
    axis = v.ndim - len(layout.event)
    if isinstance(J, rj.Block):
        return (data * np.expand_dims(v, axis)).sum(axis=axis + 1)
    k, n = layout.components, layout.units
    flat = v if k == 1 else np.moveaxis(v, axis, -2).reshape(*v.shape[:axis], *layout.lanes, k * n)
    out = (data * flat[..., None, :]).sum(axis=-1)
    return out if k == 1 else np.moveaxis(out.reshape(*out.shape[:-1], k, n), -2, axis)


def matrices(rng, compiled, backend):
    """Affine scans with every structure of Jacobian."""
    kind = str(rng.choice(["Scalar", "Diagonal", "Block", "LaneDense"]))
    k = 2 if kind == "Block" else int(rng.integers(1, 3))
    layout = rs.Layout(k, () if rng.random() < 0.6 else (2,), int(rng.integers(1, 5)))
    T, batch, dtype = int(rng.choice([1, 2, 33, 97])), ((), (3,))[rng.integers(2)], rng.choice([np.float32, np.float64])
    with unexpected("jacobian"):
        J = structure(getattr(rj, kind), layout, (T, *batch), rng, dtype, gain=0.5 / layout.lane_width**0.5)
    b = ordered(rng, rng.standard_normal((T, *batch, *layout.event)).astype(dtype))
    initial = rng.standard_normal(b.shape[1:]).astype(dtype) if rng.random() < 0.5 else None
    reset = rng.random(T) < 0.2 if rng.random() < 0.5 else None
    where = backend or ("numba" if compiled else "numpy")
    with rs.backend(where), unexpected(f"scan of {kind} on {where}"):
        got = rs.scan("affine", (J, b), initial=initial, reset=reset)
    y, wanted = np.zeros(b.shape[1:]) if initial is None else initial.astype(LONG), []
    for t in range(T):
        y = b[t].astype(LONG) + (0 if reset is not None and reset[t] else literal(J[t], layout, y))
        wanted.append(y)
    gap = np.abs(got - np.stack(wanted)).max() / (1 + np.abs(np.stack(wanted)).max())
    judge.COUNTS["scans"] += 1
    require(gap <= 100 * T * float(np.finfo(dtype).eps), "wrong answer", f"{kind} on {where}: gap {float(gap):.2e}")


def misfits(rng, compiled, backend):
    """Data that do not fit the layout they are given: refused, before a compiled loop reads beyond them."""
    kind = str(rng.choice(["Diagonal", "Block", "LaneDense"]))
    layout = rs.Layout(2 if kind == "Block" else 1, (), int(rng.integers(2, 5)))
    T, where = 33, backend or ("numba" if compiled else "numpy")
    J = structure(getattr(rj, kind), layout, (T,), rng)
    shape, axis = list(J.data.shape), int(rng.integers(1, J.data.ndim))
    shape[axis] += int(rng.choice([-1, 1, 2]))
    data, b = np.full(shape, 0.1), np.ones((T, *layout.event))
    try:
        with rs.backend(where):
            got = rs.scan("affine", (type(J)(data, layout), b))
            if shape[axis] == 1 and axis == data.ndim - 1 and kind != "LaneDense":  # which stands for all units
                full = type(J)(np.full(J.data.shape, 0.1), layout)
                require((got == rs.scan("affine", (full, b))).all(), "wrong answer", f"{kind} of {tuple(shape)}")
                return
    except ValueError:
        return
    except judge.Wrong:
        raise
    except Exception as error:
        raise judge.Wrong("exception", f"{kind} of {tuple(shape)}: {type(error).__name__}: {error}") from error
    raise judge.Wrong("wrong answer", f"{kind} of {tuple(shape)} for {layout} is scanned on {where}: {got.ravel()[:3]}")
