"""Times of calls over ranks, on sizes at which only their numbers mean something, and the model of their cost."""

import json
import os

import numpy as np
import pytest
import ranks

from recsolve.distributed import from_local
from recsolve.studies.bench import scaling, world
from recsolve.studies.bench.cost import Cost, Link
from recsolve.studies.bench.scaling import Scaling, measure, subsets_of
from recsolve.studies.bench.shared_calls import CASES, largest_error
from recsolve.studies.bench.world import World

pytest.importorskip("torch")
LINK = Link(4, latency=1.0, message=2.0, bandwidth=100.0)
OWN = {1000: 10.0, 250: 4.0, 10: 1.0}


def test_a_call_costs_its_own_work_on_the_longest_share_and_its_messages():
    cost = Cost(OWN, [LINK], ring=True, messages=3, size=50.0, rounds=2.0)
    assert cost.seconds(1, 1000) == pytest.approx(20)
    assert cost.seconds(4, 999) == cost.seconds(4, 1000) == pytest.approx(2 * 4 + 3 * (2 + 3 * 50 / 100))
    assert cost.seconds(1, 2000) == pytest.approx(40)
    assert cost.seconds(4, 3) == pytest.approx(2 * 1 + 3 * (2 + 3 * 50 / 100))  # what is shortest costs what it does
    assert 1 < Cost(OWN, (), ring=True).own_seconds(50) < 4


def test_latency_grows_by_hops_of_a_ring_or_of_a_tree():
    few = Link(2, latency=0.5, message=1.0, bandwidth=100.0)
    seconds = [[Cost(OWN, [LINK, few], ring).message_seconds(p) for p in (2, 3, 4, 16)] for ring in (True, False)]
    assert seconds == [[1, 1.5, 2, 2 * 15 / 3], [1, 1.5, 2, 2 * 4 / 2]]
    assert Cost(OWN, (), ring=True, messages=3).seconds(2, 500) == Cost(OWN, (), ring=True).own_seconds(250)


def test_numbers_of_ranks():
    assert subsets_of(None, 6) == (1, 2, 3, 4, 5, 6)
    assert subsets_of(None, 12) == (1, 2, 3, 4, 5, 6, 7, 8, 12)
    assert subsets_of("3, 1", 4) == (1, 3)
    for text in ("0,1", "5", "two", ""):
        with pytest.raises(ValueError, match=f"--subsets is '{text}'; wanted numbers of ranks from 1 to 4"):
            subsets_of(text, 4)


def test_the_same_numbers_however_steps_are_shared():
    config = Scaling(length=9000, units=2, batch=3)
    whole, *parts = (
        config.data(range(*ends), 9000, "cpu").normal("a") for ends in ((0, 9000), (0, 4099), (4099, 9000))
    )
    assert whole.shape == (9000, 3, 2)
    assert np.array_equal(np.concatenate(parts), whole)
    assert abs(whole.std() - 1) < 0.02
    assert not np.array_equal(whole, config.data(range(9000), 9000, "cpu").normal("b"))


def over_two(group, names):
    import torch.distributed as dist

    one = dist.new_group([dist.get_rank()], use_local_synchronization=True)
    here = World(dist.get_rank(), 2, "cpu", {1: one, 2: group})
    return list(measure(Scaling(tuple(names), length=2100, units=2, repeats=1), here, (1, 2)))[-1]


def errors(group):
    import torch.distributed as dist

    here, steps = World(dist.get_rank(), 2, "cpu", {}), [range(3), range(3, 5)][dist.get_rank()]
    found = [np.ones(2), from_local(np.arange(5.0)[steps], group)]
    truth = [np.ones(2), np.arange(5.0)]
    wrong, nan = (np.where(np.arange(5) == 4, value, np.arange(5.0)) for value in (5.0, np.nan))
    given = (truth, [truth[0], wrong], [truth[0], nan], [2 * truth[0], truth[1]], None)
    return [largest_error(here, group, found, x if here.rank == 0 else None) for x in given]


def test_what_ranks_find_together_is_compared_on_all_of_them():
    for found in ranks.over(2, errors):
        assert found == [0, 1 / 5, pytest.approx(np.nan, nan_ok=True), 1 / 2, None]


