"""Hypothesis without deadlines and with fixed seeds, so that the gate answers the same twice."""

import pytest
from hypothesis import HealthCheck, settings

from recsolve.studies.information import has_gpu

settings.register_profile(
    "gate", deadline=None, derandomize=True, max_examples=20, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("gate")


def pytest_collection_modifyitems(items):
    if any("gpu" in item.keywords for item in items) and not has_gpu():
        skip = pytest.mark.skip(reason="needs a CUDA device and CuPy")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


@pytest.fixture
def ran(tmp_path_factory):
    """Return the facts and the Dataset of a study's tiny grid."""

    def of(name):
        from tiny_studies import tiny

        from recsolve.studies.registry import get

        data = tiny(name, tmp_path_factory).read()
        return get(name).facts(data), data

    return of
