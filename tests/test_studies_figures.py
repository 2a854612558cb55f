"""What holds of the figures and captions of every study, and of the parts that they are drawn with."""

import json
import pickle
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from figure_faults import faults
from tiny_studies import tiny

from recsolve.studies.draw.drawing import counted
from recsolve.studies.draw.series import ending
from recsolve.studies.draw.style import house_style, integer_ticks, plain_ticks
from recsolve.studies.registry import CATALOGUE, get

# Three that were found, and what they were found at; "float32", "h[0]", "2^k" and "x = 3" in a name are no numbers.
MOST_NUMBERS = 5
STUDIES = Path(__file__).parent.parent / "docs" / "studies"
NUMBER = re.compile(r"(?<![\w.^-])-?\d[\d.]*(?:e[-+]?\d+)?")


@pytest.mark.parametrize("name", CATALOGUE)
def test_figures_can_be_read(name, tmp_path_factory):
    """Panels have labels, iterations whole ticks, legends distinct entries, and nothing is cut at the border."""
    found = json.loads((tiny(name, tmp_path_factory).folder / "faults.json").read_text())
    assert list(found) == [picture.name for picture in get(name).pictures]
    assert not any(found.values()), found


@pytest.mark.parametrize("name", CATALOGUE)
def test_captions_are_sentences_with_few_numbers(name, tmp_path_factory):
    captions = json.loads((tiny(name, tmp_path_factory).folder / "captions.json").read_text())["captions"]
    for picture, caption in captions.items():
        assert len(NUMBER.findall(caption)) <= MOST_NUMBERS, (picture, caption)
        assert caption[-1] == ".", (picture, caption)
        assert not re.search(r"\b1 (seeds|units|layers|cells|answers|iterations)\b|  ", caption), (picture, caption)


def test_the_page_of_studies_is_whole_and_can_be_read():
    """Every picture is there, none is left over, and captions that were written by larger sweeps are as short."""
    page = (STUDIES / "README.md").read_text(encoding="utf-8")
    captions = dict(re.findall(r"^!\[[^]]*\]\(([^)]*)\)\n\n(.*)$", page, re.MULTILINE))
    assert set(captions) == {path.name for path in STUDIES.glob("*.png")}
    for name, caption in captions.items():
        assert len(NUMBER.findall(caption)) <= MOST_NUMBERS, (name, caption)
    assert re.findall(r"^## (\S+)$", page, re.MULTILINE) == [*CATALOGUE]


def drawn(scale, low, high, size=(3.0, 2.4), side="x", tick=integer_ticks):
    """Return the labels of an axis that goes from one number to another."""
    with house_style() as pyplot:
        figure, axes = pyplot.subplots(figsize=size)
        axes.plot([low, high], [low, high])
        getattr(axes, f"set_{side}scale")(scale, **({"linthresh": 1, "linscale": 0.4} if scale == "symlog" else {}))
        axis = getattr(axes, f"{side}axis")
        tick(axis)
        pyplot.close(figure)
        figure = pickle.loads(pickle.dumps(figure))
        figure.draw_without_rendering()
        axis = getattr(figure.axes[0], f"{side}axis")
        first, last = sorted(axis.get_view_interval())
        shown = [t for t, v in zip(axis.get_ticklabels(), axis.get_majorticklocs(), strict=True) if first <= v <= last]
        boxes = [text.get_window_extent() for text in shown]
        pyplot.close(figure)
    assert not any(a.overlaps(b) for a, b in pairwise(boxes)), shown
    return [text.get_text() for text in shown]


@pytest.mark.parametrize("side", "xy")
@pytest.mark.parametrize("scale", ["linear", "log", "symlog"])
@pytest.mark.parametrize("high", [1, 3, 4, 7, 12, 30, 256, 1000])
def test_counts_have_whole_ticks_that_do_not_touch(side, scale, high):
    labels = drawn(scale, 1, high, side=side)
    assert labels
    assert all(re.fullmatch(r"\d+", label) for label in labels), labels
    if 2 < high < 6:
        assert labels[-1] == str(high) or int(labels[-1]) > high - 2  # the last iteration can be read off


def test_few_iterations_have_a_tick_each():
    assert drawn("symlog", 0, 4) == ["0", "1", "2", "3", "4"]


def test_ratios_have_plain_ticks():
    labels = drawn("log", 0.2, 6, side="y", tick=plain_ticks)
    assert {"0.2", "0.5", "1", "2", "5"} <= set(labels)


def test_a_line_that_ends_says_why_and_one_that_does_not_is_silent():
    with house_style() as pyplot:
        figure, axes = pyplot.subplots()
        ending(axes, [1, 2, 3], [1.0, np.nan, 2.0], "overflows")
        assert not axes.texts
        ending(axes, [1, 2, 3], [1.0, 2.0, np.nan], "overflows")
        assert [(text.get_text(), text.xy) for text in axes.texts] == [("overflows", (2.0, 2.0))]
        ending(axes, [], [], "overflows")
        ending(axes, [1], [np.nan], "overflows")
        assert len(axes.texts) == 1
        pyplot.close(figure)


def test_one_is_no_plural():
    assert [counted(n, "seed") for n in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]


def _unlabelled(axes):
    axes.set_xlabel("")


def _half(axes):
    axes.set_xticks([0.5, 1.5])


def _powers(axes):
    axes.set_xscale("log")


def _twice(axes):
    axes.plot([1, 2], [2, 1], color="k", label="one")
    axes.plot([1, 2], [1, 2], color="r", label="one")
    axes.legend()


def _alike(axes):
    axes.plot([1, 2], [2, 1], color="k", label="one")
    axes.plot([1, 2], [1, 2], color="k", label="two")
    axes.legend()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_unlabelled, "has no label of x"), (_half, "counts 'iteration' at"), (_powers, "writes 'iteration' as"),
        (_twice, "a legend names"), (_alike, "look alike"), (lambda axes: None, None),
    ],
)  # fmt: skip
def test_the_faults_of_figures_are_found(damage, said):
    """The check above would find what it looks for."""
    with house_style() as pyplot:
        figure, axes = pyplot.subplots()
        axes.plot([1, 100], [1, 2])
        axes.set(xlabel="iteration", ylabel="error")
        damage(axes)
        figure.draw_without_rendering()
        found = faults(figure)
        pyplot.close(figure)
    assert not found if said is None else any(said in fault for fault in found), found


def test_text_that_is_cut_is_found():
    with house_style() as pyplot:
        figure = pyplot.figure(figsize=(2, 2), layout="none")
        figure.text(0.9, 0.5, "a text that ends outside")
        figure.draw_without_rendering()
        assert "cut at the border" in faults(figure)[0]
        pyplot.close(figure)
