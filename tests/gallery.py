"""Recurrences that the tests share, and the literal loop that judges them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

import recsolve as rs
from recsolve import jacobians
from recsolve.base.named_state import NamedState
from recsolve.jacobians.pattern import Pattern

LENGTHS = (0, 1, 2, 31, 32, 33, 97)
DTYPES = (np.float64, np.float32)


def mixings_of(cell):
    """The mixings worth testing for a cell."""
    if cell.name in ("mgu", "leaky", "slstm"):  # their dense forms say nothing that those of others do not
        return ("diagonal",)
    return ("dense", "diagonal", "heads") if cell.mixings else ("diagonal",)


# To compile a cell takes seconds. What these would show of the loops made from cells is shown by the others, which have
# one to four components, kinks, quotients, gates in front of and behind their mixings.
COMPILE_LIKE_OTHERS = ("elman", "mgu", "leaky", "cho_gru", "pararnn_gru", "pararnn_lstm")

CELLS = [(name, mixing) for name, cell in rs.cells.REGISTRY.items() for mixing in mixings_of(cell)]


def weighted(name, mixing="dense", *, units=8, channels=3, gain=1.0, seed=0, dtype=np.float64):
    cell = rs.cells.get(name)
    gain = gain if cell.mixings else 1.0
    return cell.random(input_size=channels, hidden_size=units, mixing=mixing, gain=gain, rng=seed, dtype=dtype)


def recurrence(name, mixing="dense", *, T=60, batch=(2,), seed=0, dtype=np.float64, reset=None, initial=None, **kwargs):
    cell = weighted(name, mixing, seed=seed, dtype=dtype, **kwargs)
    x = np.random.default_rng(seed + 1).standard_normal((T, *batch, cell.input_size)).astype(dtype)
    return cell.recurrence(x, initial=initial, reset=reset)


def structure(kind, layout, leading, rng, dtype=np.float64, gain=1.0):
    """A Jacobian of a structure, with normal entries times ``gain``."""
    k, width = layout.components, layout.lane_width

    def normal(*shape):
        return (gain * rng.standard_normal((*leading, *shape))).astype(dtype)

    if kind is jacobians.PermutationDiagonal:
        places = rng.permuted(np.broadcast_to(np.arange(width), (*leading, *layout.lanes, width)), axis=-1)
        return kind(places[(0,) * (places.ndim - 1)] if rng.random() < 0.3 else places, normal(*layout.event), layout)
    if kind is jacobians.LowRank:
        return kind(normal(*layout.event), *(normal(*layout.lanes, width, 2) for _ in range(2)), layout)
    if kind is jacobians.Banded:
        offsets = rng.permutation(np.arange(1 - width, width))[:3]
        return kind(normal(*layout.lanes, len(offsets), width), offsets, layout)
    shape = {
        jacobians.Scalar: (),
        jacobians.Block: (k, *layout.event),
        jacobians.LaneDense: (*layout.lanes, width, width),
    }.get(kind, layout.event)
    return kind(normal(*shape), layout)


def pairs(leading, rng, dtype=np.float64, gain=1.0):
    """A Jacobian by pairs of components, a number beside two: one sees itself, the others see both."""
    named = NamedState({"m": (), "h": ("d",)}, {"d": 2})
    pattern = Pattern(named, {("m", "m"): "diagonal", ("h", "h"): "dense", ("h", "m"): "diagonal"})
    shapes = {pair: (*leading, *rows.shape, columns.shape[1]) for pair, (rows, columns) in pattern.places.items()}
    blocks = {pair: (gain * rng.standard_normal(shape)).astype(dtype) for pair, shape in shapes.items()}
    return jacobians.Pairs(blocks, pattern, rs.Layout(units=3), np.zeros((*leading, 3), dtype))


def memory(put=np.asarray):
    """Named states of three shapes, with a parameter and a readout, on arrays that ``put`` makes."""
    rng = np.random.default_rng(0)
    u, W = rng.standard_normal((80, 2, 3)), 0.4 * rng.standard_normal((3, 3))
    initial = {"m": np.zeros(2), "C": np.zeros((2, 2, 3)), "h": np.zeros((2, 3))}

    def f(s, u, p):
        C = np.tanh(s.C @ p.W + s.m[..., None, None])
        return {"m": 0.5 * s.m + u[..., 0], "C": C, "h": np.tanh(s.h @ p.W + s.C.sum(axis=-2) + u)}

    def readout(s, u, p):
        return np.concatenate([np.einsum("...kv,...v->...k", s.C, u), s.h[..., [2, 0, 0]] * s.m[..., None]], axis=-1)

    return rs.Recurrence.from_function(
        f,
        inputs=put(u),
        state={"m": (), "C": ("k", "v"), "h": ("v",)},
        initial={name: put(x) for name, x in initial.items()},
        parameters={"W": put(W)},
        structure={
            ("m", "m"): "diagonal", ("C", "C"): ("k",), ("C", "m"): "dense", ("h", "h"): "dense", ("h", "C"): ("v",),
        },
        readout=readout,
    )  # fmt: skip


def compare_memories(here, there):
    """Assert that the solutions of a memory here and on a GPU agree, and their gradients too."""
    assert there.trusted
    wanted, g = (rs.adjoint(sol, output=sol.output) for sol in (here, there))
    pairs = [(there.output, here.output), (there.named_final.C, here.named_final.C), (g.initial.C, wanted.initial.C)]
    for found, known in [*pairs, (g.inputs, wanted.inputs), (g.parameters.W, wanted.parameters.W)]:
        np.testing.assert_allclose(found.get(), known, atol=1e-10)


def loop(rec):
    """The oracle: h[t] = f(h[t-1], u[t]) one step at a time, written out."""
    states = np.empty(rec.shape, rec.dtype)
    state = np.broadcast_to(rec.initial, rec.shape[1:])
    with np.errstate(all="ignore"):
        for t in range(rec.length):
            if rec.reset is not None:
                state = np.where(rec.over_event(rec.reset)[t], rec.restart, state)
            state = rec.step(state, t)
            states[t] = state
    return states


def function(f, u, structure="diagonal", **given):
    """The recurrence of a function on an input (T, *batch, *event), from zeros."""
    initial = np.zeros(u.shape[1:], u.dtype)
    return rs.Recurrence.from_function(f, inputs=u, initial=initial, structure=structure, **given)


def sine(p, T=500, seed=0, dtype=np.float32):
    """h = p sin h + u: chaotic, with products of derivatives that overflow."""
    u = np.random.default_rng(seed).standard_normal((T, 1)).astype(dtype)
    factor = dtype(p)
    return function(lambda h, u: factor * np.sin(h) + u, u)


def rows_met(rec, states, tolerance):
    """Recompute which rows (T, *batch) meet the test, literally as `Tolerance` states it, NaN failing."""
    previous = np.concatenate([np.broadcast_to(rec.initial, rec.shape[1:])[None], states[:-1]])
    if rec.reset is not None:
        previous = np.where(rec.over_event(rec.reset), rec.restart, previous)
    with np.errstate(all="ignore"):
        F = rec.bind().apply(previous)
        r = np.abs(F - states)
        size = np.maximum(np.abs(states), np.abs(F))
        m = np.ones((), states.dtype)
        if tolerance.lanes is not None:
            axes = (-1,) if rec.layout.components == 1 else (-len(rec.layout.event), -1)
            m = np.maximum(size.max(axis=axes, keepdims=True, initial=0), tolerance.unit)
        dtype = states.dtype.type
        met = np.isfinite(r) & (r <= dtype(tolerance.atol) * m + dtype(tolerance.rtol) * size)
    return met.all(axis=tuple(range(met.ndim - len(rec.layout.event), met.ndim)))


def residual_is_met(rec, states, tolerance):
    """Whether every row meets the test."""
    return bool(rows_met(rec, states, tolerance).all())


def bound(solution):
    """Law 1: how far two converged trajectories may be apart, 30 (tol max(s, max|h|) + u max|h|) kappa.

    s is 1, or the size of states that are tiny or huge, and u = max(1, rounding) eps / 2 is the rounding unit of f.
    """
    states = np.asarray(solution.states)
    largest = float(np.abs(states[np.isfinite(states)]).max(initial=0.0))  # an infinite bound would hold for all
    tolerance = solution.tolerance
    size = 1.0 if tolerance.lanes is None else max(tolerance.unit, largest)
    tol = max(tolerance.atol * size, tolerance.rtol * largest)
    unit = 0.5 * max(1.0, solution.recurrence.rounding) * float(np.finfo(states.dtype).eps)
    kappa = (
        solution.condition if solution.recurrence.stepwise else 1.0
    )  # of histories it is not known: nothing is smaller
    return 30.0 * (tol + unit * largest) * kappa


def condition_of(rec, states, change=1e-6):
    """The infinity norm of the inverse of the bidiagonal matrix, from differences of f: nothing of the library's own.

    Rows of the inverse are [J[t] ... J[2], ..., J[t], 1], one step after the other.
    """
    previous = np.concatenate([np.broadcast_to(rec.initial, rec.shape[1:])[None], states[:-1]])
    sequences, n, T = int(np.prod(rec.batch)), int(np.prod(rec.layout.event)), rec.length
    columns = np.eye(n).reshape(n, *(1,) * (1 + len(rec.batch)), *rec.layout.event)
    ahead, behind = ([rec.apply(previous + sign * change * e) for e in columns] for sign in (1, -1))
    J = (np.stack(ahead, -1) - np.stack(behind, -1)).reshape(T, sequences, n, n) / (2 * change)
    starts = np.zeros((T, sequences), bool) if rec.reset is None else rec.reset.reshape(T, sequences)
    worst = 1.0
    for b in range(sequences):
        rows = np.empty((n, 0))
        for t in range(T):
            past = np.zeros_like(rows) if starts[t, b] else J[t, b] @ rows
            rows = np.concatenate([past, np.eye(n)], axis=1)
            worst = max(worst, np.abs(rows).sum(axis=1).max())
    return worst


def stated_tolerance(rec):
    """The default tolerance as docs/solutions.md states it, from the weights."""
    coupled = [m for m in rec.cell.mixings.values() if m.name != "diagonal"]
    rows = [np.sqrt((m.weight.astype(np.float64) ** 2).sum(axis=-1)).max() * np.sqrt(m.units) / 8 for m in coupled]
    return min(4 * max([1.0, *rows]), 64) * np.finfo(rec.dtype).eps


@dataclass(frozen=True, kw_only=True)
class Fading(rs.solvers.CorrectionSolver):
    """A solver of one's own that says no more than it must."""

    name = "fading"
    c: float = 0.8

    def preconditioner(self, problem, iterate):
        return iterate.jacobian.diagonal().scale(self.c)


