"""What work costs is measured a few times, kept on disk, not moved by noise, and corrected; choices follow from it."""

import json
import time
from io import StringIO

import gallery
import numpy as np
import pytest

import recsolve as rs
from recsolve.kernels.cpu.jit import disk, ready
from recsolve.recurrence.engine import Engine
from recsolve.solvers import costs, pilot
from recsolve.solvers.costs import Cost, Costs, kind_of_problem


@pytest.fixture(autouse=True)
def on(tmp_path, monkeypatch):
    """An empty folder, in which a record is kept."""
    monkeypatch.setenv(ready.VARIABLE, "on")
    monkeypatch.setenv(disk.VARIABLE, str(tmp_path))
    monkeypatch.setattr(costs, "_READ", {})


def another_process(monkeypatch):
    monkeypatch.setattr(costs, "_READ", {})


def never():
    raise AssertionError("it is known, and need not be measured")


def test_noise_does_not_move_what_is_kept_and_a_wrong_number_is_corrected():
    cost = Cost()
    for seconds in (1.0, 900.0, 1.1, 0.9, 40.0, 1.05):
        cost.add(seconds)
        assert cost.seconds == 1.0
    cost.add(0.5)  # no work takes less than it needs
    assert cost.seconds == 0.5
    for _ in range(7):  # but if it takes twice as long from now on
        cost.add(1.0)
        assert cost.seconds == 0.5
    cost.add(1.0)
    assert cost.seconds == 1.0
    first = Cost([9.0], 9.0)  # of a machine that was busy
    first.add(1.0)
    assert first.seconds == 1.0


def test_a_few_measurements_are_kept_for_other_processes(monkeypatch):
    for _ in range(3):
        mine = Costs("a kind")
        assert mine.of("work", lambda: 2.0) == 2.0
        mine.keep()
    another_process(monkeypatch)
    theirs = Costs("a kind")
    assert theirs.of("other work", lambda: 3.0) == 3.0
    assert theirs.of("other work", never) == 3.0  # one choice is made of one set of numbers
    theirs.keep()
    assert Costs("a kind").of("other work", lambda: 2.9) == 3.0  # one measurement may be wrong: there are more
    another_process(monkeypatch)
    kept = json.loads(disk.read(costs.file_name()))
    assert kept["costs"]["a kind work"][0] == 2.0
    assert kept["costs"]["a kind other work"][0] == 3.0
    assert kept["machine"]["recsolve"] == rs.__version__


def test_what_two_processes_write_is_not_lost(monkeypatch):
    first, second = {}, {}
    for record, work in ((first, "a"), (second, "b"), (first, "c")):
        monkeypatch.setattr(costs, "_READ", record)
        found = Costs("kind")
        found.noted(work, 1.0)
        found.keep()
    another_process(monkeypatch)
    assert set(costs._record()) == {"kind a", "kind b", "kind c"}


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"costs": {"kind work": 3}}', b'{"costs": {"kind work": ["x", []]}}']
)
def test_a_record_that_is_damaged_is_made_again(content):
    disk.write(costs.file_name(), content)
    found = Costs("kind")
    assert found.of("work", lambda: 2.0) == 2.0
    found.keep()
    assert json.loads(disk.read(costs.file_name()))["costs"] == {"kind work": [2.0, [2.0]]}


def test_another_machine_or_release_has_a_record_of_its_own(monkeypatch):
    name = costs.file_name()
    monkeypatch.setattr(costs, "machine", lambda: {"processor": "another"})
    assert costs.file_name() != name


def test_nothing_is_read_or_written_where_that_is_not_wanted(tmp_path, monkeypatch):
    monkeypatch.setenv(ready.VARIABLE, "off")
    found = Costs("kind")
    assert [found.noted("work", seconds) for seconds in (2.0, 1.0, 3.0)] == [2.0, 1.0, 3.0]
    rs.explain(gallery.sine(0.5, T=300), file=StringIO())
    found.keep()
    assert not list(tmp_path.iterdir())


def test_problems_that_differ_in_more_than_length_and_numbers_are_told_apart():
    def of(T=40, scale=1.0, units=3, **kwargs):
        u = scale * np.ones((T, units))
        return gallery.function(kwargs.pop("f", lambda h, u: 0.5 * h + u), u, **kwargs)

    def kind(rec):
        return kind_of_problem(rec, Engine(rec))

    W, V = np.ones((3, 3)), np.ones((4, 4))
    assert kind(of()) == kind(of(T=90, scale=2.0))
    others = [of(units=4), of(f=lambda h, u: 0.5 * h - u), of(f=lambda h, u: np.tanh(h) + u)]
    closing = [of(f=(lambda W: lambda h, u: h + u + 0 * W.sum())(X)) for X in (W, V)]
    assert len({kind(rec) for rec in (of(), *others, *closing)}) == 6
    cells = (
        rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0),
        rs.cells.GRU.random(input_size=2, hidden_size=4, rng=0, mixing="diagonal"),
    )
    assert len({kind(cell.recurrence(np.ones((5, 2)))) for cell in cells}) == 2


@pytest.fixture
def priced(monkeypatch):
    """Return a function that solves a contractive recurrence by auto, at the given prices of what it could do."""
    rec = gallery.sine(0.5, T=4096)

    def price(record, work, seconds):
        record[f"{kind_of_problem(rec, rec.bind())} {work}"] = Cost([seconds] * 8, seconds)

    def of(step, jacobi, newton):
        monkeypatch.setattr(pilot, "timed", lambda call, repeats=1: (step * 128, call()))
        record = {}
        price(record, "step of 128", step)
        for work in ("cut of 128", "f of 128"):
            price(record, work, step)
        for rows in (128, 2048):
            price(record, f"jacobi over {rows}", jacobi * rows)
            price(record, f"gauss_seidel over {rows}", 1e3)
            price(record, f"newton over {rows}", newton * (rows + 1000))
        monkeypatch.setattr(costs, "_record", lambda: record)
        monkeypatch.setattr(costs, "_save", lambda record: None)
        return rs.explain(rec, file=StringIO())

    with rs.backend("numpy"):
        yield of


@pytest.mark.parametrize(
    ("step", "jacobi", "newton", "taken"),
    [
        (1e-4, 1e-6, 1e-4, "jacobi"),
        (1e-4, 1e-6, 2e-7, "newton"),
        (1e-4, 1e-4, 1e-4, "sequential"),
        (1e-6, 1.0, 1.0, "sequential"),
    ],
)
def test_the_choice_follows_from_the_record(priced, step, jacobi, newton, taken):
    choices = [priced(step, jacobi, newton) for _ in range(2)]
    assert [choice.chosen.method.name for choice in choices] == [taken] * 2
    assert choices[0].chosen.seconds == choices[1].chosen.seconds
    assert choices[0].candidates_by_name["sequential"].seconds == pytest.approx(4096 * step)


@pytest.mark.parametrize("T", [64, 2000])
def test_the_time_that_is_predicted_is_about_the_time_that_it_takes(T):
    """In time of the processor, for other work on the machine may make each long call longer."""
    rec, taken = gallery.recurrence("elman", T=T), []
    with rs.backend("numpy"):
        found = [rs.explain(rec, file=StringIO()).candidates_by_name["sequential"].seconds for _ in range(4)]
        for _ in range(4):
            began = time.process_time()
            rs.solve(rec, method="sequential")
            taken.append(time.process_time() - began)
    assert min(taken) / 3 < found[-1] < 3 * min(taken)
