"""Law 10: what users hold pickles, copies and crosses process boundaries, and answers the same afterwards."""

import copy
import dataclasses
import inspect
import multiprocessing
import pickle
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import gallery
import joblib
import numpy as np
import pytest
import test_mixings
import test_ragged_cells
from monoid_gallery import elements, state

import recsolve as rs
from recsolve import jacobians, kernels, mixings
from recsolve.base.names import Names
from recsolve.base.tolerance import Tolerance
from recsolve.jacobians.factored import Factored
from recsolve.kernels.monoids.monoid import MONOIDS
from recsolve.recurrence.cell_weights import CellWeights
from recsolve.recurrence.read_cell import ReadCell
from recsolve.solve_trace import Trace
from recsolve.solvers.registry import applicable
from recsolve.studies.compare.compare import CompareConfig, Comparisons
from recsolve.studies.store.records import Record
from recsolve.symbolic.program import Program
from recsolve.symbolic.tracing import trace_cell

torch = pytest.importorskip("torch")

COPIES = {f"protocol {n}": lambda x, n=n: pickle.loads(pickle.dumps(x, n)) for n in (2, 5)}
COPIES |= {"copy": copy.copy, "deepcopy": copy.deepcopy}


def matrix(h, u):
    return np.tanh(0.5 * h + u["x"]) + 0.1 * h[..., ::-1]


def sine(h, u):
    return 0.9 * np.sin(h) + u


def slope(h, u):
    return 0.9 * np.cos(h)


def cell_recurrence(name="GRU", mixing="dense", dtype=np.float64, kind=lambda x: x):
    cell = getattr(rs.cells, name).random(
        input_size=2, hidden_size=4, mixing=mixing, heads=2 if mixing == "heads" else None, rng=0, dtype=dtype
    )
    x = np.random.default_rng(1).standard_normal((20, 2, 2)).astype(dtype)
    reset = np.zeros((20, 2), bool)
    reset[7] = True
    return cell.recurrence(kind(x), reset=reset)


def function_recurrence(kind=lambda x: x, **given):
    u = np.random.default_rng(2).standard_normal((20, 3))
    structure = "diagonal" if given else "dense"
    f, inputs = (sine, kind(u)) if given else (matrix, {"x": kind(u)})
    return rs.Recurrence.from_function(f, inputs=inputs, initial=kind(np.zeros(3)), structure=structure, **given)


def asked(solution):
    """Return a solution that knows all that it can be asked for."""
    _ = (
        solution.states,
        solution.output,
        solution.final,
        solution.trusted,
        solution.error_bound,
        solution.error_estimate,
    )
    return solution


def graph_step(h, u):
    return np.tanh(0.6 * h[0] + 0.3 * h[1] + u["x"])


def first(h, u):
    return np.tanh(h[0] + u["x"])


def history(y, u, p):
    return u + p.w * (np.tri(len(y), k=-1) @ y)


def total(s, u, p):
    return s.h.sum(axis=-1, keepdims=True)


def flip(h, u):
    return np.where(u, ~h, h)


def other_recurrences():
    """Return recurrences of every class besides, and of whatever they may be made with."""
    rng = np.random.default_rng(0)
    gru = rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0)
    lstm, x = rs.cells.LSTM.random(input_size=2, hidden_size=4, rng=0), rng.standard_normal((20, 2))
    kind = np.arange(30).reshape(5, 6) % 2
    return {
        "graph": rs.Recurrence.from_graph(rs.graphs.by_kind([graph_step, first]), rs.graphs.grid((5, 6)),
                                          inputs={"kind": kind, "x": rng.standard_normal((5, 6, 2))},
                                          initial=np.zeros(2), structure="diagonal"),
        "history": rs.Recurrence.from_history(history, inputs=rng.standard_normal((8, 3)),
                                              parameters={"w": np.array(0.1)}),
        "discrete": rs.Recurrence.from_function(flip, inputs=np.arange(6)[:, None] % 2 == 0,
                                                initial=np.zeros(1, bool), structure="none"),
        "read out": gru.recurrence(x, readout=total, ties=0.5),
        "projected": ReadCell.of(lstm, np.ones((2, 4))).recurrence(x),
        "holding": rs.cells.holding(gru).recurrence(drive={**gru.drive(x), "given": np.ones((20, 1))}),
        "ensemble": rs.cells.ensemble([gru, gru.map(np.negative)]).recurrence(x),
        "gathering": rs.cells.Elman.with_weights(mixings={"h": mixings.Gather([1, 0, 0])}).recurrence(
            drive={"h": rng.standard_normal((20, 3))}),
    }  # fmt: skip


