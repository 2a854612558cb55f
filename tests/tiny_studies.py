"""The studies on their tiny grids: run, drawn and judged once for all workers of pytest, whichever needs one first."""

import json
import os
import time
import traceback
from unittest import mock

from figure_faults import faults

from recsolve.studies.draw import drawing
from recsolve.studies.registry import CATALOGUE, get
from recsolve.studies.store.files import replace_into_place
from recsolve.studies.sweep import Place, plot, sweep

PATIENCE = 300.0


def folder(tmp_path_factory):
    """Return the folder that all workers share."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny-studies"
    shared.mkdir(exist_ok=True)
    return shared


def tiny(name, tmp_path_factory):
    """Return a study's place, where its tiny grid has been run and drawn."""
    root, deadline = folder(tmp_path_factory), time.monotonic() + PATIENCE
    _run(name, root)
    others = iter(CATALOGUE)
    while not _said(name, root):  # another worker runs it: rather than wait, run one that none has begun
        assert time.monotonic() < deadline, f"{name} does not end"
        if not any(_run(other, root) for other in others):
            time.sleep(0.05)
    assert _said(name, root) == "0 failed", _said(name, root)
    return Place(root, name)


def _run(name, root):
    """Run and draw a study, and write how that went, unless that has been begun; return whether this did it."""
    place = Place(root, name)
    try:
        _beside(name, root, "lock").mkdir()
    except FileExistsError:
        return False
    try:
        study = get(name)
        state = sweep(study, study.tiny, place, workers=1)
        (place.folder / "faults.json").write_text(json.dumps(_drawn(study, place)))
        said = f"{state.failed} failed"
    except Exception:  # what needs this study fails, in whichever worker that is
        said = traceback.format_exc()
    with replace_into_place(_beside(name, root, "done")) as part:
        part.write_text(said)
    return True


def _said(name, root):
    """Return how the run of a study went, or nothing before its end."""
    done = _beside(name, root, "done")
    return done.read_text() if done.is_file() else ""


def _beside(name, root, what):
    return root / f"{name.replace('/', '-')}.{what}"


def _drawn(study, place):
    """Draw as SVG (the others cost more time than they can tell), and return the faults of every picture."""
    figures, draw = {}, drawing.drawn

    def kept(pyplot, picture, data):
        figures[picture.name] = draw(pyplot, picture, data)
        return figures[picture.name]

    with mock.patch.object(drawing, "drawn", kept):
        plot(study, place, ["svg"])
    return {name: faults(figure) for name, figure in figures.items()}
