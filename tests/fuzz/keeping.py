"""Kinds about what surrounds a solve: numbers that change, scalars that widen, impure functions, pickles, threads."""

from __future__ import annotations

import copy
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from closures import closures

import recsolve as rs
from recsolve.math import sin
from recsolve.mixings import Dense, Diagonal

from . import cells, judge, problems, solving
from .judge import require, unexpected


def stale(rng, compiled, backend):
    """A number that a cell's function closes over is changed between two solves."""
    place = str(rng.choice(list(closures(0.5))))
    mixing = str(rng.choice(["diagonal", "dense"]))
    function, change = closures(0.5)[place]
    cell, where = rs.Cell(function, state=("x",), output="x"), backend or ("numba" if compiled else "numpy")
    W = rng.uniform(-0.5, 0.5, (3,) if mixing == "diagonal" else (3, 3))
    weighted = cell.with_weights(mixings={"h": (Diagonal if mixing == "diagonal" else Dense)(W)})
    x, u = ("mix", "h", ("s", 0)), ("u", "u0")
    for value in (0.5, 1.5):
        change(value)
        tree = ("add", ("multiply", ("c", value), ("tanh", x)), u)
        kind = "diagonal" if mixing == "diagonal" else "matrix"
        problem = problems.filled(
            rng, cells.Model((tree,), {"h": (kind, W)}, (), 3, ("u0",)), 33, (), np.float64, "normal"
        )
        method = solving.some(rng, 1, solving.FEW)[0]
        with rs.backend(where), unexpected(f"{place}, {mixing}, solve(method={method!r})"):
            rec = weighted.recurrence(drive=problem.drive, initial=problem.first(), reset=problem.reset)
            try:
                sol = rs.solve(rec, method=method)
            except TypeError:  # compiled loops may refuse what can change, where they are insisted on
                if where != "numba":
                    raise
                return
        with rs.backend(where):
            judge.solution(problem, sol, complete=True)


def scalars(rng, compiled, backend):
    """NumPy's float64 scalars in a float32 cell: one rule, whatever the method and the backend."""
    problem = problems.random_problem(rng, compiled=compiled, lengths=(31,), batches=((), (2,)))
    problem.dtype = np.dtype(np.float32)
    narrow = lambda a: np.asarray(a, np.float32)  # noqa: E731
    problem.drive = {n: narrow(u) for n, u in problem.drive.items()}
    problem.initial, model = narrow(problem.initial), problem.model
    model.parameters = {n: narrow(x) for n, x in model.parameters.items()}
    model.matrices = {n: (kind, narrow(W)) for n, (kind, W) in model.matrices.items()}
    ends = {}
    as_function = not compiled and rng.random() < 0.3 and model.components == 1 and model.elementwise
    make = solving.function_of if as_function else solving.recurrence_of
    wide, backends = {"constant": "np.float64({!r})"}, ["numpy", "numba"] if compiled else ["numpy"]
    for method, where in itertools.product(solving.some(rng, 2, solving.FEW), backends):
        with rs.backend(where):
            try:
                sol = rs.solve(make(problem, **wide), method=method)
                ends[method, where] = str(sol.states.dtype), str(sol.output.dtype)
            except TypeError as error:
                ends[method, where] = "TypeError"
                said = str(error)
                continue
        if ends[method, where] == ("float32", "float32"):
            judge.solution(problem, sol)
    require(len(set(ends.values())) == 1, "wrong answer", f"float64 scalars in a float32 cell end in {ends}")
    end = next(iter(ends.values()))
    require(end in ("TypeError", ("float32", "float32")), "wrong answer", f"float64 scalars leak: {end}")
    if end == "TypeError":
        require("float64" in said, "exception", f"a TypeError that does not name float64: {said}")