cells = st.sampled_from(CELLS)
solvers = st.sampled_from(sorted(rs.solvers.REGISTRY))
seeds = st.integers(0, 2**16)
dtypes = st.sampled_from(DTYPES)


def trained_gru(dtype=np.float64, units=256, T=300, batch=(), gain=1.0, common=2.0, seed=0):
    """A GRU as training leaves them: long memory, conditioning of 1e3 to 1e4, and rows that sum up aligned terms.

    Half of the units are held near 1 or -1; every row of the others sums them up to 10 ``common`` or so, and its bias
    takes that away again. So sums round as their terms do, which are far larger than the norms of rows make believe.
    """
    rng = np.random.default_rng(seed)
    held = np.arange(units) < units // 2
    sign = np.where(held, np.where(rng.random(units) < 0.5, -1.0, 1.0), 0.0)
    mixings, biases = {}, {}
    for name in "rzn":
        weight = np.where(held, 0.0, common * rng.standard_normal(units))
        matrix = gain * rng.standard_normal((units, units)) / units**0.5 + weight[:, None] * sign / held.sum() ** 0.5
        mixings[name] = rs.mixings.Dense(matrix.astype(dtype))
        biases[name] = -weight * held.sum() ** 0.5
    cell = rs.cells.GRU.with_weights(mixings=mixings, parameters={"b_n": np.zeros(units, dtype)})
    knots, place = rng.standard_normal((T // 20 + 2, *batch, units)), np.arange(T) / 20
    share = (place % 1).reshape(-1, *(1,) * (len(batch) + 1))
    slow = (1 - share) * knots[place.astype(int)] + share * knots[place.astype(int) + 1]
    drive = {
        "r": slow + biases["r"] + 3,
        "z": np.roll(slow, 3, axis=-1) + biases["z"] + 3,
        "n": np.roll(slow, 7, axis=-1) + biases["n"] + 6 * sign,
    }
    initial = np.broadcast_to(sign, (*batch, units)).astype(dtype)
    return cell.recurrence(drive={name: u.astype(dtype) for name, u in drive.items()}, initial=initial)
