"""The report's page: its stories name what there is, its colours stay apart, and its charts survive the packing."""

import base64
import gzip
import itertools
import json
import re

import numpy as np
import pytest

from experiments.harness import chart_parts
from experiments.harness.figures import Curve, Panel, bars, heatmap, labelled_images, lines
from experiments.harness.report import page, stories
from experiments.harness.report.papers import ADDRESSES, WITHOUT_ADDRESS, paper_address
from experiments.harness.report.pictures import write_pictures
from experiments.harness.report.stories import STORIES, shown_stories
from experiments.harness.topics import load, topic_names
from funcnn.practice import tasks

STYLE = (page.HERE / "page.css").read_text(encoding="utf-8")
SERIES = [colours.split() for colours in re.findall(r"--series: ([^;]+);", STYLE)]
# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009.
BLINDNESS = {
    "none": np.eye(3),
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour, blindness):
    """Return a colour's CIELAB coordinates as somebody with a blindness sees it."""
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(BLINDNESS[blindness]) @ linear, 0, 1)
    to_xyz = [[0.41246, 0.35758, 0.18044], [0.21267, 0.71515, 0.07218], [0.01933, 0.11919, 0.95030]]
    x, y, z = np.cbrt(np.maximum(to_xyz @ seen / [0.95047, 1, 1.08883], 1e-3))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("colours", SERIES, ids=("light", "dark"))
def test_ten_colours_stay_apart(colours, blindness):
    assert len(colours) == 10
    seen = [lab(colour, blindness) for colour in colours]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 15


def test_there_are_eight_stories():
    assert len(STORIES) == len({story.name for story in STORIES}) == 8


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_story_names_what_there_is(story):
    experiment = load(story.experiment)
    assert story.part in [part.title for part in experiment.parts]
    assert set(story.claims) <= {claim.name for claim in experiment.claims}
    assert set(re.findall(r"{([\w-]+)", story.finding)) <= set(story.claims)
    assert set(story.exercises) <= {task.name for task in tasks()}


def sources():
    """Return the sources of the claims of every topic."""
    return {claim.source for name in topic_names() for claim in load(name).claims if claim.source}


def test_every_source_has_an_address_or_a_reason():
    assert len(sources()) > 30
    assert {source for source in sources() if not paper_address(source)} == set(WITHOUT_ADDRESS)
    assert all(WITHOUT_ADDRESS.values())


def test_every_address_is_of_a_paper_that_is_named():
    named = [*sources(), *(paper for story in STORIES for paper in story.papers)]
    assert {words for words in ADDRESSES if not any(words in source for source in named)} == set()
    assert all(re.fullmatch(r"https://\S+", address) for address in ADDRESSES.values())
    assert len(set(ADDRESSES.values())) == len(ADDRESSES)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_story_links_its_papers(story):
    assert story.papers
    assert all(paper_address(paper) for paper in story.papers)
    assert {claim.source for claim in load(story.experiment).claims if claim.source} <= set(story.papers)


def record(story, estimates):
    panels = [{"subtitle": str(number), "specification": {}, "thresholds": ()} for number in range(5)]
    figure = {"title": "a figure", "alternative": "words", "caption": "", "panels": panels}
    findings = [{"name": name, "estimate": value} for name, value in estimates.items()]
    parts = [{"title": story.part, "findings": findings, "figures": [figure]}]
    return {"name": story.experiment, "title": "a title", "parts": parts}


def test_a_finding_has_the_measured_figures():
    story = STORIES[1]
    estimates = dict(zip(story.claims, (-6.36, -17.0, -0.7, -62.8), strict=True))
    [shown] = shown_stories([record(story, estimates)])
    for words in ("10⁻⁶ of its size", "to 10⁻¹⁷ with", "to 10⁻¹ with N(0, 1)", "to 10⁻⁶³."):
        assert words in shown.finding
    assert [one["name"] for one in shown.results] == list(story.claims)


def test_a_story_shows_the_chosen_panels():
    [story] = [one for one in STORIES if one.panels]
    [shown] = shown_stories([record(story, dict.fromkeys(story.claims, 0.5))])
    assert [panel["subtitle"] for panel in shown.figure["panels"]] == [str(number) for number in story.panels]


def test_a_story_without_its_measurement_is_left_out():
    story = STORIES[0]
    assert shown_stories([record(story, dict.fromkeys(story.claims[1:], 0.5))]) == []
    assert shown_stories([{"name": story.experiment, "title": "", "parts": [{"title": story.part}]}]) == []


