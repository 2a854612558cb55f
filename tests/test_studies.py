"""The machinery of studies: records, sweeps, resuming, failures, clusters, the command line, the report."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import demo_study
import numpy as np
import pytest
from demo_study import STUDY, Config

from recsolve.studies.draw import drawing
from recsolve.studies.store.records import Record, key
from recsolve.studies.sweep import Place, plot, run_point, sweep

TESTS = Path(__file__).parent


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def lines(log):
    return log.read_text().splitlines()


def stored(place):
    return sorted(path.name for path in place.records.folder.iterdir())


# Records


def test_a_record_is_one_strict_json_with_where_it_came_from(place):
    sweep(STUDY, Config(), place, workers=1)
    assert len(stored(place)) == 6
    for path in place.records.folder.iterdir():
        text = path.read_text()
        record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert path.stem == key(STUDY.name, STUDY.version, record["point"])
        assert record["status"] == "done"
        assert record["rows"][0]["nothing"] == "nan"  # as it was, not 0
        assert record["seconds"] >= 0
        assert record["point"].keys() >= {"seed", "dtype"}
        assert record["provenance"].keys() >= {"versions", "machine", "backend", "commit", "time", "threads"}


def test_a_name_depends_on_values_and_version_not_on_order():
    name = key("demo", 1, {"a": 1, "b": [1.5, "x"]})
    assert name == key("demo", 1, {"b": [1.5, "x"], "a": 1})
    others = [("demo", 2, {"a": 1, "b": [1.5, "x"]}), ("other", 1, {"a": 1, "b": [1.5, "x"]}), ("demo", 1, {"a": 1})]
    assert name not in [key(*other) for other in others]
    with pytest.raises(ValueError):  # NaN has no one text
        key("demo", 1, {"a": float("nan")})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text(path.read_text()[:100]),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text('{"format": "recsolve-record/1"}'),
        lambda path: path.write_bytes(b"\xff\x00"),
        lambda path: path.write_text(path.read_text().replace('"base": 0.5', '"base": 0.25')),
        lambda path: path.write_text(path.read_text().replace("recsolve-record/1", "recsolve-record/9")),
    ],
    ids=["cut", "list", "empty", "bytes", "another", "format"],
)
def test_a_corrupt_record_is_reported_set_aside_and_run_again(place, log, damage, caplog):
    config = Config(log=str(log), bases=(0.5,))
    sweep(STUDY, config, place, workers=1)
    path = place.records.path(key(STUDY.name, STUDY.version, next(iter(demo_study.grid(config)))))
    damage(path)
    damaged = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        state = sweep(STUDY, config, place, workers=1)
    assert state.reused == 1
    assert lines(log) == ["0.5 0", "0.5 1", "0.5 0"]
    assert path.with_suffix(".json.corrupt").read_bytes() == damaged
    assert "set aside" in caplog.text
    assert path.name in caplog.text
    assert sweep(STUDY, config, place, workers=1).reused == 2


# Sweeps


def test_what_is_stored_is_not_run_again_and_sweeps_share_it(place, log):
    small, large = Config(log=str(log), bases=(2.0,)), Config(log=str(log), bases=(2.0, 3.0))
    assert sweep(STUDY, small, place, workers=1).reused == 0
    state = sweep(STUDY, large, place, workers=1)
    assert (state.reused, len(state.points)) == (2, 4)
    assert lines(log) == ["2.0 0", "2.0 1", "3.0 0", "3.0 1"]
    assert sorted(sweep(STUDY, small, place).dataset()["base"].values) == [2.0]


def test_another_version_shares_nothing(place, log):
    config = Config(log=str(log), bases=(2.0,), seeds=1)
    sweep(STUDY, config, place)
    sweep(replace(STUDY, version=2), config, place)
    assert len(lines(log)) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_sweep_resumes(tmp_path, place, log, workers):
    """Nothing that was stored is computed again, and nothing is lost."""
    config = Config(log=str(log), bases=tuple(map(float, range(1, 11))), seeds=1, pause=0.1)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import demo_study; from pathlib import Path;"
        "from recsolve.studies.sweep import Place, sweep;"
        "config = demo_study.Config(**eval(sys.argv[3]));"
        "sweep(demo_study.STUDY, config, Place(Path(sys.argv[2]), demo_study.STUDY.name), workers=int(sys.argv[4]))"
    )
    arguments = [str(TESTS), str(tmp_path / "out"), repr(asdict(config)), str(workers)]
    process = subprocess.Popen([sys.executable, "-P", "-c", code, *arguments], start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not (place.records.folder.is_dir() and len([*place.records.folder.glob("*.json")]) >= 3):
            assert process.poll() is None, "it has ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    there = {path.name: path.stat().st_mtime_ns for path in place.records.folder.glob("*.json")}
    assert 3 <= len(there) < 10
    begun = len(lines(log))
    state = sweep(STUDY, config, place, workers=1)
    assert state.complete
    assert state.reused == len(there)
    assert len(lines(log)) - begun == 10 - len(there)
    assert {name: (place.records.folder / name).stat().st_mtime_ns for name in there} == there
    assert np.isfinite(state.dataset()["value"]).all()


def test_an_interrupt_leaves_a_dataset_of_what_is_done(place):
    def tick(state):
        if len(state.records) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(STUDY, Config(), place, workers=1, tick=tick)
    data = place.read()
    assert json.loads(data.attrs["done"]) == 2
    assert json.loads(data.attrs["runs"]) == 6
    assert sweep(STUDY, Config(), place, workers=1).reused == 2


def test_processes_find_what_one_finds(tmp_path):
    one, two = (Place(tmp_path / name, STUDY.name) for name in "ab")
    sweep(STUDY, Config(), one, workers=1)
    sweep(STUDY, Config(), two, workers=2)
    assert stored(one) == stored(two)
    assert one.read().drop_attrs().identical(two.read().drop_attrs())


def test_a_cluster_finds_what_one_process_finds(tmp_path):
    distributed = pytest.importorskip("dask.distributed")
    one, two = (Place(tmp_path / name, STUDY.name) for name in "ab")
    config = Config(bad=3.0, seeds=1)
    sweep(STUDY, config, one, workers=1)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        state = sweep(STUDY, config, two, cluster=cluster.scheduler_address)
        alone = sweep(replace(STUDY, alone=True, version=2), config, two, cluster=cluster.scheduler_address)
    assert state.failed == alone.failed == 1
    assert stored(one) == sorted(f"{name}.json" for name in state.records)
    assert one.read().drop_attrs().identical(state.dataset().drop_attrs())


def test_no_scheduler_and_no_dask_are_said(place, monkeypatch):
    pytest.importorskip("dask.distributed")
    monkeypatch.setattr("recsolve.studies.sweep.PATIENCE", 0.5)
    with pytest.raises(OSError, match=r"--cluster tcp://127.0.0.1:9: no Dask scheduler answers"):
        sweep(STUDY, Config(), place, cluster="tcp://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(ImportError, match=r"recsolve\[cluster\]"):
        sweep(STUDY, Config(), place, cluster="tcp://127.0.0.1:9")


def test_bad_arguments_of_a_sweep(place):
    with pytest.raises(ValueError, match="workers is 0; wanted 1 or more"):
        sweep(STUDY, Config(), place, workers=0)
    with pytest.raises(ValueError, match="the grid of paper/demo is empty"):
        sweep(STUDY, Config(seeds=0), place)


def test_a_full_disk_keeps_what_is_stored(place, monkeypatch):
    save = place.records.save

    def full(record):
        if len(stored(place)) == 3:
            raise OSError(28, "No space left on device")
        return save(record)

    place.records.folder.mkdir(parents=True)
    monkeypatch.setattr(place.records, "save", full)
    with pytest.raises(OSError, match="No space"):
        sweep(STUDY, Config(), place, workers=1)
    monkeypatch.undo()
    assert sweep(STUDY, Config(), place, workers=1).reused == 3


def test_a_worker_that_dies_is_reported_and_loses_nothing(place):
    sweep(STUDY, Config(deadly=3.0, bases=(2.0,)), place, workers=1)
    with pytest.raises(OSError, match="a worker process of paper/demo died"):
        sweep(STUDY, Config(deadly=3.0, bases=(2.0, 3.0)), place, workers=2)
    assert len(stored(place)) == 2
    assert place.read().sizes["base"] == 1


# Failures


def test_a_failure_is_a_record_with_its_error_and_no_number(place, log):
    config = Config(log=str(log), bad=3.0)
    state = sweep(STUDY, config, place, workers=1)
    failed = [record for record in state.records.values() if record.status == "failed"]
    assert len(failed) == state.failed == 2
    assert all(re.match(r"ArithmeticError: no powers of 3.0 \(demo_study.py:\d+\)", record.error) for record in failed)
    data = place.read()
    assert (data["status"].sel(base=3.0) == "failed").all()
    assert np.isnan(data["value"].sel(base=3.0)).all()
    assert np.isnan(drawing.converged(data, "value").sel(base=3.0)).all()
    assert STUDY.facts(data) == {"largest": 2.0, "failed": 4}
    assert sweep(STUDY, config, place, workers=1).reused == 6  # a failure is a result
    assert len(lines(log)) == 6
    assert sweep(STUDY, config, place, workers=1, retry=True).reused == 4
    assert len(lines(log)) == 8


def test_what_did_not_converge_is_not_drawn(place):
    sweep(STUDY, Config(), place)
    with drawing.house_style() as pyplot:
        figure = demo_study.draw(pyplot, place.read())
        newton, jacobi = (line.get_ydata() for line in figure.axes[0].get_lines())
        pyplot.close(figure)
    assert np.isfinite(newton).all()
    assert np.isnan(jacobi).all()


def test_when_all_runs_failed_there_is_no_picture(place):
    config = Config(bases=(3.0,), bad=3.0)
    assert sweep(STUDY, config, place, workers=1).failed == 2
    with pytest.raises(ValueError, match=r"paper/demo cannot be drawn: 0 of 2 runs are done, 2 failed"):
        plot(STUDY, place)
    assert not list(place.folder.glob("*.png"))


def test_a_row_that_is_no_json_is_a_failure(place):
    record = run_point("demo", 1, lambda: [{"x": object()}], {})
    assert record.status == "failed"
    assert "object" in record.error
    place.records.save(record)


def test_records_are_plain(place):
    record = Record("demo", 1, {"a": 1}, "done", "", [{"x": 1.5}], 0.1, {})
    place.records.save(record)
    assert place.records.load(record.key) == record
