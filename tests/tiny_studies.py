"""The studies on their tiny grids: run, drawn and judged once for all workers of pytest, whichever needs one first."""

import json
import os
import time
from pathlib import Path
from unittest import mock

from figure_faults import faults

from recsolve.studies.draw import drawing
from recsolve.studies.registry import get
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
    root = folder(tmp_path_factory)
    place, lock, done = (
        Place(root, name),
        root / f"{name.replace('/', '-')}.lock",
        root / f"{name.replace('/', '-')}.done",
    )
    try:
        lock.mkdir()
    except FileExistsError:
        _wait(done)
        return place
    try:
        study = get(name)
        state = sweep(study, study.tiny, place, workers=1)
        (place.folder / "faults.json").write_text(json.dumps(_drawn(study, place)))
        done.write_text(f"{state.failed} failed")
    except BaseException as error:
        done.write_text(f"{type(error).__name__}: {error}")
        raise
    return place


def _drawn(study, place):
    """Draw as SVG (the others cost more time than they can tell), and return the faults of every picture."""
    figures, draw = {}, drawing.drawn

    def kept(pyplot, picture, data):
        figures[picture.name] = draw(pyplot, picture, data)
        return figures[picture.name]

    with mock.patch.object(drawing, "drawn", kept):
        plot(study, place, ["svg"])
    return {name: faults(figure) for name, figure in figures.items()}


def _wait(done: Path):
    deadline = time.monotonic() + PATIENCE
    while not (done.is_file() and done.read_text()):
        assert time.monotonic() < deadline, f"no {done.name}"
        time.sleep(0.05)
    assert done.read_text() == "0 failed", f"another worker ran it: {done.read_text()}"
