"""Kinds of problems that are solved: cells, functions, mixings of a user, and what is trusted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import recsolve as rs

from . import cells, judge, problems, trees
from .judge import unexpected, unwritten

METHODS = tuple(sorted(rs.solvers.REGISTRY))
FEW = ("sequential", "newton", "jacobi", "quasi_newton")


def recurrence_of(problem, rng=None, mixings=None, constant="{!r}"):
    """Return the recurrence of a problem's cell, h[0] given in some way."""
    cell = cells.library_cell(problem.model, mixings, constant)
    style = "array" if rng is None else str(rng.choice(["array", "dict"]))
    return cell.recurrence(drive=problem.drive, initial=problem.first(style=style), reset=problem.reset)


def function_of(problem, structure=None, constant="{!r}"):
    """Return the recurrence of a problem as a function of a user, with the smallest structure that is true of it."""
    model = problem.model
    structure = structure or ("block" if model.components > 1 else "diagonal" if model.elementwise else "dense")
    if structure == "dense" and model.lanes:
        structure = "heads"
    state = "h" if model.components == 1 else "h[..., {}, :]"
    if model.components > 1:  # what ignores the state must have its shape all the same
        full = tuple(("add", t, ("multiply", ("c", 0.0), ("s", i))) for i, t in enumerate(model.trees))
        model = replace(model, trees=full)
    body = cells.cell_source(model, constant, state="{}", drive="u['{}']", parameter="p['{}']", mixing="mix['{}']({})")
    if model.components > 1:
        body = f"np.stack(({body}), axis=-2)"
    places = {n: state.format(i) for i, n in enumerate(cells.COMPONENTS)}
    names = ", ".join(places[n] for n in cells.COMPONENTS[: model.components])
    inner = cells.compiled_function("h, u, p, mix, " + ", ".join(cells.COMPONENTS[: model.components]), body)
    split = cells.compiled_function("h", f"({names},)", "split")

    def mixer(kind, W):
        if kind == "diagonal":
            return lambda x: W * x
        return (lambda x: x @ W.T) if W.ndim == 2 else (lambda x: (W @ x[..., None])[..., 0])

    mix = {n: mixer(kind, W) for n, (kind, W) in model.matrices.items()}

    def fuzzed(h, u):
        return inner(h, u, model.parameters, mix, *split(h))

    return rs.Recurrence.from_function(
        fuzzed, inputs=dict(problem.drive), initial=problem.first(), structure=structure, reset=problem.reset
    )


def settings_of(rng, problem, recurrence):
    """Draw the arguments of a solve."""
    given = {"fallback": str(rng.choice(["none", "none", "sequential"]))}
    if rng.random() < 0.3:
        given["guess"] = ("step", "zeros", "coarse", 0.25)[rng.integers(4)]
        if rng.random() < 0.3:
            given["guess"] = rng.standard_normal(recurrence.shape).astype(problem.dtype)
    if rng.random() < 0.3:
        given["tol"] = float(10.0 ** rng.uniform(-13, -3))
    if rng.random() < 0.2:
        given["maxiter"] = int(rng.integers(0, 6))
    if rng.random() < 0.1:
        given["options"] = {"pin": False}
    return given


def solved(problem, recurrence, methods, rng, backend):
    """Solve by several methods and judge each."""
    for method in methods:
        given = settings_of(rng, problem, recurrence)
        arrays = [*problem.drive.values(), problem.initial, problem.reset]
        with rs.backend(backend), unwritten(*arrays):
            with unexpected(f"solve(method={method!r}, {given}) on {backend}"):
                sol = rs.solve(recurrence, method=method, **given)
            complete = given["fallback"] == "sequential" or (method == "sequential" and "maxiter" not in given)
            judge.solution(problem, sol, complete=complete)


def some(rng, count, among=METHODS):
    return [str(m) for m in rng.choice(among, count, replace=False)]


def solve(rng, compiled, backend):
    """A cell around mixings of one kind, by any of the solvers."""
    problem = problems.random_problem(rng, compiled=compiled)
    with unexpected("recurrence"):
        recurrence = recurrence_of(problem, rng)
    solved(problem, recurrence, some(rng, 3), rng, backend or ("numba" if compiled else "numpy"))


def long(rng, compiled, backend):
    """As many steps as make ``auto`` compile the cell (unless compiled loops are not asked for)."""
    lengths = (1100, 4100) if compiled else (1100,)
    problem = problems.random_problem(rng, compiled=compiled, lengths=lengths, batches=((), (2,)))
    with unexpected("recurrence"):
        recurrence = recurrence_of(problem, rng)
    solved(problem, recurrence, some(rng, 2, FEW), rng, backend or ("auto" if compiled else "numpy"))


