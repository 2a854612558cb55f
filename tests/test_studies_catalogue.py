"""Every study on a tiny grid: what it must have, what it claims, and the report of them all in a browser."""

import json
import re
import subprocess

import numpy as np
import pytest
from browser import headless
from tiny_studies import folder, tiny

from recsolve.studies.draw.drawing import converged
from recsolve.studies.registry import CATALOGUE, get
from recsolve.studies.report import write_report
from recsolve.studies.store.configs import SIZES, configured, to_toml
from recsolve.studies.store.gather import FAILED
from recsolve.studies.store.records import key

# What every study must have


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_study_runs_draws_and_says(name, tmp_path_factory):
    place, study = tiny(name, tmp_path_factory), get(name)
    data = place.read()
    assert study.name == name
    assert study.question.endswith("?")
    assert json.loads(data.attrs["failed"]) == 0
    assert json.loads(data.attrs["done"]) == json.loads(data.attrs["runs"]) == len(list(study.grid(study.tiny)))
    assert "status" not in data or not (data["status"] == FAILED).any()
    written = {path.name for path in place.folder.iterdir()}
    assert written >= {f"{picture.name}.svg" for picture in study.pictures}
    captions = json.loads((place.folder / "captions.json").read_text())["captions"]
    for picture in study.pictures:
        assert re.search(r"\d", captions[picture.name]), f"{picture.name} quotes no number"
        assert not re.search(r"\bnan\b", captions[picture.name]), captions[picture.name]
    assert study.tables(data)
    for table in study.tables(data):
        assert {len(row) for row in table.rows} == {len(table.head)}, table.title


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_points_of_a_study_say_all_that_numbers_depend_on(name):
    study = get(name)
    names = {}
    for size in SIZES:
        config = getattr(study, size)
        assert configured(config, to_toml(config)) == config
        points = list(study.grid(config))
        assert points
        names[size] = {key(name, study.version, point) for point in points}
        assert len(names[size]) == len(points)
        assert all(point.keys() >= {"seed", "dtype"} or point.keys() & {"dtypes"} for point in points)
    assert len(names["full"]) >= len(names["tiny"])


# What each study claims


def test_convergence(ran):
    facts, data = ran("convergence")
    assert facts["unconverged"] == []
    assert facts["worst_error"] < 1e-12
    assert facts["reduction"]["newton"] > 20 * facts["reduction"]["jacobi"]  # quadratic beside linear
    assert all(lead >= 0 for lead in facts["lead"].values())  # k rows are solved after k iterations
    assert set(facts["lead"]) == {"newton", "quasi_newton", "scaled_newton", "jacobi", "picard", "multiple_shooting"}
    counts = facts["iterations"]
    assert counts["gru diagonal"]["quasi_newton"] == counts["gru diagonal"]["newton"]  # the same where nothing couples
    assert counts["gru dense"]["newton"] < counts["gru dense"]["quasi_newton"] < counts["gru dense"]["jacobi"]
    residuals = data["residuals"].sel(panel="gru dense", seed=0, solver="newton").values
    assert np.isfinite(residuals).sum() == counts["gru dense"]["newton"] + 1


def test_lyapunov(ran):
    facts, _ = ran("lyapunov")
    assert facts["exponents"][0] < -0.5 < 0 < facts["exponents"][1]
    for solver in ("newton", "damped_newton", "scaled_newton", "jacobi", "quasi_newton", "relaxed_newton"):
        assert facts[solver]["growth"] < facts["growth_allowed"]  # slower than log T squared
        assert facts[solver]["off"] <= 1.5  # counts that were predicted
        assert facts[solver]["positive"] > 3 * facts[solver]["negative"]
    assert facts["newton"]["positive"] > 0.3 * facts["lengths"][-1]
    assert -0.3 < facts["newton"]["knee"] < 0.1
    assert facts["jacobi"]["positive"] == facts["lengths"][-1] - 1


