"""What all plots share: colours, the figure, notebooks, and matplotlib as an optional package."""

import ast
import itertools
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest

import funcnn as fnn
from funcnn.plots import _style
from tests.plots.cases import history

# To the linear RGB that a reader without one kind of cones sees; Machado, Oliveira and Fernandes 2009, table 1.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
LEAST_DIFFERENCE = 9.0
"""In CIELAB. 2.3 is just noticeable side by side; marks on a page are apart."""


def lab_of(rgb):
    """CIELAB of linear RGB, for the white of sRGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ rgb / to_xyz.sum(axis=1)
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def linear_rgb(colour):
    channels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_ten_colours_differ_for_every_reader(blindness):
    assert len(_style.COLOURS) == len(_style.MARKERS) == 10
    seen = [lab_of(np.clip(BLINDNESS[blindness] @ linear_rgb(colour), 0, 1)) for colour in _style.COLOURS]
    least = min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2))
    assert least > LEAST_DIFFERENCE


def test_plots_draw_in_the_figure_that_is_given_and_show_in_notebooks():
    whole = matplotlib.figure.Figure()
    left, right = whole.subfigures(1, 2)
    assert fnn.plot_history(history([2.0, 1.0]), figure=left) is left
    assert fnn.plot_kernels(np.eye(4), figure=right) is right
    assert len(whole.axes) == 3
    assert fnn.plot_history(history([2.0]))._repr_png_().startswith(b"\x89PNG")


def test_matplotlib_is_imported_by_the_plots_alone_and_missed_with_advice(monkeypatch):
    for file in Path(fnn.__file__).parent.rglob("*.py"):
        imported = [
            node for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert not [node for node in imported if "matplotlib" in ast.unparse(node)], file
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"plot_history: expected matplotlib.*pip install 'funcnn\[plots\]'"):
        fnn.plot_history(history([1.0]))
