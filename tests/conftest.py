"""Hypothesis without deadlines and with fixed seeds, for the gate to answer the same twice; large tests in samples."""

import gc
import os
import threading
from functools import cache

os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers of pytest take the cores: more threads wait for each other
os.environ.setdefault("RECSOLVE_CALIBRATION", "off")  # what other tests have compiled or measured decides nothing

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from recsolve.studies.command.information import has_gpu

SLOW = bool(os.environ.get("RECSOLVE_SLOW"))

for profile, examples in (("gate", 12), ("slow", 50)):
    settings.register_profile(
        profile,
        deadline=None,
        derandomize=True,
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("slow" if SLOW else "gate")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Keep the modules and tests that are found out of garbage collection, which would go through all of them again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config, items):
    if any("gpu" in item.keywords for item in items) and not has_gpu():
        skip = pytest.mark.skip(reason="needs a CUDA device and CuPy")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)
    if not SLOW:
        kept, left = [], []
        for item in items:
            (kept if _sampled(item) else left).append(item)
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def _sampled(item):
    """Whether a combination of parameters is run: with `every` = 3 each pair of values meets a third of the others.

    Other arguments of the mark name a parameter and values of it that the longer run has alone.
    """
    marker = item.get_closest_marker("sample")
    if marker is None:
        return True
    if any(item.callspec.params[name] in values for name, values in marker.kwargs.items() if name != "every"):
        return False
    places = (_place(item.callspec.params, *mark.args[:2]) for mark in item.iter_markers("parametrize"))
    return sum(places) % marker.kwargs.get("every", 1) == 0


def _place(params, names, values):
    """Return the place of an item's values of some parameters among those that these have."""
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    rows = [value if len(names) > 1 else (value,) for value in values]
    own = [params[name] for name in names]
    return next(i for i, row in enumerate(rows) if all(x is y or x == y for x, y in zip(row, own, strict=True)))


@pytest.fixture
def ran(tmp_path_factory):
    """Return the facts and the Dataset of a study's tiny grid."""

    def of(name):
        from tiny_studies import tiny

        from recsolve.studies.registry import get

        data = tiny(name, tmp_path_factory).read()
        return get(name).facts(data), data

    return of


@pytest.fixture
def crowd(monkeypatch):
    """Let compiled loops have four threads whatever the machine has; return the names of those that took a share."""
    from recsolve.kernels.cpu import threads

    seen, within = [], threads._within

    def noted(*share):
        seen.append(threading.current_thread().name)
        within(*share)

    pool = cache(threads._pool.__wrapped__)
    monkeypatch.setattr(threads, "_available", lambda: 4)
    monkeypatch.setattr(threads, "_pool", pool)
    monkeypatch.setattr(threads, "_within", noted)
    yield seen
    if pool.cache_info().currsize:
        pool().shutdown()


@pytest.fixture
def compile_nothing(monkeypatch):
    """Compute by NumPy, here and in what ranks of the pool are asked."""
    monkeypatch.setenv("RECSOLVE_BACKEND", "numpy")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the command line in an empty folder."""
    from typer.testing import CliRunner

    from recsolve.studies.command.cli import app

    monkeypatch.chdir(tmp_path)

    def call(*arguments, code=0, **how):
        result = CliRunner().invoke(app, list(arguments), prog_name="recsolve", **how)
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def signal():
    """Return a recording of two channels."""
    return np.random.default_rng(0).standard_normal((120, 2))


@pytest.fixture
def place(tmp_path):
    """Return where the study of the tests keeps what it finds."""
    from demo_study import STUDY

    from recsolve.studies.sweep import Place

    return Place(tmp_path / "out", STUDY.name)


@pytest.fixture(scope="module")
def host():
    """Return a machine that runs CUDA kernels on the host."""
    import cuda_host

    return cuda_host.Host()