def test_iterations_vs_length(ran):
    facts, _ = ran("iterations_vs_length")
    contractive, chaotic = (facts["growth"][gain] for gain in ("1", "5"))
    assert facts["exponents"]["1"] < -0.3
    assert facts["exponents"]["5"] > 0.05
    assert {contractive[s] for s in ("newton", "scaled_newton", "damped_newton", "jacobi")} <= {"constant", "log T"}
    assert contractive["picard"] == "T"
    assert {chaotic[s] for s in ("newton", "quasi_newton", "jacobi", "picard")} == {"T"}
    assert 0.3 < facts["powers"]["5"]["multiple_shooting"] < 0.7  # T / block, with blocks of sqrt(T)


def test_stability_map(ran):
    facts, data = ran("stability_map")
    for cell in ("gru", "lstm"):
        assert facts[cell]["newton"] == {"solved": 0.5, "lost_from": 32.0}  # all of gain 0.5, nothing of gain 32
    assert facts["minmax"]["newton"]["solved"] == 1.0
    assert facts["minmax_spread"] <= 1  # a clamp has no scale
    failed = data["status"] != "converged"
    assert np.isnan(converged(data, "iterations").values[failed.values]).all()


def test_basins(ran):
    facts, _ = ran("basins")
    assert facts["gru"]["newton"]["solved"] > 0.9
    assert 0 < facts["elman"]["newton"]["solved"] < 1
    low, high = facts["gru"]["newton"]["counts"]
    assert 1 <= low < high <= facts["maxiter"]
    assert facts["elman"]["quasi_newton"]["solved"] < facts["elman"]["newton"]["solved"]


def test_speed(ran):
    facts, data = ran("speed")
    assert facts["worst_error"] < 1e-5  # of single precision
    times = data["seconds"].sel(
        backend=["numpy", "numba"], solver=[s for s in data["solver"].values if "torch" not in s]
    )
    assert (times > 0).all()
    assert (data["seconds_low"].values <= data["seconds"].values)[np.isfinite(data["seconds"].values)].all()
    panel = facts["diagonal, numba"]
    assert panel["loop_over_numpy"] < 1  # compiled against interpreted
    diagonal = times.sel(mixing="diagonal")
    fastest = diagonal.drop_sel(solver="sequential").sel(backend="numba").min("solver")
    loop = diagonal.sel(solver="sequential").min("backend")  # what one would run else, of any backend
    assert panel["best"] == pytest.approx(float((fastest / loop).min()))


# The report


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    for name in CATALOGUE:
        tiny(name, tmp_path_factory)
    return write_report([get(name) for name in CATALOGUE], folder(tmp_path_factory), {})


def test_the_tiny_report_has_every_figure_and_sentence(report):
    html = report.read_text()
    for name in CATALOGUE:
        for picture in get(name).pictures:
            assert f'id="{name.replace("/", "-")}-{picture.name}"' in html
        assert f"recsolve study run {name} --tiny" in html


def test_a_browser_shows_every_figure(report, tmp_path):
    page = tmp_path / "report.html"
    sizes = (
        "<pre id=sizes></pre><script>onload = () => sizes.textContent = JSON.stringify([document.body.scrollWidth, "
        "[...document.images].map(i => [i.alt, i.naturalWidth, i.naturalHeight, i.clientWidth])])</script></body>"
    )
    page.write_text(report.read_text().replace("</body>", sizes))
    command = [*headless(tmp_path / "profile"), "--virtual-time-budget=20000", "--window-size=390,844", "--dump-dom"]
    command.append(page.as_uri())
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    width_of_page, images = json.loads(re.search(r'<pre id="sizes">(.*?)</pre>', shown).group(1))
    assert width_of_page <= 500, "something is wider than a phone and has no box of its own"  # no window is narrower
    assert [alt for alt, *_ in images] == [f"{n}: {picture.name}" for n in CATALOGUE for picture in get(n).pictures]
    for alt, width, height, there in images:
        assert width > 100, alt
        assert height > 50, alt
        assert there > 100, alt
