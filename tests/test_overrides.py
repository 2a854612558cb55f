"""Random subclasses that override a random method: every backend gives what the methods of the subclass say."""

from functools import cache

import gallery
import numpy as np
import pytest
from test_mixings import cell_of, made

import recsolve as rs
from recsolve import jacobians
from recsolve.jacobians.factored import Factored
from recsolve.kernels.affine_scan import affine_scan, reverse_solve
from recsolve.mixings import Mixing
from recsolve.recurrence.cell_recurrence import CellRecurrence
from recsolve.recurrence.engine import Engine
from recsolve.recurrence.weighted_cell import WeightedCell

STRUCTURES = (jacobians.Scalar, jacobians.Diagonal, jacobians.Block, jacobians.LaneDense, Factored)
LONG = 4100  # from where on loops are compiled unasked
METHODS = ("sequential", "newton", "quasi_newton", "jacobi", "windowed", "auto")


def halved(x):
    """Half of what a method returns, whatever it is."""
    if isinstance(x, tuple):  # values with a Jacobian
        return x[0], halved(x[1])
    if isinstance(x, Mixing):
        return x.map(lambda w: w / 2)
    if isinstance(x, jacobians.Jacobian):
        return x.scale(0.5)
    return x / 2 if isinstance(x, (np.ndarray, float)) else x


def overriding(base, name):
    """A subclass of a class whose method (or property) returns half of what the method of the class does."""
    if isinstance(getattr(base, name), property) or not callable(getattr(base, name)):
        new = property(lambda self: halved(getattr(super(made, self), name)))
    else:

        def new(self, *args, **kwargs):
            return halved(getattr(super(made, self), name)(*args, **kwargs))

    made = type(f"Own{base.__name__}", (base,), {name: new})
    return made


def reclassed(x, kind):
    """An object of another class with the same attributes."""
    new = object.__new__(kind)
    vars(new).update(vars(x))
    return new


def recurrence(T, *, mixing=None, cell=None, itself=None, name="cho_gru"):
    """A recurrence of a cell of one mixing, one of whose parts is of another class."""
    weighted = cell_of(made()["diagonal"] if mixing is None else mixing, name)
    if cell is not None:
        weighted = reclassed(weighted, cell)
    rng = np.random.default_rng(T)
    event = weighted.layout.event[weighted.layout.components > 1 :]
    rec = weighted.recurrence(drive={n: rng.standard_normal((T, 2, *event)) for n in weighted.cell.drives})
    return rec if itself is None else reclassed(rec, itself)


def answers(rec, method):
    """What a user sees of a recurrence, or the kind of error."""
    try:
        sol = rs.solve(rec, method=method)
    except TypeError:  # it has no Jacobian
        sol = rs.solve(rec, method="sequential")
    found, pulled = {"states": sol.states, "output": sol.output}, cache(lambda: rs.adjoint(sol, states=sample(rec)))
    for what, ask in {
        "F": lambda: rec.evaluate(sample(rec)),
        "J": lambda: rec.linearise(sample(rec))[1].matvec(sample(rec)),
        "frozen": lambda: rs.solve(rec, method="newton", guess="frozen_gates").states,
        "condition": lambda: sol.condition if rec.length == 1 else 0.0,
        "bound": lambda: sol.error_bound == np.inf,
        "adjoint": lambda: pulled().states,
        "shown": lambda: rs.adjoint(sol, output=sol.output).states,
        "drive": lambda: pulled().drive.n,
        "weight": lambda: pulled().mixings.n,
        "tangent": lambda: rs.tangent(sol, initial=np.ones(rec.initial.shape)),
    }.items():
        try:
            found[what] = ask()
        except (TypeError, ValueError) as error:
            found[what] = type(error)
    return found


def sample(rec):
    return np.random.default_rng(5).uniform(-0.5, 0.5, rec.shape)


def agree(found, wanted):
    for what, x in found.items():
        y = wanted[what]
        if isinstance(x, type) or isinstance(y, type):
            assert x is y, (what, x, y)
        else:
            np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9, err_msg=what)


MIXING_METHODS = (
    "matvec", "dense", "transpose", "rmatvec", "diagonal", "hadamard_transpose", "weight_cotangent", "weight_tangent"
)  # fmt: skip
CELL_METHODS = ("stack_components", "output", "dtype", "drive")
RECURRENCE_METHODS = ("apply", "step", "differentiate", "output", "rounding", "repeats", "operator", "drive_like")
CASES = [
    *(("mixing", name, method) for name in made() for method in MIXING_METHODS),
    *(("cell", name, method) for name in ("diagonal", "dense") for method in CELL_METHODS),
    *(("recurrence", name, method) for name in ("diagonal", "dense") for method in RECURRENCE_METHODS),
]


def subclassed(rng, T):
    """The recurrence of a random case, and a name for it."""
    part, name, method = CASES[rng.integers(len(CASES))]
    mixing, given = made()[name], {}
    if part == "mixing":
        mixing = reclassed(mixing, overriding(type(mixing), method))
    else:
        base = WeightedCell if part == "cell" else CellRecurrence
        given = {"cell" if part == "cell" else "itself": overriding(base, method)}
    return recurrence(T, mixing=mixing, **given), f"{method} of {part} {name}"