def impure(rng, compiled, backend):
    """A function that gives another value at every call is no recurrence: refused, or not called converged."""
    source = str(rng.choice(["random", "counter"]))
    count, numbers = itertools.count(), np.random.default_rng(int(rng.integers(1 << 30)))

    def another():
        return float(numbers.random()) if source == "random" else 0.1 * next(count)

    where, method = backend or ("numba" if compiled else "numpy"), solving.some(rng, 1, solving.FEW)[0]
    try:
        if rng.random() < 0.5 or compiled:
            cell = rs.Cell(lambda s, W, u, p: 0.5 * sin(s.x) + another() + u.u0, state=("x",), output="x")
            rec = cell.with_weights(hidden_size=2).recurrence(drive={"u0": rng.standard_normal((33, 2))})
        else:
            u, zero = rng.standard_normal((33, 2)), np.zeros(2)
            f = lambda h, u: 0.5 * np.sin(h) + another() + u  # noqa: E731
            rec = rs.Recurrence.from_function(f, inputs=u, initial=zero, structure="diagonal")
        with rs.backend(where):
            sol = rs.solve(rec, method=method)
    except (TypeError, ValueError):
        return
    judge.COUNTS["solutions"] += 1
    require(not sol.success, "false success", f"{method} on {where} solves a function with a {source} in it")


def pickles(rng, compiled, backend):
    """Recurrences, solutions, gradients and errors, through pickle, copy and deepcopy."""
    name = str(rng.choice(list(rs.cells.REGISTRY)))
    cell = rs.cells.get(name).random(input_size=2, hidden_size=4, mixing=str(rng.choice(["dense", "diagonal"])), rng=0)
    rec = cell.recurrence(rng.standard_normal((33, 2)))
    if rng.random() < 0.3:
        inputs = rng.standard_normal((33, 2))
        rec = rs.Recurrence.from_function(_forget, inputs=inputs, initial=np.ones(2), structure="diagonal")
    with rs.backend(backend or "numpy"):
        sol = rs.solve(rec)
        gradients = rs.adjoint(sol, final=np.ones_like(sol.final))
        try:
            rs.solve(rec, maxiter=0, method="jacobi", fallback="raise", tol=0.0)
            error = None
        except rs.ConvergenceError as caught:
            error = caught
    around = {"pickle": lambda x: pickle.loads(pickle.dumps(x)), "copy": copy.copy, "deepcopy": copy.deepcopy}
    way = str(rng.choice(list(around)))
    asked = {
        "cell": (cell, lambda y: (rs.solve(y.recurrence(np.ones((9, 2)))).states, "")),
        "recurrence": (rec, lambda y: (rs.solve(y).states, "")),
        "solution": (sol, lambda y: (y.states, y.message)),
        "gradients": (gradients, lambda y: (y.initial, "")),
        "error": (error, lambda y: (y.solution.states, y.solution.message)),
    }
    for what, (x, ask) in asked.items():
        if x is None:
            continue
        with unexpected(f"{way} of {what} ({name})"):
            again, message = ask(around[way](x))
        wanted, own = ask(x)
        require(np.array_equal(again, wanted), "wrong answer", f"{way} of {what} ({name}) gives other numbers")
        require(message == own, "wrong answer", f"{way} of {what} ({name}) gives another message")


def _forget(h, u):
    return 0.5 * np.tanh(h) + u


def threads(rng, compiled, backend):
    """The first use of a compiled cell from eight threads at once."""
    if not compiled:
        raise judge.Nothing
    number, u = float(rng.integers(1, 1 << 20)) / (1 << 21), rng.standard_normal((33, 2))
    cell = rs.Cell(lambda s, W, u, p: number * sin(s.x) + u.u0, state=("x",), output="x").with_weights(hidden_size=2)

    def one(_):
        with rs.backend("numba"):
            return rs.solve(cell.recurrence(drive={"u0": u}), method="sequential").states

    with unexpected("eight threads"), ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(8)))
    require(all(np.array_equal(x, found[0]) for x in found), "wrong answer", "threads differ")