def test_a_chart_travels_once():
    charts = page.Charts()
    assert [charts.number({"a": 1}), charts.number({"b": [2.5]}), charts.number({"a": 1})] == [0, 1, 0]
    assert json.loads(gzip.decompress(base64.b64decode(charts.packed()))) == [{"a": 1}, {"b": [2.5]}]


def test_panels_of_a_figure_have_one_height():
    panels = [{"specification": {"height": height}} for height in (260, 320)]
    assert [panel["specification"]["height"] for panel in page.level_panels(panels)] == [320, 320]
    stepped = [{"specification": {"height": {"step": 26}}}, *panels]
    assert page.level_panels(stepped) == stepped


@pytest.mark.parametrize(
    ("values", "powers"),
    [([0.002, 30.0], [-3, -2, -1, 0, 1, 2]), ([2.0, 9.0], []), ([1e-30, 1.0], [-30, -25, -20, -15, -10, -5, 0])],
)
def test_logarithmic_axes_have_powers_of_ten(values, powers):
    drawn = lines({"a": Curve([1, 2], values)}, x="x", y="y", log="y").specification
    axis = drawn["layer"][0]["encoding"]["y"]["axis"]
    assert np.log10(axis.get("values", [])).round().tolist() == powers
    assert (axis["format"] == chart_parts.POWERS) == bool(powers)


def test_names_of_thresholds_stand_outside_the_chart():
    drawn = bars({"a": 0.5}, x="accuracy", thresholds={"guessing": 0.1, "paper": 0.4})
    assert drawn.thresholds == ("guessing", "paper")
    assert '"text"' not in json.dumps(drawn.specification)
    patterns = [layer["mark"]["strokeDash"] for layer in drawn.specification["layer"] if "strokeDash" in layer["mark"]]
    assert patterns == [list(dashes) for dashes in chart_parts.DASHES[:2]]


def test_cells_have_numbers():
    drawn = heatmap([[0.0, 3.0]], rows=["r"], columns=["a", "b"], x="x", y="y", value="v",
                    number=lambda count: f"{count:.0f}" if count else "")  # fmt: skip
    assert isinstance(drawn, Panel)
    assert [layer["mark"]["type"] for layer in drawn.specification["layer"]] == ["rect", "text", "text"]
    assert [cell["text"] for cell in drawn.specification["data"]["values"]] == ["", "3"]


def test_plain_cells_have_a_number_and_no_colour():
    drawn = heatmap([[7.0, 1.0], [0.0, 9.0]], rows="ab", columns="ab", x="x", y="y", value="v",
                    number=lambda value: f"{value:.0f}", plain=np.eye(2, dtype=bool))  # fmt: skip
    cells = drawn.specification["data"]["values"]
    assert [(cell["value"], cell["text"]) for cell in cells] == [(None, "7"), (1.0, "1"), (0.0, "0"), (None, "9")]


def test_pictures_are_files_with_their_labels(tmp_path):
    panels = (labelled_images(np.ones((3, 4, 4)), ["1 → 7", "2 → 3", "9 → 4"], columns=2),)
    figure = {"title": "Three images", "panels": [panel._asdict() for panel in panels]}
    numbers = heatmap([[0.0, 5.0]], rows=["r"], columns=["a", "b"], x="x", y="y", value="v", number=str)
    two = {"title": "Two panels", "panels": [numbers._asdict()] * 2}
    files = write_pictures([{"parts": [{"figures": [figure, two]}, {}]}], tmp_path / "pictures")
    assert [file.name for file in files] == ["01_three_images.svg", "02_two_panels_1.svg", "02_two_panels_2.svg"]
    drawn = files[0].read_text(encoding="utf-8")
    assert all(label in drawn for label in ("Three images", "1 → 7", "9 → 4"))
    assert drawn.count("<image") == 3
    assert 'fill="white">5.0</text>' in files[1].read_text(encoding="utf-8")


def test_estimates_are_written_as_told():
    written = [format(stories._Estimate(value), form) for value, form in ((0, "%"), (0.667, "%"), (0.0834, "points"))]
    assert written == ["0%", "66.7%", "8.3"]


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (5.5e-7, "5.5·10⁻⁷"),
        ("3.39e+38", "3.39·10³⁸"),
        ("-1e-05", "−1·10⁻⁵"),
        ("-2.5 %", "−2.5 %"),
        ("one-hot", "one-hot"),
    ],
)
def test_figures_in_cells_are_written_as_people_write_them(cell, shown):
    assert page.format_cell(cell) == shown
