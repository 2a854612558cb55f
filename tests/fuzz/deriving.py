"""Kinds of problems that are differentiated: gradients, tangents, and what is said of a declared structure."""

from __future__ import annotations

import numpy as np

import recsolve as rs

from . import cells, judge, oracle, problems, solving, trees
from .judge import require, unexpected, unwritten
from .trees import LONG

SMOOTH = ("plain", "leaky", "gated", "curved", "kinked")


def loss(problem, cotangent, moved):
    """Return sum of cotangent * h in extended precision, with ``moved`` added to what it names."""
    model = problem.model
    part = lambda kind, n, x: np.asarray(x).astype(LONG) + moved.get((kind, n), 0)  # noqa: E731
    drive = {n: part("drive", n, u) for n, u in problem.drive.items()}
    other = cells.Model(
        model.trees,
        {n: (kind, part("mixing", n, W)) for n, (kind, W) in model.matrices.items()},
        model.lanes,
        model.units,
        model.drives,
        {n: part("parameter", n, x) for n, x in model.parameters.items()},
    )
    states = oracle.loop(other, drive, part("initial", "", problem.initial), problem.starts)
    return (states * cotangent).sum()


def slopes(problem, cotangent, leaf, direction):
    """Return both one-sided differences of the loss along a direction."""
    h = LONG(1e-8)
    at = [loss(problem, cotangent, {leaf: step * h * direction}) for step in (-1, 0, 1)]
    return float((at[2] - at[1]) / h), float((at[1] - at[0]) / h)


def judge_gradient(problem, cotangent, leaf, g, rng, kappa):
    """Compare a gradient with differences of the literal loop along a random direction."""
    g = np.asarray(g)
    shape = {
        "initial": lambda: problem.initial.shape,
        "drive": lambda: problem.drive[leaf[1]].shape,
        "mixing": lambda: problem.model.matrices[leaf[1]][1].shape,
        "parameter": lambda: problem.model.parameters[leaf[1]].shape,
    }[leaf[0]]()
    if leaf[0] == "initial" and problem.model.components == 1:
        g = np.expand_dims(g, len(problem.batch))
    require(g.shape == shape, "wrong gradient", f"of {leaf} has shape {g.shape}, wanted {shape}")
    require(g.dtype == problem.dtype, "wrong gradient", f"of {leaf} is {g.dtype}, wanted {problem.dtype}")
    if not g.size:
        return
    direction = rng.standard_normal(shape)
    if leaf[0] == "drive":  # a condition on a drive that is 0 jumps there
        direction = direction * (problem.drive[leaf[1]] != 0)
    up, down = slopes(problem, cotangent, leaf, direction)
    got = float((g.astype(LONG) * direction).sum())
    size = float((np.abs(g).astype(LONG) * np.abs(direction)).sum()) + abs(up) + float(np.abs(cotangent).max()) * kappa
    allowed = size * (1e-6 + 100 * kappa * float(np.finfo(problem.dtype).eps))
    if abs(up - down) > allowed:  # kinks on the way, each of which may take the slope of either side
        return
    gap = abs(got - 0.5 * (up + down))
    if gap > allowed:  # a kink at this very point may show in other directions alone, such as a tie of two operands
        for _ in range(8):
            other = rng.standard_normal(shape) * (direction != 0)
            forward, backward = slopes(problem, cotangent, leaf, other)
            if abs(forward - backward) > allowed:
                return
    judge.COUNTS["gradients"] += 1
    require(gap <= allowed, "wrong gradient", f"of {leaf}: {got:.6e}, differences {down:.6e} and {up:.6e}")


def own_kappa(problem, states):
    """Return the conditioning by the oracle's derivative (infinite where that costs too much)."""
    before = oracle.previous_of(states, problem.initial, problem.starts)
    J = oracle.jacobian(problem.model, before, problem.drive)
    E = oracle.amplified(J, np.ones((*J.shape[:-1], 1)), problem.starts)
    return np.inf if E is None else float(E.max(initial=1.0))


def gradient(rng, compiled, backend):
    """Gradients of a cell or a function, by the adjoint and by the tangent, against differences of the loop."""
    lengths, few = (1, 2, 31, 97), ((), (2,))
    style = str(rng.choice(SMOOTH))
    as_function = not compiled and rng.random() < 0.5
    mixing = str(rng.choice(["none", "diagonal", "dense"])) if as_function else "any"
    kind = str(rng.choice(["normal", "normal", "integers", "sparse"]))
    problem = problems.random_problem(
        rng, compiled=compiled, style=style, lengths=lengths, batches=few, mixing=mixing, kind=kind
    )
    if as_function and problem.model.components > 1 and not problem.model.elementwise:
        as_function = False
    if rng.random() < 0.2:
        problem.drive = {n: (10 * u).astype(u.dtype) for n, u in problem.drive.items()}
    differentiated(rng, problem, as_function, backend or ("numba" if compiled else "numpy"))


def own(rng, compiled, backend):
    """Gradients through mixings of a user: right where they say all of what they are, else right or refused."""
    kind = str(rng.choice(["masked", "renamed", "dense", "diagonal", "heads"]))
    mixing = {"masked": "dense", "renamed": "diagonal"}.get(kind, kind)
    few = {"lengths": (1, 31), "batches": ((), (2,))}
    problem = problems.random_problem(rng, style="plain", mixing=mixing, kind="normal", **few)
    mixings = solving.own_mixings(rng, kind, problem.model)
    try:
        differentiated(rng, problem, False, backend or ("numba" if compiled else "numpy"), mixings)
    except judge.Wrong as wrong:
        if kind in ("masked", "renamed") or not isinstance(wrong.__cause__, (TypeError, ValueError)):
            raise


