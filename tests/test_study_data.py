"""What studies store as a dataset, and the settings of their configs."""

import json

import numpy as np
import pytest
from demo_study import STUDY, Config

from recsolve.studies.store.configs import configured, to_toml
from recsolve.studies.sweep import sweep


def test_records_become_a_dataset(place):
    state = sweep(STUDY, Config(), place, workers=1)
    data = place.read()
    assert data.identical(state.dataset())
    assert dict(data.sizes) == {"base": 3, "seed": 2, "solver": 2, "exponent": 3}
    assert list(data["solver"].values) == ["newton", "jacobi"]
    assert data["powers"].sel(base=3.0, seed=1, solver="newton").values.tolist() == [1.0, 3.0, 9.0]
    assert np.isnan(data["powers"].sel(base=3.0, seed=0, solver="newton").values[2])  # shorter lists are filled up
    assert data["count"].dtype == np.float64
    assert json.loads(data.attrs["failed"]) == 0
    assert configured(Config(), json.loads(data.attrs["config"])) == Config()
    assert json.loads(data.attrs["provenance"])[0]["versions"]["numpy"] == np.__version__


def test_a_dataset_that_cannot_be_read_is_said(place):
    with pytest.raises(FileNotFoundError, match="recsolve study run paper/demo"):
        place.read()
    place.folder.mkdir(parents=True)
    place.data.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="its records are reused"):
        place.read()


def test_toml_and_settings_change_a_config():
    config = configured(Config(), "seeds = 3\nbases = [1, 2.5]", ["seeds=4", "bad=2", "log = a=b", "pause=1e-3"])
    assert config == Config(log="a=b", bases=(1.0, 2.5), seeds=4, bad=2.0, pause=1e-3)
    assert configured(Config(), settings=["bases=7"]).bases == (7.0,)
    odd = Config(log='a "quoted"\\ and\nbroken text', bases=(1e-30, 1e22, -0.0))
    assert configured(Config(), to_toml(odd)) == odd


@pytest.mark.parametrize(
    ("toml", "settings", "message"),
    [
        ("seeds = ", [], "--config is no TOML"),
        ("", ["seeds"], "--set is 'seeds'; wanted key=value"),
        ("", ["seed=3"], r"unknown \['seed'\]; wanted some of log, bases, seeds, bad, pause, deadly"),
        ("", ["seeds=many"], "seeds is 'many'; wanted int, as 2"),
        ("", ["seeds=2.5"], "seeds is 2.5; wanted int"),
        ("", ["seeds=true"], "seeds is True; wanted int"),
        ("", ["bases=[1, 'a']"], "bases is 'a'; wanted float"),
        ("", ["bases=[]"], "bases is empty"),
        ("", ["bad=nan"], "bad is nan; wanted a finite number"),
        ("log = 3", [], "log is 3; wanted str"),
    ],
)
def test_bad_settings_are_named(toml, settings, message):
    with pytest.raises(ValueError, match=message):
        configured(Config(), toml, settings)
