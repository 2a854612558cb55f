"""Law 10: what users hold pickles, copies and crosses process boundaries, and answers the same afterwards."""

import copy
import dataclasses
import pickle
import traceback
from functools import cache

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
from recsolve.solve_trace import Trace
from recsolve.studies.compare.compare import CompareConfig, Comparisons
from recsolve.studies.store.records import Record
from recsolve.symbolic.program import Program
from recsolve.symbolic.tracing import trace_cell

torch = pytest.importorskip("torch")

COPIES = {f"protocol {n}": lambda x, n=n: pickle.loads(pickle.dumps(x, n)) for n in range(2, 6)}
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


def gradients(rec):
    return rs.adjoint(rs.solve(rec), states=rec.wrap(np.ones(rec.shape, rec.dtype)))


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
        "components with axes": test_ragged_cells.recurrence("attend"),
    }
    layers = rs.Layers([[rec.cell, rec.cell]])
    stacked = layers.solve(np.ones((20, 2, 2)), lengths=[20, 3])
    kept = rs.solve(rec, every=8)
    found = {f"recurrence: {name}": r for name, r in recurrences.items()}
    found |= {f"solution: {name}": rs.solve(r, method="quasi_newton") for name, r in recurrences.items()}
    found |= {f"gradients: {name}": gradients(r) for name, r in recurrences.items()}
    found |= {f"cell: {name}": cell for name, cell in rs.cells.REGISTRY.items()}
    found |= {f"solver: {name}": solver() for name, solver in rs.solvers.REGISTRY.items()}
    found |= {f"mixing: {name}": mixing for name, mixing in test_mixings.made().items()}
    found |= {f"monoid: {name}": monoid for name, monoid in MONOIDS.items()}
    found |= {f"Jacobian: {name}": J for name, J in structures().items()}
    found |= {
        "weighted cell": rec.cell,
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


def test_every_public_class_has_an_example():
    classes = {x for x in (getattr(rs, name) for name in rs.__all__) if isinstance(x, type)}
    classes |= {x for room in (jacobians, mixings, rs.solvers) for x in vars(room).values() if isinstance(x, type)}
    classes |= {Names, Tolerance, Trace}
    concrete = {c for c in classes if c.__module__.startswith("recsolve") and not c.__name__.startswith("_")}
    concrete -= {c for c in concrete if getattr(c, "__abstractmethods__", None)}
    inside = {
        "Direct",
        "Iterate",
        "Linearised",
        "Problem",
        "Stage",
        "State",
        "History",
        "Run",
    }  # of a solve that goes on
    shown = {base for x in objects().values() for base in type(x).__mro__}
    assert {c.__name__ for c in concrete - shown} - inside == set()


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
    if a.__reduce_ex__(4)[0] is type(a) and isinstance(a, BaseException):
        return a.args == b.args and same(vars(a), vars(b), known)
    if hasattr(a, "__dict__"):
        return same(vars(a), vars(b), known)
    return bool(a == b)


def answers(x):
    """Return what an object says when it is asked."""
    if isinstance(x, rs.Recurrence):
        return rs.solve(x).states
    if isinstance(x, rs.Solution):
        return x.states, x.output, x.final, x.condition, repr(x), rs.solve(x.recurrence, method=x.solver).states
    if isinstance(x, rs.Gradients):
        return x.states, x.initial, x.inputs
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