def layers_of_torch():
    """Return modules that have been called, by name."""
    found = {
        "GRU": rs.nn.GRU(2, 4, num_layers=2, bidirectional=True),
        "LSTM": rs.nn.LSTM(2, 4, proj_size=3, method="newton"),
        "RNN": rs.nn.RNN(2, 4, every=5),
        "Recurrent": rs.nn.Recurrent("gru", 2, 4, mixing=masked_mixing, norm=True),
    }
    for module in found.values():
        module(torch.ones(20, 3, 2))
    return found


def masked_mixing(draw):
    return mixings.Masked(mixings.Dense(draw((4, 4))), draw((4, 4)) > 0)


def solution_of(rec):
    return rs.solve(rec, method="quasi_newton" if "quasi_newton" in applicable(rec) else "jacobi")


def gradients(rec):
    sol = solution_of(rec)
    return rs.adjoint(sol, states=0 * sol.states + 1)


def asked_for_inputs(gradients):
    assert gradients.inputs is not None
    return gradients


def seen(rec):
    """Return what a callback sees."""
    found = []
    rs.solve(rec, callback=found.append)
    return found[0]


def factored():
    rec = cell_recurrence(mixing="heads")
    J = rec.linearise(rec.guess())[1]
    assert type(J) is Factored
    return J


def unconverged():
    return rs.solve(cell_recurrence(), maxiter=1, method="jacobi")


def comparisons():
    rec = cell_recurrence()
    config = CompareConfig(solvers=(rs.solvers.Newton(),))
    return Comparisons(config, "x", "20 steps", 1, [rs.compare(rec, config.solvers)])


def structures():
    rng, one, two = np.random.default_rng(0), rs.Layout(units=3), rs.Layout(components=2, units=3)
    kinds = [jacobians.Zero, jacobians.Identity, jacobians.Scalar, jacobians.Diagonal, jacobians.LaneDense]
    kinds += [jacobians.PermutationDiagonal, jacobians.LowRank, jacobians.Banded]
    found = {kind.__name__: gallery.structure(kind, one, (5,), rng) for kind in kinds}
    found["Block"] = gallery.structure(jacobians.Block, two, (5,), rng)
    found["Pairs"] = gallery.pairs((5,), rng)
    slots = [gallery.structure(jacobians.Diagonal, one, (6,), rng) for _ in "xy"]
    found["ByParent"] = jacobians.ByParent(slots, rs.graphs.grid((2, 3)))
    return found | {"factored": factored(), "transposed": factored().transpose()}


