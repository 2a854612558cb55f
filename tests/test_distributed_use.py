"""What a user may try with shards that does not go: the message names the argument, and says what does."""

import copy
import operator
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import ranks

import recsolve as rs

torch = pytest.importorskip("torch")
T, UNITS = 7, 2
VALUES = np.ones((T, UNITS))
ARRAY_ONLY = {
    "len": len, "index": lambda x: x[0], "slice": lambda x: x[1:], "assign": lambda x: x.__setitem__(0, 1.0),
    "iterate": list, "float": float, "int": int, "bool": bool, "add": lambda x: x + 1, "subtract": lambda x: 1 - x,
    "beside numpy": lambda x: VALUES + x, "matmul": lambda x: x @ VALUES.T, "minus": operator.neg, "abs": abs,
    "less": lambda x: x < 0, "numpy": np.mean, "convert": np.asarray, "recsolve.math": rs.math.tanh,
    "mean": lambda x: x.mean(), "to": lambda x: x.to("cuda"),
    "output": rs.cells.LSTM.random(input_size=UNITS, hidden_size=1, rng=0).output,
}  # fmt: skip


@pytest.fixture(scope="module")
def shard():
    with rs.distributed.alone():
        yield rs.distributed.shard(VALUES)


@pytest.mark.parametrize("use", ARRAY_ONLY)
def test_what_only_arrays_can_is_refused_with_what_to_take_instead(shard, use):
    with pytest.raises((TypeError, AttributeError), match=r"take its own steps, x\.local, or the whole, .*gather\(x\)"):
        ARRAY_ONLY[use](shard)


def test_shards_are_asked_for_attributes_and_copied_as_other_objects(shard):
    assert not hasattr(shard, "ndim")
    for made in (copy.copy(shard), copy.deepcopy(shard), pickle.loads(pickle.dumps(shard))):
        assert np.array_equal(made.local, VALUES)


WRONG = {
    'x is str; .*numpy.load(path, mmap_mode="r") of a file': lambda: rs.distributed.shard("x.npy"),
    "lengths is 7; wanted 1 integers >= 0": lambda: rs.distributed.shard(VALUES, lengths=7),
    "lengths is [7.0]; wanted 1 integers >= 0": lambda: rs.distributed.shard(VALUES, lengths=[7.0]),
    "timeout is '1'; wanted seconds > 0": lambda: rs.distributed.shard(VALUES, timeout="1"),
    "group is 'gloo'; wanted a process group": lambda: rs.distributed.shard(VALUES, "gloo"),
}  # fmt: skip


@pytest.mark.parametrize("words", WRONG)
def test_what_is_no_array_or_no_group_is_named(shard, words):
    with pytest.raises((TypeError, ValueError), match=re.escape(words).replace(r"\.\*", ".*")):
        WRONG[words]()


def test_shards_are_not_shared_again(shard):
    for share in (rs.distributed.shard, rs.distributed.from_local):
        with pytest.raises(TypeError, match="wanted an array, and it is a Shard already"):
            share(shard)


def test_a_cotangent_of_other_steps_is_named(shard):
    solution = rs.solve(rs.cells.GRU.random(input_size=UNITS, hidden_size=UNITS, rng=0).recurrence(shard))
    with pytest.raises(ValueError, match=r"states is Shard.*of 3 steps, .*the time axis of the solution, 7 steps"):
        rs.adjoint(solution, states=rs.distributed.shard(VALUES[:3]))
    with pytest.raises(TypeError, match=r"sol is ShardedSolution; wanted .*\(of the own steps sol\.local is one\)"):
        rs.plot.convergence(solution)