def differentiated(rng, problem, as_function, backend, mixings=None):
    """Solve, differentiate, judge; weights of a user's mixings are left out, for what they mean is the user's."""
    with unexpected("recurrence"):
        rec = solving.function_of(problem) if as_function else solving.recurrence_of(problem, rng, mixings)
    cotangent = rng.standard_normal(rec.shape).astype(problem.dtype)
    arrays = [*problem.drive.values(), problem.initial, cotangent]
    with rs.backend(backend), unwritten(*arrays):
        with unexpected("solve"):
            sol = rs.solve(rec, method=solving.some(rng, 1, solving.FEW)[0], fallback="sequential")
        if not sol.success:
            return
        judge.solution(problem, sol, complete=True)
        kappa = own_kappa(problem, problem.with_components(sol.states))
        if not kappa < 1e4:
            return
        with unexpected("adjoint"):
            g = rs.adjoint(sol, states=cotangent)
            initial, inputs = g.initial, g.inputs if as_function else g.drive
            others = {} if as_function or mixings else {("mixing", n): x for n, x in g.mixings.items()}
            others |= {} if as_function else {("parameter", n): x for n, x in g.parameters.items()}
        with unexpected("tangent"):
            v = rng.standard_normal(rec.initial.shape).astype(problem.dtype)
            forward = float((rs.tangent(sol, initial=v).astype(LONG) * cotangent).sum())
    wide = problem.with_components(cotangent)
    judge_gradient(problem, wide, ("initial", ""), initial, rng, kappa)
    back = float((np.asarray(initial).astype(LONG) * v).sum())
    near = 1e3 * float(np.finfo(problem.dtype).eps) * kappa * (1 + float(np.abs(initial).sum() * np.abs(v).max()))
    require(abs(forward - back) <= near, "wrong gradient", f"tangent gives {forward:.6e}, adjoint {back:.6e}")
    for n in problem.drive:
        judge_gradient(problem, wide, ("drive", n), inputs[n], rng, kappa)
    for leaf, x in others.items():
        judge_gradient(problem, wide, leaf, x, rng, kappa)


def smooth(rng, compiled, backend):
    """Functions whose curvature and drives are large: their automatic derivatives are true, and not refused."""
    s, u = ("s", 0), ("u", "u0")
    wave = (str(rng.choice(["sin", "cos", "tanh"])), ("multiply", ("c", float(rng.choice([1.0, 4.0, 32.0]))), s))
    tree = (
        "add",
        ("add", ("multiply", trees.number(rng, -0.9, 0.9), s), ("multiply", trees.number(rng, 0, 0.5), wave)),
        u,
    )
    kink = ("multiply", trees.number(rng, -0.3, 0.3), ("relu", s))
    tree = ("add", tree, kink) if rng.random() < 0.3 else tree
    model = cells.Model((tree,), {}, (), int(rng.integers(1, 4)), ("u0",))
    problem = problems.filled(
        rng, model, int(rng.choice([1, 97, 500])), (), rng.choice([np.float32, np.float64]), "normal"
    )
    scale = float(rng.choice([0.0, 1.0, 10.0, 100.0]))
    problem.drive = {n: (scale * x).astype(x.dtype) for n, x in problem.drive.items()}
    if scale == 0:
        problem.initial = np.zeros_like(problem.initial)
    with unexpected("from_function"):
        rec = solving.function_of(problem)
    with unexpected("solve"):
        sol = rs.solve(rec, method="sequential")
    judge.solution(problem, sol)
    with unexpected("adjoint"):
        rs.adjoint(sol, states=np.ones(rec.shape, problem.dtype))
    with unexpected("tangent"):
        rs.tangent(sol, initial=np.ones(rec.initial.shape, problem.dtype))
    with unexpected("check_structure"):
        report = rs.check_structure(rec)
    require(report.ok or "cannot be checked" in str(report), "truth refused", str(report))


def declared(rng, compiled, backend):
    """A structure that is false of the function: no trust in a wrong answer, no gradient that is not one."""
    false = str(rng.choice(["zero", "identity", "diagonal"]))
    mixing = "dense" if false == "diagonal" else str(rng.choice(["none", "dense"]))
    problem = None
    while problem is None or problem.model.components > 1:
        problem = problems.random_problem(rng, mixing=mixing, lengths=(33, 257), batches=((),), kind="normal")
    if false != "diagonal" and rng.random() < 0.5:  # chaos that calls itself none
        tree = ("add", ("multiply", ("c", 3.75), ("multiply", ("s", 0), ("subtract", ("c", 1.0), ("s", 0)))),
                ("multiply", ("c", 0.0), ("u", "u0")))  # fmt: skip
        problem = problems.filled(rng, cells.Model((tree,), {}, (), 1, ("u0",)), 257, (), np.float64, "normal")
        problem.initial, problem.reset = np.full_like(problem.initial, 0.3), None
    with unexpected("from_function"):
        rec = solving.function_of(problem, structure=false)
    with unexpected("solve"):
        sol = rs.solve(rec, method=solving.some(rng, 1, solving.FEW)[0], fallback="sequential")
    judge.solution(problem, sol)
    if not sol.success:
        return
    cotangent = rng.standard_normal(rec.shape).astype(problem.dtype)
    try:
        g = rs.adjoint(sol, states=cotangent).initial
    except ValueError:
        return
    kappa = own_kappa(problem, problem.with_components(sol.states))
    if kappa < 1e4:
        judge_gradient(problem, problem.with_components(cotangent), ("initial", ""), g, rng, kappa)