@cache
def objects():
    """Return what is to survive, by name."""
    rec = cell_recurrence()
    solved = rs.solve(rec, options={"trace": True})
    converse = rs.solve(function_recurrence(jacobian=slope))
    recurrences = {
        "dense": rec,
        "diagonal": cell_recurrence("LSTM", "diagonal", np.float32),
        "heads": cell_recurrence(mixing="heads"),
        "torch": cell_recurrence(kind=torch.from_numpy),
        "function": function_recurrence(),
        "function with a Jacobian": function_recurrence(jacobian=slope),
        "function of tensors": function_recurrence(torch.from_numpy),
        "window": rec.window(5, 15),
        **other_recurrences(),
        "components with axes": test_ragged_cells.recurrence("attend"),
    }
    layers = rs.Layers([[rec.cell, rec.cell]])
    stacked = layers.solve(np.ones((20, 2, 2)), lengths=[20, 3])
    kept = rs.solve(rec, every=8)
    found = {f"recurrence: {name}": r for name, r in recurrences.items()}
    found |= {f"solution: {name}": solution_of(r) for name, r in recurrences.items()}
    found |= {f"gradients: {name}": gradients(r) for name, r in recurrences.items() if name != "discrete"}
    found |= {f"layer: {name}": module for name, module in layers_of_torch().items()}
    found |= {f"cell: {name}": cell for name, cell in rs.cells.REGISTRY.items()}
    found |= {f"solver: {name}": solver() for name, solver in rs.solvers.REGISTRY.items()}
    found |= {f"mixing: {name}": mixing for name, mixing in test_mixings.made().items()}
    found |= {f"monoid: {name}": monoid for name, monoid in MONOIDS.items()}
    found |= {f"Jacobian: {name}": J for name, J in structures().items()}
    found |= {
        "weighted cell": rec.cell,
        "cell that is read out": ReadCell.of(rec.cell, np.ones((2, 4))),
        "cell of components with axes": test_ragged_cells.weighted("headed"),
        "scan gradients": rs.scan_adjoint("affine", (0.5, np.ones(4)), np.ones(4), np.ones(4), initial=1.0),
        "drive": rec.drive,
        "projection": rec.cell.projection,
        "layout": rs.Layout(components=2, lanes=(2,), units=3),
        "tolerance": Tolerance(1e-6, 1e-7),
        "status": rs.Status.CONVERGED,
        "settings": rs.solvers.Chain(methods=(rs.solvers.Windowed(solver="newton"), "sequential")),
        "solution that was asked": asked(solved),
        "solution that has not converged": unconverged(),
        "trace": solved.trace,
        "gradients that were asked": asked_for_inputs(gradients(rec)),
        "gradients of a function": rs.adjoint(converse, final=np.ones(3)),
        "error": rs.ConvergenceError(unconverged()),
        "diagnosis": rs.diagnose(rec, solved.states),
        "choice": rs.explain(rec),
        "report on a structure": rs.check_structure(function_recurrence(jacobian=slope)),
        "what a callback sees": seen(rec),
        "graph": rs.graphs.grid((5, 6)),
        "function by kind": rs.graphs.by_kind([graph_step, first]),
        "counters": layers_of_torch()["GRU"].counters,
        "settings of a layer": rs.nn.Settings(method=rs.solvers.Chain(methods=("newton", "sequential"))),
        "warning": rs.nn.ConvergenceWarning("not met"),
        "program": trace_cell(rs.cells.LSTM, "dense"),
        "layers": layers,
        "solution of layers": stacked,
        "solution of windows": kept,
        "gradients of windows": rs.adjoint(kept, output=kept.output),
        "gradients of layers": stacked.adjoint(output=stacked.output),
        "comparison": comparisons().panels[0],
        "comparisons": comparisons(),
        "record": Record("s", 1, {"T": 3}, "done", "", [{"a": np.inf}], 0.1, {"commit": "x"}),
    }  # fmt: skip
    return found


ROOMS = (rs, rs.cells, rs.graphs, rs.jacobians, rs.mixings, rs.nn, rs.solvers, rs.testing)
INSIDE = {"Direct", "Iterate", "Linearised", "Problem", "Stage", "State", "History", "Run"}  # of a solve that goes on
INSIDE |= {"Total", "_PerLane", "_Elementwise", "Widened", "_Sweeps", "_Walk"}  # of single calls
INSIDE |= {"Arrow", "TransposedArrow", "Congruence"}  # of monoids, whose derivative they are