def without_shards(group):
    """Return what each call says where an array of all steps, or a shard of another group, stands beside a shard."""
    own = rs.distributed.shard(VALUES, group)
    cell = rs.cells.GRU.random(input_size=UNITS, hidden_size=UNITS, rng=0)
    reset = np.zeros(T, bool)
    given = {"initial": np.zeros(UNITS), "structure": "diagonal"}
    other = rs.distributed.shard(reset)  # of all ranks of the pool
    found = []
    for call in (
        lambda: cell.recurrence(VALUES, reset=rs.distributed.shard(reset, group)),
        lambda: cell.recurrence(own, reset=reset),
        lambda: cell.recurrence(own, reset=other),
        lambda: cell.recurrence(own, initial={"h": own}),
        lambda: rs.Recurrence.from_function(lambda h, u: h + u[0] * u[1], inputs=(own, VALUES), **given),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        found.append(str(caught.value))
    assert rs.distributed.gather(own).shape == VALUES.shape  # ranks are in step
    return found


def test_arrays_of_all_steps_beside_shards_are_named():
    for said in ranks.over(2, without_shards):
        for text, words in zip(
            said,
            (
                r"x is ndarray of shape \(7, 2\) and reset is a Shard; wanted a Shard",
                r"reset is ndarray of shape \(7,\) and x is a Shard; wanted a Shard",
                r"x has 7 steps, shared as \(4, 3\) and reset has 7 steps, shared as .* by another process group",
                r"initial\['h'\] is a Shard; wanted what is the same on all ranks",
                r"inputs\[1\] is ndarray of shape \(7, 2\) and inputs\[0\] is a Shard; wanted a Shard",
            ),
            strict=True,
        ):
            assert re.match(words, text), text


def program(group, text):
    """Run a program that makes and ends its process group, in the one that is there."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("init_process_group", "destroy_process_group"):
            patched.setattr(torch.distributed, name, lambda *_: None)
        names = {}
        exec(text, names)
    return names["whole"].shape, names["g"].inputs.shape, names["y"].shape


def test_the_page_of_many_devices_begins_with_a_program_that_runs():
    page = (Path(__file__).parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")
    text = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1].replace("100_000", "1_000")
    assert ranks.over(4, program, text) == [((1000, 16), (1000, 3), (1000, 3))] * 4


def _messages(group):
    """Return how many messages calls take that wait for nothing long."""
    x, found = rs.distributed.shard(np.ones((30, UNITS)), group), {}
    cell = rs.cells.GRU.random(input_size=UNITS, hidden_size=UNITS, mixing="diagonal", rng=0)

    def takes(name, call):
        before = x.timeline.ranks.messages
        result = call()
        found[name] = x.timeline.ranks.messages - before
        return result

    with rs.backend("numpy"):
        takes("turns", lambda: rs.solve(cell.recurrence(x), method="sequential"))
        takes("failed", lambda: rs.solve(cell.recurrence(x), method="jacobi", maxiter=2))
        sol = takes("sweeps", lambda: rs.solve(cell.recurrence(x), method="jacobi"))
        takes("adjoint", lambda: rs.adjoint(sol, states=sol.states))
        takes("adjoint, final", lambda: rs.adjoint(sol, states=sol.states, final=sol.final))
        y = takes("scan", lambda: rs.scan("affine", (0.5, x)))
        takes("scan_adjoint", lambda: rs.scan_adjoint("affine", (0.5, x), y, y))
        takes("scan_adjoint, initial", lambda: rs.scan_adjoint("affine", (0.5, x), y, y, initial=np.ones(UNITS)))
        takes("gather", lambda: rs.distributed.gather(y))
        takes("from_local", lambda: rs.distributed.from_local(x.local, group))
    return found, sol.nit


@pytest.mark.parametrize("size", [2, 3])
def test_calls_take_as_many_messages_as_the_page_says(size):
    for found, nit in ranks.over(size, _messages):
        assert found == {
            "turns": 1 + size, "sweeps": 3 + nit, "failed": 3 + 2 + 2, "adjoint": 2, "adjoint, final": 3, "scan": 1,
            "scan_adjoint": 2, "scan_adjoint, initial": 3, "gather": 1, "from_local": 1,
        }  # fmt: skip
