"""A short run of the fuzz harness; ``python -m tests.fuzz --minutes 60`` is the long one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fuzz import cells, judge, oracle, problems, solving
from fuzz.kinds import KINDS, tried

import recsolve as rs

# (kind, compiled) to how many seeds; compiled cells cost seconds each, compiled scans are those of other tests.
SHORT = {
    ("solve", False): 16, ("function", False): 10, ("long", False): 2, ("subclass", False): 8, ("trust", False): 12,
    ("huge", False): 4, ("gradient", False): 12, ("smooth", False): 12, ("declared", False): 8, ("scan", False): 60,
    ("matrices", False): 40, ("misfits", False): 12, ("stale", False): 6, ("scalars", False): 8, ("impure", False): 6,
    ("pickles", False): 4, ("scan", True): 6, ("matrices", True): 4, ("misfits", True): 12, ("solve", True): 1,
    ("huge", True): 1, ("stale", True): 1, ("subclass", True): 1, ("scalars", True): 1, ("impure", True): 1,
    ("threads", True): 1, ("own", False): 10, ("own", True): 1,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "compiled"), SHORT)
def test_short_run(kind, compiled):
    failed = [o for seed in range(SHORT[kind, compiled]) if (o := tried(kind, seed, compiled)).category]
    assert not failed, "\n".join(f"{o.command()}\n    {o.text}" for o in failed)


def test_every_kind_is_in_the_short_run():
    assert {kind for kind, _ in SHORT} == set(KINDS)


def test_a_failure_prints_its_command_and_the_exit_status_is_one(monkeypatch, capsys):
    from fuzz import __main__ as command
    from fuzz import kinds

    def false(rng, compiled, backend):
        judge.require(False, "false success", "made up")

    monkeypatch.setitem(kinds.KINDS, "scan", false)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--kind", "scan", "--seeds", "7"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    assert "--kind scan --seeds 7 --compiled 0" in capsys.readouterr().out


def test_the_command_runs_from_the_checkout():
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "tests.fuzz", "--kind", "scan", "--seeds", "3"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "problems" in done.stdout


def sine(T=60, p=0.75):
    """A problem whose answers are known to be good, to be spoilt."""
    tree = ("add", ("multiply", ("c", p), ("sin", ("s", 0))), ("u", "u0"))
    model = cells.Model((tree,), {}, (), 2, ("u0",))
    problem = problems.filled(np.random.default_rng(3), model, T, (), np.float64, "normal")
    return problem, rs.solve(solving.recurrence_of(problem), method="sequential")


def spoilt(sol, t=20, by=1e-9):
    sol._iterate.states[t] += by
    sol.__dict__.pop("states", None)
    return sol


def test_the_judge_passes_what_is_right():
    problem, sol = sine()
    judge.solution(problem, sol, complete=True)


def test_the_judge_sees_a_false_success():
    problem, sol = sine()
    with pytest.raises(judge.Wrong, match="false success"):
        judge.solution(problem, spoilt(sol))


def test_the_judge_sees_a_wrong_trust():
    problem, sol = sine()
    problem.truth = problem.truth + 1.0
    with pytest.raises(judge.Wrong, match="wrong trust"):
        judge.solution(problem, sol)


def test_the_judge_sees_an_input_that_is_written_into():
    x = np.zeros(3)
    with pytest.raises(judge.Wrong, match="written"), judge.unwritten(x):
        x[1] = 1.0


def test_the_oracle_knows_products_of_jacobians():
    """Rotations by a right angle: |J| sums to what products do not."""
    T, J = 40, np.array([[0.0, -1.0], [1.0, 0.0]])
    starts = np.zeros(T, bool)
    starts[0] = starts[25] = True
    E = oracle.amplified(np.broadcast_to(J, (T, 1, 2, 2)), np.ones((T, 1, 2, 1)), starts)
    np.testing.assert_allclose(E[:, 0, 0, 0], [*range(1, 26), *range(1, 16)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bound_on_rounding_holds(dtype):
    """The working dtype's evaluation is within the bound of the extended one, and the bound is not idle."""
    ratios = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        problem = problems.random_problem(rng, style="plain", lengths=(31,), batches=((),))
        model = problem.model
        state = rng.standard_normal((31, *problem.initial.shape)).astype(dtype)
        wide, bound = model.rounding(state, problem.drive, dtype)
        narrow = model.step(state, problem.drive, dtype)
        assert narrow.dtype == dtype
        if problem.dtype == dtype:
            gap = np.abs(narrow - wide)
            assert (gap <= bound).all(), model.trees
            ratios.append(float((gap / bound).max()))
    assert max(ratios) > 0.05