def derived(base):
    """Yield the classes that the library derives from one; studies have their own, and so have examples that ran."""
    for cls in base.__subclasses__():
        where = sys.modules[cls.__module__]
        if cls.__module__.startswith("recsolve") and getattr(where, cls.__name__, None) is cls:
            yield from () if ".studies." in cls.__module__ else (cls,)
            yield from derived(cls)


def test_every_public_class_has_an_example():
    classes = {x for room in ROOMS for name in room.__all__ if isinstance(x := getattr(room, name), type)}
    bases = (rs.Recurrence, mixings.Mixing, rs.jacobians.Jacobian, CellWeights, rs.Monoid, rs.solvers.Method)
    classes |= {Names, Tolerance, Trace, *(cls for base in bases for cls in derived(base))}
    concrete = {c for c in classes if c.__module__.startswith("recsolve") and not inspect.isabstract(c)}
    shown = {base for x in objects().values() for base in type(x).__mro__}
    assert {c.__name__ for c in concrete - shown} - INSIDE == set()


def same(a, b, known=None):
    """Whether two objects are alike in all that they hold, bit for bit."""
    known = set() if known is None else known
    if a is b or (id(a), id(b)) in known:
        return True
    known.add((id(a), id(b)))
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return same(a.detach().numpy(), b.detach().numpy())
    if isinstance(a, (np.ndarray, np.generic)):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes()
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y, known) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key], known) for key in a)
    if isinstance(a, Program):  # nodes are equal as expressions are
        return str(a) == str(b)
    if isinstance(a, Names):
        return same(dict(a), dict(b), known)
    if isinstance(a, torch.nn.Module):
        return same(a.state_dict(), b.state_dict()) and same(answers(a), answers(b)) and same(a.counters, b.counters)
    if a.__reduce_ex__(4)[0] is type(a) and isinstance(a, BaseException):
        return a.args == b.args and same(vars(a), vars(b), known)
    if hasattr(a, "__dict__"):
        return same(vars(a), vars(b), known)
    return bool(a == b)


def answers(x):
    """Return what an object says when it is asked."""
    if isinstance(x, rs.Recurrence):
        return solution_of(x).states
    if isinstance(x, rs.Solution):
        final = None if x.recurrence.graph is not None else x.final
        return x.states, x.output, final, x.condition, repr(x), rs.solve(x.recurrence, method=x.solver).states
    if isinstance(x, torch.nn.Module):
        y, final = x(torch.ones(20, 3, 2))
        gradients = torch.autograd.grad(y.sum(), list(x.parameters()))
        return [part.detach() for part in (y, *(final if isinstance(final, tuple) else (final,)), *gradients)]
    if isinstance(x, rs.Gradients):
        return x.states, x.initial, getattr(x, "inputs", None)
    if isinstance(x, rs.Cell):
        return answers(x.random(input_size=2, hidden_size=4, mixing="diagonal", rng=0))
    if isinstance(x, rs.WeightedCell):
        return rs.solve(x.recurrence(np.ones((9, 2), x.dtype))).states
    if isinstance(x, rs.solvers.Method):
        return rs.solve(cell_recurrence(), method=x).states if x.name != "auto" else repr(x)
    if isinstance(x, rs.jacobians.Jacobian):
        return x.carry(np.ones((*x.leading, *x.layout.event))), x.todense()
    if isinstance(x, mixings.Mixing):
        return x(np.ones((*x.lanes, x.units)))
    if isinstance(x, rs.ConvergenceError):
        return str(x), x.solution.states
    if isinstance(x, rs.LayersSolution):
        return x.output, x.final, x.condition, repr(x), answers(x.adjoint(output=x.output))
    if isinstance(x, rs.WindowsSolution):
        return x.output, x.ends, x.trusted, repr(x), x.again(1).states, answers(rs.adjoint(x, output=x.output))
    if isinstance(x, rs.WindowsGradients):
        return x.inputs, x.initial, x.states
    if isinstance(x, rs.LayersGradients):
        return x.inputs, x.initial, answers(x.solutions[0])
    if isinstance(x, rs.Layers):
        return x.solve(np.ones((20, 2, 2))).output
    if isinstance(x, Program):
        return str(x), x.fingerprint
    if isinstance(x, Trace):
        return x.residual, x.converged_prefix, x.counts, x.settings
    if isinstance(x, tuple(type(monoid) for monoid in MONOIDS.values())):
        e = elements(x.name, 5, (2,), np.random.default_rng(0))
        return kernels.get("scan")(x, x.prepare(e), initial=state(x.name, e, np.random.default_rng(1)))
    return repr(x) if dataclasses.is_dataclass(x) else None