def function(rng, compiled, backend):
    """A function of a user; the structure that is declared is true."""
    mixing = str(rng.choice(["none", "none", "diagonal", "dense", "heads"]))
    problem = problems.random_problem(rng, mixing=mixing)
    if problem.model.components > 1 and not problem.model.elementwise:
        problem = problems.random_problem(rng, mixing="none")
    if problem.model.lanes and problem.model.components > 1:
        raise judge.Nothing
    with unexpected("from_function"):
        recurrence = function_of(problem)
    solved(problem, recurrence, some(rng, 3), rng, backend or "numpy")


def own_mixings(rng, kind, model):
    """Return mixings of a user, by name, and give the model what they multiply by."""
    mixings = {}
    for name, (form, W) in list(model.matrices.items()):
        effective = W if kind == "renamed" else W * W.dtype.type(0.5)
        if kind == "masked":
            mask = (rng.random(W.shape) < 0.5).astype(W.dtype)
            mixings[name], effective = cells.MaskedDense(W, mask), W * mask
        else:
            mixings[name] = cells.OWN[kind](W)
        model.matrices[name] = (form, effective)
    return mixings


def subclass(rng, compiled, backend):
    """Mixings of a user that override what they multiply by; fast paths do not know them."""
    kind = str(rng.choice(["masked", "dense", "diagonal", "heads", "renamed"]))
    mixing = {"masked": "dense", "renamed": "diagonal"}.get(kind, kind)
    forced = "numba" if compiled and rng.random() < 0.7 else None
    lengths = (4100,) if compiled and not forced and backend is None else (1, 33, 97)
    problem = problems.random_problem(
        rng, mixing=mixing, style="plain" if rng.random() < 0.5 else None, lengths=lengths, batches=((), (2,))
    )
    mixings = own_mixings(rng, kind, problem.model)
    with unexpected("recurrence"):
        recurrence = recurrence_of(problem, rng, mixings)
    solved(problem, recurrence, some(rng, 2, FEW), rng, backend or forced or ("auto" if compiled else "numpy"))


def trust(rng, compiled, backend):
    """Maps that forget, remember and expand, with tolerances above and below rounding: is what is trusted close?"""
    dtype = rng.choice([np.float32, np.float64])
    s, u = ("s", 0), ("u", "u0")
    p = trees.number(rng, 0.5, 6)
    forms = {
        "sine": ("add", ("multiply", p, ("sin", s)), u),
        "logistic": ("add", ("multiply", ("c", 3.75), ("multiply", s, ("subtract", ("c", 1.0), s))),
                     ("multiply", ("c", 0.0), u)),
        "tent": ("subtract", ("add", ("c", 1.0), ("multiply", ("c", 0.0), u)),
                 ("multiply", trees.number(rng, 1.1, 1.95), ("absolute", s))),
        "memory": ("add", ("multiply", ("c", 1 - 2.0 ** -int(rng.integers(4, 16))), s), ("multiply", ("c", 0.125), u)),
        "integrator": ("add", s, ("multiply", ("c", 0.015625), ("sin", ("add", s, u)))),
        "threshold": ("add", ("multiply", ("c", 0.5), s), ("multiply", p, ("relu", ("subtract", u, s)))),
    }  # fmt: skip
    tree = forms[str(rng.choice(list(forms)))]
    model = cells.Model((tree,), {}, (), int(rng.integers(1, 4)), ("u0",))
    problem = problems.filled(rng, model, int(rng.choice([17, 33, 65, 129])), (), dtype, "normal")
    problem.initial = rng.uniform(0.1, 0.9, problem.initial.shape).astype(dtype)
    with unexpected("recurrence"):
        rec = function_of(problem) if rng.random() < 0.5 else recurrence_of(problem, rng)
    for method in some(rng, 2, (*FEW, "damped_newton", "elk", "windowed")):
        with rs.backend(backend or "numpy"), unexpected(f"solve(method={method!r})"):
            tol = None if rng.random() < 0.3 else float(10.0 ** rng.uniform(-14, -1))
            sol = rs.solve(rec, method=method, tol=tol)
        judge.solution(problem, sol)


def huge(rng, compiled, backend):
    """Arguments of sin and cos beyond 1e12, by every backend: a number, and the number."""
    problem = problems.random_problem(
        rng, compiled=compiled, style="huge", mixing="none", lengths=(31, 33), batches=((), (2,)), kind="normal"
    )
    with unexpected("recurrence"):
        recurrence = recurrence_of(problem, rng)
    for name in [backend] if backend else ["numpy", "numba"] if compiled else ["numpy"]:
        with rs.backend(name), unexpected("solve"):
            sol = rs.solve(recurrence, method="sequential")
        finite = np.isfinite(problem.with_components(sol.states))
        judge.require(finite.all() or not np.isfinite(problem.plain).all(), "wrong answer", f"NaN on {name}")
        judge.solution(problem, sol)
