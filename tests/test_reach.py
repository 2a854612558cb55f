"""Structures that are read off functions of named states: they have every pair of numbers that depend on each other."""

import gallery
import numpy as np
import pytest
import test_named_states as named_states
import test_ragged_cells as ragged

import recsolve as rs
from recsolve.jacobians.pattern import Pattern
from recsolve.recurrence.reach import read_pairs
from recsolve.studies.systems.system import get

K, V = 3, 4
OWN = ("k", "v")
MIX = np.array([[1.0, -1.0, 0.0, 0.0]] * V)

# What C becomes, and the axes along which its entries do not depend on each other.
FUNCTIONS = {
    "elementwise": (lambda C, u: np.tanh(C * u) - 0.5 * C**2, OWN),
    "times zero": (lambda C, u: 0 * C + u, OWN),
    "a slope of zero": (lambda C, u: np.maximum(C, 100.0) + u, OWN),
    "roll": (lambda C, u: np.roll(C, 1, axis=-2) + u, ("v",)),
    "flip": (lambda C, u: C[..., ::-1] + u, ("k",)),
    "either branch": (lambda C, u: np.where(C > -100, C, C[..., ::-1]) + u, ("k",)),
    "either of two": (lambda C, u: np.minimum(C, 100 + C.swapaxes(-1, -2)[..., :1].swapaxes(-1, -2)) + u, ("v",)),
    "sum": (lambda C, u: C + C.sum(axis=-1, keepdims=True) * u, ("k",)),
    "a sum that cancels": (lambda C, u: C + (C - C).sum(axis=-1, keepdims=True) + u, ("k",)),
    "maximum": (lambda C, u: C + C.max(axis=-2, keepdims=True) + u, ("v",)),
    "product": (lambda C, u: C + np.prod(u * C, axis=-1, keepdims=True), ("k",)),
    "softmax": (lambda C, u: np.exp(C) / np.exp(C).sum(axis=-1, keepdims=True) + u, ("k",)),
    "norm": (lambda C, u: C / np.linalg.norm(C + 1, axis=-2, keepdims=True) + u, ("v",)),
    "cumsum": (lambda C, u: np.cumsum(C, axis=-2) + u, ("v",)),
    "diff": (lambda C, u: np.diff(C, axis=-1, prepend=0.0) + u, ("k",)),
    "matmul": (lambda C, u: C @ MIX + u, ("k",)),
    "a product with what is zero now": (lambda C, u: np.einsum("...kv,...jv->...jv", C, u) + u, ("v",)),
    "reshape": (lambda C, u: C.reshape(*C.shape[:-2], K * V).reshape(C.shape) + u, OWN),
    "concatenate": (lambda C, u: np.concatenate([C[..., 1:], C[..., :1]], axis=-1) + u, ("k",)),
    "sort": (lambda C, u: np.sort(C, axis=-1) + u, "dense"),
    "take along": (lambda C, u: np.take_along_axis(C, np.argsort(u, axis=-1), axis=-1), "dense"),
    "an index": (lambda C, u: C[..., [1, 0, 3, 2]] + u, "dense"),
    "an index of the state": (lambda C, u: np.take_along_axis(C, np.argsort(C, axis=-1), axis=-1), "dense"),
}


def recurrence(f, T=7, batch=(2,), structure="dense"):
    u = np.random.default_rng(0).standard_normal((T, *batch, K, V))
    u[:1] = np.eye(K, V)  # zeros where the structure is read
    initial = {"C": 0.1 * np.ones((*batch, K, V))}
    return rs.Recurrence.from_function(
        lambda s, u: {"C": f(s.C, u)}, inputs=u, state={"C": ("k", "v")}, initial=initial, structure=structure
    )


def covered(rec, structure):
    """Assert that a structure has all entries of the Jacobian at random states."""
    allowed = np.ones((rec.state.size, rec.state.size), bool)
    if structure != "dense":
        allowed = Pattern(rec.state, {} if structure == "zero" else structure).matrix
    at = np.random.default_rng(1).standard_normal(rec.shape)
    J = rec.linearise(at)[1].todense().reshape(-1, *allowed.shape)
    assert not (abs(J) > 0)[:, ~allowed].any()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_read_has_every_entry_and_few_others(name):
    f, axes = FUNCTIONS[name]
    for batch in ((), (2,)):
        rec = recurrence(f, batch=batch)
        found = read_pairs(rec)
        covered(rec, found)
        assert found == ("dense" if axes == "dense" else {("C", "C"): axes})
        assert rs.check_structure(recurrence(f, batch=batch, structure=found)).ok


