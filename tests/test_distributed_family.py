"""Solvers of the family over ranks, turns in chunks of sequences, and what a solution over ranks tells of the whole."""

import pickle
from dataclasses import dataclass
from functools import partial
from io import StringIO

import numpy as np
import pytest
import test_ragged_cells
from ranks import lost, over

import recsolve as rs
from recsolve.distributed import turns
from recsolve.distributed.ahead import Ahead
from recsolve.distributed.ranks import ranks_of
from recsolve.distributed.sweeps import solve_by_sweeps
from recsolve.distributed.task import Task
from recsolve.distributed.trust import trust_of
from recsolve.solve import split_options
from recsolve.solvers import Iterate, PerRow, Solver, State
from recsolve.solvers.registry import REGISTRY

pytest.importorskip("torch")

LENGTHS = (20, 0, 41)
MESSAGES = {"anderson": 2, "triangular_anderson": 2, "damped_newton": 20}  # an iteration; of the others, one
SWEEP = [name for name, method in REGISTRY.items() if getattr(method, "rowwise", False)]
TURNS = [name for name in REGISTRY if name not in SWEEP and name not in ("sequential", "auto")]


@dataclass(frozen=True)
class Last(State):
    states: PerRow[np.ndarray]


class HeavyBall(Solver[Iterate, Last]):
    """A user's own solver, whose proposals are known before the message."""

    name, matrix, finite_termination, exact_on_affine = "heavy_ball", "0, with momentum", False, "none"
    rowwise = True

    def init(self, problem, iterate):
        return Last(iterate.states)

    def step(self, problem, iterate, state):
        return problem.advance(iterate, iterate.values + 0.1 * (iterate.states - state.states)), Last(iterate.states)


class Halfway(rs.solvers.Newton):
    """Another step of the user's own: corrected, then moved; it says so."""

    name, cite, rowwise = "halfway", "mine", True

    def step(self, problem, iterate, state):
        newton = problem.correct(iterate, iterate.jacobian)
        return problem.advance(iterate, 0.25 * iterate.states + 0.75 * newton), state


class Trying(HeavyBall):
    """A step that looks at other states before the message, which tells of those that it began with all the same."""

    name, rowwise = "trying", True

    def init(self, problem, iterate):
        problem.evaluate(np.full_like(iterate.states, 3.0))
        return super().init(problem, iterate)

    def step(self, problem, iterate, state):
        problem.evaluate(np.full_like(iterate.states, 7.0))
        return super().step(problem, iterate, state)


class Hasty(HeavyBall):
    """A step that is made before the first."""

    name, rowwise = "hasty", True

    def init(self, problem, iterate):
        return super().init(problem, problem.advance(iterate, iterate.values))


class Unsaid(rs.solvers.Chord):
    """Another step of which nothing is said: it may look along time."""

    name, cite = "unsaid", "mine"

    def step(self, problem, iterate, state):
        return super().step(problem, iterate, state)


class Idle(HeavyBall):
    """A step that keeps the first of two iterates."""

    name, rowwise = "idle", True

    def step(self, problem, iterate, state):
        found, state = super().step(problem, iterate, state)
        problem.advance(found, found.values)
        return found, state


OWN = [(HeavyBall(), {}), (Halfway(), {}), (Trying(), {}), (Unsaid(), {})]