@pytest.mark.parametrize("seed", range(24))
def test_every_backend_gives_what_the_methods_of_a_subclass_say(seed):
    rng = np.random.default_rng(seed)
    rec, what = subclassed(rng, int(rng.choice([1, 100])))
    wanted = gallery.loop(rec)
    with rs.backend("numpy"):
        reference = answers(rec, str(rng.choice(METHODS)))
    np.testing.assert_allclose(reference["states"], wanted, rtol=1e-7, atol=1e-9, err_msg=what)
    with rs.backend("numba"):
        assert type(rec.bind()) is Engine, what
        agree(answers(rec, str(rng.choice(METHODS))), reference)


@pytest.mark.parametrize("seed", range(2))
def test_long_problems_that_are_compiled_unasked(seed):
    rec, what = subclassed(np.random.default_rng(100 + seed), LONG)
    assert type(rec.bind()) is Engine, what
    states = rs.solve(rec, method="sequential").states
    np.testing.assert_allclose(states, gallery.loop(rec), rtol=1e-7, atol=1e-9, err_msg=what)
    np.testing.assert_allclose(rec.evaluate(states), states, rtol=1e-7, atol=1e-9, err_msg=what)


JACOBIAN_METHODS = ("matvec", "rmatvec", "transpose", "diagonal", "block", "lane_dense", "scale", "between")


@pytest.mark.parametrize("seed", range(20))
def test_scans_step_with_the_matvec_of_a_subclass(seed):
    rng = np.random.default_rng(seed)
    kind, method = STRUCTURES[seed % len(STRUCTURES)], str(rng.choice(JACOBIAN_METHODS))
    layout = rs.Layout(components=2, units=3) if kind is jacobians.Block else rs.Layout(units=6)
    leading = (int(rng.choice([1, 100, 1100])), 2)
    if kind is Factored:
        rec = recurrence(leading[0], mixing=made()["dense"])
        plain = rec.linearise(sample(rec))[1]
    else:
        plain = gallery.structure(kind, layout, leading, rng, gain=0.3)
    e, b = reclassed(plain, overriding(kind, method)), rng.standard_normal((*leading, *plain.layout.event))
    y = np.zeros_like(b)
    for t in range(len(b)):
        y[t] = (e[t : t + 1].matvec(y[t - 1 : t])[0] if t else 0) + b[t]
    back = []
    for backend in ("numpy", "numba", "auto"):
        with rs.backend(backend):
            np.testing.assert_allclose(
                affine_scan(e, b), y, rtol=1e-8, atol=1e-10, err_msg=f"{method} of {kind.__name__}"
            )
            back.append(reverse_solve(e, np.zeros(leading, bool).reshape(*leading, *(1,) * (b.ndim - 2)), b))
    for other in back[1:]:
        np.testing.assert_allclose(other, back[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("base", ["cell", "itself"])
def test_an_output_of_ones_own_has_no_gradient_until_it_is_defined(base):
    kind = overriding(WeightedCell if base == "cell" else CellRecurrence, "output")
    rec = recurrence(20, **{base: kind})
    sol = rs.solve(rec)
    with pytest.raises(TypeError, match="overrides output and no pull_output"):
        rs.adjoint(sol, output=sol.output)

    def pull(self, output, states):
        states += output / 2

    defined = type("Defined", (kind,), {"pull_output": pull})
    sol = rs.solve(recurrence(20, **{base: defined}))
    g = rs.adjoint(sol, output=sol.output).states
    np.testing.assert_allclose(g, rs.adjoint(sol, states=sol.output / 2).states)


def test_drives_of_ones_own_have_no_gradients_with_respect_to_the_input():
    plain = rs.cells.GRU.random(input_size=2, hidden_size=6, mixing="diagonal", rng=0)
    sol = rs.solve(reclassed(plain, overriding(WeightedCell, "drive")).recurrence(np.ones((9, 2))))
    g = rs.adjoint(sol, output=sol.output)
    assert g.drive.n.shape == (9, 6)
    for ask in (lambda: g.inputs, lambda: g.projection, lambda: rs.tangent(sol, inputs=np.ones((9, 2)))):
        with pytest.raises(TypeError, match="overrides drive"):
            ask()


@pytest.mark.parametrize("place", ["mixing", "cell", "recurrence"])
def test_methods_that_were_replaced_on_an_object_are_not_compiled(place):
    rec = recurrence(100, mixing=made()["diagonal"])
    if place == "mixing":
        mixing = rec.cell.mixings["n"]
        mixing.matvec = lambda x: mixing.weight * x / 2
        with pytest.raises(TypeError, match="replaced on the object; wanted a subclass"):
            cell_of(mixing)
    elif place == "cell":
        rec.cell.stack_components = lambda parts, like: parts[0] / 2
    else:
        rec.step = lambda state, t: CellRecurrence.step(rec, state, t) / 2
        rec.apply = lambda previous: CellRecurrence.apply(rec, previous) / 2
    with rs.backend("numba"):
        assert type(rec.bind()) is Engine
        np.testing.assert_array_equal(rs.solve(rec, method="sequential").states, gallery.loop(rec))
