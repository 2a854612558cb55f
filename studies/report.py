"""The report: one HTML file with every figure, table, config and sentence, and nothing outside it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsolve.studies.files import replace_into_place
from recsolve.studies.provenance import provenance
from recsolve.studies.registry import Study
from recsolve.studies.sweep import Place

if TYPE_CHECKING:
    from xarray import Dataset

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>recsolve: studies of parallel solvers of recurrences</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h2 { margin-top: 3rem; border-top: 1px solid #ccc; padding-top: 1.5rem; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; }
figcaption, .small { color: #444; font-size: 0.92rem; }
table { border-collapse: collapse; font-size: 0.88rem; margin: 1rem 0; }
th, td { padding: 0.15rem 0.8rem 0.15rem 0; text-align: left; border-bottom: 1px solid #eee; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.3rem; }
pre { background: #f6f6f6; padding: 0.7rem; overflow-x: auto; font-size: 0.82rem; }
nav a { margin-right: 1rem; }
</style></head><body>
<h1>Studies of parallel solvers of recurrences</h1>
<p>Written by recsolve {{ here.versions.recsolve }} on {{ here.time }}{% if here.commit %}, commit
<code>{{ here.commit[:12] }}</code>{% endif %}. Every sentence under a figure is computed from the numbers that the figure
shows. A line is a solver, the same in all figures; a band is the range over seeds; what did not converge is not drawn as
if it had.</p>
<nav>{% for s in studies %}<a href="#{{ s.id }}">{{ s.name }}</a> {% endfor %}</nav>
{% for s in studies %}
<section id="{{ s.id }}"><h2>{{ s.name }}</h2><p><strong>{{ s.question }}</strong></p>
{% for f in s.figures %}<figure id="{{ s.id }}-{{ f.name }}"><img alt="{{ s.name }}: {{ f.name }}"
src="data:image/svg+xml;base64,{{ f.image }}"><figcaption>{{ f.says }}</figcaption></figure>
{% endfor %}{% for t in s.tables %}<table><caption>{{ t.title }}</caption><thead><tr>{% for h in t.head %}<th>{{ h }}</th>
{% endfor %}</tr></thead><tbody>{% for row in t.rows %}<tr>{% for c in row %}<td>{{ c }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>{% endfor %}
<details><summary>Config, and how to reproduce it</summary>
<pre>{{ s.config }}</pre>
<p class="small">Store this as <code>config.toml</code>, then:</p>
<pre>recsolve study run {{ s.name }} --config config.toml</pre>
<p class="small">{{ s.done }} of {{ s.runs }} runs done, {{ s.failed }} failed; {{ "%.0f"|format(s.seconds) }} s of computing.
{% for p in s.provenance %}recsolve {{ p.versions.recsolve }}, Python {{ p.versions.python }}, NumPy {{ p.versions.numpy }},
{{ p.machine.processor }}, {{ p.machine.cores }} cores, backend {{ p.backend }}, {{ p.threads }} threads a run, commit
{{ p.commit or "unknown" }}, {{ p.from }} to {{ p.to }}. {% endfor %}</p></details>
</section>{% endfor %}
</body></html>
"""


def write_report(studies: Sequence[Study], root: Path) -> Path:
    """Write ``report.html`` from the stored Datasets and SVG figures of some studies.

    Parameters
    ----------
    studies : sequence of Study
        Run and drawn before.
    root : Path
        Where they are stored.

    Raises
    ------
    FileNotFoundError
        For a study that has not been run or drawn.
    """
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    html = page.render(here=provenance(), studies=[_section(study, Place(root, study.name)) for study in studies])
    path = root / "report.html"
    with replace_into_place(path) as part:
        part.write_text(html, encoding="utf-8")
    return path


def _section(study: Study, place: Place) -> dict[str, Any]:
    data = place.read()
    known = {
        name: json.loads(data.attrs[name]) for name in ("config", "runs", "done", "failed", "seconds", "provenance")
    }
    return {
        "id": study.name.replace("/", "-"),
        "name": study.name,
        "question": study.question,
        "figures": [_figure(picture, place.folder, data) for picture in study.pictures],
        "tables": study.tables(data),
        **known,
    }


def _figure(picture: Any, folder: Path, data: Dataset) -> dict[str, str]:
    path = folder / f"{picture.name}.svg"
    if not path.is_file():
        raise FileNotFoundError(f"no figure {path}; draw it first: recsolve study plot NAME")
    return {"name": picture.name, "image": b64encode(path.read_bytes()).decode(), "says": picture.says(data)}
