"""Solves over ranks keep the laws of the design: what all ranks say is true of the whole, whoever holds which steps."""

import pickle
import re
from dataclasses import dataclass, field, replace
from typing import Any

import gallery
import numpy as np
import pytest
import ranks
from test_discrete import pointer
from test_distributed_scans import shared

import recsolve as rs

pytest.importorskip("torch")

SOLVERS = sorted(rs.solvers.REGISTRY)
SWEEPING = ("newton", "quasi_newton", "jacobi", "picard")


def wave(h, u):
    return 0.9 * np.sin(h) + u


def chaos(h, u):
    return 2.5 * np.sin(h) + u


def slow(h, u):
    return 0.9999 * h + 0.01 * np.tanh(u)


def mixed(h, u):
    return np.tanh(h @ MATRIX.astype(h.dtype) + u)


def by_heads(h, u):
    return np.tanh(np.einsum("kij,...kj->...ki", HEADS.astype(h.dtype), h) + u)


MATRIX = 0.5 * np.random.default_rng(7).standard_normal((3, 3))
HEADS = 0.5 * np.random.default_rng(8).standard_normal((2, 3, 3))
FUNCTIONS = {
    "function": (wave, "diagonal", (3,)), "chaos": (chaos, "diagonal", (3,)), "slow": (slow, "diagonal", (3,)),
    "dense function": (mixed, "dense", (3,)), "heads": (by_heads, "heads", (2, 3)),
}  # fmt: skip
CELLS = {
    "gru": ("gru", "diagonal"), "lstm": ("lstm", "diagonal"), "dense gru": ("gru", "dense"),
    "lstm heads": ("lstm", "heads"), "minmax": ("minmax", "diagonal"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _without_compiling(monkeypatch):
    monkeypatch.setenv("RECSOLVE_BACKEND", "numpy")  # ranks would each compile their loops


KINDS = [*CELLS, *FUNCTIONS, "pointer"]


@dataclass(frozen=True)
class Case:
    """A recurrence, how it is shared, and how it is solved."""

    kind: str
    T: int
    lengths: tuple
    method: Any = "newton"
    batch: tuple = (2,)
    seed: int = 0
    dtype: Any = np.float64
    resets: bool = False
    bad: Any = None  # a number, and the step at which it is put into the input of the first sequence
    given: Any = field(default_factory=dict)

    def recurrence(self, share=lambda x: x):
        rng = np.random.default_rng(self.seed)
        reset = share(rng.random((self.T, *self.batch)) < 0.1) if self.resets else None
        if self.kind == "pointer":
            u, start = rng.integers(0, 4, (2, self.T, *self.batch, 3)), np.zeros((*self.batch, 3), int)
            inputs = tuple(map(share, u))
            return rs.Recurrence.from_function(pointer, inputs=inputs, initial=start, reset=reset, structure="none")
        if self.kind in CELLS:
            cell = gallery.weighted(*CELLS[self.kind], seed=self.seed, dtype=self.dtype, units=4)
            x = rng.standard_normal((self.T, *self.batch, cell.input_size)).astype(self.dtype)
            return cell.recurrence(share(self.spoilt(x)), reset=reset)
        f, structure, event = FUNCTIONS[self.kind]
        u = self.spoilt(rng.standard_normal((self.T, *self.batch, *event)).astype(self.dtype))
        initial = rng.standard_normal((*self.batch, *event)).astype(self.dtype)
        return rs.Recurrence.from_function(f, inputs=share(u), initial=initial, reset=reset, structure=structure)

    def spoilt(self, x):
        if self.bad is not None:
            x[(self.bad[1], *(0,) * (x.ndim - 1))] = self.bad[0]
        return x

    def alone(self):
        """The solution on one device."""
        return rs.solve(self.recurrence(), method=self.method, **self.given)


def solved(group, cases):
    return [solve_on(group, case) for case in cases]


def solve_on(group, case):
    def share(x):
        return rs.distributed.shard(x, group, lengths=case.lengths)

    rec = case.recurrence(share)
    known, given = rec.timeline.ranks, dict(case.given)
    if isinstance(given.get("guess"), np.ndarray) and given["guess"].ndim:
        given["guess"] = share(given["guess"])
    before = known.messages
    sol = rs.solve(rec, method=case.method, **given)
    count = known.messages - before
    assert sol.states.timeline == sol.output.timeline == rec.timeline
    assert sol.states.shape == (case.T, *rec.shape[1:])
    again = pickle.loads(pickle.dumps(sol))
    assert (again.status, again.message, again.nit) == (sol.status, sol.message, sol.nit)
    np.testing.assert_array_equal(again.states.local, sol.states.local)
    said = (
        str(sol.status), sol.message, sol.nit, sol.success, sol.converged_prefix, sol.exact_prefix, sol.way,
        sol.residuals, sol.final, sol.tolerance, count,
    )  # fmt: skip
    return sol.states.local, said, repr(sol)


@dataclass
class Found:
    """What all ranks have said alike, and the states of all."""

    states: Any
    status: str
    message: str
    nit: int
    success: bool
    converged_prefix: int
    exact_prefix: int
    way: str
    residuals: Any
    final: Any
    tolerance: Any
    messages: int


def over(size, cases):
    """Solve cases on ranks, check what holds of any solution, and return them."""
    by_rank, found = ranks.over(size, solved, cases), []
    with np.errstate(all="ignore"):
        for i, case in enumerate(cases):
            parts = [rank[i] for rank in by_rank]
            for _, said, _ in parts[1:]:
                for mine, first in zip(said, parts[0][1], strict=True):
                    np.testing.assert_equal(mine, first)
            one = Found(np.concatenate([states for states, _, _ in parts]), *parts[0][1])
            honest(case, one)
            found.append(one)
    return found


def honest(case, found):
    """Check that what is said of the states is true of them: the residual, the prefixes, the last state, the test."""
    rec = case.recurrence()
    states = found.states
    assert states.dtype == rec.dtype
    last = states[-1] if case.T else np.broadcast_to(rec.initial, rec.shape[1:])
    np.testing.assert_array_equal(found.final, last)
    if not case.T:
        assert found.success
        return
    r, size = residual_of(rec, states)
    told = found.residuals[-1]
    if rec.dtype.kind in "iub":
        np.testing.assert_equal(told, float((r != 0).any()) if told in (0, 1) else told)
        assert found.success == (not r.any())
        return
    np.testing.assert_equal(np.isfinite(told), np.isfinite(r).all())
    unit = np.finfo(rec.dtype).eps * size
    assert not np.isfinite(told) or abs(r.max(initial=0) - told) <= 4 * max(1, rec.rounding) * unit
    met = gallery.rows_met(rec, states, found.tolerance).all(axis=tuple(range(1, 1 + len(case.batch))))
    assert found.converged_prefix == (len(met) if met.all() else int(met.argmin()))
    assert found.success == met.all()


def residual_of(rec, states):
    """Return |f(h[t-1]) - h[t]| of all steps, and the largest finite number among both."""
    previous = np.concatenate([np.broadcast_to(rec.initial, rec.shape[1:])[None], states[:-1]])
    if rec.reset is not None:
        previous = np.where(rec.over_event(rec.reset), rec.restart, previous)
    F = rec.bind().apply(previous)
    r = states != F if rec.dtype.kind in "iub" else abs(F - states)
    both = abs(np.stack([F, states]).astype(float))
    return r, both[np.isfinite(both)].max(initial=0)


def as_the_loop(case, found):
    """Check law 1."""
    rec = case.recurrence()
    truth = rs.solve(rec, method="sequential")
    assert found.success, (case, found.message)
    if rec.dtype.kind in "iub":
        np.testing.assert_array_equal(found.states, gallery.loop(rec))
    else:
        assert abs(found.states - truth.states).max(initial=0) <= gallery.bound(truth), case


def applies(method, kind):
    try:
        rs.solvers.registry.check_applies(rs.solvers.REGISTRY[method](), Case(kind, 3, (3,)).recurrence())
    except TypeError:
        return False
    return True


@pytest.mark.parametrize("method", SOLVERS)
def test_law_1_every_solver_over_ranks_equals_the_loop(method):
    kinds = [kind for kind in KINDS if applies(method, kind)]
    first = SOLVERS.index(method)
    for size in (1 + first % 4, 1 + (first + 2) % 4):
        rng, cases = np.random.default_rng(size + 10 * first), []
        for kind in rng.permutation(kinds)[:2]:
            T = int(rng.choice([0, 1, 2, 3, 13, 37]))
            batch, dtype = ((), (1,), (2,))[rng.integers(3)], (np.float64, np.float32)[rng.integers(2)]
            cases.append(
                Case(
                    str(kind),
                    T,
                    shared(T, size, rng),
                    method,
                    batch,
                    int(rng.integers(99)),
                    dtype,
                    bool(rng.integers(2)),
                )
            )
        for case, found in zip(cases, over(size, cases), strict=True):
            as_the_loop(case, found)


# How a solve ends ---------------------------------------------------------------------------------------------------

SHARES = {1: (25,), 2: (0, 25), 3: (9, 0, 16), 4: (6, 0, 11, 8)}
FEW = ("newton", "jacobi", "anderson", "sequential", "multiple_shooting", "auto")


@pytest.mark.parametrize("method", FEW)
def test_what_is_not_finite_ends_all_ranks_where_it_ends_one(method):
    """The status, the prefix and the step are those of one device, and the other sequences are right."""
    for size, lengths in SHARES.items():
        cases = [Case("function", 25, lengths, method, bad=(bad, 14)) for bad in (np.nan, np.inf)[: size - 2 or 1]]
        cases += [Case(kind, 25, lengths, method, bad=(np.nan, 14)) for kind in ("gru", "dense gru") if size == 4]
        for case, found in zip(cases, over(size, cases), strict=True):
            with np.errstate(all="ignore"):
                one = case.alone()
            assert found.status == str(one.status) == "nonfinite"
            assert found.converged_prefix == one.converged_prefix == 14
            assert "the drive is inf or NaN at step 14 of sequence (0,)" in found.message
            assert found.exact_prefix <= 14
            assert method == "auto" or (found.nit > 0) == (one.nit > 0)
            np.testing.assert_array_equal(np.isfinite(found.states), np.isfinite(one.states))
            truth = replace(case, method="sequential", bad=None).alone()
            bound = gallery.bound(truth)
            assert abs(found.states - truth.states)[:14].max() <= bound
            assert abs(found.states - truth.states)[:, 1].max() <= bound


@pytest.mark.sample(every=2)
@pytest.mark.parametrize("method", [*SWEEPING, "anderson"])
@pytest.mark.parametrize("kind", ["gru", "lstm", "slow", "chaos"])
def test_sweeps_of_all_ranks_end_as_those_of_one_device(method, kind):
    """With one message an iteration, or two where a method sums over time; limits and stalls are those of the whole."""
    limits = {"maxiter": 3}, {"tol": 0.0, "options": {"patience": 2, "pin": False}, "maxiter": 30}, {"tol": 1e-3}
    cases = [Case(kind, 25, SHARES[4], method, given=given) for given in limits]
    for case, found in zip(cases, over(4, cases), strict=True):
        one, messages = case.alone(), 1 + (method == "anderson")
        assert found.way == "sweeps"
        assert found.messages <= messages * (found.nit + 1) + 2 + 2 * (not found.success)
        assert re.match(rf"(steps \d+ to \d+ \(counted from 0\), rank \d of 4: )?{found.status}: ", found.message)
        if case.given.get("tol") != 0 or method in ("jacobi", "picard"):  # where it does not hang on the last digit
            assert (found.status, found.nit) == (str(one.status), one.nit)
            assert found.converged_prefix == one.converged_prefix
            np.testing.assert_allclose(found.residuals[:3], one.residuals[:3], rtol=1e-6, atol=1e-12)


def test_a_failed_solve_is_completed_or_raised_on_all_ranks():
    for size in (1, 3, 4):
        for kind, method in (("chaos", "jacobi"), ("dense gru", "newton"), ("lstm", "multiple_shooting")):
            limited = Case(kind, 25, SHARES[size], method, given={"maxiter": 1, "fallback": "sequential"})
            (found,) = over(size, [limited])
            truth = replace(limited, method="sequential", given={}).alone()
            assert found.success
            assert abs(found.states - truth.states).max() <= gallery.bound(truth)
            raised = replace(limited, given={"maxiter": 1, "fallback": "raise"})
            for status, message in ranks.over(size, raising, raised):
                assert status == "maxiter"
                assert "maxiter: the iteration limit was reached" in message


def raising(group, case):
    try:
        solve_on(group, case)
    except rs.ConvergenceError as error:
        return str(error.solution.status), str(error)


@pytest.mark.parametrize("method", ["newton", "jacobi", "multiple_shooting"])
def test_guesses_are_of_the_whole(method):
    """Words, numbers, shards of an array and the states of a solution start all ranks as they start one device."""
    for kind in ("gru", "dense gru")[: 2 if method == "newton" else 1]:
        case = Case(kind, 25, SHARES[4], method)
        truth = replace(case, method="sequential").alone()
        guesses = ["step", "zeros", 0.25, np.zeros(truth.states.shape), np.array(truth.states)]
        guesses += ["frozen_gates"] if method == "newton" else []
        cases = [replace(case, given={"guess": guess}) for guess in guesses]
        for one, found in zip(cases, over(4, cases), strict=True):
            as_the_loop(one, found)
            if found.way == "sweeps" and not isinstance(one.given["guess"], str):
                assert found.nit == one.alone().nit
        assert over(4, [cases[4]])[0].nit <= 1


def named_guesses(group):
    cell = rs.cells.LSTM.random(input_size=2, hidden_size=3, rng=0)
    rec = cell.recurrence(rs.distributed.shard(np.random.default_rng(0).standard_normal((9, 2)), group))
    sol = rs.solve(rec, method="newton")
    guess = {name: rs.distributed.Shard(x, rec.timeline) for name, x in sol.named.items()}
    return rs.solve(rec, method="newton", guess=guess).nit


def test_a_guess_may_be_shards_by_component():
    assert ranks.over(2, named_guesses) == [0, 0]


def test_tolerances_are_tested_over_all_ranks():
    """Also where states of one rank are far larger than those of the others: all are tested by one scale."""
    for tol in (1e-2, 1e-6, 1e-10):
        cases = [Case(kind, 25, SHARES[4], method, given={"tol": tol}) for kind in ("gru", "dense gru", "chaos")
                 for method in ("newton", "multiple_shooting", "sequential")]  # fmt: skip
        for case, found in zip(cases, over(4, cases), strict=True):
            assert found.success
            rec = case.recurrence()
            assert gallery.residual_is_met(rec, found.states, case.alone().tolerance)


# Long ranges, which may forget what comes in ------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "way"), [("gru", "rounds"), ("function", "rounds"), ("slow", "sweeps")])
def test_long_ranges_are_solved_in_rounds_where_they_forget(kind, way):
    for size, lengths in ((2, (2400, 1700)), (3, (1500, 1100, 1500)), (4, (1100, 0, 1500, 1500))):
        for method in ("newton", "auto"):
            for resets in (False, True):
                case = Case(kind, 4100, lengths, method, (), resets=resets)
                (found,) = over(size, [case])
                as_the_loop(case, found)
                assert found.way == way or resets
                assert found.messages <= (4 if way == "rounds" else found.nit + 4)


def test_a_long_range_with_what_is_not_finite():
    for kind in ("gru", "slow"):
        case = Case(kind, 4100, (1100, 1500, 1500), "newton", (2,), bad=(np.nan, 1800))
        (found,) = over(3, [case])
        assert (found.status, found.converged_prefix) == ("nonfinite", 1800)
        assert "at step 1800" in found.message
        truth = replace(case, bad=None, method="sequential").alone()
        assert abs(found.states - truth.states)[:1800].max() <= gallery.bound(truth)
        assert abs(found.states - truth.states)[:, 1].max() <= gallery.bound(truth)


def told(group, case):
    return solve_on(group, case)[2]


def test_a_solution_reads_well():
    case = Case("gru", 25, SHARES[4], "newton")
    shown = ranks.over(4, told, case)
    assert "steps: 0 to 5 of 25 are here" in shown[0]
    assert "steps: none of 25 are here" in shown[1]
    assert "all steps of all ranks in every iteration" in shown[3]
    assert len({re.sub(r".* are here|recurrence: .*", "", text) for text in shown}) == 1
