"""The pages of the documentation: links lead to headings that are there, what is counted is up to date."""

import importlib.util
import re
import tomllib
from functools import reduce
from pathlib import Path

import pytest

import recsolve as rs
from recsolve.solvers import REGISTRY
from recsolve.solvers.registry import applicable
from recsolve.studies.problems.gallery import PROBLEMS

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("facts", ROOT / "docs" / "facts.py")
facts = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(facts)
SOLVERS = ROOT / "docs" / "solvers"

every_page = pytest.mark.parametrize("page", facts.pages(), ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page):
    """Return the names that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named(name):
    """Return what a name of the package stands for, None if there is nothing."""
    return reduce(lambda found, part: getattr(found, part, None), name.split("."), rs)


@every_page
def test_links_lead_to_headings_that_are_there(page):
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        found = page.parent / target if target else page
        assert found.exists(), target
        if anchor.startswith("recsolve."):  # the site leads to the reference
            assert named(anchor.removeprefix("recsolve.")), anchor
        else:
            assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


@every_page
def test_what_is_counted_is_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    assert facts.current(text) == text, "python docs/facts.py writes it anew"
    # A line that begins with a comment is HTML to its end: Markdown in it would be shown as it is written.
    assert not re.search(r"^ *<!-- .*-->.", text, flags=re.MULTILINE)


@every_page
def test_names_of_the_package_that_a_page_quotes_are_there(page):
    if page.name == "changelog.md":
        return  # names of earlier days
    for name in set(re.findall(r"`rs\.(\w[\w.]*\w)", page.read_text(encoding="utf-8"))):
        assert named(name), f"rs.{name}"


def test_facts_that_are_out_of_date_are_found():
    assert (
        facts.current("<!-- fact: solvers -->0<!-- /fact --> solvers")
        != "<!-- fact: solvers -->0<!-- /fact --> solvers"
    )
    with pytest.raises(KeyError):
        facts.current("<!-- fact: no-such -->0<!-- /fact -->")


def test_every_solver_is_on_the_page_of_its_group_and_on_no_other():
    found = [
        (name, page.name)
        for page in sorted(SOLVERS.glob("*.md"))
        for name in re.findall(r"^## `(\w+)`$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]
    assert sorted(found) == sorted((name, facts.page_of(solver.group)) for name, solver in REGISTRY.items())


@pytest.mark.parametrize("name", REGISTRY)
def test_a_page_says_of_each_solver_what_one_wants_to_know(name):
    text = (SOLVERS / facts.page_of(REGISTRY[name].group)).read_text(encoding="utf-8")
    section = re.split(r"^## ", text.partition(f"\n## `{name}`\n")[2], flags=re.MULTILINE)[0]
    assert "$$" in section
    for what in ("Guaranteed", "Cost", "Take it", "Source"):
        assert f"\n- **{what}**" in section, what


def test_the_readme_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| extra |")[2].partition("\n\n")[0]
    assert not {extra for extra in extras if f"`{extra}`" not in table}


def test_the_gallery_has_all_its_problems_with_all_solvers_that_apply():
    assert list(facts.gallery()) == list(PROBLEMS)
    assert len(PROBLEMS) == 12, "pages call it the twelve problems"
    for name, found in facts.gallery().items():
        assert list(found) == applicable(PROBLEMS[name](0))


@pytest.mark.parametrize(
    ("problem", "solver"),
    [("minmax_ties", "newton"), ("near_critical", "jacobi"), ("resets", "gauss_seidel"), ("langevin", "windowed")],
)
def test_the_gallery_has_the_iterations_that_its_problems_take(problem, solver):
    with rs.backend("numpy"):
        found = rs.solve(PROBLEMS[problem](0), method=solver)
    assert found.success
    assert abs(facts.gallery()[problem][solver] - found.nit) <= 1


def test_every_fact_is_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in facts.pages())
    assert not {name for name in facts.FACTS if f"<!-- fact: {name} " not in text}