def test_times_over_two_ranks_have_errors_messages_and_predictions():
    names = ["scan-forgets", "scan-keeps", "gru-forgets"]
    record = ranks.over(2, over_two, names)[0]
    (link,) = record["links"]
    assert link["ranks"] == 2
    assert min(link["latency"], link["bandwidth"]) > 0
    assert [(row["case"], row["scaling"], row["ranks"]) for row in record["rows"]] == [
        (name, *how) for name in names for how in (("strong", 1), ("strong", 2), ("weak", 2))
    ]
    for row in record["rows"]:
        assert row["steps"] == 2100 * (2 if row["scaling"] == "weak" else 1)
        assert row["error"] < 1e-4
        assert row["messages"] >= 1
        assert row["message_bytes"] >= 64
        share = row["ranks"] if row["scaling"] == "weak" else 1
        assert row["speed"] == share * row["alone"] / row["median"] > 0
        assert row["predicted_over_measured"] == row["predicted"] / row["median"] > 0
    assert {row["ranks"] for row in record["predictions"]} == {1, 2, 4, 8, 64, 1024}
    assert record["complete"]


TINY = ("bench", "distributed", "--ranks", "1", "--length", "30", "--units", "2", "--repeats", "1")


def test_the_command_prints_draws_and_keeps_its_numbers(run, tmp_path):
    text = run(*TINY, *(word for name in CASES for word in ("--case", name)), "--out", "out")
    record = json.loads((tmp_path / "out" / "distributed.json").read_text())
    assert [row["case"] for row in record["rows"]] == list(CASES)
    assert record["complete"]
    assert record["on"]["backend"] == "gloo"
    assert all(row["error"] == 0 for row in record["rows"])
    assert "dense GRU, quasi_newton" in text.stdout
    for kind in ("png", "pdf"):
        assert (tmp_path / "out" / f"distributed.{kind}").stat().st_size > 1000
    assert text.stderr.count("strong scaling on 1, ") == len(CASES)
    assert "no link was measured" in text.stdout
    assert {row["ranks"] for row in record["predictions"]} == {1}
    assert "predicted speed of affine scan, forgets nothing, strong scaling: " in text.stdout
    found = run(*TINY, "--case", "scan-forgets", "--json").stdout
    assert [row["case"] for row in json.loads(found)["rows"]] == ["scan-forgets"]


def test_an_interrupt_keeps_what_has_been_measured(run, tmp_path, monkeypatch):
    taken, quartiles = [], scaling.quartiles

    def interrupted(seconds):
        if taken:
            raise KeyboardInterrupt
        taken.append(quartiles(seconds))
        return taken[0]

    monkeypatch.setattr(scaling, "quartiles", interrupted)
    result = run(*TINY, "--case", "scan-forgets", "--case", "scan-keeps", "--out", "out", code=130)
    assert "recsolve: interrupted; what has been measured is in out" in result.stderr
    record = json.loads((tmp_path / "out" / "distributed.json").read_text())
    assert [row["case"] for row in record["rows"]] == ["scan-forgets"]
    assert not record["complete"]


def test_an_interrupt_before_that_does_not_point_to_an_earlier_run(run, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    earlier = tmp_path / "out" / "distributed.json"
    earlier.write_text("{}")
    os.utime(earlier, (1, 1))
    monkeypatch.setattr(scaling, "links", interrupted)
    assert "interrupted before anything was measured" in run(*TINY, "--out", "out", code=130).stderr
    assert earlier.read_text() == "{}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ranks", "0"), "--ranks is 0; wanted 1 or more"),
        (("--length", "0"), "--length is 0; wanted 1 or more"),
        (("--dtype", "int8"), "--dtype is 'int8'; wanted float32 or float64"),
        (("--case", "naps"), "--case is naps; wanted some of scan-forgets, "),
        (("--device", "tpu"), "--device is 'tpu'; wanted auto, cpu or cuda"),
        (
            ("--ranks", "99", "--device", "cuda"),
            "--device is cuda, and 99 ranks of this host need as many GPUs; there ",
        ),
        (("--subsets", "1,3"), "--subsets is '1,3'; wanted numbers of ranks from 1 to 2, with commas"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_wrong_options_are_named(run, options, words):
    assert words in run("bench", "distributed", *options, code=2).stderr


def test_a_launcher_says_how_many_ranks_there_are(run, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    words = "--ranks is 2, and a launcher has started 4 ranks; leave --ranks out"
    assert words in run("bench", "distributed", "--ranks", "2", code=2).stderr


def test_without_torch_the_command_says_how_to_install_it(run, monkeypatch):
    monkeypatch.setattr(world, "find_spec", lambda name: None)
    assert "pip install 'recsolve[torch]'" in run("bench", "distributed", code=2).stderr