def at_each_time(f):
    return lambda C, u: np.stack([f(c, v) for c, v in zip(C, u, strict=True)])


# What does another thing at other numbers of the state, or of the drive, than those where it is read.
ELSEWHERE = {
    "a branch by the state": at_each_time(lambda c, v: c if (c > -1).all() else c[..., ::-1, :]),
    "a branch by the drive": at_each_time(lambda c, v: c if v[..., 0, 1].sum() == 0 else c[..., ::-1]),
    "a place by the drive": at_each_time(lambda c, v: np.roll(c, int(v.sum() != K), axis=-1)),
    "a place by a truth": at_each_time(lambda c, v: np.roll(c, int((c > 1).any()), axis=-1)),
    "a sum of some": lambda C, u: C + np.sum(C, axis=-1, where=u != 0, keepdims=True),
    "weights between places": lambda C, u: C + np.trapezoid(C, u, axis=-1)[..., None],
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_chosen_by_a_drive_or_by_the_state_is_dense(name):
    for batch in ((), (2,)):
        assert read_pairs(recurrence(ELSEWHERE[name], batch=batch)) == "dense"


# Operations on two arrays (..., 3), of which sums may cancel, parts vanish, or branches be others elsewhere.
OPERATIONS = (
    lambda a, b: np.tanh(a) + b,
    lambda a, b: np.where((a > b) | (a < 0), a, b[..., ::-1]),
    lambda a, b: np.minimum(a, b + 50),
    lambda a, b: np.diff(a, axis=-1, prepend=1.0) * b,
    lambda a, b: np.roll(a, 1, axis=-1) - np.roll(b, 2, axis=-1),
    lambda a, b: np.cross(a, b),
    lambda a, b: np.fft.fft(a).imag + b,
    lambda a, b: np.fft.irfft(np.fft.rfft(a) * 1j, n=3) * b,
    lambda a, b: np.imag((a + 1j * b) ** 2),
    lambda a, b: np.angle(a + 1j * b),
    lambda a, b: np.take_along_axis(a, np.argsort(b, axis=-1), axis=-1),
    lambda a, b: a @ np.array([[0, 1.0, 0], [0, 0, 0], [0, 0, -2.0]]) + b,
    lambda a, b: np.triu(a[..., :, None] * b[..., None, :], 1).sum(axis=-2),
    lambda a, b: np.select([a > 0, b > 0], [a, b], 1.0),
    lambda a, b: np.ptp(np.stack([a, b, a * b], axis=-1), axis=-1),
    lambda a, b: a - a.mean(axis=-1, keepdims=True) * np.sign(b),
    lambda a, b: np.concatenate([a[..., 1:], b[..., :1]], axis=-1),
)


@pytest.mark.parametrize("seed", range(60))
def test_random_functions_are_read_with_every_entry(seed):
    random = np.random.default_rng(seed)
    program = random.integers(0, (len(OPERATIONS), 99, 99), (random.integers(1, 5), 3)).tolist()

    def f(s, u):
        values = [s.h, u, s.g, s.C.sum(axis=-1)]
        for which, i, j in program:
            values.append(OPERATIONS[which](values[-1 - i % len(values)], values[-1 - j % len(values)]))
        return {"h": values[-1], "g": values[-2], "C": s.C * values[4][..., None]}

    u = random.standard_normal((6, 3))
    u[0] = 0
    state = {"h": ("k",), "g": ("k",), "C": ("k", "v")}
    initial = {"h": np.zeros(3), "g": np.zeros(3), "C": np.zeros((3, 2))}
    rec = rs.Recurrence.from_function(f, inputs=u, state=state, initial=initial)
    found = read_pairs(rec)
    with np.errstate(all="ignore"):
        covered(rec, found)


def test_integers_of_the_drive_may_be_compared_and_look_up_parameters():
    u, table = np.random.default_rng(0).integers(0, 5, (8, 1)), np.ones((5, K))

    def f(s, u, p):
        odd = (u % 2 == 1) & ~(u > 3)
        return {"h": np.where(odd, s.h, np.tanh(s.h + p.table[u[:, 0]])) * (u // 2)}

    given = {"inputs": u, "initial": {"h": np.zeros(K)}, "state": {"h": ("k",)}, "parameters": {"table": table}}
    assert read_pairs(rs.Recurrence.from_function(f, **given)) == {("h", "h"): ("k",)}


def test_what_sees_nothing_is_zero_and_what_is_not_followed_is_dense():
    assert read_pairs(recurrence(lambda C, u: np.sign(C) + u)) == "zero"
    assert read_pairs(recurrence(lambda C, u: C + (1 if np.argmax(C) else 2) * u)) == "dense"
    assert read_pairs(recurrence(lambda C, u: np.fft.fftn(C).real + u)) == "dense"
    assert read_pairs(recurrence(lambda C, u: C + u, batch=(0,))) == "dense"


@pytest.mark.parametrize("f", [lambda C, u: C + u, lambda C, u: np.sign(C) + u, lambda C, u: C + C[..., ::-1] / u])
def test_without_steps_it_is_that_of_any(f):
    """As ranks without steps need it, whose messages are those of the others."""
    assert read_pairs(recurrence(f, T=0)) == read_pairs(recurrence(f, T=1))


@pytest.mark.parametrize("f", named_states.STATES, ids=lambda f: f.__name__)
def test_it_is_no_larger_than_what_is_declared_by_hand(f):
    rec = named_states.named(f, "dense")
    found = read_pairs(rec)
    covered(rec, found)
    declared = Pattern(rec.state, named_states.PAIRS[f]).matrix
    assert not Pattern(rec.state, found).matrix[~declared].any()


@pytest.mark.parametrize("name", ["ttt", "tnt", "lact", "lact_norm", "lact_muon", "titans", "mlstm", "attention_rnn"])
def test_what_is_read_of_systems_has_every_entry(name):
    rec = get(name).build(length=12)
    assert rec.structure == "pairs"
    covered(rec, read_pairs(rec))


@pytest.mark.parametrize("name", ["memory_caching_dla", "recurrent_gpt", "universal_act"])
def test_systems_are_read_as_their_files_declare_them(name):
    rec = get(name).build(length=12)
    found = read_pairs(rec)
    covered(rec, found)
    np.testing.assert_array_equal(Pattern(rec.state, found).matrix, rec.form.pattern.matrix)


def test_a_cell_without_a_structure_has_the_one_that_is_read():
    for name in ragged.ALL:
        rec = ragged.recurrence(name)
        declared, plain = rec.cell.cell.structure, ragged.CELLS[name]
        cell = rs.Cell(plain.function, state=plain.components, output=plain.output, axes=plain.axes)
        own = cell.with_weights(
            mixings=rec.cell.mixings, parameters=rec.cell.parameters, projection=rec.cell.projection
        ).recurrence(rec.x, initial=rec.initial)
        covered(own, read_pairs(own))
        if declared is not None:
            np.testing.assert_array_equal(own.form.pattern.matrix, rec.form.pattern.matrix)
        sol = rs.solve(own, method="newton")
        assert sol.trusted
        np.testing.assert_allclose(sol.states, gallery.loop(rec), atol=1e-8)
        assert own.window(3, 5).structure == own.structure


@pytest.mark.parametrize(("weight", "axes"), [
    (rs.mixings.Diagonal(np.ones(V)), OWN),
    (rs.mixings.Dense(MIX), ("k",)),
    (rs.mixings.Masked(rs.mixings.Dense(np.ones((V, V))), np.eye(V, dtype=bool)), OWN),
    (rs.mixings.Diagonal(np.zeros((K, V))), None),
    (rs.mixings.SharedHead(MIX, K), ("k",)),
])  # fmt: skip
def test_mixings_couple_what_their_matrices_do(weight, axes):
    cell = rs.Cell(lambda s, W, u, p: {"C": W.C(s.C) + u.x}, state={"C": OWN}, output="C")
    rec = cell.with_weights(mixings={"C": weight}).recurrence(drive={"x": np.ones((5, 2, K, V))})
    covered(rec, found := read_pairs(rec))
    assert found == ({} if axes is None else {("C", "C"): axes})
    np.testing.assert_allclose(rs.solve(rec, method="newton").states, gallery.loop(rec), atol=1e-12)


def test_functions_of_named_states_may_leave_it_to_be_read():
    for f in named_states.STATES:
        rec = named_states.named(f, None)
        assert rec.structure in ("pairs", "dense")
        sol = rs.solve(rec, method="newton")
        assert sol.trusted
        np.testing.assert_allclose(sol.states, gallery.loop(rec), atol=1e-8)
    with pytest.raises(ValueError, match="structure is None; wanted a name"):
        rs.Recurrence.from_function(lambda h, u: h + u, inputs=np.ones((3, 2)), initial=np.zeros(2), structure=None)
