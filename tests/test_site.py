"""The site of the documentation: every public name is in it, every link leads somewhere, and browsers show it."""

import fcntl
import inspect
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from urllib.parse import unquote, urldefrag

import browser
import pytest

import recsolve as rs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="layers of torch are in the reference")


def extension(name):
    """One of our own extensions of Sphinx."""
    spec = spec_from_file_location(f"docs_{name}", DOCS / "_sphinx" / f"{name}.py")
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reference():
    """The extension that writes the reference."""
    return extension("reference")


@pytest.fixture(scope="session")
def site():
    """The folder of the site; what has changed is built, by one worker."""
    pytest.importorskip("myst_nb", reason="pip install -e '.[docs]' for the site")
    (DOCS / "_build").mkdir(exist_ok=True)
    with (DOCS / "_build" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["make", "-C", str(DOCS), "html", f"PYTHON={sys.executable}"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return DOCS / "_build" / "html"


@needs_torch
def test_every_public_name_has_its_place_in_the_reference(reference):
    names = [name for page in reference.pages() for name in page.names]
    assert len(names) == len(set(names))
    modules = {page.module for page in reference.pages()}
    for name in rs.__all__:
        assert f"recsolve.{name}" in modules or f"recsolve.{name}" in names, name
    for module in ("cells", "jacobians", "mixings", "graphs", "math", "nn", "testing", "kernels"):
        public = __import__(f"recsolve.{module}", fromlist=["__all__"]).__all__
        assert {f"recsolve.{module}.{name}" for name in public} <= set(names)
    assert {f"recsolve.solvers.{method.__name__}" for method in rs.solvers.REGISTRY.values()} <= set(names)


@needs_torch
def test_the_table_of_contents_has_every_page_of_the_reference(reference):
    listed = re.findall(r"^api/(\w+)$", (DOCS / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(page.file for page in reference.pages())


@needs_torch
def test_what_is_in_the_reference_says_what_it_is_and_shows_it(reference):
    for name in (name for page in reference.pages() for name in page.names if name not in reference.VALUES):
        value = reference.get(name)
        if getattr(value, "__module__", "") != "numpy":
            assert inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, rs.Cell), f"{name}: VALUES?"
            assert ">>>" in (inspect.getdoc(value) or ""), f"{name} has no example"


def test_the_citation_names_this_version():
    assert f"version = {{{rs.__version__}}}" in (DOCS / "cite.md").read_text(encoding="utf-8")


def test_docstrings_are_escaped_but_for_what_is_markup():
    pytest.importorskip("sphinx")
    lines = [
        "(T, *batch) of |h|, *native* ``*x``",
        "clip_ and [1]_ ::",
        "",
        "  *code*",
        "then *this|",
        ">>> a * b",
        "*c",
    ]
    extension("docstrings").escape(None, "", "", None, None, lines)
    assert lines[0] == r"(T, \*batch) of \|h\|, *native* ``*x``"
    assert lines[1:] == [r"clip\_ and [1]_ ::", "", "  *code*", r"then \*this\|", ">>> a * b", "*c"]


def test_equations_that_would_be_shown_wrongly_are_refused():
    pytest.importorskip("sphinx")
    nodes, convert = pytest.importorskip("docutils.nodes"), extension("mathml")._convert
    assert "<mfrac" in convert(nodes.math("", r"\frac{1}{2}"), as_block=False)
    assert "ams-align" in convert(nodes.math_block("", r"\begin{align} a &= b \end{align}"), as_block=True)
    for wrong in (r"\frac12", r"\unknown"):
        with pytest.raises(Exception, match="has no MathML"):
            convert(nodes.math("", wrong), as_block=False)


# The built site


class Links(HTMLParser):
    """The anchors and the links of a page, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loaded = {"", "top"}, set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        links = {given[key] for key in ("href", "src") if given.get(key) is not None}
        self.links |= links
        self.loaded |= links if tag != "a" and given.get("rel") != "canonical" else set()


@pytest.fixture(scope="session")
def parsed(site):
    """The links of all pages."""
    return {path: Links(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_every_link_of_the_site_leads_somewhere(parsed, site):
    lost = []
    for page, of in parsed.items():
        for link in of.links:
            if re.match(r"[a-z]+:", link):
                continue
            target, anchor = urldefrag(link)
            path = (page.parent / unquote(target.partition("?")[0])).resolve() if target else page
            known = path in parsed or (path.suffix != ".html" and path.is_file())
            if not known or (path in parsed and unquote(anchor) not in parsed[path].anchors):
                lost.append(f"{page.relative_to(site)}: {link}")
    assert not lost


def test_links_show_titles_in_the_place_of_file_names_and_numbers_are_aligned_right(site):
    for page in site.rglob("*.html"):
        assert not re.search(r">[\w/.-]+\.md(</\w+>)*</a>", page.read_text(encoding="utf-8")), page.name
    assert 'class="text-right"><p>4096<' in (site / "systems.html").read_text(encoding="utf-8")


def test_the_site_needs_no_network(parsed):
    assert not {link for of in parsed.values() for link in of.loaded if re.match(r"(https?:)?//", link)}


def test_every_public_name_is_in_the_inventory(reference, site):
    *_, packed = (site / "objects.inv").read_bytes().split(b"\n", 4)
    found = {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}
    wanted = {name for page in reference.pages() for name in (*page.names, page.module or "")} - {"", "recsolve"}
    assert wanted - found == set()


def test_every_page_is_there(site):
    made = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    pages = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    assert {page for page in pages - made if page.parts[0] not in ("_build", "runs")} == set()


def test_browsers_show_every_page_on_a_desk_and_on_a_phone(parsed, site, tmp_path):
    pages = sorted(str(path.relative_to(site)) for path in parsed)
    seen = browser.visit(site, pages, (1280, 390), tmp_path / "profile")
    assert len(seen) == 2 * len(pages)
    assert {name: of for name, of in seen.items() if of["over"] > 0 or of["complaints"]} == {}