@pytest.mark.parametrize("way", COPIES)
def test_copies_hold_and_answer_the_same(way):
    broken = []
    for name, x in objects().items():
        try:
            other = COPIES[way](x)
            if not (same(x, other) and same(answers(x), answers(other))):
                broken.append(f"{name}: differs")
        except Exception:
            broken.append(f"{name}: {traceback.format_exc(limit=-2)}")
    assert not broken, "\n".join(broken)


def test_another_process_answers_the_same(monkeypatch):
    """A process that shares nothing with this one: what is compiled, linked or cached here is not there."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)  # where functions of the tests are looked for
    names, held = zip(*objects().items(), strict=True)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # which tells when a process dies
        found = list(pool.map(answered, held, chunksize=len(held)))  # together: they share parts
    broken = [name for name, x, (other, said) in zip(names, held, found, strict=True)
              if not (same(x, other) and same(answers(x), said))]  # fmt: skip
    assert broken == []


def answered(x):
    """Return an object and what it says, or why it says nothing."""
    before = copy.deepcopy(x)  # a layer counts its calls
    try:
        return before, answers(x)
    except Exception:
        return before, traceback.format_exc(limit=-2)


def test_weights_that_are_trained_go_without_their_graph():
    cell = rs.cells.GRU.from_torch(torch.nn.GRU(2, 4).double())
    rec = cell.recurrence(torch.ones(20, 2, dtype=torch.float64))
    sol = rs.solve(rec)
    assert sol.states.requires_grad
    for way in COPIES.values():
        other = way(sol)
        assert same(other.states, sol.states)
        assert not other.states.requires_grad
        assert same(rs.solve(way(rec)).states, sol.states)


def test_an_error_arrives_from_a_worker_with_its_solution():
    rec = cell_recurrence()
    with pytest.raises(rs.ConvergenceError) as caught:
        joblib.Parallel(2)(
            joblib.delayed(rs.solve)(rec, method="jacobi", maxiter=1, fallback="raise") for _ in range(2)
        )
    expected = unconverged()
    assert same(caught.value.solution.states, expected.states)
    assert str(caught.value) == expected.message


def lambdas():
    cell = rs.Cell(lambda s, W, u, p: 0.5 * s.h + u.x, state=("h",), output="h", name="lambda")
    weighted = rs.WeightedCell(cell, {}, {}, None, 2)
    u = np.ones((5, 2))
    return [weighted.recurrence(drive={"x": u}),
            rs.Recurrence.from_function(lambda h, u: 0.5 * h + u, inputs=u, initial=np.zeros(2))]  # fmt: skip


def test_recurrences_of_lambdas_go_to_workers_and_solutions_come_back():
    found = joblib.Parallel(2)(joblib.delayed(rs.solve)(rec) for rec in lambdas())
    for rec, solution in zip(lambdas(), found, strict=True):
        assert same(solution.states, rs.solve(rec).states)


def test_a_lambda_under_plain_pickle_is_pythons_own_error():
    for rec in lambdas():
        with pytest.raises((pickle.PicklingError, AttributeError), match=r"pickle.*lambda"):
            pickle.dumps(rec)