def _drives(length=61, batch=(2,), seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((length, *batch, 3)), rng.random((length, *batch)) < 0.03


def _network(u, reset):
    W = 0.5 * np.eye(3) + 0.05 * np.random.default_rng(1).standard_normal((3, 3))
    return rs.Recurrence.from_function(
        lambda h, u: np.tanh(h @ W + u), inputs=u, reset=reset, initial=np.full(u.shape[1:], 0.1)
    )


def _sine(u, reset, gain):
    return rs.Recurrence.from_function(
        lambda h, u: gain * np.sin(h) + u, inputs=u, reset=reset, initial=np.zeros(u.shape[1:]), structure="diagonal"
    )


def _leak(h, u):
    return 0.8 * np.tanh(h) + u


def _shards(group, lengths, *arrays):
    return [rs.distributed.shard(x, group, lengths=lengths) for x in arrays]


def _solves(group, lengths, cases, broken=False):
    """Return of each case (method, settings) what all ranks say, how many messages it took, and the own output."""
    u, reset = _drives()
    if broken:
        u[45] = np.nan
    rec, ranks, found = _network(*_shards(group, lengths, u, reset)), ranks_of(group), []
    for method, settings in cases:
        before = ranks.messages
        sol = rs.solve(rec, method=method, **settings)
        told = sol.way, str(sol.status), sol.nit, np.array(sol.residuals), sol.message
        found.append((told, ranks.messages - before, sol.output.local))
    return found


def _alone(method, settings, broken=False):
    u, reset = _drives()
    if broken:
        u[45] = np.nan
    return rs.solve(_network(u, reset), method=method, **settings)


def _joined(ranks, index):
    """Return what the ranks say of a case, which must be the same, the most messages, and the whole output."""
    told = [rank[index][0] for rank in ranks]
    for other in told[1:]:
        np.testing.assert_equal(other, told[0])
    return told[0], max(rank[index][1] for rank in ranks), np.concatenate([rank[index][2] for rank in ranks])


def test_sweeps_of_all_ranks_are_the_iterations_of_one_device_with_one_message_each():
    cases = [(name, {"options": {"trace": True}}) for name in SWEEP]  # so that one device iterates too
    ranks = over(3, _solves, LENGTHS, [(name, {}) for name in SWEEP])
    assert len(SWEEP) >= 13
    for i, case in enumerate(cases):
        (way, status, nit, residuals, _), messages, output = _joined(ranks, i)
        one, each = _alone(*case), MESSAGES.get(case[0], 1)
        assert (way, status, nit) == ("sweeps", "converged", one.nit), case
        assert messages <= each * nit + 3, case
        np.testing.assert_allclose(residuals, one.residuals, rtol=1e-6, atol=1e-11, err_msg=case[0])
        np.testing.assert_allclose(output, one.output, rtol=0, atol=1e-12, err_msg=case[0])


def _edges(group):
    """Return where few steps, without a batch or in float32, do not give what one device gives."""
    missed = []
    for lengths, batch, dtype in (
        ((0, 0, 0), (2,), np.float64), ((0, 1, 0), (), np.float32), ((1, 3, 1), (2,), np.float64),
        ((0, 7, 9), (), np.float64),
    ):  # fmt: skip
        u, reset = _drives(sum(lengths), batch)
        u, start = u.astype(dtype), np.zeros((*batch, 3), dtype)
        u.flags.writeable = False
        x, r = _shards(group, lengths, u, reset)
        here = slice(x.timeline.start, x.timeline.stop)
        for name in SWEEP:
            one = rs.solve(
                rs.Recurrence.from_function(_leak, inputs=u, reset=reset, initial=start), method=name,
                options={"trace": True},
            )  # fmt: skip
            sol = rs.solve(rs.Recurrence.from_function(_leak, inputs=x, reset=r, initial=start), method=name)
            close = np.allclose(sol.output.local, one.output[here], rtol=0, atol=100 * np.finfo(dtype).eps)
            same = (sol.nit, sol.success, sol.trusted, sol.final.dtype) == (one.nit, True, one.trusted, dtype)
            if not (same and close):
                missed.append((lengths, name, sol.nit, one.nit))
    return missed


def test_sweeps_of_few_steps_are_those_of_one_device():
    assert over(3, _edges) == [[]] * 3


def test_sweeps_end_as_one_device_does_where_they_do_not_converge():
    few = [(name, {"maxiter": 3, "options": {"trace": True}}) for name in ("chord", "broyden", "anderson")]
    slow = [("relaxed_newton", {"options": {"omega": 0.005, "patience": 4, "pin": False, "trace": True}})]
    cases = [*few, *slow]
    ranks = over(3, _solves, LENGTHS, [(name, _untraced(settings)) for name, settings in cases])
    for i, case in enumerate(cases):
        (way, status, nit, residuals, _), _, _ = _joined(ranks, i)
        one = _alone(*case)
        assert (way, status, nit) == ("sweeps", str(one.status), one.nit), case
        assert status != "converged"
        np.testing.assert_allclose(residuals, one.residuals, rtol=1e-9, atol=1e-15)
    cases = [(name, {}) for name in ("chord", "broyden", "anderson", "relaxed_newton")]
    ranks = over(3, _solves, LENGTHS, cases, True)
    for i, case in enumerate(cases):
        (_, status, _, _, _), _, output = _joined(ranks, i)
        one = _alone(*case, True)
        assert status == str(one.status) == "nonfinite", case
        np.testing.assert_allclose(output, one.output, rtol=0, atol=1e-12, equal_nan=True)


def _untraced(settings):
    options = {name: x for name, x in settings.get("options", {}).items() if name != "trace"}
    return {**settings, "options": options}


def test_a_solver_of_ones_own_sweeps_where_it_says_that_it_treats_times_by_themselves():
    assert not Unsaid.rowwise
    assert rs.solvers.Chord.rowwise
    ranks = over(3, _own_solvers)
    for i, (case, way) in enumerate(zip(OWN, ("sweeps", "sweeps", "sweeps", "turns"), strict=True)):
        (found, status, nit, _, message), messages, output = _joined(ranks, i)
        one = _alone(*case)
        assert (found, status) == (way, "converged"), case
        assert ("ranks took turns, since a step of unsaid" in message) == (way == "turns")
        assert way == "turns" or (nit == one.nit and messages <= 2 * nit + 3), case
        np.testing.assert_allclose(output, one.output, rtol=0, atol=1e-12)


def _own_solvers(group):
    return _solves(group, LENGTHS, OWN)


def test_what_does_not_sweep_takes_turns_and_says_so():
    ranks = over(3, _solves, LENGTHS, [(name, {}) for name in TURNS])
    for i, name in enumerate(TURNS):
        (way, status, _, _, message), _, output = _joined(ranks, i)
        assert (way, status) == ("turns", "converged"), name
        assert "ranks took turns, since a step of" in message
        np.testing.assert_allclose(output, _alone(name, {}).output, rtol=0, atol=1e-12, err_msg=name)


def _swept(convert):
    """Return the solutions by sweeps of a group of one rank, and what is estimated of the last one's error."""
    u, reset = map(convert, _drives())
    x, r = rs.distributed.shard(u), rs.distributed.shard(reset)
    rec = rs.Recurrence.from_function(_leak, inputs=x, reset=r, initial=convert(np.zeros((2, 3))), structure="diagonal")
    found = {}
    for name in ("chord", "diagonal_broyden", "anderson", "damped_newton"):
        driver, solver = split_options(name, None)
        task = Task(rec, solver, driver, {"tol": None, "maxiter": None}, None, Ahead(rec))
        with rec.timeline.together(f"sweeps of {name}"):
            found[name] = solve_by_sweeps(task, solver, 70, int(driver["patience"])).solution
    return found, trust_of(found["chord"], rec.timeline)


def _swept_as(one, found, trust):
    for name, sol in found.items():
        plain = rs.solve(one, method=name)
        assert (str(sol.status), sol.nit) == ("converged", plain.nit), name
        states = getattr(sol.states, "get", lambda sol=sol: sol.states)()
        np.testing.assert_allclose(states, plain.states, rtol=0, atol=1e-12, err_msg=name)
    assert trust.estimate.small
    np.testing.assert_allclose(trust.condition, plain.condition, rtol=1e-6)


def _of_the_host():
    u, reset = _drives()
    return rs.Recurrence.from_function(_leak, inputs=u, reset=reset, initial=np.zeros((2, 3)), structure="diagonal")


def test_sweeps_of_one_rank_are_the_iterations_of_its_device():
    with rs.distributed.alone():
        found, trust = _swept(np.asarray)
        rec = _network(*map(rs.distributed.shard, _drives()))
        for solver, said in ((Idle(), "step of Idle returned another iterate than"), (Hasty(), "init of Hasty made")):
            task = Task(rec, solver, split_options("jacobi", None)[0], {"tol": None, "maxiter": None}, None, Ahead(rec))
            with pytest.raises(TypeError, match=said), rec.timeline.together("sweeps"):
                solve_by_sweeps(task, solver, 70, 9)
    _swept_as(_of_the_host(), found, trust)


@pytest.mark.gpu
def test_sweeps_on_a_gpu_are_those_of_the_host():
    import cupy
    import torch.distributed as dist

    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        found, trust = _swept(cupy.asarray)
    finally:
        dist.destroy_process_group()
    _swept_as(_of_the_host(), found, trust)


# Turns in chunks of sequences ------------------------------------------------------------------------------------


def _in_chunks(group, lengths, fills, method, guessed):
    with pytest.MonkeyPatch.context() as patch:  # ranks are kept for other tests
        patch.setitem(turns._FILLS, "numpy", fills)
        patch.setattr(turns, "_ROWS", 1)
        return _chunks_of(group, lengths, method, guessed)


def _chunks_of(group, lengths, method, guessed):
    u, reset = _drives(batch=(5, 2))
    x, r = _shards(group, lengths, u, reset)
    shift = np.random.default_rng(2).standard_normal((5, 2, 3))
    W = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    held = rs.Recurrence.from_function(
        lambda h, u: np.tanh(h @ W + u + shift), inputs=x, reset=r, initial=np.zeros(x.shape[1:])
    )
    broken = u.copy()
    broken[40, 3, 1] = np.inf
    none = _network(*_shards(group, lengths, broken, reset))
    found = []
    for rec in (_network(x, r), held, none):
        before = ranks_of(group).messages
        guess = np.ones(rec.shape) if guessed else None
        sol = rs.solve(rec, method=method, guess=guess)
        told = sol.way, str(sol.status), sol.nit, sol.converged_prefix, sol.final, sol.message
        found.append((told, ranks_of(group).messages - before, sol.output.local))
    return found


@pytest.mark.parametrize(
    ("lengths", "method", "guessed"), [((20, 41), "sequential", False), (LENGTHS, "gauss_seidel", True)]
)
def test_turns_in_chunks_of_sequences_are_those_of_all_sequences(lengths, method, guessed):
    size = len(lengths)
    whole = over(size, _in_chunks, lengths, 1 << 40, method, guessed)
    parts = over(size, _in_chunks, lengths, 6, method, guessed)
    chunks = min(10, 4 * size, 5 * 2 * 3 // 6)
    for i, extra in enumerate((chunks, 1, chunks)):  # of a function that holds numbers of each sequence: one look more
        (way, *told), messages, output = _joined(parts, i)
        (expected, *others), plain, one = _joined(whole, i)
        assert way == expected == "turns"
        assert messages == plain + extra + (extra > 1)  # the agreement, and a last one
        np.testing.assert_equal(told[:3], others[:3])
        np.testing.assert_allclose(told[3], others[3], rtol=0, atol=1e-14, equal_nan=True)
        assert told[4].partition("numbers")[0] == others[4].partition("numbers")[0]
        np.testing.assert_allclose(output, one, rtol=0, atol=1e-14, equal_nan=True)


# What a solution tells of the whole ------------------------------------------------------------------------------


def _estimates(group):
    """Return for some recurrences whether the whole is trusted, its error, kappa and message."""
    u, reset = _drives()
    arrays = (u, reset) if group is None else _shards(group, LENGTHS, u, reset)
    single = [u.astype(np.float32), reset] if group is None else _shards(group, LENGTHS, u.astype(np.float32), reset)
    wrong = rs.Recurrence.from_function(
        lambda h, u: np.tanh(0.5 * h[..., ::-1] + u), inputs=arrays[0], initial=np.zeros((2, 3)), structure="diagonal"
    )
    made = {
        "contracts": _sine(*arrays, 0.8),
        "amplifies": _sine(*arrays, 2.5),
        "chaos": _sine(arrays[0], None, 40.0),
        "couples": _network(*arrays),
        "float32": rs.Recurrence.from_function(
            _leak, inputs=single[0], reset=single[1], initial=np.zeros((2, 3), np.float32)
        ),
        "not its derivative": wrong,
    }
    found = {}
    for name, rec in made.items():
        sol = rs.solve(rec, method="newton")
        asked = repr(sol), sol.message
        found[name] = sol.success, sol.trusted, sol.error_estimate, sol.condition, sol.message
        if group is not None:
            assert "ask sol.trusted on all ranks" in asked[0]
            assert "not trusted" not in asked[1]
    return found


def test_the_error_of_the_whole_is_that_of_one_device():
    ranks, one = over(3, _estimates), _estimates(None)
    for name, (success, trusted, error, kappa, _) in one.items():
        for rank in ranks:
            np.testing.assert_equal(rank[name], ranks[0][name])
        found = ranks[0][name]
        assert found[:2] == (success, trusted), name
        assert ("not trusted" in found[4]) == (not trusted), name
        if name not in ("chaos", "couples", "float32"):
            np.testing.assert_allclose(found[3], kappa, rtol=1e-6, err_msg=name)
        if name not in ("chaos",):  # where rounding decides which trajectory is found
            assert error / 10 <= found[2] <= 10 * error or np.isnan(error + found[2]), name
    assert not one["chaos"][1]
    assert not one["not its derivative"][1]


def _asks_alone(group):
    x = rs.distributed.shard(_drives()[0], group, timeout=1.0)
    ranks_of(group).grace = 1.0
    sol = rs.solve(_sine(x, None, 0.5), method="sequential")
    return sol.trusted if ranks_of(group).rank == 0 else None


def test_a_rank_that_asks_alone_whether_the_whole_is_trusted_ends_with_an_error():
    first, second = lost(2, _asks_alone)
    assert first.error == "RankError"
    assert "the error of the solution" in first.text
    assert second.returned


def _shown(group):
    u, reset = _drives()
    x, r = _shards(group, LENGTHS, u, reset)
    sol = rs.solve(rs.Recurrence.from_function(_leak, inputs=x, reset=r, initial=np.zeros((2, 3))), method="jacobi")
    text, page, data = sol.summary(), sol._repr_html_(), sol.to_xarray()
    assert sol.trusted
    again = pickle.loads(pickle.dumps(sol))
    assert again.trusted
    assert again.summary() == sol.summary()
    np.testing.assert_array_equal(again.states.local, sol.states.local)
    return text, page, {name: np.asarray(data[name]) for name in ("time", "h")}, dict(data.attrs)


def test_a_solution_over_ranks_shows_the_whole_and_its_own_steps():
    ranks = over(3, _shown)
    u, reset = _drives()
    one = rs.Recurrence.from_function(_leak, inputs=u, reset=reset, initial=np.zeros((2, 3)))
    one = rs.solve(one, method="jacobi").to_xarray()
    for name in ("time", "h"):
        whole = np.concatenate([rank[2][name] for rank in ranks])
        np.testing.assert_allclose(whole, one[name], rtol=0, atol=1e-14)
    for r, (text, page, _, attributes) in enumerate(ranks):
        assert max(map(len, text.splitlines())) <= 80
        assert "rank 1: 0 steps" in text
        assert "ask sol.trusted on all ranks" in page
        told = {"rank": r, "ranks": 3, "steps": 61, "way": "sweeps", "success": 1, "status": "converged"}
        assert {name: attributes[name] for name in told} == told
        assert np.isscalar(attributes["atol"])
    assert "none of 61 are here" in ranks[1][0]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_functions_of_whole_recurrences_and_solutions_refuse_a_part():
    with rs.distributed.alone():
        make = partial(rs.Recurrence.from_function, _leak)
        x, start = rs.distributed.shard(_drives(batch=())[0]), np.zeros(3)
        rec = make(inputs=x, initial=start)
        sol, plain = rs.solve(rec), rs.solve(make(inputs=x.local, initial=start))
        calls = {
            "recurrence is": [
                lambda: rs.diagnose(rec), lambda: rs.explain(rec, file=StringIO()), lambda: rs.check_structure(rec),
                lambda: rs.solvers.Problem(rec, plain.tolerance, pin=True, jacobian=True),
            ],
            "solution is ShardedSolution.*recsolve.adjoint": [lambda: rs.tangent(sol, inputs=x.local)],
            "is no array; take its own steps": [
                lambda: np.asarray(x), lambda: rs.tangent(plain, inputs=x), lambda: rec.evaluate(sol.states),
                lambda: rs.adjoint(plain, output=sol.states), lambda: rs.solve(plain.recurrence, guess=sol.states),
            ],
            "x is or holds": [lambda: rs.save(sol, "a.safetensors"), lambda: rs.save(x, "a.safetensors")],
            "sol is ShardedSolution": [lambda: rs.plot.trajectory(sol), lambda: rs.plot.residual_map(sol)],
            "initial is a Shard": [
                lambda: make(inputs=x, initial=rs.distributed.shard(start)),
                lambda: make(inputs=x.local, initial=rs.distributed.shard(start)),
            ],
            "guess is ShardedSolution": [lambda: rs.solve(plain.recurrence, guess=sol)],
        }  # fmt: skip
        for message, refused in calls.items():
            for call in refused:
                with pytest.raises(TypeError, match=message):
                    call()
        np.testing.assert_array_equal(rs.solve(rec, guess=plain).output.local, plain.output)


def _remembered(group, lengths):
    u = np.random.default_rng(0).standard_normal((5, 3))
    rec = test_ragged_cells.weighted("memory").recurrence(rs.distributed.shard(u, group, lengths=lengths))
    sol = rs.solve(rec)
    return sol.trusted, rs.adjoint(sol, output=sol.output).initial.h


def test_ranks_without_steps_say_what_others_say_of_a_structure_that_is_read_off_a_cell():
    u = np.random.default_rng(0).standard_normal((5, 3))
    sol = rs.solve(test_ragged_cells.weighted("memory").recurrence(u))
    for trusted, found in over(3, _remembered, (0, 5, 0)):
        assert trusted == sol.trusted
        np.testing.assert_allclose(found, rs.adjoint(sol, output=sol.output).initial.h, atol=1e-12)


def test_the_test_that_is_stated_is_the_widest_of_all_ranks_not_the_own_one():
    """Ranks that have found their steps exactly, as those without any, do not measure how large states are."""
    with rs.distributed.alone():
        sol = rs.solve(_network(*(rs.distributed.shard(x) for x in _drives())))
    (fact,) = sol.ranks
    assert sol.tolerance == sol.local.tolerance
    sol.ranks = fact, fact._replace(unit=2.0**11)
    assert sol.tolerance.unit == 2.0**11
    assert "largest of 2.05e+03" in sol.message
